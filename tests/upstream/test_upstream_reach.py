"""The way to a model server: TLS whose certificate is checked, and the proxies that the environment names."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripted_upstream import ScriptedUpstream, text

from headrace.errors import ConfigError
from headrace.upstream.client import Server
from headrace.upstream.failures import UpstreamError
from headrace.upstream.pool import Pool
from headrace.upstream.reach import reach
from headrace.upstream.spec import Upstream
from headrace.upstream.wire import Connection

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def host_with_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server for localhost and model.test shows, which is trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headrace test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("model.test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ca.pem").write_bytes(made)
    (tmp_path / "key.pem").write_bytes(made + secret)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "key.pem")
    return context


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def tunnel(port: int, heads: list[str], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that hands on what it gets to a port, after a CONNECT if it begins with one; its own port."""
    tasks = set[Any]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        if heads[-1].startswith("CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(heads[-1].encode())
        await asyncio.gather(piped(reader, back), piped(there, writer))

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        if tasks:
            await asyncio.wait(tasks, timeout=10)
    await asyncio.sleep(0)


async def asked(url: str, times: int = 2) -> list[str]:
    pool = Pool([Upstream(url, connect=5)], health=0)
    said = []
    try:
        for _ in range(times):
            deadline = asyncio.get_running_loop().time() + 20
            answer = await pool.open(
                lambda _: b'{"stream": true, "messages": []}', None, stream=True, prefix=None, deadline=deadline
            )
            try:
                while came := await answer.events():
                    said += [choice["delta"].get("content") or "" for _, one in came for choice in one["choices"]]
            finally:
                await pool.release(answer)
    finally:
        await pool.close()
    return [one for one in said if one]


def test_tls_is_spoken_and_the_certificate_checked(
    host_with_key: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        heads: list[str] = []
        port = int(reach(upstream.url).address[1])
        async with tunnel(port, heads, host_with_key) as found:
            secure = f"https://localhost:{found}/v1"
            assert await asked(secure) == ["yes", "yes"]
            assert len(heads) == 1  # the connection was kept
            with pytest.raises(UpstreamError, match=r"certificate is not valid for '127\.0\.0\.1'"):
                await asked(secure.replace("localhost", "127.0.0.1"))
            monkeypatch.delenv("SSL_CERT_FILE")
            with pytest.raises(UpstreamError, match="certificate verify failed"):
                await asked(secure)

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


def test_plain_http_is_asked_of_the_proxy_by_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        heads: list[str] = []
        port = int(reach(upstream.url).address[1])
        async with tunnel(port, heads) as proxy:
            monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy}")
            assert await asked("http://model.test:8000/v1") == ["yes", "yes"]
        assert heads[0].startswith("POST http://model.test:8000/v1/chat/completions HTTP/1.1\r\nhost: model.test:8000")
        assert "proxy-authorization: Basic bWU6c2VjcmV0\r\n" in heads[0]

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


def test_tls_goes_through_a_tunnel_that_sees_nothing(
    host_with_key: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(upstream: ScriptedUpstream) -> None:
        plain, heads = list[str](), list[str]()
        port = int(reach(upstream.url).address[1])
        async with tunnel(port, plain, host_with_key) as secure, tunnel(secure, heads) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
            assert await asked("https://model.test/v1") == ["yes", "yes"]
        assert heads == ["CONNECT model.test:443 HTTP/1.1\r\nhost: model.test:443\r\n\r\n"]
        assert "POST /v1/chat/completions" in plain[0]

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))


def test_this_machine_is_asked_directly_and_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert reach("http://127.0.0.1:8000/v1").address == ("127.0.0.1", 8000)
    assert reach("http://model.test/v1").address == ("127.0.0.1", 1)
    monkeypatch.setenv("no_proxy", "model.test")
    assert reach("http://model.test/v1").address == ("model.test", 80)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"found one of socks5://") as error:
        Server(Upstream("http://model.test/v1"))
    assert "secret" not in str(error.value)


def test_given_up_at_any_turn_a_tunnel_leaves_nothing(
    host_with_key: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting, asking the proxy, the handshake, the request: each is let go of with its socket."""

    async def run(upstream: ScriptedUpstream) -> None:
        plain, heads = list[str](), list[str]()
        port = int(reach(upstream.url).address[1])
        async with tunnel(port, plain, host_with_key) as secure, tunnel(secure, heads) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
            http = Server(Upstream("https://model.test/v1")).http
            for turns in range(40):
                task = asyncio.create_task(http.ask("POST", "/v1/chat/completions", b"{}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                [found] = await asyncio.gather(task, return_exceptions=True)
                if isinstance(found, Connection):
                    found.abort()
                assert not http.connections

    with ScriptedUpstream(text("yes")) as upstream:
        asyncio.run(run(upstream))
