"""What can happen to a Redis server, and to those who use it: nothing is lost, nothing wrong is read, nobody hangs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from redis_shop import FOREVER, PATIENCE, TOTALS, answers, engine, reader, rows_of, total, until

import headrace as hr
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.stores.online.base import Progress
from headrace.stores.online.redis_cleaner import Cleaner
from headrace.stores.online.redis_link import link
from headrace.stores.online.redis_url import parse
from headrace.stores.online.redis_wire import SLACK
from headrace.testing import VirtualClock
from headrace.testing.stores import SALES, START, sales
from headrace.units import MINUTE, SECOND
from services.redis import RedisServer, Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Valkey that keeps what it acknowledges."""
    with Valkey(tmp_path / "valkey", save="aof") as started:
        yield started


# -- expiry ------------------------------------------------------------------------------------------------------------


def test_keys_live_as_long_as_their_rows_are_read_and_a_little_longer(server: RedisServer) -> None:
    """Given when a key gets a new tile, and not at every write."""
    now = time.time_ns() // 1000 // MINUTE * MINUTE
    most = (11 * MINUTE + SLACK) / 1000
    with engine(server.url) as one:
        one.take(sales([{"at": now}]))
        key = rows_of(server)
        assert most - 60_000 < server.client.pttl(key) <= most
        server.client.persist(key)
        one.take(sales([{"at": now + 1}]))
        assert server.client.pttl(key) == -1
        one.take(sales([{"at": now + MINUTE}]))
        assert most - 60_000 < server.client.pttl(key) <= most + 60_000
        server.client.persist(key)
        one.take(sales([{"at": now - MINUTE}]))
        one.store.beat(one.progress())
        assert total(one.store, now=now + MINUTE) == 4.0


def test_a_tile_of_the_future_lives_until_it_is_past(server: RedisServer) -> None:
    """An event may be stamped a day ahead, and is read then."""
    now = time.time_ns() // 1000
    with engine(server.url) as one:
        one.take(sales([{"at": now + 24 * 60 * MINUTE}]))
        assert server.client.pttl(rows_of(server)) > 24 * 60 * MINUTE / 1000


def test_rows_on_event_time_and_those_for_ever_do_not_end(server: RedisServer) -> None:
    """The server's clock says nothing of them."""
    for view, expires in ((TOTALS, False), (FOREVER, True)):
        server.client.flushall()
        with engine(server.url, view, expires=expires) as one:
            one.take(sales([{"at": START}]))
            assert server.client.pttl(rows_of(server)) == -1


def test_what_is_let_go_of_is_removed(server: RedisServer) -> None:
    """Tile by tile, and the key with its last one."""
    with engine(server.url, expires=False) as one:
        one.take(sales([{"at": START + minute * MINUTE} for minute in range(5)]))
        key = rows_of(server)
        one.let_go(START + 12 * MINUTE)
        assert server.client.hlen(key) == 2
        one.let_go(START + 30 * MINUTE)
        assert server.client.exists(key) == 0


def test_rows_of_earlier_runs_are_removed(server: RedisServer) -> None:
    """And nothing else: not other apps' keys, nor those of a run that is yet to come."""
    server.client.hset("hr:shop2:sales:0:a", "f", "v")
    server.client.hset("hr:shop:sales:zzzzzzzzzzzz:a", "f", "v")
    for _ in range(2):
        with engine(server.url, expires=False) as one:
            one.take(sales([{"shop": f"s{n}", "at": START} for n in range(3_000)]))
            writer = one.store._writer  # type: ignore[attr-defined]
    cleaner = Cleaner(link(parse(server.url)), "shop", writer.epoch, grace=0.0)
    cleaner.start()
    cleaner.join(PATIENCE)
    assert cleaner.removed == 3_000
    assert len(server.client.keys("hr:shop*:a")) == 2
    with reader(server.url) as store:
        assert total(store, "s2999") == 1.0


# -- loss --------------------------------------------------------------------------------------------------------------


def test_a_server_that_comes_back_empty_is_written_again(tmp_path: Path) -> None:
    """Until then a reader is told that there is nothing, and never that everything is zero."""
    with Valkey(tmp_path / "v") as server, engine(server.url) as one, reader(server.url) as store:
        one.take(sales([{"at": START, "amount": 5.0}, {"shop": "b", "at": START}]))
        assert total(store) == 5.0
        server.restart()
        with pytest.raises(StorageError, match="no engine has written"):
            total(store)
        one.take(sales([{"shop": "b", "at": START}]))
        assert [total(store, key) for key in ("a", "b")] == [5.0, 2.0]


