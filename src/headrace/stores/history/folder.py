"""Directories that appear whole or not at all, and the files in them.

Everything is written into a hidden directory beside the target, synced, and moved to its name in one step. What an
interrupted run left behind is told by its lock, which dies with its process, and is removed by the next run with that
target.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from headrace.errors import InputError, StorageError
from headrace.stores import disk

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of a folder: its name, what it holds and the SHA-256 of its bytes."""

    name: str
    rows: int
    bytes: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As a manifest says it."""
        return {"name": self.name, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}


class Folder:
    """A directory in the making: `with Folder(target) as folder`, write below `folder.path`, then `folder.commit()`.

    Without a commit nothing is left of it.

    Args:
        target: Where it is to be; it must not be there yet, or be empty.

    Raises:
        InputError: Something is there already.
        StorageError: It cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.absolute()
        _refuse(self.target)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            for left in self.target.parent.glob(f".{_plain(self.target.name)}.*.tmp"):
                _remove_if_left(left)
            self.path = self.target.with_name(f".{self.target.name}.{secrets.token_hex(4)}.tmp")
            self.path.mkdir()
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise disk.storage_error(error, f"cannot make a directory in {self.target.parent}") from error

    def written(self, name: str, rows: int) -> WrittenFile:
        """A file below `path` that is finished: syncs it, and hashes it."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                disk.sync(file.fileno())
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise disk.storage_error(error, f"cannot write {path}") from error
        return WrittenFile(name, rows, size, digest)

    def commit(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest and moves all to the target.

        Raises:
            StorageError: It could not be done; the target is as it was.
        """
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        disk.write_whole(self.path / MANIFEST, lambda file: _write(file, text))
        try:
            disk.sync_directory(self.path)
            self.path.replace(self.target)
            disk.sync_directory(self.target.parent)
        except OSError as error:
            raise disk.storage_error(error, f"cannot move what was written to {self.target}") from error

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a commit there is nothing of that name.
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a directory that was written here.

    Raises:
        InputError: There is none.
    """
    file = path / MANIFEST
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise InputError(f"expected a manifest at {file}: {error.strerror}; name the directory of an export") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"expected a manifest in {file}, found something else ({error}); export again") from error
    return found


def _write(file: Any, text: bytes) -> None:
    file.write(text)


def _refuse(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise InputError(f"expected a new or empty directory for what is written, found {target}; name another one")


def _plain(name: str) -> str:
    """A name without what a pattern would take for more."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)


def _remove_if_left(path: Path) -> None:
    """Removes what a run that died has left; one that still runs holds its lock."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(descriptor)
