"""Each bad input by name: what is taken, what is rejected, and what is said."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from pydantic import Field, field_validator
from sample_models import Limits, Nested, Payment, Rich

from headrace.errors import DecodeError
from headrace.formats import decode, decode_frame, decode_rows
from headrace.schema import Decoded, Event, Schema, event_time

PAYMENT = Schema.of(Payment)
GOOD = b'{"user_id":"u%d","amount":1.5,"at":1700000000}'
# Enough good lines on each side that the columnar decoder and its search are what is tested.
MANY = 500


def among_good(*lines: bytes, many: int = MANY) -> bytes:
    good = [GOOD % n for n in range(many)]
    return b"\n".join([*good[: many // 2], *lines, *good[many // 2 :]])


def reasons(decoded: Decoded) -> list[str]:
    return [reject.reason for reject in decoded.rejects]


NO_NUMBER = "expected a valid number, unable to parse string as a number"
BAD_LINES: list[tuple[bytes, str]] = [
    (b'{"user_id":"a","amount":1', "not valid JSON: EOF while parsing an object at line 1 column 25"),
    (
        b'{"user_id":"a","amount":"abc","at":1}',
        'amount: expected a valid number, unable to parse string as a number, found "abc"',
    ),
    (b'{"user_id":"a","at":1}', "amount: required, but missing"),
    (b'{"user_id":"a","amount":null,"at":1}', "amount: expected a valid number, found null"),
    (b'{"user_id":5,"amount":1,"at":1}', "user_id: expected a valid string, found 5"),
    (b'{"user_id":["a"],"amount":1,"at":1}', 'user_id: expected a valid string, found ["a"]'),
    (b'{"user_id":"a","amount":NaN,"at":1}', "amount: expected a finite number, found NaN"),
    (b'{"user_id":"a","amount":-Infinity,"at":1}', "amount: expected a finite number, found -Infinity"),
    (b'{"user_id":"a","amount":1e999,"at":1}', "amount: expected a finite number, found Infinity"),
    (b'{"user_id":"\\ud800","amount":1,"at":1}', "not valid JSON: unexpected end of hex escape at line 1 column 19"),
    (b'{"user_id":"a","amount":1,"at":true}', "at: expected ISO 8601 text or a number, not true or false, found true"),
    (b"[1]", "expected an object, found [1]"),
    (b"\xff\xfe", "not valid JSON: expected value at line 1 column 1"),
    (b"{}", "user_id: required, but missing (and 2 more)"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
@pytest.mark.parametrize("many", [2, MANY])
def test_one_bad_line_is_rejected_and_the_others_are_taken(line: bytes, reason: str, many: int) -> None:
    decoded = decode(PAYMENT, among_good(line, many=many), "ndjson")
    assert [(many // 2, reason, line)] == [(r.row, r.reason, r.raw) for r in decoded.rejects]
    assert [f"u{n}" for n in range(many)] == decoded.frame["user_id"].to_list()


def test_a_time_in_the_wrong_unit_is_told_the_likely_one() -> None:
    decoded = decode(PAYMENT, among_good(b'{"user_id":"a","amount":1,"at":1700000000000}'), "ndjson")
    expected = (
        "at: expected seconds since 1970 within the years 1 to 9999; "
        "if these are milliseconds, declare hr.event_time(unit='ms'), found 1700000000000"
    )
    assert [expected] == reasons(decoded)


def test_a_time_that_a_float_cannot_hold_is_read_exactly() -> None:
    class Tick(Event):
        at: datetime = event_time(unit="us")

    # The fraction in the first line has the column read as floats.
    lines = [b'{"at":0.5}', *[b'{"at":1}'] * MANY, b'{"at":%d}' % (2**53 + 1)]
    decoded = decode(Schema.of(Tick), b"\n".join(lines), "ndjson")
    assert decoded.frame["at"].to_physical()[-1] == 2**53 + 1


def test_half_a_surrogate_in_a_column_that_the_model_ignores() -> None:
    line = b'{"user_id":"a","amount":1,"at":1,"zz":"\\udc00"}'
    assert [r.row for r in decode(PAYMENT, among_good(line), "ndjson").rejects] == [MANY // 2]


def test_a_whole_surrogate_pair_is_taken() -> None:
    line = b'{"user_id":"\\ud83d\\ude00","amount":1,"at":1}'
    assert "😀" in decode(PAYMENT, among_good(line), "ndjson").frame["user_id"]


@pytest.mark.parametrize(
    ("line", "amount"),
    [
        (b'{"user_id":"a","amount":"2.5","at":1}', 2.5),
        (b'{"user_id":"a","amount":true,"at":1}', 1.0),
        (b'{"user_id":"a","amount":1,"at":1,"amount":7}', 7.0),
        (b'{"user_id":"a","amount":1,"at":1,"zz":1e999}', 1.0),
        (b'  {"user_id" : "a", "amount" :\t1, "at" : 1 }\r', 1.0),
    ],
)
def test_a_line_that_pydantic_accepts_is_taken_in_its_place(line: bytes, amount: float) -> None:
    decoded = decode(PAYMENT, among_good(line), "ndjson")
    assert ([], "a", amount) == (decoded.rejects, *decoded.frame.select("user_id", "amount").row(MANY // 2))


@pytest.mark.parametrize(
    "at",
    [
        "1700000000.123",
        "1700000000123e-3",
        '"2023-11-14T22:13:20.123Z"',
        '"2023-11-15 03:43:20.123+05:30"',
        '"1700000000.123"',
    ],
)
@pytest.mark.parametrize("many", [0, MANY])
def test_the_same_moment_however_it_is_written(at: str, many: int) -> None:
    decoded = decode(PAYMENT, among_good(b'{"user_id":"a","amount":1,"at":%s}' % at.encode(), many=many), "ndjson")
    assert datetime(2023, 11, 14, 22, 13, 20, 123000, UTC) == decoded.frame["at"][many // 2]


def test_a_50_mb_line_is_decoded_when_allowed_and_kept_whole_when_not() -> None:
    line = b'{"user_id":"%s","amount":1,"at":1}' % (b"x" * 50_000_000)
    text = among_good(line)
    kept = decode(PAYMENT, text, "ndjson")
    assert [(MANY // 2, line)] == [(r.row, r.raw) for r in kept.rejects]
    assert reasons(kept) == ["expected a row of at most 16,777,216 bytes, found 50,000,032; it was not read"]
    assert kept.frame.height == MANY
    assert decode(PAYMENT, text, "ndjson", max_row_bytes=64 << 20).frame.height == MANY + 1


def test_blank_lines_do_not_count() -> None:
    text = b"\n\n" + GOOD % 1 + b"\r\n  \r\n\t\nbad\n\n" + GOOD % 2 + b"\n"
    decoded = decode(PAYMENT, text, "ndjson")
    assert ([r.row for r in decoded.rejects], decoded.frame["user_id"].to_list()) == ([1], ["u1", "u2"])


@pytest.mark.parametrize("format", ["ndjson", "csv", "json"])
def test_a_byte_order_mark_is_ignored(format: str) -> None:
    text = {"ndjson": GOOD % 1, "json": GOOD % 1, "csv": b"user_id,amount,at\nu1,1,1"}[format]
    assert decode(PAYMENT, b"\xef\xbb\xbf" + text, format).frame["user_id"].to_list() == ["u1"]


@pytest.mark.parametrize("format", ["ndjson", "json"])
def test_nothing_at_all(format: str) -> None:
    assert (decode(PAYMENT, b"[]" if format == "json" else b"", format).frame.height, []) == (0, [])


def test_all_lines_bad() -> None:
    decoded = decode(PAYMENT, b"\n".join([b"{"] * 5000), "ndjson")
    assert (0, list(range(5000))) == (decoded.frame.height, [r.row for r in decoded.rejects])


def test_a_bad_stretch_in_a_long_input() -> None:
    lines = [GOOD % n for n in range(40_000)]
    for place in range(10_000, 14_000):
        lines[place] = b"broken"
    decoded = decode(PAYMENT, b"\n".join(lines), "ndjson")
    assert list(range(10_000, 14_000)) == [r.row for r in decoded.rejects]
    assert [f"u{n}" for n in range(40_000) if not 10_000 <= n < 14_000] == decoded.frame["user_id"].to_list()


def test_a_reason_is_bounded() -> None:
    line = b'{"user_id":"a","amount":"%s","at":1}' % (b"9x" * 100_000)
    decoded = decode(PAYMENT, line, "ndjson")
    assert len(decoded.rejects[0].reason) <= 300
    assert line == decoded.rejects[0].raw


def test_a_default_fills_a_missing_key_but_not_a_written_null() -> None:
    class Shop(Event):
        merchant: str = "none"
        at: datetime = event_time()

    lines = [b'{"at":1}'] * MANY
    lines[7] = b'{"at":1,"merchant":null}'
    lines[9] = b'{"at":1,"merchant":"m"}'
    decoded = decode(Schema.of(Shop), b"\n".join(lines), "ndjson")
    assert [(r.row, r.reason) for r in decoded.rejects] == [(7, "merchant: expected a valid string, found null")]
    assert dict(decoded.frame["merchant"].value_counts().iter_rows()) == {"none": MANY - 2, "m": 1}


def test_constraints_are_told_in_pydantics_words() -> None:
    rows = [{"at": 1}] * MANY + [{"at": 1, "code": "A"}, {"at": 1, "even": 3}, {"at": 1, "colour": "green"}]
    expected = [
        "code: String should match pattern '^[a-z]\\d*$', found \"A\"",
        "even: expected a multiple of 2, found 3",
        "colour: expected 'red' or 'blue', found \"green\"",
    ]
    text = b"\n".join(json.dumps(row).encode() for row in rows)
    assert (
        expected == reasons(decode(Schema.of(Limits), text, "ndjson")) == reasons(decode_rows(Schema.of(Limits), rows))
    )


@pytest.mark.parametrize("n", [2**63 - 1, -(2**63), -(2**63) + 1, 2**64])
def test_integers_at_the_ends_of_int64_are_refused(n: int) -> None:
    row = {"_id": "a", "n": 1, "x": 1.0, "b": True, "at": 1, "must": None}
    rows = [row] * MANY + [{**row, "n": n}]
    assert reasons(decode_rows(Schema.of(Rich), rows)) == [
        "n: expected an integer within ±(2**63 - 2), found one beyond"
    ]
    text = b"\n".join(json.dumps(row).encode() for row in rows)
    assert [r.row for r in decode(Schema.of(Rich), text, "ndjson").rejects] == [MANY]


def test_where_a_nested_value_is_wrong() -> None:
    rows = [{"at": 1, "part": {"sku": "s"}}] * MANY + [
        {"at": 1, "part": {"sku": "s"}, "parts": [{"sku": "s", "n": -1}]}
    ]
    text = b"\n".join(json.dumps(row).encode() for row in rows)
    assert reasons(decode(Schema.of(Nested), text, "ndjson")) == [
        "parts.0.n: expected greater than or equal to 0, found -1"
    ]


@pytest.mark.parametrize("item", ["5", "true", "null", "[1]", '{"a":1}'])
def test_something_else_in_a_list_of_text(item: str) -> None:
    good, bad = b'{"at":1,"part":{"sku":"s"},"tags":["5"]}', b'{"at":1,"part":{"sku":"s"},"tags":["a",%s]}'
    decoded = decode(Schema.of(Nested), b"\n".join([good] * MANY + [bad % item.encode()]), "ndjson")
    assert [r.row for r in decoded.rejects] == [MANY]
    assert decoded.rejects[0].reason.startswith("tags.1: expected a valid string, found ")


def test_a_users_validator_is_obeyed() -> None:
    class Upper(Event):
        name: str = Field(alias="who")
        at: datetime = event_time()

        @field_validator("name")
        @classmethod
        def upper(cls, name: str) -> str:
            if name == "nobody":
                raise ValueError("expected somebody")
            return name.upper()

    rows = [{"who": "ann", "at": 1}] * 100 + [{"who": "nobody", "at": 1}]
    decoded = decode_rows(Schema.of(Upper), rows)
    assert (decoded.frame["name"].to_list(), reasons(decoded)) == (
        ["ANN"] * 100,
        ['who: expected somebody, found "nobody"'],
    )


def test_a_users_validator_that_breaks_costs_its_row_only() -> None:
    class Fragile(Event):
        n: int
        at: datetime = event_time()

        @field_validator("n")
        @classmethod
        def look_up(cls, n: int) -> int:
            return {1: 10}[n]

    decoded = decode(Schema.of(Fragile), b'{"n":1,"at":1}\n{"n":2,"at":1}', "ndjson")
    assert (decoded.frame["n"].to_list(), reasons(decoded)) == ([10], ["validating it raised KeyError(2)"])


# JSON documents


def test_a_json_array_pretty_printed() -> None:
    rows = [json.loads(GOOD % n) for n in range(MANY)]
    rows[3] = {"user_id": "a"}
    decoded = decode(PAYMENT, json.dumps(rows, indent=2).encode(), "json")
    assert ([r.row for r in decoded.rejects], decoded.frame.height) == ([3], MANY - 1)
    assert json.loads(decoded.rejects[0].raw) == {"user_id": "a"}


def test_one_json_object() -> None:
    assert decode(PAYMENT, b" " + GOOD % 1, "json").frame["user_id"].to_list() == ["u1"]


def test_broken_json_is_refused_whole_and_says_where() -> None:
    with pytest.raises(DecodeError, match=r"found broken JSON: .*\(byte 47\)"):
        decode(PAYMENT, b"[" + GOOD % 1 + b" oops]", "json")


def test_lines_called_json_are_told_their_format() -> None:
    with pytest.raises(DecodeError, match='are the format "ndjson"'):
        decode(PAYMENT, among_good(), "json")


def test_an_unknown_format_is_told_the_nearest() -> None:
    with pytest.raises(DecodeError, match=r"no format is called 'ndjsn'; did you mean 'ndjson'\?"):
        decode(PAYMENT, b"", "ndjsn")


# CSV


def csv(*lines: str, header: str = "user_id,amount,at") -> bytes:
    return "\n".join([header, *[f"u{n},1.5,1700000000" for n in range(MANY)], *lines]).encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,1", "expected 3 cells, as the header has, found 2"),
        ("a,1,1,1", "expected 3 cells, as the header has, found 4"),
        ('a,"1,1', "expected a closed quote around a whole cell, found none at character 3"),
        ("a,,1", "amount: required, but missing"),
        ("a,abc,1", 'amount: expected a valid number, unable to parse string as a number, found "abc"'),
        ("a,nan,1", 'amount: expected a finite number, found "nan"'),
        ("a,1,soon", 'at: expected a valid datetime or date, input is too short, found "soon"'),
    ],
)
def test_a_bad_csv_record(line: str, reason: str) -> None:
    decoded = decode(PAYMENT, csv(line, "z,1,1"), "csv")
    assert [(MANY, reason, line.encode())] == [(r.row, r.reason, r.raw) for r in decoded.rejects]
    assert (decoded.frame["user_id"][-1], decoded.frame.height) == ("z", MANY + 1)


def test_quotes_line_ends_and_other_columns_in_csv() -> None:
    text = csv('"a\nb, ""c""",1,1,x', ',2,"",y', header="user_id,amount,at,note").replace(
        b",1700000000", b",1700000000,n"
    )
    decoded = decode(PAYMENT, text, "csv")
    assert decoded.frame["user_id"][-1] == 'a\nb, "c"'
    assert reasons(decoded) == ["user_id: required, but missing (and 1 more)"]


