"""What a model server, a proxy or a setting may do to the client: each is an error of ours, and no key is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace.errors import ConfigError
from headrace.upstream.client import Answer, Server, begin
from headrace.upstream.failures import UpstreamError
from headrace.upstream.pool import Pool
from headrace.upstream.reach import reach
from headrace.upstream.spec import Upstream, read
from headrace.upstream.wire import MOST_HEAD

CHUNK = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
KEY = "sk-secret-0123456789"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def sized(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-length: %d\r\n" % (status, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def heard(reader: asyncio.StreamReader) -> bytes:
    """A request, read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
    return head + await reader.readexactly(size)


@contextlib.asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """A server that talks as it is told; its URL."""
    tasks = set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        # Cancelled, it just ends: asyncio's streams would log it.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await asyncio.sleep(0)  # the transports' sockets are closed in the loop's next turn


@contextlib.asynccontextmanager
async def server_of(talk: Talk, **options: object) -> AsyncIterator[Server]:
    async with serving(talk) as url:
        server = Server(Upstream(url, **options))  # type: ignore[arg-type]
        try:
            yield server
        finally:
            server.http.close()
            assert server.outstanding == 0


async def ask(server: Server, body: bytes = b"{}", *, stream: bool = True) -> int:
    """Ask and read to the end; how many events came."""
    answer = await begin(server, body, stream=stream)
    return await read_all(answer)


async def read_all(answer: Answer) -> int:
    count = 0
    try:
        while came := await answer.events():
            count += len(came)
    finally:
        answer.close()
    return count


def saying(said: bytes, *, reset: bool = False) -> Talk:
    """Answers every request of a connection with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await heard(reader)
            writer.write(said)
            await writer.drain()
            if reset:
                return

    return talk


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + sized(CHUNK + DONE),
        sized(CHUNK + DONE, b"connection: close") + b"junk that is no HTTP",
        sized(CHUNK + DONE) + sized(b"another answer"),
        sized(CHUNK + DONE) + b"\0\0",
    ],
)
def test_what_stands_before_and_after_an_answer_is_no_part_of_it(said: bytes) -> None:
    async def run() -> None:
        async with server_of(saying(said)) as server:
            assert [await ask(server) for _ in range(3)] == [1, 1, 1]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (b"HTTP/1.1 099 Odd\r\ncontent-length: 5\r\n\r\nhello" + sized(CHUNK + DONE), "status 99"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
        (sized(b'{"choices": []}'), "an answer without a choice"),
        (sized(b"\x1f\x8b\x08", b"content-encoding: gzip"), "in 'gzip'"),
        (sized(b"\x1f\x8b\x08", b"content-encoding: gzip", status=b"500 X"), "in 'gzip'"),
        (sized(CHUNK, b"content-length: 9"), "no HTTP answer"),
        (sized(CHUNK, b"transfer-encoding: chunked"), "no HTTP answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 8_000, "a header of more than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "a header of more than 64 KiB"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "no HTTP answer"),
    ],
)
def test_an_answer_that_is_none_is_refused(said: bytes, match: str) -> None:
    async def run() -> None:
        async with server_of(saying(said)) as server:
            with pytest.raises(UpstreamError, match=match):
                await ask(server, stream=b"choices" not in said[:100])

    asyncio.run(run())


@pytest.mark.parametrize("tail", [b"0\r\nx: ", b"5;x="])
def test_trailers_and_extensions_are_bounded(tail: bytes) -> None:
    """The parser keeps a trailer until it is whole; no part of a body comes, so nothing else stops it."""
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await heard(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK) + tail)
        while sent < 64 << 20:
            writer.write(b"y" * 65_536)
            sent += 65_536
            await writer.drain()

    async def run() -> None:
        async with server_of(talk) as server:
            with pytest.raises(UpstreamError, match="a header of more than 64 KiB"):
                await ask(server)

    asyncio.run(run())
    assert sent < 64 << 20


def test_parts_of_one_byte_are_no_header() -> None:
    body = (CHUNK * 3 + DONE).replace(b'"a"', b'"' + b"a" * MOST_HEAD + b'"')
    said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % one for one in body)

    async def run() -> None:
        async with server_of(saying(said + b"0\r\n\r\n")) as server:
            assert await ask(server) == 3

    asyncio.run(run())


@pytest.mark.parametrize("stream", [True, False])
def test_a_body_that_ends_with_a_reset_is_not_whole(stream: bool) -> None:
    """Without a length the end of the connection is the end of the body, unless it broke."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await heard(reader)
        whole = b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + (CHUNK if stream else whole))
        await writer.drain()
        came.set()
        await go.wait()
        # It lingers for no seconds: the connection is reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def run() -> None:
        nonlocal came, go
        came, go = asyncio.Event(), asyncio.Event()
        async with server_of(talk) as server:
            task = asyncio.ensure_future(ask(server, stream=stream))
            await came.wait()
            while not any(one.status for one in server.http.connections):
                await asyncio.sleep(0)
            go.set()
            with pytest.raises(UpstreamError, match="before the answer's end"):
                await task

    came = go = asyncio.Event()
    asyncio.run(run())


