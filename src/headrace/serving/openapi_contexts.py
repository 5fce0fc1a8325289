"""The OpenAPI paths of contexts, each with its own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.serving import context_tool
from headrace.serving.openapi_parts import Json, json_body, list_of, one_of, operation, ref, shape, whole
from headrace.serving.options import LONGEST_WAIT

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Context

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}


def context_paths(app: App, schemas: Json) -> Json:
    """The paths of an app's contexts; the schemas that they refer to are added to `schemas`."""
    paths: Json = {}
    for context in app.contexts.values():
        schemas["pack"] = _pack()
        paths[f"/v1/contexts/{context.name}"] = {"post": _context(context, schemas)}
        paths[f"/v1/tools/{context.name}"] = {"post": _call(context, schemas)}
    return paths


def _pack() -> Json:
    point = whole(
        now=_TIME,
        as_of={**_TIME, "description": "the newest event, or change of a document, in it"},
        token={**_TEXT, "description": "the positions read: hand it to another read as after"},
        positions={"type": "object"},
        consistent={"type": "boolean", "description": "whether all was read at one point"},
        stale=list_of({**_TEXT, "description": "what is older than was asked for, in words"}),
        lagging={"type": "boolean"},
    )
    made = whole(
        id={**_TEXT, "description": "of the pack"},
        context=_TEXT,
        arguments={"type": "object"},
        sections=list_of({"type": "object"}),
        dropped=list_of({"type": "object", "description": "what is not in it, or not whole, and why"}),
        tokens=_WHOLE,
        budget=_WHOLE,
        counter={**_TEXT, "description": "what counted the tokens"},
        point=point,
    )
    made["properties"]["rendered"] = {
        "description": "the pack in the format that was asked for: a text, or of messages a list"
    }
    return made


def _context(context: Context, schemas: Json) -> Json:
    asked = _parameters(context, schemas)
    options = shape(
        budget={"type": ["integer", "null"], "minimum": 1, "default": context.budget},
        max_age={"type": ["number", "string", "null"], "description": "how old what is read may be, rows included"},
        on_stale={**one_of("wait", "flag", "refuse"), "default": context.on_stale},
        after={"type": ["string", "null"], "description": "the token of a push: wait until the context sees it"},
        timeout={"type": ["number", "string", "null"], "description": f"how long to wait; at most {LONGEST_WAIT:g} s"},
        consistent={"type": ["boolean", "null"], "default": context.consistent},
        format={"enum": ["markdown", "xml", "json", "messages", None], "default": "markdown"},
    )
    required = [name for name in asked["required"] if name not in context.arguments.optional]
    body = {
        "type": "object",
        "properties": asked["properties"] | options["properties"],
        "additionalProperties": False,
    } | ({"required": required} if required else {})
    return operation(
        f"context_{context.name}",
        "contexts",
        f"What a model is given: {context.name}",
        context.about,
        ref("pack"),
        body=json_body(body, required=bool(required)),
    )


def _call(context: Context, schemas: Json) -> Json:
    answer = whole(context=_TEXT, pack=_TEXT, tokens=_WHOLE, as_of=_TIME, stale=list_of(_TEXT))
    name, about = context.name, context_tool.describe(context)
    body = json_body(_parameters(context, schemas))
    return operation(f"call_{name}", "tools", f"Call the tool {name}", about, answer, body=body)


def _parameters(context: Context, schemas: Json) -> Json:
    """The arguments' schema; what it refers to goes in under the context's name."""
    found: Json = _moved(dict(context.parameters), context.name)
    for name, nested in found.pop("$defs", {}).items():
        schemas[f"{context.name}.{name}"] = nested
    return found


def _moved(schema: Any, prefix: str) -> Any:
    if isinstance(schema, list):
        return [_moved(one, prefix) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _moved(value, prefix) for key, value in schema.items()}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/$defs/", f"#/components/schemas/{prefix}.")
    return made
