"""Avro messages, decoded by column: a writer's schema and the model make a reader, once a schema.

The reader is a tree of nodes (`avro_nodes`, `avro_nested`); fastavro parses the schema and resolves its names. A
schema that cannot be bounded is refused: one that refers to itself, whose depth a message would choose, and an array
of items without bytes, whose length a message could claim for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from fastavro.schema import parse_schema

from headrace.fields import COMPUTED, REQUIRED, Field
from headrace.formats import avro_nested as nested
from headrace.formats import avro_nodes as nodes
from headrace.formats.avro_scan import Cursor, Scan
from headrace.formats.columns import Null
from headrace.formats.evolution import fits, misfit
from headrace.formats.wire import Mask, UnusableError
from headrace.schema import Schema
from headrace.values import store

_DEEPEST = 64
_MOST_NODES = 20_000
_LONGS = {"date": "date", "time-millis": "time", "time-micros": "time"}
_KINDS = {"boolean": "bool", "int": "int", "long": "int", "float": "float", "double": "float", "string": "text"}
_KINDS |= {"record": "record", "error": "record", "fixed": "bytes"}
_TICKS = {"millis": 1000, "micros": 10**6, "nanos": 10**9}
_LOGICAL = {
    "int": ("date", "time-millis"),
    "long": ("time-micros", *(f"{local}timestamp-{tick}" for local in ("", "local-") for tick in _TICKS)),
    "string": ("uuid",),
    "bytes": ("decimal",),
    "fixed": ("decimal", "uuid"),
}
# What a schema that is not one may raise in fastavro, which reads it as it comes.
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class AvroType:
    """A type of a parsed schema, in the words of `evolution.Written`."""

    node: Any
    names: Mapping[str, Any]

    @cached_property
    def plain(self) -> str:
        """Its Avro type; "union" for a union."""
        return "union" if isinstance(self.definition, list) else str(self.definition["type"])

    @cached_property
    def definition(self) -> Any:
        """Its definition, a name looked up; a list for a union."""
        node = self.node
        while isinstance(node, dict) and isinstance(node["type"], dict | list):
            node = node["type"]
        name = node["type"] if isinstance(node, dict) else node
        if isinstance(name, str) and name in self.names:
            return self.names[name]
        return {"type": node} if isinstance(node, str) else node

    @cached_property
    def logical(self) -> str:
        """Its logical type, if it is one that the type can have."""
        if self.plain == "union":
            return ""
        found = str(self.definition.get("logicalType", ""))
        if found == "uuid" and self.plain == "fixed" and self.definition["size"] != 16:
            return ""
        return found if found in _LOGICAL.get(self.plain, ()) else ""

    @property
    def kind(self) -> str:
        logical = self.logical
        if logical:
            return "timestamp" if "timestamp" in logical else _LONGS.get(logical, logical)
        return _KINDS.get(self.plain, self.plain)

    @property
    def name(self) -> str:
        if self.plain == "union":
            return "a union of " + ", ".join(choice.name for choice in self.inside())
        if self.logical:
            return f"{self.plain} ({self.logical})"
        return f"{self.plain} {self.definition['name']}" if "name" in self.definition else self.plain

    def part(self, key: str) -> AvroType | None:
        found = _called(self.definition["fields"], key)
        return None if found is None else AvroType(found["type"], self.names)

    def inside(self) -> Sequence[AvroType]:
        if self.plain == "union":
            return [AvroType(choice, self.names) for choice in self.definition]
        return [AvroType(self.definition["items" if self.plain == "array" else "values"], self.names)]


def _called(parts: Sequence[Mapping[str, Any]], key: str) -> Mapping[str, Any] | None:
    """The field of that name, else the one that has it as an alias."""
    for part in parts:
        if part["name"] == key:
            return part
    return next((part for part in parts if key in part.get("aliases", ())), None)


def parse(text: str, references: Sequence[str] = ()) -> AvroType:
    """A schema's type, the schemas that it refers to first.

    Raises:
        UnusableError: It is not an Avro schema, or cannot be bounded.
    """
    names: dict[str, Any] = {}
    try:
        for each in references:
            parse_schema(json.loads(each), named_schemas=names)
        parsed = parse_schema(json.loads(text), named_schemas=names)
        found = AvroType(parsed, names)
        _Bounds(names).of(found, ())
    except UnusableError:
        raise
    except _BROKEN as error:
        raise UnusableError(f"expected an Avro schema, found one that cannot be read: {error!r}") from None
    except Exception as error:
        if type(error).__module__.startswith("fastavro"):
            raise UnusableError(f"expected an Avro schema, found one that cannot be read: {error}") from None
        raise
    return found


class _Bounds:
    """How many types a schema has when all names are written out, and the fewest bytes of each."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, written: AvroType, above: tuple[str, ...]) -> tuple[int, int]:
        name = "" if written.plain == "union" else str(written.definition.get("name", ""))
        if name in self._known:
            return self._known[name]
        if name and name in above:
            raise UnusableError(
                f"the Avro type {name} holds itself: how deep it goes cannot be known, so it is not read"
            )
        if len(above) > _DEEPEST:
            raise UnusableError(f"expected an Avro schema of at most {_DEEPEST} levels, found a deeper one")
        count, width = self._inside(written, (*above, name))
        if count > _MOST_NODES:
            raise UnusableError(f"expected an Avro schema of at most {_MOST_NODES:,} types, found a larger one")
        if name:
            self._known[name] = count, width
        return count, width

    def _inside(self, written: AvroType, above: tuple[str, ...]) -> tuple[int, int]:
        plain = written.plain
        if plain in ("record", "error"):
            parts = [self.of(AvroType(part["type"], self._names), above) for part in written.definition["fields"]]
            return 1 + sum(count for count, _ in parts), sum(width for _, width in parts)
        if plain == "union":
            parts = [self.of(choice, above) for choice in written.inside()]
            return 1 + sum(count for count, _ in parts), 1
        if plain in ("array", "map"):
            count, width = self.of(written.inside()[0], above)
            if plain == "array" and width == 0:
                raise UnusableError(
                    f"an Avro array of {written.inside()[0].name} has items of no bytes: how many there are "
                    "cannot be bounded, so it is not read"
                )
            return 1 + count, 1
        if plain == "fixed":
            return 1, int(written.definition["size"])
        return 1, {"null": 0, "float": 4, "double": 8}.get(plain, 1)


