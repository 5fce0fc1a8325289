"""A checkpoint's bytes: an index as arrays, so that a million points are read back in seconds.

A header in MessagePack, then the arrays as they lie in memory, then a mark that says that it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.errors import StorageError
from headrace.stores.vectors.wire import LENGTHS

_MARK = b"whole.\r\n"
_CHUNK = 4096


@dataclass(slots=True)
class Image:
    """An index at a moment. Points are numbered as their vectors lie, from the first cell on.

    Attributes:
        centroids: Of the cells.
        sizes: How many vectors each cell has.
        vectors: Of each cell; when read back, of all cells in one.
        ids: Of each point.
        texts: Each point's words, uint32, and their weights, float32, as bytes.
        words: Every word.
        entries: Of each word the numbers of its points.
        weights: And their weights.
        columns: What `Columns.dump` gave.
    """

    centroids: npt.NDArray[np.float32]
    sizes: list[int]
    vectors: Sequence[npt.NDArray[np.float32]]
    ids: list[bytes]
    texts: list[bytes]
    words: list[int]
    entries: Sequence[npt.NDArray[np.int32]]
    weights: Sequence[npt.NDArray[np.float32]]
    columns: dict[str, list[Any]]


def write_image(file: BinaryIO, image: Image) -> None:
    header = msgspec.msgpack.encode(
        {
            "sizes": image.sizes,
            "texts": [len(text) for text in image.texts],
            "words": image.words,
            "entries": [len(one) for one in image.entries],
            "columns": image.columns,
        }
    )
    file.write(LENGTHS.pack(0, len(header)))
    file.write(header)
    file.write(image.centroids.tobytes())
    for part in image.vectors:
        file.write(part.tobytes())
    for pieces in (image.ids, image.texts):
        _write_all(file, pieces)
    for arrays in (image.entries, image.weights):
        _write_all(file, (one.tobytes() for one in arrays))
    file.write(_MARK)


def _write_all(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    """Many small ones, some thousands at a time."""
    waiting: list[bytes] = []
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == _CHUNK:
            file.write(b"".join(waiting))
            waiting.clear()
    file.write(b"".join(waiting))


def read_image(path: Path, dimension: int) -> Image:
    """What was written.

    Raises:
        StorageError: It cannot be read, or is not whole.
    """
    try:
        with path.open("rb") as file:
            file.seek(-len(_MARK), os.SEEK_END)
            if file.read() != _MARK:
                raise StorageError(f"{path} is not whole; drop the index, and it is built anew")
            file.seek(0)
            return _read(file, dimension)
    except (OSError, msgspec.DecodeError, KeyError, ValueError) as error:
        raise StorageError(f"{path} cannot be read ({error}); drop the index, and it is built anew") from error


def _read(file: BinaryIO, dimension: int) -> Image:
    _, length = LENGTHS.unpack(file.read(LENGTHS.size))
    header = msgspec.msgpack.decode(file.read(length))
    sizes, points, total = header["sizes"], sum(header["sizes"]), sum(header["entries"])
    centroids = np.fromfile(file, np.float32, len(sizes) * dimension).reshape(len(sizes), dimension)
    vectors = np.fromfile(file, np.float32, points * dimension).reshape(points, dimension)
    ids = file.read(16 * points)
    texts, place = [], 0
    raw = file.read(sum(header["texts"]))
    for size in header["texts"]:
        texts.append(raw[place : place + size])
        place += size
    cuts = np.cumsum(header["entries"])[:-1]
    entries = np.fromfile(file, np.int32, total)
    weights = np.fromfile(file, np.float32, total)
    return Image(
        centroids,
        sizes,
        [vectors],
        [ids[start : start + 16] for start in range(0, len(ids), 16)],
        texts,
        header["words"],
        np.split(entries, cuts) if header["words"] else [],
        np.split(weights, cuts) if header["words"] else [],
        header["columns"],
    )