def test_an_emptied_server_is_noticed_without_any_event(server: RedisServer) -> None:
    """The engine's word, which it gives once a second, finds that the last one is gone."""
    with engine(server.url) as one, reader(server.url) as store:
        one.take(sales([{"at": START}]))
        server.client.flushall()
        one.store.beat(one.progress())
        one.store.beat(one.progress())
        assert total(store) == 1.0


def test_a_server_that_comes_back_older_is_written_again(tmp_path: Path) -> None:
    """From a copy of some time ago, as a failover to a slow replica gives it too."""
    with Valkey(tmp_path / "v") as server, engine(server.url) as one, reader(server.url) as store:
        one.take(sales([{"at": START}, {"shop": "b", "at": START}]))
        server.client.save()
        one.take(sales([{"at": START, "amount": 10.0}]))
        server.restart()
        assert total(store) == 1.0
        one.take(sales([{"shop": "b", "at": START}]))
        assert [total(store, key) for key in ("a", "b")] == [11.0, 2.0]


@pytest.mark.parametrize("save", ["aof", ""])
def test_kills_under_load_lose_nothing(tmp_path: Path, save: str) -> None:
    """The engine writes on; at five moments the server is killed and started again, with what it had or empty."""
    rng = random.Random(7)
    with Valkey(tmp_path / "v", save=save) as server, engine(server.url, SALES) as one:
        stop = threading.Event()
        failed: list[BaseException] = []

        def write() -> None:
            number = 0
            try:
                while not stop.is_set():
                    rows = [
                        {"shop": f"s{rng.randrange(300)}", "what": "ab"[n % 2], "at": START + number * SECOND + n}
                        for n in range(200)
                    ]
                    one.take(sales(rows))
                    number += 1
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failed.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(5):
            before = one.rows
            until(lambda before=before: one.rows > before + rng.randrange(200, 4_000) or bool(failed), "writes go on")
            server.restart()
        stop.set()
        thread.join(PATIENCE)
        assert not failed
        machine, keys = one.machines["sales"], [f"s{n}" for n in range(300)]
        for now in (one.newest or START, (one.newest or START) + 5 * MINUTE):
            expected = [repr(machine.read(key, now)) for key in keys]
            assert [repr(one.store.read("sales", key, now)) for key in keys] == expected


# -- out of reach ------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_named_at_once(server: RedisServer) -> None:
    """Reads fail within the time-out, by the host's name, and go on when it is back."""
    with engine(server.url) as one, reader(server.url) as store:
        one.take(sales([{"at": START}]))
        assert total(store) == 1.0
        server.kill()
        begun = time.monotonic()
        with pytest.raises(StorageError, match=f"127.0.0.1:{server.port}"):
            total(store)
        assert time.monotonic() - begun < 1.5
        assert "cannot be used" in (store.problem() or "")
        server.start()
        until(lambda: answers(store), "the store recovers")
        assert (total(store), store.problem()) == (1.0, None)


def test_a_server_that_does_not_answer_costs_the_time_out(server: RedisServer) -> None:
    """Also when more ask than there are connections."""
    url = server.url + "?timeout=200ms&connections=2"
    with engine(server.url) as one, reader(url) as store:
        one.take(sales([{"at": START}]))
        total(store)
        server.freeze()
        begun = time.monotonic()
        failures: list[StorageError] = []

        def ask() -> None:
            with pytest.raises(StorageError) as error:
                total(store)
            failures.append(error.value)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        server.thaw()
        assert len(failures) == 6
        assert time.monotonic() - begun < 1.5
        until(lambda: answers(store), "the store recovers")


def test_the_stream_waits_for_the_server(server: RedisServer) -> None:
    """A write returns when it is done, not before."""
    with engine(server.url) as one:
        one.take(sales([{"at": START}]))
        server.kill()
        thread = threading.Thread(target=one.take, args=(sales([{"at": START}]),))
        thread.start()
        until(lambda: one.store.problem() is not None, "the problem is told")  # type: ignore[attr-defined]
        assert thread.is_alive()
        server.start()
        thread.join(PATIENCE)
        assert (total(one.store), one.store.problem()) == (2.0, None)  # type: ignore[attr-defined]


def test_a_closing_engine_does_not_wait(tmp_path: Path) -> None:
    """It never reached the server, and ends; the next start writes everything."""
    server = Valkey(tmp_path / "v")
    with engine(server.url) as one:
        thread = threading.Thread(target=one.take, args=(sales([{"at": START}]),))
        thread.start()
        until(lambda: one.store.problem() is not None, "the problem is told")  # type: ignore[attr-defined]
        one.store.give_up()  # type: ignore[attr-defined]
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_waiting_for_word_ends_with_the_store(server: RedisServer) -> None:
    """Whoever listens is told, and does not wait for the time it had."""
    with engine(server.url) as one, reader(server.url) as store:
        one.take(sales([{"at": START}]))
        store.progress()
        ended: list[BaseException] = []

        def listen() -> None:
            try:
                while True:
                    store.progress(PATIENCE)
            except ClosedError as error:
                ended.append(error)

        thread = threading.Thread(target=listen)
        thread.start()
        store.close()
        thread.join(PATIENCE)
        assert len(ended) == 1
        with pytest.raises(ClosedError):
            total(store)


