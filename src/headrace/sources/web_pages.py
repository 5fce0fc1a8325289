"""What is known of a page between two visits, and what a visit makes of it: a row, an end, a dead letter, or nothing.

The rules are those of a reader who is away often: an answer that says nothing of the page (a server that is down, too
busy or asks for a password) changes nothing; a page that is no longer there is deleted when that is certain; a page
that can no longer be read as text is deleted too, and says so in the dead letters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
import xxhash

from headrace.cdc import Change
from headrace.errors import InputError, MissingDependencyError, StorageError, TooLargeError
from headrace.formats.text import Extracted, extract
from headrace.registry import shown_url
from headrace.sources.base import Letter, Trace
from headrace.sources.web_fetch import Answer
from headrace.sources.web_links import Link
from headrace.sources.web_url import WebOptions
from headrace.units import SECOND, to_micros

DAY = 86_400.0
_FIRST = 5.0  # seconds after the first failure; doubled by each
_RAW = 1 << 16


class Fetching(Protocol):
    """What gets a page; see `web_fetch.Fetcher.get`."""

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer: ...


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page as it was told last, and when to ask again.

    Attributes:
        next: When to ask, seconds since the Unix epoch.
        etag: Of the last answer.
        modified: Its Last-Modified.
        hash: Of the row that was told; empty if there is none.
        gone: How often in a row it was not there.
        failures: How often in a row nothing was learnt.
        letter: Of the reason that was set aside last, so that it is once.
        changed: What a feed or sitemap said of its last change, when it was read.
        title: What a feed calls it.
        published: When, by a feed, it was published (ISO 8601).
    """

    next: float = 0.0
    etag: str = ""
    modified: str = ""
    hash: str = ""
    gone: int = 0
    failures: int = 0
    letter: str = ""
    changed: str = ""
    title: str = ""
    published: str = ""

    def link(self, url: str) -> Link:
        """What was said of it by what named it, which may name it no more."""
        return Link(url, self.title, datetime.fromisoformat(self.published) if self.published else None, self.changed)


@dataclass(frozen=True)
class Outcome:
    """What came of a visit.

    Attributes:
        url: The page.
        page: What is known now; None if it is forgotten.
        changes: At most one.
        letters: At most one.
    """

    url: str
    page: Page | None
    changes: Sequence[Change] = ()
    letters: Sequence[Letter] = ()

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.changes and not self.letters


def visit(fetcher: Fetching, options: WebOptions, link: Link, page: Page) -> Outcome:
    """Ask for a page and compare it with what is known of it."""
    asked: dict[str, str] = {}
    if page.hash and page.etag:
        asked["If-None-Match"] = page.etag
    if page.hash and page.modified:
        asked["If-Modified-Since"] = page.modified
    try:
        answer = fetcher.get(link.url, asked)
    except StorageError:
        return Outcome(link.url, later(page, options, None))
    except TooLargeError as error:
        return _unreadable(options, link, page, str(error), b"")
    except InputError as error:
        return _refused(options, link, page, str(error))
    every = options.every / SECOND
    published = link.published.isoformat() if link.published else ""
    known = replace_page(page, changed=link.changed, title=link.title, published=published)
    known = replace_page(known, next=_next(answer, every), failures=0, gone=0)
    if answer.status == 304:
        return Outcome(link.url, known)
    if answer.status == 200:
        return _read(options, link, known, answer)
    if answer.status in (404, 410):
        return _gone(options, link, page, answer.status)
    if answer.status >= 500 or answer.status in (408, 425, 429):
        return Outcome(link.url, later(page, options, answer))
    return _refused(options, link, page, f"expected {shown_url(link.url)} to be open, found status {answer.status}")


def replace_page(page: Page, **changed: Any) -> Page:
    """The page with some of what is known changed."""
    return msgspec.structs.replace(page, **changed)


