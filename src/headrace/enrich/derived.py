"""The events that come of enriching a stream: the input's columns and the answer's, as one model.

An answer is judged by the output's own model and turned into columns by the code that decodes events: there is one
meaning of "valid" and one of "storable".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import polars as pl
from pydantic import BaseModel, create_model

from headrace.errors import ConfigError
from headrace.formats import decode_rows
from headrace.schema import Event, Schema, event_time

# A stream's model has an event time; an answer has none. This one is put in to decode it, and taken out again.
_TIME = "headrace_event_time"


class BadAnswerError(ValueError):
    """An answer that cannot be used; the message is the reason, written for the model."""


def derived_model(base: type[Event], output: type[BaseModel]) -> type[Event]:
    """The model of events with both models' fields.

    Raises:
        ConfigError: They have a field, or its name in the input, in common.
        SchemaError: A field of the output cannot be a column.
    """
    keys = {one.key for one in Schema.of(base).fields} | set(base.model_fields)
    columns = Answers(output).schema.fields
    both = sorted({one.name for one in columns if one.name in keys or one.key in keys})
    if both:
        raise ConfigError(
            f"{output.__name__}: expected fields that {base.__name__} does not have, found {', '.join(both)} in both; "
            "rename them in the output"
        )
    bases: Any = (output, base)  # in this order the input's columns come first
    made: type[Event] = create_model(f"{base.__name__}{output.__name__}", __base__=bases)
    return made


class Answers:
    """Makes columns of answers.

    Args:
        output: What an answer must be.

    Raises:
        SchemaError: A field of it cannot be a column.
    """

    def __init__(self, output: type[BaseModel]) -> None:
        bases, more = (output, Event), {_TIME: (datetime, event_time())}
        make: Any = create_model
        model: type[Event] = make(f"{output.__name__}Answer", __base__=bases, **more)
        self.schema = Schema.of(model)

    def read(self, answer: Any) -> pl.DataFrame:
        """One answer's columns.

        Raises:
            BadAnswerError: It is not what it must be.
        """
        if not isinstance(answer, dict):
            raise BadAnswerError(f"expected a JSON object, found {_kind(answer)}")
        decoded = decode_rows(self.schema, [{**answer, _TIME: 0}])
        if decoded.rejects:
            raise BadAnswerError(decoded.rejects[0].reason)
        return decoded.frame.drop(_TIME)

    def empty(self) -> pl.DataFrame:
        """No answers, all columns."""
        return self.schema.empty().drop(_TIME)


def parsed(text: Any) -> Any:
    """What a model said, as JSON.

    Raises:
        BadAnswerError: It is none.
    """
    if not isinstance(text, str) or not text.strip():
        raise BadAnswerError("expected a JSON object, found nothing")
    try:
        return msgspec.json.decode(text.strip())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise BadAnswerError(f"expected a JSON object and nothing else, found what is none: {error}") from None


def several(text: Any, count: int) -> dict[int, Any]:
    """The answers of a call about several events, by their places; those that are missing are left out.

    Raises:
        BadAnswerError: It is no list of answers at all.
    """
    found = parsed(text)
    entries = found.get("answers") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise BadAnswerError("expected an object with a list of answers")
    answers: dict[int, Any] = {}
    twice: set[int] = set()
    for entry in entries:
        n = entry.get("n") if isinstance(entry, dict) else None
        if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= count and "answer" in entry:
            twice |= {n - 1} & set(answers)
            answers[n - 1] = entry["answer"]
    # Of two answers to one event neither can be believed.
    return {place: answer for place, answer in answers.items() if place not in twice}


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
