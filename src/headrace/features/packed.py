"""One table's rows as bytes: 64-bit words, little-endian, written and read columnar.

    word  0          the version, the table, a mark of the layout (16 bits), a checksum (32 bits) of what follows
          1          the tile's start
          2 …        isum, fsum, imax, fmax, m2: a word a column
          …          how many slots of each group are held; of each bag its length, twice, plus 1 if it is rough
          (…)        the length of the objects in bytes, where there can be any
    then, as many as there are:
          the slots: order, tie, and a word a column, one held slot after another
          the bags: value and count (of coded ones the count), one value after another
          the objects in MessagePack: a list a column of slots, a list a coded bag; filled up to a whole word

A row stands for itself: nothing else is needed to know which tile it is and that it is whole. The checksum adds the
words, each times an odd number of its own: a changed, missing or misplaced word shows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from headrace.errors import StorageError
from headrace.features.bags import Arena, Pool, ragged, value_dtype
from headrace.features.layout import INT_NULL, NEVER, REDUCED, Array, Bag, Blocks, Slots, TableLayout, fits_int64
from headrace.features.plain import Convert, converters
from headrace.features.table import Segments

VERSION = 1
WORD = np.dtype("<u8")
# Bytes 1 and those of the tile: where they can be looked at without decoding.
TABLE_AT = 1
_CHECK = np.uint64(32)
_LENGTH_SEED = np.uint64(0x9E3779B97F4A7C15)


class Weights:
    """An odd number for each position in a row, made as far as any row has needed."""

    def __init__(self) -> None:
        self._made = self._make(256)

    def __call__(self, upto: int) -> Array:
        if upto > len(self._made):
            self._made = self._make(1 << upto.bit_length())
        return self._made

    @staticmethod
    def _make(size: int) -> Array:
        """SplitMix64 of the position (Steele et al., OOPSLA 2014), made odd."""
        x = np.arange(1, size + 1, dtype=WORD) * _LENGTH_SEED
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        odd: Array = (x ^ (x >> np.uint64(31))) | np.uint64(1)
        return odd


_WEIGHTS = Weights()


@dataclass(frozen=True)
class _Group:
    """Slots of a table: the words a held slot has, and the columns that are objects."""

    number: int
    slots: Slots
    words: tuple[str, ...]  # the blocks whose values are words
    objects: tuple[tuple[str, tuple[Convert, Convert] | None], ...]


@dataclass(frozen=True)
class _Bag:
    number: int
    bag: Bag
    coded: bool
    convert: tuple[Convert, Convert] | None


class Packed:
    """Packs and unpacks the rows of the `number`th table of a view."""

    def __init__(self, layout: TableLayout, number: int) -> None:
        self.layout = layout
        self._spans: dict[str, tuple[int, int, Any]] = {}
        width = 2
        for name in (*REDUCED, "m2"):
            columns = len(layout.moments) if name == "m2" else len(layout.columns[name])
            if columns:
                dtype = np.dtype(np.float64) if name == "m2" else np.dtype(REDUCED[name][0])
                self._spans[name] = width, width + columns, dtype
                width += columns
        self._groups = [_group(n, slots) for n, slots in enumerate(layout.slots)]
        self._bags = [_bag(n, bag) for n, bag in enumerate(layout.bags)]
        self._counts = width
        width += len(self._groups) + len(self._bags)
        self._has_objects = any(g.objects for g in self._groups) or any(b.coded for b in self._bags)
        self._object_word = width
        self._width = width + self._has_objects
        self._ragged = bool(self._groups or self._bags)
        mark = hashlib.blake2b(layout.fingerprint().encode(), digest_size=2).digest()
        self._head = np.uint64(int.from_bytes(bytes([VERSION, number]) + mark, "little"))
        self._nothing = layout.empty(0)
        self._steps = np.arange(self._width)

    # -- to bytes --------------------------------------------------------------------------------------------------

    def pack(self, seg: Segments, rows: Array) -> list[bytes]:
        """The bytes of some of a table's rows."""
        fixed = np.empty((len(rows), self._width), WORD)
        fixed[:, 1] = seg.tile[rows].view(WORD)
        for name, (start, stop, _) in self._spans.items():
            fixed[:, start:stop] = seg.blocks[name][rows].view(WORD)
        if not self._ragged:
            fixed[:, 0] = self._header(_sums(fixed), self._width)
            data, size = fixed.tobytes(), self._width * 8
            return [data[at : at + size] for at in range(0, len(data), size)]
        parts: list[tuple[Array, Array]] = []  # of each ragged part: how many words of each row, and all of them
        objects: list[list[list[Any]]] = []  # of each part of objects: a list a row
        for place, group in enumerate(self._groups, self._counts):
            fixed[:, place] = self._pack_slots(group, seg, rows, parts, objects)
        for place, one in enumerate(self._bags, self._counts + len(self._groups)):
            fixed[:, place] = self._pack_bag(one, seg, rows, parts, objects)
        if self._has_objects:
            fixed[:, self._object_word] = self._pack_objects(len(rows), parts, objects)
        return self._joined(fixed, parts)

    @staticmethod
    def _pack_slots(
        group: _Group, seg: Segments, rows: Array, parts: list[tuple[Array, Array]], objects: list[list[list[Any]]]
    ) -> Array:
        held = seg.blocks[group.words[0]][rows] != NEVER
        count: Array = held.sum(axis=1)
        words = np.empty((int(count.sum()), len(group.words)), WORD)
        for place, name in enumerate(group.words):
            words[:, place] = seg.blocks[name][rows][held].view(WORD)
        parts.append((count * len(group.words), words.ravel()))
        for name, convert in group.objects:
            values = seg.blocks[name][rows][held].tolist()
            objects.append(_cut(values if convert is None else list(map(convert[0], values)), count))
        return count

    @staticmethod
    def _pack_bag(
        one: _Bag, seg: Segments, rows: Array, parts: list[tuple[Array, Array]], objects: list[list[list[Any]]]
    ) -> Array:
        block, arena = seg.blocks[f"b{one.number}"][rows], seg.arenas[one.number]
        held, length = ragged(block[:, 0], block[:, 1]), block[:, 1]
        counts = arena.counts[held].view(WORD)
        if one.coded:
            pool = arena.pool.values
            values = [pool[code] for code in arena.values[held].tolist()]
            objects.append(_cut(values if one.convert is None else list(map(one.convert[0], values)), length))
            parts.append((length, counts))
        else:
            parts.append((length * 2, np.stack([arena.values[held].view(WORD), counts], axis=1).ravel()))
        packed: Array = length * 2 + (block[:, 2] > 0)
        return packed

    @staticmethod
    def _pack_objects(rows: int, parts: list[tuple[Array, Array]], objects: list[list[list[Any]]]) -> Array:
        encoder = msgspec.msgpack.Encoder()
        packed = [encoder.encode(columns) for columns in zip(*objects, strict=True)]
        size = np.fromiter(map(len, packed), np.int64, rows)
        data = b"".join([one + bytes(-len(one) % 8) for one in packed])
        parts.append(((size + 7) // 8, np.frombuffer(data, WORD)))
        return size

    def _joined(self, fixed: Array, parts: list[tuple[Array, Array]]) -> list[bytes]:
        """Rows of fixed words and ragged ones, one after another, cut."""
        length = self._width + np.sum([size for size, _ in parts], axis=0)
        ends = np.cumsum(length)
        starts = ends - length
        words = np.empty(int(ends[-1]) if len(ends) else 0, WORD)
        words[starts[:, None] + self._steps] = fixed
        at = starts + self._width
        for size, part in parts:
            words[ragged(at, size)] = part
            at = at + size
        if len(starts):
            words[starts] = self._header(_ragged_sums(words, starts, length), length)
        joined = words.tobytes()
        return [joined[a:b] for a, b in zip((starts * 8).tolist(), (ends * 8).tolist(), strict=True)]

    def _header(self, sums: Array, length: Array | int) -> Array:
        total = sums + np.asarray(length).astype(WORD) * _LENGTH_SEED
        header: Array = ((total >> _CHECK) << _CHECK) | self._head
        return header

    # -- from bytes ------------------------------------------------------------------------------------------------

    def unpack(self, rows: list[bytes], owner: Array | None = None) -> tuple[Array, Blocks, list[Arena]]:
        """The tiles, blocks and arenas of rows, by owner (the key that each is of, in growing order) and tile.

        Raises:
            StorageError: The bytes are not rows of this table, or not whole.
        """
        if not rows:
            return np.empty(0, np.int64), self._nothing, [_arena(one.bag, 0) for one in self._bags]
        data = b"".join(rows)
        if self._ragged:
            return self._unpack_ragged(rows, data, owner)
        if len(data) != len(rows) * self._width * 8:
            raise self._corrupt(rows)
        fixed = np.frombuffer(data, WORD).reshape(len(rows), self._width)
        if (fixed[:, 0] != self._header(_sums(fixed), self._width)).any():
            raise self._corrupt(rows)
        order = _order(fixed[:, 1].view(np.int64), owner)
        if order is not None:
            fixed = fixed[order]
        return fixed[:, 1].view(np.int64), self._reduced(fixed), []

    def _unpack_ragged(self, rows: list[bytes], data: bytes, owner: Array | None) -> tuple[Array, Blocks, list[Arena]]:
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        if (sizes % 8).any() or (sizes < self._width * 8).any():
            raise self._corrupt(rows)
        words, length = np.frombuffer(data, WORD), sizes // 8
        starts = np.cumsum(length) - length
        if (words[starts] != self._header(_ragged_sums(words, starts, length), length)).any():
            raise self._corrupt(rows)
        order = _order(words[starts + 1].view(np.int64), owner)
        if order is not None:
            starts, length = starts[order], length[order]
        fixed = words[starts[:, None] + self._steps]
        blocks = self._reduced(fixed)
        counts = fixed[:, self._counts :].astype(np.int64)
        at = starts + self._width
        for place, group in enumerate(self._groups):
            at = self._unpack_slots(group, words, counts[:, place], at, blocks)
        arenas = []
        for place, one in enumerate(self._bags, len(self._groups)):
            arena, at = self._unpack_bag(one, words, counts[:, place], at, blocks)
            arenas.append(arena)
        if self._has_objects:
            size = counts[:, -1]
            objects = self._objects(data, at * 8, size, rows)
            self._unpack_objects(objects, counts, blocks, arenas, rows)
            at = at + (size + 7) // 8
        if (at != starts + length).any():
            raise self._corrupt(rows)
        return fixed[:, 1].view(np.int64), blocks, arenas

    def _reduced(self, fixed: Array) -> Blocks:
        return {name: fixed[:, start:stop].view(dtype) for name, (start, stop, dtype) in self._spans.items()}

    @staticmethod
    def _unpack_slots(group: _Group, words: Array, count: Array, at: Array, blocks: Blocks) -> Array:
        shape = len(count), group.slots.n
        held = np.arange(group.slots.n) < count[:, None]
        size = count * len(group.words)
        found = words[ragged(at, size)].reshape(-1, len(group.words))
        for place, name in enumerate(group.words):
            kind = "int" if place < 2 else group.slots.kinds[int(name.rpartition(".")[2])]
            empty, dtype = (np.nan, np.float64) if kind == "float" else (NEVER if place < 2 else INT_NULL, np.int64)
            blocks[name] = np.full(shape, empty, dtype)
            blocks[name][held] = found[:, place].view(dtype)
        for name, _ in group.objects:
            blocks[name] = np.full(shape, None, object)
        after: Array = at + size
        return after

    @staticmethod
    def _unpack_bag(one: _Bag, words: Array, packed: Array, at: Array, blocks: Blocks) -> tuple[Arena, Array]:
        length = packed >> 1
        arena = _arena(one.bag, int(length.sum()))
        wide = 1 if one.coded else 2
        found = words[ragged(at, length * wide)].reshape(-1, wide)
        arena.counts = found[:, wide - 1].view(np.int64)
        arena.values = np.arange(len(found)) if one.coded else found[:, 0].view(arena.values.dtype)
        blocks[f"b{one.number}"] = np.stack([np.cumsum(length) - length, length, packed & 1], axis=1)
        return arena, at + length * wide

    def _objects(self, data: bytes, at: Array, size: Array, rows: list[bytes]) -> list[list[list[Any]]]:
        decoder = msgspec.msgpack.Decoder(list[list[Any]])
        try:
            return [
                decoder.decode(data[start : start + length])
                for start, length in zip(at.tolist(), size.tolist(), strict=True)
            ]
        except msgspec.DecodeError:
            raise self._corrupt(rows) from None

    def _unpack_objects(
        self, objects: list[list[list[Any]]], counts: Array, blocks: Blocks, arenas: list[Arena], rows: list[bytes]
    ) -> None:
        columns = list(zip(*objects, strict=True))
        for place, group in enumerate(self._groups):
            held = np.arange(group.slots.n) < counts[:, place, None]
            for name, convert in group.objects:
                values = self._flat(columns.pop(0), convert, int(held.sum()), rows)
                filled = np.empty(len(values), object)
                filled[:] = values
                blocks[name][held] = filled
        for one, arena in zip(self._bags, arenas, strict=True):
            if one.coded:
                arena.pool.values = self._flat(columns.pop(0), one.convert, len(arena.values), rows)

    def _flat(self, column: Any, convert: tuple[Convert, Convert] | None, size: int, rows: list[bytes]) -> list[Any]:
        values = [value for of_row in column for value in of_row]
        if len(values) != size:
            raise self._corrupt(rows)
        return values if convert is None else list(map(convert[1], values))

    def _corrupt(self, rows: list[bytes]) -> StorageError:
        head = int(self._head).to_bytes(8, "little")[:4]
        other = next((row for row in rows if row[:4] != head), None)
        if other is not None:
            found = f"rows that begin with {other[:4].hex() or 'nothing'}"
            return StorageError(
                f"the online store: expected rows that begin with {head.hex()} (version {VERSION}), found {found}: "
                "another version or declaration wrote them; let the engine write the view again"
            )
        return StorageError(
            "the online store: a row's checksum is wrong, it is cut or was changed by others; let the engine write "
            "the view again (restart it), and see that nothing else writes to these keys"
        )


def _sums(fixed: Array) -> Array:
    """The weighted sum of each row's words but the first."""
    weights = _WEIGHTS(fixed.shape[1])[1 : fixed.shape[1]]
    sums: Array = (fixed[:, 1:] * weights).sum(axis=1, dtype=WORD)
    return sums


def _ragged_sums(words: Array, starts: Array, length: Array) -> Array:
    """The same for rows of different lengths: `starts` must grow."""
    weighed = words * _WEIGHTS(int(length.max()))[np.arange(len(words)) - np.repeat(starts, length)]
    weighed[starts] = 0
    sums: Array = np.add.reduceat(weighed, starts, dtype=WORD)
    return sums


def _order(tile: Array, owner: Array | None) -> Array | None:
    """What sorts rows by owner, then tile; None if they are sorted."""
    if owner is None:
        return np.argsort(tile) if (tile[1:] < tile[:-1]).any() else None
    return np.lexsort((tile, owner))


def _cut(values: list[Any], count: Array) -> list[list[Any]]:
    """A list cut into one of `count` values a row."""
    ends = np.cumsum(count)
    return [values[a:b] for a, b in zip((ends - count).tolist(), ends.tolist(), strict=True)]


def _group(number: int, slots: Slots) -> _Group:
    objects = tuple(
        (f"s{number}.{column}", converters(dtype))
        for column, (kind, dtype) in enumerate(zip(slots.kinds, slots.dtypes, strict=True))
        if kind == "object"
    )
    plain = [f"s{number}.{column}" for column, kind in enumerate(slots.kinds) if kind != "object"]
    return _Group(number, slots, (f"s{number}.order", f"s{number}.tie", *plain), objects)


def _bag(number: int, bag: Bag) -> _Bag:
    coded = bag.purpose == "top" and not (bag.dtype.is_float() or fits_int64(bag.dtype))
    return _Bag(number, bag, coded, converters(bag.dtype) if coded else None)


def _arena(bag: Bag, size: int) -> Arena:
    return Arena(bag, np.empty(size, value_dtype(bag)), np.empty(size, np.int64), size, Pool())
