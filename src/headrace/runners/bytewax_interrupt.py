"""Ctrl-C is for the main thread; a worker's computation that it hits is done again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def uninterrupted(compute: Callable[[], T]) -> T:
    """What `compute` returns, which changes nothing that can be seen.

    Polars raises KeyboardInterrupt in whichever thread waits for it.
    """
    for _ in range(3):
        try:
            return compute()
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise
    return compute()
