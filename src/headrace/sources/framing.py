"""Where rows end: pure functions on bytes.

A row ends at a newline that is outside double quotes (CSV) or at any newline (NDJSON: JSON text cannot hold a
raw one). For CSV the theory is parity: RFC 4180 writes a quote inside a quoted field twice, so a byte is
outside quotes exactly if the number of quotes before it, from the start of any row, is even. That needs one
count over the block and a short walk at one end of it: no parse. Carriage returns before the newline stay
with the row.

A quote that RFC 4180 does not allow (`5" disk` in a field without quotes) turns the parity round until the
next odd one: such a row is cut together with those after it, never dropped, and how it reads is for the
decoder to say.
"""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"


def inside_after(block: bytes, *, inside: bool) -> bool:
    """Whether the end of a block is inside quotes, when its beginning is or is not."""
    return inside ^ (block.count(b'"') % 2 == 1)


def last_row_end(block: bytes, *, quoted: bool, inside: bool = False) -> int:
    """The offset after the last newline in the block that ends a row, or 0 if none does.

    Args:
        block: Any bytes.
        quoted: Whether double quotes may hold newlines.
        inside: Whether the block begins inside quotes.
    """
    newline = block.rfind(b"\n")
    if not quoted:
        return newline + 1
    inside = inside_after(block, inside=inside)
    end = len(block)
    while newline >= 0:
        # Between this quote and `end` there is no other: all of that stretch is inside quotes, or none of it.
        quote = block.rfind(b'"', 0, end)
        if newline > quote and not inside:
            return newline + 1
        if quote < 0:
            return 0
        end, inside = quote, not inside
        if newline > quote:
            newline = block.rfind(b"\n", 0, quote)
    return 0


def first_row_end(block: bytes, *, quoted: bool, inside: bool = False) -> int:
    """The offset after the first newline in the block that ends a row, or 0 if none does.

    Args:
        block: Any bytes.
        quoted: Whether double quotes may hold newlines.
        inside: Whether the block begins inside quotes.
    """
    newline = block.find(b"\n")
    if not quoted:
        return newline + 1
    start = 0
    while newline >= 0:
        inside ^= block.count(b'"', start, newline) % 2 == 1
        if not inside:
            return newline + 1
        # No newline before the closing quote can end the row, so the next one that may is behind it.
        start = block.find(b'"', newline)
        if start < 0:
            return 0
        newline = block.find(b"\n", start)
    return 0
