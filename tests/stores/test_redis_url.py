"""The URLs of Redis, the names of keys, and the bytes of commands: no server is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.changes import Rows
from headrace.errors import ConfigError, StorageError
from headrace.stores.online.base import Progress
from headrace.stores.online.redis_meta import Meta, RunRecord, parse_progress, parse_run, start_of
from headrace.stores.online.redis_url import parse
from headrace.stores.online.redis_wire import (
    SLACK,
    base36,
    generation,
    key_bytes,
    meta_key,
    pack,
    prefix,
    row_commands,
)
from headrace.units import SECOND


def test_one_server() -> None:
    target = parse("redis://db.example:7000/3")
    assert (target.mode, target.hosts, target.db) == ("single", (("db.example", 7000),), 3)
    assert (target.username, target.password, target.tls, target.timeout) == (None, None, None, 1.0)


def test_what_is_left_out_is_as_usual() -> None:
    target = parse("valkey://")
    assert (target.hosts, target.db, target.connections) == ((("localhost", 6379),), 0, 16)


def test_a_cluster_and_sentinels() -> None:
    cluster = parse("rediss+cluster://a:1,b:2,[::1]:3")
    assert (cluster.mode, cluster.hosts) == ("cluster", (("a", 1), ("b", 2), ("::1", 3)))
    assert cluster.tls is not None
    sentinel = parse("redis+sentinel://a,b:2/main/5?sentinel_username=watch")
    assert (sentinel.mode, sentinel.hosts) == ("sentinel", (("a", 26379), ("b", 2)))
    assert (sentinel.service, sentinel.db, sentinel.sentinel_username) == ("main", 5, "watch")


def test_credentials_are_read_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    target = parse("redis://ann:p%40ss@host/1?timeout=250ms&connections=4")
    assert (target.username, target.password, target.timeout, target.connections) == ("ann", "p@ss", 0.25, 4)
    assert (target.shown, repr(target)) == ("redis://host/1", "Target(redis://host/1)")
    assert parse(f"redis://host?password_file={secret}").password == "from a file"
    for wrong in ("redis://ann:p%40ss@host/x", "redis://ann:p%40ss@a,b", "redis://ann:p%40ss@host?tiemout=1"):
        with pytest.raises(ConfigError) as error:
            parse(wrong)
        assert "p%40ss" not in str(error.value)
        assert "ann" not in str(error.value)


def test_tls_and_its_files(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    assert parse(f"rediss://host?ca={ca}").tls == {"ssl": True, "ssl_cert_reqs": "required", "ssl_ca_certs": str(ca)}
    with pytest.raises(ConfigError, match="need TLS; write rediss://"):
        parse(f"redis://host?ca={ca}")
    with pytest.raises(ConfigError, match="found none at"):
        parse(f"rediss://host?ca={tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host", "expected a URL such as redis://"),
        ("redis+ring://host", "expected a URL such as redis://"),
        ("redis://host:port", "the port as a whole number"),
        ("redis://host:99999", "the port as a whole number"),
        ("redis://:6379", "expected host or host:port"),
        ("redis://a,b", "for a cluster write redis\\+cluster"),
        ("redis://host/0/1", "at most the database's number"),
        ("redis+cluster://host/1", "a cluster has database 0 only"),
        ("redis+sentinel://host", "expected the service's name"),
        ("redis://host?tiemout=1s", "did you mean 'timeout'"),
        ("redis://host?connections=0", "connections as a whole number from 1"),
        ("redis://host?password_file=/nowhere", "expected a file that can be read"),
    ],
)
def test_what_is_wrong_is_named(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(url)


@given(st.integers(0, 2**63))
def test_a_generation_is_read_back_from_a_key(epoch: int) -> None:
    assert int(base36(epoch), 36) == epoch
    assert generation(prefix("app", "view", epoch) + b"any:key:{}", "app") == epoch


def test_other_keys_are_of_no_generation() -> None:
    others = [meta_key("app"), b"hr:app:progress", b"hr:app2:view:1:k", b"x:app:view:1:k", b"hr:app:view:?:k", b""]
    assert [generation(key, "app") for key in others] == [None] * len(others)


def test_a_key_is_text_or_json() -> None:
    keys = ["ü", "", 7, True, ("a", 1), ("a:b", "c"), ("a", "b:c")]
    found = ["ü".encode(), b"", b"7", b"true", b'["a",1]', b'["a:b","c"]', b'["a","b:c"]']
    assert [key_bytes(key) for key in keys] == found


def test_rows_of_one_key_are_one_command() -> None:
    rows = Rows("v", ["a", "a", "b"], [b"0.1", b"1.1", b"0.1"], [b"x", b"y", b"z"])
    found = list(row_commands(b"p:", rows, None, 0))
    both = pack(b"HSET", b"p:a", b"0.1", b"x", b"1.1", b"y")
    assert found == [(b"p:a", both, 1), (b"p:b", pack(b"HSET", b"p:b", b"0.1", b"z"), 1)]


def test_rows_that_are_gone_are_removed() -> None:
    rows = Rows("v", ["a", "a"], [b"0.1", b"1.1"], None)
    assert list(row_commands(b"p:", rows, 5, 0)) == [(b"p:a", pack(b"HDEL", b"p:a", b"0.1", b"1.1"), 1)]


def test_a_key_that_has_grown_is_given_its_time() -> None:
    """As long as its rows can be read, from the wall clock on; a tile of the future for longer."""
    rows = Rows("v", ["a", "b", "c"], [b"0"] * 3, [b"x"] * 3, [0, 1 * SECOND, 1000 * SECOND])
    found = [packed for _, packed, _ in row_commands(b"", rows, 600 * SECOND, 10 * SECOND)]
    left = b"%d" % ((990 * SECOND + SLACK) // 1000)
    assert found == [
        pack(b"HSET", b"a", b"0", b"x"),
        pack(b"HSET", b"b", b"0", b"x") + pack(b"PEXPIRE", b"b", b"600000"),
        pack(b"HSET", b"c", b"0", b"x") + pack(b"PEXPIRE", b"c", left),
    ]


def test_several_writers_are_as_far_as_the_last_of_them() -> None:
    said = [
        b'5 1 {"seen":{"k":{"0":7,"1":3}},"newest":{"s":10,"t":null},"at":100,"behind":0.5}',
        b'6 1 {"seen":{"k":{"0":5,"2":1},"l":2},"newest":{"s":8,"t":4},"at":90,"behind":2.0}',
    ]
    assert parse_progress(said) == Progress({"k": {"0": 5, "1": 3, "2": 1}, "l": 2}, {"s": 8, "t": 4}, 90, 2.0)
    assert [start_of(one) for one in (*said, b"", b"x")] == [5, 6, 0, 0]


def test_what_another_version_says_is_refused() -> None:
    with pytest.raises(StorageError, match="the same version"):
        parse_run(b'{"rows": 1}')
    with pytest.raises(StorageError, match="the same version"):
        parse_progress([b"nothing like it"])


def test_what_a_run_has_said_is_that_of_its_own_writers() -> None:
    meta = Meta.of([b"claim", b"7 ab", b"at:7:0", b"a", b"at:7:1", b"b", b"at:6:0", b"old"])
    assert meta.said(RunRecord("ab", 7, 2, {})) == (b"a", b"b")
    assert (meta.claim(), meta.run) == ((7, "ab"), None)
