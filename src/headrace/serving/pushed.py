"""What is pushed into streams: rows in any of the forms that callers have, and dead letters that are tried again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.errors import HeadraceError, InputError
from headrace.formats import decode, decode_frame, decode_rows
from headrace.runners.base import Runner
from headrace.schema import Decoded, Event
from headrace.serving import documents

if TYPE_CHECKING:
    from headrace.app import Stream
    from headrace.serving.live import Live
    from headrace.stores.dead_letters import DeadLetter


def decoded(stream: Stream, rows: Any, format: str | None) -> Decoded:
    """Rows as columns, valid ones and others.

    Raises:
        InputError: They are nothing that could be rows.
        DecodeError: They are bytes that are not of the format at all.
    """
    if isinstance(rows, bytes | bytearray | memoryview):
        return decode(stream.schema, bytes(rows), format or "ndjson")
    if isinstance(rows, str):
        return decode(stream.schema, rows.encode(), format or "ndjson")
    if isinstance(rows, pl.DataFrame):
        return decode_frame(stream.schema, rows)
    if isinstance(rows, Mapping | Event):
        return decode_rows(stream.schema, [rows])
    if isinstance(rows, Iterable):
        return decode_rows(stream.schema, list(rows))
    raise InputError(f"{stream.name}: expected dicts, events, a Polars frame or bytes, found {type(rows).__name__}")


def again(live: Live, runner: Runner, ids: Sequence[int] | None) -> tuple[int, int]:
    """Pushes dead letters again: (taken, still rejected); see `Live.replay_dead_letters`."""
    taken = rejected = 0
    after = 0
    while True:
        if ids is None:
            letters = live.dead_letters.list(limit=100, after=after)
        else:
            letters = [live.dead_letters.get(one) for one in ids]
        for letter in letters:
            after = max(after, letter.id)
            if _once_more(live, runner, letter):
                live.dead_letters.remove([letter.id])
                taken += 1
            else:
                rejected += 1
        if ids is not None or not letters:
            return taken, rejected


def _once_more(live: Live, runner: Runner, letter: DeadLetter) -> bool:
    """Pushes one letter's bytes; nothing of it is set aside again."""
    stream, raw = letter.stream, letter.raw
    if stream in live.app.tables:
        return documents.again(live.library, live.app.tables[stream], raw, letter.source)
    if stream not in live.app.streams:
        return False
    if stream in live.app.enrichments:
        return live.ask_again(stream, raw)
    target = live.app.streams[stream]
    try:
        found = decode(target.schema, raw, "ndjson")
    except HeadraceError:
        return False
    if found.rejects or found.frame.height == 0:
        return False
    runner.submit(target, found.frame)
    return True
