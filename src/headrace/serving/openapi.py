"""The OpenAPI 3.1 document of a running app, made from what it declares.

Each stream, view and tool has an address of its own in it, with its own schema: `/v1/features/spending/{user_id}`
says what a row of `spending` holds, where one template for all views could only say "an object". The schemas are
those that the models and views give themselves, so the document cannot drift from what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.serving.options import DEFAULT_WAIT, LONGEST_WAIT
from headrace.serving.tools import describe, parameters

if TYPE_CHECKING:
    from headrace.app import App, Stream
    from headrace.features.view import View

Json = dict[str, Any]

_WAITS = (
    ("after", "The token of a push: wait until the answer sees it.", {"type": "string"}),
    ("now", "Read as of this moment: ISO 8601, or seconds since 1970.", {"type": "string"}),
    ("timeout", f"How long to wait: seconds, or text such as 5s; at most {LONGEST_WAIT:g}.", {"type": "string"}),
)
_MAX_AGE = ("max_age", "Wait for an event no older than this: seconds, or text such as 5s.", {"type": "string"})


def document(app: App, with_key: bool) -> Json:
    """The document.

    Args:
        app: What is served.
        with_key: Whether requests need an API key.
    """
    from headrace import __version__  # at the top it would be a circle: the package imports what serves it

    schemas = _shared_schemas()
    paths: Json = {}
    for stream in app.streams.values():
        paths[f"/v1/streams/{stream.name}"] = {"post": _push(stream, schemas)}
    for view in app.views.values():
        schemas[f"{view.name}.row"] = row_schema(view)
        keys = "/".join(f"{{{key}}}" for key in view.keys)
        paths[f"/v1/features/{view.name}/{keys}"] = {"get": _read(view)}
        paths[f"/v1/features/{view.name}"] = {"post": _read_many(view)}
        paths[f"/v1/tools/{view.name}"] = {"post": _call(view)}
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": app.name,
            "version": __version__,
            "description": "Event streams in, fresh features out. Errors are RFC 9457 problem details.",
        },
        "tags": [{"name": name} for name in ("streams", "features", "tools", "dead letters", "operations")],
        "paths": paths | _fixed_paths(),
        "components": {"schemas": schemas, "responses": {"problem": _problem_response()}},
    }
    if with_key:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
    return made


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


def _push(stream: Stream, schemas: Json) -> Json:
    event = _event_schema(stream, schemas)
    lines = {"type": "string", "description": "one JSON object a line, each an event"}
    content = {
        "application/x-ndjson": {"schema": lines},
        "application/json": {"schema": {"oneOf": [{"type": "array", "items": event}, event]}},
        "text/csv": {"schema": {"type": "string", "description": "a header line, then one event a line"}},
        "application/vnd.apache.parquet": {"schema": {"type": "string", "contentEncoding": "binary"}},
    }
    doc = (stream.schema.model.__doc__ or "").strip()
    return _operation(
        f"push_{stream.name}",
        "streams",
        f"Push events into {stream.name}",
        "Stored when it answers. A row that cannot be used becomes a dead letter and is named in `errors`; "
        f"the others are taken, all or none. {doc}".strip(),
        _ref("pushed"),
        body={"required": True, "content": content},
        parameters=[
            _query("format", "What the body is, over its Content-Type.", _one_of("ndjson", "json", "csv", "parquet")),
            _query("errors", "How many rejected rows to name.", {"type": "integer", "minimum": 0, "default": 100}),
        ],
    )


def _event_schema(stream: Stream, schemas: Json) -> Json:
    """A reference to the model's own JSON Schema; what that refers to goes in under the stream's name."""
    template = f"#/components/schemas/{stream.name}.{{model}}"
    schema = stream.schema.model.model_json_schema(ref_template=template)
    for name, nested in schema.pop("$defs", {}).items():
        schemas[f"{stream.name}.{name}"] = nested
    schemas[f"{stream.name}.event"] = schema
    return _ref(f"{stream.name}.event")


def _read(view: View) -> Json:
    keys = [
        {"name": key, "in": "path", "required": True, "schema": schema} for key, schema in view.key_schema().items()
    ]
    options = [_query(*option) for option in (_WAITS[0], _WAITS[1], _MAX_AGE, _WAITS[2])]
    return _operation(
        f"read_{view.name}",
        "features",
        f"One row of {view.name}",
        view.doc,
        _ref(f"{view.name}.row"),
        parameters=[*keys, *options],
    )


def _read_many(view: View) -> Json:
    schemas = list(view.key_schema().values())
    key = schemas[0] if len(schemas) == 1 else {"type": "array", "prefixItems": schemas, "items": False}
    properties = {"keys": {"type": "array", "items": key, "maxItems": 10_000}}
    options = {name: {**schema, "description": text} for name, text, schema in _WAITS}
    rows = {"rows": {"type": "array", "items": _ref(f"{view.name}.row")}}
    return _operation(
        f"read_many_{view.name}",
        "features",
        f"Many rows of {view.name}, read at one moment",
        "The rows come in the order of the keys.",
        {"type": "object", "properties": rows, "required": ["rows"]},
        body=_json_body({"type": "object", "properties": properties | options, "required": ["keys"]}),
    )


def _call(view: View) -> Json:
    row = row_schema(view)
    row["properties"].pop("token")
    row["properties"]["now"] = {"type": ["string", "null"], "format": "date-time"}
    row["required"] = list(row["properties"])
    return _operation(
        f"call_{view.name}",
        "tools",
        f"Call the tool {view.name}",
        describe(view),
        row,
        body=_json_body(parameters(view)),
    )


def _fixed_paths() -> Json:
    letters = "/v1/dead-letters"
    status = _operation("status", "operations", "Figures of the moment, and what is declared", "", _any_object())
    ready = _operation("ready", "operations", "Whether it can take and answer", "", _any_object(), public=True)
    ready["responses"]["503"] = {"description": "Not ready", "content": {"application/json": {"schema": _any_object()}}}
    text = {"type": "string"}
    return {
        "/v1/tools": {"get": _operation("tools", "tools", "OpenAI tool definitions", "", _list_of(_any_object()))},
        "/v1/status": {"get": status},
        "/v1/drain": {
            "post": _operation(
                "drain",
                "operations",
                "Wait until all input that is there now has been processed",
                "",
                _any_object(),
                body=_json_body(
                    _shape(timeout={"type": ["number", "string"], "default": DEFAULT_WAIT}), required=False
                ),
            )
        },
        letters: {"get": _list_letters()},
        f"{letters}/{{id}}": {
            "get": _operation(
                "dead_letter",
                "dead letters",
                "One dead letter, whole",
                "",
                _ref("dead_letter"),
                parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            )
        },
        f"{letters}/replay": {
            "post": _operation(
                "replay_dead_letters",
                "dead letters",
                "Push dead letters again",
                "",
                _whole(replayed={"type": "integer"}, still_rejected={"type": "integer"}),
                body=_json_body(_shape(ids=_list_of({"type": "integer"})), required=False),
            )
        },
        "/healthz": {"get": _operation("health", "operations", "Whether it runs", "", _any_object(), public=True)},
        "/readyz": {"get": ready},
        "/metrics": {"get": _operation("metrics", "operations", "Prometheus metrics", "", text, media="text/plain")},
    }


def _list_letters() -> Json:
    return _operation(
        "dead_letters",
        "dead letters",
        "Inputs that could not be used",
        "Their bytes are cut off here after 1,000; one letter alone comes whole.",
        _whole(dead_letters=_list_of(_ref("dead_letter")), next={"type": ["integer", "null"]}, counts=_any_object()),
        parameters=[
            _query("stream", "Only this stream's.", {"type": "string"}),
            _query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            _query("after", "Only those with a greater id: `next` of the answer before.", {"type": "integer"}),
        ],
    )


def _shared_schemas() -> Json:
    text, number = {"type": "string"}, {"type": "integer"}
    return {
        "pushed": _shape(
            accepted=number, rejected=number, errors=_list_of(_shape(row=number, reason=text)), token=text
        ),
        "dead_letter": _dead_letter(text, number),
        "problem": _shape(type=text, title=text, status=number, detail=text, instance=text),
    }


def _dead_letter(text: Json, number: Json) -> Json:
    moment = {"type": "string", "format": "date-time"}
    schema = _whole(id=number, stream=text, source=text, reason=text, at=moment, truncated={"type": "boolean"})
    schema["properties"] |= {
        "raw": {**text, "description": "the original bytes, where they are text"},
        "raw_base64": {**text, "description": "the original bytes, where they are not"},
    }
    return schema


def _operation(
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


def _problem_response() -> Json:
    content = {"application/problem+json": {"schema": _ref("problem")}}
    return {"description": "What went wrong: expected, found, and what to do", "content": content}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _json_body(schema: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _shape(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _whole(**properties: Json) -> Json:
    return _shape(**properties) | {"required": list(properties)}


def _one_of(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def _list_of(items: Json) -> Json:
    return {"type": "array", "items": items}


def _any_object() -> Json:
    return {"type": "object"}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
