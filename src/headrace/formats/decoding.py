"""The one door for bytes: a format's name to its decoder."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import DecodeError, nearest
from headrace.formats.arrays import decode_json
from headrace.formats.csv import decode_csv
from headrace.formats.frames import decode_parquet
from headrace.formats.ndjson import decode_ndjson
from headrace.formats.pieces import MAX_ROW_BYTES
from headrace.schema import Decoded, Schema

_BOM = b"\xef\xbb\xbf"
_TEXT: dict[str, Callable[..., Decoded]] = {"ndjson": decode_ndjson, "json": decode_json, "csv": decode_csv}


def decode(schema: Schema, data: bytes, format: str, *, max_row_bytes: int = MAX_ROW_BYTES) -> Decoded:
    """The events in `data`; rows that cannot be used come back as rejects with their reason and bytes.

    Args:
        format: "ndjson", "json" (an array of objects, or one), "csv" (with a header) or "parquet".
        max_row_bytes: A longer row of a text format is set aside unread.

    Raises:
        DecodeError: The data as a whole is not of the format, or the format is unknown.
    """
    if format == "parquet":
        return decode_parquet(schema, data)
    if format not in _TEXT:
        raise DecodeError(f"no format is called {format!r}; {nearest(format, [*_TEXT, 'parquet'])}")
    return _TEXT[format](schema, data.removeprefix(_BOM), max_row_bytes=max_row_bytes)