def test_a_connection_whose_request_was_not_read_is_not_used_again() -> None:
    """An early refusal leaves the rest of the request unsent: the next would stand behind it."""
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.readuntil(b"\r\n\r\n")
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(sized(b"{}", status=b"413 Too Large"))
            await asyncio.Event().wait()
        await saying(sized(CHUNK + DONE))(reader, writer)

    async def run() -> None:
        async with server_of(talk) as server:
            with pytest.raises(UpstreamError, match="status 413"):
                await ask(server, b"x" * (32 << 20))
            async with asyncio.timeout(30):
                assert await ask(server) == 1

    asyncio.run(run())
    assert connections == 2


def test_a_server_that_closes_at_the_moment_of_reuse_is_asked_once_more_and_only_if_it_said_nothing() -> None:
    heads = list[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await heard(reader))
        writer.write(sized(CHUNK + DONE))
        heads.append(await heard(reader))
        writer.write(b"" if len(heads) == 2 else b"HTTP/1.1 2")

    async def run() -> None:
        async with server_of(talk) as server:
            assert [await ask(server), await ask(server)] == [1, 1]  # the second found the connection closed
            with pytest.raises(UpstreamError, match="before the answer's end"):
                await ask(server)  # on the new connection, and it had begun to answer

    asyncio.run(run())
    assert len(heads) == 4


def test_idle_connections_are_bounded_and_a_closed_client_makes_no_more() -> None:
    async def run() -> None:
        async with server_of(saying(sized(CHUNK + DONE)), concurrent=2) as server:
            answers = [await begin(server, b"{}", stream=True) for _ in range(5)]
            for one in answers:
                await read_all(one)
            assert len(server.http._idle) <= 2
            late = await begin(server, b"{}", stream=True)
            server.http.close()
            late.close()
            with pytest.raises(UpstreamError, match="the server stops"):
                await ask(server)
            while server.http.connections:
                await asyncio.sleep(0)
            assert not server.http._idle

    asyncio.run(run())