class AvroWire:
    """Messages of one Avro schema.

    Args:
        skip: How many bytes of a message come before its datum.

    Raises:
        UnusableError: They cannot be the model's.
    """

    nulls = Null.CELL

    def __init__(self, schema: Schema, written: AvroType, skip: int) -> None:
        difference = misfit(schema, written)
        if difference:
            raise UnusableError(difference)
        self._skip = skip
        self._root = _record(written, schema.fields, fill=False)

    def columns(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame, Mask]:
        scan = Scan(messages, self._skip)
        rows = np.arange(len(messages))
        found = self._root.columns(scan, rows)
        return pl.DataFrame(found or [pl.Series("\0row", rows)]), scan.finish()

    def row(self, message: bytes) -> dict[str, Any]:
        cursor = Cursor(message, self._skip)
        found = self._root.value(cursor)
        cursor.finish()
        return found


def _record(written: AvroType, fields: Sequence[Field], fill: bool) -> nested.Record:
    """A record's node; `fill` if fields that it has not are to be filled in (the outermost are, elsewhere)."""
    definition = written.definition["fields"]
    wanted: dict[str, Field] = {}
    for field in fields:
        found = _called(definition, field.key)
        if found is not None:
            wanted.setdefault(found["name"], field)
    parts = [
        _part(AvroType(part["type"], written.names), part["name"], wanted.get(part["name"])) for part in definition
    ]
    taken = {part.key for part in parts}
    missing = [(field.key, _filler(field)) for field in fields if fill and field.key not in taken]
    return nested.Record(parts, missing)


def _part(written: AvroType, name: str, field: Field | None) -> nested.Part:
    if field is None:
        return nested.Part(name, _unread(written))
    return nested.Part(name, _node(written, field), field.key, field.nullable)


