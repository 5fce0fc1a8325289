"""The OpenAPI 3.1 document of a running app, made from what it declares.

Each stream, view and tool has an address of its own in it, with its own schema: `/v1/features/spending/{user_id}`
says what a row of `spending` holds, where one template for all views could only say "an object". The schemas are
those that the models and views give themselves, so the document cannot drift from what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.serving.openapi_contexts import context_paths
from headrace.serving.openapi_library import library_paths
from headrace.serving.openapi_memory import memory_paths
from headrace.serving.openapi_parts import (
    CALL_TIMEOUT,
    FORMS,
    Json,
    any_object,
    json_body,
    list_of,
    one_of,
    operation,
    problem_response,
    query,
    ref,
    row_schema,
    shape,
    whole,
)
from headrace.serving.options import DEFAULT_WAIT, LONGEST_WAIT
from headrace.serving.tools import describe, parameters

if TYPE_CHECKING:
    from headrace.app import App, Stream
    from headrace.features.view import View

_DATA = ("streams", "features", "tables", "collections", "contexts", "memories")
TAGS = (*_DATA, "tools", "chat", "dead letters", "operations")

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
        if stream.name not in app.enrichments:  # into which only the model's answers go
            paths[f"/v1/streams/{stream.name}"] = {"post": _push(stream, schemas)}
    for view in app.views.values():
        schemas[f"{view.name}.row"] = row_schema(view)
        keys = "/".join(f"{{{key}}}" for key in view.keys)
        paths[f"/v1/features/{view.name}/{keys}"] = {"get": _read(view)}
        paths[f"/v1/features/{view.name}"] = {"post": _read_many(view)}
        paths[f"/v1/tools/{view.name}"] = {"post": _call(view)}
    paths |= library_paths(app, schemas)
    paths |= context_paths(app, schemas)
    paths |= memory_paths(app, schemas)
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": app.name,
            "version": __version__,
            "description": "Event streams and changing documents in, fresh features and searchable collections out. "
            "Errors are RFC 9457 problem details.",
        },
        "tags": [{"name": name} for name in TAGS],
        "paths": paths | _fixed_paths(),
        "components": {"schemas": schemas, "responses": {"problem": problem_response()}},
    }
    if with_key:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
    return made


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
    return operation(
        f"push_{stream.name}",
        "streams",
        f"Push events into {stream.name}",
        "Stored when it answers. A row that cannot be used becomes a dead letter and is named in `errors`; "
        f"the others are taken, all or none. {doc}".strip(),
        ref("pushed"),
        body={"required": True, "content": content},
        parameters=[
            query("format", "What the body is, over its Content-Type.", one_of("ndjson", "json", "csv", "parquet")),
            query("errors", "How many rejected rows to name.", {"type": "integer", "minimum": 0, "default": 100}),
        ],
    )


def _event_schema(stream: Stream, schemas: Json) -> Json:
    """A reference to the model's own JSON Schema; what that refers to goes in under the stream's name."""
    template = f"#/components/schemas/{stream.name}.{{model}}"
    schema = stream.schema.model.model_json_schema(ref_template=template)
    for name, nested in schema.pop("$defs", {}).items():
        schemas[f"{stream.name}.{name}"] = nested
    schemas[f"{stream.name}.event"] = schema
    return ref(f"{stream.name}.event")


def _read(view: View) -> Json:
    keys = [
        {"name": key, "in": "path", "required": True, "schema": schema} for key, schema in view.key_schema().items()
    ]
    options = [query(*option) for option in (_WAITS[0], _WAITS[1], _MAX_AGE, _WAITS[2])]
    return operation(
        f"read_{view.name}",
        "features",
        f"One row of {view.name}",
        view.doc,
        ref(f"{view.name}.row"),
        parameters=[*keys, *options],
    )


def _read_many(view: View) -> Json:
    schemas = list(view.key_schema().values())
    key = schemas[0] if len(schemas) == 1 else {"type": "array", "prefixItems": schemas, "items": False}
    properties = {"keys": {"type": "array", "items": key, "maxItems": 10_000}}
    options = {name: {**schema, "description": text} for name, text, schema in _WAITS}
    rows = {"rows": {"type": "array", "items": ref(f"{view.name}.row")}}
    return operation(
        f"read_many_{view.name}",
        "features",
        f"Many rows of {view.name}, read at one moment",
        "The rows come in the order of the keys.",
        {"type": "object", "properties": rows, "required": ["rows"]},
        body=json_body({"type": "object", "properties": properties | options, "required": ["keys"]}),
    )


def _call(view: View) -> Json:
    row = row_schema(view)
    row["properties"].pop("token")
    row["properties"]["now"] = {"type": ["string", "null"], "format": "date-time"}
    row["required"] = list(row["properties"])
    return operation(
        f"call_{view.name}",
        "tools",
        f"Call the tool {view.name}",
        describe(view),
        row,
        body=json_body(parameters(view)),
        parameters=[CALL_TIMEOUT],
    )


def _changes() -> Json:
    """Event streams have no schema in OpenAPI 3.1: their answer is a text."""
    text = {"type": "string"}
    many = {"type": "array", "items": text}
    asked = (
        ("view", "A view: rows that change.", text),
        ("key", "Of the view before it, only this key; once for each.", many),
        ("collection", "A collection: documents that can be searched as they are now, or are gone.", text),
        ("table", "A table: rows that are written or deleted.", text),
        ("pack", "The id of a pack: what in it no longer holds.", many),
        ("last_event_id", "As the header Last-Event-ID, which goes before it.", text),
    )
    made = operation(
        "changes",
        "contexts",
        "Changes of what is subscribed to, as they happen",
        "Server-sent events: `ready`, `features`, `document`, `row`, `pack`, and `reset` or `lost` when everything "
        "that is subscribed to should be read again.",
        text,
        parameters=[query(name, about, schema) for name, about, schema in asked],
    )
    made["responses"]["200"]["content"] = {"text/event-stream": {"schema": text}}
    return made


def _fixed_paths() -> Json:
    letters = "/v1/dead-letters"
    status = operation("status", "operations", "Figures of the moment, and what is declared", "", any_object())
    ready = operation("ready", "operations", "Whether it can take and answer", "", any_object(), public=True)
    ready["responses"]["503"] = {"description": "Not ready", "content": {"application/json": {"schema": any_object()}}}
    text = {"type": "string"}
    return {
        "/v1/tools": {
            "get": operation(
                "tools",
                "tools",
                "Tool definitions",
                "For OpenAI's Chat Completions unless told otherwise.",
                list_of(any_object()),
                parameters=[query("form", "Whose form.", one_of(*FORMS))],
            )
        },
        "/v1/chat/completions": {
            "post": operation(
                "chat",
                "chat",
                "OpenAI's chat completion, grounded in live context",
                "Errors have OpenAI's form. With `stream` the answer is its event stream.",
                any_object(),
                body=json_body(any_object()),
            )
        },
        "/v1/changes": {"get": _changes()},
        "/v1/packs/{id}": {
            "get": operation("pack", "contexts", "A context that was given out, as it was", "", any_object())
            | {"parameters": [{"name": "id", "in": "path", "required": True, "schema": text}]}
        },
        "/v1/packs/{id}/replay": {
            "get": operation(
                "replay_pack", "contexts", "The same, made again as of then and compared with now", "", any_object()
            )
            | {"parameters": [{"name": "id", "in": "path", "required": True, "schema": text}]}
        },
        "/v1/status": {"get": status},
        "/v1/drain": {
            "post": operation(
                "drain",
                "operations",
                "Wait until all input that is there now has been processed",
                "",
                any_object(),
                body=json_body(shape(timeout={"type": ["number", "string"], "default": DEFAULT_WAIT}), required=False),
            )
        },
        letters: {"get": _list_letters()},
        f"{letters}/{{id}}": {
            "get": operation(
                "dead_letter",
                "dead letters",
                "One dead letter, whole",
                "",
                ref("dead_letter"),
                parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            )
        },
        f"{letters}/replay": {
            "post": operation(
                "replay_dead_letters",
                "dead letters",
                "Push dead letters again",
                "",
                whole(replayed={"type": "integer"}, still_rejected={"type": "integer"}),
                body=json_body(shape(ids=list_of({"type": "integer"})), required=False),
            )
        },
        "/healthz": {"get": operation("health", "operations", "Whether it runs", "", any_object(), public=True)},
        "/readyz": {"get": ready},
        "/metrics": {"get": operation("metrics", "operations", "Prometheus metrics", "", text, media="text/plain")},
    }


def _list_letters() -> Json:
    return operation(
        "dead_letters",
        "dead letters",
        "Inputs that could not be used",
        "Their bytes are cut off here after 1,000; one letter alone comes whole.",
        whole(dead_letters=list_of(ref("dead_letter")), next={"type": ["integer", "null"]}, counts=any_object()),
        parameters=[
            query("stream", "Only this stream's.", {"type": "string"}),
            query("limit", "How many.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            query("after", "Only those with a greater id: `next` of the answer before.", {"type": "integer"}),
        ],
    )


def _shared_schemas() -> Json:
    text, number = {"type": "string"}, {"type": "integer"}
    return {
        "pushed": shape(accepted=number, rejected=number, errors=list_of(shape(row=number, reason=text)), token=text),
        "dead_letter": _dead_letter(text, number),
        "problem": shape(type=text, title=text, status=number, detail=text, instance=text),
    }


def _dead_letter(text: Json, number: Json) -> Json:
    moment = {"type": "string", "format": "date-time"}
    schema = whole(id=number, stream=text, source=text, reason=text, at=moment, truncated={"type": "boolean"})
    schema["properties"] |= {
        "raw": {**text, "description": "the original bytes, where they are text"},
        "raw_base64": {**text, "description": "the original bytes, where they are not"},
    }
    return schema
