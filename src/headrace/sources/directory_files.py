"""Which files a directory has, and one of them read whole: what `sources.directory` knows of the file system.

A file that is being written while it is read would be taken as half a document, so it is looked at before and after:
if size, time or number changed, it was torn and is read again later. Links are followed to files inside the directory
only; a folder that is a link is not entered, as its files are found where they are or are not the directory's.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from headrace.errors import StorageError
from headrace.sources.directory_url import DirectoryUrl

MOST_FILES = 1_000_000
# Clocks of file systems tick every 10 ms or faster: a later change may have the same time as one this old.
RACY = 20_000_000
# inode, size, when its content changed and when anything of it did, in nanoseconds
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was read.

    Attributes:
        stamp: Of the file; None if it is no longer there.
        data: All of it; None if it could not be read, or is too large.
        torn: It changed while it was read.
        wrong: Why it could not be read; empty if it could.
        racy: It was written so shortly before that a later write may not show in its stamp.
    """

    stamp: Stamp | None
    data: bytes | None = None
    torn: bool = False
    wrong: str = ""
    racy: bool = False


def walk(url: DirectoryUrl, below: str = "", closed: set[str] | None = None) -> Iterator[tuple[str, Stamp]]:
    """The files that are rows, each with its stamp; folders that vanish meanwhile are passed over.

    Args:
        url: The directory.
        below: The folder to begin with, below the root.
        closed: Takes the folders that may not be entered.

    Raises:
        StorageError: The root is not there, or there are more than `MOST_FILES`.
    """
    folders, count = [below], 0
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(url.root, folder)) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise StorageError(f"expected the directory {url.root}, found {error.strerror}; put it back") from error
            if isinstance(error, PermissionError) and closed is not None:
                closed.add(folder)
            continue
        for entry in listed:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if url.skips(path):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif url.matches(path) and (stamp := look(url, path)) is not None:
                    count += 1
                    yield path, stamp
            except OSError:
                continue
        if count > MOST_FILES:
            raise StorageError(f"expected at most {MOST_FILES} files in {url.root}, found more; narrow it with glob=")


def look(url: DirectoryUrl, path: str) -> Stamp | None:
    """The stamp of a file that is a row; None if it is not there, no regular file, or a link to the outside."""
    real = _real(url, path)
    if real is None:
        return None
    try:
        status = os.stat(real, follow_symlinks=False)
    except OSError:
        return None
    return _stamp(status) if stat.S_ISREG(status.st_mode) else None


def wanted(url: DirectoryUrl, path: str) -> bool:
    """Whether a file of this path is a row: it matches, and no folder above it is left out."""
    return url.matches(path) and not skipped(url, path)


def skipped(url: DirectoryUrl, path: str) -> bool:
    """Whether a path is left out, or a folder above it is."""
    parts = path.split("/")
    return any(url.skips("/".join(parts[: end + 1])) for end in range(len(parts)))


def read(url: DirectoryUrl, path: str) -> Found:
    """A file, whole."""
    real = _real(url, path)
    if real is None:
        return Found(None)
    try:
        # A pipe that took the file's place must not hold this up.
        number = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return Found(None)
    except OSError as error:
        return _unreadable(url, path, error)
    with open(number, "rb") as file:
        before = os.fstat(number)
        if not stat.S_ISREG(before.st_mode):
            return Found(None)
        if before.st_size > url.most_bytes:
            return Found(_stamp(before), wrong=_too_large(url, before.st_size))
        now = time.time_ns()
        try:
            data = file.read(url.most_bytes + 1)
        except OSError as error:
            return _unreadable(url, path, error)
        after = os.fstat(number)
    if len(data) > url.most_bytes:
        return Found(_stamp(after), wrong=_too_large(url, after.st_size))
    torn = _stamp(before) != _stamp(after) or len(data) != after.st_size
    return Found(_stamp(after), data, torn, racy=now - max(after.st_mtime_ns, after.st_ctime_ns) < RACY)


def identity(path: str, stamp: Stamp, racy: bool = False) -> int:
    """A number of 128 bits for a file in this state; the sum of them stands for a directory."""
    return xxhash.xxh3_128_intdigest(f"{path}\0{stamp}{'?' * racy}".encode("utf-8", "surrogateescape"))


def _too_large(url: DirectoryUrl, size: int) -> str:
    return f"expected a file of at most {url.most_bytes} bytes, found {size}; a model could read none of it: split it"


def _unreadable(url: DirectoryUrl, path: str, error: OSError) -> Found:
    stamp = look(url, path)
    return Found(stamp, wrong=f"expected a file that can be read, found: {error.strerror}") if stamp else Found(None)


def _real(url: DirectoryUrl, path: str) -> str | None:
    """Where a file is; None for a link to the outside of the root."""
    whole = os.path.join(url.root, path)
    if not os.path.islink(whole):
        return whole
    root, real = os.path.realpath(url.root), os.path.realpath(whole)
    return real if os.path.commonpath((root, real)) == root else None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
