"""The contract of a view's machine, held by each kind of aggregate alone, by all together, and in tight corners."""

from datetime import UTC, date, datetime
from typing import Any, ClassVar

import polars as pl
import pytest
from hypothesis import strategies as st
from payment_views import KINDS, LARGE, USERS, declare, one_of_each

import headrace as hr
from headrace.features import bags, table
from headrace.features.view import View
from headrace.testing import MachineContract

BEFORE_1970 = -3_000_000_000_000_000


class PaymentContract(MachineContract):
    keys: ClassVar[Any] = {"user_id": USERS, "shop": (1, 2)}
    nullable: ClassVar[Any] = ("user_id", "amount", "n", "merchant", "due")


class TestAllAtOnce(PaymentContract):
    """Every aggregate twice, by different windows and with `where`, in one view."""

    view = declare(
        **{f"{label}_hour": feature for label, feature in one_of_each("1h", "1m").items()},
        **{f"{label}_large": feature for label, feature in one_of_each("10m", "1m", LARGE).items()},
    )


def _one_kind(kind: str) -> type[MachineContract]:
    features = {
        f"{label}_{name}": make(over="10m", every="1m", where=where)
        for label, make in KINDS[kind].items()
        for name, where in (("all", None), ("large", LARGE))
    }
    return type(f"Test{kind.title()}", (PaymentContract,), {"view": declare(**features)})


for _kind in KINDS:
    globals()[f"Test{_kind.title()}"] = _one_kind(_kind)


def _some(over: str, every: str | None) -> dict[str, Any]:
    """An aggregate for each way in which tiles merge."""
    how: dict[str, Any] = {"over": over, "every": every}
    return {
        "total": hr.sum("amount", **how),
        "units": hr.sum("n", **how),
        "spread": hr.std("amount", **how),
        "most": hr.max("n", **how),
        "shops": hr.distinct("merchant", **how),
        "middle": hr.quantile("amount", 0.5, **how),
        "recent": hr.latest(2, "merchant", "at", **how),
        "earliest": hr.first("n", **how),
    }


def _windows(**spans: tuple[str, str | None]) -> View:
    return declare(**{f"{label}_{name}": f for name, span in spans.items() for label, f in _some(*span).items()})


class TestWindows(PaymentContract):
    """Tiles that do not divide the window, that are as long as it, by default, and several in one view."""

    view = _windows(
        uneven=("10m", "7m"), tight=("7m", "7m"), default=("1h", None), odd=("61s", "7s"), long=("2d", "1h")
    )


class TestForever(PaymentContract):
    """Aggregates without a window beside one with."""

    view = declare(
        earliest=hr.first("merchant"),
        newest=hr.last("amount"),
        recent=hr.latest(3, "n", "at", where=LARGE),
        events=hr.count(over="10m", every="1m"),
    )


class TestCompositeKey(PaymentContract):
    """Two key columns, one of which may be null."""

    view = declare(["user_id", "shop"], **_some("10m", "1m"))


class TestOtherKeys(PaymentContract):
    """Key columns of every type that a key may have."""

    view = View.declare(
        "v",
        "",
        "s",
        ["number", "flag", "day", "moment"],
        {"events": hr.count(over="10m", every="1m"), "last": hr.last("number", over="10m", every="1m")},
        {
            "number": pl.Int64(),
            "flag": pl.Boolean(),
            "day": pl.Date(),
            "moment": pl.Datetime("us", "UTC"),
            "at": pl.Datetime("us", "UTC"),
        },
        "at",
    )
    keys: ClassVar[Any] = {
        "number": (0, -(2**62)),
        "flag": (True, False),
        "day": (date(2026, 1, 1), date(1969, 12, 31)),
        "moment": (datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    }
    nullable: ClassVar[Any] = ("number", "day")


class TestNestedColumns(MachineContract):
    """Columns whose values are lists, structs, bytes, dates and times of day are kept as they are."""

    view = View.declare(
        "v",
        "",
        "s",
        ["key"],
        {
            "all": hr.latest(2),
            "tags": hr.last("tags", over="10m", every="1m"),
            "kinds": hr.distinct("tags", over="10m", every="1m"),
            "days": hr.top(2, "day", over="10m", every="1m"),
        },
        {
            "key": pl.String(),
            "tags": pl.List(pl.Int64()),
            "place": pl.Struct({"x": pl.Int64(), "names": pl.List(pl.String())}),
            "raw": pl.Binary(),
            "day": pl.Date(),
            "time": pl.Time(),
            "at": pl.Datetime("us", "UTC"),
        },
        "at",
    )
    keys: ClassVar[Any] = {"key": USERS}
    nullable: ClassVar[Any] = ("tags", "raw", "day", "time")
    # Few values, so that they meet again.
    values: ClassVar[Any] = {
        "tags": st.lists(st.integers(0, 1), max_size=2),
        "day": st.sampled_from([date(2026, 1, 1), date(2026, 1, 2), date(1, 1, 2)]),
    }


class TestBefore1970(PaymentContract):
    """Negative event times: a tile still starts at the multiple of `every` at or before them."""

    view = _windows(uneven=("10m", "7m"), default=("1h", None))
    start = BEFORE_1970


class TestAroundTheEpoch(PaymentContract):
    """Event times on both sides of 0."""

    view = _windows(uneven=("10m", "7m"))
    start = 0


class TestArithmetic(PaymentContract):
    """Between features, and between features and numbers; null where an operand is, and where the divisor is 0."""

    _total = hr.sum("amount", over="10m", every="1m")
    _events = hr.count(over="1h", every="5m")
    _units = hr.sum("n", over="10m", every="1m")
    view = declare(
        total=_total,
        share=_total / _events,
        of_units=_total / _units,
        negative=-_total,
        shifted=1 + _total * 2 - 3,
        inverse=1 / _units,
        spread=hr.std("amount", over="10m", every="1m") / hr.mean("amount", over="10m", every="1m"),
        nested=(_total - _units) / (_events + 1),
        constant=_events * 0 + 7,
        most=hr.max("amount", over="10m", every="1m") - hr.min("amount", over="10m", every="1m"),
    )


class TestTightTables(PaymentContract):
    """Every size at which the engine takes another way is the smallest: tables and bags that begin with room for one
    entry are copied over and over, and what is meant for many keys and tiles is done for few."""

    view = declare(**{**_some("1h", "1m"), "top": hr.top(2, "merchant", over="1h", every="1m")})

    @pytest.fixture(autouse=True)
    def tight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table, "ROOM", 1)
        monkeypatch.setattr("headrace.features.read._SHORT", 1)
        monkeypatch.setattr("headrace.features.numeric._FEW_TILES", 1)


class TestRough(PaymentContract):
    """Bags past their limit: what is left of them depends on the events alone, not on how they are cut."""

    exact = False
    view = declare(
        **{
            f"{label}_{kind}": make(over="10m", every="5m")
            for kind in ("distinct", "quantile", "top")
            for label, make in KINDS[kind].items()
        }
    )

    @pytest.fixture(autouse=True)
    def limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bags, "LIMIT", 3)