# -- who may ----------------------------------------------------------------------------------------------------------


def test_a_password_is_used_and_never_shown(tmp_path: Path) -> None:
    """The wrong one, and none, are answered by what to mend."""
    with Valkey(tmp_path / "v", password="correct horse") as server:
        with engine(server.url.replace(" ", "%20")) as one:
            one.take(sales([{"at": START}]))
            assert total(one.store) == 1.0
        for wrong in (server.url.replace("correct horse", "s3cret"), server.url.replace(":correct horse@", "")):
            with reader(wrong) as store, pytest.raises(StorageError, match="refused the user or password") as error:
                total(store)
            assert "s3cret" not in str(error.value)


def test_a_reader_comes_before_the_engine(server: RedisServer) -> None:
    """It is told so, and reads once there is something to read."""
    with reader(server.url) as store:
        with pytest.raises(StorageError, match="no engine has written the app 'shop' to redis://127"):
            total(store)
        with engine(server.url) as one:
            one.store.beat(one.progress())  # type: ignore[attr-defined]
            assert total(store) == 0.0
            one.take(sales([{"at": START}]))
            assert total(store) == 1.0


def test_one_that_only_reads_cannot_write(server: RedisServer) -> None:
    """And has nothing to say of progress."""
    with reader(server.url) as store:
        store.beat(Progress())
        with pytest.raises(ConfigError, match="only reads"):
            store.write([], lambda: (), Progress())


def test_rows_that_others_have_changed_are_refused(server: RedisServer) -> None:
    """Rather than counted."""
    with engine(server.url) as one:
        one.take(sales([{"at": START}]))
        server.client.hset(rows_of(server), "0.1", b"not a row")
        with pytest.raises(StorageError, match="the online store"):
            total(one.store)


def test_a_refused_read_says_why(server: RedisServer) -> None:
    """Another program's value under the same name."""
    with engine(server.url) as one:
        one.take(sales([{"at": START}]))
        key = rows_of(server)
        server.client.set(key, "text")
        with pytest.raises(StorageError, match="refused a read: WRONGTYPE"):
            total(one.store)


# -- several writers ---------------------------------------------------------------------------------------------------


def test_several_writers_are_read_once_all_have_written(server: RedisServer) -> None:
    """Each holds some of the keys; restarted, they go on under the same names."""
    with engine(server.url, writer=0, writers=2) as left, engine(server.url, writer=1, writers=2) as right:
        left.take(sales([{"shop": "l", "at": START}]))
        with reader(server.url) as store:
            with pytest.raises(StorageError, match="no engine has written"):
                total(store, "l")
            right.take(sales([{"shop": "r", "at": START}] * 2))
            assert [total(store, key) for key in "lr"] == [1.0, 2.0]
            assert store.progress().seen == {"push": 1}
    with reader(server.url) as store, engine(server.url, writer=0, writers=2) as left:
        left.take(sales([{"shop": "l", "at": START}] * 5))
        assert [total(store, key) for key in "lr"] == [5.0, 2.0]


def test_of_two_that_are_the_same_writer_the_later_one_stays(server: RedisServer) -> None:
    """By when they started."""
    with engine(server.url, writer=0, writers=2) as old, engine(server.url, writer=0, writers=2) as new:
        old.take(sales([{"at": START}]))
        new.take(sales([{"at": START}]))
        with pytest.raises(StorageError, match="another writer 0"):
            old.take(sales([{"at": START}]))
        new.take(sales([{"at": START}]))


# -- the whole ---------------------------------------------------------------------------------------------------------


class Sale(hr.Event):
    shop: str
    amount: float
    at: datetime = hr.event_time(unit="us")


def test_a_total_falls_to_nothing_when_events_stop(server: RedisServer) -> None:
    """Through the app, by a clock that the test moves: no event comes, and what Redis holds does not change."""
    clock = VirtualClock(START)
    app = hr.App("shop", clock=clock, online=server.url)
    stream = app.stream(Sale)

    @app.features(stream, key="shop")
    class Takings:
        total_10m = hr.sum("amount", over="10m", every="1m")

    with app.open() as live:
        token = live.push(stream, [{"shop": "a", "amount": 1.0, "at": START - minute * MINUTE} for minute in range(10)])
        found = [live.read(Takings, "a", after=token).total_10m]
        for _ in range(10):
            clock.advance("1m")
            found.append(live.read(Takings, "a").total_10m)
        assert found == [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
