"""Views as tools that a language model may call: OpenAI function definitions, and the check of a call's arguments.

A definition says what a model needs to choose the tool and to read its answer: the view's docstring, what each value
is, and that `as_of` and `age` say how fresh it is. Its parameters are the view's key columns under the rules of
OpenAI's strict mode (every property required, no others, only keywords that constrained decoding knows), so a model
that honours it cannot send anything else. One that does not is told which argument is wrong, what was expected and
what was found: the message goes back to the model, which is then able to mend its call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.errors import ConfigError, InputError, UnknownNameError, nearest
from headrace.serving import context_tool, search_tool
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.features.view import View
    from headrace.serving.live import Live

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# OpenAI refuses a longer description of a function.
_LONGEST = 1024
# What strict mode's constrained decoding understands of a scalar's JSON Schema.
_KEYWORDS = ("type", "description", "enum", "format", "pattern", "minimum", "maximum", "multipleOf")
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_FRESHNESS = (
    "as_of: event time of the newest event in the answer, null if no event of this key is known. "
    "age: seconds between it and now."
)
_JSON_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}
_JSON_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array"}


def tools(app: App) -> list[dict[str, Any]]:
    """The OpenAI (Chat Completions) definitions of everything in `app` that a model may call.

    Raises:
        ConfigError: A view has a name that cannot be a tool's.
    """
    return [
        *(definition(view) for view in app.views.values()),
        *(search_tool.definition(collection) for collection in app.collections.values()),
        *(context_tool.definition(context) for context in app.contexts.values()),
    ]


def definition(view: View) -> dict[str, Any]:
    """The OpenAI definition of one view."""
    if not _NAME.fullmatch(view.name):
        raise ConfigError(
            f"expected a tool's name of 1 to 64 letters, digits, '_' or '-', found the view {view.name!r}; "
            "give the view another with name="
        )
    return {
        "type": "function",
        "function": {
            "name": view.name,
            "description": describe(view),
            "parameters": parameters(view),
            "strict": True,
        },
    }


def parameters(view: View) -> dict[str, Any]:
    """The JSON Schema of a call's arguments: the view's key columns, in strict mode's subset."""
    properties = {}
    for name, schema in view.key_schema().items():
        kept = {keyword: schema[keyword] for keyword in _KEYWORDS if keyword in schema}
        if kept.get("format") not in _FORMATS:
            kept.pop("format", None)
        kept.setdefault("description", f"the {name} to look up")
        properties[name] = kept
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def describe(view: View) -> str:
    """What a model is told of a view: its docstring, each value, and how to read the answer's time."""
    doc = (view.doc or f"The current features of one {' and '.join(view.keys)}.").strip()
    values = [f"- {name}: {feature.describe()}" for name, feature in view.features.items()]
    while True:
        left_out = len(view.features) - len(values)
        more = [f"- and {left_out} more"] if left_out else []
        text = "\n".join([doc, "Returns:", *values, *more, _FRESHNESS])
        if len(text) <= _LONGEST:
            return text
        if not values:
            # Only the docstring is left to shorten; what the answer's time means must stay.
            room = _LONGEST - (len(text) - len(doc)) - 1
            return "\n".join([doc[:room] + "…", "Returns:", *more, _FRESHNESS])
        values.pop()


def check_arguments(
    label: str, schemas: Mapping[str, Mapping[str, Any]], arguments: Mapping[str, Any] | str | None
) -> dict[str, Any]:
    """The arguments of a call, in the order of the schemas.

    Args:
        label: The tool's name.
        schemas: Each argument's JSON Schema; one that allows null may be left out.
        arguments: An object, or the JSON text of one, as models send it.

    Raises:
        InputError: An argument is missing, unknown or of the wrong type; the message is written for the model.
    """
    given = _as_object(label, schemas, arguments)
    for name in given:
        if name not in schemas:
            raise InputError(
                f"{label}: expected only the arguments {_names(schemas)}, found {name!r}; "
                f"{nearest(str(name), schemas)}. Call it again without {name!r}"
            )
    checked = {}
    for name, schema in schemas.items():
        if name not in given and not _is_optional(schema):
            raise InputError(
                f"{label}: expected the argument {name!r} ({_expected(schema)}), found "
                f"{'only ' + _names(given) if given else 'no arguments'}. Call it again with {name!r}"
            )
        value = given.get(name)
        if not _fits(schema, value):
            raise InputError(
                f"{label}: expected {name!r} to be {_expected(schema)}, found {_found(value)}. "
                f"Call it again with another value of {name!r}"
            )
        checked[name] = _plain(schema, value)
    return checked


def _is_optional(schema: Mapping[str, Any]) -> bool:
    return "null" in schema.get("type", ())


def call(live: Live, name: str, arguments: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Run a tool: read the view's row of the key in `arguments`, search the collection, or make the context's pack.

    Returns:
        Plain JSON values. Of a view: the key, each feature, `as_of` and `now` as ISO 8601 and `age` in seconds. Of a
        collection: the hits. Of a context: its pack, rendered.

    Raises:
        UnknownNameError: No tool has that name.
        InputError: The arguments do not fit; the message is written for the model.
    """
    if name in live.app.collections:
        given = check_arguments(name, search_tool.ARGUMENTS, arguments)
        return search_tool.call(live, live.app.collections[name], given)
    if name in live.app.contexts:
        return context_tool.call(live, live.app.contexts[name], arguments)
    view = live.app.views.get(name)
    if view is None:
        known = [*live.app.views, *live.app.collections, *live.app.contexts]
        raise UnknownNameError(f"expected the name of a tool, found {name!r}; {nearest(name, known)}")
    key = check_arguments(view.name, view.key_schema(), arguments)
    row = live.read(view, key)
    values = row.to_dict()
    values.pop("token", None)
    now = live.now(view)
    values["now"] = from_micros(now) if now else None  # on event time there is no now before the first event
    # Through JSON and back: times become text and what JSON cannot hold (NaN) becomes null, as over HTTP.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return plain


def _as_object(label: str, schemas: Mapping[str, Any], arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise InputError(
                f"{label}: expected the arguments as a JSON object, found text that is not JSON ({error})"
            ) from error
    if not isinstance(arguments, Mapping):
        raise InputError(
            f"{label}: expected the arguments as a JSON object with {_names(schemas)}, found {_found(arguments)}"
        )
    return arguments


def _fits(schema: Mapping[str, Any], value: Any) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", [])
    return not kinds or any(_is_a(kind, value) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _plain(schema: Mapping[str, Any], value: Any) -> Any:
    """A whole number as an int: in JSON 11.0 is an integer as well."""
    return int(value) if isinstance(value, float) and schema.get("type") == "integer" else value


def _is_a(kind: str, value: Any) -> bool:
    if kind == "null":
        return value is None
    if isinstance(value, bool):  # to Python a bool is an int; to JSON it is not
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _JSON_TYPES.get(kind, ()))


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    kinds = schema.get("type", "value")
    text = kinds if isinstance(kinds, str) else " or ".join(kinds)
    form = f" ({schema['format']})" if "format" in schema else ""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}{form}"


def _found(value: Any) -> str:
    name = "object" if isinstance(value, Mapping) else _JSON_NAMES.get(type(value), type(value).__name__)
    if value is None or isinstance(value, Mapping | list):
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if value is not None else "null"
    shown = repr(value)
    return f"the {name} {shown if len(shown) <= 60 else shown[:57] + '…'}"


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
