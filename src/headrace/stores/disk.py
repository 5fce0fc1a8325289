"""Writing files so that they are whole or absent, and saying well why one could not be written.

What POSIX promises, and all that the stores rely on: data is durable once its file has been synced; a new name is
durable once its directory has been synced; a rename within one file system is atomic. A failed sync may have thrown
the unwritten pages away while marking them clean (Linux, "fsyncgate", 2018), so it is never simply tried again on
the same file: a new file is written, or the store asks for a restart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from headrace.errors import StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ADVICE = {
    errno.ENOSPC: "free some space on that disk, or move the data directory to a larger one",
    errno.EDQUOT: "raise the quota, or move the data directory to another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "make it writable for this user, or name another data directory",
    errno.EPERM: "make it writable for this user, or name another data directory",
    errno.EROFS: "mount it writable, or name another data directory",
    errno.EIO: "check the disk (dmesg says more)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def sync(descriptor: int) -> None:
    """Return once the file's data, and the size needed to read it, are on the disk and not in its cache."""
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: plain fsync stops at the drive's cache
    if full is not None:
        fcntl.fcntl(descriptor, full)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: files made, renamed and removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, fill: Callable[[BinaryIO], None]) -> int:
    """Write a file that is either there whole or not at all, also after a power cut.

    Returns:
        Its size in bytes.

    Raises:
        StorageError: It could not be written; what stood under that name before is still there.
    """
    part = path.with_name(path.name + ".tmp")
    size = 0
    try:
        with part.open("wb") as file:
            fill(file)
            file.flush()
            size = file.tell()
            sync(file.fileno())
        part.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(error, f"cannot write {path}") from error
    return size


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably, and remove what an interrupted `write_whole` left in it."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_directory(path.parent)
        for left in path.glob("*.tmp"):
            left.unlink()
    except OSError as error:
        raise storage_error(error, f"cannot use {path} as a directory") from error


def storage_error(error: OSError, what: str, *, path: Path | None = None, needed: int = 0) -> StorageError:
    """The error for a failed file operation, with what was needed, what is free and what to do.

    Args:
        error: Its `errno` chooses the advice.
        what: What could not be done, naming the file.
        path: Where free space is looked up, if running out of it is the cause.
        needed: The bytes to be written, if known.
    """
    reason = error.strerror or str(error)
    parts = [f"{what}: {reason}"]
    if error.errno in _FULL and needed:
        parts.append(f"{needed:,} bytes were needed{_free(path)}")
    advice = _ADVICE.get(error.errno or 0)
    if advice:
        parts.append(advice)
    return StorageError("; ".join(parts))


def _free(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return f" and {shutil.disk_usage(path).free:,} are free"
    except OSError:  # the disk is in trouble already: the first error is the one to tell
        return ""


def is_full(error: BaseException) -> bool:
    """Whether a `StorageError` comes from lack of room: a full disk, a quota, a limit on file sizes."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        cause = cause.__cause__
    return False
