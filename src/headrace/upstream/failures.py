"""What can go wrong with a model server, with what the pool and a caller have to know of it."""

from __future__ import annotations

from headrace.errors import RemoteError


class UpstreamError(RemoteError):
    """A model server refused, failed, stalled, or sent what cannot be read.

    Attributes:
        status: What a client of ours is told: 4xx is its own request's fault, 502 the server's, 503 none is there,
            504 it took too long.
        again: Whether the same request may be sent again, here or elsewhere.
        harmful: Whether it speaks against the server's health.
        retry_after: Seconds after which it may be tried again, or None.
        code: A word for programs.
    """

    def __init__(
        self,
        message: str,
        status: int = 502,
        *,
        again: bool = True,
        harmful: bool = True,
        retry_after: float | None = None,
        code: str = "upstream_error",
    ) -> None:
        super().__init__(message, status)
        self.again = again
        self.harmful = harmful
        self.retry_after = retry_after
        self.code = code


class QueueFullError(RemoteError):
    """There is no room for a request, or not within its time.

    Attributes:
        retry_after: Seconds after which there may be.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message, 429)
        self.retry_after = retry_after


def malformed(where: str, found: str) -> UpstreamError:
    """Of bytes that are not what OpenAI documents."""
    return UpstreamError(
        f"{where}: expected an answer as OpenAI's API documents it, found {found}; look at that server",
        code="upstream_malformed",
    )


def slow(where: str, what: str, seconds: float) -> UpstreamError:
    """Of a server that took too long."""
    return UpstreamError(
        f"{where}: expected {what} within {seconds:g} s, found none; the server is stuck or has too much to do",
        504,
        code="upstream_timeout",
    )


def broken(where: str, error: BaseException) -> UpstreamError:
    """Of a connection that could not be made, or broke."""
    return UpstreamError(
        f"{where}: expected a connection that holds, found {type(error).__name__}: {error}", code="upstream_connection"
    )
