"""Which files there are, and which of them are old ones under a new name.

A file is known by its path; its inode number finds it again after a rename (log rotation), and its content
says whether it is the same file at all, since a number is given to the next file as soon as one is deleted.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from headrace.errors import ConfigError, StorageError
from headrace.sources.file_url import FileUrl
from headrace.sources.open_file import Place

Stamp = tuple[int, int, int]


def list_files(url: FileUrl) -> dict[str, Stamp]:
    """The regular files that a URL matches: path below the root -> (inode, size, mtime), sorted by path.

    As in the shell, a wildcard does not match a name that begins with a dot, so a file may be written under
    such a name and renamed when it is whole.

    Raises:
        StorageError: A file may not be looked at.
        ConfigError: A name is not UTF-8, so no position could hold it.
    """
    if glob.has_magic(url.pattern):
        names = sorted(set(glob.glob(url.pattern, root_dir=url.root, recursive=True)))
    else:
        names = [url.pattern]
    found = {}
    for name in names:
        path = os.path.join(url.root, name)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it is gone again, or a dangling link
        except OSError as error:
            raise StorageError(f"cannot look at {path}: {error}; give this process access to it") from error
        if stat.S_ISREG(status.st_mode):
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise ConfigError(f"expected a file name in UTF-8, found {os.fsencode(path)!r}; rename it") from error
            found[name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def renames(
    places: Mapping[str, Mapping[str, Any]],
    listing: Mapping[str, Stamp],
    same: Callable[[str, str], bool],
) -> dict[str, str]:
    """Old path -> new path, for the files that have been renamed.

    Args:
        places: What is known, by path, each with its "inode".
        listing: What there is now.
        same: Whether the file that is now at the second path is what was read at the first.
    """

    def unmoved(path: str) -> bool:
        return path in listing and path in places and listing[path][0] == places[path]["inode"]

    away = {place["inode"]: path for path, place in places.items() if not unmoved(path)}
    moved = {}
    if away:
        for path, (inode, _, _) in listing.items():
            old = away.get(inode)
            if old is not None and not unmoved(path) and same(old, path):
                moved[old] = path
                del away[inode]  # a hard link is a file of its own
    return moved


def read_position(position: Any, name: str) -> dict[str, dict[str, Any]]:
    """The places in a position, by path.

    Raises:
        ConfigError: It is not a position of a file source.
    """
    if position is None:
        return {}
    try:
        places = {str(path): _place(**place).to_json() for path, place in position["files"].items()}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"expected a position of {name!r}, such as {{'files': {{'a.ndjson': {{'offset': 0, …}}}}}}, "
            f"found {str(position)[:200]}; it may be another source's"
        ) from error
    return places


def _place(offset: Any, inode: Any, mark: Any, row: Any = None) -> Place:
    place = Place(int(offset), int(inode), str(mark), None if row is None else int(row))
    if place.offset < 0 or (place.row or 0) < 0:
        raise ValueError(f"expected 0 or more, found {place}")
    return place
