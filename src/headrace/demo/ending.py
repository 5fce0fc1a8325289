"""How `headrace demo` ends: a question answered by a model over live context.

The context is read and shown as the model gets it. Then the app's own chat endpoint is asked, over HTTP as any OpenAI
client would: before a model server of HEADRACE_UPSTREAMS, or else before the small model of `headrace.demo.model` if it
is installed. Where there is no model, or it does not answer in time, the context and the reason are what is shown.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from rich.rule import Rule
from rich.text import Text

from headrace.demo import flights, model
from headrace.demo.app import app, trip, weather
from headrace.demo.board import short_time
from headrace.demo.replay import newest
from headrace.errors import HeadraceError
from headrace.serving.server import BackgroundServer
from headrace.upstream.spec import Upstream, from_environment

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.assembly.pack import Pack
    from headrace.serving.live import Live

QUESTION = "I fly from Newark to Chicago tonight. Should I expect a delay?"
ARGUMENTS: dict[str, Any] = {"origin": "EWR", "dest": "ORD", "question": QUESTION}
# Seconds for the answer, with all that the model does before it.
PATIENCE = 30.0
# A small model is given less, and says less.
SMALL_BUDGET, SMALL_TOKENS, TOKENS = 700, 80, 300
_LINES = 30
_INDENT = "        "


@dataclass(frozen=True)
class Answering:
    """Which model answers.

    Attributes:
        upstreams: Where it is.
        name: What it is asked for by; empty for what the server has.
        about: What a person is told that it is.
        small: Whether it is the small base model.
    """

    upstreams: tuple[Upstream, ...]
    name: str
    about: str
    small: bool = False


def conclude(console: Console, live: Live, folder: Path | None = None) -> None:
    """Puts the last question: the context that a model is given, and its answer if there is a model.

    Args:
        console: Where it is shown.
        live: The demo's app, with the flights replayed.
        folder: The flights' data.
    """
    token = live.push(weather, flights.weather(newest(live) or 0, folder))
    budget = SMALL_BUDGET if not _configured() and not model.missing() else None
    live.context(trip, budget=budget, after=token, **ARGUMENTS)  # the first one also waits for the weather
    began = time.perf_counter()
    pack = live.context(trip, budget=budget, **ARGUMENTS)
    took = time.perf_counter() - began
    console.print()
    title = Text.assemble((f"4  {QUESTION}", "bold"))
    console.print(Rule(title, align="left", style="cyan"))
    _print_pack(console, pack, took)
    console.print()
    try:
        with _model(console) as answering:
            _answer(console, live, answering, budget)
    except (HeadraceError, httpx.HTTPError, _NoAnswerError) as error:
        _say(console, "answer", Text("none: this context is what a model would have been given."), "bold")
        _say(console, "why", Text(_plain(str(error) or type(error).__name__)))


class _NoAnswerError(Exception):
    """There is no model, or it did not answer."""


def _configured() -> bool:
    with contextlib.suppress(HeadraceError):
        return bool(from_environment())
    return True  # wrongly: `_model` says what is wrong with it


@contextlib.contextmanager
def _model(console: Console) -> Iterator[Answering]:
    """The model that answers: the one configured, else the small one, started for as long as this lasts."""
    if upstreams := from_environment():
        first = upstreams[0]
        name = first.model or _first_model(first)
        yield Answering(upstreams, name, f"{name or 'the model'} at {urlsplit(first.url).netloc}")
        return
    if why := model.missing():
        raise _NoAnswerError(f"no model is configured in HEADRACE_UPSTREAMS, and the small one is not there: {why}")
    waiting = console.status("starting the small model …") if console.is_terminal else contextlib.nullcontext()
    with contextlib.ExitStack() as stack:
        with waiting:
            one = stack.enter_context(model.SmallModel())
        yield Answering((Upstream(one.url),), model.NAME, model.ABOUT, small=True)


def _first_model(upstream: Upstream) -> str:
    """The first model that a server has; empty if it does not say."""
    key = upstream.key()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with contextlib.suppress(httpx.HTTPError, ValueError, LookupError, TypeError):
        found = httpx.get(f"{upstream.url.rstrip('/')}/models", headers=headers, timeout=5)
        return str(found.json()["data"][0]["id"])
    return ""


def _answer(console: Console, live: Live, answering: Answering, budget: int | None) -> None:
    """Asks the app's chat endpoint, and prints the answer as it comes."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": SMALL_TOKENS if answering.small else TOKENS,
        "headrace": {"arguments": ARGUMENTS} | ({"budget": budget} if budget else {}),
    }
    body |= {"model": answering.name} if answering.name else {}
    body |= {"stop": model.LINE} if answering.small else {}
    declared = app.endpoint
    app.endpoint = None
    try:
        # The tools are left out: what they would tell stands in the context.
        app.chat(context=trip, upstreams=answering.upstreams, tools=False, time_limit=PATIENCE)
        with BackgroundServer(live) as server:
            _stream(console, f"{server.url}/v1/chat/completions", body, answering)
    finally:
        app.endpoint = declared


