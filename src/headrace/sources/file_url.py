"""`file:` URLs: which files, in which format, and how they are to be read.

    file:///var/log/pay/*.ndjson?follow=true        absolute; `*`, `?`, `[…]`, `**` as in the shell
    file:data/*.csv                                 relative to the working directory when the source is made
    file:///data/part-*?format=ndjson&chunk=1MiB    no known ending: the format must be said

The path is percent-decoded first, so `%3F` is the wildcard `?` and `%23` is `#`; `[[]` stands for a bracket
that is meant. `~` is an ordinary character. Options may be given in the query or as keyword arguments, which
win.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.errors import ConfigError, nearest

FORMATS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
OPTIONS = ("chunk", "follow", "format", "max_row")
CHUNK = 8 << 20
MAX_ROW = 128 << 20

_SIZE = re.compile(r"(\d+)\s*(|B|KiB|MiB|GiB|kB|KB|MB|GB)")
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_UNITS |= {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class FileUrl:
    """What a `file:` URL says.

    Attributes:
        url: As it was given.
        root: The directory that no wildcard is above; positions name files relative to it.
        pattern: What to look for below it.
        format: "ndjson", "json", "csv" or "parquet".
        follow: Whether to wait for more when all is read.
        chunk: About how many bytes are read at once.
        max_row: The longest row, in bytes, that is delivered; not less than `chunk`.
    """

    url: str
    root: str
    pattern: str
    format: str
    follow: bool = False
    chunk: int = CHUNK
    max_row: int = MAX_ROW

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> FileUrl:
        """Read a URL and the options beside it.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        parts = urlsplit(url)
        if parts.scheme.lower() != "file":
            raise ConfigError(f"expected a URL such as 'file:///data/*.ndjson', found {url!r}")
        if parts.netloc not in ("", "localhost"):
            raise ConfigError(
                f"expected 'file:///absolute/path' or 'file:relative/path', found the host {parts.netloc!r} "
                f"in {url!r}; did you mean 'file:{parts.netloc}{parts.path}'?"
            )
        if parts.fragment:
            raise ConfigError(f"expected no '#' in {url!r}; write %23 if it is part of the path")
        given = dict(parse_qsl(parts.query, keep_blank_values=True)) | dict(options)
        for name in given:
            if name not in OPTIONS:
                raise ConfigError(f"{url!r} has no option {name!r}; {nearest(name, OPTIONS)}")
        path = unquote(parts.path)
        root, pattern = _split(path, url)
        chunk = _size(given.get("chunk", CHUNK), "chunk")
        max_row = _size(given.get("max_row", max(MAX_ROW, chunk)), "max_row")
        if max_row < chunk:
            raise ConfigError(f"expected max_row to be at least chunk ({chunk} bytes), found {max_row}")
        follow = _flag(given.get("follow", False), "follow")
        return cls(url, root, pattern, _format(path, given.get("format")), follow, chunk, max_row)


def _split(path: str, url: str) -> tuple[str, str]:
    """The directory above every wildcard, absolute, and the pattern below it."""
    if "\0" in path or not path.strip("/"):
        raise ConfigError(f"expected the path of a file in {url!r}, such as 'file:///data/*.ndjson'")
    if path.endswith("/"):
        raise ConfigError(f"expected files, found a directory in {url!r}; add a pattern such as '*.ndjson'")
    pieces = path.split("/")
    fixed = len(pieces) - 1
    for number, piece in enumerate(pieces[:-1]):
        if glob.has_magic(piece):
            fixed = number
            break
    root = os.path.abspath("/".join(pieces[:fixed]) or ("/" if path.startswith("/") else "."))
    return root, "/".join(pieces[fixed:])


def _format(path: str, given: Any) -> str:
    known = sorted(set(FORMATS.values()))
    if given is not None:
        if given not in known:
            raise ConfigError(f"{given!r} is not a format of files; {nearest(str(given), known)}")
        return str(given)
    ending = os.path.splitext(path)[1].lower()
    if ending in COMPRESSED:
        raise ConfigError(
            f"compressed files ({ending}) cannot be read, since a position in one cannot be gone back to; "
            "decompress them first"
        )
    if ending not in FORMATS:
        raise ConfigError(
            f"cannot tell the format of {path!r}: expected it to end in one of {', '.join(FORMATS)}, "
            f"or an option such as '?format=ndjson' ({', '.join(known)})"
        )
    return FORMATS[ending]


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise ConfigError(f"expected {name}=true or {name}=false, found {value!r}")


def _size(value: Any, name: str) -> int:
    """Bytes of 8388608, "8388608", "8MiB" or "8MB"."""
    match = _SIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < size <= 1 << 40:
        raise ConfigError(f"expected {name} to be a size such as '8MiB' or a number of bytes, found {value!r}")
    return size
