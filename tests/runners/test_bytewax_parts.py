"""The parts of the Bytewax runner by themselves: what has been written, one reading for many lanes, what is kept."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.schema import Schema
from headrace.sources.base import Chunk

pytest.importorskip("bytewax", reason="Bytewax has no wheels for Python 3.13 and later")

from headrace.features.combine import Combiner
from headrace.features.machine import Batch
from headrace.runners.bytewax_lineage import Lineage, prepare, recovery_folder
from headrace.runners.bytewax_messages import Begun, Done, Piece, StreamDone, Whole, Written
from headrace.runners.bytewax_reading import Reading, SourceLane
from headrace.runners.bytewax_site import Site
from headrace.runners.bytewax_tracker import Tracker
from headrace.runners.setaside import SetAside
from headrace.stores.dead_letters import DeadLetters

START = 1_700_000_000_000_000
PATIENCE = 30.0


class Sale(hr.Event):
    shop: str
    number: int
    at: datetime = hr.event_time(unit="us")


def make(**features: Any) -> hr.App:
    app = hr.App("parts", clock="event")
    sales = app.stream(Sale)
    app.features(sales, key="shop", name="shop")(type("shop", (), features or {"count": hr.count(over="1h")}))
    return app


# -- what has been written -----------------------------------------------------------------------------------------


def done(lane: str, number: int, position: Any) -> Done:
    return Done(lane, number, "topic", position, number)


def none(newest: int) -> StreamDone:
    return StreamDone(1, 0, newest, np.empty(0, np.int64))


def test_a_batch_is_done_when_all_its_pieces_are() -> None:
    tracker = Tracker(make())
    assert not tracker.take(Begun("a.1", 3, (done("l", 0, {"0": 5}),), {"sale": none(START)}))
    assert not tracker.take(Written("a.1", 2))
    assert (tracker.seen, tracker.newest()) == ({}, {"sale": None})
    assert tracker.take(Written("a.1", 1))
    assert (tracker.seen, tracker.newest()) == ({"topic": {"0": 5}}, {"sale": START})


def test_who_waits_is_told_last() -> None:
    """Between what is written and what is told, a store elsewhere gets to know what `now` is."""
    tracker = Tracker(make())
    assert tracker.take(Begun("a.1", 0, (done("l", 0, {"0": 5}),), {"sale": none(START)}))
    assert (tracker.seen, tracker.told, tracker.done("l"), tracker.version) == ({"topic": {"0": 5}}, {}, None, 0)
    tracker.tell()
    assert (tracker.told, tracker.version) == ({"topic": {"0": 5}}, 1)
    assert tracker.done("l") == done("l", 0, {"0": 5})
    tracker.tell()  # nothing is new
    assert tracker.version == 1


def test_word_of_pieces_may_come_first() -> None:
    """They come another way than word of the batch."""
    tracker = Tracker(make())
    assert not tracker.take(Written("a.1", 1))
    assert tracker.take(Begun("a.1", 1, (done("l", 0, {"0": 5}),)))
    assert tracker.seen == {"topic": {"0": 5}}


def test_a_lane_is_done_in_order() -> None:
    """What is written first of a later batch promises nothing; then both count."""
    tracker = Tracker(make())
    tracker.take(Begun("a.1", 1, (done("l", 0, {"0": 5}),), {"sale": none(START)}))
    tracker.take(Begun("a.2", 1, (done("l", 1, {"0": 9}),), {"sale": none(START + 1)}))
    assert not tracker.take(Written("a.2", 1))
    assert tracker.seen == {}
    assert tracker.take(Written("a.1", 1))
    assert (tracker.seen, tracker.streams["sale"].rows) == ({"topic": {"0": 9}}, 2)


def test_lanes_do_not_wait_for_each_other() -> None:
    """And a batch of two lanes is counted once, whichever of them is done first."""
    tracker = Tracker(make())
    tracker.take(Begun("a.1", 1, (done("l", 0, {"0": 5}),)))
    tracker.take(Begun("a.2", 1, (done("l", 1, {"0": 7}), done("m", 0, {"1": 3})), {"sale": none(START)}))
    assert tracker.take(Written("a.2", 1))
    assert tracker.seen == {"topic": {"1": 3}}
    assert tracker.take(Written("a.1", 1))
    assert (tracker.seen, tracker.streams["sale"].rows) == ({"topic": {"0": 7, "1": 3}}, 1)
    assert tracker.take(Begun("a.3", 0, (done("m", 1, {"1": 4}),)))
    assert tracker.seen == {"topic": {"0": 7, "1": 4}}


# -- pieces --------------------------------------------------------------------------------------------------------


def test_a_piece_takes_only_its_shard_along() -> None:
    app = make(total=hr.sum("number", over="1h"), top=hr.top(2, "number", over="1h"))
    frame = Schema.of(Sale).align(
        pl.DataFrame({"shop": [f"s{n % 50}" for n in range(500)], "number": range(500)}).with_columns(
            at=pl.lit(START).cast(pl.Datetime("us", "UTC"))
        )
    )
    combined = Combiner(app.views["shop"], 8).combine(Batch(frame, 0, np.full(500, START)))
    whole = Whole(combined)
    kept = 0
    for shard in whole.shards():
        piece = pickle.loads(pickle.dumps(Piece("a.1", 8, "shop", shard, whole)))  # noqa: S301 - our own
        assert (piece.batch, piece.pieces, piece.view, piece.shard) == ("a.1", 8, "shop", shard)
        assert piece.whole.combined.newest == START
        (table,) = piece.whole.combined.tables
        assert set(table.shard.tolist()) == {shard}
        assert table.grouped.equals(whole.of(shard)[0].grouped)
        kept += table.grouped.height
    assert kept == 50


# -- one reading for many lanes ------------------------------------------------------------------------------------


class Counted:
    """A source of partitions; what is read next is what `more` adds."""

    name = "counted"

    def __init__(self) -> None:
        self._there = threading.Condition()
        self._chunks: list[Chunk] = []
        self._closed = False
        self.opened: list[Any] = []

    def more(self, position: Any) -> None:
        with self._there:
            line = json.dumps({"shop": "s", "number": 1, "at": START}).encode() + b"\n"
            self._chunks.append(Chunk(line, "ndjson", position))
            self._there.notify_all()

    def lanes(self, count: int) -> Sequence[Counted]:
        raise AssertionError("a worker that is alone reads the source as it is")

    def open(self, position: Any) -> Counted:
        self.opened.append(position)
        return self

    def read(self, timeout: float) -> Chunk | None:
        with self._there:
            if self._closed:
                raise ClosedError("closed")
            if not self._chunks:
                self._there.wait(timeout)
            return self._chunks.pop(0) if self._chunks else None

    def close(self) -> None:
        with self._there:
            self._closed = True
            self._there.notify_all()


class Read:
    """Three lanes of one reading, as Bytewax has them."""

    def __init__(self, *states: Any) -> None:
        self.app = make()
        self.source = Counted()
        letters = DeadLetters(None)
        self.site = Site(self.app, Lineage.fresh(self.app), SetAside(letters, self.app.clock.now))
        self.site.arrive(0, 1)
        self.site.expected = ["sale/0", "sale/1", "sale/2"]
        self.reading = Reading(self.site, self.app.streams["sale"], self.source, 3)  # type: ignore[arg-type]
        self.lanes = [SourceLane(f"sale/{n}", self.reading, state) for n, state in enumerate(states)]
        for lane in self.lanes:
            assert len(lane.next_batch()) == 1  # where it stands

    def until(self, position: Any) -> None:
        """Asks all lanes until they have brought what leads to a position."""
        deadline = threading.Event()
        timer = threading.Timer(PATIENCE, deadline.set)
        timer.start()
        while self.lanes[0].position != position and not deadline.wait(0.001):
            for lane in self.lanes:
                lane.next_batch()
        timer.cancel()
        assert self.lanes[0].position == position

    def state(self, position: Any, newest: int | None = None) -> dict[str, Any]:
        moments = {} if newest is None else {"sale": newest}
        return {"position": position, "newest": moments, "source": "counted", "lines": self.reading.lines}

    def close(self) -> None:
        self.site.end()


def test_lanes_of_one_reading_save_one_position() -> None:
    """Whichever is asked first; and what comes after that waits until all have saved, so that it is of the next."""
    read = Read(None, None, None)
    try:
        assert read.source.opened == [None]
        read.source.more({"0": 5, "1": 1, "3": 2, "topic": "x"})
        read.until({"0": 5, "1": 1, "3": 2, "topic": "x"})
        assert read.lanes[2].snapshot()["position"] == {"topic": "x"}
        read.source.more({"0": 5, "1": 7, "2": 4, "3": 2, "topic": "x"})
        feeder = read.lanes[0].feeder
        assert feeder is not None
        assert feeder.caught_up(PATIENCE)
        assert [lane.next_batch() for lane in read.lanes] == [[], [], []]
        assert read.lanes[0].snapshot()["position"] == {"0": 5, "3": 2, "topic": "x"}
        read.until({"0": 5, "1": 7, "2": 4, "3": 2, "topic": "x"})
        assert read.lanes[1].snapshot()["position"] == {"1": 1, "topic": "x"}
        saved = [lane.snapshot()["position"] for lane in read.lanes]
        assert saved == [{"0": 5, "3": 2, "topic": "x"}, {"1": 7, "topic": "x"}, {"2": 4, "topic": "x"}]
    finally:
        read.close()


def test_a_reading_goes_on_where_each_lane_stood() -> None:
    """As lanes that were read apart have saved it, or together; the newest time is that of the newest."""
    shape = Read(None, None, None)
    shape.close()
    states = [shape.state({"0": 5, "t": "x"}, START), shape.state({"1": 7, "t": "x"}, START + 9), shape.state(None)]
    lines = shape.site.lineage.lines
    app = make()
    source = Counted()
    site = Site(app, Lineage(3, 64, lines), SetAside(DeadLetters(None), app.clock.now))
    reading = Reading(site, app.streams["sale"], source, 3)  # type: ignore[arg-type]
    first, second = SourceLane("sale/0", reading, states[0]), SourceLane("sale/1", reading, states[1])
    assert (source.opened, second.snapshot()["position"]) == ([], {"1": 7, "t": "x"})
    SourceLane("sale/2", reading, states[2])
    assert source.opened == [{"0": 5, "1": 7, "t": "x"}]
    assert first.newest == {"sale": START + 9}
    site.end()


# -- what is kept --------------------------------------------------------------------------------------------------


def test_a_line_goes_on_until_the_view_changes(tmp_path: Path) -> None:
    first = prepare(make(), tmp_path)
    assert len(list(recovery_folder(tmp_path).glob("*.sqlite3"))) == 4
    assert prepare(make(), tmp_path) == first
    second = prepare(make(count=hr.count(over="2h")), tmp_path)
    assert second.lines["shop"] != first.lines["shop"]
    third = prepare(make(), tmp_path)
    assert third.lines["shop"] not in (first.lines["shop"], second.lines["shop"])


def test_the_numbers_are_those_of_the_directory(tmp_path: Path) -> None:
    """Another version may have others; what is stored stays where it is."""
    prepare(make(), tmp_path)
    file = tmp_path / "lineage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lanes": 3, "shards": 5}))
    lineage = prepare(make(), tmp_path)
    assert (lineage.lanes, lineage.shards) == (3, 5)


def test_lines_are_of_the_recovery_data(tmp_path: Path) -> None:
    """When that is gone, state begins anew."""
    before = prepare(make(), tmp_path)
    recovery_folder(tmp_path).rename(tmp_path / "away")
    assert prepare(make(), tmp_path).lines != before.lines


def test_what_another_version_wrote_is_left_alone(tmp_path: Path) -> None:
    prepare(make(), tmp_path)
    (tmp_path / "lineage.json").write_text('{"format": 99}')
    with pytest.raises(StorageError, match="format 1, found"):
        prepare(make(), tmp_path)


def test_a_directory_of_the_local_runner_is_refused(tmp_path: Path) -> None:
    app = make()
    with app.open(tmp_path) as live:
        live.push("sale", [{"shop": "s", "number": 1, "at": START}])
    app.runner = "bytewax"
    with pytest.raises(ConfigError, match="checkpoints of the runner 'local'"):
        app.open(tmp_path)


def test_a_source_that_cannot_be_opened_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As its own error, and nothing is left open."""
    app = hr.App("parts", clock="event", runner="bytewax")
    app.stream(Sale, f"file://{tmp_path}/none/*.ndjson?position=bad")
    with caplog.at_level(logging.CRITICAL), pytest.raises(hr.HeadraceError):
        app.open(tmp_path / "data")
