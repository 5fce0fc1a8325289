"""One field of a model: its Pydantic annotation read as a column type and as checks that a column can answer.

Pydantic stays the judge of what is valid. What is read here only serves to tell, for a whole column at
once, which values it would surely accept; the rest are shown to it one by one. So a constraint that is not
understood costs speed and never correctness: it is reported as a reason to validate row by row.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import annotated_types as at
import polars as pl
from pydantic import AllowInfNan, BaseModel, RootModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headrace.errors import SchemaError
from headrace.timestamps import TIME, EventTime

Kind = Literal[
    "str", "int", "float", "bool", "datetime", "date", "time", "uuid", "bytes", "list", "struct", "event_time"
]
SUPPORTED = (
    "str, int, float, bool, datetime, date, time, Decimal, UUID, bytes, Literal and Enum of str or of int, "
    "a nested BaseModel, list[...] of these, and any of them | None"
)
_SCALARS: dict[Any, tuple[Kind, pl.DataType]] = {
    str: ("str", pl.String()),
    int: ("int", pl.Int64()),
    float: ("float", pl.Float64()),
    bool: ("bool", pl.Boolean()),
    datetime: ("datetime", TIME),
    date: ("date", pl.Date()),
    time: ("time", pl.Time()),
    Decimal: ("float", pl.Float64()),
    UUID: ("uuid", pl.String()),
    bytes: ("bytes", pl.Binary()),
}
_CHECKS: dict[type, str] = {
    at.Gt: "gt",
    at.Ge: "ge",
    at.Lt: "lt",
    at.Le: "le",
    at.MultipleOf: "multiple_of",
    at.MinLen: "min_length",
    at.MaxLen: "max_length",
}
# What a model may configure without a column's answer differing from Pydantic's.
_HARMLESS = frozenset(
    (
        "title",
        "extra",
        "frozen",
        "json_schema_extra",
        "arbitrary_types_allowed",
        "use_enum_values",
        "allow_inf_nan",
        "from_attributes",
        "validate_assignment",
        "protected_namespaces",
        "alias_generator",
        "use_attribute_docstrings",
        "defer_build",
        "revalidate_instances",
        "hide_input_in_errors",
        "ser_json_timedelta",
        "ser_json_temporal",
        "ser_json_bytes",
        "ser_json_inf_nan",
        "serialize_by_alias",
    )
)


class _Mark:
    """A named value that no user's default can equal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


REQUIRED = _Mark("REQUIRED")  # no default: the key must be there
COMPUTED = _Mark("COMPUTED")  # a default_factory: only Pydantic can fill it


@dataclass(frozen=True)
class Field:
    """A column, or a part of a nested one.

    Attributes:
        key: What the input calls it: the alias if there is one.
        checks: Constraints as (operation, value), each true of a null.
        inner: A struct's fields, or a list's one element.
    """

    name: str
    key: str
    kind: Kind
    dtype: pl.DataType
    nullable: bool = False
    default: Any = REQUIRED
    checks: tuple[tuple[str, Any], ...] = ()
    inner: tuple[Field, ...] = ()
    time: EventTime | None = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