def later(page: Page, options: WebOptions, answer: Answer | None) -> Page:
    """Nothing was learnt: ask again, less and less often, and not before the server wants to be asked."""
    wait = min(_FIRST * 2 ** min(page.failures, 20), max(options.every / SECOND, _FIRST), DAY)
    asked = retry_after(answer.headers) if answer else 0.0
    return replace_page(page, next=time.time() + max(wait, min(asked, DAY)), failures=page.failures + 1)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to be left alone."""
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said[:9])
    try:
        return max((parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _next(answer: Answer, every: float) -> float:
    """When an answer may be old: not before `every`, and not while the server says that it is good, a day at most."""
    said = answer.headers.get("cache-control", "").lower()
    age = answer.headers.get("age", "")
    good = re.search(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", said)
    seconds = float(good[1]) if good and not re.search(r"no-(?:cache|store)", said) else 0.0
    seconds -= float(age[:9]) if age.isdigit() else 0.0
    return time.time() + max(every, min(seconds, DAY))


def _read(options: WebOptions, link: Link, page: Page, answer: Answer) -> Outcome:
    kind = answer.headers.get("content-type", "").strip() or "application/octet-stream"
    try:
        text = extract(answer.body, path_or_type=kind, url=answer.url, most_bytes=options.most_bytes)
    except (InputError, MissingDependencyError) as error:
        return _unreadable(options, link, page, str(error), answer.body)
    row = _row(link, answer, text)
    content = msgspec.json.encode([row[name] for name in ("url", "title", "text", "format", "published", "language")])
    hashed = xxhash.xxh3_128_hexdigest(content)
    known = replace_page(
        page,
        etag=answer.headers.get("etag", "")[:500],
        modified=answer.headers.get("last-modified", "")[:100],
        hash=hashed,
        letter="",
    )
    if hashed == page.hash:
        return Outcome(link.url, known)
    row["fetched"] = fetched = datetime.now(UTC)
    at = to_micros(fetched)
    return Outcome(link.url, known, [Change("upsert", row, at=at, origin=f"{link.url}@{hashed}", source=answer.url)])


def _row(link: Link, answer: Answer, text: Extracted) -> dict[str, Any]:
    published = link.published
    if published is None and "date" in text.metadata:
        try:
            published = datetime.fromisoformat(str(text.metadata["date"]))
            published = published if published.tzinfo else published.replace(tzinfo=UTC)
        except ValueError:
            published = None
    # Without a name of its own a page is called by the last part of its URL, which a feed's title is better than.
    own = text.title if text.title != answer.url.partition("?")[0].rpartition("/")[2] else ""
    return {
        "id": link.url,
        "url": answer.url,
        "title": own or link.title or text.title,
        "text": text.text,
        "format": text.format,
        "published": published,
        "language": text.language,
    }


def _gone(options: WebOptions, link: Link, page: Page, status: int) -> Outcome:
    """Not there: believed when it was said often enough."""
    gone = page.gone + 1
    every = options.every / SECOND
    certain = status == 410 or gone >= options.confirmations
    known = replace_page(page, gone=gone, next=time.time() + (every if certain else min(every, 60.0)), failures=0)
    if not (certain and page.hash):
        return Outcome(link.url, known)
    return Outcome(link.url, replace_page(known, hash="", etag="", modified=""), [deleted(link.url)])


def deleted(url: str) -> Change:
    """The end of a page's row."""
    at = time.time_ns() // 1000
    return Change("delete", key={"id": url}, at=at, origin=f"{url}@deleted", source=url)


def _refused(options: WebOptions, link: Link, page: Page, reason: str) -> Outcome:
    """It may not be fetched: what is known of it stays."""
    hashed = xxhash.xxh3_64_hexdigest(reason.encode("utf-8", "replace"))
    known = replace_page(page, next=time.time() + max(options.every / SECOND, _FIRST), letter=hashed, failures=0)
    letters = [] if page.letter == hashed else [_letter(link.url, reason, b"", hashed)]
    return Outcome(link.url, known, (), letters)


def _unreadable(options: WebOptions, link: Link, page: Page, reason: str, body: bytes) -> Outcome:
    """It is no text: its row goes."""
    hashed = xxhash.xxh3_64_hexdigest(body or reason.encode("utf-8", "replace"))
    due = time.time() + options.every / SECOND
    known = Page(next=max(page.next, due), letter=hashed, changed=link.changed)
    letters = [] if page.letter == hashed else [_letter(link.url, reason, body, hashed)]
    return Outcome(link.url, known, [deleted(link.url)] if page.hash else [], letters)


def _letter(url: str, reason: str, body: bytes, hashed: str) -> Letter:
    return Letter(reason, Trace(f"{shown_url(url)}@{hashed}", body[:_RAW]))
