"""An embedder by its name, loaded once a process: "minilm", "static", "hash:384", "openai:NAME", …"""

from __future__ import annotations

import threading
from typing import Any

from headrace.documents.embed.base import Embedder
from headrace.errors import ConfigError
from headrace.registry import DEFAULT as CONNECTORS

_lock = threading.Lock()
_loading: dict[Any, threading.Lock] = {}
_loaded: dict[Any, Embedder] = {}


def embedder(spec: str | Embedder, **options: Any) -> Embedder:
    """The embedder of that name and those options: the same object each time, for all threads.

    Args:
        spec: A name, or an object that is an embedder and is given back as it is.
        options: What the embedder takes, by name.

    Raises:
        ConfigError: There is no such embedder, it does not take these options, or it cannot be loaded.
        MissingDependencyError: It needs a package that is not installed.
    """
    if not isinstance(spec, str):
        return _checked(spec, options)
    key = (spec, tuple(sorted((name, repr(value)) for name, value in options.items())))
    with _lock:
        turn = _loading.setdefault(key, threading.Lock())
    # Others may be loaded meanwhile; who wants this one waits for it.
    with turn:
        if key not in _loaded:
            try:
                _loaded[key] = CONNECTORS.create("embed", spec, **options)
            except TypeError as error:
                if not options:
                    raise
                raise ConfigError(f"the embedder {spec!r} does not take {sorted(options)}: {error}") from error
        return _loaded[key]


def _checked(given: Any, options: dict[str, Any]) -> Embedder:
    missing = [name for name in ("name", "dimension", "limit", "offsets", "embed") if not hasattr(given, name)]
    if missing or options:
        found = (
            f"a {type(given).__name__} without {', '.join(missing)}" if missing else f"options {sorted(options)} too"
        )
        raise ConfigError(
            f"expected the name of an embedder such as 'minilm', or an object that is one, found {found}; see "
            "headrace.documents.embed.base"
        )
    return given  # type: ignore[no-any-return]