def test_csv_without_a_required_column() -> None:
    with pytest.raises(
        DecodeError, match=r"expected the column 'amount', which Payment requires.*did you mean 'amonut'\?"
    ):
        decode(PAYMENT, b"user_id,amonut,at\n", "csv")


def test_empty_csv() -> None:
    with pytest.raises(DecodeError, match="the CSV header"):
        decode(PAYMENT, b"", "csv")


def test_a_csv_header_alone() -> None:
    assert ((d := decode(PAYMENT, b"user_id,amount,at", "csv")).frame.height, d.rejects) == (0, [])


# Frames, Parquet and rows


def test_a_frame_of_other_types_is_converted() -> None:
    frame = pl.DataFrame(
        {"at": [datetime(2024, 1, 1)] * 3, "amount": ["1.5", "x", None], "user_id": ["a", "b", "c"], "zz": [1, 2, 3]}
    ).cast({"user_id": pl.Categorical, "at": pl.Datetime("ns")})
    decoded = decode_frame(PAYMENT, frame)
    assert [("a", 1.5, datetime(2024, 1, 1, tzinfo=UTC))] == decoded.frame.rows()
    assert [r.row for r in decoded.rejects] == [1, 2]


@pytest.mark.parametrize("dtype", [pl.Int32, pl.Int64, pl.UInt64, pl.Float64, pl.String])
def test_a_frames_time_as_numbers(dtype: Any) -> None:
    frame = pl.DataFrame({"user_id": ["a"], "amount": [1], "at": pl.Series([1_700_000_000]).cast(dtype)})
    assert [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)] == decode_frame(PAYMENT, frame).frame["at"].to_list()


