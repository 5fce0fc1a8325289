"""Errors over HTTP: RFC 9457 problem details, and the way back to an exception in the client.

One table holds each kind of problem with its status and the exception it stands for; the server reads it from left
to right and the client from right to left, so a `StaleError` raised in the server is a `StaleError` in the client.
A `type` is a URN: stable, and never fetched. `detail` is the exception's own message (expected, found, what to do);
the one exception to that is a fault of ours, of which a client is told nothing but where the log has it.
"""

from __future__ import annotations

import http
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.errors import (
    ClosedError,
    ConfigError,
    DecodeError,
    HeadraceError,
    InputError,
    LockedError,
    RemoteError,
    SchemaError,
    StaleError,
    StorageError,
    TooLargeError,
    UnknownNameError,
)
from headrace.stores.disk import is_full

MEDIA_TYPE = "application/problem+json"
_URN = "urn:headrace:problem:"


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its name in the `type` URN, its status, and the exception it stands for (if any)."""

    slug: str
    status: int
    title: str
    error: type[HeadraceError] | None = None


FULL = Kind("storage-full", 507, "The disk is full", StorageError)
INTERNAL = Kind("internal", 500, "The server failed")
UNAUTHORIZED = Kind("unauthorized", 401, "An API key is needed")
FORBIDDEN = Kind("forbidden", 403, "The request was refused")
NOT_FOUND = Kind("not-found", 404, "There is nothing at this address")
NOT_ALLOWED = Kind("method-not-allowed", 405, "This address does not answer that method")
SLOW_BODY = Kind("request-timeout", 408, "The request's body did not come in time")
MEDIA = Kind("unsupported-media-type", 415, "The body's format is not one of those read here", DecodeError)
HEAD_TOO_LARGE = Kind("header-too-large", 431, "The request's header is too large")
BUSY = Kind("busy", 503, "The server has too much to do")

# The first kind whose exception is a base class of what was raised: special ones stand before general ones.
_RAISED = (
    Kind("unknown-name", 404, "Nothing has that name", UnknownNameError),
    Kind("too-large", 413, "Past a stated limit of size", TooLargeError),
    Kind("decode", 400, "The bytes are not of their format", DecodeError),
    Kind("input", 400, "What was sent cannot be used", InputError),
    Kind("stale", 504, "Fresh enough data did not come in time", StaleError),
    Kind("locked", 503, "Another process has the data directory", LockedError),
    Kind("storage", 503, "What holds the data cannot be used", StorageError),
    Kind("closed", 503, "The engine has stopped", ClosedError),
    Kind("schema", 500, "What was declared cannot work", SchemaError),
    Kind("config", 500, "What was declared cannot work", ConfigError),
    Kind("remote", 502, "Another server did not answer as expected", RemoteError),
)
_OTHERS = (FULL, INTERNAL, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, SLOW_BODY, MEDIA, HEAD_TOO_LARGE, BUSY)
KINDS = {kind.slug: kind for kind in (*_RAISED, *_OTHERS)}


class ProblemError(HeadraceError):
    """A refusal that only HTTP has: a missing key, a method that an address does not answer."""

    def __init__(self, kind: Kind, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.headers = headers or {}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The members of RFC 9457, in its order."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""


def kind_of(error: BaseException) -> Kind:
    """The kind of problem that an exception is."""
    if isinstance(error, ProblemError):
        return error.kind
    if isinstance(error, StorageError) and is_full(error):
        return FULL
    for kind in _RAISED:
        if kind.error is not None and isinstance(error, kind.error):
            return kind
    return INTERNAL


def problem_of(error: BaseException, instance: str = "") -> Problem:
    """The problem details of an exception.

    Args:
        error: What was raised. The text of one that is not Headrace's own stays in the server: it may hold data.
        instance: The address that was asked for, or for a fault of ours the number that the log has it under.
    """
    kind = kind_of(error)
    if isinstance(error, HeadraceError):
        detail = str(error)
    else:
        detail = f"the server failed; its log has the reason under {instance}"
    return Problem(_URN + kind.slug, kind.title, kind.status, detail, instance)


def headers_of(error: BaseException) -> list[tuple[bytes, bytes]]:
    """The headers that go with a problem: when to come again, how to prove who you are."""
    headers: dict[str, str] = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    kind = kind_of(error)
    if kind.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    if kind is UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="headrace"'
    if isinstance(error, ProblemError):
        headers |= error.headers
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def error_of(status: int, body: bytes) -> HeadraceError:
    """The exception that an answer's problem details stand for; `RemoteError` if they stand for none of ours."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        text = body[:200].decode("utf-8", "replace").strip()
        return RemoteError(f"expected problem details with status {status}, found {text!r}", status)
    detail = str(problem.get("detail") or problem.get("title") or f"status {status}")
    return error_named(str(problem.get("type", "")).removeprefix(_URN), detail, status)


def error_named(slug: str, detail: str, status: int = 0) -> HeadraceError:
    """The exception of a kind of problem; without a status that was told, its own."""
    kind = KINDS.get(slug)
    if kind is None or kind.error is None or issubclass(kind.error, ConfigError | RemoteError):
        # A server's own configuration is not something that this program declared.
        status = status or (INTERNAL if kind is None else kind).status
        return RemoteError(f"{status}: {detail}", status)
    return kind.error(detail)
