"""Vectors in cells: nearest neighbours by looking into the cells near the question, kept as points come and go.

An inverted file. Each cell has a centroid and holds the vectors nearest to it, side by side, so that comparing a
question with all of a cell is one matrix product. A search ranks the centroids and looks into the nearest cells until
it has compared some twenty thousand vectors; with no more than that in the index it is exact.

A point that comes is put into its cell and one that goes leaves it: the same small work however many there are. A cell
that has grown too large is split in two, and vectors of the cells around, to which one of the new centroids is nearer
than their own, move there; one that has become too small is dissolved into its neighbours. So the cells always fit the
vectors that are there, and there is nothing to train and nothing to optimise.

Theory: the inverted file of Jégou et al., "Product Quantization for Nearest Neighbor Search", 2011, without the codes;
splitting and reassigning as in Xu et al., "SPFresh: Incremental In-Place Update for Billion-Scale Vector Search", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.stores.vectors.base import Vector

Matrix = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

# A cell of this many vectors is split; one of an eighth of them is taken for an accident of deletes.
LARGEST = 400
SMALLEST = 40
# How many vectors a search compares, at least: recall@10 is 0.97 at 200,000 chunks and 0.99 at a million.
SCAN = 20_000
# And for each answer that is asked for, if that is more: recall@100 is 0.97 at 100,000 and 200,000 chunks.
SCAN_PER_ANSWER = 200
# Of those that pass a filter, and how many more than are asked for.
PASSING, PER_ANSWER = 1_000, 40
# Up to so many that pass are compared one by one, wherever they are.
FEW = 4_096
# How many cells around a split one give up vectors; and rounds of 2-means.
_AROUND, _ROUNDS = 8, 4
# A part smaller than this of a cell is not a cluster but an outlier.
_LEAST = 8
_NEARER = 1e-5


@dataclass(slots=True)
class _Cell:
    """Vectors and the slots of their points; the first `used` count."""

    vectors: Matrix
    slots: Slots
    used: int

    def rows(self) -> Matrix:
        return self.vectors[: self.used]

    def members(self) -> Slots:
        return self.slots[: self.used]

    def reserve(self, size: int) -> None:
        if size > len(self.slots):
            size = max(size, self.used + self.used // 4 + 8)
            vectors, slots = np.empty((size, self.vectors.shape[1]), np.float32), np.empty(size, np.int32)
            vectors[: self.used], slots[: self.used] = self.rows(), self.members()
            self.vectors, self.slots = vectors, slots


class Cells:
    """The cells of an index. Slots are small integers of the owner's; one thread."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._centroids = np.zeros((16, dimension), np.float32)
        self._cells: list[_Cell] = []
        # Where a slot's vector is: its cell, and the row there.
        self._cell = np.zeros(64, np.int32)
        self._row = np.zeros(64, np.int32)

    def __len__(self) -> int:
        return len(self._cells)

    # -- writing ---------------------------------------------------------------------------------------------------

    def add(self, slots: Slots, vectors: Matrix) -> None:
        """Points come, each at a slot where there is none."""
        if not len(slots):
            return
        self._reserve(int(slots.max()) + 1)
        if not self._cells:
            self._new(vectors[:1].mean(axis=0), vectors[:0], slots[:0])
        nearest = np.argmax(vectors @ self._centroids[: len(self._cells)].T, axis=1)
        touched = self._place(slots, vectors, nearest)
        for number in touched:
            while self._cells[number].used > LARGEST:
                self._split(number)

    def remove(self, slots: Sequence[int]) -> None:
        """Points go, which are there."""
        touched = set()
        for slot in slots:
            number, row = int(self._cell[slot]), int(self._row[slot])
            cell = self._cells[number]
            last = cell.used - 1
            if row != last:
                moved = cell.slots[last]
                cell.vectors[row], cell.slots[row] = cell.vectors[last], moved
                self._row[moved] = row
            cell.used = last
            touched.add(number)
        # From the highest number down: dissolving a cell gives its number to the last one.
        for number in sorted(touched, reverse=True):
            if self._cells[number].used < SMALLEST and len(self._cells) > 1:
                self._dissolve(number)

    def _reserve(self, slots: int) -> None:
        if slots > len(self._cell):
            more = np.zeros(max(slots - len(self._cell), len(self._cell)), np.int32)
            self._cell, self._row = np.concatenate([self._cell, more]), np.concatenate([self._row, more])

    def _place(self, slots: Slots, vectors: Matrix, numbers: npt.NDArray[np.intp]) -> list[int]:
        """Appends vectors to the cells of these numbers; returns the cells, each once."""
        order = np.argsort(numbers, kind="stable")
        numbers, slots = numbers[order], slots[order]
        runs = _runs(numbers)
        for number, start, end in runs:
            cell = self._cells[number]
            used = cell.used + end - start
            cell.reserve(used)
            cell.vectors[cell.used : used] = vectors[order[start:end]]
            cell.slots[cell.used : used] = slots[start:end]
            self._row[slots[start:end]] = np.arange(cell.used, used)
            cell.used = used
        self._cell[slots] = numbers
        return [number for number, _, _ in runs]

    def _new(self, centroid: Vector, vectors: Matrix, slots: Slots) -> int:
        number = len(self._cells)
        if number == len(self._centroids):
            self._centroids = np.concatenate([self._centroids, np.zeros_like(self._centroids)])
        self._cells.append(_Cell(np.empty((0, self._dimension), np.float32), np.empty(0, np.int32), 0))
        self._fill(number, centroid, vectors, slots)
        return number

    def _fill(self, number: int, centroid: Vector | None, vectors: Matrix, slots: Slots) -> None:
        """Makes a cell hold exactly these."""
        if centroid is not None:
            self._centroids[number] = centroid
        self._cells[number] = _Cell(vectors, slots, len(slots))
        self._cell[slots] = number
        self._row[slots] = np.arange(len(slots))

    def _split(self, number: int) -> None:
        cell = self._cells[number]
        vectors, slots = cell.rows(), cell.members()
        left = _halves(vectors)
        one, other = _centre(vectors[left]), _centre(vectors[~left])
        new = self._new(other, vectors[~left], slots[~left])
        self._fill(number, one, vectors[left], slots[left])
        # Vectors around the new centroids go to the nearest of the cells there.
        count = len(self._cells)
        around = np.argsort(-(self._centroids[:count] @ (one + other)))[:_AROUND]
        around = np.unique(np.concatenate([around, np.array([number, new])]))
        for each in around.tolist():
            self._reassign(each, around)

    def _reassign(self, number: int, around: npt.NDArray[np.intp]) -> None:
        cell = self._cells[number]
        if not cell.used:
            return
        vectors, slots = cell.rows(), cell.members()
        similar = vectors @ self._centroids[around].T
        best = np.argmax(similar, axis=1)
        nearest = around[best]
        # Nearer by more than rounding: cells of equal vectors have equal centroids, and keep what they have.
        own = vectors @ self._centroids[number]
        moving = (nearest != number) & (similar[np.arange(len(best)), best] > own + _NEARER)
        if not moving.any() or moving.all():
            return
        moved, to, going = vectors[moving], nearest[moving], slots[moving]
        self._fill(number, None, vectors[~moving], slots[~moving])
        self._place(going, moved, to)

    def _dissolve(self, number: int) -> None:
        """Takes a cell away, gives its number to the last one, and its vectors to their nearest."""
        gone, last = self._cells[number], len(self._cells) - 1
        if number != last:
            self._cells[number] = self._cells[last]
            self._centroids[number] = self._centroids[last]
            self._cell[self._cells[number].members()] = number
        self._cells.pop()
        if gone.used:
            self.add(gone.members().copy(), gone.rows().copy())

    # -- searching -------------------------------------------------------------------------------------------------

    def search(self, vector: Vector, k: int, passing: Flags | None = None) -> list[tuple[int, float]]:
        """The k nearest as (slot, cosine), best first.

        Args:
            passing: Which slots may be found, shape (slots,); None for all.
        """
        if passing is not None and (chosen := np.flatnonzero(passing)).size <= FEW:
            slots, scores = self._compare(chosen, vector)
        else:
            slots, scores = self._scan(vector, k, passing)
        if len(scores) > k:
            best = np.argpartition(-scores, k - 1)[:k]
            slots, scores = slots[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        return list(zip(slots[order].tolist(), scores[order].tolist(), strict=True))

    def _scan(self, vector: Vector, k: int, passing: Flags | None) -> tuple[Slots, Matrix]:
        near = np.argsort(-(self._centroids[: len(self._cells)] @ vector))
        scan, enough = max(SCAN, k * SCAN_PER_ANSWER), max(PASSING, k * PER_ANSWER)
        found: list[Slots] = [np.empty(0, np.int32)]
        scores: list[Matrix] = [np.empty(0, np.float32)]
        compared = passed = 0
        for number in near.tolist():
            cell = self._cells[number]
            slots, similar = cell.members(), cell.rows() @ vector
            compared += cell.used
            if passing is not None:
                through = passing[slots]
                slots, similar = slots[through], similar[through]
            passed += len(slots)
            found.append(slots)
            scores.append(similar)
            if compared >= scan and passed >= enough:
                break
        return np.concatenate(found), np.concatenate(scores)

    def _compare(self, slots: npt.NDArray[np.intp], vector: Vector) -> tuple[Slots, Matrix]:
        """Just these, wherever they are."""
        numbers = self._cell[slots]
        order = np.argsort(numbers, kind="stable")
        slots, numbers = slots[order], numbers[order]
        scores = np.empty(len(slots), np.float32)
        for number, start, end in _runs(numbers):
            cell = self._cells[number]
            scores[start:end] = cell.vectors[self._row[slots[start:end]]] @ vector
        return slots.astype(np.int32), scores

    # -- keeping ---------------------------------------------------------------------------------------------------

    def dump(self) -> tuple[Matrix, list[Slots], list[Matrix]]:
        """The centroids, and of each cell the slots and the vectors, as they lie in memory."""
        return (
            self._centroids[: len(self._cells)],
            [cell.members() for cell in self._cells],
            [cell.rows() for cell in self._cells],
        )

    @classmethod
    def load(cls, centroids: Matrix, sizes: Sequence[int], vectors: Matrix) -> Cells:
        """Cells of slots that are numbered as their vectors lie: 0, 1, 2 … from the first cell on."""
        loaded = cls(vectors.shape[1])
        loaded._reserve(len(vectors))
        start = 0
        for centroid, size in zip(centroids, sizes, strict=True):
            slots = np.arange(start, start + size, dtype=np.int32)
            loaded._new(centroid, vectors[start : start + size].copy(), slots)
            start += size
        return loaded


def _runs(numbers: npt.NDArray[Any]) -> list[tuple[int, int, int]]:
    """Runs of equal numbers: (number, start, end) of each."""
    if not len(numbers):
        return []
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    ends = np.append(starts[1:], len(numbers))
    return list(zip(numbers[starts].tolist(), starts.tolist(), ends.tolist(), strict=True))


def _centre(vectors: Matrix) -> Vector:
    mean: Vector = vectors.mean(axis=0)
    return mean / np.float32(max(float(np.linalg.norm(mean)), 1e-12))


def _halves(vectors: Matrix) -> Flags:
    """Which vectors are of the first of two clusters: 2-means along the direction in which they differ most."""
    centred = vectors - vectors.mean(axis=0)
    direction = centred[int(np.argmax(np.einsum("ij,ij->i", centred, centred)))]
    for _ in range(_ROUNDS):
        direction = centred.T @ (centred @ direction)
        direction /= np.float32(max(float(np.linalg.norm(direction)), 1e-30))
    along = centred @ direction
    left: Flags = along > 0
    for _ in range(_ROUNDS):
        if not len(left) // _LEAST <= left.sum() <= len(left) - len(left) // _LEAST:
            break
        along = vectors @ (_centre(vectors[left]) - _centre(vectors[~left]))
        left = along > 0
    if not len(left) // _LEAST <= left.sum() <= len(left) - len(left) // _LEAST:
        # Outliers, or equal vectors: cut in the middle of the order.
        left = np.zeros(len(along), np.bool_)
        left[np.argsort(along, kind="stable")[len(along) // 2 :]] = True
    return left
