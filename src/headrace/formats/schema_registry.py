"""A client of a Confluent-compatible schema registry: the schema of a number, and what it refers to.

Only reading is needed, and each schema once: a schema never changes under its number. There are two answers that are
final for a message (its schema is not in the registry, or cannot be had whole) and one that is not (the registry
cannot be asked): the first becomes a reject, the second a StorageError, and the message is read again later.

What comes from outside is bounded in time and in size, and goes only where it was sent: a redirect to another host is
not followed, since the credentials would go with it.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx
import msgspec

from headrace.errors import ConfigError, StorageError
from headrace.formats.verdicts import shorten
from headrace.formats.wire import UnusableError

AUTH_VARIABLE = "HEADRACE_REGISTRY_AUTH"
TIMEOUT = 5.0
MAX_ANSWER = 4 << 20
_MAX_REFERENCES = 200
_ATTEMPT = 3.0
_BACKOFF = 0.1
_REDIRECTS = 3
# Not compressed: a few bytes could become more than fit.
_HEADERS = {"Accept": "application/vnd.schemaregistry.v1+json, application/json", "Accept-Encoding": "identity"}
_UNKNOWN = {40401, 40402, 40403}


@dataclass(frozen=True)
class Registered:
    """A schema of the registry.

    Attributes:
        kind: "AVRO", "PROTOBUF" or "JSON".
        references: The texts of what it refers to, by the names that it calls them by, each before those that
            refer to it.
    """

    number: int
    kind: str
    text: str
    references: Mapping[str, str]


class SchemaRegistry:
    """The registry at a URL.

    Args:
        url: "http://host:8081", with a path if the API is not at the root and with `user:password@` if it asks
            for them; the environment's HEADRACE_REGISTRY_AUTH does as well.
        options: `registry.ca`, `registry.certificate` and `registry.key` are files for TLS, `registry.timeout` is in
            seconds.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        options = options or {}
        self._base, userinfo = _address(url)
        self.name = self._base
        user, _, password = (os.environ.get(AUTH_VARIABLE, "") if userinfo is None else userinfo).partition(":")
        self._auth = httpx.BasicAuth(user, password) if user else None
        self._timeout = _seconds(options.get("registry.timeout"))
        self._tls = _tls(options) if self._base.startswith("https:") else False

    def schema(self, number: int) -> Registered:
        """The schema of that number, and what it refers to.

        Raises:
            UnusableError: It is not in the registry, or cannot be had whole.
            StorageError: The registry cannot be asked.
        """
        deadline = time.monotonic() + self._timeout
        with httpx.Client(auth=self._auth, verify=self._tls, headers=_HEADERS) as client:
            asked = _Asked(client, self._base, deadline)
            answer = asked.get(f"/schemas/ids/{number}", f"schema id {number}")
            references: dict[str, str] = {}
            asked.references(answer, f"schema id {number}", references, ())
            return Registered(number, _kind(answer), _text(answer, f"schema id {number}"), references)


