"""What a columnar JSON decoder does not tell, found by counting bytes.

Polars reads `{"id": 5}` into a text column as "5", takes the first of a repeated key where Pydantic takes
the last, reads half a surrogate pair as NUL, and gives null for a missing key and a written null alike.
Looking at each line for these would cost more than decoding it. Counting settles nearly all inputs at
memory speed: every value in the frame needs its key in the text at least once, and every value of a text
column a string, so where the totals of the text are no greater than what the frame needs, no key is
repeated, no null is written and no text was a number.

The counting is exact but for one case: a repeated key with a null among its values in one object, in a text
that writes nulls for that key elsewhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from headrace.fields import Field
from headrace.formats.columns import Null
from headrace.schema import Schema

_TEXT = frozenset(("str", "uuid", "bytes"))
# A key made of these is found as it stands, unless a letter of it is escaped.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.@$:+-]+")
# Half a surrogate pair, or an escaped character of a plain key.
_STRANGE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
    rb"|\\u00(?:2[4bdeBDE]|3[0-9aA]|40|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
)
_BLOCK = 1 << 17  # a part of the text that stays in the processor's cache
_NOT_TEXT = r"^(?:[-0-9\[{]|true$|false$)"


@dataclass
class _Need:
    """What the frame needs the text to hold."""

    places: int = 0  # objects that could have had the key
    values: int = 0
    strings: int = 0
    text: bool = False  # a text column, which takes anything
    mixed: bool = False  # a missing key and a written null would mean different things


@dataclass
class Evidence:
    """What nulls mean, by key, and the rows of which the frame may not tell the truth."""

    nulls: dict[str, Null] = field(default_factory=dict)
    rows: set[int] = field(default_factory=set)


def gather(schema: Schema, text: bytes, frame: pl.DataFrame, lines: Callable[[], list[bytes]]) -> Evidence | None:
    """The evidence on a frame that was read from `text`; None if it cannot be had.

    Args:
        lines: The rows' bytes; asked for only if counting does not settle it.
    """
    need: dict[str, _Need] = defaultdict(_Need)
    listed = [_weigh(frame[part.key], part, need, frame.height) for part in schema.fields]
    if not all(_PLAIN_KEY.fullmatch(key) for key in need):
        return None
    found = Evidence()
    escaped = b"\\" in text
    if escaped and _STRANGE.search(text):
        found.rows.update(i for i, line in enumerate(lines()) if _STRANGE.search(line))
    if not escaped and not any(listed) and _all_settled(text, need):
        found.nulls = dict.fromkeys(need, Null.ABSENT)
        return found
    for key, wanted in need.items():
        meaning = _settled(text, key, wanted)
        if meaning is None:
            found.rows.update(_doubtful(key, wanted, lines()))
        # With the doubtful rows set apart, a null that is left is a missing key.
        found.nulls[key] = meaning or Null.ABSENT
    if any(listed):
        found.rows.update(_numbers_in_lists(schema, frame))
    return found


def _weigh(column: pl.Series, part: Field, need: dict[str, _Need], places: int, keyed: bool = True) -> bool:
    """Adds up what a column needs; whether there is text in lists, which has no key to be counted by."""
    values = len(column) - column.null_count()
    if keyed:
        wanted = need[part.key]
        wanted.places += places
        wanted.values += values
        wanted.text |= part.kind in _TEXT
        wanted.mixed |= part.nullable is part.required or (part.nullable and part.default is not None)
        wanted.strings += values if column.dtype == pl.String else 0
    if isinstance(column.dtype, pl.Struct):
        there = column.drop_nulls().struct
        listed = False
        for inner in part.inner:  # each must be weighed, so no any()
            listed |= _weigh(there.field(inner.key), inner, need, values)
        return listed
    if isinstance(column.dtype, pl.List):
        items = column.drop_nulls().explode().drop_nulls()
        return _weigh(items, part.inner[0], need, len(items), keyed=False) or items.dtype == pl.String
    return False


def _all_settled(text: bytes, need: dict[str, _Need]) -> bool:
    """Whether the text holds exactly the keys and strings that the frame needs: one pass for all columns."""
    keys = sum(wanted.values for wanted in need.values())
    strings = sum(wanted.strings for wanted in need.values())
    quotes, seen = _count_quotes(text)
    # Each `": "` too is a string of its own: no other can begin there.
    return quotes == 2 * (keys + strings) and (seen >= strings or text.count(b'": "') >= strings)


def _count_quotes(text: bytes) -> tuple[int, int]:
    """How many quotes there are, and at least how many strings follow a key: five times faster than bytes.count."""
    data = np.frombuffer(text, dtype=np.uint8)
    quotes = strings = 0
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK + 3]
        quote, colon = block == 0x22, block == 0x3A
        quotes += int(np.count_nonzero(quote[:_BLOCK]))
        # `":"` after a colon is not a key's end but the string ":" itself.
        strings += int(np.count_nonzero(quote[1:-2] & colon[2:-1] & quote[3:] & ~colon[:-3]))
    return quotes, strings


def _settled(text: bytes, key: str, wanted: _Need) -> Null | None:
    """What this key's nulls mean; None if its values are in doubt."""
    name = b'"' + key.encode() + b'"'
    occurrences = text.count(name)
    meaning = Null.ABSENT
    if occurrences != wanted.values:
        written = text.count(name + b":null") + text.count(name + b": null")
        if occurrences != wanted.values + written:
            return None
        if wanted.values + written == wanted.places:
            meaning = Null.EXPLICIT
        elif wanted.mixed:
            return None
        else:
            meaning = Null.UNKNOWN
    if wanted.text and wanted.strings:
        strings = text.count(name + b':"')
        if strings < wanted.strings and strings + text.count(name + b': "') < wanted.strings:
            return None
    return meaning


def _doubtful(key: str, wanted: _Need, lines: list[bytes]) -> set[int]:
    """Rows in which the key is repeated, holds a null, or holds no text though its column does."""
    name = b'"' + key.encode() + b'"'
    expected = re.compile(re.escape(name) + (rb'\s*:\s*"' if wanted.text else rb"\s*:\s*[^\sn]"))
    return {
        place
        for place, line in enumerate(lines)
        if name in line and (line.count(name) > 1 or not expected.search(line))
    }


def _numbers_in_lists(schema: Schema, frame: pl.DataFrame) -> list[int]:
    """Rows in which a list of text has an item that reads like something else."""
    tests = [
        test for part in schema.fields if (test := _reads_otherwise(pl.col(part.key), part, inside=False)) is not None
    ]
    mask = frame.select(pl.any_horizontal(tests).fill_null(False)).to_series()
    return mask.arg_true().to_list()


def _reads_otherwise(value: pl.Expr, part: Field, inside: bool) -> pl.Expr | None:
    if part.kind == "list":
        test = _reads_otherwise(pl.element(), part.inner[0], inside=True)
        return None if test is None else value.list.eval(test.fill_null(False)).list.any()
    if part.kind == "struct":
        tests = [_reads_otherwise(value.struct.field(inner.key), inner, inside=False) for inner in part.inner]
        present = [test for test in tests if test is not None]
        return pl.any_horizontal(present) if present else None
    return value.str.contains(_NOT_TEXT) if inside and part.kind in _TEXT else None
