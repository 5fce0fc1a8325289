"""What the engine says of itself in the store, in one hash, and how it is changed: by scripts, so that each change is
made whole or not at all.

    claim            "{epoch} {run}": which engine may write; one that starts later has a greater epoch and takes over
    run              which generation of rows is the valid one, and of which declarations (JSON)
    at:{epoch}:{n}   how far the n'th writer of that generation has come, once a second at least: "{start} {number}
                     {JSON}", when the writer started and how often it has said so

Rows are written under the writer's own generation, so an engine that does not know yet that another has taken over
writes where nobody reads; what it then says of itself is refused here, and it stops. A generation becomes the valid one
when all of its writers have written all that they hold, in one step. A number that is not the one last written tells a
writer that the server has lost data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.errors import StorageError
from headrace.stores.online.base import Progress
from headrace.stores.online.redis_wire import Command

CLAIM, RUN = b"claim", b"run"

# Takes over (`first`), or takes again what a server has lost, unless a later engine has come.
_CLAIM = b"""
local held = redis.call('HGET', KEYS[1], 'claim')
local run, epoch, first = ARGV[1], tonumber(ARGV[2]), ARGV[3] == 'first'
if held then
  local old_epoch, old_run = string.match(held, '^(%d+) (.*)$')
  if old_run == run then return held end
  if not first and tonumber(old_epoch) > epoch then return held end
  if first and tonumber(old_epoch) >= epoch then epoch = tonumber(old_epoch) + 1 end
end
local claim = string.format('%.0f', epoch) .. ' ' .. run
redis.call('HSET', KEYS[1], 'claim', claim)
return claim
"""

# Says how far a writer has come, if it may and if the server still has what it said last.
_ADVANCE = b"""
local claim = redis.call('HGET', KEYS[1], 'claim')
if claim ~= ARGV[1] then return {'claim', claim or ''} end
local held = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if string.match(held, '^%d+ %d+') ~= ARGV[3] then return {'lost', held} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[4])
return {'done', ''}
"""

# Says that a writer has written all; the last of them makes the generation the valid one.
_READY = b"""
local claim = redis.call('HGET', KEYS[1], 'claim')
if claim ~= ARGV[1] then return {'claim', claim or ''} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
local mine, writers = ARGV[4], tonumber(ARGV[5])
for n = 0, writers - 1 do
  if redis.call('HEXISTS', KEYS[1], mine .. n) == 0 then return {'done', ''} end
