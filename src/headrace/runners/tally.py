"""Histograms of what the engine sees, filled a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Seconds from an event's time to the moment at which reads see it.
FRESHNESS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0)
ROWS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each bucket, one more than there are bounds, and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Tally:
    """How many values lie at or below each bound, and their sum. One thread adds, any reads.

    Args:
        bounds: The upper ends of the buckets, in order; one more is for all that is greater.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0
        self._edges = np.array(bounds)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Counts values, shape (n,)."""
        self.counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts))
        self.sum += float(values.sum())

    def histogram(self) -> Histogram:
        """What was counted up to now."""
        return Histogram(self.bounds, tuple(self.counts.tolist()), self.sum)
