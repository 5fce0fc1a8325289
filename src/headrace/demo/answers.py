"""The questions that the demo asks, put through the tool interface as a model would, and how they are
printed.

A model is given the definition, chooses a tool by it, sends the call and reads the answer: each is printed as
it is, in JSON. Lines are broken for the width at hand, in strings too; nothing else is changed but floats,
rounded to read well.
"""

from __future__ import annotations

import json
import statistics
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from headrace.demo.app import Carrier, Origin, Route
from headrace.demo.board import short_time
from headrace.demo.flights import new_york
from headrace.units import to_micros

if TYPE_CHECKING:
    from headrace.serving.live import Live

QUESTIONS: tuple[tuple[str, Any, dict[str, str]], ...] = (
    ("How is Newark doing right now?", Origin, {"origin": "EWR"}),
    ("Is JetBlue keeping to its schedule?", Carrier, {"carrier": "B6"}),
    ("Will my flight from Kennedy to Los Angeles leave on time?", Route, {"origin": "JFK", "dest": "LAX"}),
)
_REPEATS = 1_000
_LABEL = 8
_STYLES = {str: "green", int: "cyan", float: "cyan", bool: "italic magenta", type(None): "italic magenta"}


@dataclass(frozen=True)
class Answer:
    """A question put through the tool interface, and the seconds it took: at first, and in the median."""

    question: str
    tool: dict[str, Any]
    arguments: dict[str, str]
    result: dict[str, Any]
    first: float
    median: float


def ask(live: Live) -> Iterator[Answer]:
    """Put the questions, each when the one before has been read."""
    tools = {tool["function"]["name"]: tool for tool in live.tools()}
    for question, view, arguments in QUESTIONS:
        began = time.perf_counter()
        result = live.call(view.name, arguments)
        times = [time.perf_counter() - began]
        for _ in range(_REPEATS - 1):
            began = time.perf_counter()
            live.call(view.name, arguments)
            times.append(time.perf_counter() - began)
        yield Answer(question, tools[view.name], arguments, result, times[0], statistics.median(times))


def print_answer(console: Console, number: int, answer: Answer) -> None:
    """Print the question, the tool, its call, and the answer with how old it is and how long it took."""
    name = answer.tool["function"]["name"]
    result = {k: round(v, 3) if isinstance(v, float) else v for k, v in answer.result.items()}
    arguments = json_text(answer.arguments, console.width, _LABEL + len(name) + 1)
    call = Text.assemble((name, "bold"), "(", arguments, ")")
    console.print()
    console.print(Rule(Text(f"{number}  {answer.question}", style="bold"), align="left", style="cyan"))
    _print_part(console, "tool", json_text(answer.tool, console.width, _LABEL))
    _print_part(console, "call", call)
    _print_part(console, "answer", json_text(result, console.width, _LABEL))
    took = f"{short_time(answer.first)}; the median of 1,000 such calls is {short_time(answer.median)}"
    _print_part(console, "took", Text(took))
    _print_part(console, "as of", Text(_freshness(answer.result)))


def _freshness(result: dict[str, Any]) -> str:
    if result.get("as_of") is None:
        return "no event of this key yet"
    moment = new_york(to_micros(datetime.fromisoformat(result["as_of"])))
    return f"{moment} in New York; the newest event is {short_time(result['age'])} old"


def _print_part(console: Console, label: str, text: Text) -> None:
    line = Text(f"{label:<{_LABEL}}", style="dim")
    console.print(Text.assemble(line, text), soft_wrap=True)


def json_text(value: Any, width: int, indent: int = 0) -> Text:
    """JSON filled into lines of `width`, those after the first indented by `indent`, in colours."""
    printer = _Printer(width, indent)
    printer.value(value, indent)
    return printer.text


class _Printer:
    """Puts as much on a line as fits: what does not fit begins a new one, one column inside its bracket."""

    def __init__(self, width: int, column: int) -> None:
        self.text = Text()
        # However narrow the terminal, a line has room for a word.
        self.width = max(width, column + 30)
        self.column = column
        self.lines = 1

    def value(self, value: Any, indent: int) -> None:
        if isinstance(value, dict | list):
            self._container(value, indent)
        elif isinstance(value, str) and self.column + len(_flat(value)) > self.width - 2:
            self._long_string(_flat(value), indent + 1)
        else:
            self._put(_flat(value), _STYLES.get(type(value), ""))

    def _container(self, value: dict[str, Any] | list[Any], indent: int) -> None:
        keyed = isinstance(value, dict)
        self._put("{" if keyed else "[")
        broken = False
        for place, name in enumerate(value):
            child = value[name] if isinstance(value, dict) else name
            key = f"{_flat(name)}: " if keyed else ""
            # Two columns each for what goes before (a comma, a blank) and what may come after (a bracket, a
            # comma).
            needed = len(key) + len(_flat(child)) + 2
            fits = self.column + 2 + needed <= self.width
            if place:
                self._put(",")
            if broken or (not fits and (place or indent + 1 + needed <= self.width)):
                self._new_line(indent + 1)
            elif place:
                self._put(" ")
            self._put(key, "blue")
            before = self.lines
            self.value(child, indent + 1)
            broken = self.lines > before
        self._put("}" if keyed else "]")

    def _long_string(self, text: str, indent: int) -> None:
        for place, line in enumerate(text.replace("\\n", "\\n\n").splitlines()):
            if place:
                self._new_line(indent)
            first = " " * (self.column - indent)
            # The blanks stand for what is on the line already.
            wrapped = textwrap.wrap(
                first + line, self.width - indent - 2, break_on_hyphens=False, drop_whitespace=False
            )
            for number, part in enumerate(wrapped):
                if number:
                    self._new_line(indent)
                last = number == len(wrapped) - 1
                shown = part.lstrip() if number else part.removeprefix(first)
                self._put(shown if last else shown.rstrip(), "green")

    def _put(self, text: str, style: str = "") -> None:
        self.text.append(text, style or None)
        self.column += len(text)

    def _new_line(self, indent: int) -> None:
        self.text.append("\n" + " " * indent)
        self.lines += 1
        self.column = indent


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
