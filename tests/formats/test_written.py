"""Stored rows written as lines are the rows that these lines decode to, whatever keys and types a model has."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import headrace as hr
from headrace.formats import decode, decode_rows
from headrace.formats.written import lines
from headrace.schema import Schema


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    depth: int = Field(alias="Depth")
    raw: bytes | None = None


class Wide(hr.Event):
    text: str = Field(alias="Text")
    raw: bytes
    number: float
    small: int | None
    yes: bool
    day: date
    moment: time
    colour: Colour
    id: UUID
    inner: Inner | None
    many: list[Inner]
    at: datetime = hr.event_time(alias="When")


class Plain(hr.Event):
    text: str
    tags: list[str]
    at: datetime = hr.event_time(unit="ms")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INNER = st.fixed_dictionaries({"Depth": st.integers(-9, 9)}, optional={"raw": st.none() | TEXT})
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
WIDE = st.fixed_dictionaries(
    {
        "Text": TEXT,
        "raw": TEXT,
        "number": FINITE,
        "small": st.none() | st.integers(-(2**40), 2**40),
        "yes": st.booleans(),
        "day": st.dates(date(1970, 1, 1)),
        "moment": st.times(),
        "colour": st.just("red"),
        "id": st.uuids(),
        "inner": st.none() | INNER,
        "many": st.lists(INNER, max_size=2),
        "When": TIMES,
    }
)
PLAIN = st.fixed_dictionaries({"text": TEXT, "tags": st.lists(TEXT, max_size=2), "at": TIMES})


@given(st.lists(WIDE, min_size=1, max_size=4))
def test_lines_decode_to_what_was_written(rows: list[dict[str, Any]]) -> None:
    _there_and_back(Schema.of(Wide), rows)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_plain_lines_decode_to_what_was_written(rows: list[dict[str, Any]]) -> None:
    _there_and_back(Schema.of(Plain), rows)


def _there_and_back(schema: Schema, rows: list[dict[str, Any]]) -> None:
    stored = decode_rows(schema, rows)
    assert not stored.rejects
    written = lines(schema, stored.frame)
    assert len(written) == len(rows)
    found = decode(schema, b"\n".join(written), "ndjson")
    assert not found.rejects
    assert found.frame.equals(stored.frame)


@pytest.mark.parametrize("raw", [b"\xff\x00", b"plain"])
def test_bytes_that_are_no_text_are_escaped(raw: bytes) -> None:
    class Raw(hr.Event):
        raw: bytes
        at: datetime = hr.event_time()

    schema = Schema.of(Raw)
    (line,) = lines(schema, decode_rows(schema, [{"raw": raw, "at": 0}]).frame)
    assert line.startswith(b'{"raw":"plain"' if raw == b"plain" else b'{"raw":"\\\\xff\\u0000"')
