"""Protobuf messages, decoded by column: the protobuf runtime parses each message, and a column is one field of all.

The runtime is written in C, bounds the depth of a message and never runs past its end, so a message that parses is
whole. What proto3 does not write is not missing: a field without presence (`optional`, a message, a `oneof`) has its
type's zero. A field with presence that was not set is missing, and the model's default fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np
import polars as pl
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from headrace.fields import Field
from headrace.formats import protobuf_known as known
from headrace.formats.columns import Null
from headrace.formats.evolution import misfit
from headrace.formats.verdicts import shorten
from headrace.formats.wire import HEAD, Mask, RefusedError, Rows, UnusableError, as_list, as_text, spread
from headrace.schema import Schema

_WHOLE = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32)
_SCALARS: dict[int, tuple[str, pl.DataType]] = {
    **dict.fromkeys(_WHOLE, ("int", pl.Int64())),
    FieldDescriptor.CPPTYPE_UINT64: ("int", pl.UInt64()),
    FieldDescriptor.CPPTYPE_DOUBLE: ("float", pl.Float64()),
    FieldDescriptor.CPPTYPE_FLOAT: ("float", pl.Float64()),
    FieldDescriptor.CPPTYPE_BOOL: ("bool", pl.Boolean()),
    FieldDescriptor.CPPTYPE_STRING: ("text", pl.String()),
    FieldDescriptor.CPPTYPE_ENUM: ("numbered", pl.Int64()),
}
_LONGEST_INDEX = 64
_BLOCK = 1024


@dataclass(frozen=True)
class ProtoType:
    """A field's type, in the words of `evolution.Written`.

    Attributes:
        field: None for the message itself.
        one: Without regard to `repeated`: the type of an item.
    """

    message: Descriptor | None
    field: FieldDescriptor | None = None
    one: bool = False

    @property
    def kind(self) -> str:
        if self.field is not None and self.field.is_repeated and not self.one:
            return "map" if _is_map(self.field) else "array"
        if self.message is not None:
            return known.KINDS.get(self.message.full_name, "record")
        assert self.field is not None
        if self.field.type == FieldDescriptor.TYPE_BYTES:
            return "bytes"
        return _SCALARS[self.field.cpp_type][0]

    @property
    def name(self) -> str:
        if self.field is not None and self.field.is_repeated and not self.one:
            return f"a map of {self.inside()[0].name}" if _is_map(self.field) else f"repeated {self.inside()[0].name}"
        if self.message is not None:
            return self.message.full_name
        assert self.field is not None
        if self.field.enum_type is not None:
            return f"enum {self.field.enum_type.full_name}"
        return _NAMES.get(self.field.type, "a group")

    def part(self, key: str) -> ProtoType | None:
        found = _called(self.message, key) if self.message is not None else None
        return None if found is None else ProtoType(found.message_type, found)

    def inside(self) -> Sequence[ProtoType]:
        assert self.field is not None
        if _is_map(self.field):
            value = _entry(self.field, "value")
            return [ProtoType(value.message_type, value)]
        return [ProtoType(self.field.message_type, self.field, one=True)]


_NAMES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes"),
        *("uint32", "sfixed32", "sfixed64", "sint32", "sint64"),
    )
}


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _entry(field: FieldDescriptor, part: str) -> FieldDescriptor:
    """A map's key or value."""
    assert field.message_type is not None
    found: FieldDescriptor = field.message_type.fields_by_name[part]
    return found


def _called(message: Descriptor, key: str) -> FieldDescriptor | None:
    """The field of that name, else the one that JSON calls so."""
    found: FieldDescriptor | None = message.fields_by_name.get(key)
    return found or next((field for field in message.fields if field.json_name == key), None)


class Reader:
    """What is read of one field: for many messages, and for one.

    Attributes:
        many: The field's column of these messages; marks the rows in doubt.
        one: Its value, as Pydantic takes it; None if it is not set.
    """

    def __init__(self, name: str, many: Callable[[Sequence[Any], Mask], pl.Series], one: Callable[[Any], Any]) -> None:
        self.name = name
        self.many = many
        self.one = one


