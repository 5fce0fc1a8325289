"""Declaring contexts: what is refused, what a signature becomes, and what a function may yield."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import pytest
from context_desk import desk
from pydantic import BaseModel

import headrace as hr
from headrace.serving.live import Live


class Place(BaseModel):
    """Where somebody is."""

    city: str
    zip: int = 0


def test_parameters_are_a_strict_schema() -> None:
    app = hr.App("a")

    @app.context()
    def about(place: Place, kind: Literal["a", "b"] = "a", tags: list[str] | None = None, at: datetime | None = None):  # type: ignore[no-untyped-def]
        """About."""
        yield "x"

    schema = about.parameters
    assert schema["required"] == ["place", "kind", "tags", "at"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["kind"] == {
        "type": ["string", "null"],
        "enum": ["a", "b", None],
        "description": "the kind",
    }
    assert schema["$defs"]["Place"]["required"] == ["city", "zip"]
    given, plain = about.arguments.check("about", {"place": {"city": "Ulm"}, "at": "2026-01-01T00:00:00Z"})
    assert (given["place"], given["kind"], given["at"].year) == (Place(city="Ulm"), "a", 2026)
    assert plain == {"place": {"city": "Ulm"}, "at": "2026-01-01T00:00:00Z"}


def _no_type(x):  # type: ignore[no-untyped-def]
    yield x


def _reserved(budget: int) -> Any:
    yield str(budget)


def _star(*texts: str) -> Any:
    yield from texts


def _dict(x: dict[str, int]) -> Any:
    yield str(x)


async def _awaited(x: str) -> Any:
    return [x]


async def _async(x: str) -> Any:
    yield x


@pytest.mark.parametrize("function", [_no_type, _reserved, _star, _dict, _awaited, _async, Place, "text", 7])
def test_a_function_that_cannot_be_one_is_refused(function: Any) -> None:
    with pytest.raises(hr.ConfigError):
        hr.App("a").context(name="one")(function)


@pytest.mark.parametrize(
    "options",
    [{"budget": 0}, {"budget": -5}, {"budget": True}, {"on_stale": "hide"}, {"max_age": "x"}, {"name": "a b"}],
)
def test_an_option_that_cannot_be_one_is_refused(options: Any) -> None:
    with pytest.raises(hr.ConfigError):
        hr.App("a").context(**options)(lambda: ["x"])


@pytest.mark.parametrize("name", ["spending", "library", "support"])
def test_a_name_stands_for_one_thing(name: str) -> None:
    with pytest.raises(hr.ConfigError, match="already"):
        desk().context(name=name)(lambda: ["x"])


def _asked(parts: Any, **options: Any) -> hr.Pack:
    app = hr.App("a")
    app.stream(_event())
    app.context(name="one", **options)(lambda: parts)
    with app.open() as live:
        return live.context("one")


def _event() -> type[hr.Event]:
    from context_desk import Payment

    return Payment


def test_a_list_is_as_good_as_a_generator() -> None:
    pack = _asked(["some text", hr.text("ours", trusted=True)])
    assert {(item.text, item.item.trusted) for section in pack.sections for item in section.items} == {
        ("some text", False),
        ("ours", True),
    }


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, "found NoneType"),
        ("text", "found str"),
        ([7], "found int 7"),
        ([["nested"]], "found list"),
        (["x"] * 65, "at most 64 parts"),
        (["x" * (2 << 20)], "at most 1,048,576 characters"),
    ],
)
def test_what_is_no_part_is_refused(parts: Any, message: str) -> None:
    with pytest.raises(hr.InputError, match=message):
        _asked(parts)


def test_contexts_stand_within_contexts(live: Live) -> None:
    app = live.app
    support = app.contexts["support"]

    @app.context()
    def outer(user: str):  # type: ignore[no-untyped-def]
        yield hr.section(support(user, "launch"), priority=3)

    assert [section.name for section in live.context(outer, user="u1").sections] == ["text", "spending", "library"]


def test_contexts_that_never_end_are_refused(live: Live) -> None:
    @live.app.context()
    def loop(x: int):  # type: ignore[no-untyped-def]
        yield live.app.contexts["loop"](x)

    with pytest.raises(hr.InputError, match="loop → loop"):
        live.context("loop", x=1)


def test_parts_are_checked_as_they_are_made(live: Live) -> None:
    with pytest.raises(hr.InputError):
        live.app.views["spending"]("u1", "u2")
    with pytest.raises(hr.InputError):
        live.app.contexts["support"]("only one")
    live.app.context(name="other")(lambda: [desk().views["spending"]("u1")])
    with pytest.raises(hr.UnknownNameError):
        live.context("other")


def test_a_closed_app_makes_no_packs() -> None:
    app = desk()
    with app.open() as live:
        live.drain(10)
    with pytest.raises(hr.ClosedError):
        live.context("support", user_id="u1", question="x")
