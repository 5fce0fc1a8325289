"""What a source brings becomes valid rows, and what cannot be used is set aside with where it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.errors import HeadraceError, StorageError
from headrace.formats import decode, decode_frame
from headrace.formats.messages import message_decoder
from headrace.runners.inbox import Work
from headrace.runners.setaside import SetAside
from headrace.schema import Decoded, Reject, Schema
from headrace.sources.base import Chunk, Decoding, Letter, Source, Trace


class Intake:
    """Decodes the chunks of one reading of a source.

    Args:
        stream: The stream's name.
        schema: What rows must be.
        source: Where the chunks come from.
        setaside: Where that goes which cannot be used.
        now: The app's clock.
    """

    def __init__(self, stream: str, schema: Schema, source: Source, setaside: SetAside, now: Callable[[], int]) -> None:
        self._stream = stream
        self._schema = schema
        self._name = source.name
        self._setaside = setaside
        self._now = now
        self._decode = source.decoder(schema) if isinstance(source, Decoding) else self._plainly
        self._of_messages: dict[str, Callable[..., Decoded]] = {}

    def take(self, chunk: Chunk) -> Work:
        """The chunk's valid rows.

        Raises:
            StorageError: Something that is needed to decode it is out of reach; nothing of it was set aside.
        """
        decoded = self._decoded(chunk)
        if chunk.trace is not None and decoded.rejects:
            letters = [Letter(reject.reason, chunk.trace(reject.row)) for reject in decoded.rejects]
            self._setaside.traced(self._stream, letters, "rejected")
        rejects = [] if chunk.trace is not None else [*decoded.rejects]
        rejects += [
            Reject(-1, f"{skipped.reason} ({skipped.path}, from {skipped.start} to {skipped.end})", skipped.raw)
            for skipped in chunk.skipped
        ]
        if rejects:
            self._setaside.rejected(self._stream, chunk.origin or self._name, rejects, chunk.position)
        received = self._now()
        return Work(
            self._stream,
            decoded.frame,
            self._name,
            chunk.position,
            received,
            received if chunk.created is None else chunk.created,
            _trace(chunk, decoded),
            _partitions(chunk, decoded),
        )

    def _decoded(self, chunk: Chunk) -> Decoded:
        try:
            return self._decode(chunk)
        except StorageError:
            raise
        except HeadraceError as error:
            # Nothing of the chunk can be used: it is set aside whole, and what follows goes on.
            count = 1 if chunk.messages is None else len(chunk.messages)
            raws = [chunk.data] if chunk.messages is None else chunk.messages
            return Decoded(self._schema.empty(), [Reject(row, str(error), raws[row]) for row in range(count)])

    def _plainly(self, chunk: Chunk) -> Decoded:
        if chunk.frame is not None:
            return decode_frame(self._schema, chunk.frame)
        if chunk.messages is not None:
            if chunk.format not in self._of_messages:
                self._of_messages[chunk.format] = message_decoder(self._schema, chunk.format)
            return self._of_messages[chunk.format](chunk.messages)
        return decode(self._schema, chunk.data, chunk.format)


def _partitions(chunk: Chunk, decoded: Decoded) -> npt.NDArray[np.int32] | None:
    if chunk.partitions is None or not decoded.rejects:
        return chunk.partitions
    return np.delete(chunk.partitions, [reject.row for reject in decoded.rejects])


def _trace(chunk: Chunk, decoded: Decoded) -> Callable[[int], Trace] | None:
    """Where the valid rows came from, by their place among the valid ones."""
    if chunk.trace is None:
        return None
    trace, rejected = chunk.trace, [reject.row for reject in decoded.rejects]

    def traced(row: int) -> Trace:
        found: Any = np.delete(np.arange(decoded.frame.height + len(rejected)), rejected)[row]
        return trace(int(found))

    return traced