class ProtobufWire:
    """Messages of one Protobuf type.

    Args:
        skip: How many bytes come before the message.

    Raises:
        UnusableError: They cannot be the model's.
    """

    nulls = Null.ABSENT

    def __init__(self, schema: Schema, message: Descriptor, skip: int) -> None:
        difference = misfit(schema, ProtoType(message))
        if difference:
            raise UnusableError(difference)
        self._skip = skip
        self._name = message.full_name
        self._parse = GetMessageClass(message).FromString
        self._readers = _readers(message, schema.fields)

    def columns(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame, Mask]:
        # In blocks: parsed messages are Python objects, and many at once make the garbage collector look at them all.
        parts = [self._block(messages[at : at + _BLOCK]) for at in range(0, len(messages), _BLOCK)]
        if len(parts) == 1:
            return parts[0]
        return pl.concat([frame for frame, _ in parts]), np.concatenate([bad for _, bad in parts])

    def _block(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame, Mask]:
        skip = self._skip
        bad: Mask = np.zeros(len(messages), dtype=np.bool_)
        try:
            parsed = list(map(self._parse, (message[skip:] for message in messages)))
        except DecodeError:
            parsed = [self._parsed(message, place, bad) for place, message in enumerate(messages)]
        columns = [reader.many(parsed, bad).alias(reader.name) for reader in self._readers]
        return pl.DataFrame(columns or [pl.Series("\0row", np.arange(len(messages)))]), bad

    def _parsed(self, message: bytes, place: int, bad: Mask) -> Message:
        try:
            return self._parse(message[self._skip :])
        except DecodeError:
            bad[place] = True
            return self._parse(b"")

    def row(self, message: bytes) -> dict[str, Any]:
        try:
            parsed = self._parse(message[self._skip :])
        except DecodeError as error:
            reason = shorten(str(error), 120)
            raise RefusedError(f"expected a {self._name}, found {len(message) - self._skip} bytes: {reason}") from None
        return _cells(self._readers, parsed)


def _cells(readers: Iterable[Reader], parsed: Message) -> dict[str, Any]:
    try:
        cells = {reader.name: reader.one(parsed) for reader in readers}
    except UnicodeDecodeError as error:
        raise RefusedError(f"expected UTF-8, found {error.object[error.start : error.start + 1]!r}") from None
    return {key: value for key, value in cells.items() if value is not None}


def _readers(message: Descriptor, fields: Iterable[Field]) -> list[Reader]:
    found = ((field, _called(message, field.key)) for field in fields)
    return [_reader(part, field) for field, part in found if part is not None]


def _reader(part: FieldDescriptor, field: Field) -> Reader:
    get = attrgetter(part.name)
    if part.is_repeated:
        many, one = _map(part, field) if _is_map(part) else _repeated(part, field)
        return Reader(field.key, lambda messages, bad: many(list(map(get, messages)), bad), lambda m: one(get(m)))
    many, one = _single(part, field)
    if not part.has_presence:
        return Reader(field.key, lambda messages, bad: many(list(map(get, messages)), bad), lambda m: one(get(m)))
    is_set = methodcaller("HasField", part.name)

    def present(messages: Sequence[Any], bad: Mask) -> pl.Series:
        there = np.fromiter(map(is_set, messages), np.bool_, len(messages))
        if there.all():
            return many(list(map(get, messages)), bad)
        places = np.flatnonzero(there)
        return _at(places, [get(messages[place]) for place in places.tolist()], many, bad)

    return Reader(field.key, present, lambda message: one(get(message)) if is_set(message) else None)


Many = Callable[[Sequence[Any], Mask], pl.Series]
One = Callable[[Any], Any]


def _single(part: FieldDescriptor, field: Field) -> tuple[Many, One]:
    """How values of a field's type become a column, and how one of them becomes Pydantic's."""
    if part.message_type is not None:
        special = known.READERS.get(part.message_type.full_name)
        return special(field) if special is not None else _nested(part.message_type, field)
    if part.enum_type is not None and field.kind != "int":
        names = {value.number: value.name for value in part.enum_type.values}
        return lambda values, _: pl.Series([names.get(v, str(v)) for v in values], dtype=pl.String), (
            lambda value: names.get(value, str(value))
        )
    if part.type == FieldDescriptor.TYPE_BYTES:
        return (_text_of_bytes if field.kind == "str" else _plain(pl.Binary())), lambda value: value
    return _plain(_SCALARS[part.cpp_type][1]), lambda value: value


