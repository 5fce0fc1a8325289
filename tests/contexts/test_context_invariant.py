"""What one writer writes in order is read in order: no pack has a later write without an earlier one.

Readers wait for one point (`on_stale="wait"`), so every pack is of one, however busy the machine is.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

import headrace as hr
from headrace.serving.live import Live

PACKS = 200
READERS = 2
BUSY_PACKS = 60
GATES = ("lowerx", "middlex", "upperx")
WAIT = 30.0
_NUMBER = re.compile(r"number (\d+)")


class Opened(hr.Event):
    """A gate was opened."""

    gate: str
    at: datetime = hr.event_time()


class Closed(hr.Event):
    """A gate was closed."""

    gate: str
    at: datetime = hr.event_time()


class Log(hr.Document):
    """What the keeper has written."""

    id: str
    body: str


def gates(app: hr.App) -> tuple[Any, Any]:
    """Two streams with a view each: how often a gate was opened, and closed."""
    opened, closed = app.stream(Opened), app.stream(Closed)

    @app.features(opened, key="gate")
    class Openings:
        """How often a gate was opened."""

        times = hr.count(over="2d")

    @app.features(closed, key="gate")
    class Closings:
        """How often a gate was closed."""

        times = hr.count(over="2d")

    return Openings, Closings


def lock() -> hr.App:
    """Two streams with a view each, a collection, and a context that reads all three."""
    app = hr.App("lock")
    (openings, closings), logs = gates(app), app.table(Log)
    library = app.collection("library", logs, text=["body"], embed="hash", index="memory:")

    @app.context()
    def state(gate: str):  # type: ignore[no-untyped-def]
        """All that is known of a gate."""
        yield closings(gate)
        yield library.search("lower gate number", k=1)
        yield openings(gate)

    return app


def write(live: Live, number: int) -> hr.Token:
    """The document first, then that the gate was opened, then that it was closed."""
    now = datetime.now(UTC)
    live.push("log", {"id": "lower", "body": f"The lower gate has number {number}."})
    live.push("opened", {"gate": "lower", "at": now})
    return live.push("closed", {"gate": "lower", "at": now})


def seen(pack: hr.Pack) -> tuple[int, int, int]:
    """The document's number, and how often the gate was opened and closed."""
    items = {section.name: section.items[0].item for section in pack.sections}
    number = _NUMBER.search(items["library"].text)
    assert number is not None
    opened, closed = items["openings"].data, items["closings"].data
    assert opened is not None
    assert closed is not None
    return int(number[1]), opened["times"], closed["times"]


def is_prefix(document: int, opened: int, closed: int) -> bool:
    """Whether these are the first writes, whole: each step at most one behind the step before it."""
    return document >= opened >= closed >= document - 1


def test_a_prefix() -> None:
    assert [is_prefix(*each) for each in [(4, 3, 3), (4, 4, 3), (4, 4, 4)]] == [True] * 3
    assert [is_prefix(*each) for each in [(3, 4, 3), (4, 3, 4), (4, 4, 5), (4, 2, 2), (5, 4, 3)]] == [False] * 5


