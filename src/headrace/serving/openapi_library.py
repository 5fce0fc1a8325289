"""The OpenAPI paths of tables and collections, each with its own schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.serving import search_tool
from headrace.serving.openapi_parts import (
    CALL_TIMEOUT,
    Json,
    json_body,
    list_of,
    one_of,
    operation,
    query,
    ref,
    shape,
    whole,
)
from headrace.serving.options import LONGEST_WAIT

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection, Table

_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_WHOLE: Json = {"type": "integer"}
_TIME: Json = {"type": "string", "format": "date-time"}
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "time": "string"}


def library_paths(app: App, schemas: Json) -> Json:
    """The paths of an app's tables and collections; the schemas that they refer to are added to `schemas`."""
    paths: Json = {}
    for table in app.tables.values():
        paths[f"/v1/tables/{table.name}"] = {"put": _put(table, schemas), "delete": _delete(table)}
    for collection in app.collections.values():
        schemas["hit"] = hit_schema()
        paths[f"/v1/collections/{collection.name}/search"] = {"post": _search(collection)}
        paths[f"/v1/tools/{collection.name}"] = {"post": _call(collection)}
    return paths


def hit_schema() -> Json:
    """The JSON Schema of a search's hit."""
    return whole(
        text=_TEXT,
        score={**_NUMBER, "description": "the higher the better; of this search only"},
        document={**_TEXT, "description": "the key of the document"},
        chunk={**_TEXT, "description": "the id of the chunk"},
        as_of={**_TIME, "description": "when the document last changed"},
        age={**_NUMBER, "description": "seconds since then"},
        source={**_TEXT, "description": "where the document came from"},
        title=_TEXT,
        headings=list_of(_TEXT),
        kind={**_TEXT, "description": "the type of the document"},
        columns={"type": "object", "description": "what the document is filtered by"},
        start={**_WHOLE, "description": "where the chunk begins in the clean text, in characters; -1 if not known"},
        end=_WHOLE,
        trusted={"type": "boolean", "description": "whether the text is the operator's own"},
    )


def _put(table: Table, schemas: Json) -> Json:
    rows = [_row_schema(table, kind, schemas) for kind in table.schema.models]
    row = rows[0] if len(rows) == 1 else {"oneOf": rows}
    content = {
        "application/x-ndjson": {"schema": {**_TEXT, "description": "one JSON object a line, each a row"}},
        "application/json": {"schema": {"oneOf": [list_of(row), row]}},
    }
    return operation(
        f"put_{table.name}",
        "tables",
        f"Insert rows into {table.name}, or replace those with their keys",
        "Stored when it answers. A row that cannot be used becomes a dead letter and is named in `errors`; "
        "the others are taken, all or none.",
        ref("pushed"),
        body={"required": True, "content": content},
        parameters=[
            query("format", "What the body is, over its Content-Type.", one_of("ndjson", "json")),
            query("errors", "How many rejected rows to name.", {**_WHOLE, "minimum": 0, "default": 100}),
        ],
    )


def _row_schema(table: Table, kind: str, schemas: Json) -> Json:
    """A reference to a model's own JSON Schema; what that refers to goes in under the table's name."""
    template = f"#/components/schemas/{table.name}.{{model}}"
    schema = table.schema.models[kind].model_json_schema(ref_template=template)
    for name, nested in schema.pop("$defs", {}).items():
        schemas[f"{table.name}.{name}"] = nested
    schemas[f"{table.name}.row.{kind}"] = schema
    return ref(f"{table.name}.row.{kind}")


def _delete(table: Table) -> Json:
    keys = {"type": "array", "items": {}, "maxItems": 10_000}
    erase = {"type": "boolean", "default": False, "description": "whether earlier revisions are forgotten, too"}
    return operation(
        f"delete_{table.name}",
        "tables",
        f"Delete rows of {table.name}",
        f"A key is a value of {table.schema.key[0]}; one that is not there is passed over."
        if len(table.schema.key) == 1
        else f"A key is an array of {', '.join(table.schema.key)}; one that is not there is passed over.",
        whole(deleted=_WHOLE, token=_TEXT),
        body=json_body(shape(keys=keys, erase=erase) | {"required": ["keys"]}),
    )


def _search(collection: Collection) -> Json:
    columns = {
        name: {"description": f'a {_JSON_TYPES[column.type]}, or conditions such as {{"gte": …}}'}
        for name, column in collection.columns.items()
    }
    asked = shape(
        query={**_TEXT, "maxLength": 32_768},
        k={**_WHOLE, "minimum": 1, "maximum": 1000, "default": 5},
        where={"type": ["object", "null"], "properties": columns, "description": "conditions on the documents"},
        mode={**one_of("hybrid", "ranks", "meaning", "words"), "default": "hybrid"},
        diversity={**_NUMBER, "minimum": 0, "maximum": 1, "default": 0},
        after={"type": ["string", "null"], "description": "the token of a push: wait until the search sees it"},
        timeout={"type": ["number", "string", "null"], "description": f"how long to wait; at most {LONGEST_WAIT:g} s"},
    )
    return operation(
        f"search_{collection.name}",
        "collections",
        f"Search {collection.name}",
        collection.about,
        whole(hits=list_of(ref("hit"))),
        body=json_body(asked | {"required": ["query"]}),
    )


def _call(collection: Collection) -> Json:
    answered = whole(hits=list_of({"type": "object"}), now=_TIME)
    about = search_tool.describe(collection)
    name = collection.name
    body = json_body(search_tool.parameters())
    return operation(
        f"call_{name}", "tools", f"Call the tool {name}", about, answered, body=body, parameters=[CALL_TIMEOUT]
    )
