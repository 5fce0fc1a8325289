"""The OpenAPI paths of memories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.documents.turns import ROLES
from headrace.serving.openapi_parts import Json, json_body, list_of, one_of, operation, query, ref, shape, whole

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Memory

_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
_TIME: Json = {"type": "string", "format": "date-time"}
_TAG = "memories"
_WAIT: Json = query("timeout", "How long to wait until what was made of the turns is gone, too: seconds.", _TEXT)


def memory_paths(app: App, schemas: Json) -> Json:
    """The paths of an app's memories; the schemas that they refer to are added to `schemas`."""
    paths: Json = {}
    for memory in app.memories.values():
        schemas["turn"] = _turn()
        path = f"/v1/memories/{memory.name}"
        one = {"post": _append(memory), "get": _recall(memory), "delete": _forget_session(memory)}
        paths[f"{path}/{{{memory.by}}}"] = one
        paths[path] = {"delete": _forget(memory)}
    return paths


def _turn() -> Json:
    return whole(
        id=_TEXT,
        role=one_of(*ROLES),
        text=_TEXT,
        at={**_TIME, "description": "when it was said"},
        age={"type": "number", "description": "seconds since then"},
        subject={"type": ["string", "null"], "description": "whom it is about"},
        score={"type": ["number", "null"], "description": "of a turn that fits the question: the higher the better"},
    )


def _session(memory: Memory) -> Json:
    about = "The session: any text of up to 512 characters, percent-encoded."
    return {"name": memory.by, "in": "path", "required": True, "description": about, "schema": _TEXT}


def _append(memory: Memory) -> Json:
    content: Json = {"type": ["string", "array", "null"], "items": {"type": "object"}}
    turn = shape(
        role=one_of(*ROLES),
        content={**content, "description": "as OpenAI's messages have it"},
        text={**_TEXT, "description": "in place of content"},
        id={**_TEXT, "maxLength": 512, "description": "what has it is stored once, however often it is sent"},
        at={"type": ["string", "integer"], "description": "when it was said, if not now"},
        subject={"type": ["string", "null"], "description": "whom it is about"},
    )
    turns = {**list_of(turn | {"required": ["role"]}), "maxItems": 1_000}
    subject = {"type": ["string", "null"], "description": "of turns that do not say it"}
    return operation(
        f"remember_{memory.name}",
        _TAG,
        f"Remember turns in {memory.name}",
        "Stored when it answers, all or none, and recalled from then on.",
        whole(remembered=_WHOLE, token=_TEXT),
        body=json_body(shape(turns=turns, subject=subject) | {"required": ["turns"]}),
        parameters=[_session(memory)],
    )


def _recall(memory: Memory) -> Json:
    answer = whole(
        summary={**_TEXT, "description": "of turns before the latest"},
        older={**list_of(ref("turn")), "description": "that fit the question, best first"},
        turns={**list_of(ref("turn")), "description": "the latest, oldest first"},
        summary_by={**_TEXT, "description": "extractive, function or model"},
        summary_problem={**_TEXT, "description": "why the function or the model did not make it"},
    )
    turns = {**_WHOLE, "minimum": 0, "maximum": 1_000, "default": memory.turns}
    parameters = [
        _session(memory),
        query("question", "What older turns are chosen by.", _TEXT),
        query("turns", "How many of the latest.", turns),
        query("k", "How many older ones.", {**_WHOLE, "minimum": 0, "maximum": 100, "default": 3}),
        query("after", "A token: older ones are found up to that.", _TEXT),
        query("timeout", "How long to wait for it: seconds, or text such as 5s.", _TEXT),
    ]
    about = "The latest turns, a summary of older ones, and those that fit a question."
    name = f"recall_{memory.name}"
    return operation(name, _TAG, f"Recall a session of {memory.name}", about, answer, parameters=parameters)


def _forget_session(memory: Memory) -> Json:
    return operation(
        f"forget_session_of_{memory.name}",
        _TAG,
        f"Forget a session of {memory.name}",
        "Nothing is left of it when it answers.",
        whole(forgotten=_WHOLE),
        parameters=[_session(memory), _WAIT],
    )


def _forget(memory: Memory) -> Json:
    return operation(
        f"forget_in_{memory.name}",
        _TAG,
        f"Forget what was said about somebody, or before a time, in {memory.name}",
        "One of the two is to be given.",
        whole(forgotten=_WHOLE),
        parameters=[
            query("subject", "All turns about them.", _TEXT),
            query("before", "All turns said before: ISO 8601, or seconds since 1970.", _TEXT),
            _WAIT,
        ],
    )
