"""Models, and rows for them: good, nearly good and bad."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headrace.schema import Event, event_time


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    sku: str
    n: int = Field(1, ge=0)
    note: str | None = None


class Payment(Event):
    user_id: str
    amount: float
    at: datetime = event_time()


class Rich(Event):
    id: str = Field(min_length=1, max_length=4, alias="_id")
    n: int
    x: Annotated[float, Field(gt=-10, le=1e6)]
    b: bool
    at: datetime = event_time(unit="ms")
    note: str = "none"
    maybe: int | None = None
    other: float | None = 2.5
    must: str | None


class Limits(Event):
    code: str = Field("a1", pattern=r"^[a-z]\d*$")
    even: int = Field(0, multiple_of=2)
    step: float = Field(0.0, multiple_of=0.1)
    colour: Colour = Colour.RED
    side: Literal["buy", "sell"] | None = None
    level: Literal[1, 2] = 1
    at: datetime = event_time(unit="us")


class Typed(Event):
    at: datetime = event_time()
    then: datetime | None = None
    day: date | None = None
    clock: time | None = None
    price: Decimal | None = Field(None, ge=0)
    uid: UUID | None = None
    blob: bytes | None = None


class Nested(Event):
    at: datetime = event_time()
    part: Part
    parts: list[Part] = Field([])
    tags: list[str] = Field([], max_length=3)
    grid: list[list[int]] | None = None
    sizes: list[float | None] = Field(default_factory=list)


MODELS: list[type[Event]] = [Payment, Rich, Limits, Typed, Nested]

_TEXTS = [
    "",
    "a",
    "b2",
    "é",
    "日本",
    "😀",
    "a,b",
    'q"q',
    "l\nl",
    "\\",
    "5",
    "true",
    "null",
    "[1]",
    "x" * 9,
    "\x00",
    "red",
    "buy",
    ":",
    ": ",
]
_NUMBERS: list[Any] = [
    0,
    1,
    2,
    -1,
    5,
    0.0,
    -0.0,
    1.0,
    1.5,
    0.3,
    1e-9,
    1e300,
    2**53,
    2**53 + 1,
    2**62,
    2**63 - 2,
    2**63 - 1,
    -(2**63),
]
_NUMBERS += [
    2**64,
    10**30,
    -9.99,
    -10,
    1e6,
    1_700_000_000,
    1_700_000_000.123,
    1_700_000_000_123,
    1_700_000_000_123_456,
    253402300800,
]
_TIMES = [
    "2024-01-02T03:04:05Z",
    "2024-01-02T03:04:05",
    "2024-01-02 03:04:05.5",
    "2024-01-02T03:04:05.123456789+05:30",
    "1969-12-31T23:59:59.999999999-00:30",
    "2024-01-02T03:04:60Z",
    "2024-02-30T00:00:00Z",
    "2024-01-02",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999999Z",
    "0000-01-01T00:00:00Z",
    "2024-01-02T03:04:05+24:00",
    "2024-01-02t03:04:05z",
    "2024-01-02T24:00:00Z",
    "2024-01-02T03:04Z",
    "1700000000",
    "1700000000.5",
    "17e8",
    " 1700000000 ",
    "03:04:05",
    "03:04:05.5",
    "03:04:05Z",
    "25:00:00",
    "12345678-1234-5678-1234-567812345678",
    "12345678123456781234567812345678",
    "not a time",
]
_PART: dict[str, Any] = {"sku": "s", "n": 1, "note": None}
_DEEP: list[Any] = [
    [],
    {},
    ["a"],
    [1],
    ["a", None],
    [[1, 2], []],
    [[1.0], ["2"]],
    [1.5, None],
    _PART,
    [_PART],
    [{**_PART, "n": -1}],
    [{"sku": 5}],
]
ANY: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(_TEXTS),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TIMES),
    st.sampled_from(_DEEP),
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
_PARTS = st.builds(
    lambda sku, n, note, extra, drop: {
        k: v for k, v in {"sku": sku, "n": n, "note": note, **extra}.items() if k != drop
    },
    st.sampled_from(_TEXTS),
    st.integers(0, 9),
    st.none() | st.sampled_from(_TEXTS),
    st.sampled_from([{}, {}, {"zz": 1}, {"tags": "x"}]),
    st.sampled_from(["", "", "n", "note", "sku"]),
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.sampled_from(_TEXTS),
    "amount": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "_id": st.sampled_from(["a", "b2", "é", "日本", "😀"]),
    "n": st.integers(-(2**62), 2**62),
    "x": st.floats(-9, 9) | st.integers(-9, 9),
    "b": st.booleans(),
    "note": st.sampled_from(_TEXTS),
    "maybe": st.none() | st.integers(-9, 9),
    "other": st.none() | st.floats(-9, 9),
    "must": st.none() | st.sampled_from(_TEXTS),
    "code": st.sampled_from(["a", "b12"]),
    "even": st.integers(-9, 9).map(lambda n: 2 * n),
    "step": st.integers(-99, 99).map(lambda n: n / 10),
    "colour": st.sampled_from(["red", "blue"]),
    "side": st.sampled_from([None, "buy", "sell"]),
    "level": st.sampled_from([1, 2]),
    "then": st.sampled_from([None, *_TIMES[:4]]),
    "day": st.sampled_from([None, "2024-01-02", "1900-12-31"]),
    "clock": st.sampled_from([None, "03:04:05", "03:04:05.5"]),
    "price": st.sampled_from([None, 1, 2.5, "3.25"]),
    "uid": st.sampled_from([None, "12345678-1234-5678-1234-567812345678"]),
    "blob": st.none() | st.sampled_from(_TEXTS),
    "part": _PARTS,
    "parts": st.lists(_PARTS, max_size=3),
    "tags": st.lists(st.sampled_from(_TEXTS), max_size=3),
    "grid": st.none() | st.lists(st.lists(st.integers(-9, 9), max_size=2), max_size=2),
    "sizes": st.lists(st.none() | st.floats(-9, 9), max_size=3),
}
# Values just past what a field takes, which a column must notice.
_NAN = float("nan")
NEAR: dict[str, list[Any]] = {
    "amount": [_NAN, float("inf"), "1.5", True, 10**400],
    "_id": ["", "abcde", "😀😀😀😀😀"],
    "n": [2**63 - 1, 2**63 - 2, -(2**63), 1 - 2**63, 2 - 2**63, 1.0, 1.5, "7", True],
    "x": [-10, -10.0, -9.999, 1e6, 1e6 + 1e-9, 1e6 + 1, _NAN],
    "b": [1, 0, "true", "yes", 2],
    "code": ["A", "1", "a1b", "", "a\n"],
    "even": [3, -1, 2.0, "4", "5"],
    "step": [0.05, 0.30000000000000004, 1e15 + 0.05, _NAN],
    "colour": ["green", "RED", ""],
    "side": ["hold", "", 1],
    "level": [0, 3, 1.0, True, "1"],
    "price": [-1, -0.0, "-1", "1e2", "x"],
    "uid": ["12345678-1234-5678-1234-56781234567A", "12345678123456781234567812345678"],
    "tags": [["a"] * 4, ["1", "true"], [1], [None], "a"],
    "at": [
        -62135596801,
        253402300800,
        253402300800000,
        253402300800 * 10**6,
        9e15,
        2**53 + 1,
        _NAN,
        "1700000000",
        True,
    ],
}
_STAMPS: dict[str, list[st.SearchStrategy[Any]]] = {
    unit: [
        st.integers(-(10**9) * scale, 10**10 * scale),
        st.floats(-1e9 * scale, 1e10 * scale),
        st.sampled_from(_TIMES[:5]),
    ]
    for unit, scale in {"s": 1, "ms": 1000, "us": 10**6}.items()
}


@st.composite
def objects(draw: st.DrawFn, model: type[Event]) -> list[dict[str, Any]]:
    """Rows as decoded JSON: most of them good, all times of one batch usually written alike."""
    unit = {Rich: "ms", Limits: "us"}.get(model, "s")
    stamp = draw(st.sampled_from([*_STAMPS[unit], st.one_of(*_STAMPS[unit])]))
    keys = [info.alias or name for name, info in model.model_fields.items()]
    optional = {info.alias or name for name, info in model.model_fields.items() if not info.is_required()}
    # Hypothesis favours small choices; what goes wrong where should be spread evenly.
    random = Random(draw(st.integers(0, 2**32)))
    wrong = random.choice([0, 0.03, 0.15])
    left_out = {key for key in optional if random.random() < 0.2}
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        row = {}
        for key in keys:
            strange = random.random() < wrong
            if key in left_out or (strange and random.random() < 0.2):
                continue
            if not strange:
                row[key] = draw(stamp if key == "at" else GOOD[key])
            elif key in NEAR and random.random() < 0.6:
                row[key] = random.choice(NEAR[key])
            else:
                row[key] = draw(ANY)
        if random.random() < 0.1:
            row[random.choice(["zz", "amount2", "user"])] = draw(ANY)
        rows.append(row)
    return rows


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()
