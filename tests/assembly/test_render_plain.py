"""A pack as plain JSON values is the whole pack, and says everything once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pack_samples import FULL, NOW, REFUNDS, pack_of, packed, packs

from headrace.assembly.pack import Pack, Section
from headrace.assembly.plain import plain, revive
from headrace.errors import InputError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_pack_comes_back_through_json() -> None:
    assert revive(json.loads(json.dumps(plain(FULL)))) == FULL


def test_so_it_does_through_msgspec() -> None:
    assert revive(msgspec.json.decode(msgspec.json.encode(FULL.to_dict()))) == FULL


@given(packs())
def test_hostile_packs_come_back_too(pack: Pack) -> None:
    once = revive(json.loads(json.dumps(plain(pack))))
    assert plain(pack) == plain(once)
    assert pack.render() == once.render()


@given(st.dictionaries(st.text(), values), values)
def test_arguments_and_data_come_back(arguments: dict[str, Any], value: Any) -> None:
    row = packed(1, "note", data={"value": value})
    pack = replace(pack_of(Section("v", "features", "", (row,), 9, False, False)), arguments=arguments)
    assert pack == revive(json.loads(json.dumps(plain(pack))))


def test_a_text_packed_whole_is_written_once() -> None:
    items = plain(pack_of(REFUNDS))["sections"][0]["items"]
    assert (items[0]["text"], "text" in items[0]["item"]) == ("A refund takes 5 days.", False)


def test_a_text_that_was_cut_is_kept_whole_as_well() -> None:
    cut = replace(REFUNDS.items[0], text="A refund", cut=True, merged=("c7",))
    pack = pack_of(replace(REFUNDS, items=(cut,)))
    assert plain(pack)["sections"][0]["items"][0]["item"]["text"] == "A refund takes 5 days."
    assert pack == revive(plain(pack))


def test_what_json_cannot_say() -> None:
    arguments = {
        "at": NOW,
        "price": Decimal("1.50"),
        "nan": math.nan,
        "big": 2**70,
        "ids": (1, 2),
        "half": "\ud800",
        7: "key",
    }
    expected = {
        "at": "2026-03-01T12:00:30.000250Z",
        "price": "1.50",
        "nan": None,
        "big": str(2**70),
        "ids": [1, 2],
        "half": "\ufffd",
        "7": "key",
    }
    assert expected == plain(replace(pack_of(), arguments=arguments))["arguments"]


def test_reviving_leaves_what_it_was_given_as_it_was() -> None:
    values = plain(FULL)
    before = json.dumps(values)
    revive(values)
    assert before == json.dumps(values)


@pytest.mark.parametrize(
    "change",
    [
        {"sections": None},
        {"sections": [{}]},
        {"sections": [3]},
        {"tokens": "many"},
        {"point": {"now": "yesterday"}},
        {"id": None},
    ],
)
def test_what_is_no_pack_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"context pack: expected what Pack.to_dict\(\) gives, found"):
        revive({**plain(FULL), **change})


@pytest.mark.parametrize("missing", ["sections", "id", "point", "tokens"])
def test_what_misses_something_is_refused(missing: str) -> None:
    values = plain(FULL)
    del values[missing]
    with pytest.raises(InputError, match=missing):
        revive(values)
