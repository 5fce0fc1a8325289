"""How rare words are, for engines that do not weigh them: the counts are asked of the engine and kept for a while.

The inverse document frequency moves with the logarithm of the counts, so counts that are a little old do no harm: they
are kept until a hundredth of the points has been written since, or for some seconds, since other processes write too.
An index of less than a hundred points is always counted anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from headrace.stores.vectors.base import Terms

_MOST = 100_000


class Frequencies:
    """The counts of an index.

    Args:
        total: Asks how many points there are.
        count: Asks how many points have a word.
        seconds: For how long an answer is good.
        at_once: How many words are asked for at once.
    """

    def __init__(
        self, total: Callable[[], int], count: Callable[[int], int], seconds: float = 10.0, at_once: int = 8
    ) -> None:
        self._ask_total, self._ask_count = total, count
        self._seconds, self._at_once = seconds, at_once
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}
        self._total: int | None = None
        self._since = 0.0
        self._changed = 0

    def changed(self, points: int) -> None:
        """So many points were written or taken away."""
        with self._lock:
            self._changed += points
            if self._changed * 100 > (self._total or 0):
                self._forget()

    def _forget(self) -> None:
        self._known, self._total, self._changed = {}, None, 0

    def rarity(self, terms: Terms) -> npt.NDArray[np.float64]:
        """The inverse document frequency of each word, as `Terms` defines it."""
        with self._lock:
            if time.monotonic() - self._since > self._seconds or len(self._known) > _MOST:
                self._forget()
            known, total, changed = dict(self._known), self._total, self._changed
        if total is None:
            total = self._ask_total()
        missing = [term for term in terms.ids.tolist() if term not in known]
        if len(missing) > 1:
            with ThreadPoolExecutor(min(self._at_once, len(missing))) as pool:
                found = dict(zip(missing, pool.map(self._ask_count, missing), strict=True))
        else:
            found = {term: self._ask_count(term) for term in missing}
        with self._lock:
            # What was counted while the index was written may be of before or after.
            if changed == self._changed and self._total in (None, total):
                if self._total is None:
                    self._total, self._since = total, time.monotonic()
                self._known.update(found)
        known |= found
        frequency = np.array([min(known[term], total) for term in terms.ids.tolist()], np.float64)
        return np.log1p((total - frequency + 0.5) / (frequency + 0.5))
