"""`hr.llm(...)`: how a model is asked about events, as frozen data. Nothing is asked by declaring it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import msgspec
import xxhash
from pydantic import BaseModel, RootModel

from headrace.arguments import strict
from headrace.errors import ConfigError
from headrace.schema import Event
from headrace.units import DAY, HOUR, SECOND, duration
from headrace.upstream.spec import Upstream, read

OverBudget = Literal["wait", "skip"]
"""What is done with an event for which the budget has nothing left."""
Prompt = str | Callable[[Mapping[str, Any]], str]
PERIODS = {"hour": HOUR, "day": DAY}
MOST_CONCURRENT = 1_000
MOST_BATCH = 100
MOST_ATTEMPTS = 10
MILLION = 1_000_000


@dataclass(frozen=True)
class Limit:
    """The most that may be spent in a period.

    Attributes:
        what: "tokens" or "money".
        period: "hour" or "day", both by UTC.
        most: As many.
    """

    what: Literal["tokens", "money"]
    period: str
    most: float


@dataclass(frozen=True, eq=False)
class Llm:
    """How a model is asked about events; made by `hr.llm`.

    Attributes:
        prompt: A template with columns in braces, or a function from a row to a text.
        output: What an answer must be.
        instructions: What the model is told before, trusted.
        upstreams: The model servers; empty for those of `app.chat` or HEADRACE_UPSTREAMS.
        model: The model to ask for, or None.
        concurrent: Calls at a time.
        batch: Events a call.
        per_minute: Calls that may begin within any minute; None for any number.
        limits: What may be spent.
        prices: Of a million tokens, read and written.
        over_budget: What is done when nothing is left.
        time_limit: Seconds a call may take.
        attempts: How often an event is asked about whose answers are wrong.
        max_tokens: The most tokens of an answer about one event.
        cache: For how long an answer is kept, in microseconds; None for not at all.
        backlog: The most events that wait.
        options: More members of a request, as a server knows them.
        schema: The JSON Schema of an answer, in strict mode's subset.
    """

    prompt: Prompt
    output: type[BaseModel]
    instructions: str
    upstreams: tuple[Upstream, ...]
    model: str | None
    concurrent: int
    batch: int
    per_minute: int | None
    limits: tuple[Limit, ...]
    prices: tuple[float, float]
    over_budget: OverBudget
    time_limit: float
    attempts: int
    max_tokens: int
    cache: int | None
    backlog: int
    options: Mapping[str, Any] = field(repr=False)
    schema: Mapping[str, Any] = field(repr=False)

    def fingerprint(self, upstreams: Sequence[Upstream]) -> bytes:
        """16 bytes that change when the same text might be answered otherwise by these servers."""
        models = sorted({str(one.model) for one in upstreams})
        said = [self.instructions, self.model, models, self.output.__name__, self.schema, self.max_tokens, self.options]
        return xxhash.xxh3_128_digest(msgspec.json.encode(said, order="sorted"))

    def price(self, read: int, written: int) -> float:
        """What tokens cost."""
        return (read * self.prices[0] + written * self.prices[1]) / MILLION


def llm(
    prompt: Prompt,
    *,
    output: type[BaseModel],
    instructions: str = "",
    upstreams: Sequence[Upstream | str] = (),
    model: str | None = None,
    concurrent: int = 8,
    batch: int = 1,
    per_minute: int | None = None,
    tokens: int | Mapping[str, int] | None = None,
    money: float | Mapping[str, float] | None = None,
    prices: tuple[float, float] = (0.0, 0.0),
    over_budget: OverBudget = "wait",
    time_limit: str | timedelta | float = "60s",
    attempts: int = 3,
    max_tokens: int = 512,
    cache: str | timedelta | float | None = "30d",
    backlog: int = 1_000_000,
    options: Mapping[str, Any] | None = None,
) -> Llm:
    """How a language model is asked about events, for `stream.enrich`.

    Args:
        prompt: A text with columns in braces, as ``"Classify {merchant}: {text}"``; or a function from a row (a dict)
            to a text. What comes from a row is data from outside and is fenced; of a function that is its whole text,
            so what is to be done with it stands in `instructions`.
        output: A Pydantic model: what an answer must be. Its fields become columns.
        instructions: What the model is told first.
        upstreams: Model servers, or their URLs; if none are given those of `app.chat`, else of HEADRACE_UPSTREAMS.
        model: The model to ask for, where servers do not name their own.
        concurrent: How many calls may run at a time.
        batch: How many events one call may ask about: those that wait, so that nothing waits for a batch to fill.
        per_minute: How many calls may begin within any minute.
        tokens: The most tokens a day; or ``{"hour": 100_000, "day": 1_000_000}``.
        money: The most money a day; or by hour and day.
        prices: Of a million tokens that are read, and written, in the currency of `money`.
        over_budget: "wait" until the next hour or day; or "skip": events become dead letters.
        time_limit: For a call.
        attempts: How often an event is asked about whose answers are wrong, before it becomes a dead letter.
        max_tokens: The most tokens of an answer about one event.
        cache: For how long an answer stands for the same question; None asks each time.
        backlog: How many events may wait; more become dead letters, which can be replayed.
        options: More members of a request, as ``{"temperature": 0}``; one that is None takes ours out.

    Raises:
        ConfigError: An option cannot be.
    """
    _whole("concurrent", concurrent, MOST_CONCURRENT)
    _whole("batch", batch, MOST_BATCH)
    _whole("attempts", attempts, MOST_ATTEMPTS)
    _whole("max_tokens", max_tokens, MILLION)
    _whole("backlog", backlog, 1_000 * MILLION)
    if per_minute is not None:
        _whole("per_minute", per_minute, MILLION)
    if over_budget not in ("wait", "skip"):
        raise ConfigError(f'llm: expected over_budget="wait" or "skip", found {over_budget!r}')
    limits = (*_limits("tokens", tokens), *_limits("money", money))
    paid = _prices(prices)
    if any(one.what == "money" for one in limits) and not any(paid):
        raise ConfigError("llm: expected prices= with money=, found none; say what a million tokens cost")
    _text(prompt, instructions)
    return Llm(
        prompt=prompt,
        output=output,
        instructions=instructions.strip(),
        upstreams=tuple(one if isinstance(one, Upstream) else read(one) for one in upstreams),
        model=model,
        concurrent=concurrent,
        batch=batch,
        per_minute=per_minute,
        limits=limits,
        prices=paid,
        over_budget=over_budget,
        time_limit=duration(time_limit) / SECOND,
        attempts=attempts,
        max_tokens=max_tokens,
        cache=None if cache is None else duration(cache),
        backlog=backlog,
        options=dict(options or {}),
        schema=_schema(output),
    )


def _text(prompt: Prompt, instructions: str) -> None:
    if not isinstance(instructions, str):
        raise ConfigError(f"llm: expected instructions to be a text, found {instructions!r}")
    if callable(prompt):
        if not instructions.strip():
            raise ConfigError(
                "llm: expected instructions= with a prompt that is a function, found none; what the function gives is "
                "data from outside, in which a model follows no instructions"
            )
    elif not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"llm: expected a prompt: a text with {{columns}}, or a function; found {prompt!r}")


def _schema(output: type[BaseModel]) -> dict[str, Any]:
    if not (isinstance(output, type) and issubclass(output, BaseModel)) or issubclass(output, RootModel):
        raise ConfigError(f"llm: expected output to be a Pydantic model with fields, found {output!r}")
    if issubclass(output, Event):
        raise ConfigError(f"llm: expected output to be a model of answers, found {output.__name__}, which is of events")
    if not output.model_fields:
        raise ConfigError(f"llm: expected fields in {output.__name__}, found none")
    return strict(output.model_json_schema())


def _whole(label: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"llm: expected {label} from 1 to {most:,}, found {value!r}")


def _limits(what: Literal["tokens", "money"], given: float | Mapping[str, float] | None) -> list[Limit]:
    if given is None:
        return []
    found = given if isinstance(given, Mapping) else {"day": given}
    for period, most in found.items():
        if period not in PERIODS:
            raise ConfigError(f'llm: expected {what} by "hour" or "day", found {period!r}')
        if isinstance(most, bool) or not isinstance(most, int | float) or not most > 0:
            raise ConfigError(f"llm: expected {what} greater than 0, found {most!r}")
    return [Limit(what, period, most) for period, most in found.items()]


def _prices(given: Any) -> tuple[float, float]:
    try:
        of_read, of_written = (float(one) for one in given)
    except (TypeError, ValueError):
        of_read = of_written = -1.0
    if not (0 <= of_read < float("inf") and 0 <= of_written < float("inf")):
        raise ConfigError(f"llm: expected prices=(of a million tokens read, written), found {given!r}")
    return of_read, of_written
