"""Bodies within bounds of size, time and memory; their formats."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

import headrace as hr
from headrace.serving.body import Bodies, DisconnectedError, format_of, unpacked
from headrace.serving.problems import ProblemError


def receiving(*parts: bytes | None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A body in parts; None: the client goes away. After the last part nothing more comes."""
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": True}
        for part in parts
    ]
    if parts and parts[-1] is not None:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


def read(bodies: Bodies, *parts: bytes | None, headers: Iterable[tuple[bytes, bytes]] = (), limit: int = 0) -> bytes:
    async def whole() -> bytes:
        async with bodies.read(headers, receiving(*parts), limit) as body:
            return bytes(body)

    return asyncio.run(whole())


def test_a_body_comes_whole_however_it_is_cut() -> None:
    bodies = Bodies(100)
    assert [read(bodies, b"abc"), read(bodies, b"a", b"", b"bc"), read(bodies, b"")] == [b"abc", b"abc", b""]


def test_a_stated_length_past_the_limit_is_refused_before_a_byte_is_read() -> None:
    with pytest.raises(
        hr.TooLargeError, match="expected a body of at most 100 bytes, found one of 101; send it in parts"
    ):
        read(Bodies(100), None, headers=[(b"content-length", b"101")])


def test_an_unstated_length_is_counted() -> None:
    with pytest.raises(hr.TooLargeError, match="at most 100 bytes, found more"):
        read(Bodies(100), b"x" * 60, b"x" * 41)


def test_a_length_that_is_a_lie_is_counted_too() -> None:
    with pytest.raises(hr.TooLargeError):
        read(Bodies(100), b"x" * 101, headers=[(b"content-length", b"1")])


def test_a_body_of_exactly_the_limit_is_taken() -> None:
    assert len(read(Bodies(100), b"x" * 100)) == 100


def test_a_route_may_have_a_limit_of_its_own() -> None:
    with pytest.raises(hr.TooLargeError, match="at most 10 bytes"):
        read(Bodies(100), b"x" * 11, limit=10)


def test_a_body_that_does_not_come_is_given_up() -> None:
    bodies = Bodies(100, grace=0.01)
    with pytest.raises(ProblemError, match="expected the body at 64 KiB a second or more") as raised:
        read(bodies)
    assert (raised.value.kind.status, raised.value.headers) == (408, {"connection": "close"})


def test_a_client_that_goes_away_is_not_answered() -> None:
    with pytest.raises(DisconnectedError):
        read(Bodies(100), b"abc", None)


def test_all_bodies_together_have_a_budget() -> None:
    bodies = Bodies(100, total=150)

    async def two() -> None:
        async with bodies.read((), receiving(b"x" * 100)), bodies.read((), receiving(b"x" * 51)):
            pass

    with pytest.raises(ProblemError, match="expected room for this body") as raised:
        asyncio.run(two())
    assert raised.value.kind.status == 503


@pytest.mark.parametrize("parts", [(b"x" * 100,), (b"x" * 60, None), (b"x" * 60, b"x" * 60)])
def test_what_a_body_took_is_given_back_however_it_ended(parts: tuple[bytes | None, ...]) -> None:
    bodies = Bodies(100, total=100)
    with contextlib.suppress(DisconnectedError, hr.TooLargeError):
        read(bodies, *parts)
    assert len(read(bodies, b"x" * 100)) == 100


def test_packed_bodies_are_unpacked() -> None:
    plain = b"abc" * 1000
    packed = {
        b"": plain,
        b"gzip": gzip.compress(plain),
        b"x-gzip": gzip.compress(plain),
        b"deflate": zlib.compress(plain),
    }
    assert {bytes(unpacked(bytearray(data), name, 5000)) for name, data in packed.items()} == {plain}


def test_several_gzip_members_are_one_body() -> None:
    assert unpacked(bytearray(gzip.compress(b"abc") + gzip.compress(b"def")), b"gzip", 100) == b"abcdef"


def test_what_unpacks_to_more_than_the_limit_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    with pytest.raises(hr.TooLargeError, match="at most 1,000 bytes, found one that unpacks to more"):
        unpacked(bytearray(bomb), b"gzip", 1000)


def test_members_count_together() -> None:
    with pytest.raises(hr.TooLargeError):
        unpacked(bytearray(gzip.compress(b"x" * 60) * 2), b"gzip", 100)


@pytest.mark.parametrize(
    "data", [b"not gzip", gzip.compress(b"abc" * 100, mtime=0)[:-9], gzip.compress(b"abc", mtime=0) + b"more"]
)
def test_what_is_not_gzip_is_said(data: bytes) -> None:
    with pytest.raises(hr.DecodeError, match="in gzip, found"):
        unpacked(bytearray(data), b"gzip", 1000)


def test_another_encoding_is_said() -> None:
    with pytest.raises(ProblemError, match="expected the Content-Encoding gzip, deflate or none, found 'br'"):
        unpacked(bytearray(b"x"), b"br", 1000)


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        (b"application/x-ndjson", b"", "ndjson"),
        (b"application/json; charset=utf-8", b'{"a": 1}\n{"a": 2}', "json"),
        (b"Text/CSV", b"[", "csv"),
        (b"application/vnd.apache.parquet", b"", "parquet"),
        (b"", b'[{"a": 1}]', "json"),
        (b"", b' \r\n\t{"a": 1}', "ndjson"),
        (b"", b'\xef\xbb\xbf{"a": 1}', "ndjson"),
        (b"", b'{\n  "a": 1\n}', "json"),
        (b"application/octet-stream", b"PAR1rest", "parquet"),
        (b"application/x-www-form-urlencoded", b'{"a": 1}', "ndjson"),
        (b"text/plain;charset=UTF-8", b'[{"a": 1}]', "json"),
    ],
)
def test_format_is_by_type_or_else_by_how_it_begins(content_type: bytes, data: bytes, expected: str) -> None:
    assert format_of(content_type, data) == expected


def test_format_may_be_asked_for() -> None:
    assert format_of(b"application/json", b"{}", "ndjson") == "ndjson"


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(hr.InputError, match="expected format= to be one of ndjson, json, csv, parquet, found 'xml'"):
        format_of(b"", b"", "xml")


@pytest.mark.parametrize(("content_type", "data"), [(b"application/xml", b"{}"), (b"", b"user,amount\n"), (b"", b"")])
def test_a_body_of_no_known_format_is_told_which_there_are(content_type: bytes, data: bytes) -> None:
    with pytest.raises(ProblemError, match=r"Content-Type application/x-ndjson \(ndjson\)") as raised:
        format_of(content_type, data)
    assert raised.value.kind.status == 415