def _plain(dtype: pl.DataType) -> Many:
    return lambda values, _: pl.Series(values, dtype=dtype)


def _text_of_bytes(values: Sequence[bytes], bad: Mask) -> pl.Series:
    found = as_text(pl.Series(values, dtype=pl.Binary))
    bad |= found.is_null().to_numpy()
    return found


def _nested(message: Descriptor, field: Field) -> tuple[Many, One]:
    readers = _readers(message, field.inner)
    dtype = pl.Struct({})

    def many(values: Sequence[Any], bad: Mask) -> pl.Series:
        columns = [reader.many(values, bad).alias(reader.name) for reader in readers]
        return pl.DataFrame(columns).to_struct() if columns else pl.Series([{}] * len(values), dtype=dtype)

    return many, lambda value: _cells(readers, value)


def _repeated(part: FieldDescriptor, field: Field) -> tuple[Many, One]:
    many, one = _single(part, field.inner[0])

    def lists(values: Sequence[Any], bad: Mask) -> pl.Series:
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        owners: Rows = np.repeat(np.arange(len(values)), lengths)
        doubtful: Mask = np.zeros(len(owners), dtype=np.bool_)
        items = many([item for value in values for item in value], doubtful)
        bad[owners[doubtful]] = True
        return as_list("", items, owners, len(values))

    return lists, lambda value: [one(item) for item in value]


def _map(part: FieldDescriptor, field: Field) -> tuple[Many, One]:
    """A map as a nested record: the keys that the model names. An empty map is one that was not set."""
    value = _entry(part, "value")
    text = _entry(part, "key").type == FieldDescriptor.TYPE_STRING
    readers: Mapping[str, tuple[Many, One]] = {inner.key: _single(value, inner) for inner in field.inner}

    def structs(maps: Sequence[Mapping[Any, Any]], bad: Mask) -> pl.Series:
        columns = []
        for key, (many, _) in readers.items():
            places: Rows = np.flatnonzero([text and key in each for each in maps])
            columns.append(_at(places, [maps[place][key] for place in places.tolist()], many, bad).alias(key))
        return pl.DataFrame(columns).to_struct()

    def filled(maps: Sequence[Mapping[Any, Any]], bad: Mask) -> pl.Series:
        places: Rows = np.flatnonzero(np.fromiter(map(len, maps), np.int64, len(maps)))
        return _at(places, [maps[place] for place in places.tolist()], structs, bad)

    def cells(each: Mapping[Any, Any]) -> dict[str, Any] | None:
        return {key: one(each[key]) for key, (_, one) in readers.items() if text and key in each} if each else None

    return filled, cells


def _at(places: Rows, values: Sequence[Any], many: Many, bad: Mask) -> pl.Series:
    """The column of all rows when only those at these places have a value."""
    doubtful: Mask = np.zeros(len(places), dtype=np.bool_)
    found = spread(many(values, doubtful), places, len(bad))
    bad[places[doubtful]] = True
    return found


def indexes(message: bytes) -> tuple[tuple[int, ...], int]:
    """Which of its file's types a message is, as Confluent writes it after the schema's number, and where it begins.

    Raises:
        RefusedError: There are no such numbers.
    """
    at = HEAD
    if message[at : at + 1] == b"\0":  # the first type, in short
        return (0,), at + 1

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise RefusedError(
                    "expected the numbers that say which type of its .proto a message is, after the schema id; "
                    f"found {message[HEAD : HEAD + 8].hex(' ') or 'nothing'}"
                )
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    count = number()
    if not 0 < count <= _LONGEST_INDEX:
        raise RefusedError(f"expected 1 to {_LONGEST_INDEX} numbers after the schema id, found {count}")
    return tuple(number() for _ in range(count)), at
