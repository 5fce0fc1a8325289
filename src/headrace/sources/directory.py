"""The files of a directory as a table: a row a file, kept in step as files are written, moved and deleted.

A directory does not say what was deleted while nobody looked. So a position is a digest of the directory as it was
told: the sum of a hash of each file's path, size and times. If the directory has that digest when it is opened, nothing
happened meanwhile and nothing is told; if not, a snapshot is. A sum is kept up at each change, whatever the number of
files, and a position stays small.

Afterwards the system tells which paths changed (`watchfiles`: inotify and its like). What it tells is only taken as a
hint to look at a path: the file is read, and told if it is not what was told last. What the system forgot (its queue is
bounded, its number of watches too) is found by listing the directory now and then.

The table is the files that can be read: one that no longer can be (it is too large now, or no text) goes to the dead
letters and its row away, so that what can be found does not depend on when the process was started.

`headrace.sources.directory_url` says what a URL may say, and `headrace.files.File` is the model of a row.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import xxhash
from watchfiles._rust_notify import RustNotify

from headrace.cdc import Change
from headrace.errors import ClosedError, ConfigError, InputError, MissingDependencyError, StorageError
from headrace.sources.base import Letter
from headrace.sources.directory_files import Found, Stamp, identity, look, read, skipped, walk, wanted
from headrace.sources.directory_rows import check_key, delete, folder_letter, letter, upsert
from headrace.sources.directory_url import DirectoryUrl
from headrace.sources.tables import Changes
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.document import TableSchema

MOST_CHANGES = 500
MOST_SIZE = 8 << 20  # bytes of files in a batch
MOST_TIME = 0.25  # seconds after which a batch that has something is given
TRIES = 40  # of a file that changes whenever it is read; then it is told as it was read
_AGAIN = 0.05  # seconds between them, and until a new folder is looked at once more
_STEP = 10  # milliseconds of silence after which a burst of events is over
_BURST = 50  # the longest burst
_LOOK = 1.0  # seconds between two looks whether the root is still the same directory
_POLL = 1 * SECOND
_DELETED = 3

_log = logging.getLogger(__name__)


class DirectorySource:
    """The source behind `dir:` URLs.

    Args:
        url: `dir:///srv/docs?glob=**/*.md`
        options: As in the query; `kinds` maps patterns to the types of a table that has several.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = DirectoryUrl.parse(url, options)

    def __repr__(self) -> str:
        return f"DirectorySource({self.name!r})"

    @property
    def name(self) -> str:
        """The URL."""
        return self._url.url

    def open(self, position: Any | None, schema: TableSchema) -> DirectoryReader:
        """Begin after a position; see `TableSource.open`."""
        check_key(schema, self.name)
        if position is None and not os.path.isdir(self._url.root):
            raise ConfigError(f"expected a directory at {self._url.root} ({self.name}), found none; create it")
        digest = "" if position is None else _digest(position, self._url)
        return DirectoryReader(self._url, schema, digest)


def _digest(position: Any, url: DirectoryUrl) -> str:
    try:
        digest, choice = position["directory"], position["choice"]
        if not (isinstance(digest, str) and isinstance(choice, str)):
            raise TypeError("expected texts")
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"expected a position of {url.url!r}, such as {{'directory': '…', 'choice': '…'}}, "
            f"found {str(position)[:200]}; it may be another source's"
        ) from error
    return digest if choice == _choice(url) else ""


def _choice(url: DirectoryUrl) -> str:
    return xxhash.xxh3_64_hexdigest(url.choice.encode())


class _Known:
    """A file as it was told, or set aside."""

    __slots__ = ("content", "racy", "stamp", "told")

    def __init__(self, stamp: Stamp, content: int | None = None, racy: bool = False, told: bool = True) -> None:
        self.stamp = stamp
        self.content = content
        self.racy = racy
        self.told = told


