"""Pydantic's verdict on one row, said in one sentence, and rows of both paths merged back in input order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headrace.schema import Decoded, Reject, Schema
from headrace.values import NotStorableError, store

_LONGEST_REASON = 300
_LONGEST_INPUT = 80

Row = tuple[Any, ...]


class RefusedError(ValueError):
    """A row that cannot be used; the message is the reason."""


class Originals(Protocol):
    """The rows of an input as they came."""

    def judge(self, row: int) -> Row:
        """The row's values as columns hold them, or RefusedError."""

    def raw(self, row: int) -> bytes:
        """The row's bytes."""


def judge_json(schema: Schema, text: bytes) -> Row:
    """The values of one JSON object.

    Raises:
        RefusedError: Pydantic refuses it, or a column cannot hold it.
    """
    return _judged(schema, schema.model.model_validate_json, text)


def judge_python(schema: Schema, row: Any) -> Row:
    """The values of one mapping, keys as the input calls them.

    Raises:
        RefusedError: Pydantic refuses it, or a column cannot hold it.
    """
    return _judged(schema, schema.model.model_validate, row)


def _judged(schema: Schema, validate: Callable[[Any], BaseModel], row: Any) -> Row:
    try:
        event = validate(row)
    except ValidationError as error:
        raise RefusedError(sentence(error)) from None
    except Exception as error:
        raise RefusedError(shorten(f"validating it raised {error!r}", _LONGEST_REASON)) from error
    return _stored(schema, event)


def _stored(schema: Schema, event: BaseModel) -> Row:
    try:
        return tuple(store(getattr(event, field.name), field) for field in schema.fields)
    except NotStorableError as error:
        raise RefusedError(shorten(f"{error.where}: {error}", _LONGEST_REASON)) from None


def sentence(error: ValidationError) -> str:
    """The first thing that Pydantic found wrong, where it is, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False)
    text = _one(problems[0])
    if len(problems) > 1:
        text += f" (and {len(problems) - 1} more)"
    return shorten(text, _LONGEST_REASON)


def _one(problem: ErrorDetails) -> str:
    if problem["type"] == "json_invalid":
        return "not valid JSON: " + problem["msg"].removeprefix("Invalid JSON: ")
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    if problem["type"] == "missing":
        return f"{where}: required, but missing"
    return f"{where}: {message}, found {_shown(problem['input'])}".removeprefix(": ")


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except (ValueError, TypeError, RecursionError):
        text = ascii(value)
    return shorten(text, _LONGEST_INPUT)


def shorten(text: str, length: int) -> str:
    """At most `length` characters, the end left out with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def as_json(row: Any) -> bytes:
    """A row that came as Python objects, for the dead letters; what JSON has no word for becomes text."""
    try:
        return json.dumps(row, default=_plain, ensure_ascii=True).encode()
    except (ValueError, TypeError, RecursionError):
        return ascii(row).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return dict(value.__dict__)
    if isinstance(value, Mapping):
        return dict(value)
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def frame_of(schema: Schema, rows: Sequence[Row]) -> pl.DataFrame:
    """Rows of stored values as a frame of the schema's columns."""
    if not rows:
        return schema.empty()
    return pl.DataFrame(
        [
            pl.Series(name, values, dtype=dtype)
            for (name, dtype), values in zip(schema.columns.items(), zip(*rows, strict=True), strict=True)
        ]
    )


def row_by_row(schema: Schema, count: int, originals: Originals) -> Decoded:
    """Every row judged by Pydantic."""
    rows, _, rejects = _judge(range(count), originals)
    return Decoded(frame_of(schema, rows), rejects)


def settle(schema: Schema, frame: pl.DataFrame, suspects: pl.Series | None, originals: Originals) -> Decoded:
    """The rows that are not suspects, and of the suspects those that Pydantic accepts, in input order."""
    if suspects is None:
        return Decoded(frame, [])
    rows, places, rejects = _judge(suspects.arg_true().to_list(), originals)
    clear = frame.filter(~suspects)
    if not rows:
        return Decoded(clear, rejects)
    order = np.concatenate([(~suspects).arg_true().to_numpy(), np.array(places, dtype=np.uint32)]).argsort()
    return Decoded(pl.concat([clear, frame_of(schema, rows)])[order], rejects)


def _judge(which: Sequence[int], originals: Originals) -> tuple[list[Row], list[int], list[Reject]]:
    rows: list[Row] = []
    places: list[int] = []
    rejects: list[Reject] = []
    for place in which:
        try:
            rows.append(originals.judge(place))
        except RefusedError as error:
            rejects.append(Reject(place, str(error), originals.raw(place)))
        else:
            places.append(place)
    return rows, places, rejects


def join(schema: Schema, parts: Sequence[tuple[int, Decoded]]) -> Decoded:
    """Parts of one input, each with the position of its first row."""
    frames = [part.frame for _, part in parts if part.frame.height]
    rejects = [
        Reject(first + reject.row, reject.reason, reject.raw) for first, part in parts for reject in part.rejects
    ]
    return Decoded(pl.concat(frames) if frames else schema.empty(), rejects)
