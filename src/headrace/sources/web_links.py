"""Feeds and sitemaps: which pages they name. Both are written by strangers and read within bounds."""

from __future__ import annotations

import calendar
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import feedparser
import lxml.etree

from headrace.errors import InputError, TooLargeError
from headrace.sources.web_url import canonical

MOST_BYTES = 16 << 20
_NAMESPACE = "{http://www.sitemaps.org/schemas/sitemap/0.9}"


@dataclass(frozen=True)
class Link:
    """A page that something names.

    Attributes:
        url: In its normal form.
        title: What it is called there; empty if it is not.
        published: When it was published, as it says there.
        changed: When it changed last, as it says there; compared, never read.
    """

    url: str
    title: str = ""
    published: datetime | None = None
    changed: str = ""


def read_feed(body: bytes, url: str, most: int) -> list[Link]:
    """The entries of a feed (RSS, Atom), newest first as it has them, at most `most`.

    Raises:
        InputError: It is none.
    """
    if len(body) > MOST_BYTES:
        raise TooLargeError(f"expected a feed of at most {MOST_BYTES} bytes, found {len(body)}")
    found = feedparser.parse(io.BytesIO(body), sanitize_html=False, resolve_relative_uris=False)
    if not found.get("version") and not found.entries:
        raise InputError(f"expected a feed, found none ({str(found.get('bozo_exception', 'no entries'))[:100]})")
    links: dict[str, Link] = {}
    for entry in found.entries:
        link = _entry(entry, url)
        if link is not None and len(links) < most:
            links.setdefault(link.url, link)
    return list(links.values())


def _entry(entry: Any, url: str) -> Link | None:
    try:
        where = canonical(str(entry.get("link", "")), url)
    except InputError:
        return None  # an entry without a page, or to another protocol
    published = entry.get("published_parsed") or entry.get("updated_parsed")
    changed = str(entry.get("updated") or entry.get("published") or "")[:100]
    try:
        when = datetime.fromtimestamp(calendar.timegm(published), UTC) if published else None
    except (TypeError, ValueError, OverflowError):
        when = None
    return Link(where, str(entry.get("title", ""))[:500], when, changed)


def read_sitemap(body: bytes, url: str, most: int) -> tuple[list[Link], list[str]]:
    """The pages that a sitemap names, and the sitemaps; at most `most` of each.

    Raises:
        InputError: It is none.
    """
    if body.startswith(b"\x1f\x8b"):
        machine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            body = machine.decompress(body, MOST_BYTES + 1)
        except zlib.error as error:
            raise InputError(f"expected a packed sitemap, found {error}") from None
    if len(body) > MOST_BYTES:
        raise TooLargeError(f"expected a sitemap of at most {MOST_BYTES} bytes, found more; split it")
    pages: dict[str, Link] = {}
    maps: dict[str, None] = {}
    try:
        for element in _elements(body):
            where = _location(element, url)
            if not where:
                pass  # a place that is no page, or of another protocol
            elif element.tag == f"{_NAMESPACE}sitemap" and len(maps) < most:
                maps[where] = None
            elif element.tag == f"{_NAMESPACE}url" and len(pages) < most:
                pages.setdefault(
                    where, Link(where, changed=(element.findtext(f"{_NAMESPACE}lastmod") or "").strip()[:100])
                )
            element.clear()
    except lxml.etree.XMLSyntaxError as error:
        raise InputError(f"expected a sitemap, found broken XML: {error.msg}") from None
    return list(pages.values()), list(maps)


def _location(element: Any, url: str) -> str:
    try:
        return canonical((element.findtext(f"{_NAMESPACE}loc") or "").strip(), url)
    except InputError:
        return ""


def _elements(body: bytes) -> Iterator[Any]:
    tags = (f"{_NAMESPACE}url", f"{_NAMESPACE}sitemap")
    root = True
    for event, element in lxml.etree.iterparse(
        io.BytesIO(body),
        events=("start", "end"),
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
    ):
        if root and element.tag not in (f"{_NAMESPACE}urlset", f"{_NAMESPACE}sitemapindex"):
            raise InputError(f"expected a sitemap, found an XML document of {str(element.tag)[:100]!r}")
        root = False
        if event == "end" and element.tag in tags:
            yield element