@dataclass
class _Asked:
    """One look-up: its connection, its deadline and how much it has asked for."""

    client: httpx.Client
    base: str
    deadline: float
    requests: int = 0

    def references(self, answer: Any, what: str, found: dict[str, str], above: tuple[str, ...]) -> None:
        """What an answer refers to, added to `found`, the innermost first."""
        listed = answer.get("references") or []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise StorageError(
                f"{self.base}: expected a list of references with {what}, found {shorten(str(listed), 80)}"
            )
        for each in listed:
            name, subject, version = (str(each.get(key, "")) for key in ("name", "subject", "version"))
            where = f"{subject} version {version}"
            if name in found:
                continue
            if where in above or self.requests > _MAX_REFERENCES:
                reason = "refers to itself" if where in above else f"refers to more than {_MAX_REFERENCES} schemas"
                raise UnusableError(f"{what} {reason}")
            path = f"/subjects/{quote(subject, safe='')}/versions/{quote(version, safe='')}"
            inner = self.get(path, f"{where}, which {what} refers to as {name!r},")
            self.references(inner, where, found, (*above, where))
            found[name] = _text(inner, where)

    def get(self, path: str, what: str) -> Any:
        """The answer to a GET, tried again until the deadline."""
        self.requests += 1
        wait = _BACKOFF
        while True:
            problem = ""
            try:
                status, body = self._once(self.base + path)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if status < 500 and status != 429:
                    return self._answer(status, body, what)
                problem = f"it answered {status} {_said(body)}"
            left = self.deadline - time.monotonic()
            if left <= wait:
                raise StorageError(f"the schema registry at {self.base} cannot be asked for {what}: {problem}")
            time.sleep(wait)
            wait = min(wait * 2, 2.0)

    def _once(self, url: str) -> tuple[int, bytes]:
        for _ in range(_REDIRECTS + 1):
            left = max(0.1, min(_ATTEMPT, self.deadline - time.monotonic()))
            with self.client.stream("GET", url, timeout=left) as response:
                if not response.is_redirect:
                    return response.status_code, self._body(response)
                target = response.url.join(response.headers.get("location", ""))
            if (target.scheme, target.host, target.port) != (response.url.scheme, response.url.host, response.url.port):
                raise StorageError(
                    f"the schema registry at {self.base} redirects to {target.host}, which is not followed, since its "
                    "credentials would go there; name that address in registry= if it is meant"
                )
            url = str(target)
        raise StorageError(f"the schema registry at {self.base} redirects more than {_REDIRECTS} times")

    def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > MAX_ANSWER and response.status_code != 200:
                break
            if len(body) > MAX_ANSWER:
                raise UnusableError(
                    f"expected a schema of at most {MAX_ANSWER:,} bytes, the registry sends a longer one"
                )
            if time.monotonic() > self.deadline:
                raise httpx.ReadTimeout("the answer did not end in time")
        return bytes(body)

    def _answer(self, status: int, body: bytes, what: str) -> Any:
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if status == 404 and isinstance(found, dict) and found.get("error_code") in _UNKNOWN:
            raise UnusableError(f"{what} is not in the registry", passing=True)
        if status == 200 and isinstance(found, dict) and isinstance(found.get("schema"), str):
            return found
        hint = {
            401: f"; give user:password in the registry's URL or in {AUTH_VARIABLE}",
            403: "; the user may not read it",
        }.get(status, "; is it the address of a schema registry's API?")
        raise StorageError(
            f"expected {what} from the schema registry at {self.base}, found status {status} {_said(body)}{hint}"
        )


def _kind(answer: Any) -> str:
    return str(answer.get("schemaType") or "AVRO").upper()


def _text(answer: Any, what: str) -> str:
    text: str = answer["schema"]
    if not text.strip():
        raise UnusableError(f"{what} is empty in the registry")
    return text


def _said(body: bytes) -> str:
    return ascii(shorten(body[:400].decode(errors="replace"), 120))


def _address(url: str) -> tuple[str, str | None]:
    """The URL without what must not be shown, and its user and password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        # The URL itself is not shown: it may hold a password.
        raise ConfigError("expected the registry's URL, such as http://127.0.0.1:8081, found one of another form")
    userinfo = None
    if parts.username is not None:
        userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", "")), userinfo


def _seconds(text: str | None) -> float:
    try:
        found = float(text) if text is not None else TIMEOUT
    except ValueError:
        found = 0.0
    if not 0 < found <= 600:
        raise ConfigError(f"expected registry.timeout in seconds, greater than 0 and at most 600, found {text!r}")
    return found


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("registry.ca"))
        if options.get("registry.certificate"):
            context.load_cert_chain(options["registry.certificate"], options.get("registry.key"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"expected PEM files in registry.ca, registry.certificate and registry.key: {error}"
        ) from None
    return context
