"""Conditions: a Polars expression, the JSON form and the tree say the same, row by row."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.document import Column
from headrace.errors import InputError
from headrace.filters import All, Any_, Compare, IsNull, Not, OneOf, parse, passes, to_expr, to_json
from headrace.units import to_micros

COLUMNS = {
    "n": Column("int"),
    "x": Column("float"),
    "s": Column("str"),
    "b": Column("bool"),
    "c": Column("bool"),
    "t": Column("time"),
    "tags": Column("str", many=True),
    "years": Column("int", many=True),
}
SCHEMA = {
    "n": pl.Int64(),
    "x": pl.Float64(),
    "s": pl.String(),
    "b": pl.Boolean(),
    "c": pl.Boolean(),
    "t": pl.Datetime("us", "UTC"),
    "tags": pl.List(pl.String()),
    "years": pl.List(pl.Int64()),
}
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(-2, 3),
    "x": st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0]),
    "s": st.sampled_from(["", "a", "A", "ü", "a\0", "😀"]),
    "b": st.booleans(),
    "c": st.booleans(),
    "t": st.integers(-2, 2).map(lambda hours: NOON + timedelta(hours=hours)),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.none() | values for name, values in VALUES.items()}
        | {"tags": st.lists(VALUES["s"], max_size=3), "years": st.lists(VALUES["n"], max_size=3)}
    ),
    max_size=12,
)


@st.composite
def _leaves(draw: st.DrawFn) -> pl.Expr:
    name = draw(st.sampled_from(["n", "x", "s", "b", "t", "tags", "years", "bare", "lit"]))
    if name == "bare":
        return pl.col(draw(st.sampled_from(["b", "c"])))
    if name == "lit":
        return pl.lit(draw(st.booleans()))
    column = pl.col(name)
    if COLUMNS[name].many:
        item = draw(VALUES["s" if name == "tags" else "n"])
        return column.list.contains(item)
    values = VALUES[name]
    kind = draw(st.sampled_from(["eq", "in", "null", "not null", "order", "between", "swapped"]))
    if kind == "in":
        return column.is_in(pl.Series(draw(st.lists(st.none() | values, max_size=4)), dtype=SCHEMA[name]))
    if kind in ("null", "not null"):
        return column.is_null() if kind == "null" else column.is_not_null()
    value = draw(values)
    if kind == "eq" or name in ("s", "b"):
        return column == value if draw(st.booleans()) else column != value
    if kind == "between":
        return column.is_between(value, draw(values), closed=draw(st.sampled_from(["both", "left", "right", "none"])))
    left, right = (pl.lit(value), column) if kind == "swapped" else (column, value)
    operation = draw(st.sampled_from(["__lt__", "__le__", "__gt__", "__ge__"]))
    found: pl.Expr = getattr(left, operation)(right)
    return found


EXPRESSIONS = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: pl.all_horizontal(*some)),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: pl.any_horizontal(*some)),
    ),
    max_leaves=6,
)


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {name: to_micros(value) if isinstance(value, datetime) else value for name, value in row.items()}


@given(rows=ROWS, expression=EXPRESSIONS)
def test_a_row_passes_if_polars_keeps_it(rows: list[dict[str, Any]], expression: pl.Expr) -> None:
    """By the tree, by the tree after JSON, and by the expression that the tree turns back into."""
    frame = pl.DataFrame(rows, schema=SCHEMA).with_row_index("row")
    expected = frame.filter(expression)["row"].to_list()
    tree = parse(expression, COLUMNS)
    assert [n for n, row in enumerate(rows) if passes(tree, _payload(row))] == expected
    assert frame.filter(to_expr(tree, COLUMNS))["row"].to_list() == expected
    again = parse(to_json(tree), COLUMNS)
    assert [n for n, row in enumerate(rows) if passes(again, _payload(row))] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"s": "en"}, Compare("s", "eq", "en")),
        ({"n": {"gte": 1, "lt": 4}}, All((Compare("n", "ge", 1), Compare("n", "lt", 4)))),
        ({"n": {"gt": 1.5}}, Compare("n", "gt", 1)),
        ({"n": {"gte": 1.5}}, Compare("n", "ge", 2)),
        ({"x": 2}, Compare("x", "eq", 2.0)),
        ({"tags": "new"}, Compare("tags", "eq", "new", many=True)),
        ({"tags": {"in": ["a", "b"]}}, OneOf("tags", ("a", "b"), many=True)),
        ({"tags": {"ne": "a"}}, Not(Compare("tags", "eq", "a", many=True))),
        ({"s": None}, IsNull("s")),
        ({"s": {"ne": None}}, Not(IsNull("s"))),
        ({"t": {"lt": "2024-05-01T12:00:00Z"}}, Compare("t", "lt", to_micros(NOON))),
        ({"t": "1970-01-02"}, Compare("t", "eq", 86_400_000_000)),
        ({"t": date(1970, 1, 2)}, Compare("t", "eq", 86_400_000_000)),
        ({"t": 5}, Compare("t", "eq", 5)),
        ({"or": [{"b": True}, {"not": {"s": "a"}}]}, Any_((Compare("b", "eq", True), Not(Compare("s", "eq", "a"))))),
        ({"b": True, "n": 1}, All((Compare("b", "eq", True), Compare("n", "eq", 1)))),
        ({}, All(())),
        (Compare("tags", "ne", "a"), Not(Compare("tags", "eq", "a", many=True))),
        (pl.col("t") > datetime(2024, 5, 1, 12), Compare("t", "gt", to_micros(NOON))),
        (pl.col("t") > date(1970, 1, 2), Compare("t", "gt", 86_400_000_000)),
        (pl.col("t") > pl.datetime(2024, 5, 1, 12), Compare("t", "gt", to_micros(NOON))),
        (pl.col("n") > pl.lit(1) + 2, Compare("n", "gt", 3)),
        (pl.col("n").is_in([1, 2]), OneOf("n", (1, 2))),
        (pl.col("n").alias("m") == 1, Compare("n", "eq", 1)),
    ],
)
def test_a_condition_is_read_as(given: Any, expected: Any) -> None:
    assert parse(given, COLUMNS) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lang": "en"}, "no column 'lang' can be filtered by; known: b, c"),
        ({"tag": "en"}, "did you mean 'tags'"),
        ({"n": "1"}, "expected an integer to compare 'n' with, found '1'"),
        ({"n": True}, "expected an integer"),
        ({"n": 1.5}, "expected an integer"),
        ({"n": 2**63}, "expected an integer"),
        ({"x": float("nan")}, "expected a number"),
        ({"x": 10**400}, "expected a number"),
        ({"b": 1}, "expected a boolean"),
        ({"t": "soon"}, "expected a time"),
        ({"t": 10**18}, "expected a time"),
        ({"s": "\ud800"}, "expected text"),
        ({"s": "x" * 10_000}, "expected text"),
        ({"s": {"lt": "a"}}, "'s' is text, which indexes keep without an order"),
        ({"s": {"like": "a"}}, "unknown comparison 'like' of 's'"),
        ({"s": {}}, "expected a comparison of 's'"),
        ({"s": ["a"]}, "expected text"),
        ({"s": {"in": "a"}}, 'expected a list of values in "in"'),
        ({"n": {"lt": None}}, "expected an integer"),
        ({"and": {"n": 1}}, "expected a list of conditions"),
        ({"not": 1}, "expected a condition"),
        ({"n": {"in": list(range(10_001))}}, "at most 10000 values"),
        ({"or": [{"n": 1}] * 600}, "at most 512 conditions"),
        (pl.col("lang") == "en", "no column 'lang'"),
        (pl.col("s").str.starts_with("a"), "an index cannot be asked for .*starts_with.*; expected ==, !="),
        (pl.col("n") == pl.col("x"), "cannot be asked for"),
        (pl.col("n") + 1 == 2, "cannot be asked for"),
        (pl.col("n") == pl.len(), "cannot be asked for"),
        (pl.col("n", "x") == 1, "cannot be asked for"),
        (pl.col("n").map_batches(lambda n: n) == 1, "cannot be asked for"),
        (pl.col("n").is_between(pl.col("x"), 3), "cannot be asked for"),
        (pl.col("n").eq_missing(1), "cannot be asked for"),
        (pl.col("n") == pl.lit(None), "write is_null"),
        (pl.col("n") == pl.lit([1, 2]), "expected one value"),
        (pl.col("n") == pl.lit("a") + 1, "cannot be computed|expected an integer"),
        (pl.col("s"), "expected text to compare 's' with, found True"),
        (pl.lit(3), "cannot be asked for"),
        (pl.col("not") == 3, "rename it"),
        (3, "expected a condition"),
    ],
)
def test_what_an_index_cannot_do_is_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(given, COLUMNS)


def test_nesting_is_bounded() -> None:
    """A long chain is not deep; conditions in conditions are."""
    chain = pl.lit(True)
    for n in range(400):
        chain = chain & (pl.col("n") != n)
    assert passes(parse(chain, COLUMNS), {"n": 1000})
    deep: dict[str, Any] = {"n": 1}
    for _ in range(20):
        deep = {"not": deep}
    with pytest.raises(InputError, match="nested at most 16 deep"):
        parse(deep, COLUMNS)


def test_a_list_that_is_null_is_an_empty_list() -> None:
    """It has no item, and its negation passes."""
    tagged = parse(pl.col("tags").list.contains("a"), COLUMNS)
    rows: list[dict[str, Any]] = [{}, {"tags": None}, {"tags": []}, {"tags": [None]}, {"tags": ["b", "a"]}]
    assert [passes(tagged, row) for row in rows] == [False, False, False, False, True]
    assert [passes(Not(tagged), row) for row in rows] == [True, True, True, True, False]
    assert [passes(IsNull("tags"), row) for row in rows] == [True, True, True, True, False]
    frame = pl.DataFrame({"tags": [row.get("tags") for row in rows]}, schema={"tags": pl.List(pl.String)})
    for tree in (tagged, Not(tagged), IsNull("tags")):
        found = frame.select(to_expr(tree, COLUMNS)).to_series().to_list()
        assert found == [passes(tree, row) for row in rows]
