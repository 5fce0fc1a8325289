"""How an index's process and its parent talk: frames over a socket, a MessagePack header and raw arrays.

A frame is the lengths of both parts, the header, and a body in which arrays lie one after another, as they lie in
memory: a vector is never turned into Python numbers on its way. Ids are the 16 bytes of their UUIDs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from headrace.errors import ConfigError, StorageError
from headrace.stores.vectors.base import Found, Point, Terms, Vector

LENGTHS = struct.Struct("<IQ")
# More than any frame of ours has; a longer one is not a frame of ours.
MOST_HEADER, MOST_BODY = 1 << 28, 1 << 32

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class Frame:
    """What one side sends: the header, the body, and both as they came."""

    header: dict[str, Any]
    body: memoryview
    whole: memoryview

    def arrays(self, *kinds: tuple[Any, int]) -> list[npt.NDArray[Any]]:
        """The body as arrays: (type, length) of each, in their order."""
        found, place = [], 0
        for kind, length in kinds:
            found.append(np.frombuffer(self.body, kind, length, place))
            place += found[-1].nbytes
        return found


def pack(header: Mapping[str, Any], *parts: npt.NDArray[Any] | bytes) -> bytes:
    """A frame, as it is sent."""
    head = _encode(header)
    body = [part if isinstance(part, bytes) else part.tobytes() for part in parts]
    return b"".join([LENGTHS.pack(len(head), sum(map(len, body))), head, *body])


class Reader:
    """Puts frames together from what arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def wanted(self) -> int:
        """How many more bytes the frame in progress needs, as far as is known."""
        return max(self._size() - len(self._buffer), 1)

    def feed(self, data: bytes) -> Frame | None:
        """Takes what arrived, and gives a frame once it is whole; the other side sends one at a time."""
        self._buffer += data
        size = self._size()
        if len(self._buffer) < LENGTHS.size or len(self._buffer) < size:
            return None
        if len(self._buffer) > size:
            raise StorageError(f"expected a frame of {size} bytes, found {len(self._buffer)}")
        whole, self._buffer = self._buffer, bytearray()
        head, _ = LENGTHS.unpack_from(whole)
        view = memoryview(whole)
        start = LENGTHS.size + head
        return Frame(_decode(view[LENGTHS.size : start]), view[start:], view)

    def _size(self) -> int:
        if len(self._buffer) < LENGTHS.size:
            return LENGTHS.size
        head, body = LENGTHS.unpack_from(self._buffer)
        if head > MOST_HEADER or body > MOST_BODY:
            raise StorageError(f"expected a frame of the index's process, found lengths of {head} and {body} bytes")
        return LENGTHS.size + int(head) + int(body)


@dataclass(frozen=True, slots=True)
class Batch:
    """Points to write and ids to take away, as they travel.

    Attributes:
        ids: Of the points, each once.
        vectors: Shape (n, dimension), float32.
        words: Of each point, ascending.
        weights: Of those words.
        payloads: The columns that can be filtered by, without nulls.
        deletes: Ids.
    """

    ids: list[bytes]
    vectors: npt.NDArray[np.float32]
    words: list[npt.NDArray[np.uint32]]
    weights: list[npt.NDArray[np.float32]]
    payloads: list[dict[str, Any]]
    deletes: list[bytes]

    def terms(self) -> list[Terms]:
        return [Terms(words, weights) for words, weights in zip(self.words, self.weights, strict=True)]

    def part(self, start: int, stop: int) -> Batch:
        """Some of its points, and no deletes."""
        place = slice(start, stop)
        return Batch(
            self.ids[place], self.vectors[place], self.words[place], self.weights[place], self.payloads[place], []
        )


def id_bytes(text: str) -> bytes:
    """An id as it travels."""
    try:
        found = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        found = b""
    if len(found) != 16:
        raise ConfigError(f"expected a point's id to be the text of a UUID, found {text!r}")
    return found


