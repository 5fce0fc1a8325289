"""What one writer writes in order is read in order: no pack of one point has a later write without an earlier one."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from itertools import count

import headrace as hr
from headrace.serving.live import Live

PACKS = 200
READERS = 2
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


def lock() -> hr.App:
    """Two streams with a view each, a collection, and a context that reads all three."""
    app = hr.App("lock")
    opened, closed, logs = app.stream(Opened), app.stream(Closed), app.table(Log)

    @app.features(opened, key="gate")
    class Openings:
        """How often a gate was opened."""

        times = hr.count(over="2d")

    @app.features(closed, key="gate")
    class Closings:
        """How often a gate was closed."""

        times = hr.count(over="2d")

    library = app.collection("library", logs, text=["body"], embed="hash", index="memory:")

    @app.context()
    def state(gate: str):  # type: ignore[no-untyped-def]
        """All that is known of a gate."""
        yield Closings(gate)  # type: ignore[call-arg]  # to mypy a decorated class stays one
        yield library.search("lower gate number", k=1)
        yield Openings(gate)  # type: ignore[call-arg]

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


def test_no_pack_of_one_point_breaks_the_order() -> None:
    with lock().open() as live:
        packs: list[hr.Pack] = []
        failed: list[BaseException] = []
        read = threading.Event()
        first = write(live, 1)
        live.context("state", gate="lower", after=first, timeout=WAIT)

        def keep() -> None:
            token = first
            try:
                for number in count(2):
                    if read.is_set():
                        break
                    token = write(live, number)
                    if number % 16 == 0:  # no faster than the collection follows
                        live.search("library", "gate", after=token, timeout=WAIT)
                last = live.context("state", gate="lower", after=token, timeout=WAIT)
                assert (seen(last), last.point.consistent) == ((number - 1,) * 3, True)
            except BaseException as error:  # noqa: BLE001 - of a thread; raised below
                failed.append(error)

        def look() -> None:
            try:
                packs.extend(live.context("state", gate="lower") for _ in range(PACKS // READERS))
            except BaseException as error:  # noqa: BLE001 - of a thread; raised below
                failed.append(error)

        writer = threading.Thread(target=keep)
        readers = [threading.Thread(target=look) for _ in range(READERS)]
        for thread in [writer, *readers]:
            thread.start()
        for thread in readers:
            thread.join()
        read.set()
        writer.join()
    assert failed == []
    consistent = [seen(pack) for pack in packs if pack.point.consistent]
    mixed = [seen(pack) for pack in packs if not pack.point.consistent]
    assert len(set(consistent)) > 1  # the writer wrote meanwhile
    print(
        f"{len(consistent)} of {len(packs)} packs ({len(consistent) / len(packs):.1%}) are of one point, up to write "
        f"{max(consistent)[0]:,}; of the others {sum(not is_prefix(*each) for each in mixed)} are mixed"
    )
    assert [each for each in consistent if not is_prefix(*each)] == []
