"""JSON documents: an array of objects or one, cut into lines so that the NDJSON path decodes them."""

from __future__ import annotations

import msgspec

from headrace.errors import DecodeError
from headrace.formats.ndjson import decode_ndjson
from headrace.formats.pieces import LEAF, MAX_ROW_BYTES
from headrace.schema import Decoded, Schema

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM = msgspec.json.Decoder(msgspec.Raw)
_FLAT = bytes.maketrans(b"\n\r", b"  ")


def decode_json(schema: Schema, text: bytes, *, leaf: int = LEAF, max_row_bytes: int = MAX_ROW_BYTES) -> Decoded:
    """The events of a JSON array of objects, or of a single object.

    Raises:
        DecodeError: It is not one JSON value; nothing is taken.
    """
    start = text.lstrip(b" \t\r\n")[:1]
    try:
        items = _ITEMS.decode(text) if start == b"[" else [_ITEM.decode(text)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = ' (several objects, one a line, are the format "ndjson")' if start == b"{" else ""
        raise DecodeError(f"expected a JSON array of objects or one object, found broken JSON: {error}{hint}") from None
    # Line ends are only white space between JSON's tokens (in strings they must be escaped).
    lines = [bytes(item).translate(_FLAT) for item in items] if b"\n" in text or b"\r" in text else items
    return decode_ndjson(schema, b"\n".join(lines), leaf=leaf, max_row_bytes=max_row_bytes)