def id_text(data: bytes) -> str:
    """An id as everybody else has it."""
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def kept(payload: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """What a filter can ask of a payload, and nothing else: no nulls, and of a text its hash.

    Texts have no order, so a hash says all that is asked of them; a column may well hold the whole document.
    """
    found = {}
    for name in columns:
        value = payload.get(name)
        if isinstance(value, list | tuple | set | frozenset):
            value = [hashed(item) for item in value if item is not None] or None
        if value is not None:
            found[name] = hashed(value)
    return found


def hashed(value: Any) -> Any:
    """A text as an integer of 64 bits, a boolean as 0 or 1; any other number as it is."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return xxhash.xxh3_64_intdigest(value.encode("utf-8", "surrogatepass")) - (1 << 63)
    return value


def pack_write(
    name: str, dimension: int, columns: Iterable[str], upserts: Sequence[Point], deletes: Sequence[str]
) -> bytes:
    """A write as a frame.

    Raises:
        ConfigError: A vector has another length.
    """
    for point in upserts:
        if point.vector.shape != (dimension,):
            raise ConfigError(
                f"expected vectors of {dimension} numbers, found the shape {point.vector.shape}; "
                "the index was made for another embedder"
            )
    header = {
        "do": "write",
        "name": name,
        "sizes": [len(point.terms.ids) for point in upserts],
        "payloads": [kept(point.payload, columns) for point in upserts],
        "deletes": len(deletes),
    }
    return pack(
        header,
        *[np.ascontiguousarray(point.vector, np.float32) for point in upserts],
        *[np.ascontiguousarray(point.terms.ids, np.uint32) for point in upserts],
        *[np.ascontiguousarray(point.terms.weights, np.float32) for point in upserts],
        *[id_bytes(point.id) for point in upserts],
        *[id_bytes(one) for one in deletes],
    )


def unpack_write(frame: Frame, dimension: int) -> Batch:
    """The other side's."""
    sizes, deleted = frame.header["sizes"], frame.header["deletes"]
    count, total = len(sizes), sum(sizes)
    vectors, words, weights, ids = frame.arrays(
        (np.float32, count * dimension), (np.uint32, total), (np.float32, total), (np.uint8, 16 * (count + deleted))
    )
    cuts = np.cumsum(sizes)[:-1]
    raw = ids.tobytes()
    texts = [raw[place : place + 16] for place in range(0, len(raw), 16)]
    # The last of equal ids counts.
    latest = {one: n for n, one in enumerate(texts[:count])}
    batch = Batch(
        texts[:count],
        vectors.reshape(count, dimension),
        np.split(words, cuts) if count else [],
        np.split(weights, cuts) if count else [],
        frame.header["payloads"],
        texts[count:],
    )
    return batch if len(latest) == count else _only(batch, list(latest.values()))


def _only(batch: Batch, numbers: list[int]) -> Batch:
    return Batch(
        [batch.ids[n] for n in numbers],
        batch.vectors[numbers],
        [batch.words[n] for n in numbers],
        [batch.weights[n] for n in numbers],
        [batch.payloads[n] for n in numbers],
        batch.deletes,
    )


def pack_search(name: str, k: int, vector: Vector | None, terms: Terms | None, where: dict[str, Any] | None) -> bytes:
    """A question as a frame; the condition in JSON form."""
    length, size = 0 if vector is None else len(vector), None if terms is None else len(terms.ids)
    header = {"do": "search", "name": name, "k": k, "dimension": length, "words": size, "where": where}
    parts = [] if vector is None else [np.ascontiguousarray(vector, np.float32)]
    if terms is not None:
        parts += [np.ascontiguousarray(terms.ids, np.uint32), np.ascontiguousarray(terms.weights, np.float32)]
    return pack(header, *parts)


def unpack_search(frame: Frame) -> tuple[Vector | None, Terms | None]:
    """The other side's: what is asked for by meaning and by words."""
    length, size = frame.header["dimension"], frame.header["words"]
    vector, ids, weights = frame.arrays((np.float32, length), (np.uint32, size or 0), (np.float32, size or 0))
    return (vector if length else None), (None if size is None else Terms(ids, weights))


Ranked = Sequence[tuple[bytes, float]]


def pack_found(dense: Ranked, sparse: Ranked) -> bytes:
    """An answer as a frame."""
    scores = np.array([score for _, score in (*dense, *sparse)], np.float32)
    return pack({"dense": len(dense), "sparse": len(sparse)}, scores, *[one for one, _ in (*dense, *sparse)])


def unpack_found(frame: Frame) -> Found:
    """The other side's."""
    dense, sparse = frame.header["dense"], frame.header["sparse"]
    count = dense + sparse
    scores, raw = frame.arrays((np.float32, count), (np.uint8, 16 * count))
    data = raw.tobytes()
    pairs = [(id_text(data[16 * n : 16 * n + 16]), score) for n, score in enumerate(scores.tolist())]
    return Found(pairs[:dense], pairs[dense:])
