"""Files as a source: read in the order of their names, then, if asked to, followed as they grow.

The files are looked at in scans. A scan lists them, finds those that have changed since the last one and
reads each up to the size it has then, so a busy file cannot keep the others waiting. Without `follow` there
is one scan. With it, scans go on, at most a tenth of the time being spent on them, until the reader is
closed.

A position has a place for every file that has been read: `{"files": {PATH: {"offset", "inode", "mark"}}}`,
the path below the URL's fixed directory, so that the whole directory may be moved. It grows by about 80 bytes
and the path for each file: fine for ten thousand files; merge what is more. Of files that are gone, the last
1,000 are remembered.

What is guaranteed while files change under it (`follow`):

- appended rows are read once, when their newline has come;
- a renamed file is read on under its new name, if the pattern matches it, or until it stops growing;
- a file whose bytes before the position are no longer what they were (cut, replaced, rewritten) is read again
  from its start, with a warning. Rows that were written and cut off between two scans cannot be seen.

JSON and Parquet files are read when they are whole: write them under another name and rename them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import Any

from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.sources.base import Chunk, EndOfSource
from headrace.sources.file_url import FileUrl
from headrace.sources.listing import Stamp, list_files, read_position, renames
from headrace.sources.open_file import Handle, Piece, Place

POLL = 0.05  # seconds between scans
SLOWEST_POLL = 5.0
KEPT_OPEN = 64  # files followed that stay open, so that the end of one that is renamed or deleted can be read
KEPT_GONE = 1000  # files that are gone whose places are kept
GRACE = 40  # scans without growth after which a file that is no longer at its path is finished

_log = logging.getLogger(__name__)


class FileSource:
    """The source behind `file:` URLs; see `headrace.sources.file_url` for what one may say.

    Args:
        url: `file:///data/*.ndjson?follow=true`
        options: `follow`, `format`, `chunk` and `max_row`, as in the query.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = FileUrl.parse(url, options)

    @property
    def name(self) -> str:
        """The URL."""
        return self._url.url

    def open(self, position: Any | None = None) -> FileReader:
        """Begin reading after a position; see `Source.open`."""
        url, places = self._url, read_position(position, self.name)
        if not url.follow and not list_files(url):
            path = os.path.join(url.root, url.pattern)
            what = "a directory; add a pattern such as '/*.ndjson'" if os.path.isdir(path) else "nothing"
            raise ConfigError(f"expected a file at {path} ({url.url}), found {what}; follow=true waits for one")
        return FileReader(url, places)


class _Retired:
    """A file that is open but no longer at its path: its writer may not have noticed yet."""

    def __init__(self, path: str, handle: Handle) -> None:
        self.path = path
        self.handle = handle
        self.left = GRACE


