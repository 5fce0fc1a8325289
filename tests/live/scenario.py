"""A random life of an app: pushes of every kind, reads, restarts and crashes, and what it must then answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

import headrace as hr
from headrace.schema import Schema
from headrace.testing import VirtualClock, oracle
from headrace.units import from_micros

LATENESS = 30_000_000
START = 1_700_000_000_000_000
USERS = ("u1", "u2", "ü")
KEYS: dict[str, list[Any]] = {
    "spending": [*USERS, "nobody"],
    "per_shop": [(user, shop) for user in (*USERS, "nobody") for shop in (0, 1)],
}


class Payment(hr.Event):
    user_id: str | None = None
    shop: int = 0
    amount: float | None = None
    n: int | None = None
    merchant: str | None = None
    at: datetime = hr.event_time(unit="us")


SCHEMA = Schema.of(Payment)


def make(clock: str, checkpoint: str = "5s") -> hr.App:
    """An app with two views of one stream."""
    app = hr.App(
        "scenario",
        clock=VirtualClock(START) if clock == "virtual" else clock,  # type: ignore[arg-type]
        checkpoint=checkpoint,
    )
    payments = app.stream(Payment, lateness="30s")

    @app.features(payments, key="user_id")
    class Spending:
        """By user."""

        total = hr.sum("amount", over="10m", every="1m")
        units = hr.sum("n", over="10m", every="1m")
        spread = hr.std("amount", over="10m", every="1m")
        large = hr.count(over="1h", where=pl.col("amount") > 0)
        shops = hr.distinct("merchant", over="1h")
        favourites = hr.top(2, "merchant", over="10m", every="1m")
        middle = hr.quantile("amount", 0.5, over="10m", every="1m")
        recent = hr.latest(3, "n", "merchant", "at")
        earliest = hr.first("n", over="10m", every="7m")
        mean = total / large

    @app.features(payments, key=["user_id", "shop"])
    class PerShop:
        """By user and shop."""

        events = hr.count(over="10m", every="1m")
        most = hr.max("amount", over="10m", every="1m")

    return app


class Life:
    """An open app, all that it has accepted, and what it must answer.

    Args:
        app: Made by `make`.
        folder: Where its data directories go; None keeps nothing on disk.
    """

    def __init__(self, app: hr.App, folder: Path | None) -> None:
        self.app = app
        self.events = SCHEMA.empty()
        self.rejected = 0
        self._folder = folder
        self._number = 0
        self.live = app.open(self._path)
        self.token: hr.Token | None = None

    @property
    def _path(self) -> Path | None:
        return None if self._folder is None else self._folder / str(self._number)

    def push(self, frame: pl.DataFrame, way: str) -> None:
        """Pushes rows in one of the ways that `WAYS` lists; among dicts and NDJSON a row that is none."""
        rows = frame.with_columns(pl.col("at").to_physical()).rows(named=True)
        before = self.rejected
        token = self.live.push(Payment, WAYS[way](frame, rows))
        if way in BROKEN:
            self.rejected += 1
        assert len(token.rejected) == self.rejected - before
        assert token.accepted == frame.height
        if frame.height:
            self.token = token  # that of no rows promises nothing
        self.events = pl.concat([self.events, frame])

    def reopen(self) -> None:
        """Closes the app and opens it again."""
        self.live.close()
        self.live = self.app.open(self._path)

    def crash(self) -> None:
        """Opens what is on disk at this moment somewhere else, as after a loss of power; the old app knows nothing."""
        assert self._folder is not None
        old, source = self.live, self._path
        self._number += 1
        copy_at_rest(source, self._path)
        self.live = self.app.open(self._path)
        old.close()

    def close(self) -> None:
        self.live.close()

    def now(self) -> int:
        """What `now` must be."""
        if not self.app.event_time:
            return self.app.clock.now()
        newest = oracle.event_times(self.events, "at").max()
        return 0 if newest is None else int(newest)  # type: ignore[call-overload]

    def wrong(self, back: int) -> list[str]:
        """What reads of all keys say wrong, now and `back` microseconds ago; each by itself and together."""
        after = self.token
        lines: list[str] = []
        for name, keys in KEYS.items():
            view = self.app.views[name]
            for moment in (None, self.now() - back):
                now = self.now() if moment is None else moment
                frame = self.live.read_many(view, keys, after=after, now=moment)
                for key, together in zip(keys, frame.rows(named=True), strict=True):
                    alone = self.live.read(view, key, after=after, now=moment).to_dict()
                    for found in (alone, together):
                        lines += oracle.disagreements(view, self.events, now, key, found)
        return lines


def copy_at_rest(source: Path | None, target: Path | None) -> None:
    """Copies a directory as it was at one moment: copied again until nothing changed meanwhile."""
    assert source is not None
    assert target is not None
    while True:
        before = _state(source)
        try:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("lock"))
        except (FileNotFoundError, shutil.Error):
            shutil.rmtree(target)
            continue
        if _state(source) == before:
            return
        shutil.rmtree(target)


def _state(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file() and path.suffix != ".db-shm":
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _iso(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "at": from_micros(row["at"]).isoformat()} for row in rows]


Rows = list[dict[str, Any]]
WAYS: dict[str, Callable[[pl.DataFrame, Rows], Any]] = {
    "frame": lambda frame, _: frame,
    "dicts": lambda _, rows: rows,
    "events": lambda _, rows: [Payment(**row) for row in rows],
    "ndjson": lambda _, rows: "\n".join(map(_line, rows)).encode(),
    "json": lambda _, rows: "\n".join(map(_line, _iso(rows))),
    "broken dicts": lambda _, rows: [*rows, {"user_id": 7}],
    "broken ndjson": lambda _, rows: ("{oops\n" + "\n".join(map(_line, rows))).encode(),
}
BROKEN = ("broken dicts", "broken ndjson")
