"""The pieces that an OpenAPI document is put together from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.features.view import View

Json = dict[str, Any]

FORMS = ("chat", "responses", "anthropic", "mcp")
"""The forms that tools' definitions can have."""
CALL_TIMEOUT: Json = {
    "name": "timeout",
    "in": "query",
    "description": "How long the call may take: seconds, or text such as 5s.",
    "schema": {"type": "string"},
}


def operation(
    name: str,
    tag: str,
    summary: str,
    description: str,
    answer: Json,
    *,
    body: Json | None = None,
    parameters: list[Json] | None = None,
    media: str = "application/json",
    public: bool = False,
) -> Json:
    """An operation with its answer; what goes wrong is a problem."""
    made: Json = {"operationId": name, "tags": [tag], "summary": summary}
    if description:
        made["description"] = description
    if parameters:
        made["parameters"] = parameters
    if body:
        made["requestBody"] = body
    made["responses"] = {
        "200": {"description": "OK", "content": {media: {"schema": answer}}},
        "default": {"$ref": "#/components/responses/problem"},
    }
    return made | ({"security": []} if public else {})


def problem_response() -> Json:
    """The answer when something goes wrong."""
    content = {"application/problem+json": {"schema": ref("problem")}}
    return {"description": "What went wrong: expected, found, and what to do", "content": content}


def query(name: str, description: str, schema: Json) -> Json:
    """A query parameter."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def json_body(schema: Json, *, required: bool = True) -> Json:
    """A JSON body."""
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def shape(**properties: Json) -> Json:
    """An object with these properties, any of which may be absent."""
    return {"type": "object", "properties": properties}


def whole(**properties: Json) -> Json:
    """An object with all of these properties."""
    return shape(**properties) | {"required": list(properties)}


def one_of(*values: str) -> Json:
    """A text that is one of these."""
    return {"type": "string", "enum": list(values)}


def list_of(items: Json) -> Json:
    """An array."""
    return {"type": "array", "items": items}


def any_object() -> Json:
    """An object of any kind."""
    return {"type": "object"}


def ref(name: str) -> Json:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def row_schema(view: View) -> Json:
    """The JSON Schema of a row of a view."""
    features = {
        name: {**view.feature_schema(name), "description": feature.describe()}
        for name, feature in view.features.items()
    }
    properties = {
        **view.key_schema(),
        **features,
        "as_of": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "event time of the newest event in the values; null if there is none",
        },
        "age": {"type": ["number", "null"], "description": "seconds between as_of and now"},
        "token": {"type": "string", "description": "the positions that the values have seen"},
        "lagging": {
            "type": "boolean",
            "description": "true while the engine is further behind its input than the app allows: newer events exist",
        },
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
