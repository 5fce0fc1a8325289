"""The columnar path and Pydantic row by row: the same frame and the same rejects, for any input in any format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sample_models import MODELS, dumps, objects

from headrace.formats import decode_frame, decode_rows
from headrace.formats.arrays import decode_json
from headrace.formats.csv import decode_csv
from headrace.formats.frames import decode_parquet
from headrace.formats.ndjson import decode_ndjson
from headrace.formats.verdicts import Originals, row_by_row
from headrace.schema import Decoded, Schema

BY_ROW, BY_COLUMN = 10**6, 0
SCHEMAS = st.sampled_from(MODELS).map(Schema.of)
BROKEN = st.sampled_from(
    [
        *(b"", b"  ", b"{", b"[]", b"5", b"null", b"nonsense", b"\xff\xfe", b'"', b"\r", b"{}", b"\x0b", b"\x0c"),
        *(b'{"at":NaN}', b'{"n":1e999}', b'{"user_id":"a"', b'{"a":1} x'),
        b'{"user_id":"\\ud800","amount":1,"at":1}',
        b'{"amount":1,"at":5,"user_id":"a","amount":2}',
        b'{"user_id" : 5, "amount" : 1, "at": 1}',
        b'{"u":{"user_id":"a"},"user_id":5,"amount":1,"at":1}',
        b'{"user_id":"a","amount":1,"\\u0061mount":2,"at":1}',
        b'{"user_id":"a","amount":1,"at":1,"zz":[{"amount":null}]}',
    ]
)


def same(expected: Decoded, found: Decoded) -> None:
    assert [r.row for r in expected.rejects] == [r.row for r in found.rejects]
    assert [(r.reason, r.raw) for r in expected.rejects] == [(r.reason, r.raw) for r in found.rejects]
    assert_frame_equal(expected.frame, found.frame, check_exact=True)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), schema=SCHEMAS, spaced=st.booleans(), unescaped=st.booleans())
def test_ndjson(data: st.DataObject, schema: Schema, spaced: bool, unescaped: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    lines = [
        json.dumps(row, separators=separators, ensure_ascii=not unescaped).encode("utf-8", "surrogatepass")
        for row in data.draw(objects(schema.model))
    ]
    for line in data.draw(st.lists(BROKEN, max_size=2)):
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    text = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"])).join(lines)
    same(decode_ndjson(schema, text, leaf=BY_ROW), decode_ndjson(schema, text, leaf=BY_COLUMN))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), schema=SCHEMAS, indent=st.sampled_from([None, 1]))
def test_json(data: st.DataObject, schema: Schema, indent: int | None) -> None:
    text = json.dumps(data.draw(objects(schema.model)), indent=indent, allow_nan=True).replace("NaN", "1").encode()
    text = text.replace(b"-Infinity", b"1").replace(b"Infinity", b"1")
    same(decode_json(schema, text, leaf=BY_ROW), decode_json(schema, text, leaf=BY_COLUMN))


def cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else dumps(value).decode()


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    schema=SCHEMAS.filter(lambda s: s.name != "nested"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_csv(data: st.DataObject, schema: Schema, quoting: int) -> None:
    keys = [field.key for field in schema.fields]
    out = io.StringIO()
    # The writer ends records as told, but a bare carriage return in a cell must be quoted to be one cell.
    writer = csv.writer(out, quoting=quoting, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow(keys)
    for row in data.draw(objects(schema.model)):
        writer.writerow([cell(row.get(key)) for key in keys][: data.draw(st.sampled_from([99, 99, 99, 99, 2]))])
    text = out.getvalue().encode("utf-8", "surrogatepass")
    lines = text.split(b"\n")
    for line in data.draw(st.lists(st.sampled_from([b"", b'"', b'a"b', b"\xff", b"1,2", b",,,,,,,,,,,,"]), max_size=1)):
        lines.insert(data.draw(st.integers(1, len(lines))), line)
    text = b"\n".join(lines)
    same(decode_csv(schema, text, leaf=BY_ROW), decode_csv(schema, text, leaf=BY_COLUMN))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), schema=SCHEMAS)
def test_rows(data: st.DataObject, schema: Schema) -> None:
    rows: list[Any] = data.draw(objects(schema.model))
    for place, row in enumerate(rows):
        if data.draw(st.integers(0, 3)) == 0:
            try:
                rows[place] = schema.model.model_validate(row)
            except ValueError:
                rows[place] = data.draw(st.sampled_from([row, 5, None, "text"]))
    same(decode_rows(schema, rows, leaf=BY_ROW), decode_rows(schema, rows, leaf=BY_COLUMN))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), schema=SCHEMAS)
def test_frame(data: st.DataObject, schema: Schema) -> None:
    rows = data.draw(objects(schema.model))
    keys = [field.key for field in schema.fields]
    columns = []
    for key in keys:
        values = [row.get(key) for row in rows]
        try:
            column = pl.Series(key, values, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            column = pl.Series(
                key,
                [None if v is None else cell(v) if isinstance(v, str) else json.dumps(v) for v in values],
                dtype=pl.String,
            )
        columns.append(column)
    frame = pl.DataFrame(columns)
    same(by_row(schema, frame), decode_frame(schema, frame))
    file = io.BytesIO()
    try:
        frame.write_parquet(file)
    except pl.exceptions.InvalidOperationError:
        return  # a column of objects without keys, which Parquet has no type for
    same(by_row(schema, frame), decode_parquet(schema, file.getvalue()))


def by_row(schema: Schema, frame: pl.DataFrame) -> Decoded:
    from headrace.formats.frames import FrameRows

    originals: Originals = FrameRows(schema, frame)
    return row_by_row(schema, frame.height, originals)