class FileReader:
    """One reading of the files; made by `FileSource.open`."""

    def __init__(self, url: FileUrl, places: dict[str, dict[str, Any]]) -> None:
        self._url = url
        self._places = places  # never changed in place: positions that were given out share it
        self._stamps: dict[str, Stamp] = {}  # of each file when it was last read to its end
        self._listing: dict[str, Stamp] = {}
        self._queue: deque[str] = deque()
        self._reading: tuple[Handle, int] | None = None  # the head of the queue, and the size it is read up to
        self._handles: dict[str, Handle] = {}  # the least recently read first
        self._retired: list[_Retired] = []
        self._retired_queue: deque[_Retired] = deque()
        self._scanned = False
        self._pause = POLL
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def read(self, timeout: float) -> Chunk | None:
        """The next chunk; see `Reader.read`."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                self._check_open()
                chunk = self._next()
                if chunk is not None:
                    return chunk
                if not self._url.follow:
                    raise EndOfSource(self._url.url)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._stop.wait(min(self._pause, left))

    def close(self) -> None:
        """Let go of the files; see `Reader.close`."""
        self._stop.set()
        with self._lock:  # after the read that may be under way
            for handle in [*self._handles.values(), *(each.handle for each in self._retired)]:
                handle.close()
            self._handles.clear()
            self._retired.clear()

    def _check_open(self) -> None:
        if self._stop.is_set():
            raise ClosedError(f"the reader of {self._url.url} is closed; open the source again")

    def _next(self) -> Chunk | None:
        """The next chunk of this scan, or of a new one if this is over; None if there is none in it."""
        if not self._queue and not self._retired_queue:
            if self._scanned and not self._url.follow:
                return None
            self._scan()
        while self._retired_queue:
            chunk = self._read_retired(self._retired_queue[0])
            if chunk is not None:
                return chunk
        while self._queue:
            self._check_open()
            chunk = self._read_file(self._queue[0])
            if chunk is not None:
                return chunk
        return None

    def _scan(self) -> None:
        began = time.monotonic()
        self._listing = list_files(self._url)
        self._follow_renames()
        for path in [path for path, handle in self._handles.items() if not self._is_at(path, handle)]:
            self._retired.append(_Retired(path, self._handles.pop(path)))
        for each in self._retired[:-KEPT_OPEN]:
            each.left = 0
        gone = set([path for path in self._places if path not in self._listing][:-KEPT_GONE])
        if gone:
            self._places = {path: place for path, place in self._places.items() if path not in gone}
        self._stamps = {path: stamp for path, stamp in self._stamps.items() if path in self._listing}
        self._retired_queue = deque(self._retired)
        self._queue = deque(path for path, stamp in self._listing.items() if self._stamps.get(path) != stamp)
        self._scanned = True
        self._pause = min(max(POLL, 10 * (time.monotonic() - began)), SLOWEST_POLL)

    def _is_at(self, path: str, handle: Handle) -> bool:
        return path in self._listing and self._listing[path][0] == handle.inode

    def _follow_renames(self) -> None:
        moved = renames(self._places, self._listing, self._same_file)
        if not moved:
            return
        places = {path: place for path, place in self._places.items() if path not in moved}
        self._places = places | {new: self._places[old] for old, new in moved.items()}
        for old in moved:
            if old in self._handles:
                self._handles.pop(old).close()  # it is opened again by its new name
        for path in [*moved, *moved.values()]:
            self._stamps.pop(path, None)

    def _same_file(self, old: str, new: str) -> bool:
        try:
            handle = self._open(new)
        except OSError:
            return False  # reading it as a file of its own says what is wrong, and the next scan asks again
        try:
            return handle.matches(Place(**self._places[old]))
        finally:
            handle.close()

    def _read_file(self, path: str) -> Chunk | None:
        """The next chunk of the file at the head of the queue; None, and it leaves the queue, at its end."""
        try:
            if self._reading is None:
                handle = self._handle(path)
                self._reading = handle, handle.size
            handle, size = self._reading
            piece = handle.next(size, final=not self._url.follow)
        except FileNotFoundError as error:
            self._reading = None
            if not self._url.follow:
                raise StorageError(f"{path} in {self._url.root} was deleted before it was read") from error
            self._queue.popleft()  # the next scan finds out where it is
            return None
        except OSError as error:
            self._reading = None
            raise StorageError(f"cannot read {path} in {self._url.root}: {error}") from error
        if piece is not None:
            return self._chunk(path, handle, piece)
        self._queue.popleft()
        self._reading = None
        self._stamps[path] = self._listing[path]
        if path in self._handles and (not self._url.follow or len(self._handles) > KEPT_OPEN):
            spare = path if not self._url.follow else next(iter(self._handles))
            self._handles.pop(spare).close()
        return None

    def _read_retired(self, retired: _Retired) -> Chunk | None:
        """The next chunk of a file that is no longer at its path; its last row may lack a newline."""
        final = retired.left <= 0
        try:
            piece = retired.handle.next(retired.handle.size, final=final)
        except OSError as error:
            raise StorageError(f"cannot read the file that was {retired.handle.path}: {error}") from error
        if piece is not None:
            retired.left = 0 if final else GRACE
            return self._chunk(retired.path, retired.handle, piece)
        self._retired_queue.popleft()
        retired.left -= 1
        if final:
            self._retired.remove(retired)
            retired.handle.close()
        return None

    def _chunk(self, path: str, handle: Handle, piece: Piece) -> Chunk:
        place = handle.place().to_json()
        # A retired file's place is kept only while its path has no other, in case it comes back.
        at_its_path = self._handles.get(path) is handle
        if at_its_path or self._places.get(path, {}).get("inode") == handle.inode:
            self._places = {**self._places, path: place}
        full = os.path.join(self._url.root, path)
        position = {"files": self._places}
        return Chunk(piece.data, self._url.format, position, piece.frame, piece.skipped, full)

    def _open(self, path: str) -> Handle:
        return Handle(os.path.join(self._url.root, path), self._url)

    def _handle(self, path: str) -> Handle:
        """The open file, at its place if it is still the file of that place and at its start otherwise."""
        handle = self._handles.pop(path, None) or self._open(path)
        self._handles[path] = handle
        place = Place(**self._places[path]) if path in self._places else Place()
        if not handle.matches(place) and place.offset:
            self._warn_changed(path, handle, place)
            self._places = {name: each for name, each in self._places.items() if name != path}
            place = Place()
        if not handle.stands_at(place):
            handle.seek(place)
        return handle

    def _warn_changed(self, path: str, handle: Handle, place: Place) -> None:
        if handle.inode != place.inode:
            what = "is another file now; it is read from its start"
        else:
            how = f"was cut to {handle.size} bytes" if handle.size < place.offset else "was rewritten"
            what = f"{how}; it is read again from its start, and rows that it lost unread are lost"
        _log.warning("%s: %s, which had been read up to byte %d, %s", self._url.url, path, place.offset, what)