end
redis.call('HSET', KEYS[1], 'run', ARGV[6])
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 3) == 'at:' and string.sub(field, 1, #mine) ~= mine then
    redis.call('HDEL', KEYS[1], field)
  end
end
redis.call('PUBLISH', ARGV[7], 'run')
return {'done', ''}
"""


class RunRecord(msgspec.Struct, frozen=True):
    """Which rows are valid.

    Attributes:
        run: The id of the engine's run.
        epoch: What the names of its rows begin with.
        writers: How many write, each a part.
        views: Of each view, the fingerprint of its declaration.
    """

    run: str
    epoch: int
    writers: int
    views: dict[str, str]


@dataclass(frozen=True)
class Writer:
    """One of the writers of a run.

    Attributes:
        run: An id that all writers of the run share, and no other run.
        number: Which one, from 0.
        writers: How many there are.
        start: When it started, in microseconds: of two that take themselves for the same, the later one is.
    """

    run: str
    number: int
    writers: int
    start: int


@dataclass(frozen=True)
class Meta:
    """The hash as it was read."""

    fields: Mapping[bytes, bytes]

    @classmethod
    def of(cls, answer: Sequence[bytes]) -> Meta:
        return cls(dict(zip(answer[::2], answer[1::2], strict=True)))

    @property
    def run(self) -> bytes | None:
        return self.fields.get(RUN)

    def claim(self) -> tuple[int, str] | None:
        held = self.fields.get(CLAIM)
        return None if held is None else parse_claim(held)

    def said(self, record: RunRecord) -> tuple[bytes, ...]:
        """What each writer of a run has said, as it is stored."""
        return tuple(self.fields.get(field, b"") for field in at_fields(record))


def parse_claim(held: bytes) -> tuple[int, str]:
    epoch, _, run = held.decode().partition(" ")
    return int(epoch), run


def at_field(epoch: int) -> bytes:
    return b"at:%d:" % epoch


def at_fields(record: RunRecord) -> list[bytes]:
    """Where the writers of a run say how far they have come."""
    return [at_field(record.epoch) + b"%d" % n for n in range(record.writers)]


def claim(meta: bytes, writer: Writer, epoch: int, *, first: bool) -> Command:
    """Asks to be the one who writes; answered by the claim that then holds."""
    return _eval(_CLAIM, meta, writer.run.encode(), b"%d" % epoch, b"first" if first else b"again")


def advance(meta: bytes, channel: bytes, writer: Writer, epoch: int, number: int, progress: Progress) -> Command:
    """Says for the `number`th time how far a writer has come.

    Answered by "done"; by "claim", and who has taken over; or by "lost", and what is there in place of the last word.
    """
    held = b"%d %b" % (epoch, writer.run.encode())
    field = at_field(epoch) + b"%d" % writer.number
    before = b"%d %d" % (writer.start, number - 1)
    return _eval(_ADVANCE, meta, held, field, before, _said(writer, number, progress), channel)


def ready(meta: bytes, channel: bytes, writer: Writer, record: RunRecord, number: int, progress: Progress) -> Command:
    """Says that all is written; answered as `advance`."""
    held = b"%d %b" % (record.epoch, writer.run.encode())
    start = at_field(record.epoch)
    said = _said(writer, number, progress)
    last = (start, b"%d" % record.writers, msgspec.json.encode(record), channel)
    return _eval(_READY, meta, held, start + b"%d" % writer.number, said, *last)


def _eval(script: bytes, key: bytes, *arguments: bytes) -> Command:
    return (b"EVAL", script, b"1", key, *arguments)


def _said(writer: Writer, number: int, progress: Progress) -> bytes:
    return b"%d %d %b" % (writer.start, number, msgspec.json.encode(progress))


def start_of(said: bytes) -> int:
    """When the writer started that has said this; 0 for what none has said."""
    return order_of(said)[0]


def order_of(said: bytes) -> tuple[int, int]:
    """When the writer started that has said this, and how often it had spoken; zeros for anything else."""
    parts = said.split(b" ", 2)
    return (int(parts[0]), int(parts[1])) if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit() else (0, 0)


def parse_run(raw: bytes) -> RunRecord:
    """What the store says of the valid rows.

    Raises:
        StorageError: It is not what this version writes.
    """
    try:
        return msgspec.json.decode(raw, type=RunRecord)
    except msgspec.DecodeError:
        raise StorageError(
            f"the online store: expected what an engine says of its rows, found {raw[:80]!r}; run the same version of "
            "Headrace everywhere"
        ) from None


def parse_progress(said: Sequence[bytes]) -> Progress:
    """How far a run has come: as far as the writer that is behind the others.

    Raises:
        StorageError: It is not what this version writes.
    """
    try:
        parts = [msgspec.json.decode(one.split(b" ", 2)[2], type=Progress) for one in said if one]
    except (msgspec.DecodeError, IndexError):
        raise StorageError(
            "the online store: an engine's progress cannot be read; run the same version of Headrace everywhere"
        ) from None
    if len(parts) == 1:
        return parts[0]
    seen: dict[str, Any] = {}
    newest: dict[str, int | None] = {}
    for part in parts:
        for source, position in part.seen.items():
            seen[source] = _least(seen[source], position) if source in seen else position
        for stream, moment in part.newest.items():
            held = newest.get(stream)
            newest[stream] = moment if held is None else held if moment is None else min(held, moment)
    at = min((part.at for part in parts), default=0)
    return Progress(seen, newest, at, max((part.behind for part in parts), default=0.0))


def _least(left: Any, right: Any) -> Any:
    """The lesser of two positions of a source: of partitions each, and what only one has as it is."""
    if isinstance(left, dict) and isinstance(right, dict):
        both = {key: _least(left[key], right[key]) for key in left.keys() & right.keys()}
        return {**left, **right, **both}
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    return left
