"""Splitters of others: a function, LangChain's text splitters, Chonkie's chunkers.

They are told apart by what they have, so that none of their packages is needed. Where a piece stands in the text is
what they say if that is so, and else where it is found, searched from the piece before on: splitters overlap, and some
change what they cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import xxhash

from headrace.documents.states import Piece
from headrace.errors import InputError

Splitter = Literal["structure"] | Callable[[str], Sequence[Any]] | Any


def split(splitter: Any, text: str) -> Iterator[Piece]:
    """The pieces that a splitter makes of a text, those that are blank left out.

    Raises:
        InputError: It failed, or gave something that is not text.
    """
    named = name_of(splitter)
    call = next(
        (getattr(splitter, method) for method in ("split_text", "chunk") if callable(getattr(splitter, method, None))),
        splitter,
    )
    try:
        given = call(text)
    except Exception as error:
        raise InputError(f"the splitter {named} failed on a text of {len(text)} characters: {error!r}") from error
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"the splitter {named}: expected a list of texts, found {type(given).__name__}")
    after = 0
    for one in given:
        said = one if isinstance(one, str) else getattr(one, "text", None)
        if not isinstance(said, str):
            raise InputError(f"the splitter {named}: expected texts, or objects with a text, found {one!r:.80}")
        if not said.strip():
            continue
        start = _told(one, text, said)
        if start < 0:
            start = text.find(said, after)
        if start >= 0:
            after = start + 1
        yield Piece(said, start, start + len(said) if start >= 0 else -1)


def _told(one: Any, text: str, said: str) -> int:
    """Where the splitter says that the piece begins, if it does stand there; else -1."""
    start = getattr(one, "start_index", None)
    return start if isinstance(start, int) and start >= 0 and text.startswith(said, start) else -1


def name_of(one: Any) -> str:
    """A function's or a class's qualified name."""
    named = one if hasattr(one, "__qualname__") else type(one)
    return f"{getattr(named, '__module__', 'builtins')}.{named.__qualname__}"


def describe(one: Any) -> str:
    """A text that changes when a function or an object does: its name, its source, and its plain settings."""
    plain = {
        name: value
        for name, value in sorted(getattr(one, "__dict__", {}).items())
        if isinstance(value, str | int | float | bool | tuple | list | None) and not name.startswith("__")
    }
    shown = repr(plain).encode("utf-8", "surrogatepass")
    return f"{name_of(one)}:{xxhash.xxh3_64_hexdigest(_source(one).encode() + shown)}"


def _source(one: Any) -> str:
    """The source of a function or class; of what has none (a built-in, something typed in) its compiled code."""
    target = one if inspect.isroutine(one) or inspect.isclass(one) else type(one)
    try:
        return inspect.getsource(target)
    except (OSError, TypeError):
        code = getattr(target, "__code__", None)
        return "" if code is None else f"{code.co_code.hex()}{code.co_names}{code.co_consts!r}"
