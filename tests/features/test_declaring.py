"""What can be wrong with a view is said when it is declared, with what to do about it."""

from typing import Any

import polars as pl
import pytest
from payment_views import SCHEMA, declare

import headrace as hr
from headrace.features.view import View


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: hr.sum("amuont", over="1h"), hr.SchemaError, "did you mean 'amount'"),
        (lambda: hr.sum(pl.col("amuont") * 2, over="1h"), hr.SchemaError, "did you mean 'amount'"),
        (lambda: hr.count(over="1h", where=pl.col("payd")), hr.SchemaError, "did you mean 'paid'"),
        (lambda: hr.latest(3, "merchat"), hr.SchemaError, "did you mean 'merchant'"),
        (lambda: hr.sum("merchant", over="1h"), hr.ConfigError, "sum needs a number, found the column 'merchant'"),
        (lambda: hr.mean("at", over="1h"), hr.ConfigError, "mean needs a number"),
        (lambda: hr.min("merchant", over="1h"), hr.ConfigError, "min needs a number or a time"),
        (lambda: hr.quantile("merchant", 0.5, over="1h"), hr.ConfigError, "quantile needs a number"),
        (lambda: hr.histogram("merchant", [1], over="1h"), hr.ConfigError, "histogram needs a number"),
        (lambda: hr.rate("merchant", over="1h"), hr.ConfigError, "rate needs a number"),
        (lambda: hr.count(over="1m", every="1h"), hr.ConfigError, r"every \(1h\) must not be longer than over \(1m\)"),
        (lambda: hr.latest(3, "n", every="1h"), hr.ConfigError, "give over= too"),
        (lambda: hr.count(over="soon"), hr.ConfigError, "expected a duration such as"),
        (lambda: hr.count(over="0s"), hr.ConfigError, "greater than 0"),
        (lambda: hr.count(over=True), hr.ConfigError, "expected a duration"),
        (lambda: hr.count(over="1h", where="paid"), hr.ConfigError, "takes a Polars expression"),
        (lambda: hr.count(over="1h", where=pl.col("n")), hr.SchemaError, "true or false for each event"),
        (lambda: hr.quantile("amount", 1.5, over="1h"), hr.ConfigError, "a number from 0 to 1"),
        (lambda: hr.quantile("amount", 0.5, over="1h", interpolation="cubic"), hr.ConfigError, "unknown interpolation"),
        (lambda: hr.top(0, "merchant", over="1h"), hr.ConfigError, "whole number from 1 to 1000"),
        (lambda: hr.latest(1001, "n"), hr.ConfigError, "whole number from 1 to 1000"),
        (lambda: hr.latest(True, "n"), hr.ConfigError, "whole number from 1 to 1000"),
        (lambda: hr.histogram("amount", [2, 1], over="1h"), hr.ConfigError, "increasing order"),
        (lambda: hr.histogram("amount", [], over="1h"), hr.ConfigError, "increasing order"),
        (lambda: hr.latest(3, "n", "n"), hr.ConfigError, "named twice"),
        (lambda: hr.sum(3, over="1h"), hr.ConfigError, "the name of a column or a Polars expression"),
        (lambda: hr.count(over="1h") + "x", hr.ConfigError, "features compute with features and numbers"),
        (lambda: hr.latest(3, "n") / 2, hr.ConfigError, "expected numbers on both sides"),
        (lambda: hr.last("merchant") * 2, hr.ConfigError, "expected numbers on both sides"),
        (lambda: hr.sum(pl.col("merchant").dt.hour(), over="1h"), hr.SchemaError, "does not fit"),
        (lambda: hr.sum(pl.col("n").cum_sum(), over="1h"), hr.SchemaError, "from that event alone"),
        (lambda: hr.sum(pl.col("n") - pl.col("n").mean(), over="1h"), hr.SchemaError, "from that event alone"),
        (lambda: hr.sum(pl.col("n").max(), over="1h"), hr.SchemaError, "from that event alone"),
        (lambda: hr.last(pl.col("merchant").shift(1)), hr.SchemaError, "from that event alone"),
        (lambda: hr.sum(pl.lit(1), over="1h"), hr.SchemaError, "from that event alone"),
        (lambda: hr.count(over="1h", where=pl.col("n").is_duplicated()), hr.SchemaError, "from that event alone"),
    ],
)
def test_a_feature_that_cannot_work(make: Any, error: type[Exception], says: str) -> None:
    """Each with the one sentence that mends it."""
    with pytest.raises(error, match=says):
        declare(feature=make())


