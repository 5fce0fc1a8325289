"""NDJSON: one JSON object a line, decoded by column; a line that a column cannot answer for by Pydantic."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from headrace.fields import Field
from headrace.formats import evidence
from headrace.formats.columns import Null, typed
from headrace.formats.pieces import LEAF, MAX_ROW_BYTES, Records, decode_records
from headrace.formats.verdicts import judge_json, settle
from headrace.schema import Decoded, Schema

_PEEK = 8  # lines looked at to see how numbers and times are written
_WIRE: dict[str, pl.DataType] = {"int": pl.Int64(), "float": pl.Float64(), "bool": pl.Boolean()}


def decode_ndjson(schema: Schema, text: bytes, *, leaf: int = LEAF, max_row_bytes: int = MAX_ROW_BYTES) -> Decoded:
    """The events of NDJSON.

    Args:
        leaf: Up to how many lines are read one by one.
        max_row_bytes: A longer line is set aside unread.
    """
    records = Records(text, lambda line: judge_json(schema, line))
    return decode_records(schema, records, lambda part: _columnar(schema, part), leaf=leaf, max_row_bytes=max_row_bytes)


def _columnar(schema: Schema, records: Records) -> Decoded | None:
    """All lines at once; None if one of them is not JSON, or not of the types that the first lines have."""
    wire = wire_schema(schema, records.text)
    try:
        frame = pl.read_ndjson(records.text, schema=wire)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    found = evidence.gather(schema, records.text, frame, records.rows)
    if found is None:
        return None
    values, suspects = typed(schema, frame, found.nulls, Null.UNKNOWN)
    if found.rows:
        strange = pl.Series([False]).new_from_index(0, frame.height).scatter(sorted(found.rows), True)
        suspects = strange if suspects is None else suspects | strange
    # Polars and we must mean the same by a blank line, or rows and lines would not match.
    if suspects is not None and len(records) != frame.height:
        return None
    return settle(schema, values, suspects, records)


def wire_schema(schema: Schema, text: bytes) -> dict[str, pl.DataType]:
    """The types to decode with, by key: the fields' own, but text where the first lines quote a number."""
    samples = _samples(text)
    return {field.key: _wire(field, [sample.get(field.key) for sample in samples]) for field in schema.fields}


def _samples(text: bytes) -> list[dict[str, Any]]:
    samples = []
    start = 0
    for _ in range(_PEEK):
        end = text.find(b"\n", start)
        try:
            sample = msgspec.json.decode(text[start : end if end >= 0 else len(text)])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            sample = None
        if isinstance(sample, dict):
            samples.append(sample)
        if end < 0:
            break
        start = end + 1
    return samples


def _wire(field: Field, samples: list[Any]) -> pl.DataType:
    if field.kind == "struct":
        return pl.Struct({inner.key: _wire(inner, []) for inner in field.inner})
    if field.kind == "list":
        return pl.List(_wire(field.inner[0], []))
    first = next((sample for sample in samples if sample is not None), None)
    if field.time is not None and isinstance(first, int | float) and not isinstance(first, bool):
        # Seconds and milliseconds fit a float exactly to the year 9999; microseconds do so only to 2255.
        whole = all(isinstance(sample, int | None) for sample in samples)
        return pl.Int64() if field.time.unit == "us" and whole else pl.Float64()
    if isinstance(first, str) and not any(name == "is_in" for name, _ in field.checks):
        return pl.String()
    return _WIRE.get(field.kind, pl.String())
