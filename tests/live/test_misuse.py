"""Bad input and bad places, each with a clear error, and nothing lost."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

import headrace as hr

AT = datetime(2024, 1, 1, tzinfo=UTC)


class Payment(hr.Event):
    user_id: str
    amount: float
    at: datetime = hr.event_time(unit="s")


def make(**options: object) -> tuple[hr.App, hr.Stream, hr.View]:
    app = hr.App("misuse", clock="event", **options)  # type: ignore[arg-type]
    payments = app.stream(Payment)

    @app.features(payments, key="user_id")
    class Spending:
        """What a user spends."""

        total = hr.sum("amount", over="10m", every="1m")
        count = hr.count(over="10m", every="1m")

    return app, payments, Spending  # type: ignore[return-value]


GOOD = b'{"user_id":"u","amount":1.0,"at":1704067200}'


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"user_id":"u","amount":', "JSON"),
        (b'{"user_id":"u","amount":"much","at":1704067200}', "amount"),
        (b'{"user_id":7,"amount":1.0,"at":1704067200}', "user_id"),
        (b'{"amount":1.0,"at":1704067200}', "user_id"),
        (b'{"user_id":"u","at":1704067200}', "amount"),
        (b'{"user_id":"u","amount":NaN,"at":1704067200}', ""),
        (b'{"user_id":"u","amount":1e999,"at":1704067200}', ""),
        (b'{"user_id":"u","amount":1.0,"at":1704067200000000}', "unit"),
        (b'{"user_id":"u","amount":1.0,"at":"soon"}', "at"),
        (b'{"user_id":"u\xff","amount":1.0,"at":1704067200}', "unicode"),
        (b"[]", ""),
    ],
)
def test_a_bad_row_takes_no_other_with_it(bad: bytes, reason: str) -> None:
    app, payments, view = make()
    with app.open() as live:
        token = live.push(payments, b"\n".join([GOOD, bad, GOOD]))
        letters = live.dead_letters.list()
        row = live.read(view, "u", after=token)
    assert (token.accepted, [reject.row for reject in token.rejected]) == (2, [1])
    assert reason in token.rejected[0].reason
    assert [letter.raw for letter in letters] == [bad]
    assert (row.total, row.count) == (2.0, 2)  # type: ignore[attr-defined]


def test_not_a_number_in_python_values_and_frames() -> None:
    app, payments, _ = make()
    with app.open() as live:
        rows = [{"user_id": "u", "amount": value, "at": AT} for value in (1.0, math.nan, math.inf)]
        assert live.push(payments, rows).accepted == 1
        assert live.push(payments, pl.DataFrame(rows)).accepted == 1


def test_a_line_of_50_megabytes_is_set_aside_whole() -> None:
    app, payments, _ = make()
    line = b'{"user_id":"' + b"x" * 50_000_000 + b'","amount":1.0,"at":1704067200}'
    with app.open() as live:
        token = live.push(payments, GOOD + b"\n" + line + b"\n" + GOOD)
        assert token.accepted == 2
        assert [letter.raw for letter in live.dead_letters.list()] == [line]


def test_unknown_names_suggest_the_nearest() -> None:
    app, _, view = make()
    with app.open() as live:
        with pytest.raises(hr.UnknownNameError, match="did you mean 'payment'"):
            live.push("paymnt", [])
        with pytest.raises(hr.UnknownNameError, match="did you mean 'spending'"):
            live.read("spendng", "u")
        with pytest.raises(hr.InputError, match="user_id"):
            live.read(view, 7.5)


def test_an_unknown_column_is_found_when_it_is_declared() -> None:
    app = hr.App("misuse")
    payments = app.stream(Payment)
    with pytest.raises(hr.SchemaError, match="did you mean 'amount'"):

        @app.features(payments, key="user_id")
        class Wrong:
            total = hr.sum("amuont", over="10m")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    app, _, _ = make()
    script = "import headrace as hr, sys\nhr.App('other').open(sys.argv[1])"
    with app.open(tmp_path / "data"):
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "data")], capture_output=True, text=True, check=False
        )
    assert other.returncode != 0
    assert f"LockedError: another process (pid {os.getpid()})" in other.stderr


@pytest.mark.parametrize("place", ["file/data", "file"])
def test_a_directory_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    app, _, _ = make()
    with pytest.raises(hr.StorageError, match="file"):
        app.open(tmp_path / place)


def test_a_full_disk_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """The size of files is limited in a process of its own: what does not fit is refused, what fitted is there."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        import headrace as hr
        sys.path.insert(0, sys.argv[2])
        from test_misuse import make
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        app, payments, view = make(checkpoint="1h")
        live = app.open(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        taken = 0
        rows = [{"user_id": "u", "amount": 1.0, "at": 1704067200}] * 1000
        try:
            for _ in range(1000):
                taken += live.push(payments, rows).accepted
        except hr.StorageError as error:
            print(taken, type(error).__name__, live.read(view, "u", timeout=60).count)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        taken += live.push(payments, rows).accepted
        live.drain()
        print(taken, live.read(view, "u").count)
        live.close()
        """
    )
    run = [sys.executable, "-c", script, str(tmp_path / "data"), str(Path(__file__).parent)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused, after = done.stdout.splitlines()
    assert refused.split()[1] == "StorageError"
    assert after.split()[0] == after.split()[1] == str(int(refused.split()[0]) + 1000)
    app, _, view = make()
    with app.open(tmp_path / "data") as live:
        assert live.read(view, "u").count == int(after.split()[0])  # type: ignore[attr-defined]


def test_used_after_close() -> None:
    app, payments, _ = make()
    live = app.open()
    live.close()
    with pytest.raises(hr.ClosedError, match="closed"):
        live.push(payments, [])


def test_a_token_of_somewhere_else_is_refused() -> None:
    app, _, view = make()
    with app.open() as live:
        with pytest.raises(hr.InputError, match="expected a token"):
            live.read(view, "u", after="nonsense")
        with pytest.raises(hr.StaleError, match="engine"):
            live.read(view, "u", after=str(hr.Token({"push": 99})), timeout=0.01)


def test_an_integer_sum_past_64_bits_is_exact() -> None:
    class Count(hr.Event):
        key: str
        n: int
        at: datetime = hr.event_time()

    app = hr.App("large", clock="event")
    counts = app.stream(Count)

    @app.features(counts, key="key")
    class Total:
        """A sum."""

        total = hr.sum("n", over="1h")

    most = 2**63 - 2
    with app.open() as live:
        token = live.push(counts, [{"key": "k", "n": most, "at": AT}] * 4)
        assert live.read("total", "k", after=token).total == 4 * most  # type: ignore[attr-defined]
        frame = live.read_many("total", ["k", "other"])
    assert (frame["total"].to_list(), frame.schema["total"]) == ([4 * most, 0], pl.Int128)
