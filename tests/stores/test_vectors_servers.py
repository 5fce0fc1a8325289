"""What the vector indexes on servers share: conditions without nulls, URLs, tries and clients."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError
from headrace.filters import All, Any_, Compare, Filter, IsNull, Not, OneOf, passes
from headrace.stores.vectors.frequencies import Frequencies
from headrace.stores.vectors.marks import Check, Every, Tree, checks, marked
from headrace.stores.vectors.servers import Shared, cut, parse, retried
from headrace.testing.vector_data import COLUMNS, CONDITIONS, ROWS, parsed, words


def _true(tree: Tree, marks: Mapping[str, Any]) -> bool:
    """A tree of checks as an engine without nulls sees it: a comparison with nothing is false."""
    if isinstance(tree, bool):
        return tree
    if not isinstance(tree, Check):
        parts = [_true(part, marks) for part in tree.parts]
        return all(parts) if isinstance(tree, Every) else any(parts)
    held = marks["has"] if tree.group == "has" else marks[tree.group].get(tree.column)
    items = held if isinstance(held, list) else [] if held is None else [held]
    if tree.op in ("in", "not in"):
        return any(item in tree.values for item in items) is (tree.op == "in")
    (value,) = tree.values
    return any({"lt": i < value, "le": i <= value, "gt": i > value, "ge": i >= value}[tree.op] for i in items)


_LEAVES: st.SearchStrategy[Filter] = st.one_of(
    st.sampled_from([IsNull(name) for name in COLUMNS]),
    st.sampled_from([parsed(one) for one in CONDITIONS]),
    st.builds(Compare, st.just("year"), st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), st.integers(2019, 2025)),
    st.builds(Compare, st.just("scores"), st.sampled_from(["eq", "lt", "ge"]), st.integers(-4, 3), st.just(True)),
    st.builds(OneOf, st.just("lang"), st.lists(st.sampled_from(["en", "de", ""]), max_size=2).map(tuple)),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Any_, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@given(where=st.lists(_TREES, min_size=40, max_size=40))
def test_checks_say_what_the_condition_says(where: list[Filter]) -> None:
    """Of every row, with values, nulls and lists."""
    for each in where:
        tree = checks(each, COLUMNS)
        found = [_true(tree, marked(row, COLUMNS)) for row in ROWS]
        assert found == [passes(each, row) for row in ROWS]


@given(texts=st.lists(st.text(max_size=400) | st.just("a" * 300) | st.just("a" * 299 + "b"), unique=True))
def test_texts_are_told_apart_by_what_is_kept_of_them(texts: list[str]) -> None:
    """However long, and none of them has a control character."""
    kept = [marked({"lang": text}, COLUMNS)["is"]["lang"] for text in texts]
    assert len(set(kept)) == len(kept)
    assert all(text.isprintable() and len(text) < 300 for text in kept)
    for text, held in zip(texts, kept, strict=True):
        tree = checks(Compare("lang", "eq", text), COLUMNS)
        assert isinstance(tree, Check)
        assert tree.values == (held,)


def test_a_url_is_shown_without_its_secrets() -> None:
    """Userinfo with every awkward character is read, and not shown."""
    found = parse("x://me:p%40ss%2Fw@[::1]:80/db?key=%20v", frozenset({"key"}))
    assert (found.user, found.password, found.host, found.port, found.path) == ("me", "p@ss/w", "::1", 80, "/db")
    assert (found.shown, repr(found)) == ("x://[::1]:80/db", "Address(x://[::1]:80/db)")
    assert dict(found.options) == {"key": " v"}


@pytest.mark.parametrize("url", ["x://me:secret@h?no=1", "x://me:secret@h:99999", "x:me:secret@h"])
def test_a_url_that_is_refused_shows_no_secret(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(url, frozenset({"key"}))
    assert "secret" not in str(error.value)


def test_a_text_is_cut_between_letters() -> None:
    assert [cut("aü😀", most) for most in range(8)] == ["", "a", "a", "aü", "aü", "aü", "aü", "aü😀"]


def test_a_call_is_made_again_where_that_helps() -> None:
    """So often and no more, and not past its time."""

    class OnceError(Exception):
        pass

    def failing(after: int) -> tuple[list[int], Any]:
        made: list[int] = []

        def call() -> str:
            made.append(1)
            if len(made) <= after:
                raise OnceError
            return "done"

        return made, call

    far = time.monotonic() + 60
    made, call = failing(2)
    assert (retried(call, lambda _: 0.0, 3, far, breath=0.001), len(made)) == ("done", 3)
    for tries, deadline, again, expected in ((2, far, 0.0, 2), (5, 0.0, 0.0, 1), (5, far, None, 1)):
        made, call = failing(9)
        with pytest.raises(OnceError):
            retried(call, lambda _, answer=again: answer, tries, deadline, breath=0.001)
        assert len(made) == expected


def test_a_shared_client_ends_with_its_last_user() -> None:
    """And is made anew for the next one."""
    events: list[str] = []
    shared = Shared(lambda: events.append("made") or len(events), lambda client: events.append(f"closed {client}"))  # type: ignore[func-returns-value]
    assert shared.take() == shared.take() == 1
    shared.give()
    shared.give()
    assert shared.take() == 3
    assert events == ["made", "closed 1", "made"]


def test_a_word_is_rarer_the_fewer_points_have_it() -> None:
    """By the formula that all indexes share."""
    question = words("mill river dam")
    counts = dict(zip(question.ids.tolist(), (1, 50, 100), strict=True))
    found = Frequencies(lambda: 100, counts.__getitem__).rarity(question)
    assert found.tolist() == pytest.approx([4.2097, 0.6931, 0.005], abs=1e-3)
