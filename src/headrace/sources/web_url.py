"""What may be said of pages of the web: the URL is the page, feed or sitemap itself, so all else is an option.

app.table(hr.Page, "https://example.org/news/feed.xml", key="id", options={"feed": True, "every": "15m"})
app.table(hr.Page, "https://example.org/a", key="id", options={"pages": ["https://example.org/b"]})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from headrace.document import MOST_BYTES
from headrace.errors import ConfigError, InputError, nearest
from headrace.registry import shown_url
from headrace.sources.web_addresses import is_public
from headrace.units import MILLISECOND, SECOND, duration

AGENT = "headrace"
OPTIONS = (
    "allow_private",
    "ca",
    "confirmations",
    "delay",
    "every",
    "feed",
    "headers",
    "most_bytes",
    "most_pages",
    "pages",
    "robots",
    "sitemap",
    "timeout",
    "user_agent",
)


@dataclass(frozen=True)
class WebOptions:
    """How pages are fetched.

    Attributes:
        url: The page, feed or sitemap, in its normal form.
        pages: More pages.
        feed: Whether the URL is a feed, whose entries' pages are rows.
        sitemap: Whether it is a sitemap, whose pages are rows.
        every: How often to ask for each, in microseconds; seldomer if a server says that its answer stays good.
        delay: Between two requests to a host, in microseconds; longer if its robots.txt says so.
        timeout: For one page, in microseconds, redirects included.
        most_bytes: The largest page, unpacked.
        most_pages: Pages that are kept; of a feed the newest.
        confirmations: How often in a row a page has to be answered with 404 until its row goes; 410 is believed.
        allow_private: Whether addresses that are not public may be connected to.
        robots: Whether robots.txt is obeyed.
        user_agent: The name that requests are made under; robots.txt is read for it.
        headers: Sent to the URL's own host only; they may hold secrets.
        ca: A file of certificates to trust instead of the usual ones.
    """

    url: str
    pages: tuple[str, ...] = ()
    feed: bool = False
    sitemap: bool = False
    every: int = 600 * SECOND
    delay: int = SECOND
    timeout: int = 30 * SECOND
    most_bytes: int = MOST_BYTES
    most_pages: int = 1_000
    confirmations: int = 2
    allow_private: bool = False
    robots: bool = True
    user_agent: str = AGENT
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> WebOptions:
        """Check a URL and the options beside it.

        Raises:
            ConfigError: One of them cannot be used; the message says which and what is expected.
        """
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"{shown_url(url)} has no option {name!r}; {nearest(name, OPTIONS)}")
        pages = options.get("pages", ())
        if isinstance(pages, str) or not isinstance(pages, Sequence):
            raise ConfigError(f"expected pages to be a list of URLs, found {pages!r}")
        given = {name: _checked(name, value) for name, value in options.items() if name != "pages"}
        found = cls(_usable(url), tuple(_usable(each) for each in pages), **given)
        if found.feed and found.sitemap:
            raise ConfigError(f"expected {shown_url(url)} to be a feed or a sitemap, found both; leave one out")
        for each in (found.url, *found.pages):
            if not found.allow_private:
                _refuse_private(each)
        return found


def canonical(url: str, base: str = "") -> str:
    """A URL in its normal form: host in lower case, no default port, no fragment.

    Args:
        url: The URL, or a part of one.
        base: What a part is read against.

    Raises:
        InputError: It is no URL of the web, or holds a password.
    """
    try:
        found = httpx.URL(base).join(url.strip()) if base else httpx.URL(url.strip())
        if found.scheme not in ("http", "https") or not found.host:
            raise InputError(f"expected a URL that begins with https:// or http://, found {shown_url(url)[:200]!r}")
        if found.userinfo:
            raise InputError(
                f"expected no password in {shown_url(url)[:200]}; give it in headers={{'Authorization': …}}"
            )
        return str(found.copy_with(fragment=None, raw_path=found.raw_path or b"/"))
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise InputError(f"expected a URL, found {shown_url(url)[:200]!r} ({error})") from None


def host_of(url: str) -> str:
    """Scheme, host and port: what robots.txt, headers and the pace of requests belong to."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def _usable(url: Any) -> str:
    try:
        return canonical(str(url))
    except InputError as error:
        raise ConfigError(str(error)) from None


def _refuse_private(url: str) -> None:
    """A plain address is judged here already; a name when it is resolved."""
    host = httpx.URL(url).host
    if (host.replace(".", "").isdigit() or ":" in host or host == "localhost") and not is_public(host):
        raise ConfigError(f"expected a public address, found {host}; allow_private=True allows private ones")


def _checked(name: str, value: Any) -> Any:
    if name in ("every", "timeout"):
        return max(duration(value), MILLISECOND)
    if name == "delay":
        return duration(value, zero=True)
    if name in ("most_bytes", "most_pages", "confirmations"):
        most = {"most_bytes": 1 << 30, "most_pages": 10_000, "confirmations": 100}[name]
        if isinstance(value, bool) or not str(value).isdigit() or not 0 < int(value) <= most:
            raise ConfigError(f"expected {name} to be a number from 1 to {most}, found {value!r}")
        return int(value)
    if name in ("allow_private", "feed", "robots", "sitemap"):
        if value not in (True, False, "true", "false"):
            raise ConfigError(f"expected {name} to be True or False, found {value!r}")
        return value in (True, "true")
    if name == "headers":
        if not isinstance(value, Mapping) or not all(_header(str(key), str(each)) for key, each in value.items()):
            raise ConfigError("expected headers to map names to values of one line, found something else")
        return {str(key): str(each) for key, each in value.items()}
    if name == "user_agent" and not (isinstance(value, str) and value and _header("x", value)):
        raise ConfigError(f"expected user_agent to be a name, found {value!r}")
    return value


def _header(name: str, value: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum() and value.isprintable() and (name + value).isascii()
