"""A writer's schema against the model: what a change of schema may be, and what it may not.

The model is the reader. What it does not name is passed over, what it has a default for may be missing, and a type
may be widened (an integer to a float, an enum to text). All else could only be guessed at, and a guess is how a
breaking change becomes wrong numbers: so the difference is named, once a schema, and the messages written under that
schema are set aside while those of other schemas go on.

Nothing here knows Avro from Protobuf: each format says what its types are in the same few words (`Written`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from headrace.fields import Field
from headrace.schema import Schema

_SHOWN = 3

_TIMES = frozenset(("timestamp", "date", "moment", "day", "text", "int", "float", "number"))
# What each kind of field takes. A "timestamp", "date" or "time" is a number as well (Avro's), a "moment", "day" or
# "clock" is none (Protobuf's); "number" is JSON Schema's, which may be whole; "numbered" is Protobuf's enum, a name and
# a number at once.
BECOMES: dict[str, frozenset[str]] = {
    "str": frozenset(("text", "enum", "numbered", "uuid", "bytes")),
    "int": frozenset(("int", "number", "numbered", "timestamp", "date", "time")),
    "float": frozenset(("float", "int", "number", "decimal", "duration")),
    "bool": frozenset(("bool",)),
    "datetime": _TIMES,
    "event_time": _TIMES,
    "date": frozenset(("date", "day", "text")),
    "time": frozenset(("time", "clock", "text")),
    "uuid": frozenset(("uuid", "text")),
    "bytes": frozenset(("bytes", "text")),
    "list": frozenset(("array",)),
    "struct": frozenset(("record", "map")),
}


class Written(Protocol):
    """A type as its writer has it."""

    @property
    def kind(self) -> str:
        """A word of `BECOMES`, or "null", "union", or "any" where the schema leaves it open."""
        ...

    @property
    def name(self) -> str:
        """What the writer's schema calls it."""
        ...

    def part(self, key: str) -> Written | None:
        """A record's field, by a name or an alias; None if it has none of that name."""
        ...

    def inside(self) -> Sequence[Written]:
        """An array's items, a map's values, a union's choices."""
        ...


def misfit(schema: Schema, written: Written) -> str | None:
    """Why rows of a writer's schema cannot be the model's, or None if they can."""
    found = list(_fields(schema.fields, written, "")) if written.kind in ("record", "any") else []
    if written.kind not in ("record", "any"):
        found = [f"expected a record, found {written.name}"]
    if not found:
        return None
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def fits(field: Field, written: Written) -> bool:
    """Whether values of a writer's type can be the field's."""
    return next(_type(field, written, ""), None) is None


def _fields(fields: Sequence[Field], record: Written, where: str) -> Iterator[str]:
    for field in fields:
        part = record.part(field.key)
        if part is not None:
            yield from _type(field, part, where + field.key)
        elif field.required:
            yield f"{where}{field.key}: expected {expected(field)}, which the model requires, found no such field"


def _type(field: Field, written: Written, path: str) -> Iterator[str]:
    kind = written.kind
    if kind == "any":
        return
    if kind == "union":
        choices = [choice for choice in written.inside() if choice.kind != "null"]
        if not any(fits(field, choice) for choice in choices):
            yield f"{path}: expected {expected(field)}, found {written.name}"
    elif kind == "null":
        if field.required and not field.nullable:
            yield f"{path}: expected {expected(field)}, found null"
    elif kind not in BECOMES[field.kind]:
        yield f"{path}: expected {expected(field)}, found {written.name}"
    elif kind == "array":
        yield from _type(field.inner[0], written.inside()[0], path + "[]")
    elif kind == "record":
        yield from _fields(field.inner, written, path + ".")
    elif kind == "map":
        # Which keys there are is not promised: only one that must be there must fit.
        for part in field.inner:
            if part.required:
                yield from _type(part, written.inside()[0], f"{path}.{part.key}")


def expected(field: Field) -> str:
    """What a field takes, in a word or two."""
    if field.kind == "event_time":
        return "an event time (a timestamp, a number or text)"
    if field.kind == "list":
        return f"list[{expected(field.inner[0])}]"
    return "a nested record" if field.kind == "struct" else field.kind
