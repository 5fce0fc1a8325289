"""Messages of a log such as Kafka: bytes one by one, decoded by column, each with one verdict under its own number.

Four formats. "json" is one object a message. "avro", "protobuf" and "jsonschema" name the schema that they were
written under by its number in a registry, or ("avro" and "protobuf") are all of one schema, in a local file. Every
message comes back as a row or as a reject with its bytes; what cannot be decided now, since the registry is away, is
an error for the whole batch, which is then read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import ConfigError, MissingDependencyError, SchemaError, nearest
from headrace.formats.ndjson import decode_ndjson
from headrace.formats.verdicts import Row, judge_json, row_by_row
from headrace.formats.wire import HEAD, Framed, Read, RefusedError, UnusableError, gathered, read_wire, refusing
from headrace.schema import Decoded, Reject, Schema

if TYPE_CHECKING:
    from headrace.formats.protobuf_schema import ProtoFile
    from headrace.formats.schema_registry import Registered

FORMATS = ("json", "avro", "protobuf", "jsonschema")
_REGISTRY_OPTIONS = ("registry.ca", "registry.certificate", "registry.key", "registry.timeout")
OPTIONS = ("schema", "message", "validate", *_REGISTRY_OPTIONS)
INSTALL = 'pip install "headrace[registry]"'
_KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF", "jsonschema": "JSON"}
_MAX_FILE = 4 << 20
_NEWLINE = 0x0A
_EMPTY = "expected a JSON object, found an empty message"


def message_decoder(
    schema: Schema, format: str, *, registry: str | None = None, options: Mapping[str, str] = MappingProxyType({})
) -> Callable[[Sequence[bytes]], Decoded]:
    """What decodes batches of messages: a reject's row is the number of its message, and its bytes are all of it.

    The decoder keeps what it has learnt of the registry's schemas. It is to be called by one thread at a time, and
    raises StorageError when it needs the registry and cannot ask it.

    Args:
        format: "json", "avro", "protobuf" or "jsonschema".
        registry: The schema registry's URL.
        options: `schema=` is a local .avsc or .proto file, for messages without a registry, and `message=` the name of
            its type; `validate=true` validates each message of "jsonschema"; `registry.ca`, `registry.certificate`,
            `registry.key` and `registry.timeout` are the registry's.

    Raises:
        ConfigError: The format or an option cannot be used, or the local schema is not the model's.
        MissingDependencyError: A package is not installed.
    """
    _check(format, registry, options)
    if format == "json":
        return partial(decode_messages, schema)
    make = _needed(
        {"avro": _avro, "protobuf": _protobuf, "jsonschema": _json_schema}[format],
        format,
        options.get("validate") == "true",
    )
    if registry is None:
        return make(schema, None, options)
    # An HTTP client is only for those who have a registry.
    from headrace.formats.schema_registry import SchemaRegistry

    found = SchemaRegistry(registry, options)

    def readers(number: int) -> Read:
        try:
            registered = found.schema(number)
            if registered.kind != _KINDS[format]:
                raise UnusableError(f"expected a schema of the type {_KINDS[format]}, found {registered.kind}")
            return make(schema, registered, options)
        except UnusableError as error:
            raise UnusableError(_said_of(schema, number, str(error)), error.passing) from None

    return Framed(schema, readers)


def _said_of(schema: Schema, number: int, reason: str) -> str:
    if reason.startswith(f"schema id {number} "):
        return reason
    return f"schema id {number} cannot be read as {schema.model.__name__}: {reason}"


def _check(format: str, registry: str | None, options: Mapping[str, str]) -> None:
    if format not in FORMATS:
        raise ConfigError(f"no format of messages is called {format!r}; {nearest(format, FORMATS)}")
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"messages have no option {name!r}; {nearest(name, OPTIONS)}")
    if options.get("validate", "false") not in ("true", "false"):
        raise ConfigError(f"expected validate=true or validate=false, found {options['validate']!r}")
    local = options.get("schema")
    if format == "json" and (registry or local):
        given = "registry=" if registry else "schema="
        raise ConfigError(
            f'expected no {given} with the format "json", which has no schema; did you mean "jsonschema"?'
        )
    if format != "json" and not registry and (not local or format == "jsonschema"):
        file = "" if format == "jsonschema" else f", or schema= with a local .{'avsc' if format == 'avro' else 'proto'}"
        raise ConfigError(
            f"expected registry= with the URL of a schema registry for the format {format!r}{file}; found none"
        )
    if registry and local:
        raise ConfigError("expected registry= or schema=, found both; a message names its schema, or all have one")


Make = Callable[[Schema, "Registered | None", Mapping[str, str]], Read]


def _needed(make: Make, format: str, validate: bool) -> Make:
    """`make`, once its packages have been imported."""
    modules = {"avro": ["avro"], "protobuf": ["protobuf", "protobuf_schema"]}.get(format, [])
    try:
        for module in modules:
            import_module(f"headrace.formats.{module}")
        if validate:
            import_module("jsonschema")
    except ImportError as error:
        raise MissingDependencyError(
            f"messages in {format} need the package {error.name!r}, which cannot be imported ({error}); "
            f"install it with: {INSTALL}"
        ) from error
    return make


def _avro(schema: Schema, registered: Registered | None, options: Mapping[str, str]) -> Read:
    from headrace.formats.avro import AvroWire, parse

    if registered is not None:
        wire = AvroWire(schema, parse(registered.text, [*registered.references.values()]), HEAD)
        return partial(read_wire, schema, wire)
    path, text = _local(options)
    try:
        return partial(read_wire, schema, AvroWire(schema, parse(text), 0))
    except UnusableError as error:
        raise SchemaError(f"{path} cannot be read as {schema.model.__name__}: {error}") from None


def _protobuf(schema: Schema, registered: Registered | None, options: Mapping[str, str]) -> Read:
    from headrace.formats.protobuf import ProtobufWire
    from headrace.formats.protobuf_schema import ProtoFile

    if registered is not None:
        return _Indexed(schema, registered.number, ProtoFile(registered.text, registered.references))
    path, text = _local(options)
    try:
        message = ProtoFile(text, {}, path.parent).named(options.get("message"))
        return partial(read_wire, schema, ProtobufWire(schema, message, 0))
    except UnusableError as error:
        raise SchemaError(f"{path} cannot be read as {schema.model.__name__}: {error}") from None


class _Indexed:
    """Reads Protobuf messages of one schema: each says which of the file's types it is."""

    def __init__(self, schema: Schema, number: int, file: ProtoFile) -> None:
        self._schema = schema
        self._number = number
        self._file = file
        self._readers: dict[tuple[tuple[int, ...], int], Read] = {}

    def __call__(self, messages: Sequence[bytes]) -> Decoded:
        from headrace.formats.protobuf import indexes

        if {message[HEAD : HEAD + 1] for message in messages} == {b"\0"}:
            return self._reader((0,), HEAD + 1)(messages)
        parts: dict[tuple[tuple[int, ...], int] | str, list[int]] = {}
        for place, message in enumerate(messages):
            try:
                parts.setdefault(indexes(message), []).append(place)
            except RefusedError as error:
                parts.setdefault(str(error), []).append(place)
        return gathered(
            self._schema,
            [
                (np.array(places, dtype=np.int64), self._read(head, [messages[place] for place in places]))
                for head, places in parts.items()
            ],
        )

    def _read(self, head: tuple[tuple[int, ...], int] | str, messages: list[bytes]) -> Decoded:
        if isinstance(head, str):
            return refusing(self._schema, lambda _: head)(messages)
        return self._reader(*head)(messages)

    def _reader(self, which: tuple[int, ...], skip: int) -> Read:
        from headrace.formats.protobuf import ProtobufWire

        found = self._readers.get((which, skip))
        if found is None:
            try:
                found = partial(read_wire, self._schema, ProtobufWire(self._schema, self._file.at(which), skip))
            except UnusableError as error:
                reason = _said_of(self._schema, self._number, str(error))
                found = refusing(self._schema, lambda _: reason)
            if len(self._readers) < _MOST_TYPES:
                self._readers[which, skip] = found
        return found


