"""The messages of `pgoutput`, Postgres' own plugin of logical decoding, as values.

Version 1 of the protocol, in text: the server tells a transaction when it has committed, whole, between a Begin and a
Commit. A relation is described before its first row and again whenever it has changed. The streaming itself (TLS,
logging in, keep-alives) is the library's; this is what its payloads hold, after "Logical Replication Message Formats"
in Postgres' documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from headrace.errors import DecodeError
from headrace.units import SECOND

# Postgres counts microseconds from 2000-01-01.
_EPOCH = 946_684_800 * SECOND


class Unchanged(Enum):
    """Stands for a value that was stored apart from its row and did not change: the server does not tell it."""

    TOAST = "unchanged"


UNCHANGED = Unchanged.TOAST
Cell = bytes | Unchanged | None
Cells = Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction begins: its number, and when it was committed, in microseconds since the Unix epoch."""

    xid: int
    at: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction is whole; the log goes on at `end`."""

    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it is from now on.

    Attributes:
        oid: What rows name it by.
        identity: "d" (its primary key), "f" (all columns), "i" (an index) or "n" (nothing).
        columns: Their names.
        types: Their types' numbers.
        keys: The names of those that tell rows apart.
    """

    oid: int
    schema: str
    table: str
    identity: str
    columns: tuple[str, ...]
    types: tuple[int, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    oid: int
    new: Cells


@dataclass(frozen=True, slots=True)
class Update:
    """`old` is there if the key changed ("K": the key alone), or always where the identity is full ("O")."""

    oid: int
    kind: Literal["K", "O", ""]
    old: Cells | None
    new: Cells


@dataclass(frozen=True, slots=True)
class Delete:
    oid: int
    kind: str
    old: Cells


@dataclass(frozen=True, slots=True)
class Truncate:
    oids: tuple[int, ...]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate


def decode(data: bytes) -> Message | None:
    """A message; None for those that say nothing about rows (types, origins, messages of applications).

    Raises:
        DecodeError: It is not one of the protocol's first version.
    """
    try:
        return _decode(data)
    except (struct.error, IndexError, ValueError) as error:
        raise DecodeError(f"expected a message of pgoutput, found {data[:40]!r} ({error})") from None


def _decode(data: bytes) -> Message | None:
    kind = data[:1]
    match kind:
        case b"I":
            (oid,) = struct.unpack_from("!I", data, 1)
            return Insert(oid, _cells(data, 6)[0])
        case b"U":
            return _update(data)
        case b"D":
            (oid,) = struct.unpack_from("!I", data, 1)
            return Delete(oid, chr(data[5]), _cells(data, 6)[0])
        case b"B":
            _, at, xid = struct.unpack_from("!QqI", data, 1)
            return Begin(xid, at + _EPOCH)
        case b"C":
            _, _, end, _ = struct.unpack_from("!BQQq", data, 1)
            return Commit(end)
        case b"R":
            return _relation(data)
        case b"T":
            count, _ = struct.unpack_from("!IB", data, 1)
            return Truncate(struct.unpack_from(f"!{count}I", data, 6))
        case b"Y" | b"O" | b"M":
            return None
    raise ValueError("an unknown kind")


def _update(data: bytes) -> Update:
    (oid,) = struct.unpack_from("!I", data, 1)
    kind, old, offset = chr(data[5]), None, 6
    if kind == "N":
        return Update(oid, "", None, _cells(data, 6)[0])
    old, offset = _cells(data, offset)
    if data[offset : offset + 1] != b"N":
        raise ValueError("an update without its new row")
    return Update(oid, "K" if kind == "K" else "O", old, _cells(data, offset + 1)[0])


def _cells(data: bytes, offset: int) -> tuple[list[Cell], int]:
    """A row from an offset on, and where it ends."""
    (count,) = struct.unpack_from("!H", data, offset)
    offset += 2
    cells: list[Cell] = []
    for _ in range(count):
        kind = data[offset]
        offset += 1
        if kind == 0x74:  # t: text
            (size,) = struct.unpack_from("!I", data, offset)
            offset += 4 + size
            if offset > len(data):
                raise ValueError("a value is cut off")
            cells.append(data[offset - size : offset])
        elif kind == 0x6E:  # n: null
            cells.append(None)
        elif kind == 0x75:  # u: unchanged
            cells.append(UNCHANGED)
        else:
            raise ValueError(f"a value of the kind {chr(kind)!r}")
    return cells, offset


def _relation(data: bytes) -> Relation:
    (oid,) = struct.unpack_from("!I", data, 1)
    schema, offset = _text(data, 5)
    table, offset = _text(data, offset)
    identity = chr(data[offset])
    (count,) = struct.unpack_from("!H", data, offset + 1)
    offset += 3
    columns, types, keys = [], [], []
    for _ in range(count):
        is_key = data[offset] & 1
        name, offset = _text(data, offset + 1)
        (type_,) = struct.unpack_from("!I", data, offset)
        offset += 8
        columns.append(name)
        types.append(type_)
        if is_key:
            keys.append(name)
    # The server leaves out the schema of its own catalog.
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(columns), tuple(types), tuple(keys))


def _text(data: bytes, offset: int) -> tuple[str, int]:
    end = data.index(0, offset)
    return data[offset:end].decode(), end + 1


def lsn_text(lsn: int) -> str:
    """A place in the server's log as Postgres writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """And back.

    Raises:
        ValueError: It is not one.
    """
    high, slash, low = text.partition("/")
    if not slash or len(high) > 8 or len(low) > 8:
        raise ValueError(f"expected a place such as 0/16B3748, found {text[:40]!r}")
    return (int(high, 16) << 32) | int(low, 16)
