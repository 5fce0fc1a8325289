"""An extractive summary: the sentences of a conversation that say most of it, in their order.

A sentence is worth the more, the more it shares with the others (its centrality: the mean of its words' weights, where
a word weighs by how many sentences have it), and the newer it is. They are chosen one by one, each measured against
what is chosen already (maximal marginal relevance), until the tokens are used up. It is a pure function, and running:
the next summary is made of the last one's sentences and the new turns', so the work is that of the new turns alone.

Source: Carbonell and Goldstein, "The Use of MMR", SIGIR 1998; Nenkova and Vanderwende, "The Impact of Frequency on
Summarization" (SumBasic), 2005.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.documents.passages import estimated

TOKENS = 240
"""How long a summary is, at most, by the estimate of four bytes a token."""
_MOST_SENTENCES = 400
_MOST_CHARACTERS = 400
# A sentence alone in being new, and one that is like all others, are worth the same.
_NEWNESS = 0.35
_LIKENESS = 0.6
_SENTENCE = re.compile(r"[^.!?。！？\n]+(?:[.!?。！？]+(?=\s|$)|[.!?](?=\S)|\n|$)")
_WORD = re.compile(r"\w+")
_COMMONEST = """
    a an and are as at be but by can do for from had has have he her his i if in is it its me my no not of on or our she
    so that the their them they this to was we were what when where which who will with you your
"""
_COMMON = frozenset(_COMMONEST.split())


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    words: frozenset[str]
    tokens: int
    place: int


def extract(previous: str, turns: Sequence[tuple[str, str]], *, tokens: int = TOKENS) -> str:
    """The next summary.

    Args:
        previous: The last one, a sentence a line; empty for none.
        turns: Roles and texts, in their order.
        tokens: The most that it may have, by the estimate.

    Returns:
        A sentence a line, in the order in which they were said; empty if nothing was.
    """
    lines = previous.split("\n") if previous else []
    for role, text in turns:
        lines += [f"{role}: {one}" for one in sentences(text)]
    pool = _distinct(lines[-_MOST_SENTENCES:])
    chosen = sorted(_chosen(pool, tokens), key=lambda one: one.place)
    return "\n".join(one.text for one in chosen)


def sentences(text: str) -> list[str]:
    """A text's sentences, each on one line and of bounded length."""
    found = (" ".join(one.split()) for one in _SENTENCE.findall(text[: 100 * _MOST_CHARACTERS]))
    return [one if len(one) <= _MOST_CHARACTERS else one[: _MOST_CHARACTERS - 1] + "…" for one in found if one]


def _distinct(lines: Sequence[str]) -> list[_Sentence]:
    """Lines as sentences; of those with the same words the last."""
    found: dict[frozenset[str], _Sentence] = {}
    for place, line in enumerate(lines):
        said = line.split(": ", 1)[-1]
        words = frozenset(_WORD.findall(said.lower())) - _COMMON
        if words:
            found.pop(words, None)
            found[words] = _Sentence(line, words, estimated(line + "\n"), place)
    return list(found.values())


def _chosen(pool: list[_Sentence], tokens: int) -> list[_Sentence]:
    count = Counter(word for one in pool for word in one.words)
    newest = max((one.place for one in pool), default=0) or 1
    worth = {
        one.place: (1 - _NEWNESS) * _centrality(one, count, len(pool)) + _NEWNESS * one.place / newest for one in pool
    }
    alike = dict.fromkeys(worth, 0.0)
    chosen: list[_Sentence] = []
    left = [one for one in pool if one.tokens <= tokens]
    while left:
        # Ties go to the later one, so that the same turns always give the same summary.
        best = max(left, key=lambda one: (worth[one.place] - _LIKENESS * alike[one.place], one.place))
        chosen.append(best)
        tokens -= best.tokens
        left = [one for one in left if one is not best and one.tokens <= tokens]
        for one in left:
            alike[one.place] = max(alike[one.place], _likeness(one, best))
    return chosen


def _centrality(one: _Sentence, count: Counter[str], total: int) -> float:
    """From 0 to 1: how much of what the others say is in it; one of a word or two says little."""
    mean = sum(count[word] for word in one.words) / (len(one.words) * total)
    return math.sqrt(mean) * min(1.0, len(one.words) / 5)


def _likeness(one: _Sentence, other: _Sentence) -> float:
    return len(one.words & other.words) / len(one.words | other.words)