_MOST_TYPES = 256


def _json_schema(schema: Schema, registered: Registered | None, options: Mapping[str, str]) -> Read:
    from headrace.formats.json_schema import JsonSchema

    assert registered is not None
    found = JsonSchema(schema, registered.text, registered.references)
    validator = found.validator() if options.get("validate") == "true" else None

    def read(messages: Sequence[bytes]) -> Decoded:
        texts = [message[HEAD:] for message in messages]
        if validator is None:
            return _with_bytes(decode_messages(schema, texts), messages)
        reasons = [validator(text) for text in texts]
        good = [place for place, reason in enumerate(reasons) if reason is None]
        bad = [place for place, reason in enumerate(reasons) if reason is not None]
        refused = [
            Reject(n, f"not valid under schema id {registered.number}: {reasons[place]}", messages[place])
            for n, place in enumerate(bad)
        ]
        decoded = _with_bytes(decode_messages(schema, [texts[n] for n in good]), [messages[n] for n in good])
        parts = [(good, decoded), (bad, Decoded(schema.empty(), refused))]
        return gathered(schema, [(np.array(places, dtype=np.int64), part) for places, part in parts])

    return read


def _with_bytes(decoded: Decoded, messages: Sequence[bytes]) -> Decoded:
    return Decoded(decoded.frame, [Reject(each.row, each.reason, messages[each.row]) for each in decoded.rejects])


