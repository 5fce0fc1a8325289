"""CSV (RFC 4180) with a header: cells are text, converted by column; an empty cell without quotes is a null.

A row of the wrong width is a reject, never cut or filled. Polars fills short rows silently, so their number
is checked by counting commas: a text has exactly `rows * (columns - 1)` of them outside quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import polars as pl

from headrace.errors import DecodeError, nearest
from headrace.formats.columns import Null, typed
from headrace.formats.pieces import LEAF, MAX_ROW_BYTES, Records, decode_records
from headrace.formats.verdicts import RefusedError, Row, judge_python, settle
from headrace.schema import Decoded, Schema

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|$)')


def decode_csv(schema: Schema, text: bytes, *, leaf: int = LEAF, max_row_bytes: int = MAX_ROW_BYTES) -> Decoded:
    """The events of CSV.

    Raises:
        DecodeError: There is no header, or it lacks a required column.
    """
    head, _, body = text.lstrip(b"\r\n").partition(b"\n")
    table = _Table(schema, _header(schema, head))
    records = Records(body, table.judge, quoted=True)
    return decode_records(schema, records, table.columnar, leaf=leaf, max_row_bytes=max_row_bytes)


def _header(schema: Schema, line: bytes) -> list[str]:
    wanted = [field.key for field in schema.fields]
    try:
        names = [name or "" for name in parse_record(line)]
    except RefusedError as error:
        raise DecodeError(f"expected a CSV header with {', '.join(wanted)}; {error}") from None
    for name in names:
        if name in wanted and names.count(name) > 1:
            raise DecodeError(f"expected each column once in the CSV header, found {name!r} {names.count(name)} times")
    check_columns(schema, names, "the CSV header")
    return names


def check_columns(schema: Schema, names: list[str], where: str) -> None:
    """Raises DecodeError if a required column is not among `names`."""
    for field in schema.fields:
        if field.required and field.key not in names:
            raise DecodeError(
                f"expected the column {field.key!r}, which {schema.model.__name__} requires, "
                f"found none of that name in {where}: {nearest(field.key, names)}"
            )


def parse_record(record: bytes) -> list[str | None]:
    """The cells of one record.

    Raises:
        RefusedError: It is not UTF-8, or a quote is out of place.
    """
    try:
        text = record.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise RefusedError(
            f"expected UTF-8, found {error.object[error.start : error.start + 1]!r} at byte {error.start}"
        ) from None
    if '"' not in text:
        return [cell or None for cell in text.split(",")]
    cells: list[str | None] = []
    at = 0
    while True:
        found = _CELL.match(text, at)
        if found is None:
            raise RefusedError(f"expected a closed quote around a whole cell, found none at character {at + 1}")
        quoted, plain, end = found.groups()
        cells.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        at = found.end()
        if not end:
            return cells


@dataclass
class _Table:
    schema: Schema
    names: list[str]

    def judge(self, record: bytes) -> Row:
        cells = parse_record(record)
        if len(cells) != len(self.names):
            raise RefusedError(f"expected {len(self.names)} cells, as the header has, found {len(cells)}")
        return judge_python(self.schema, by_cell(self.schema, dict(zip(self.names, cells, strict=True))))

    def columnar(self, records: Records) -> Decoded | None:
        # Columns are read under numbers: the header's other names may be empty or repeated.
        numbered = {str(number): pl.String() for number in range(len(self.names))}
        try:
            frame = pl.read_csv(records.text, has_header=False, schema=numbered)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return None
        if records.text.count(b",") - _inner_commas(records.text, frame) != frame.height * (len(self.names) - 1):
            return None
        keys = {field.key for field in self.schema.fields}
        chosen = frame.select(pl.col(str(n)).alias(name) for n, name in enumerate(self.names) if name in keys)
        values, suspects = typed(self.schema, chosen, {}, Null.CELL)
        # A blank line is a row of nulls to Polars: then rows and records do not match.
        if suspects is not None and len(records) != frame.height:
            return None
        return settle(self.schema, values, suspects, records)


def _inner_commas(text: bytes, frame: pl.DataFrame) -> int:
    if b'"' not in text:
        return 0
    return int(frame.select(pl.sum_horizontal(pl.all().str.count_matches(",", literal=True).sum())).item() or 0)


def by_cell(schema: Schema, row: dict[str, Any]) -> dict[str, Any]:
    """A table's row for Pydantic: a null is left out where the field does not take None.

    Text of an integer is read as one where the field names the integers it takes: Pydantic would match the text.
    """
    cells = {}
    for field in schema.fields:
        cell = row.get(field.key)
        if cell is None and not (field.nullable and field.key in row):
            continue
        if field.kind == "int" and isinstance(cell, str) and _INTEGER.fullmatch(cell):
            cell = int(cell)
        cells[field.key] = cell
    return cells