@pytest.mark.parametrize(
    ("key", "features", "error", "says"),
    [
        ("usr_id", {"n": hr.count(over="1h")}, hr.SchemaError, "did you mean 'user_id'"),
        ("amount", {"n": hr.count(over="1h")}, hr.SchemaError, "must be text, a whole number"),
        ([], {"n": hr.count(over="1h")}, hr.ConfigError, "found none"),
        (["shop", "shop"], {"n": hr.count(over="1h")}, hr.ConfigError, "named twice"),
        ("user_id", {}, hr.ConfigError, "at least one feature"),
        ("user_id", {"as_of": hr.count(over="1h")}, hr.ConfigError, "'as_of' cannot name a feature"),
        ("user_id", {"token": hr.count(over="1h")}, hr.ConfigError, "'token' cannot name a feature"),
        ("user_id", {"user_id": hr.count(over="1h")}, hr.ConfigError, "'user_id' cannot name a feature"),
        ("user_id", {"_n": hr.count(over="1h")}, hr.ConfigError, "'_n' cannot name a feature"),
    ],
)
def test_a_view_that_cannot_work(key: Any, features: dict[str, Any], error: type[Exception], says: str) -> None:
    """Keys and names."""
    with pytest.raises(error, match=says):
        declare(key, **features)


def test_a_class_holds_features_only() -> None:
    """Anything else in it is a mistake, unless its name begins with '_'."""
    app = hr.App("test")
    stream = app.stream(SCHEMA.model)
    with pytest.raises(hr.ConfigError, match="expected a feature such as"):

        @app.features(stream, key="user_id")
        class Wrong:
            total = 3


def test_names_are_taken_once() -> None:
    """Of streams and of views."""
    app = hr.App("test")
    stream = app.stream(SCHEMA.model)
    with pytest.raises(hr.ConfigError, match="there is a stream 'payment' already"):
        app.stream(SCHEMA.model)
    app.features(stream, key="user_id", name="view")(type("A", (), {"n": hr.count(over="1h")}))
    with pytest.raises(hr.ConfigError, match="there is a view 'view' already"):
        app.features(stream, key="user_id", name="view")(type("B", (), {"n": hr.count(over="1h")}))


def test_a_class_may_be_declared_on_several_streams() -> None:
    """`latest` without columns has all those of each stream."""

    class Visit(hr.Event):
        user_id: str
        page: str
        at: Any = hr.event_time()

    Visit.__annotations__["at"] = SCHEMA.model.__annotations__["at"]
    shared = type("Recent", (), {"recent": hr.latest(2)})
    views = [
        View.declare("v", "", "s", ["user_id"], {"recent": shared.recent}, columns, "at")
        for columns in (SCHEMA.columns, {"user_id": pl.String(), "at": pl.Datetime("us", "UTC")})
    ]
    assert [len(view.types["recent"].inner.fields) for view in views] == [8, 2]


SAME, OTHER = hr.sum("amount", over="1h"), hr.sum("n", over="1h")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (hr.sum("amount", over="1h"), hr.sum("amount", over="1h"), True),
        (hr.sum("amount", over="1h"), hr.sum("n", over="1h"), False),
        (hr.sum("amount", over="1h"), hr.sum("amount", over="1h", every="2m"), False),
        (hr.sum("amount", over="1h", every="1m"), hr.sum("amount", over="10m", every="1m"), True),
        (hr.sum(pl.col("amount").round(1), over="1h"), hr.sum(pl.col("amount").round(2), over="1h"), False),
        (
            hr.count(over="1h", where=pl.col("merchant").is_in(["a"])),
            hr.count(over="1h", where=pl.col("merchant").is_in(["b"])),
            False,
        ),
        (hr.latest(2, "n"), hr.latest(3, "n"), False),
        (hr.quantile("n", 0.5, over="1h"), hr.quantile("n", 0.9, over="1h"), True),
    ],
)
def test_the_fingerprint_tells_whether_stored_tiles_can_be_continued(one: Any, other: Any, same: bool) -> None:
    """What only changes how they are read leaves it as it is."""
    assert (declare(feature=one).fingerprint() == declare(feature=other).fingerprint()) is same
