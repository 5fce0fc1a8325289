"""The virtual clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headrace as hr
from headrace.testing import VirtualClock
from headrace.units import MINUTE


@pytest.mark.parametrize(
    "start", [60_000_000, datetime(1970, 1, 1, 0, 1), datetime(1970, 1, 1, 0, 1, tzinfo=UTC), "1970-01-01T00:01:00Z"]
)
def test_it_starts_where_it_is_told(start: Any) -> None:
    assert VirtualClock(start).now() == MINUTE


def test_it_moves_only_when_told() -> None:
    clock = VirtualClock()
    assert (clock.now(), clock.now()) == (0, 0)
    assert clock.advance("1m") == MINUTE
    assert clock.advance(timedelta(seconds=1)) == MINUTE + 1_000_000
    assert clock.set(-5) == clock.now() == -5


@pytest.mark.parametrize("moment", ["soon", 10**18, True, 1.5, None])
def test_what_is_no_moment_is_refused(moment: Any) -> None:
    with pytest.raises(hr.ConfigError, match="expected"):
        VirtualClock().set(moment)


@pytest.mark.parametrize("by", ["0s", -1, "soon"])
def test_it_advances_forwards_only(by: Any) -> None:
    with pytest.raises(hr.ConfigError, match="expected a duration"):
        VirtualClock().advance(by)


def test_it_prints_as_a_moment() -> None:
    assert repr(VirtualClock(0)) == "VirtualClock(1970-01-01T00:00:00+00:00)"
