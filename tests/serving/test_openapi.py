"""The OpenAPI document is valid, and says what is served."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import jsonschema
import pytest
from fraud_desk import make_app
from openapi_spec_validator import validate
from pydantic import BaseModel, create_model

import headrace as hr
from headrace.serving import openapi
from headrace.testing.clock import VirtualClock

GOOD = {"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}


@pytest.fixture
def document() -> dict[str, Any]:
    return openapi.document(make_app(VirtualClock()), with_key=False)


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


@pytest.mark.parametrize("with_key", [False, True])
def test_the_document_is_valid(with_key: bool) -> None:
    validate(openapi.document(make_app(VirtualClock()), with_key))


def test_it_is_served_as_it_is_made(http: httpx.Client, document: dict[str, Any]) -> None:
    assert http.get("/openapi.json").json() == document


def test_each_stream_view_and_tool_has_its_address(document: dict[str, Any]) -> None:
    assert set(document["paths"]) >= {
        "/v1/streams/payment",
        "/v1/streams/departure",
        "/v1/features/spending/{user_id}",
        "/v1/features/spending",
        "/v1/features/route/{origin}/{flight}",
        "/v1/tools/spending",
    }


def test_each_address_without_parameters_answers(http: httpx.Client, document: dict[str, Any]) -> None:
    found = {
        path: http.get(path).status_code
        for path, methods in document["paths"].items()
        if "get" in methods and "{" not in path and path != "/v1/changes"  # a stream, of what is asked for
    }
    assert set(found.values()) == {200}
    assert len(found) >= 6


def test_an_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


def test_a_row_is_as_its_schema_says(http: httpx.Client, document: dict[str, Any], paid: hr.Token) -> None:
    for key in ("u1", "nobody"):
        jsonschema.validate(http.get(f"/v1/features/spending/{key}").json(), schema_of(document, "spending.row"))


def test_what_a_push_answers_is_as_its_schema_says(http: httpx.Client, document: dict[str, Any]) -> None:
    answer = http.post("/v1/streams/payment", json=[GOOD, {}]).json()
    jsonschema.validate(answer, schema_of(document, "pushed"))


def test_a_problem_is_as_its_schema_says(http: httpx.Client, document: dict[str, Any]) -> None:
    jsonschema.validate(http.get("/nothing").json(), schema_of(document, "problem"))


def test_a_dead_letter_is_as_its_schema_says(http: httpx.Client, document: dict[str, Any]) -> None:
    http.post("/v1/streams/payment", content=b"{nonsense")
    jsonschema.validate(http.get("/v1/dead-letters/1").json(), schema_of(document, "dead_letter"))


def test_a_tools_answer_is_as_its_schema_says(http: httpx.Client, document: dict[str, Any], paid: hr.Token) -> None:
    operation = document["paths"]["/v1/tools/spending"]["post"]
    arguments, answer = {"user_id": "u1"}, http.post("/v1/tools/spending", json={"user_id": "u1"}).json()
    jsonschema.validate(arguments, operation["requestBody"]["content"]["application/json"]["schema"])
    jsonschema.validate(answer, operation["responses"]["200"]["content"]["application/json"]["schema"])


def test_an_event_that_the_schema_takes_is_taken(http: httpx.Client, document: dict[str, Any]) -> None:
    jsonschema.validate(GOOD, schema_of(document, "payment.event"))
    assert http.post("/v1/streams/payment", json=GOOD).json()["accepted"] == 1


class Place(BaseModel):
    city: str


def test_nested_models_stand_beside_their_stream_and_do_not_collide() -> None:
    first, second = _trips(Place), _trips(type("Place", (BaseModel,), {"__annotations__": {"zip": str}}))
    app = hr.App("test")
    app.stream(first, name="first")
    app.stream(second, name="second")
    document = openapi.document(app, with_key=False)
    validate(document)
    assert {"first.Place", "second.Place"} <= set(document["components"]["schemas"])


def _trips(place: type[BaseModel]) -> type[hr.Event]:
    return create_model("Trip", __base__=hr.Event, start=(place, ...), at=(datetime, hr.event_time()))


def test_an_app_with_a_key_says_so() -> None:
    document = openapi.document(make_app(VirtualClock()), with_key=True)
    assert document["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
