"""Counting tokens word by word gives what the tokenizer gives for the whole text."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.runners.embedding.load import embedder

SIGNS = st.sampled_from(
    ["\x0b", "\x1c", "\x1f", "\x85", "\u200b", "\u2028", "\xa0", "\n", " ", "mill", "don't", "東京", "é"]
)


@given(st.lists(SIGNS | st.text(max_size=5), max_size=12).map("".join))
@example("ab\x1ccd")  # two words to Python, one to BERT
@example("word " * 300)
@example("x" * 5_000)
def test_a_count_is_the_number_of_offsets(text: str) -> None:
    """Also where Python and BERT disagree on what is blank."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    for name in ("static", "minilm"):
        model = embedder(name)
        assert model.count(text) == len(model.offsets(text))  # type: ignore[attr-defined]  # not all embedders count
