"""The known items of the `retrieval` benchmark: questions to which one answer is known to be right.

    title → document    the title of a document; right are its chunks
    heading → section   a heading; right are the chunks that stand under it

A question must not find its answer by being written there. So the title is taken out of the document's header before it
is indexed, and is not given to the collection as a title; and the line of each heading that is asked for, with its
rule, is taken out of its text, so that its section stands under the heading before. What the authors say of the
same thing elsewhere (a reference, a table of contents) stays: people do write titles into texts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from headrace.bench.documents_data import title_of, without_title

# A section heading of reStructuredText: a line, and a rule under it of about its length.
_HEADING = re.compile(r"(?m)^(?P<text>[^\s=~^\"*#+.:-][^\n]{3,100})\n(?P<rule>([=~^\"*#+-])\3{3,})[ \t]*\n+")
# Shorter ones ("Motivation", "Open issues") name no section of their own.
_LEAST_WORDS = 3
_SHORTEST = 200


@dataclass(frozen=True)
class Question:
    """What is asked, and where the answer is.

    Attributes:
        kind: "title" or "heading".
        document: The document's id.
        start: Of a section: where it begins in the text that is indexed, in characters; and where it ends.
    """

    kind: str
    text: str
    document: str
    start: int = 0
    end: int = 1 << 40


@dataclass(frozen=True)
class KnownItems:
    """The texts to be indexed, by document, and the questions."""

    texts: dict[str, str]
    questions: list[Question]


def known_items(documents: dict[str, str], seed: int, headings: int = 600, titles: int = 0) -> KnownItems:
    """Titles, and headings drawn by chance: each in one document only, of at least three words, at most one a document
    and as many more as it takes.

    Args:
        documents: Texts by id.
        headings: How many of them.
        titles: How many of them; all for 0.
    """
    rng = np.random.default_rng(seed)
    asked = {id: title for id, text in documents.items() if len(title := title_of(text)) > 3}
    repeated = Counter(title.casefold() for title in asked.values())
    named = [Question("title", title, id) for id, title in asked.items() if repeated[title.casefold()] == 1]
    if titles and len(named) > titles:
        named = [named[place] for place in sorted(rng.permutation(len(named))[:titles])]
    chosen = _chosen(documents, headings, rng)
    texts, sections = {}, list[Question]()
    for id, text in documents.items():
        texts[id], found = _without(id, without_title(text), chosen.get(id, set()))
        sections += found
    return KnownItems(texts, named + sections)


def _chosen(documents: dict[str, str], count: int, rng: np.random.Generator) -> dict[str, set[str]]:
    """Headings by document."""
    found = [(id, match["text"].strip()) for id, text in documents.items() for match in _sections(text)]
    repeated = Counter(heading.casefold() for _, heading in found)
    usable = [one for one in found if repeated[one[1].casefold()] == 1 and len(one[1].split()) >= _LEAST_WORDS]
    chosen: dict[str, set[str]] = {}
    for place in rng.permutation(len(usable))[:count]:
        id, heading = usable[place]
        chosen.setdefault(id, set()).add(heading)
    return chosen


def _sections(text: str) -> list[re.Match[str]]:
    return [match for match in _HEADING.finditer(text) if abs(len(match["rule"]) - len(match["text"].strip())) <= 2]


def _without(id: str, text: str, headings: set[str]) -> tuple[str, list[Question]]:
    """The text without those headings, and what they ask for: the text up to the next heading."""
    kept: list[str] = []
    questions: list[Question] = []
    done = length = 0
    sections = _sections(text)
    for place, match in enumerate(sections):
        heading = match["text"].strip()
        if heading not in headings:
            continue
        kept.append(text[done : match.start()])
        length += len(kept[-1])
        done = match.end()
        end = sections[place + 1].start() if place + 1 < len(sections) else len(text)
        if end - match.end() >= _SHORTEST:
            questions.append(Question("heading", heading, id, length, length + end - match.end()))
    return "".join([*kept, text[done:]]), questions
