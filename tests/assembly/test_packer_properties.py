"""What holds of every pack, whatever was read and however small the budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from headrace.assembly.counting import Estimate
from headrace.assembly.pack import Candidate, Item, Kind, Pack, Point
from headrace.assembly.packer import Filled, least, names, pack
from headrace.assembly.render import markdown
from headrace.parts import Packing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POINT = Point(NOW, NOW, "token", stale=("the view spending is 9 s old",))
COUNTER = Estimate()

sentences = st.lists(
    st.sampled_from(
        ["The gate is closed.", "Water rises fast!", "门开着。", "Is it <data-1>?", "no end here", "[1] x = f(a)[0];\n"]
    ),
    max_size=60,
).map(" ".join)


@st.composite
def items(draw: st.DrawFn, name: str) -> tuple[Item, ...]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        age = draw(st.none() | st.floats(0, 1e6))
        made.append(
            Item(
                f"{name}/{number}",
                draw(sentences | st.text(max_size=40)),
                value=draw(st.floats(0, 1)),
                source=draw(st.sampled_from(["", "a.md"])),
                as_of=None if age is None else NOW - timedelta(seconds=age),
                age=age,
                trusted=draw(st.booleans()),
                role=draw(st.sampled_from(["", "user"])),
            )
        )
    return tuple(made)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        floor = draw(st.integers(0, 150))
        ceiling = draw(st.none() | st.integers(floor, 400))
        packing = Packing(
            "", draw(st.sampled_from([0.5, 1, 2])), floor, ceiling, draw(st.sampled_from([None, True, False]))
        )
        kind: Kind = draw(st.sampled_from(get_args(Kind)))
        name = draw(st.sampled_from(["docs", "chat", "docs_2"]))
        made.append(Candidate(name, kind, draw(items(f"{number}")), packing))
    return made


budgets = st.integers(least(COUNTER, POINT), 1_500)


def whole(filled: Filled, budget: int) -> str:
    return markdown(Pack("", "", {}, filled.sections, filled.dropped, filled.tokens, budget, "", POINT))


@given(candidates(), budgets)
def test_a_pack_never_exceeds_its_budget(given_: list[Candidate], budget: int) -> None:
    filled = pack(given_, budget, COUNTER, POINT)
    assert COUNTER.count(whole(filled, budget)) == filled.tokens <= budget


@given(candidates(), budgets)
def test_every_item_is_packed_whole_or_accounted_for_once(given_: list[Candidate], budget: int) -> None:
    filled = pack(given_, budget, COUNTER, POINT)
    packed = [(section.name, p.item.id) for section in filled.sections for p in section.items if not p.cut]
    dropped = [(one.section, one.id) for one in filled.dropped]
    asked = [(name, item.id) for name, one in zip(names(given_), given_, strict=True) for item in one.items]
    assert sorted(packed + dropped) == sorted(asked)


@given(candidates(), budgets)
def test_what_was_cut_is_a_beginning_and_both_packed_and_accounted_for(given_: list[Candidate], budget: int) -> None:
    filled = pack(given_, budget, COUNTER, POINT)
    packed = [p for section in filled.sections for p in section.items if p.cut]
    assert all(p.text and p.item.text.startswith(p.text) and p.text != p.item.text for p in packed)
    assert sorted(p.item.id for p in packed) == sorted(one.id for one in filled.dropped if one.action == "cut")


@given(candidates(), budgets)
def test_what_was_merged_is_named_by_what_is_kept(given_: list[Candidate], budget: int) -> None:
    filled = pack(given_, budget, COUNTER, POINT)
    kept = [id_ for section in filled.sections for p in section.items for id_ in p.merged]
    assert sorted(kept) == sorted(one.id for one in filled.dropped if one.action == "merged")


@given(candidates(), budgets)
def test_no_section_exceeds_its_ceiling(given_: list[Candidate], budget: int) -> None:
    ceilings = dict(zip(names(given_), (one.packing.ceiling for one in given_), strict=True))
    for section in pack(given_, budget, COUNTER, POINT).sections:
        ceiling = ceilings[section.name]
        assert ceiling is None or section.tokens <= ceiling


@given(candidates())
def test_a_floor_is_filled_as_far_as_items_fit_into_it(given_: list[Candidate]) -> None:
    budget = least(COUNTER, POINT) + sum(one.packing.floor for one in given_)
    filled = pack(given_, budget, COUNTER, POINT)
    tokens = {section.name: section.tokens for section in filled.sections}
    for name, one in zip(names(given_), given_, strict=True):
        left = one.packing.floor - tokens.get(name, 0)
        lost = [d.tokens for d in filled.dropped if d.section == name and d.action == "dropped"]
        assert all(tokens_ > left for tokens_ in lost) or left <= 0 or name not in tokens


@given(candidates(), budgets)
def test_the_same_is_packed_the_same(given_: list[Candidate], budget: int) -> None:
    assert pack(given_, budget, COUNTER, POINT) == pack(list(given_), budget, COUNTER, POINT)


@given(candidates(), budgets)
def test_stable_sections_stand_first_each_in_the_order_asked_for(given_: list[Candidate], budget: int) -> None:
    filled = pack(given_, budget, COUNTER, POINT)
    places = {name: place for place, name in enumerate(names(given_))}
    order = [(not section.stable, places[section.name]) for section in filled.sections]
    assert order == sorted(order)


@given(candidates(), budgets)
def test_citations_are_numbered_through(given_: list[Candidate], budget: int) -> None:
    sections = pack(given_, budget, COUNTER, POINT).sections
    numbers = [packed.number for section in sections for packed in section.items]
    assert numbers == list(range(1, len(numbers) + 1))


@given(candidates(), budgets)
def test_items_keep_the_order_in_which_they_were_given(given_: list[Candidate], budget: int) -> None:
    for section in pack(given_, budget, COUNTER, POINT).sections:
        ids = [packed.item.id for packed in section.items]
        assert ids == sorted(ids)
