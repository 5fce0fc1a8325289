"""Tools in the forms that models' interfaces take: Chat Completions, Responses, Anthropic's and MCP's.

There is one list, `tools.tools`, in the form of Chat Completions; the others are rewritings of it, so that a tool is
the same tool wherever it is offered. Its schema stays strict in each: only keywords that constrained decoding knows
there. What Anthropic's does not know of a number (its bounds) is said in words instead, and checked by the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import InputError, nearest
from headrace.serving import openapi_library, openapi_parts, tools
from headrace.serving.openapi_parts import FORMS
from headrace.serving.tool_calls import NOTE

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.features.view import View

Form = Literal["chat", "responses", "anthropic", "mcp"]
"""Whose form: OpenAI's Chat Completions or Responses, Anthropic's Messages, or MCP."""

_BOUNDS = {"minimum": "at least", "maximum": "at most", "multipleOf": "a multiple of"}
# What a model is given of a hit, as `search_tool` shows it.
_HIT = ("text", "title", "headings", "document", "source", "as_of", "age", "trusted")


def formed(app: App, form: str = "chat") -> list[dict[str, Any]]:
    """Everything in `app` that a model may call, in a form.

    Raises:
        InputError: There is no such form.
        ConfigError: Something has a name that cannot be a tool's.
    """
    if form not in FORMS:
        raise InputError(
            f"expected the form of tools to be one of {', '.join(FORMS)}, found {form!r}; {nearest(str(form), FORMS)}"
        )
    listed = tools.tools(app)
    if form == "chat":
        return listed
    functions: list[dict[str, Any]] = [tool["function"] for tool in listed]
    if form == "responses":
        return [{"type": "function", **function} for function in functions]
    if form == "anthropic":
        return [_anthropic(function) for function in functions]
    return [_mcp(app, function) for function in functions]


def _anthropic(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": _in_words(function["parameters"]),
        "strict": True,
    }


def _in_words(schema: Any) -> Any:
    """A schema whose bounds of numbers are in its description."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_in_words(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    # A property may itself be called "minimum": then what it is bound to is a schema.
    bounds = {name: schema[name] for name in _BOUNDS if isinstance(schema.get(name), int | float)}
    made = {name: _in_words(value) for name, value in schema.items() if name not in bounds}
    if bounds:
        told = ", ".join(f"{_BOUNDS[name]} {value}" for name, value in bounds.items())
        made["description"] = f"{made['description']} ({told})" if "description" in made else told
    return made


def _mcp(app: App, function: Mapping[str, Any]) -> dict[str, Any]:
    name = function["name"]
    made = {"name": name, "description": function["description"], "inputSchema": function["parameters"]}
    if name in app.views:
        made["outputSchema"] = row_schema(app.views[name])
    elif name in app.collections:
        made["outputSchema"] = hits_schema()
    if name in app.views or name in app.collections or name in getattr(app, "contexts", ()):
        # It reads what is here and changes nothing.
        made["annotations"] = {"readOnlyHint": True, "openWorldHint": False}
    return made


def row_schema(view: View) -> dict[str, Any]:
    """The JSON Schema of what a view's tool answers."""
    row = openapi_parts.row_schema(view)["properties"]
    properties = {name: _or_null(row[name]) if name in view.features else row[name] for name in row if name != "token"}
    properties["now"] = {"type": ["string", "null"], "format": "date-time", "description": "when it was read"}
    return _object(properties)


def hits_schema() -> dict[str, Any]:
    """The JSON Schema of what a collection's tool answers."""
    shown = openapi_library.hit_schema()["properties"]
    hit = {name: shown[name] for name in _HIT}
    whole = {"type": "object", "properties": hit, "required": list(hit)}
    return _object({"hits": {"type": "array", "items": whole}, "now": {"type": ["string", "null"]}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    note = {NOTE: {"type": "string", "description": "what was left out, because the answer was too long"}}
    return {"type": "object", "properties": properties | note, "required": list(properties)}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a feature's value; what JSON cannot hold, such as NaN, is null."""
    kinds = schema["type"]
    listed = [kinds] if isinstance(kinds, str) else list(kinds)
    return {**schema, "type": [*listed, *({"null"} - set(listed))]}
