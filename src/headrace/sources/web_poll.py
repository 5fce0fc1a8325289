"""The thread that visits pages when they are due, one after the other, and hands on what came of it.

Fetching takes as long as servers take, and a reader may not wait so long: so it has a thread of its own, and what it
finds stands in a bounded line until it is read. Requests of a source are made one at a time, which is polite to
every host.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

from headrace.errors import ClosedError, HeadraceError, InputError, StorageError
from headrace.registry import shown_url
from headrace.sources.web_fetch import Fetcher
from headrace.sources.web_links import Link
from headrace.sources.web_pages import DAY, Outcome, Page, deleted, replace_page, visit
from headrace.sources.web_url import WebOptions
from headrace.units import SECOND

_MOST_WAITING = 1_000  # outcomes that nobody has read
_FIRST = 5.0  # seconds after the first failure to list pages; doubled by each

_log = logging.getLogger(__name__)


class Index(Protocol):
    """What says which pages there are."""

    keeps: bool  # pages that it names no more stay, as those of a feed do

    def links(self, fetcher: Fetcher, /) -> list[Link] | None:
        """The pages now, the newest first; None if nothing changed.

        Raises:
            InputError: It cannot be read.
            StorageError: It is out of reach.
        """
        ...


class Whole:
    """Every page was visited once: a snapshot ends here."""


class Poller:
    """Visits the pages of an index.

    Args:
        options: How.
        index: Which.
        pages: What is known of them from an earlier reading.
        whole: Whether that reading had seen all of them.
    """

    def __init__(self, options: WebOptions, index: Index, pages: dict[str, Page], whole: bool) -> None:
        self._options = options
        self._index = index
        # A clock that was wrong once must not put a page off for ever.
        latest = time.time() + max(options.every / SECOND, DAY)
        self._pages = {url: replace_page(page, next=min(page.next, latest)) for url, page in pages.items()}
        self._links = {url: page.link(url) for url, page in pages.items()}
        self._untried: set[str] | None = None  # None until the index was read
        self._whole = whole
        self._index_due = self._index_asked = 0.0
        self._index_failures = 0
        self._visited: dict[str, float] = {}
        self.waiting: deque[Outcome | Whole | Exception] = deque()  # with `changed` held
        self.changed = threading.Condition()
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace-web-{shown_url(options.url)}", daemon=True)

    def start(self) -> None:
        """Begin visiting."""
        self._thread.start()

    def close(self) -> None:
        """End; a request that is under way ends by itself, as soon as its server says something."""
        self.stop.set()
        with self.changed:
            self.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def due(self) -> int:
        """How many pages wait to be visited."""
        now = time.time()
        with self.changed:
            return sum(page.next <= now for page in self._pages.values())

    def settled(self, seconds: float) -> bool:
        """Whether nothing is due that was due when this was asked, and all that was found has been read."""
        asked, ends = time.time(), time.monotonic() + seconds
        with self.changed:
            while not self.stop.is_set() and all(isinstance(each, Outcome) and each.quiet for each in self.waiting):
                if self._untried is not None and self._whole and self._seen_since(asked):
                    return True
                left = ends - time.monotonic()
                if left <= 0:
                    return False
                self.changed.wait(left)
        return False

    def _seen_since(self, asked: float) -> bool:
        if self._index_due <= asked and self._index_asked < asked:
            return False
        return all(page.next > asked or self._visited.get(url, 0.0) >= asked for url, page in self._pages.items())

    def _run(self) -> None:
        fetcher = Fetcher(self._options, self.stop)
        try:
            while not self.stop.is_set():
                now = time.time()
                if now >= self._index_due:
                    self._list(fetcher, now)
                    continue
                url = min(self._pages, key=lambda each: self._pages[each].next, default=None)
                due = min(self._pages[url].next if url is not None else self._index_due, self._index_due)
                if due > now:
                    with self.changed:
                        self.changed.notify_all()
                        self.changed.wait(due - now)
                elif url is not None:
                    outcome = visit(fetcher, self._options, self._links[url], self._pages[url])
                    self._hand_on(outcome, now)
        except ClosedError:
            pass  # `close` was called while it waited for its turn
        except Exception as error:  # noqa: BLE001 - raised by the reader, whose thread it concerns
            self._add(error)
        finally:
            fetcher.close()

    def _list(self, fetcher: Fetcher, now: float) -> None:
        try:
            links = self._index.links(fetcher)
        except ClosedError:
            raise
        except (InputError, StorageError) as error:
            wait = min(_FIRST * 2 ** min(self._index_failures, 20), max(self._options.every / SECOND, _FIRST))
            self._index_failures += 1
            self._index_due = time.time() + wait
            _log.warning("%s cannot be listed: %s", shown_url(self._options.url), error)
            self._add(error if isinstance(error, StorageError) else StorageError(str(error)))
            return
        if links is not None:
            self._merge(links)
        with self.changed:
            self._index_failures = 0
            self._index_asked, self._index_due = now, time.time() + self._options.every / SECOND
            self._untried = {url for url in self._pages if not self._visited.get(url)} if not self._whole else set()
        self._finish()

    def _merge(self, links: list[Link]) -> None:
        """Take in what the index names now."""
        named = {link.url: link for link in reversed(links)}
        gone = [] if self._index.keeps else [url for url in self._pages if url not in named]
        with self.changed:
            for url, link in named.items():
                page = self._pages.get(url, Page())
                # What has not changed by its own account is believed for a day; what has is due.
                if link.changed and page.hash:
                    same = link.changed == page.changed
                    page = replace_page(page, next=max(page.next, time.time() + DAY / 2) if same else 0.0)
                self._pages[url], self._links[url] = page, link
        spare = len(self._pages) - len(gone) - self._options.most_pages
        if spare > 0:
            gone += [url for url in self._pages if url not in named][:spare]
        for url in gone:
            changes = [deleted(url)] if self._pages[url].hash else []
            self._hand_on(Outcome(url, None, changes), time.time())

    def _hand_on(self, outcome: Outcome, began: float) -> None:
        self._add(outcome)
        with self.changed:
            if outcome.page is None:
                for known in (self._pages, self._links, self._visited):
                    known.pop(outcome.url, None)
            else:
                self._pages[outcome.url] = outcome.page
                self._visited[outcome.url] = began
            if self._untried is not None:
                self._untried.discard(outcome.url)
            self.changed.notify_all()
        self._finish()

    def _finish(self) -> None:
        if not self._whole and self._untried is not None and not self._untried:
            self._add(Whole())
            with self.changed:
                self._whole = True
                self.changed.notify_all()

    def _add(self, item: Outcome | Whole | Exception) -> None:
        with self.changed:
            while len(self.waiting) >= _MOST_WAITING and not self.stop.is_set():
                self.changed.wait()
            self.waiting.append(item)
            self.changed.notify_all()


def as_headrace_error(error: Exception) -> HeadraceError:
    """What ended the thread, as one of ours."""
    if isinstance(error, HeadraceError):
        return error
    return StorageError(
        f"the thread that visits pages ended with {type(error).__name__}: {error}; open the source again"
    )
