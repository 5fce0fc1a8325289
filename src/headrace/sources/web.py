"""Pages, feeds and sitemaps of the web as a table: a row a page, asked for again politely.

A server tells nobody what changed, so it is asked: with the validators of its last answer (ETag, Last-Modified), not
more often than it says that its answer stays good, not faster than its robots.txt allows, and less often while it is
in trouble. A position holds what is known of each page (validators, a hash of the row, when to ask again), so a reader
that goes on asks only what is due; pages that are in the position and in no index any more are deleted then.

A page answers for itself: `web_pages` has what a visit makes of the answer, `web_poll` when visits are made, and
`web_fetch` how. The text of pages is a stranger's and never trusted. `headrace.files.Page` is the model of a row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from headrace.cdc import Change
from headrace.errors import ClosedError, ConfigError, InputError, StorageError
from headrace.registry import shown_url
from headrace.sources.base import Letter
from headrace.sources.tables import Changes
from headrace.sources.web_fetch import Fetcher
from headrace.sources.web_links import Link, read_feed, read_sitemap
from headrace.sources.web_pages import Outcome, Page
from headrace.sources.web_poll import Index, Poller, Whole, as_headrace_error
from headrace.sources.web_url import WebOptions

if TYPE_CHECKING:
    from headrace.document import TableSchema

T = TypeVar("T")

MOST_CHANGES = 200
MOST_SIZE = 8 << 20  # characters of text in a batch
MOST_MAPS = 50  # sitemaps that one may name
SETTLE = 2.0  # seconds that `at_end` waits for what is due


class WebSource:
    """The source behind `https:` and `http:` URLs; see `headrace.sources.web_url` for its options.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._options = WebOptions.parse(url, options)

    def __repr__(self) -> str:
        return f"WebSource({self.name!r})"

    @property
    def name(self) -> str:
        """The URL without its query."""
        return shown_url(self._options.url)

    def open(self, position: Any | None, schema: TableSchema) -> WebReader:
        """Begin after a position; see `TableSource.open`. Servers need not be there yet."""
        return open_pages(self.name, self._options, lambda: _index(self._options), position, schema)


def open_pages(
    name: str, options: WebOptions, index: Callable[[], Index], position: Any | None, schema: TableSchema
) -> WebReader:
    """A reader of the pages that an index names.

    Raises:
        ConfigError: The position is another source's, or the table's key is not `id`.
    """
    if set(schema.key) != {"id"}:
        raise ConfigError(
            f"expected the key of {schema.name!r} to be id, found {', '.join(schema.key)}; all that {name} knows of a "
            "page that is gone is its URL"
        )
    pages, whole = _read_position(position, name)
    return WebReader(name, Poller(options, index(), dict(pages), whole), pages, position is None, whole)


def _read_position(position: Any, name: str) -> tuple[dict[str, Page], bool]:
    if position is None:
        return {}, False
    try:
        return msgspec.convert(position["pages"], dict[str, Page]), bool(position["whole"])
    except (msgspec.ValidationError, TypeError, KeyError) as error:
        raise ConfigError(
            f"expected a position of {name!r}, such as {{'pages': {{URL: {{'next': 0, …}}}}, 'whole': True}}, "
            f"found {str(position)[:200]}; it may be another source's"
        ) from error