def test_a_frames_time_in_another_zone() -> None:
    at = pl.Series([datetime(2024, 7, 1, 12)]).dt.replace_time_zone("Europe/Paris")
    frame = pl.DataFrame({"user_id": ["a"], "amount": [1], "at": at})
    assert [datetime(2024, 7, 1, 10, tzinfo=UTC)] == decode_frame(PAYMENT, frame).frame["at"].to_list()


def test_a_frame_without_a_required_column() -> None:
    with pytest.raises(DecodeError, match=r"expected the column 'amount'.*did you mean 'amount_'\?"):
        decode_frame(PAYMENT, pl.DataFrame({"user_id": ["a"], "amount_": [1], "at": [1]}))


def test_nan_in_a_frame_and_in_rows() -> None:
    rows = [{"user_id": "a", "amount": 1.0, "at": 1}] * MANY + [{"user_id": "a", "amount": float("nan"), "at": 1}]
    expected = [(MANY, "amount: expected a finite number, found NaN")]
    assert expected == [(r.row, r.reason) for r in decode_frame(PAYMENT, pl.DataFrame(rows)).rejects]
    assert expected == [(r.row, r.reason) for r in decode_rows(PAYMENT, rows).rejects]


def test_parquet_and_what_is_not() -> None:
    file = io.BytesIO()
    pl.DataFrame({"user_id": ["a"], "amount": [1], "at": [1]}).write_parquet(file)
    assert decode(PAYMENT, file.getvalue(), "parquet").frame.height == 1
    for garbage in (b"", b"garbage", file.getvalue()[:-9]):
        with pytest.raises(DecodeError, match="expected a Parquet file"):
            decode(PAYMENT, garbage, "parquet")