class DirectoryReader:
    """One reading of a directory; made by `DirectorySource.open`."""

    def __init__(self, url: DirectoryUrl, schema: TableSchema, digest: str) -> None:
        self._url = url
        self._schema = schema
        self._before = digest  # of the directory as it was told last; empty if it was not told whole
        self._known: dict[str, _Known] = {}
        self._sum = 0
        self._queue: dict[str, None] = {}
        self._again: dict[str, float] = {}  # when to look at a path once more
        self._torn: dict[str, int] = {}  # how often it changed while it was read
        self._closed: set[str] = set()  # folders that may not be entered
        self._said: set[str] = set()  # those of them that are dead letters
        self._letters: list[Letter] = []
        self._snapshot = self._begun = False
        self._root: tuple[int, int] | None = None  # None while there is none
        self._notify: RustNotify | None = None
        self._next_scan = self._next_look = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`."""
        deadline = time.monotonic() + timeout
        waited = False
        with self._lock:
            while True:
                self._check_open()
                if self._root is None:
                    self._begin()
                batch = self._work()
                if batch is not None:
                    return batch
                left = deadline - time.monotonic()
                if left <= 0 and waited:
                    return None
                self._wait(max(left, 0.0))
                waited = True

    def stored(self, changes: Changes) -> None:
        """Nothing is held for it; see `TableReader.stored`."""

    def lag(self) -> dict[str, int]:
        """Files that are to be looked at; see `TableReader.lag`."""
        return {"files": len(self._queue) + len(self._again)}

    def at_end(self) -> bool:
        """Lists the directory and compares; see `TableReader.at_end`."""
        with self._lock:
            self._check_open()
            if self._root is None or self._snapshot:
                return False
            self._scan()
            return not (self._queue or self._again or self._letters or self._closed - self._said)

    def close(self) -> None:
        """Stop watching; see `TableReader.close`."""
        self._stop.set()
        with self._lock:  # after the read that may be under way
            self._unwatch()

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise ClosedError(f"the reader of {self._url.url} is closed; open the source again")

    def _begin(self) -> None:
        """Watch, then list: what changes in between is heard of."""
        self._unwatch()
        root = self._root_now()
        if root is None:
            raise StorageError(f"expected the directory {self._url.root}, found none; it is read on when it is back")
        self._notify = self._watch()
        listing = dict(walk(self._url, closed=self._closed))
        self._known = {path: _Known(stamp) for path, stamp in listing.items()}
        self._sum = sum(identity(path, stamp) for path, stamp in listing.items())
        self._queue, self._again, self._torn = {}, {}, {}
        self._root, self._begun = root, False
        self._snapshot = self._told() != self._before
        if self._snapshot:
            self._known, self._sum = {}, 0
            self._queue = dict.fromkeys(listing)
        self._next_scan = time.monotonic() + self._url.rescan / SECOND

    def _root_now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._url.root)
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if os.path.isdir(self._url.root) else None

    def _watch(self) -> RustNotify | None:
        """What tells of changes; None if it has to be found out by listing."""
        if self._url.poll:
            return None
        try:
            return RustNotify([self._url.root], False, False, 0, True, True)
        except FileNotFoundError as error:
            raise StorageError(f"expected the directory {self._url.root}, found it gone; put it back") from error
        except (OSError, RuntimeError) as error:
            _log.warning("%s cannot be watched (%s); it is listed once a second instead", self._url.url, error)
            return None

    def _unwatch(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def _told(self) -> str:
        return f"{self._sum % (1 << 128):032x}"

    def _position(self) -> dict[str, str]:
        return {"directory": "" if self._snapshot else self._told(), "choice": _choice(self._url)}

    def _wait(self, seconds: float) -> None:
        """Until something may be to do, at most so long; notes what the system tells."""
        now = time.monotonic()
        soon = [seconds, _LOOK, max(self._next_scan - now, 0.0)]
        soon += [max(due - now, 0.0) for due in self._again.values()]
        events = self._hear(min(soon))
        now = time.monotonic()
        if events or now >= self._next_look:
            self._next_look = now + _LOOK
            if self._root_now() != self._root:
                # Not deletes: a volume that is not mounted has not lost its files.
                self._before, self._root = self._position()["directory"], None
                return
        self._note(events)
        if now >= self._next_scan:
            self._scan()

    def _hear(self, seconds: float) -> set[tuple[int, str]]:
        """What the system tells within so long."""
        if self._notify is None:
            self._stop.wait(seconds)
            return set()
        try:
            heard = self._notify.watch(_BURST, _STEP, max(1, int(seconds * 1000)), self._stop)
        except (OSError, RuntimeError) as error:
            # A name that is not UTF-8 ends a watch, for one; what it had to tell is found by listing.
            _log.info("%s is watched anew: %s", self._url.url, error)
            self._unwatch()
            self._notify = self._watch()
            self._next_scan = 0.0
            return set()
        if heard == "signal":
            raise KeyboardInterrupt
        return heard if isinstance(heard, set) else set()

    def _note(self, events: set[tuple[int, str]]) -> None:
        """Queue what has to be looked at for these events."""
        gone: set[str] = set()
        for what, whole in events:
            path = os.path.relpath(whole, self._url.root)
            if path == "." or path.startswith("..") or skipped(self._url, path):
                continue
            if os.path.isdir(whole) and not os.path.islink(whole):
                self._look_below(path)
                # A file may have come between the folder and its being watched.
                self._again.setdefault(path, time.monotonic() + _AGAIN)
            elif path in self._known or self._url.matches(path):
                self._queue[path] = None
            if what == _DELETED and path not in self._known:
                gone.add(path)
        if gone:
            self._queue |= dict.fromkeys(path for path in self._known if not gone.isdisjoint(_above(path)))

    def _look_below(self, folder: str) -> None:
        for path, stamp in walk(self._url, folder, self._closed):
            if path not in self._known or self._known[path].stamp != stamp:
                self._queue[path] = None

    def _scan(self) -> None:
        """Queue whatever is not as it was told."""
        began = time.monotonic()
        try:
            listing = dict(walk(self._url, closed=self._closed))
        except StorageError:
            self._next_look = 0.0  # the root is looked at next
            return
        changed = [
            path for path, stamp in listing.items() if path not in self._known or self._known[path].stamp != stamp
        ]
        # What is in a folder that may be entered but not listed is there all the same.
        away = [path for path in self._known if path not in listing]
        gone = [path for path in away if look(self._url, path) != self._known[path].stamp]
        self._queue |= dict.fromkeys(changed + gone)
        now = time.monotonic()
        every = self._url.poll or (_POLL if self._notify is None else self._url.rescan)
        # At most a tenth of the time goes into listing.
        self._next_scan = now + max(every / SECOND, 10 * (now - began))

    def _work(self) -> Changes | None:
        """A batch of what is queued; None if there is nothing to tell."""
        now = time.monotonic()
        for path in [path for path, due in self._again.items() if due <= now]:
            del self._again[path]
            if os.path.isdir(os.path.join(self._url.root, path)):
                self._look_below(path)
            else:
                self._queue[path] = None
        changes: list[Change] = []
        size = 0
        while self._queue and len(changes) < MOST_CHANGES and size < MOST_SIZE and not self._stop.is_set():
            path = next(iter(self._queue))
            del self._queue[path]
            size += self._take(path, changes)
            if changes and time.monotonic() - now > MOST_TIME:
                break
        self._check_open()
        letters, self._letters = self._letters + [folder_letter(path) for path in self._closed - self._said], []
        self._said |= self._closed
        begins = self._snapshot and not self._begun
        complete = self._snapshot and not self._queue and not self._again
        if not (changes or letters or begins or complete):
            return None
        snapshot, self._snapshot, self._begun = self._snapshot, self._snapshot and not complete, True
        times = [change.at for change in changes if change.at is not None]
        return Changes(
            changes, self._position(), snapshot, complete, begins, letters, None, max(times) if times else None
        )

    def _take(self, path: str, changes: list[Change]) -> int:
        """Look at a file and tell what it is now; returns how many bytes it has."""
        if not wanted(self._url, path):
            return 0
        found = read(self._url, path)
        old = self._known.get(path)
        torn = self._torn.pop(path, 0)
        if found.torn and torn < TRIES:
            self._torn[path], self._again[path] = torn + 1, time.monotonic() + _AGAIN
            return 0
        if found.stamp is None:
            self._forget(path, old, changes)
            return 0
        if found.data is None:
            self._set_aside(path, found, found.wrong, changes)
            return 0
        content = xxhash.xxh3_128_intdigest(found.data)
        if old is None or old.content != content or old.stamp[1:3] != found.stamp[1:3]:
            try:
                changes.append(upsert(self._url, self._schema, path, found.data, found.stamp))
            except (InputError, MissingDependencyError) as error:
                self._set_aside(path, found, str(error), changes)
                return len(found.data)
            self._remember(path, _Known(found.stamp, content, found.racy))
        else:
            self._remember(path, _Known(found.stamp, content, found.racy, old.told))
        return len(found.data)

    def _set_aside(self, path: str, found: Found, reason: str, changes: list[Change]) -> None:
        """A dead letter, once for each state of a file; its row goes."""
        assert found.stamp is not None
        old = self._known.get(path)
        self._forget(path, old, changes)
        if old is None or old.told or old.stamp[1:3] != found.stamp[1:3]:
            self._letters.append(letter(path, found, reason))
        self._remember(path, _Known(found.stamp, None, found.racy, told=False))

    def _forget(self, path: str, old: _Known | None, changes: list[Change]) -> None:
        if old is None:
            return
        self._sum -= identity(path, old.stamp, old.racy)
        del self._known[path]
        if old.told:
            changes.append(delete(self._url, path, time.time_ns() // 1000))

    def _remember(self, path: str, known: _Known) -> None:
        old = self._known.get(path)
        if old is not None:
            self._sum -= identity(path, old.stamp, old.racy)
        self._known[path] = known
        self._sum += identity(path, known.stamp, known.racy)


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
