"""Pages over TLS: the connection goes to the address that was judged, and the certificate is checked for the name."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.errors import StorageError
from headrace.sources import web_addresses
from headrace.sources.web_fetch import Fetcher
from headrace.sources.web_url import WebOptions


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for a host that vouches for itself, and it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(pem + secret)
    return folder / "ca.pem", folder / "key.pem"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Path, list[Any]]]:
    """The port of a server for pages.test, what trusts it, and the names that it was called by."""
    called: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            called.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Tests do not read it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that did not trust it."""

    trusted, key = certificate(tmp_path, "pages.test")
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key)
    context.sni_callback = lambda _socket, name, _context: called.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    real = web_addresses.socket.getaddrinfo

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host.endswith(".test") else host, *args, **options)

    monkeypatch.setattr(web_addresses.socket, "getaddrinfo", resolve)
    yield server.server_address[1], trusted, called
    server.shutdown()
    server.server_close()
    thread.join(10)


def fetch(host: str, port: int, trusted: Path | None) -> bytes:
    url = f"https://{host}:{port}/"
    ca = None if trusted is None else str(trusted)
    options = WebOptions(url, delay=0, robots=False, allow_private=True, ca=ca)
    with closing(Fetcher(options, threading.Event())) as fetcher:
        return fetcher.get(url).body


def test_the_name_is_kept_though_the_address_was_resolved_before(served: tuple[int, Path, list[Any]]) -> None:
    port, trusted, called = served
    assert fetch("pages.test", port, trusted) == b"ok"
    assert called == ["pages.test", f"pages.test:{port}"]


@pytest.mark.parametrize(("host", "trusts"), [("other.test", True), ("pages.test", False)])
def test_a_certificate_has_to_be_for_the_name_and_trusted(
    served: tuple[int, Path, list[Any]], host: str, trusts: bool
) -> None:
    port, trusted, _ = served
    with pytest.raises(StorageError, match="certificate verify failed"):
        fetch(host, port, trusted if trusts else None)
