"""`dir:` URLs: which files of a directory are rows.

    dir:///srv/docs?glob=**/*.md&glob=**/*.rst&exclude=drafts
    dir:notes                                       relative to the working directory when the source is made

A pattern is matched against the path below the directory: `*` and `?` stay within a folder, `**` crosses folders
(`**/*.md` finds `a.md` as well). `exclude` takes away what it matches, and all that is below a folder that it matches.
Hidden files and folders (a leading dot), `node_modules`, `__pycache__` and what editors leave behind (`a.md~`) are
left out; `hidden=true` takes hidden ones in, but never `.git`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.document import MOST_BYTES
from headrace.errors import ConfigError, nearest
from headrace.formats.text.encoding import known
from headrace.units import SECOND, duration

OPTIONS = ("encoding", "exclude", "glob", "hidden", "kinds", "most_bytes", "poll", "rescan", "trusted")
_IGNORED = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__"})
# What editors and compilers write beside the file that is meant.
_LEFT_BEHIND = re.compile(r".*~|#.*#|.*\.(?:pyc|pyo|swp|swo|swx|tmp|part|crdownload)|4913")


@dataclass(frozen=True)
class DirectoryUrl:
    """What a `dir:` URL says.

    Attributes:
        url: As it was given.
        root: The directory, absolute.
        matches: Whether a file is a row, by its path below the root.
        skips: Whether a path is left out, with all that is below it.
        kinds: Which of a table's types a file is: patterns and the types' names; the first that matches.
        encoding: Of files that are not UTF-8 and do not say what they are.
        most_bytes: The largest file.
        poll: Look for changes by listing, this many microseconds apart, and do not ask the system to tell them; 0 asks.
        rescan: How often to list all the same, in microseconds: what the system forgot to tell is found then.
        trusted: Whether the texts are the operator's own.
        choice: All of this that decides which rows there are, as a text.
    """

    url: str
    root: str
    matches: Callable[[str], bool]
    skips: Callable[[str], bool]
    kinds: tuple[tuple[re.Pattern[str], str], ...] = ()
    encoding: str | None = None
    most_bytes: int = MOST_BYTES
    poll: int = 0
    rescan: int = 60 * SECOND
    trusted: bool = False
    choice: str = ""

    @classmethod
    def parse(cls, url: str, options: Mapping[str, Any]) -> DirectoryUrl:
        """Read a URL and the options beside it; options win.

        Raises:
            ConfigError: A part of it cannot be used; the message says which and what is expected.
        """
        parts = urlsplit(url)
        if parts.scheme.lower() != "dir":
            raise ConfigError(f"expected a URL such as 'dir:///srv/docs?glob=**/*.md', found {url!r}")
        if parts.netloc not in ("", "localhost") or parts.fragment:
            raise ConfigError(
                f"expected 'dir:///absolute/path' or 'dir:relative/path' and no '#', found {url!r}; "
                "write %23 for a '#' of the path"
            )
        path = unquote(parts.path)
        if not path or "\0" in path:
            raise ConfigError(f"expected the path of a directory in {url!r}, such as 'dir:///srv/docs'")
        given = _given(parts.query, options, url)
        globs, excludes = _patterns(given.get("glob"), "glob") or ("**",), _patterns(given.get("exclude"), "exclude")
        hidden = _flag(given.get("hidden", False), "hidden")
        encoding = given.get("encoding")
        if encoding is not None and known(str(encoding)) is None:
            raise ConfigError(f"expected encoding to be a charset such as 'latin-1', found {encoding!r}")
        kinds = given.get("kinds", {})
        if not isinstance(kinds, Mapping):
            raise ConfigError(f"expected kinds to map patterns to types, as {{'**/*.py': 'code'}}, found {kinds!r}")
        most_bytes = _number(given.get("most_bytes", MOST_BYTES))
        return cls(
            url,
            os.path.abspath(path),
            _matcher(globs),
            _skipper(excludes, hidden),
            tuple((_regex(str(pattern)), str(kind)) for pattern, kind in kinds.items()),
            None if encoding is None else str(encoding),
            most_bytes,
            duration(given.get("poll", 0), zero=True),
            duration(given.get("rescan", "60s")),
            _flag(given.get("trusted", False), "trusted"),
            repr((globs, excludes, hidden, encoding, most_bytes, dict(kinds))),
        )

    def kind(self, path: str) -> str | None:
        """Which type a file is, if the URL says."""
        return next((kind for pattern, kind in self.kinds if pattern.fullmatch(path)), None)


def _given(query: str, options: Mapping[str, Any], url: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("glob", "exclude"):
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    given |= options
    for name in given:
        if name not in OPTIONS:
            raise ConfigError(f"{url!r} has no option {name!r}; {nearest(name, OPTIONS)}")
    return given


def _patterns(value: Any, name: str) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(each, str) and each for each in found):
        raise ConfigError(f"expected {name} to be a pattern such as '**/*.md' or a list of them, found {value!r}")
    return found


def _flag(value: Any, name: str) -> bool:
    if value in (True, False, "true", "false"):
        return value in (True, "true")
    raise ConfigError(f"expected {name}=true or {name}=false, found {value!r}")


def _number(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdigit() or not 0 < int(value) <= 1 << 30:
        raise ConfigError(f"expected most_bytes to be a number of bytes from 1 to {1 << 30}, found {value!r}")
    return int(value)


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    regexes = [_regex(pattern) for pattern in patterns]
    return lambda path: any(regex.fullmatch(path) for regex in regexes)


def _skipper(patterns: tuple[str, ...], hidden: bool) -> Callable[[str], bool]:
    regexes = [_regex(pattern.rstrip("/")) for pattern in patterns]

    def skips(path: str) -> bool:
        """Asked of a file and, before, of every folder above it."""
        name = path.rpartition("/")[2]
        if name in _IGNORED or _LEFT_BEHIND.fullmatch(name) or (name.startswith(".") and not hidden):
            return True
        return any(regex.fullmatch(path) for regex in regexes)

    return skips


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern of the shell; `**` stands for any number of folders."""
    out, at = [], 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] in "*?":
            out.append("[^/]*" if pattern[at] == "*" else "[^/]")
            at += 1
        elif pattern[at] == "[" and (closes := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : closes].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"(?!/)[{'^' + inside[1:] if inside[0] in '!^' else inside}]")
            at = closes + 1
        else:
            out.append(re.escape(pattern[at]))
            at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ConfigError(f"expected a pattern such as '**/*.md', found {pattern!r} ({error})") from None
