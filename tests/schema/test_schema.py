"""What a model becomes as a schema, and what is said of one that cannot be."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import AliasPath, BaseModel, ConfigDict, Field, PositiveInt, constr, create_model, field_validator

from headrace.errors import SchemaError
from headrace.schema import Event, Schema, event_time, snake_case

UTC_TIME = pl.Datetime("us", "UTC")


class Part(BaseModel):
    sku: str
    n: int | None = None


class Side(Enum):
    BUY = "buy"
    SELL = "sell"


class Order(Event):
    id: UUID
    side: Side
    kind: Literal["limit", "market"] = "limit"
    price: Decimal | None = None
    lots: Annotated[PositiveInt, Field(le=100)] = 1
    day: date
    clock: time
    blob: bytes = b""
    flag: bool = False
    parts: list[Part] = Field(default_factory=list)
    first: Part | None = None
    note: constr(max_length=3) = ""  # type: ignore[valid-type]
    seen: datetime = datetime(2024, 1, 1)
    at: datetime = event_time(unit="ms", description="when the exchange took it")


def test_columns_in_the_models_order_with_their_types() -> None:
    part = pl.Struct({"sku": pl.String(), "n": pl.Int64()})
    expected = {
        "id": pl.String(),
        "side": pl.String(),
        "kind": pl.String(),
        "price": pl.Float64(),
        "lots": pl.Int64(),
        "day": pl.Date(),
        "clock": pl.Time(),
        "blob": pl.Binary(),
        "flag": pl.Boolean(),
        "parts": pl.List(part),
        "first": part,
        "note": pl.String(),
        "seen": UTC_TIME,
        "at": UTC_TIME,
    }
    schema = Schema.of(Order)
    assert expected == schema.columns
    assert list(expected) == list(schema.columns)
    assert (schema.name, schema.time, schema.per_row) == ("order", "at", ())
    assert {"id", "side", "day", "clock", "at"} == schema.required


def test_one_model_has_one_schema() -> None:
    assert Schema.of(Order) is Schema.of(Order)


def test_fingerprint_tells_equal_columns() -> None:
    class Order2(Order):
        pass

    class Order3(Order):
        more: int = 0

    assert Schema.of(Order).fingerprint == Schema.of(Order2).fingerprint
    assert Schema.of(Order).fingerprint != Schema.of(Order3).fingerprint


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Payment", "payment"), ("HTTPEvent", "http_event"), ("PaymentV2", "payment_v2"), ("aB", "a_b"), ("x", "x")],
)
def test_snake_case(name: str, expected: str) -> None:
    assert expected == snake_case(name)


def refused(fields: dict[str, Any], **config: Any) -> str:
    """What is said of a model with these annotations (and defaults, as pairs)."""
    pairs: Any = {name: kind if isinstance(kind, tuple) else (kind, ...) for name, kind in fields.items()}
    base: Any = type("Base", (Event,), {"model_config": ConfigDict(**config), "__module__": __name__})
    model = create_model("Bad", __base__=base, **pairs)
    with pytest.raises(SchemaError) as caught:
        Schema.of(model)
    return str(caught.value)


def test_no_event_time() -> None:
    assert "Bad: expected one event-time field, found none; declare it as" in refused({"a": int})


def test_two_event_times() -> None:
    message = refused({"a": (datetime, event_time()), "b": (datetime, event_time())})
    assert "found a and b" in message


def test_event_time_that_may_be_null() -> None:
    assert "Bad.a is the event time: expected the type datetime" in refused({"a": (datetime | None, event_time())})


@pytest.mark.parametrize("kind", [dict[str, int], set[int], complex, int | str, tuple[int, int], Any, list, object])
def test_a_type_that_cannot_be_a_column_is_named_with_those_that_can(kind: Any) -> None:
    message = refused({"a": kind, "at": (datetime, event_time())})
    assert message.startswith("Bad.a has the type ")
    assert "Supported: str, int, float" in message


def test_free_form_data_is_told_what_to_use() -> None:
    assert "use a nested BaseModel, or str holding JSON" in refused(
        {"a": dict[str, Any], "at": (datetime, event_time())}
    )


def test_extra_allow_is_told_what_to_do() -> None:
    assert 'use extra="ignore"' in refused({"at": (datetime, event_time())}, extra="allow")


def test_an_alias_of_several_names() -> None:
    fields = {"a": (int, Field(validation_alias=AliasPath("x", 0))), "at": (datetime, event_time())}
    assert "expected one plain name" in refused(fields)


def test_two_fields_under_one_key() -> None:
    assert "two fields from the key 'b'" in refused(
        {"a": (int, Field(alias="b")), "b": int, "at": (datetime, event_time())}
    )


def test_a_default_that_its_column_cannot_hold() -> None:
    assert "Bad.a has the default nan" in refused({"a": (float, float("nan")), "at": (datetime, event_time())})


def test_an_unknown_unit() -> None:
    with pytest.raises(SchemaError, match='expected an event-time unit of "s", "ms" or "us", found \'minutes\''):
        event_time(unit="minutes")  # type: ignore[arg-type]


def test_not_a_model() -> None:
    with pytest.raises(SchemaError, match=r"expected a class derived from hr\.Event, found 5"):
        Schema.of(5)  # type: ignore[arg-type]


def test_validators_of_the_users_own_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Careful(Event):
        n: Annotated[int, Field(strict=True)]
        at: datetime = event_time()

        @field_validator("n")
        @classmethod
        def check(cls, n: int) -> int:
            return n

    with caplog.at_level(logging.WARNING, "headrace"):
        schema = Schema.of(Careful)
        Schema.of(Careful)
    assert schema.per_row == ("Careful.check is a validator", "Careful.n has Strict")
    assert len(caplog.records) == 1
    assert "validated row by row" in caplog.records[0].getMessage()


def test_extra_forbid_is_row_by_row() -> None:
    class Tight(Event):
        model_config = ConfigDict(extra="forbid")
        at: datetime = event_time()

    assert Schema.of(Tight).per_row == ('Tight has extra="forbid"',)


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", 1_700_000_000.123), ("ms", 1_700_000_000_123), ("us", 1_700_000_000_123_000), ("s", "1700000000.123")],
)
def test_an_event_built_in_python_reads_numbers_in_the_unit(unit: Any, value: Any) -> None:
    model: Any = create_model("E", __base__=Event, at=(datetime, event_time(unit=unit)))
    assert datetime(2023, 11, 14, 22, 13, 20, 123000, UTC) == model(at=value).at


def test_event_time_inside_annotated_with_an_alias() -> None:
    class E(Event):
        at: Annotated[datetime, event_time(unit="ms", alias="ts")]

    assert (Schema.of(E).fields[0].key, Schema.of(E).fields[0].time.unit) == ("ts", "ms")  # type: ignore[union-attr]


def test_align_fills_drops_and_converts() -> None:
    class Now(Event):
        user: str
        n: float
        merchant: str = "none"
        tags: list[str] = Field(default_factory=lambda: ["new"])
        note: str
        at: datetime = event_time()

    stamp = datetime(2024, 1, 1, tzinfo=UTC)
    old = pl.DataFrame({"at": [stamp], "n": [3], "user": ["u"], "gone": [1]}).cast({"at": UTC_TIME})
    expected = {"user": "u", "n": 3.0, "merchant": "none", "tags": ["new"], "note": None, "at": stamp}
    schema = Schema.of(Now)
    assert_frame_equal(pl.DataFrame([expected], schema=schema.columns), schema.align(old))
    assert_frame_equal(schema.empty(), schema.align(old.clear()))
    assert_frame_equal(schema.align(old), schema.align(schema.align(old)))