@pytest.mark.parametrize("many", [0, MANY])
def test_rows_of_every_kind(many: int) -> None:
    made = Payment.model_construct(user_id="x", amount=float("inf"), at=datetime(2024, 1, 1))
    good = [{"user_id": "a", "amount": 1, "at": "2024-01-01"}, Payment(user_id="b", amount=2, at=datetime(2024, 1, 1))]
    bad: list[Any] = [
        5,
        None,
        made,
        {"user_id": "\ud800", "amount": 1, "at": 1},
        {"user_id": b"x", "amount": 1, "at": {1}},
    ]
    decoded = decode_rows(PAYMENT, [*good, *good * many, *bad])
    assert 2 + 2 * many == decoded.frame.height
    assert {datetime(2024, 1, 1, tzinfo=UTC)} == set(decoded.frame["at"])
    assert list(range(2 + 2 * many, 7 + 2 * many)) == [r.row for r in decoded.rejects]
    assert decoded.rejects[0].reason == "expected a dict or a Payment, found int"
    assert decoded.rejects[-1].raw == b'{"user_id": "x", "amount": 1, "at": "{1}"}'


def test_no_rows() -> None:
    assert (PAYMENT.columns, 0) == (dict((d := decode_rows(PAYMENT, [])).frame.schema), d.frame.height)


class WithRate(Event):
    n: int
    rate: float | None = 2.5
    at: datetime = event_time(unit="us")


def test_a_column_that_a_frame_does_not_have_takes_its_default() -> None:
    """Also where the field takes None: a null in a cell says None, a column that is not there says nothing."""
    schema = Schema.of(WithRate)
    whole = pl.DataFrame({"n": [1, 2], "rate": [None, 1.0], "at": [0, 0]})
    assert decode_frame(schema, whole).frame["rate"].to_list() == [None, 1.0]
    assert decode_frame(schema, whole.drop("rate")).frame["rate"].to_list() == [2.5, 2.5]


def test_a_null_among_missing_keys_stays_null_whatever_other_rows_are() -> None:
    """Two rows are in doubt for their numbers, two say null, one says nothing and takes the default."""
    rows = [{"n": 0, "at": 0}, *[{"n": 0, "rate": None, "at": 0}] * 2, *[{"n": "1", "rate": 0.5, "at": 0}] * 2]
    found = decode_rows(Schema.of(WithRate), rows, leaf=1)
    assert found.frame["rate"].to_list() == [2.5, None, None, 0.5, 0.5]