@pytest.mark.parametrize(
    "said",
    [
        sized(b'{"error": {"message": "Incorrect API key: %s"}}' % KEY.encode(), status=b"401 X"),
        sized(b"no such key: %s" % KEY.encode(), status=b"403 X"),
        sized(b"x" * 290 + KEY.encode(), status=b"500 X"),
        sized(b'data: {"error": "%s"}\n\n' % KEY.encode()),
        sized(b"<html>%s\n\n" % KEY.encode()),
        sized(b"<" + b"x" * 50 + KEY.encode() + b"\n\n"),
        sized(b'data: ["%s"]\n\n' % KEY.encode()),
    ],
)
def test_a_server_that_quotes_the_key_does_not_tell_it(
    said: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOSTILE_KEY", KEY)

    async def run() -> None:
        async with serving(saying(said)) as url:
            pool = Pool([Upstream(url, key_env="HOSTILE_KEY")], health=0)
            deadline = asyncio.get_running_loop().time() + 20
            with caplog.at_level("DEBUG"), pytest.raises(UpstreamError) as raised:
                await pool.open(lambda _: b"{}", None, stream=True, prefix=None, deadline=deadline)
            assert KEY[:6] not in str(raised.value)
            assert KEY not in f"{pool.figures()}{pool.servers[0].spec!r}"
            await pool.close()

    asyncio.run(run())
    assert KEY[:6] not in caplog.text


def test_what_a_server_says_stays_one_line_of_a_log() -> None:
    said = sized(b'{"error": {"message": "no\\n2026-01-01 INFO all is well \\u001b[31m"}}', status=b"400 X")

    async def run() -> None:
        async with server_of(saying(said)) as server:
            with pytest.raises(UpstreamError, match="no 2026-01-01 INFO all is well") as raised:
                await ask(server)
            assert str(raised.value).isprintable()

    asyncio.run(run())


def test_a_refusing_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = list[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

    async def run() -> None:
        monkeypatch.setenv("HOSTILE_KEY", KEY)
        async with serving(talk) as url:
            monkeypatch.setenv("https_proxy", url.replace("://", "://me:secret@").removesuffix("/v1"))
            server = Server(Upstream("https://model.test/v1", key_env="HOSTILE_KEY"))
            with pytest.raises(UpstreamError, match="the proxy answered with status 407") as raised:
                await ask(server)
            assert "secret" not in str(raised.value)
            assert not server.http.connections

    asyncio.run(run())
    assert b"proxy-authorization: Basic bWU6c2VjcmV0\r\n" in heads[0]
    assert KEY.encode() not in b"".join(heads)


@pytest.mark.parametrize(
    "url",
    [
        "http://h:99999/v1",
        "http://h:x/v1",
        "http://h:0/v1",
        "http://[x/v1",
        "http://h/v1 HTTP/1.1",
        "http://h/v1\r\nx: y",
        "http://h\0/v1",
        "http://münchen.de/v1",
        "http://h/vé",
        "http://me:secret@[x/v1",
        "http://me:secret@h:x/v1?a=secret#secret",
    ],
)
def test_a_url_that_would_break_a_request_is_refused(url: str) -> None:
    for make in (Upstream, read):
        with pytest.raises(ConfigError) as raised:
            make(url)
        assert "secret" not in str(raised.value)


def test_a_health_that_would_break_a_request_is_refused() -> None:
    with pytest.raises(ConfigError, match="health to be a path"):
        Upstream("http://h/v1", health="models HTTP/1.1\r\nx: y")


@pytest.mark.parametrize(
    "proxy", ["http://me:sec/ret@px:80", "http://me:secret@px:sec", "http://[me:secret", "http://"]
)
def test_a_proxy_that_is_no_url_is_an_error_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError, match="http://host:port") as raised:
        reach("http://model.test/v1")
    assert "sec" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_certificates_that_are_not_there_are_an_error_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        reach("https://model.test/v1")


def test_a_host_that_cannot_be_is_a_failed_connection() -> None:
    async def run() -> None:
        server = Server(Upstream("http://a..b/v1"))
        with pytest.raises(UpstreamError, match=r"UnicodeError|UnicodeEncodeError|gaierror"):
            await ask(server)
        pool = Pool([Upstream("http://a..b/v1")], health=0.01)
        pool.start()
        async with asyncio.timeout(10):
            while pool.servers[0].healthy:
                await asyncio.sleep(0)
        assert pool._checks is not None
        assert not pool._checks.done()
        await pool.close()

    asyncio.run(run())
