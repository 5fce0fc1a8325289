"""Where a text can be cut: at the end of a sentence, or of a line.

A sentence ends at `.`, `!`, `?` or `…` (and the quotes and brackets that close with it) before a blank, and at the full
stops of Chinese, Japanese and Hindi with no blank at all. A full stop ends none after a single letter or a common
abbreviation, after a number that begins a line, or before a small letter. Marks are looked for one by one, from the end
and no further back than `FARTHEST`, so that the time is bounded whatever stands in the text, and however long it is.

Source: after Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection" (2006), whose cases these are,
with a list in place of what is learned.
"""

from __future__ import annotations

import re

_CLOSING = "\"'\u201d\u2019)\\]\u00bb\u300d\u300f\uff09"
_END = re.compile(
    rf"[.!?\u2026\u061f\u06d4][{_CLOSING}]{{0,4}}(?=\s|$)|[\u3002\uff01\uff1f\uff61\u0964][{_CLOSING}]{{0,4}}|(?<=\S)\n"
)
_SHORT = re.compile(
    r"(?:^|[\s(\[\"'])(?:[^\W\d_]|(?:[a-z]\.)+[a-z]|mr|mrs|ms|dr|prof|st|no|nr|vs|etc|fig|eq|sec|cf|al|approx|incl|dept"
    r"|bzw|usw|ca)\.$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?:^|\n)[ \t]*\d+\.$")
_FIRST_WINDOW = 512
_LONGEST_SHORT = 24
# An end is looked for this far back: what has none within as much is no prose, and cut there it would be a torso.
FARTHEST = 32_768


def last_end(text: str, most: int) -> int:
    """Where the last sentence ends within the first `most` characters.

    Returns:
        Characters up to there, blanks at the end left out; 0 if no sentence ends so early, or none within the last
        `FARTHEST` characters before that.
    """
    most = min(most, len(text))
    window, high, least = _FIRST_WINDOW, most, max(0, most - FARTHEST)
    while high > least:
        low = max(least, high - window)
        # Looked at a little past its end: whether a blank follows, and what closes with the mark, is told there.
        ends = [found for found in _END.finditer(text, low, min(len(text), high + 8)) if low <= found.start() < high]
        for found in reversed(ends):
            if found.end() <= most and _is_end(text, found.end() - (found.group() == "\n"), found.group()):
                return len(text[: found.end()].rstrip())
        high, window = low, window * 2
    return 0


def _is_end(text: str, end: int, mark: str) -> bool:
    """Whether a mark that stands up to there ends a sentence."""
    if not mark.startswith("."):
        return True
    after = text[end : end + 8].lstrip()
    if after[:1].islower() and "\n" not in text[end : end + 8]:
        return False
    before = text[max(0, end - _LONGEST_SHORT) : end]
    return _SHORT.search(before) is None and _NUMBER.search(before) is None