def decode_messages(schema: Schema, messages: Sequence[bytes]) -> Decoded:
    """The events of messages that are one JSON object each.

    They are joined as lines and decoded at once. A line end inside a message becomes a carriage return: white space
    between JSON's tokens as well, and as wrong inside a string.
    """
    text = b"\n".join(messages)
    # NumPy counts single bytes four times faster than bytes.count.
    if np.count_nonzero(np.frombuffer(text, np.uint8) == _NEWLINE) != max(0, len(messages) - 1):
        text = b"\n".join([message.replace(b"\n", b"\r") for message in messages])
    decoded = decode_ndjson(schema, text)
    if decoded.frame.height + len(decoded.rejects) == len(messages):
        return _with_bytes(decoded, messages) if decoded.rejects else decoded
    # A message of white space alone is no line to the decoder: then lines and messages are not the same.
    blank = [place for place, message in enumerate(messages) if not message.strip(b" \t\r\n")]
    filled = np.setdiff1d(np.arange(len(messages)), blank)
    rest = [messages[place] for place in filled.tolist()]
    good = decode_messages(schema, rest) if blank else row_by_row(schema, len(messages), _Texts(schema, messages))
    empty = Decoded(schema.empty(), [Reject(n, _EMPTY, messages[place]) for n, place in enumerate(blank)])
    return gathered(schema, [(filled, good), (np.array(blank, dtype=np.int64), empty)])


@dataclass
class _Texts:
    schema: Schema
    messages: Sequence[bytes]

    def judge(self, row: int) -> Row:
        return judge_json(self.schema, self.messages[row])

    def raw(self, row: int) -> bytes:
        return self.messages[row]


def _local(options: Mapping[str, str]) -> tuple[Path, str]:
    """A local schema's path and text."""
    given = options["schema"].removeprefix("file://")
    path = Path(given)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise ConfigError(f"expected a schema of at most {_MAX_FILE:,} bytes in {path}, found a larger file")
        return path, text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected a schema in schema={given}: {error}") from None