class Reader:
    """Reads one model's fields, and gathers why it must be validated row by row, if it must."""

    def __init__(self) -> None:
        self.per_row: list[str] = []
        self._open: list[type[BaseModel]] = []

    def model(self, model: type[BaseModel]) -> tuple[Field, ...]:
        """The fields of `model`, in its order.

        Raises:
            SchemaError: A field cannot be a column.
        """
        if model in self._open:
            raise SchemaError(f"{model.__name__} holds itself: a column's type has a fixed depth")
        if not model.__pydantic_complete__:
            model.model_rebuild()
        self._open.append(model)
        self._behaviour(model)
        fields = tuple(self._field(model, name, info) for name, info in model.model_fields.items())
        self._open.pop()
        if not fields:
            raise SchemaError(f"{model.__name__} has no fields; declare at least one")
        return fields

    def _behaviour(self, model: type[BaseModel]) -> None:
        """What a model does beyond its fields: each thing is a reason for row-by-row validation."""
        found = model.__pydantic_decorators__
        for kind in ("validators", "field_validators", "root_validators", "model_validators"):
            self.per_row += [f"{model.__name__}.{name} is a validator" for name in getattr(found, kind)]
        if model.__pydantic_post_init__:
            self.per_row.append(f"{model.__name__} has model_post_init or private attributes")
        if model.__init__ is not BaseModel.__init__:
            self.per_row.append(f"{model.__name__} has an __init__ of its own")
        config = model.model_config
        if config.get("extra") == "allow":
            raise SchemaError(
                f'{model.__name__} has extra="allow", but a column must be named before rows arrive; '
                'declare the columns as fields and use extra="ignore" (the default)'
            )
        for name, value in config.items():
            if name == "extra":
                if value == "forbid":
                    self.per_row.append(f'{model.__name__} has extra="forbid"')
            elif name not in _HARMLESS and value not in (None, False):
                self.per_row.append(f"{model.__name__} is configured with {name}={value!r}")

    def _field(self, model: type[BaseModel], name: str, info: FieldInfo) -> Field:
        where = f"{model.__name__}.{name}"
        alias = info.validation_alias if info.validation_alias is not None else info.alias
        if alias is not None and not isinstance(alias, str):
            raise SchemaError(
                f"{where} has validation_alias={alias!r}; expected one plain name, since it becomes a column"
            )
        field = self._typed(where, name, info.annotation, info.metadata)
        return replace(field, key=alias or name, default=_default(info))

    def _typed(self, where: str, name: str, annotation: Any, metadata: Iterable[Any]) -> Field:
        """The field of an annotation, `Annotated`, `| None` and aliases of types taken off."""
        marks = list(_flat(metadata))
        nullable = False
        while True:
            if type(annotation).__name__ == "TypeAliasType":  # typing's from Python 3.12, or typing_extensions'
                annotation = annotation.__value__
            elif hasattr(annotation, "__supertype__"):  # NewType
                annotation = annotation.__supertype__
            elif get_origin(annotation) is Annotated:
                annotation, *more = get_args(annotation)
                marks += _flat(more)
            elif get_origin(annotation) in (Union, types.UnionType):
                members = [a for a in get_args(annotation) if a is not type(None)]
                if len(members) != 1 or len(members) == len(get_args(annotation)):
                    raise _unsupported(where, annotation)
                annotation, nullable = members[0], True
            else:
                break
        kind, dtype, checks, inner = self._plain(where, name, annotation)
        stamp = next((m for m in marks if isinstance(m, EventTime)), None)
        if stamp is not None:
            if kind != "datetime" or nullable:
                raise SchemaError(f"{where} is the event time: expected the type datetime, found {annotation!r}")
            kind = "event_time"
        checks += tuple(self._checks(where, marks))
        return Field(
            name=name,
            key=name,
            kind=kind,
            dtype=dtype,
            nullable=nullable,
            checks=checks,
            inner=inner,
            time=stamp,
        )

    def _plain(
        self, where: str, name: str, annotation: Any
    ) -> tuple[Kind, pl.DataType, tuple[tuple[str, Any], ...], tuple[Field, ...]]:
        if annotation in _SCALARS:
            return *_SCALARS[annotation], (), ()
        if get_origin(annotation) is Literal:
            return *_choices(where, annotation, get_args(annotation)), ()
        if get_origin(annotation) is list and get_args(annotation):
            element = self._typed(f"{where}[]", name, get_args(annotation)[0], ())
            return "list", pl.List(element.dtype), (), (element,)
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return *_choices(where, annotation, [member.value for member in annotation]), ()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, RootModel):
            inner = self.model(annotation)
            return "struct", pl.Struct({field.name: field.dtype for field in inner}), (), inner
        raise _unsupported(where, annotation)

    def _checks(self, where: str, marks: list[Any]) -> Iterator[tuple[str, Any]]:
        for mark in marks:
            if type(mark) in _CHECKS:
                yield _CHECKS[type(mark)], getattr(mark, _CHECKS[type(mark)])
            elif type(mark).__name__ == "_PydanticGeneralMetadata":  # what Field(pattern=…, strict=…) leaves
                for name, value in mark.__dict__.items():
                    if name == "pattern" and isinstance(value, str):
                        yield name, value
                    elif name != "allow_inf_nan" and value not in (None, False):
                        self.per_row.append(f"{where} has {name}={value!r}")
            elif not isinstance(mark, EventTime | AllowInfNan):
                self.per_row.append(f"{where} has {type(mark).__name__}")


def _flat(marks: Iterable[Any]) -> Iterator[Any]:
    """Metadata one by one: `Field(...)` inside `Annotated` and grouped constraints hold several."""
    for mark in marks:
        if isinstance(mark, FieldInfo):
            yield from _flat(mark.metadata)
        elif isinstance(mark, at.GroupedMetadata):
            yield from _flat(mark)
        elif mark is not None and not isinstance(mark, str):
            yield mark


def _choices(
    where: str, annotation: Any, values: Iterable[Any]
) -> tuple[Kind, pl.DataType, tuple[tuple[str, Any], ...]]:
    plain = tuple(v.value if isinstance(v, Enum) else v for v in values)
    for base in (str, int):
        if plain and all(isinstance(v, base) and not isinstance(v, bool) for v in plain):
            kind, dtype = _SCALARS[base]
            return kind, dtype, (("is_in", plain),)
    raise _unsupported(where, annotation)


def _default(info: FieldInfo) -> Any:
    if info.default_factory is not None:
        return [] if info.default_factory is list else COMPUTED
    if info.default is PydanticUndefined:
        return REQUIRED
    return info.default


def _unsupported(where: str, annotation: Any) -> SchemaError:
    shown = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
    hint = (
        "; for free-form data use a nested BaseModel, or str holding JSON"
        if annotation is dict or get_origin(annotation) is dict
        else ""
    )
    return SchemaError(
        f"{where} has the type {shown or annotation!r}, which cannot be a column{hint}. Supported: {SUPPORTED}"
    )
