"""Tool definitions, what a model's arguments may be, and what a call answers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jsonschema
import pytest

import headrace as hr
from headrace.serving import tools
from headrace.serving.live import Live
from headrace.testing.clock import VirtualClock

# OpenAI's rules for strict functions, as a schema of the parameters.
STRICT = {
    "type": "object",
    "required": ["type", "properties", "required", "additionalProperties"],
    "properties": {
        "type": {"const": "object"},
        "additionalProperties": {"const": False},
        "properties": {
            "type": "object",
            "propertyNames": {"pattern": "^[a-zA-Z0-9_.-]{1,64}$"},
            "additionalProperties": {
                "type": "object",
                "required": ["type", "description"],
                "additionalProperties": False,
                "properties": {
                    "type": {},
                    "description": {"type": "string"},
                    "enum": {},
                    "format": {"enum": ["date-time", "date", "time"]},
                },
            },
        },
    },
}


class Reading(hr.Event):
    sensor: str
    value: float
    at: datetime = hr.event_time()


def view_with(count: int, doc: str = "") -> hr.View:
    app = hr.App("test")
    features = {f"a_feature_with_a_long_name_{n}": hr.mean("value", over="1h") for n in range(count)}
    return app.features(app.stream(Reading), key="sensor")(type("Room", (), {"__doc__": doc, **features}))


def test_definitions_are_functions_in_the_form_of_chat_completions(live: Live) -> None:
    found = live.tools()
    assert [(one["type"], one["function"]["name"], one["function"]["strict"]) for one in found] == [
        ("function", "spending", True),
        ("function", "route", True),
    ]


def test_parameters_obey_the_rules_of_strict_mode(live: Live) -> None:
    for one in live.tools():
        parameters = one["function"]["parameters"]
        jsonschema.validate(parameters, STRICT)
        jsonschema.Draft202012Validator.check_schema(parameters)
        assert parameters["required"] == list(parameters["properties"])


def test_parameters_are_the_keys_of_the_view_with_their_types(live: Live) -> None:
    properties = live.tools()[1]["function"]["parameters"]["properties"]
    assert {name: schema["type"] for name, schema in properties.items()} == {"origin": "string", "flight": "integer"}


def test_description_holds_the_docstring_each_feature_and_what_as_of_means(live: Live) -> None:
    text = live.tools()[0]["function"]["description"]
    assert text.startswith("What a user has spent lately.\n")
    assert "- total_10m: sum of amount over the last 10m\n" in text
    assert "as_of: event time of the newest event" in text


def test_description_is_never_longer_than_openai_takes() -> None:
    text = tools.describe(view_with(200))
    assert len(text) <= 1024
    assert "and 1" in text
    assert text.endswith("seconds between it and now.")


def test_a_docstring_longer_than_openai_takes_is_cut() -> None:
    text = tools.describe(view_with(3, doc="word " * 500))
    assert len(text) == 1024
    assert "…\nReturns:\n- and 3 more\nas_of" in text


def test_a_name_that_cannot_be_a_tools_is_refused_when_tools_are_asked_for() -> None:
    app = hr.App("test")
    app.features(app.stream(Reading), key="sensor", name="köln")(type("Any", (), {"n": hr.count(over="1h")}))
    with pytest.raises(hr.ConfigError, match=r"letters, digits, '_' or '-', found the view 'köln'"):
        tools.tools(app)


def test_call_answers_key_features_and_the_time_they_are_of(live: Live, paid: hr.Token) -> None:
    expected = {
        "user_id": "u1",
        "total_10m": 2005.0,
        "large_1h": 1,
        "mean_1h": 1002.5,
        "last_at": "2026-01-31T11:59:58Z",
        "recent": [
            {"amount": 2000.0, "at": "2026-01-31T11:59:58Z"},
            {"amount": 5.0, "at": "2026-01-31T11:59:00Z"},
        ],
        "as_of": "2026-01-31T11:59:58Z",
        "age": 2.0,
        "lagging": False,
        "now": "2026-01-31T12:00:00Z",
    }
    assert live.call("spending", {"user_id": "u1"}) == expected


def test_call_takes_arguments_as_the_text_that_models_send(live: Live, paid: hr.Token) -> None:
    assert live.call("spending", '{"user_id": "u1"}') == live.call("spending", {"user_id": "u1"})


def test_an_answer_is_json_as_it_is(live: Live, paid: hr.Token) -> None:
    answer = live.call("spending", {"user_id": "u1"})
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_a_key_without_events_is_an_answer_too(live: Live) -> None:
    answer = live.call("route", {"origin": "EWR", "flight": 1})
    assert (answer["departures"], answer["mean_delay"], answer["as_of"], answer["age"]) == (0, None, None, None)


def test_on_event_time_there_is_no_now_before_the_first_event() -> None:
    app = hr.App("test", clock="event")
    app.features(app.stream(Reading), key="sensor", name="room")(type("Room", (), {"n": hr.count(over="1h")}))
    with app.open() as live:
        assert live.call("room", {"sensor": "s"})["now"] is None


def test_an_unknown_tool_is_answered_with_the_nearest(live: Live) -> None:
    with pytest.raises(hr.UnknownNameError, match="found 'spendings'; did you mean 'spending'"):
        live.call("spendings", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (None, "expected the argument 'origin' (a string), found no arguments"),
        ("", "expected the argument 'origin' (a string), found no arguments"),
        ({"origin": "EWR"}, "expected the argument 'flight' (an integer), found only 'origin'"),
        ({"origin": 7, "flight": 1}, "expected 'origin' to be a string, found the integer 7"),
        ({"origin": None, "flight": 1}, "expected 'origin' to be a string, found null"),
        ({"origin": ["EWR"], "flight": 1}, "expected 'origin' to be a string, found an array"),
        ({"origin": "EWR", "flight": "x"}, "expected 'flight' to be an integer, found the string 'x'"),
        ({"origin": "EWR", "flight": 1.5}, "expected 'flight' to be an integer, found the number 1.5"),
        ({"origin": "EWR", "flight": True}, "expected 'flight' to be an integer, found the boolean True"),
        ({"origin": "EWR", "flight": 1, "to": 2}, "expected only the arguments 'origin', 'flight', found 'to'"),
        ({"orign": "EWR", "flight": 1}, "did you mean 'origin'"),
        ("{'origin': 1}", "expected the arguments as a JSON object, found text that is not JSON"),
        ('["EWR", 1]', "expected the arguments as a JSON object with 'origin', 'flight', found an array"),
        ('"EWR"', "found the string 'EWR'"),
        ("\ud800", "found text that is not JSON"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_expected(live: Live, arguments: Any, message: str) -> None:
    with pytest.raises(hr.InputError) as raised:
        live.call("route", arguments)
    assert message in str(raised.value)


def test_a_whole_number_may_have_a_point_as_in_json(live: Live) -> None:
    assert live.call("route", {"origin": "EWR", "flight": 11.0})["flight"] == 11


def test_what_a_call_answers_follows_the_clock(live: Live, paid: hr.Token, clock: VirtualClock) -> None:
    clock.advance("30m")
    answer = live.call("spending", {"user_id": "u1"})
    assert (answer["total_10m"], answer["age"], answer["now"]) == (0.0, 1802.0, "2026-01-31T12:30:00Z")