def _stream(console: Console, url: str, body: dict[str, Any], answering: Answering) -> None:
    began = time.perf_counter()
    flow = _Flow(console)
    first, last = 0.0, {}
    _say(console, "model", Text(_plain(answering.about)))
    with httpx.stream("POST", url, json=body, timeout=PATIENCE + 5) as response:
        if response.status_code != 200:
            raise _NoAnswerError(f"{answering.about}: {_message(response.read())}")
        for chunk in _chunks(response):
            if "error" in chunk:
                flow.end()
                _say(console, "broke", Text(_plain(str(chunk["error"].get("message", "")))), "red")
                return
            last = chunk
            said = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if said and not first:
                first = time.perf_counter() - began
            flow.write(said)
    flow.end()
    if not first:
        raise _NoAnswerError(f"{answering.about} had nothing to say")
    spent = time.perf_counter() - began
    took = f"first words after {short_time(first)}, all after {short_time(spent)}"
    _say(console, "took", Text(took))
    _say(console, "given", Text(_plain(str(last["headrace"]["pack"]))))
    if answering.small:
        note = "This is a small base model: it was taught to go on with texts, not to answer. Do not rely on its words."
        _say(console, "", Text(note, style="dim"))


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def _message(body: bytes) -> str:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(json.loads(body)["error"]["message"])
    return body[:200].decode("utf-8", "replace")


def _print_pack(console: Console, pack: Pack, took: float) -> None:
    """The context as a model gets it, cut to a screen, and what is to be known of it."""
    as_of = pack.point.now
    at = flights.new_york(round(as_of.timestamp() * 1e6))
    _say(console, "context", Text.assemble((f"{pack.tokens} of {pack.budget} tokens", "bold"), f", {short_time(took)}"))
    _say(console, "read", Text(f"on {at} in New York, all of it at one point"))
    console.print()
    lines = [_cut(_plain(line), console.width - 4) for line in pack.render("markdown").splitlines() if line]
    for line in lines[:_LINES]:
        style = "bold" if line.startswith("## ") else "yellow" if line.startswith(("<data-", "</data-")) else "dim"
        console.print(Text.assemble(("  │ ", "cyan"), (line, style)), soft_wrap=True)
    if len(lines) > _LINES:
        more = len(lines) - _LINES
        said = f"and {more} more line{'s' * (more > 1)}"
        console.print(Text.assemble(("  ┆ ", "cyan"), (said, "dim italic")))
    console.print()
    for section in pack.sections:
        for item in section.items:
            if section.kind != "text":
                name = section.title or section.name
                age = "" if item.item.age is None else f"   {short_time(item.item.age)} old"
                _say(console, f"[{item.number}]", Text.assemble(_plain(name), (age, "dim")))


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 2].rstrip() + " …"


class _Flow:
    """Text that comes in pieces, printed word by word in lines that fit."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = max(console.width, 40)
        self._column = 0
        self._word = ""

    def write(self, text: str) -> None:
        for one in _plain(text):
            if one != " ":
                self._word += one
            elif self._word:
                self._put()

    def end(self) -> None:
        if self._word:
            self._put()
        if self._column:
            self._console.print()

    def _put(self) -> None:
        word, self._word = self._word, ""
        if not self._column:
            self._out(Text(f"{'answer':<8}", style="dim"), 8)
        elif self._column + 1 + len(word) > self._width:
            self._out(Text("\n" + _INDENT), 0)
            self._column = len(_INDENT)
        else:
            self._out(Text(" "), 1)
        self._out(Text(word, style="bold"), len(word))

    def _out(self, text: Text, size: int) -> None:
        self._console.print(text, end="", soft_wrap=True)
        self._column += size


def _say(console: Console, label: str, text: Text, style: str = "") -> None:
    """A labelled line, the lines after its first indented."""
    text.stylize(style)
    for number, line in enumerate(text.wrap(console, max(console.width - 8, 20))):
        line.rstrip()
        head = Text(f"{label if not number else '':<8}", style="dim")
        console.print(Text.assemble(head, line), soft_wrap=True)


def _plain(text: str) -> str:
    """What came from outside, as text and nothing else."""
    return "".join(one if one.isprintable() else " " for one in text)
