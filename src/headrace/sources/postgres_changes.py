"""Messages of the stream become changes, a transaction at a time.

A transaction is told whole, and several small ones together. One that is larger than `MOST_OPEN` is told in parts
before it has ended, so that memory stays bounded: each part stands at the place before the transaction, so whoever
stops in between is told all of it again. Rows being whole, that changes nothing in the end.

A long text that an update left alone is not in the log. Where the table's identity is full, the old row has it;
otherwise the row is looked up as it is now (`Wanted`). If it is not there any more, what took it away follows in the
stream, and only the row under the old key has to go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.cdc import Change
from headrace.errors import DecodeError
from headrace.sources import postgres_output as output
from headrace.sources.base import Letter, Trace
from headrace.sources.postgres_output import UNCHANGED, Cell, Cells
from headrace.sources.postgres_values import Types, only

MOST_CHANGES = 1_000
MOST_BYTES = 16 << 20
MOST_OPEN = 64 << 20
_EACH = 200  # bytes that a change costs besides its values


@dataclass(frozen=True)
class Wanted:
    """An update whose row has to be looked up: by which columns' texts, and once which transaction can be seen."""

    by: tuple[str, ...]
    key: tuple[str, ...]
    xid: int


@dataclass
class Taken:
    """Changes that can be told.

    Attributes:
        changes: In order.
        wanted: Of those that lack a value, by their number.
        end: Where the log goes on after them; None in the middle of a transaction.
        created: When the newest was committed.
    """

    changes: list[Change | None]
    letters: list[Letter]
    wanted: dict[int, Wanted]
    end: int | None
    created: int | None


@dataclass
class _Open:
    """What was gathered and not told."""

    changes: list[Change | None] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    wanted: dict[int, Wanted] = field(default_factory=dict)
    size: int = 0


class Assembler:
    """Gathers the changes of one table out of a stream.

    Args:
        oid: The table's number.
        name: What changes come from.
        key: The columns of the table's key, as the rows have them.
        columns: Those that rows are to have; None for all.
        types: What reads values.
    """

    def __init__(self, oid: int, name: str, key: Sequence[str], columns: tuple[str, ...] | None, types: Types) -> None:
        self._oid, self._name, self._key, self._only, self._types = oid, name, tuple(key), columns, types
        self._columns: list[tuple[str, int]] = []
        self._identity: tuple[str, ...] = ()
        self._open = _Open()
        self._whole = 0, 0, 0  # changes, letters and bytes up to the last commit
        self._xid = self._at = self._number = 0
        self._created: int | None = None
        self._end: int | None = None
        self.in_transaction = False

    def take(self, data: bytes, lsn: int) -> None:
        """A message, and where in the log it is from."""
        try:
            message = output.decode(data)
        except DecodeError as error:
            self._open.letters.append(Letter(str(error), Trace(self._origin(lsn), data)))
            return
        match message:
            case output.Begin(xid, at):
                self._xid, self._at, self._number, self.in_transaction = xid, at, 0, True
            case output.Commit(end):
                self._end, self._created, self.in_transaction = end, self._at, False
                self._whole = len(self._open.changes), len(self._open.letters), self._open.size
            case output.Relation(oid=self._oid):
                self._columns = list(zip(message.columns, message.types, strict=True))
                self._identity = message.keys
                self._types.learn(message.types)
            case output.Truncate(oids) if self._oid in oids:
                self._add(Change("truncate", at=self._at, origin=self._origin(lsn), source=self._name))
            case output.Insert(oid=self._oid) | output.Update(oid=self._oid) | output.Delete(oid=self._oid):
                self._row(message, data, lsn)

    @property
    def full(self) -> bool:
        """What is whole should be told before more is read."""
        return self._whole[0] >= MOST_CHANGES or self._whole[2] >= MOST_BYTES or self._open.size >= MOST_OPEN

    @property
    def waiting(self) -> bool:
        """There is something that `taken` would give, or a transaction has begun."""
        return self.in_transaction or bool(self._open.changes or self._open.letters)

    def taken(self) -> Taken | None:
        """What can be told now: whole transactions, or a part of one that is too large; None if there is nothing."""
        changes, letters, size = self._whole
        held, end = self._open, self._end
        if self._end is None:
            if held.size < MOST_OPEN:
                return None
            changes, letters, size = len(held.changes), len(held.letters), held.size
        found = Taken(
            held.changes[:changes],
            held.letters[:letters],
            {number: wanted for number, wanted in held.wanted.items() if number < changes},
            end,
            self._created if end is not None else self._at,
        )
        left = {number - changes: wanted for number, wanted in held.wanted.items() if number >= changes}
        self._open = _Open(held.changes[changes:], held.letters[letters:], left, held.size - size)
        self._whole, self._end = (0, 0, 0), None
        return found

    def _row(self, message: output.Insert | output.Update | output.Delete, data: bytes, lsn: int) -> None:
        origin = self._origin(lsn)
        try:
            change, wanted = self._change(message, origin)
        except (UnicodeDecodeError, KeyError, ValueError) as error:
            what = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
            reason = (
                f"expected a row of {self._name} with {', '.join(self._key)}, found one that cannot be read: {what}"
            )
            self._open.letters.append(Letter(reason, Trace(origin, data)))
            return
        if wanted is not None:
            self._open.wanted[len(self._open.changes)] = wanted
        self._add(change, len(data))

    def _add(self, change: Change, size: int = 0) -> None:
        self._number += 1
        self._open.changes.append(change)
        self._open.size += size + _EACH

    def _change(
        self, message: output.Insert | output.Update | output.Delete, origin: str
    ) -> tuple[Change, Wanted | None]:
        if isinstance(message, output.Delete):
            old = self._read(message.old)
            return self._made("delete", None, {name: old[name] for name in self._key}, origin), None
        if isinstance(message, output.Insert):
            return self._made("upsert", self._read(message.new), None, origin), None
        new, before = list(message.new), message.old
        if message.kind == "O" and before is not None:
            new = [old if cell is UNCHANGED else cell for cell, old in zip(new, before, strict=True)]
        row, key = self._read(new), None
        if before is not None:
            old = self._read(before)
            key = {name: old[name] for name in self._key if name in old}
            if len(key) < len(self._key) or all(row.get(name) == value for name, value in key.items()):
                key = None
        wanted = Wanted(self._identity, tuple(self._texts(new)), self._xid) if UNCHANGED in new else None
        return self._made("upsert", row, key, origin), wanted

    def _made(self, op: Any, row: Mapping[str, Any] | None, key: Mapping[str, Any] | None, origin: str) -> Change:
        kept = None if row is None else only(row, self._only)
        return Change(op, kept, key, at=self._at, origin=origin, source=self._name)

    def _read(self, cells: Cells) -> dict[str, Any]:
        """A row, without the values that were not told."""
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} values for {len(self._columns)} columns")
        return {
            name: None if cell is None else self._types.read(type_, cell)
            for (name, type_), cell in zip(self._columns, cells, strict=True)
            if cell is not UNCHANGED
        }

    def _texts(self, cells: Sequence[Cell]) -> Iterator[str]:
        told = dict(zip((name for name, _ in self._columns), cells, strict=True))
        for name in self._identity:
            cell = told[name]
            if not isinstance(cell, bytes):
                raise ValueError(f"the key column {name!r} was not told; ALTER TABLE … REPLICA IDENTITY FULL")
            yield cell.decode()

    def _origin(self, lsn: int) -> str:
        return f"{self._name}@{output.lsn_text(lsn)}/{self._number}"
