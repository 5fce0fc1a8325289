"""JSON messages: each is a row or a reject under its own number, whatever lies in the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_models import MODELS, Nested, Payment, objects
from written_events import MANY, check, verdicts

from headrace.errors import ConfigError
from headrace.formats.messages import message_decoder
from headrace.schema import Schema

PAYMENT = Schema.of(Payment)
GOOD = b'{"user_id": "a", "amount": 1, "at": 1}'
PRETTY = json.dumps({"user_id": "p", "amount": 2.5, "at": 3}, indent=2).encode()
STRANGE = [
    *(
        b"",
        b" ",
        b"\n",
        b"\r\n \t\n",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf" + GOOD,
        b"\x0b",
        b"\xc2\xa0",
        b"null",
        b"[]",
        b"5",
    ),
    *(
        GOOD + GOOD,
        GOOD + b" " + GOOD,
        GOOD + b"\n" + GOOD,
        GOOD + b"\n",
        b"\n" + GOOD,
        GOOD + b"\x00",
        GOOD + b"," + GOOD,
    ),
    *(b"[" + GOOD + b"]", b'{"user_id": "a\nb", "amount": 1, "at": 1}', b'{"user_id": "a\rb", "amount": 1, "at": 1}'),
    *(
        PRETTY,
        PRETTY.replace(b"\n", b"\r\n"),
        b'{"user_id": "\\n", "amount": 1, "at": 1}',
        b'{"user_id":\n"x"',
        b"}{",
        b'"',
    ),
]


@given(
    data=st.data(), schema=st.sampled_from(MODELS).map(Schema.of), many=st.booleans(), indent=st.sampled_from([None, 1])
)
def test_each_message_has_the_verdict_that_it_has_alone(
    data: st.DataObject, schema: Schema, many: bool, indent: int | None
) -> None:
    rows = data.draw(objects(schema.model)) * (10 if many else 1)
    messages = [json.dumps(row, indent=indent).encode("utf-8", "surrogatepass") for row in rows]
    for strange in data.draw(st.lists(st.sampled_from(STRANGE), max_size=4)):
        messages.insert(data.draw(st.integers(0, len(messages))), strange)
    check(schema, verdicts(schema, messages), messages, message_decoder(schema, "json")(messages))


@pytest.mark.parametrize("many", [0, MANY * 3])
@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_message_among_good_ones(strange: bytes, many: int) -> None:
    messages = [*[GOOD] * many, strange, *[GOOD] * (many // 2)]
    check(PAYMENT, verdicts(PAYMENT, messages), messages, message_decoder(PAYMENT, "json")(messages))


def test_all_strange_messages_at_once() -> None:
    messages = [one for strange in STRANGE for one in (strange, GOOD)] * 4
    check(PAYMENT, verdicts(PAYMENT, messages), messages, message_decoder(PAYMENT, "json")(messages))


def test_two_objects_do_not_make_up_for_an_empty_message() -> None:
    messages = [GOOD] * MANY + [GOOD + GOOD, b""]
    assert [reject.row for reject in message_decoder(PAYMENT, "json")(messages).rejects] == [MANY, MANY + 1]


def test_no_messages_and_only_empty_ones() -> None:
    decode = message_decoder(PAYMENT, "json")
    assert ((none := decode([])).frame.height, none.rejects) == (0, [])
    reason = "expected a JSON object, found an empty message"
    assert [(0, reason, b""), (1, reason, b"\n")] == [(r.row, r.reason, r.raw) for r in decode([b"", b"\n"]).rejects]


def test_a_printed_message_is_one_row_and_keeps_its_lines_as_a_reject() -> None:
    broken = PRETTY.replace(b"2.5", b'"x"')
    decoded = message_decoder(PAYMENT, "json")([PRETTY, broken])
    assert [("p", 2.5, datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC))] == decoded.frame.rows()
    assert [(1, broken)] == [(reject.row, reject.raw) for reject in decoded.rejects]


def test_nested_objects_over_several_lines() -> None:
    row = {"at": 1, "part": {"sku": "a"}, "parts": [{"sku": "b", "n": 2}], "tags": ["x"]}
    decoded = message_decoder(Schema.of(Nested), "json")([json.dumps(row, indent=4).encode()] * MANY)
    assert (decoded.frame.height, decoded.rejects) == (MANY, [])


@pytest.mark.parametrize(
    ("format", "settings", "message"),
    [
        ("jason", {}, r"no format of messages is called 'jason'; did you mean 'json'\?"),
        ("json", {"registry": "http://127.0.0.1:1"}, 'expected no registry= with the format "json"'),
        ("json", {"options": {"schema": "x"}}, 'expected no schema= with the format "json"'),
        ("json", {"options": {"shema": "x"}}, r"messages have no option 'shema'; did you mean 'schema'\?"),
        (
            "avro",
            {},
            r"expected registry= with the URL of a schema registry for the format 'avro', or schema= with a local",
        ),
        (
            "jsonschema",
            {"options": {"schema": "x"}},
            "expected registry= with the URL of a schema registry for the format",
        ),
        ("avro", {"registry": "http://h", "options": {"schema": "x"}}, "expected registry= or schema=, found both"),
        ("avro", {"registry": "http://h", "options": {"validate": "yes"}}, "expected validate=true or validate=false"),
        ("avro", {"options": {"schema": "no/such.avsc"}}, r"expected a schema in schema=no/such.avsc: .*No such file"),
        (
            "avro",
            {"registry": "redis://u:hush@h"},
            "expected the registry's URL, such as http://127.0.0.1:8081, found one",
        ),
        (
            "avro",
            {"registry": "http://h", "options": {"registry.timeout": "0"}},
            "expected registry.timeout in seconds",
        ),
        ("avro", {"registry": "https://h", "options": {"registry.ca": "no.pem"}}, "expected PEM files in registry.ca"),
    ],
)
def test_what_cannot_be_declared(format: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        message_decoder(PAYMENT, format, **settings)  # type: ignore[arg-type]
    assert "hush" not in str(error.value)
