"""What a function takes, as a JSON Schema that a model can be held to, and as a check of what it was called with.

The annotations of a signature are read by Pydantic, once. Its schema is then narrowed to what constrained decoding
knows (OpenAI's strict mode): every property is required, none is added, and a parameter with a default is one that
takes null. A call is checked in that JSON form, wherever it comes from, so that a function sees the same values in
process, over HTTP and from a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from headrace.errors import ConfigError, InputError, nearest

# What strict mode does not know of a schema, or what says nothing to a model.
_LEFT_OUT = {"default", "title", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "examples"}
# A parameter's text, lists and all, in bytes of JSON.
_MOST = 1 << 20
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Arguments:
    """The parameters of a function.

    Attributes:
        schema: Their JSON Schema, an object, in strict mode's subset.
        optional: Those that may be left out, or be null, for their default.
        model: What checks them.
    """

    schema: Mapping[str, Any]
    optional: frozenset[str]
    model: type[BaseModel]

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], reserved: Collection[str] = ()) -> Arguments:
        """Reads a function's signature.

        Args:
            name: What errors call it.
            function: Its parameters are given by name, and each has an annotation.
            reserved: Names that no parameter may have.

        Raises:
            ConfigError: A parameter cannot be an argument of a call.
        """
        fields: dict[str, Any] = {}
        for label, parameter in _signature(name, function).items():
            if parameter.kind not in _BY_NAME or label.startswith("_"):
                raise ConfigError(f"{name}: expected parameters that are given by name, found {parameter}")
            if label in reserved:
                raise ConfigError(f"{name}: the parameter {label!r} is an option of every request; call it otherwise")
            if parameter.annotation is parameter.empty:
                raise ConfigError(f"{name}: expected a type for the parameter {label!r}; write, say, {label}: str")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[label] = (parameter.annotation, default)
        optional = frozenset(label for label, (_, default) in fields.items() if default is not ...)
        try:
            # Names such as "copy" are methods of the model class; as fields they only hide them.
            config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=False, protected_namespaces=())
            model: type[BaseModel] = create_model(f"{name}_arguments", __config__=config, **fields)
            whole = model.model_json_schema()
        except (PydanticUserError, NameError, TypeError) as error:
            raise ConfigError(f"{name}: expected parameters that JSON can hold, found others: {error}") from error
        return cls(_strict(whole, optional), optional, model)

    def check(self, name: str, given: Mapping[str, Any] | str | bytes | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of a call: as they are handed to the function, and as plain JSON values.

        Args:
            name: What errors call the function.
            given: By name; or the JSON text of an object, as models send it.

        Raises:
            InputError: One is missing, unknown or of the wrong type; the message is written for a model to mend it.
        """
        plain = _plain(name, given)
        known: Mapping[str, Any] = self.schema["properties"]
        for label in plain:
            if label not in known:
                raise InputError(
                    f"{name}: expected only the arguments {_names(known)}, found {label!r}; "
                    f"{nearest(label, known)}. Call it again without {label!r}"
                )
        plain = {label: value for label, value in plain.items() if not (value is None and label in self.optional)}
        plain |= {label: int(value) for label, value in plain.items() if _whole(known[label], value)}
        for label in known:
            if label not in plain and label not in self.optional:
                found = f"only {_names(plain)}" if plain else "no arguments"
                raise InputError(
                    f"{name}: expected the argument {label!r}, found {found}. Call it again with {label!r}"
                )
        try:
            checked = self.model.model_validate_json(msgspec.json.encode(plain))
        except ValidationError as error:
            raise InputError(_told(name, error)) from None
        return {label: getattr(checked, label) for label in known}, plain


def _signature(name: str, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, SyntaxError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{name}: the types of its parameters cannot be read: {error}; import them above it"
        ) from None


def _strict(schema: Mapping[str, Any], optional: Collection[str]) -> dict[str, Any]:
    made: dict[str, Any] = _narrowed(schema)
    properties = made.setdefault("properties", {})
    for label in optional:
        properties[label] = _nullable(properties[label])
    for label, one in properties.items():
        one.setdefault("description", f"the {label.replace('_', ' ')}")
    made |= {"required": list(properties), "additionalProperties": False}
    return {
        key: made[key] for key in ("type", "properties", "required", "additionalProperties", "$defs") if key in made
    }


def _narrowed(schema: Any) -> Any:
    """A schema without what strict mode does not know; objects in it take what they name, and no more."""
    if isinstance(schema, list):
        return [_narrowed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            made[key] = {label: _narrowed(one) for label, one in value.items()}
        elif key not in _LEFT_OUT:
            made["enum" if key == "const" else key] = [value] if key == "const" else _narrowed(value)
    if made.get("type") == "object" and schema.get("additionalProperties") not in (None, False):
        raise ConfigError("expected objects with named fields, found a dict of any; declare a Pydantic model")
    if made.get("type") == "object" and "properties" in made:
        made |= {"required": list(made["properties"]), "additionalProperties": False}
    return made


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if not isinstance(kind, str):
        options = schema.get("anyOf", [schema])
        known = any(one.get("type") == "null" for one in options)
        return {"anyOf": options if known else [*options, {"type": "null"}]}
    made = schema | {"type": [kind, "null"]}
    return made | ({"enum": [*made["enum"], None]} if "enum" in made else {})


def _plain(name: str, given: Mapping[str, Any] | str | bytes | None) -> dict[str, Any]:
    """The arguments as JSON has them: what the function gets is then the same wherever the call comes from."""
    if given is None or given == "" or given == b"":
        return {}
    try:
        text = given if isinstance(given, str | bytes) else msgspec.json.encode(dict(given))
        if len(text) > _MOST:
            raise InputError(f"{name}: expected arguments of at most {_MOST:,} bytes, found {len(text):,}")
        found = msgspec.json.decode(text)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"{name}: expected the arguments as a JSON object, found what is none ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{name}: expected the arguments as a JSON object, found {type(found).__name__}")
    return found


def _whole(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a number is a whole one written as 11.0, which JSON does not tell from 11."""
    kind = schema.get("type")
    return (
        isinstance(value, float)
        and value.is_integer()
        and "integer" in ([kind] if isinstance(kind, str) else kind or ())
    )


def _told(name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "the arguments"
    shown = repr(first["input"])
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return (
        f"{name}: {where!r} does not fit: {reason}, found {shown if len(shown) <= 60 else shown[:57] + '…'}. "
        f"Call it again with another value of {where!r}"
    )


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "(none)"


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object's JSON Schema in what constrained decoding knows: every property is required, and none is added."""
    return _strict(schema, ())