class WebReader:
    """One reading of pages; made by `WebSource.open`."""

    def __init__(self, name: str, poller: Poller, pages: dict[str, Page], begins: bool, whole: bool) -> None:
        self._name = name
        self._poller = poller
        self._pages = pages
        self._begins = begins
        self._whole = whole
        self._started = False
        self._lock = threading.Lock()

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`."""
        self._start()
        deadline = time.monotonic() + timeout
        poller = self._poller
        with poller.changed:
            while True:
                self._check_open()
                batch = self._take()
                if batch is not None:
                    return batch
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                poller.changed.wait(left)

    def stored(self, changes: Changes) -> None:
        """Nothing is held for it; see `TableReader.stored`."""

    def lag(self) -> dict[str, int]:
        """Pages that are due; see `TableReader.lag`."""
        return {"pages": self._poller.due()}

    def at_end(self) -> bool:
        """Whether all pages that are due have been visited; waits for them a little. See `TableReader.at_end`."""
        self._check_open()
        self._start()
        return self._poller.settled(SETTLE)

    def close(self) -> None:
        """Visit no more; see `TableReader.close`."""
        self._poller.close()

    def _start(self) -> None:
        with self._lock:
            if not self._started and not self._poller.stop.is_set():
                self._poller.start()
                self._started = True

    def _check_open(self) -> None:
        if self._poller.stop.is_set():
            raise ClosedError(f"the reader of {self._name} is closed; open the source again")

    def _take(self) -> Changes | None:
        """What waits to be read, as a batch; None if there is nothing to tell."""
        waiting = self._poller.waiting
        changes: list[Change] = []
        letters: list[Letter] = []
        size, complete = 0, False
        known: dict[str, Page | None] = {}
        while waiting and len(changes) < MOST_CHANGES and size < MOST_SIZE and not complete:
            item = waiting[0]
            if isinstance(item, Exception):
                if changes or letters:
                    break  # first what was found before
                if isinstance(item, StorageError):  # anything else has ended the thread, and is said again
                    waiting.popleft()
                self._learn(known)
                raise as_headrace_error(item)
            waiting.popleft()
            if isinstance(item, Whole):
                complete = True
                continue
            known[item.url] = item.page
            changes += item.changes
            letters += item.letters
            size += _size(item)
        self._poller.changed.notify_all()  # there is room
        self._learn(known)
        if not (changes or letters or complete):
            return None
        begins, snapshot = self._begins, not self._whole
        self._begins, self._whole = False, self._whole or complete
        at = max((change.at for change in changes if change.at is not None), default=None)
        return Changes(changes, self._position(), snapshot, complete, begins, letters, None, at)

    def _learn(self, known: dict[str, Page | None]) -> None:
        if known:
            pages = self._pages | {url: page for url, page in known.items() if page is not None}
            self._pages = {url: page for url, page in pages.items() if known.get(url, page) is not None}

    def _position(self) -> dict[str, Any]:
        return {"pages": msgspec.to_builtins(self._pages), "whole": self._whole}


def _size(outcome: Outcome) -> int:
    return sum(len(change.row["text"]) for change in outcome.changes if isinstance(change.row, dict))


def _index(options: WebOptions) -> Index:
    if options.feed:
        return _Feed(options)
    return _Sitemap(options) if options.sitemap else _Fixed(options)


class _Fixed:
    """The pages that the options name."""

    keeps = False

    def __init__(self, options: WebOptions) -> None:
        self._links = [Link(url) for url in dict.fromkeys((options.url, *options.pages))]

    def links(self, _fetcher: Fetcher, /) -> list[Link]:
        """Always the same."""
        return self._links


class _Listing(Generic[T]):
    """What is asked for with the validators of its last answer, and kept as it was read then."""

    def __init__(self, options: WebOptions, read: Callable[[bytes, str, int], T]) -> None:
        self._options = options
        self._read = read
        self._kept: dict[str, tuple[dict[str, str], T]] = {}

    def get(self, fetcher: Fetcher, url: str) -> T:
        """The list at a URL.

        Raises:
            InputError: There is none.
        """
        asked, kept = self._kept.get(url, ({}, None))
        answer = fetcher.get(url, asked)
        if answer.status == 304 and kept is not None:
            return kept
        if answer.status != 200:
            raise InputError(f"expected {shown_url(url)} to be a list of pages, found status {answer.status}")
        found = self._read(answer.body, answer.url, self._options.most_pages)
        named = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
        validators = {ask: answer.headers[say] for ask, say in named.items() if say in answer.headers}
        if len(self._kept) > MOST_MAPS:
            self._kept.clear()
        self._kept[url] = validators, found
        return found


class _Feed:
    """A feed: it names the newest only, so what it names no more stays."""

    keeps = True

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        self._listing = _Listing(options, read_feed)

    def links(self, fetcher: Fetcher, /) -> list[Link]:
        """The entries' pages."""
        return self._listing.get(fetcher, self._options.url) + [Link(url) for url in self._options.pages]


class _Sitemap:
    """A sitemap, or a map of sitemaps: what it does not name is gone."""

    keeps = False

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        self._listing = _Listing(options, read_sitemap)

    def links(self, fetcher: Fetcher, /) -> list[Link]:
        """All pages, of all maps."""
        pages, maps = self._listing.get(fetcher, self._options.url)
        for url in maps[:MOST_MAPS]:
            pages = pages + self._listing.get(fetcher, url)[0]
        return pages[: self._options.most_pages] + [Link(url) for url in self._options.pages]
