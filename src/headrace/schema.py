"""An event model as the schema of a stream: its columns, which of them is the event time, and what a
decoder returns.

The model is Pydantic's and its meaning is Pydantic's; a schema is the same thing said in columns. It is
frozen and cached, so one model has one schema and it can be compared by identity.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from headrace.errors import SchemaError
from headrace.fields import COMPUTED, REQUIRED, Field, Reader
from headrace.timestamps import event_time
from headrace.values import NotStorableError, store

__all__ = ["Decoded", "Event", "Reject", "Schema", "event_time", "snake_case"]

_log = logging.getLogger("headrace")


class Event(BaseModel):
    """The base of every event model: an immutable fact with an event time.

    Keys that the model does not name are ignored, and numbers must be finite.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True)
class Reject:
    """One row that could not be used.

    Attributes:
        row: Its position in the input, from 0; blank lines and a header do not count.
        reason: One sentence.
        raw: The original bytes, or the row as JSON where it came as Python objects or columns.
    """

    row: int
    reason: str
    raw: bytes


@dataclass(frozen=True)
class Decoded:
    """What came of an input: the valid rows in input order, and the others."""

    frame: pl.DataFrame
    rejects: list[Reject]


@dataclass(frozen=True, eq=False)
class Schema:
    """A stream's columns.

    Attributes:
        name: The model's name in snake_case.
        time: The event-time column.
        columns: In the model's order; the event time is `Datetime("us", "UTC")`.
        required: Columns without a default.
        fields: The columns in detail.
        per_row: Why rows are validated one by one; empty if they need not be.
    """

    name: str
    model: type[Event]
    time: str
    columns: dict[str, pl.DataType]
    required: frozenset[str]
    fields: tuple[Field, ...] = field(repr=False)
    per_row: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: type[Event]) -> Schema:
        """The schema of `model`; the same object each time.

        Raises:
            SchemaError: The model has no event time or two, or a field whose type cannot be a column.
        """
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise SchemaError(f"expected a class derived from hr.Event, found {model!r}")
        return _schema_of(model)

    @property
    def fingerprint(self) -> str:
        """A text that is equal for equal columns."""
        return ";".join(f"{name}:{dtype}" for name, dtype in self.columns.items())

    def empty(self) -> pl.DataFrame:
        """No rows, all columns."""
        return pl.DataFrame(schema=self.columns)

    def align(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame stored under an older version of the model, with today's columns.

        A missing column is filled with its default, or null; one that is gone is dropped; one whose type has
        changed is converted, and null where it cannot be.
        """
        if frame.schema == self.columns:
            return frame
        height = frame.height
        return pl.DataFrame(
            [
                _converted(frame[column.name], column.dtype)
                if column.name in frame.columns
                else pl.Series(column.name, [self._filler(column)], dtype=column.dtype).new_from_index(0, height)
                for column in self.fields
            ],
            schema=self.columns,
        )

    def _filler(self, column: Field) -> Any:
        if column.default is COMPUTED:
            info = self.model.model_fields[column.name]
            return store(info.get_default(call_default_factory=True, validated_data={}), column)
        return None if column.default is REQUIRED else store(column.default, column)


def _converted(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    try:
        found = values.cast(dtype, strict=False)
    except pl.exceptions.PolarsError:
        found = values
    # Between some types there is no cast; of a struct, Polars may cast what is in it instead.
    return found if found.dtype == dtype else pl.Series(values.name, [None], dtype=dtype).new_from_index(0, len(values))


def snake_case(name: str) -> str:
    """A class's name as URLs and tools have it.

    >>> snake_case("HTTPEvent"), snake_case("PaymentV2"), snake_case("already_snake")
    ('http_event', 'payment_v2', 'already_snake')
    """
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower()


# A program has a handful of models; the bound is for tests that make them by the thousand.
@lru_cache(maxsize=1024)
def _schema_of(model: type[Event]) -> Schema:
    reader = Reader()
    fields = reader.model(model)
    times = [column.name for column in fields if column.kind == "event_time"]
    if len(times) != 1:
        found = " and ".join(times) or "none"
        raise SchemaError(
            f"{model.__name__}: expected one event-time field, found {found}; "
            "declare it as `at: datetime = hr.event_time()`"
        )
    _check(model.__name__, fields)
    if reader.per_row:
        _log.warning(
            "%s is validated row by row, some 10 times slower than by column: %s",
            model.__name__,
            "; ".join(reader.per_row),
        )
    return Schema(
        name=snake_case(model.__name__),
        model=model,
        time=times[0],
        columns={column.name: column.dtype for column in fields},
        required=frozenset(column.name for column in fields if column.required),
        fields=fields,
        per_row=tuple(reader.per_row),
    )


def _check(where: str, fields: tuple[Field, ...]) -> None:
    """Finds what would fail at the first row: two columns under one key, a default no column can hold."""
    keys = [column.key for column in fields]
    for key in keys:
        if keys.count(key) > 1:
            raise SchemaError(f"{where} reads two fields from the key {key!r}; give each an alias of its own")
    for column in fields:
        if column.default is not REQUIRED and column.default is not COMPUTED:
            try:
                pl.Series([store(column.default, column)], dtype=column.dtype)
            except (NotStorableError, TypeError, pl.exceptions.PolarsError) as error:
                raise SchemaError(
                    f"{where}.{column.name} has the default {column.default!r}, "
                    f"which its column ({column.dtype}) cannot hold: {error}"
                ) from error
        inner = column.inner[0].inner if column.kind == "list" else column.inner
        if any(part.kind == "event_time" for part in inner):
            raise SchemaError(f"{where}.{column.name} holds an event time inside; declare it on the model itself")
        _check(f"{where}.{column.name}", inner)