def _filler(field: Field) -> nodes.Filler:
    if field.default is REQUIRED or field.default is COMPUTED:
        return nodes.Filler(None)
    return nodes.Filler(pl.Series([store(field.default, field)], dtype=field.dtype))


def _unread(written: AvroType) -> nodes.Node:
    """What goes past a type and asks no more of it than where it ends."""
    plain = written.plain
    if plain == "null":
        return nodes.Nothing()
    if plain in ("int", "long", "enum"):
        return nodes.Long()
    if plain in ("string", "bytes"):
        return nodes.Span(False)
    if plain in ("record", "error"):
        return nested.Record(
            [_part(AvroType(p["type"], written.names), p["name"], None) for p in written.definition["fields"]]
        )
    if plain == "union":
        return nested.Union([_unread(choice) for choice in written.inside()], frozenset(), pl.Null())
    if plain == "array":
        return nested.Array(_unread(written.inside()[0]))
    if plain == "map":  # on the wire, an array of pairs
        return nested.Array(
            nested.Record([nested.Part("", nodes.Span(False)), nested.Part("", _unread(written.inside()[0]))])
        )
    widths = {"boolean": 1, "float": 4, "double": 8}
    return nodes.Span(False, widths.get(plain) or int(written.definition["size"]))


def _node(written: AvroType, field: Field | None) -> nodes.Node:
    """The node of a type for a field; for None, for whatever it is."""
    plain = written.plain
    if plain == "union":
        return _union(written.inside(), field)
    if plain in ("record", "error"):
        return _record(written, field.inner if field is not None and field.kind == "struct" else (), fill=True)
    if plain == "array":
        return nested.Array(_node(written.inside()[0], field.inner[0] if field and field.kind == "list" else None))
    if plain == "map":
        inner = field.inner if field is not None and field.kind == "struct" else ()
        # Keys differ in what they want of the one type: it is read as it is, and each converted.
        return nested.Map(_node(written.inside()[0], None), [(one.key, _filler(one), one.nullable) for one in inner])
    return _scalar(written, field)


def _scalar(written: AvroType, field: Field | None) -> nodes.Node:
    plain, logical = written.plain, written.logical
    if plain == "enum":
        return nodes.Symbol(tuple(written.definition["symbols"]))
    if plain in ("int", "long"):
        return nodes.Long() if field is not None and field.kind == "int" else _temporal(logical)
    if plain in _SIMPLE:
        return _SIMPLE[plain]
    size = int(written.definition["size"]) if plain == "fixed" else None
    if logical == "decimal":
        return nodes.Scaled(False, size, scale=int(written.definition.get("scale", 0)))
    if plain == "fixed" and logical == "uuid":
        return nodes.Uuid(True, 16)
    return nodes.Span(plain == "string" or (field is not None and field.kind == "str"), size)


_SIMPLE: dict[str, nodes.Node] = {
    "null": nodes.Nothing(),
    "boolean": nodes.Flag(),
    "float": nodes.Real(4),
    "double": nodes.Real(8),
}


def _temporal(logical: str) -> nodes.Node:
    if "timestamp" in logical:
        return nodes.Moment(per_second=_TICKS[logical.rpartition("-")[2]])
    if logical == "date":
        return nodes.Day()
    return nodes.Clock(micros=1000 if logical == "time-millis" else 1) if logical else nodes.Long()


def _union(choices: Sequence[AvroType], field: Field | None) -> nodes.Node:
    wanted = [choice.kind == "null" or (field is None or fits(field, choice)) for choice in choices]
    made = [_node(choice, field if good else None) for choice, good in zip(choices, wanted, strict=True)]
    types = [node.dtype for node, good in zip(made, wanted, strict=True) if good and node.dtype != pl.Null]
    dtype: pl.DataType = types[0] if types else pl.Null()
    if types and all(each.is_numeric() for each in types) and pl.Float64() in types:
        dtype = pl.Float64()
    same = (dtype, pl.Null(), pl.Int64()) if dtype == pl.Float64() else (dtype, pl.Null())
    usable = frozenset(n for n, node in enumerate(made) if wanted[n] and node.dtype in same)
    return nested.Union(made, usable, dtype)
