"""Readers beside writers: a write that was acknowledged is seen, and a batch is seen whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

import headrace as hr
from headrace.testing import VirtualClock

START = 1_700_000_000_000_000
PATIENCE = 60.0


class Move(hr.Event):
    account: str
    amount: int
    at: datetime = hr.event_time(unit="us")


def make(clock: object) -> tuple[hr.App, hr.View]:
    app = hr.App("readers", clock=clock, checkpoint="10ms")  # type: ignore[arg-type]
    moves = app.stream(Move)

    @app.features(moves, key="account")
    class Account:
        """An account."""

        moves = hr.count(over="1h", every="1m")
        balance = hr.sum("amount", over="1h", every="1m")
        seen = hr.distinct("amount", over="1h", every="7m")
        newest = hr.last("amount", over="1h", every="7m")

    return app, Account  # type: ignore[return-value]


CLOCKS = pytest.mark.parametrize("clock", ["event", VirtualClock(START)], ids=["event", "virtual"])


def together(*tasks: Callable[[], None]) -> None:
    """Runs tasks in threads of their own, and raises what any of them raises."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is looked for
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a task did not end"
    if errors:
        raise errors[0]


@contextmanager
def beside(task: Callable[[], None], threads: int) -> Iterator[None]:
    """Runs `task` over and over in threads, while the block runs and at least once after it; raises what it raises."""
    done = threading.Event()
    errors: list[BaseException] = []

    def loop() -> None:
        try:
            while not done.is_set():
                task()
            task()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is looked for
            errors.append(error)

    running = [threading.Thread(target=loop) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in running:
            thread.join(PATIENCE)
    if errors:
        raise errors[0]


@CLOCKS
def test_whoever_pushes_reads_what_was_pushed(tmp_path: Path, clock: object) -> None:
    """Several threads, each with an account of its own and an eye on its own tokens."""
    app, account = make(clock)
    rounds = 60

    def life(live: hr.Live, name: str) -> Callable[[], None]:
        def run() -> None:
            for number in range(1, rounds + 1):
                token = live.push(Move, [{"account": name, "amount": number, "at": START + number}])
                row = live.read(account, name, after=token if number % 2 else str(token))
                assert (row.moves, row.balance, row.newest) == (number, number * (number + 1) // 2, number)
                many = live.read_many(account, ["nobody", name], after=token)
                assert many["moves"].to_list() == [0, number]

        return run

    with app.open(tmp_path) as live:
        together(*(life(live, f"a{number}") for number in range(4)))


@CLOCKS
def test_a_read_is_of_one_moment_between_batches(tmp_path: Path, clock: object) -> None:
    """Each batch moves an amount between two accounts, so whoever reads both sees a sum of 0 and as many moves."""
    app, account = make(clock)
    with app.open(tmp_path) as live:

        def look() -> None:
            both = live.read_many(account, ["from", "to"])
            assert both["balance"].sum() == 0
            assert both["moves"][0] == both["moves"][1]
            # Of one key: the balance, the number and the last amount are of the same events; amounts are 1, 2, 3, …
            one = live.read(account, "to")
            if one.moves:
                assert one.balance == one.moves * (one.moves + 1) // 2
                assert one.seen == one.newest == one.moves

        with beside(look, threads=3):
            for number in range(1, 301):
                at = START + number
                live.push(
                    Move,
                    [
                        {"account": "from", "amount": -number, "at": at},
                        *({"account": f"x{number}-{other}", "amount": 1, "at": at} for other in range(number % 40)),
                        {"account": "to", "amount": number, "at": at},
                    ],
                )
        row = live.read(account, "to")
        assert row.moves <= 300
        live.drain()
        assert live.read(account, "to").moves == 300


def test_reading_keys_that_are_only_just_being_made() -> None:
    """A reader that asks for keys before, while and after they come into being sees them empty or whole."""
    app, account = make("event")
    with app.open() as live:
        asked = [f"k{number}" for number in range(0, 20_000, 7)]

        def look() -> None:
            for name in asked[::97]:
                assert live.read(account, name).moves in (0, 2)
            assert set(live.read_many(account, asked)["moves"]) <= {0, 2}

        with beside(look, threads=2):
            for first in range(0, 20_000, 500):
                live.push(
                    Move,
                    [
                        {"account": f"k{number}", "amount": 1, "at": START}
                        for number in range(first, first + 500)
                        for _ in range(2)
                    ],
                )
        live.drain()
        assert live.read_many(account, asked)["moves"].to_list() == [2] * len(asked)


def test_keys_that_go_while_they_are_read() -> None:
    """On event time each batch is an hour and more after the last: keys are let go of, and slots used again."""
    app, account = make("event")
    with app.open() as live:

        def look() -> None:
            for row in live.read_many(account, [f"g{number}" for number in range(50)]).rows(named=True):
                assert row["moves"] in (0, 3)
                assert row["balance"] == row["moves"] * int(row["account"][1:])

        with beside(look, threads=2):
            for hour in range(200):
                at = START + hour * 2 * 3_600_000_000
                rows = [
                    {"account": f"g{number}", "amount": number, "at": at}
                    for number in range(50)
                    if (number + hour) % 3
                    for _ in range(3)
                ]
                live.push(Move, rows)
                if hour % 20 == 0:
                    live.drain()
        live.drain()


def test_a_token_sees_the_writes_of_others_before_it() -> None:
    """Positions are in one order: what was acknowledged before a push is seen by whoever waits for that push."""
    app, account = make("event")
    with app.open() as live:
        for number in range(1, 20):
            live.push(Move, [{"account": "a", "amount": number, "at": START}])
        token = live.push(Move, [{"account": "b", "amount": 1, "at": START}])
        assert live.read(account, "a", after=token).moves == 19
        row = live.read(account, "b")
        assert live.read(account, "a", after=row.token).moves == 19


def test_waiting_for_what_does_not_come_is_refused() -> None:
    """A position that was never given out, and an age that no event has."""
    app, account = make("event")
    with app.open() as live:
        token = live.push(Move, [{"account": "a", "amount": 1, "at": START}])
        ahead = hr.Token({"push": token.positions["push"] + 1})
        with pytest.raises(hr.StaleError, match="the engine is not there yet"):
            live.read(account, "a", after=ahead, timeout=0.05)
        with pytest.raises(hr.StaleError, match="there is no event"):
            live.read(account, "b", max_age="1s", timeout=0.05)
        assert live.read(account, "a", max_age="1s").moves == 1


def test_max_age_waits_for_the_event() -> None:
    """A reader that came too early gets the row as soon as the event is there."""
    clock = VirtualClock(START)
    app, account = make(clock)
    with app.open() as live:
        live.push(Move, [{"account": "a", "amount": 1, "at": START}])
        clock.advance("10s")
        found: list[int] = []
        together(
            lambda: found.append(live.read(account, "a", max_age="5s", timeout=PATIENCE).moves),
            lambda: live.push(Move, [{"account": "a", "amount": 1, "at": clock.now()}]) and None,  # type: ignore[func-returns-value]
        )
        assert found == [2]


def test_a_virtual_clock_moves_the_windows() -> None:
    """Nothing has to happen for an event to leave a window but that the clock goes on."""
    clock = VirtualClock(START)
    app, account = make(clock)
    with app.open() as live:
        token = live.push(Move, [{"account": "a", "amount": 1, "at": START}])
        assert live.read(account, "a", after=token).moves == 1
        clock.advance("59m")
        row = live.read(account, "a")
        assert (row.moves, row.age) == (1, 59 * 60.0)
        clock.advance("1m")
        row = live.read(account, "a")
        assert (row.moves, row.age, row.as_of) == (0, None, None)