def test_no_pack_breaks_the_order() -> None:
    with lock().open() as live:
        packs: list[hr.Pack] = []
        read = threading.Event()
        first = write(live, 1)
        live.context("state", gate="lower", after=first, timeout=WAIT)

        def keep() -> None:
            token = first
            for number in count(2):
                if read.is_set():
                    break
                token = write(live, number)
                if number % 16 == 0:  # no faster than the collection follows
                    live.search("library", "gate", after=token, timeout=WAIT)
            last = live.context("state", gate="lower", after=token, timeout=WAIT, on_stale="wait")
            assert (seen(last), last.point.consistent) == ((number - 1,) * 3, True)

        def look() -> None:
            some = range(PACKS // READERS)
            packs.extend(live.context("state", gate="lower", timeout=WAIT, on_stale="wait") for _ in some)

        together([keep], [look] * READERS, read)
    found = [seen(pack) for pack in packs]
    assert len(set(found)) > 1  # the writer wrote meanwhile
    print(f"{len(found)} packs are of one point, up to write {max(found)[0]:,}")
    assert [each for each in found if not is_prefix(*each)] == []
    assert all(pack.point.consistent for pack in packs)


def together(
    writers: Sequence[Callable[[], None]], readers: Sequence[Callable[[], None]], read: threading.Event
) -> None:
    """All at the same time, each in its thread, until the readers have read; raises what failed."""
    failed: list[BaseException] = []

    def run(what: Callable[[], None]) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001 - of a thread; raised below
            failed.append(error)

    writing, reading = ([threading.Thread(target=run, args=(one,)) for one in some] for some in (writers, readers))
    for thread in [*writing, *reading]:
        thread.start()
    for thread in reading:
        thread.join()
    read.set()
    for thread in writing:
        thread.join()
    if failed:
        raise failed[0]


class Remark(hr.Document):
    """What somebody remarks on a gate."""

    id: str
    body: str


def busy_lock(index: str) -> hr.App:
    """As `lock`, with a second table and a collection of its own."""
    app = hr.App("busy-lock")
    (openings, closings), logs, remarks = gates(app), app.table(Log), app.table(Remark)
    library = app.collection("library", logs, text=["body"], embed="hash", index=index)
    gossip = app.collection("gossip", remarks, text=["body"], embed="hash", index=index)

    @app.context()
    def state(gate: str):  # type: ignore[no-untyped-def]
        """All that is known of a gate."""
        yield closings(gate)
        yield gossip.search(gate, k=1, mode="words")
        yield library.search(gate, k=1, mode="words")
        yield openings(gate)

    return app


@pytest.mark.parametrize("index", ["memory:", "local:"])
def test_no_pack_breaks_the_order_of_many_writers(index: str) -> None:
    """Each writes as fast as it can, in an order of its own: two tables, two streams; and others push many events."""
    packs: list[tuple[str, hr.Pack]] = []
    read = threading.Event()
    with busy_lock(index).open() as live:

        def write_all(gate: str, number: int) -> hr.Token:
            now = datetime.now(UTC)
            live.push("log", {"id": gate, "body": f"The gate {gate} has number {number}."})
            live.push("opened", {"gate": gate, "at": now})
            live.push("remark", {"id": gate, "body": f"Somebody has come to {gate} at noon, and saw number {number}."})
            return live.push("closed", {"gate": gate, "at": now})

        def keep(gate: str) -> None:
            for number in count(2):
                if read.is_set():
                    return
                write_all(gate, number)

        def flood() -> None:
            for number in count():
                if read.is_set():
                    return
                now = datetime.now(UTC)
                token = live.push("opened", [{"gate": f"other{one}", "at": now} for one in range(100)])
                if number % 4 == 0:  # no faster than the engine follows
                    live.read("openings", "other1", after=token, timeout=WAIT)

        def look() -> None:
            for number in range(BUSY_PACKS // READERS):
                gate = GATES[number % len(GATES)]
                packs.append((gate, live.context("state", gate=gate, timeout=WAIT, on_stale="wait")))

        for gate in GATES:
            token = write_all(gate, 1)
        live.context("state", gate=GATES[-1], after=token, timeout=WAIT)
        together([*(partial(keep, gate) for gate in GATES), flood], [look] * READERS, read)
    assert all(pack.point.consistent for _, pack in packs)
    found = [(gate, *all_seen(pack)) for gate, pack in packs]
    assert len(set(found)) > 1
    print(f"{index} {len(found)} packs are of one point, up to write {max(each[1] for each in found):,}")
    assert [each for each in found if not (each[1] >= each[2] >= each[3] >= each[4] >= each[1] - 1)] == []


def all_seen(pack: hr.Pack) -> tuple[int, int, int, int]:
    """The log's number, how often the gate was opened, the remark's number, and how often it was closed."""
    items = {section.name: section.items[0].item for section in pack.sections}
    numbers = [_NUMBER.search(items[name].text) for name in ("library", "gossip")]
    times = [(items[name].data or {})["times"] for name in ("openings", "closings")]
    log, remark = (int(number[1]) for number in numbers if number is not None)
    return log, times[0], remark, times[1]
