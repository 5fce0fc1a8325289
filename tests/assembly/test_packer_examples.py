"""Packing, one choice at a time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace.assembly.counting import Estimate
from headrace.assembly.pack import Candidate, Item, Point
from headrace.assembly.packer import Filled, least, names, pack
from headrace.errors import InputError
from headrace.parts import Packing

POINT = Point(datetime(2026, 3, 1, tzinfo=UTC), None, "token")
COUNTER = Estimate()
BASE = least(COUNTER, POINT)


def prose(seed: int, count: int = 10) -> str:
    """Sentences that no other seed has."""
    return " ".join(f"Gate {seed}-{n} of canal {seed * 31 + n} lets mark{seed}x{n} water pass." for n in range(count))


def fill(given: list[Candidate], room: int) -> Filled:
    return pack(given, BASE + room, COUNTER, POINT)


def ids(filled: Filled) -> dict[str, list[str]]:
    return {section.name: [packed.item.id for packed in section.items] for section in filled.sections}


def actions(filled: Filled) -> dict[str, str]:
    return {one.id: one.action for one in filled.dropped}


def passages(*texts: str, name: str = "docs", packing: Packing | None = None) -> Candidate:
    items = tuple(Item(f"{name}{n}", text, value=1 - n / 100) for n, text in enumerate(texts))
    return Candidate(name, "passages", items, packing or Packing())


@pytest.mark.parametrize("budget", [-1, 0, 1, BASE - 1])
def test_a_budget_for_nothing_is_refused_with_the_least(budget: int) -> None:
    with pytest.raises(InputError, match=f"expected at least {BASE} tokens.*found {budget}"):
        pack([passages("A text.")], budget, COUNTER, POINT)


def test_where_only_the_rule_fits_all_is_dropped() -> None:
    filled = pack([passages("A text.")], BASE, COUNTER, POINT)
    assert (filled.sections, actions(filled), filled.tokens <= BASE) == ((), {"docs0": "dropped"}, True)


def test_nothing_to_pack_is_an_empty_pack() -> None:
    assert pack([Candidate("docs", "passages", ())], BASE, COUNTER, POINT).sections == ()


def test_two_of_one_name_are_told_apart() -> None:
    given = [passages("A.", name=name) for name in ("x", "x", "x_2", "x")]
    assert names(given) == ["x", "x_2", "x_2_2", "x_3"]


def test_near_duplicates_are_merged_into_the_better_one() -> None:
    text = prose(1, 30)
    filled = fill([passages(text, prose(2), text + " And one more.")], 5_000)
    assert actions(filled) == {"docs2": "merged"} or actions(filled) == {"docs0": "merged"}
    kept = [packed for packed in filled.sections[0].items if packed.merged]
    assert [set(kept[0].merged) | {kept[0].item.id}] == [{"docs0", "docs2"}]


def test_rows_that_read_alike_are_not_merged() -> None:
    rows = [Candidate(f"v{n}", "features", (Item(f"v{n}", prose(1)),)) for n in range(2)]
    assert fill(rows, 5_000).dropped == ()


def test_a_recalled_turn_that_is_among_the_latest_is_merged() -> None:
    turns = Candidate("chat", "turns", (Item("t1", prose(1)), Item("t2", prose(2))))
    filled = fill([Candidate("chat", "recalled", (Item("r1", prose(1)),)), turns], 5_000)
    assert (ids(filled), actions(filled)) == ({"chat_2": ["t1", "t2"]}, {"r1": "merged"})


def test_what_says_something_new_comes_before_what_half_repeats() -> None:
    text = prose(1, 20)
    repeating = text[: len(text) // 2] + prose(3, 10)
    texts = {"first": (text, 1.0), "repeating": (repeating, 0.8), "new": (prose(2, 20), 0.7)}
    given = [Candidate("docs", "passages", tuple(Item(name, *said) for name, said in texts.items()))]
    room = COUNTER.count(text) + COUNTER.count(texts["new"][0]) + 90
    assert list(actions(fill(given, room))) == ["repeating"]


def test_rows_come_before_passages_of_equal_priority() -> None:
    row = Candidate("view", "features", (Item("row", prose(1)),))
    filled = fill([passages("Tiny one.", "Tiny two."), row], COUNTER.count(prose(1)) + 70)
    assert ids(filled)["view"] == ["row"]


def test_a_priority_weighs() -> None:
    given = [passages(prose(1), name="a"), passages(prose(2), name="b", packing=Packing(priority=2))]
    assert list(ids(fill(given, COUNTER.count(prose(1)) + 80)))[:1] == ["b"]


def test_the_newest_turns_are_kept_in_the_order_of_time() -> None:
    turns = Candidate("chat", "turns", tuple(Item(f"t{n}", prose(n), role="user") for n in range(6)))
    room = 3 * COUNTER.count(prose(1)) + 3 * 30 + 40
    assert ids(fill([turns], room))["chat"][-2:] == ["t4", "t5"]
    assert "t0" not in ids(fill([turns], room))["chat"]


def test_a_floor_holds_against_a_higher_priority() -> None:
    loud = passages(*(prose(n, 4) for n in range(20)), name="loud", packing=Packing(priority=100))
    quiet = passages(*(prose(n + 50, 4) for n in range(20)), name="quiet", packing=Packing(floor=300))
    tokens = {section.name: section.tokens for section in fill([loud, quiet], 900).sections}
    assert tokens["quiet"] >= 200
    assert tokens["loud"] >= 400


def test_what_a_floor_cannot_use_is_released() -> None:
    quiet = passages("Only this.", name="quiet", packing=Packing(floor=800))
    loud = passages(*(prose(n, 4) for n in range(4)), name="loud")
    assert len(ids(fill([quiet, loud], 900))["loud"]) == 4


def test_one_long_item_fills_more_than_its_floor() -> None:
    filled = fill([passages(prose(1, 100), packing=Packing(floor=150))], 700)
    assert filled.sections[0].tokens > 600


def test_a_long_passage_is_cut_where_a_sentence_ends() -> None:
    filled = fill([passages(prose(1, 100))], 300)
    (packed,) = filled.sections[0].items
    assert (packed.cut, packed.text.endswith("pass.")) == (True, True)
    assert filled.dropped[0].action == "cut"
    assert filled.dropped[0].reason.endswith(f"kept {packed.tokens}, up to the end of a sentence")


def test_chinese_is_cut_where_a_sentence_ends() -> None:
    filled = fill([passages("闸门今天早上已经打开了。" * 200)], 300)
    (packed,) = filled.sections[0].items
    assert (packed.cut, packed.text[-1], len(packed.text) > 60) == (True, "。", True)


def test_a_word_of_a_million_characters_is_dropped() -> None:
    filled = fill([passages("x" * 1_000_000, "A short one.")], 300)
    assert ids(filled) == {"docs": ["docs1"]}
    assert "no sentence ends" in filled.dropped[0].reason


def test_what_cleaning_lengthens_is_cut_within_the_budget() -> None:
    filled = fill([passages("<data-1> <data-2>. " * 500)], 400)
    assert filled.tokens <= BASE + 400
    assert filled.sections[0].items[0].cut


def test_a_row_is_never_cut() -> None:
    filled = fill([Candidate("view", "features", (Item("row", prose(1, 100)),))], 300)
    assert (filled.sections, "a row is never cut" in filled.dropped[0].reason) == ((), True)


def test_a_ceiling_is_named_where_it_was_in_the_way() -> None:
    filled = fill([passages(prose(1), prose(2), packing=Packing(ceiling=60))], 3_000)
    assert all("of its section's 60" in one.reason for one in filled.dropped)


def test_trusted_texts_are_stable_and_stand_first() -> None:
    rule = Candidate("text", "text", (Item("rule", "Be brief.", trusted=True),))
    said = Candidate("text", "text", (Item("said", "I am brief."),))
    filled = fill([said, passages("A text."), rule], 900)
    assert [(one.name, one.stable, one.trusted) for one in filled.sections] == [
        ("text_2", True, True),
        ("text", False, False),
        ("docs", False, False),
    ]


class _Odd:
    """Counts a whole as more than its parts, as tokenizers may."""

    name = "odd"

    def count(self, text: str) -> int:
        return COUNTER.count(text) + len(text) // 400

    def fit(self, text: str, most: int) -> int:
        return COUNTER.fit(text, most)


def test_a_counter_that_does_not_add_up_still_keeps_the_budget() -> None:
    given = [passages(*(prose(n, 2) for n in range(30)))]
    filled = pack(given, 900, _Odd(), POINT)
    assert (filled.tokens <= 900, len(filled.dropped) + len(filled.sections[0].items)) == (True, 30)
