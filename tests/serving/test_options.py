"""What a read may ask for, as text and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import headrace as hr
from headrace.serving.options import ReadOptions, from_query, whole_number

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "now",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T13:00:00 01:00",
        "1769860800",
        1769860800,
        1769860800.0,
    ],
)
def test_now_is_iso_8601_or_seconds(now: Any) -> None:
    assert ReadOptions({"now": now}).now == NOON


@pytest.mark.parametrize("now", ["noon", "", "1e400", "nan", "inf", "99999-01-01", True, "1e15", -1e15])
def test_another_now_is_refused(now: Any) -> None:
    with pytest.raises(hr.InputError, match="expected now to be an ISO 8601 time"):
        ReadOptions({"now": now})


@pytest.mark.parametrize(("given", "seconds"), [("5s", 5.0), ("1m30s", 90.0), ("2.5", 2.5), (3, 3.0), ("250ms", 0.25)])
def test_max_age_and_timeout_are_durations_or_seconds(given: Any, seconds: float) -> None:
    options = ReadOptions({"max_age": given, "timeout": min(seconds, 60)})
    assert (options.max_age, options.timeout) == (seconds, min(seconds, 60))


@pytest.mark.parametrize("given", ["0", "-1s", "soon", "nan", "inf", 0, -1, True, "", "1e12"])
def test_another_max_age_is_refused(given: Any) -> None:
    with pytest.raises(hr.InputError, match="expected max_age to be a duration"):
        ReadOptions({"max_age": given})


def test_a_read_that_need_not_wait_may_say_so() -> None:
    assert ReadOptions({"timeout": "0"}).timeout == 0.0


def test_a_wait_is_bounded() -> None:
    with pytest.raises(hr.InputError, match="expected a timeout of at most 60 seconds, found 61"):
        ReadOptions({"timeout": "61"})


def test_only_after_and_max_age_may_wait() -> None:
    token = str(hr.Token({"push": 1}))
    given = [{}, {"now": 0}, {"timeout": 1}, {"max_age": 1}, {"after": token}]
    assert [ReadOptions(one).may_wait for one in given] == [False, False, False, True, True]


@pytest.mark.parametrize("after", ["?", "e30x!", 7, "[]"])
def test_a_token_that_is_none_is_refused(after: Any) -> None:
    with pytest.raises(hr.InputError, match="token"):
        ReadOptions({"after": after})


def test_a_misspelt_option_is_not_ignored() -> None:
    with pytest.raises(hr.InputError, match="found 'maxage'; did you mean 'max_age'"):
        from_query(b"maxage=5s")


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(hr.InputError, match="'now' once, found it twice"):
        from_query(b"now=1&now=2")


@pytest.mark.parametrize("query", [b"now=%ff", b"now=\xff", b"&".join([b"now=1"] * 40)])
def test_a_query_that_is_not_one_is_refused(query: bytes) -> None:
    with pytest.raises(hr.InputError, match="expected a query string of percent-encoded UTF-8"):
        from_query(query)


@pytest.mark.parametrize("text", ["", "-1", "0", "101", "1.5", "x", "٣", "9" * 5000])
def test_whole_numbers_are_held_to_their_bounds(text: str) -> None:
    with pytest.raises(hr.InputError, match="expected limit to be a whole number from 1 to 100"):
        whole_number("limit", text, 10, 1, 100)


def test_a_whole_number_that_is_not_given_is_the_default() -> None:
    assert [whole_number("limit", text, 10, 1, 100) for text in (None, "7")] == [10, 7]
