"""A file as a row: what `sources.directory` tells of it, and what it sets aside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from headrace.cdc import Change
from headrace.errors import ConfigError, InputError
from headrace.formats.text import extract
from headrace.formats.text.kinds import suffix_of
from headrace.sources.base import Letter, Trace
from headrace.sources.directory_files import Found, Stamp
from headrace.sources.directory_url import DirectoryUrl
from headrace.units import from_micros

if TYPE_CHECKING:
    from headrace.document import TableSchema

_RAW = 1 << 16  # bytes of a file that a dead letter holds
_KEYS = ("id", "path")


def check_key(schema: TableSchema, name: str) -> None:
    """Refuse a key that a file that is gone no longer has.

    Raises:
        ConfigError: The table's key is not a file's name.
    """
    if not set(schema.key) <= set(_KEYS):
        raise ConfigError(
            f"expected the key of {schema.name!r} to be one of {', '.join(_KEYS)}, found {', '.join(schema.key)}; "
            f"all that {name} knows of a file that is deleted is its name"
        )


def upsert(url: DirectoryUrl, schema: TableSchema, path: str, data: bytes, stamp: Stamp) -> Change:
    """A file's row.

    Raises:
        InputError: There is no text in it.
        MissingDependencyError: What reads such files is not installed.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"expected a file name in UTF-8, found {os.fsencode(path)!r}; rename it") from None
    whole = os.path.join(url.root, path)
    text = extract(data, path_or_type=whole, charset=url.encoding, most_bytes=url.most_bytes)
    _, size, modified, _ = stamp
    suffix = suffix_of(path)
    row: dict[str, Any] = {"id": path, "path": whole, "title": text.title, "text": text.text, "format": text.format}
    row |= {"language": text.language, "suffix": f".{suffix}" if suffix else "", "size": size}
    row["modified"] = from_micros(modified // 1000)
    kind = url.kind(path)
    if schema.kind is not None and kind is not None:
        row[schema.kind] = kind
    return Change("upsert", row, at=modified // 1000, origin=f"{path}@{modified}", source=whole, trusted=url.trusted)


def delete(url: DirectoryUrl, path: str, at: int) -> Change:
    """A row's end."""
    whole = os.path.join(url.root, path)
    return Change("delete", key={"id": path, "path": whole}, at=at, origin=f"{path}@deleted", source=whole)


def letter(path: str, found: Found, reason: str) -> Letter:
    """A file that cannot be a row; there is one for each time that it was written."""
    written = found.stamp[2] if found.stamp else 0
    return Letter(reason, Trace(f"{_shown(path)}@{written}", (found.data or b"")[:_RAW]))


def folder_letter(path: str) -> Letter:
    """A folder that may not be entered."""
    return Letter(
        "expected a folder that can be entered, found one whose permissions forbid it", Trace(f"{_shown(path)}/")
    )


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
