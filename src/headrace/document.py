"""A document model as the schema of a table: its types, its key, and how a row is told by a text.

The models are Pydantic's and so is the verdict on a row. A table of several types tells them apart by a column.
Documents are validated one by one: a document costs a thousand times what an event does, so there is nothing to gain
from columns here.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from headrace.errors import InputError, SchemaError, TooLargeError, nearest
from headrace.schema import snake_case

# A document larger than this becomes a dead letter: a model could read none of it.
MOST_BYTES = 16 << 20
_SHOWN = 3


class Document(BaseModel):
    """The base of every document model: a row with a key, that is inserted, updated and deleted.

    Keys that the model does not name are ignored, and numbers must be finite.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A valid row.

    Attributes:
        key: The key as a text; see `TableSchema.key_text`.
        kind: Which of the table's types it is: the model's name in snake_case.
        document: The row itself.
    """

    key: str
    kind: str
    document: Document

    def to_json(self) -> bytes:
        """The row as a JSON object, as it is stored."""
        return self.document.model_dump_json().encode()


@dataclass(frozen=True, eq=False)
class TableSchema:
    """A table's types and key.

    Attributes:
        name: In URLs.
        models: By the model's name in snake_case.
        key: The columns that say which row it is; every model has them.
        kind: The column that says which type a row is; None for a table of one type.
        version: The column that orders the changes of a row; None where the source orders them.
    """

    name: str
    models: Mapping[str, type[Document]]
    key: tuple[str, ...]
    kind: str | None = None
    version: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        models: Sequence[type[Document]],
        key: str | Sequence[str],
        kind: str | None = None,
        version: str | None = None,
    ) -> TableSchema:
        """The schema of a table of these models.

        Raises:
            SchemaError: A model lacks a key column, or several models are not told apart.
        """
        keys = (key,) if isinstance(key, str) else tuple(key)
        by_name: dict[str, type[Document]] = {}
        for model in models:
            if not (isinstance(model, type) and issubclass(model, Document)):
                raise SchemaError(f"{name}: expected a class derived from hr.Document, found {model!r}")
            for column in (*keys, *((kind,) if kind else ()), *((version,) if version else ())):
                if column not in model.model_fields:
                    hint = nearest(column, model.model_fields)
                    raise SchemaError(
                        f"{model.__name__} has no field {column!r}, which the table {name!r} needs; {hint}"
                    )
            by_name[snake_case(model.__name__)] = model
        if not keys or not by_name:
            raise SchemaError(f"the table {name!r}: expected a model and a key column, found {models!r} and {key!r}")
        if len(by_name) > 1 and kind is None:
            raise SchemaError(
                f"the table {name!r} holds {', '.join(by_name)}: name the column that tells them apart with kind="
            )
        return cls(name, by_name, keys, kind, version)

    def row(self, given: Mapping[str, Any] | bytes | Document, *, most_bytes: int = MOST_BYTES) -> Row:
        """A row, validated.

        Raises:
            InputError: It is not valid; the message says which fields and why.
            TooLargeError: It is larger than `most_bytes`.
        """
        if isinstance(given, Document):
            given = given.model_dump()
        if isinstance(given, bytes | bytearray | memoryview):
            given = self._parsed(bytes(given), most_bytes)
        if not isinstance(given, Mapping):
            raise InputError(
                f"{self.name}: expected an object with {', '.join(self.key)}, found {type(given).__name__}"
            )
        size = sum(len(value) for value in given.values() if isinstance(value, str | bytes))
        if size > most_bytes:
            raise TooLargeError(f"{self.name}: expected a document of at most {most_bytes} bytes, found {size}")
        kind, model = self._model(given)
        try:
            document = model.model_validate(given)
        except ValidationError as error:
            raise InputError(f"{self.name}: {_summary(error)}") from None
        return Row(self.key_text(document), kind, document)

    def _parsed(self, data: bytes, most_bytes: int) -> Any:
        if len(data) > most_bytes:
            raise TooLargeError(f"{self.name}: expected a document of at most {most_bytes} bytes, found {len(data)}")
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{self.name}: expected a JSON object, found bytes that are not JSON ({error})") from None

    def _model(self, given: Mapping[str, Any]) -> tuple[str, type[Document]]:
        if self.kind is None or len(self.models) == 1:
            return next(iter(self.models.items()))
        found = given.get(self.kind)
        if found not in self.models:
            raise InputError(
                f"{self.name}: expected {self.kind} to be one of {', '.join(self.models)}, found {found!r}; "
                + nearest(str(found), self.models)
            )
        return str(found), self.models[str(found)]

    def load(self, kind: str, data: bytes) -> Document:
        """A stored row as its model.

        Raises:
            InputError: The model has changed since, and does not take it any more.
        """
        model = self.models.get(kind)
        if model is None:
            raise InputError(f"{self.name}: a row of the type {kind!r} is stored, which the table no longer has")
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise InputError(f"{self.name}: {_summary(error)}") from None

    def key_text(self, key: Any) -> str:
        """A key as a text: a single text column as it is, anything else as JSON.

        Args:
            key: The key column's value; for several columns a sequence in their order; or a row or a mapping that has
                the key columns.

        Raises:
            InputError: It is not a key of this table.
        """
        if isinstance(key, BaseModel):
            parts = [getattr(key, column) for column in self.key]
        elif isinstance(key, Mapping):
            missing = [column for column in self.key if column not in key]
            if missing:
                raise InputError(f"{self.name}: expected a key with {', '.join(self.key)}, found none of {missing}")
            parts = [key[column] for column in self.key]
        elif len(self.key) == 1:
            parts = [key]
        elif isinstance(key, Sequence) and not isinstance(key, str | bytes) and len(key) == len(self.key):
            parts = list(key)
        else:
            raise InputError(f"{self.name}: expected a key of {', '.join(self.key)}, found {key!r}")
        if any(part is None for part in parts):
            raise InputError(f"{self.name}: expected a key without nulls, found {parts}")
        if not isinstance(key, BaseModel):
            parts = [self._typed(column, part) for column, part in zip(self.key, parts, strict=True)]
        if len(parts) == 1 and isinstance(parts[0], str):
            return parts[0]
        return msgspec.json.encode(parts[0] if len(parts) == 1 else parts, enc_hook=str).decode()

    def _typed(self, column: str, part: Any) -> Any:
        """A part of a key as the model has it: a source may tell "7" of a number, and a UUID as a text."""
        info = next(iter(self.models.values())).model_fields[column]
        try:
            annotation: Any = info.annotation
            return _adapter(annotation).validate_python(part)
        except ValidationError as error:
            raise InputError(f"{self.name}: the key {column}: {_summary(error)}") from None

    @property
    def columns(self) -> dict[str, Column]:
        """The columns that a search may filter by, of all types: texts, numbers, booleans, times, lists of them."""
        found: dict[str, Column] = {}
        for model in self.models.values():
            for name, info in model.model_fields.items():
                column = _column(info.annotation)
                if column is not None:
                    found.setdefault(name, column)
        return found


@dataclass(frozen=True)
class Column:
    """A column that can be filtered by: its type ("str", "int", "float", "bool", "time") and whether it is a list."""

    type: str
    many: bool = False


_TYPES: dict[Any, str] = {str: "str", int: "int", float: "float", bool: "bool", datetime: "time", date: "time"}


@lru_cache(maxsize=256)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _column(annotation: Any) -> Column | None:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return _column(inner[0]) if len(inner) == 1 else None
    if origin in (list, tuple, set, frozenset):
        item = _column(get_args(annotation)[0]) if get_args(annotation) else None
        return Column(item.type, many=True) if item and not item.many else None
    if get_origin(annotation) is not None and str(origin).endswith("Literal"):
        kinds = {type(value) for value in get_args(annotation)}
        return Column(_TYPES[kinds.pop()]) if len(kinds) == 1 and kinds <= set(_TYPES) else None
    if isinstance(annotation, type):
        return next((Column(name) for base, name in _TYPES.items() if annotation is base), None)
    return None


def _summary(error: ValidationError) -> str:
    """The first few mistakes, without the values: a document may be large, or secret."""
    mistakes = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, one['loc'])) or 'the row'}: {one['msg']}" for one in mistakes[:_SHOWN]]
    more = f" and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
    return "; ".join(shown) + more
