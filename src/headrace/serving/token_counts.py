"""Tokens by the model's own tokenizer, where it is known and at hand; else by the estimate.

A tokenizer is loaded when it is first asked for, and once a process. What cannot be loaded, because its package is not
installed or its file is not there, is said in one line of the log, and estimated. Nothing is fetched: tiktoken would
ask a server for an encoding's file, with no limit of time, in the middle of a request. Its cache is used as it is; who
wants the file there asks tiktoken for the encoding once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

from headrace.assembly.counting import Counter, Estimate, fitting
from headrace.errors import ConfigError

logger = logging.getLogger("headrace")

ESTIMATE = "estimate"
# No tokenizer is given more than this at once: some take quadratic time for a long word.
_AT_ONCE = 16_384
_MOST_KEPT = 64


class _Tokenizer:
    """A counter by a function that counts the tokens of a text."""

    def __init__(self, name: str, count: Callable[[str], int]) -> None:
        self._name = name
        self._count = count

    @property
    def name(self) -> str:
        return self._name

    def count(self, text: str) -> int:
        if len(text) <= _AT_ONCE:
            return self._count(_encodable(text))
        tokens = start = 0
        while start < len(text):
            end = min(start + _AT_ONCE, len(text))
            # At a blank, where tokenizers cut too, so that the parts have as many tokens as the whole.
            blank = text.rfind(" ", start + _AT_ONCE // 2, end) if end < len(text) else -1
            end = blank if blank > start else end
            tokens += self._count(_encodable(text[start:end]))
            start = end
        return tokens

    def fit(self, text: str, most: int) -> int:
        return fitting(self.count, text, most)


_kept: dict[str, Counter] = {}
_loading = threading.Lock()


def counter(spec: str | None = None) -> Counter:
    """What counts tokens.

    Args:
        spec: None or "estimate": the estimate. "tiktoken:NAME", NAME an encoding or a model of OpenAI's.
            "tokenizers:PATH", PATH a `tokenizer.json`. Anything else is a model's name: tiktoken's encoding for it.

    Returns:
        The same object for the same text, from any thread. Its name begins with "estimate" where it is one.

    Raises:
        ConfigError: The text is of no such form, or the file that it names is no tokenizer.
    """
    if spec is None or spec == ESTIMATE:
        spec = ESTIMATE
    elif not isinstance(spec, str) or not spec.strip(": ") or spec in ("tiktoken:", "tokenizers:"):
        raise ConfigError(
            f'tokens: expected a model\'s name, "tiktoken:NAME", "tokenizers:PATH" or "estimate", found {spec!r}'
        )
    found = _kept.get(spec)
    if found is None:
        with _loading:
            found = _kept.get(spec)
            if found is None:
                found = _load(spec)
                if len(_kept) >= _MOST_KEPT:
                    _kept.clear()
                _kept[spec] = found
    return found


def _load(spec: str) -> Counter:
    if spec == ESTIMATE:
        return Estimate()
    kind, _, name = spec.partition(":")
    if kind == "tokenizers" and name:
        return _of_file(spec, name)
    return _of_tiktoken(spec, name if kind == "tiktoken" and name else spec)


def _of_file(spec: str, path: str) -> Counter:
    if not os.path.isfile(path):
        raise ConfigError(f"tokens: expected a tokenizer.json at {path!r}, found no file there")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        return _estimated(spec, error)
    try:
        tokenizer = Tokenizer.from_file(path)
    # The package raises Exception itself.
    except Exception as error:
        raise ConfigError(f"tokens: expected a tokenizer.json at {path!r}, found something else: {error}") from error
    # A file may say that texts are to be cut or filled to a length: then all would be equally long.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _Tokenizer(spec, lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))


def _of_tiktoken(spec: str, name: str) -> Counter:
    try:
        import tiktoken
    except ImportError as error:
        return _estimated(spec, error)
    try:
        if name not in tiktoken.list_encoding_names():
            name = tiktoken.encoding_name_for_model(name)
        with _unfetched():
            encoding = tiktoken.get_encoding(name)
    # Whatever fails there (no such model, no file in the cache, a wrong hash), we can go on.
    except Exception as error:  # noqa: BLE001
        return _estimated(spec, error)
    return _Tokenizer(f"tiktoken:{name}", lambda text: len(encoding.encode_ordinary(text)))


_fetching = threading.local()


@contextlib.contextmanager
def _unfetched() -> Iterator[None]:
    """Has tiktoken use its cache alone, on this thread and in this block; elsewhere it is as it was."""
    from tiktoken import load

    if not hasattr(load.read_file, "headrace"):
        original = load.read_file

        def read_file(blobpath: str) -> bytes:
            if "://" in blobpath and getattr(_fetching, "not_here", False):
                raise FileNotFoundError(
                    f"its file is not in tiktoken's cache, and is not fetched from {blobpath} by itself; do so once: "
                    "`python -c \"import tiktoken; tiktoken.get_encoding('NAME')\"`, TIKTOKEN_CACHE_DIR set for both"
                )
            return original(blobpath)

        read_file.headrace = True  # type: ignore[attr-defined]  # a mark: it is wrapped once
        load.read_file = read_file
    _fetching.not_here = True
    try:
        yield
    finally:
        _fetching.not_here = False


def _estimated(spec: str, error: Exception) -> Counter:
    logger.warning(
        "tokens of %r are estimated: its tokenizer could not be loaded (%s: %.400s). Install it with "
        "`pip install 'headrace[tokens]'` and see that its file is at hand, or say \"tokenizers:PATH\".",
        spec,
        type(error).__name__,
        error,
    )
    return Estimate(f"estimate (for {spec})")


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
