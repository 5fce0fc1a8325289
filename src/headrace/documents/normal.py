"""What is embedded of a block: its words, without what only a renderer needs.

A model that reads tokens gains nothing from how lines are wrapped, from rules and borders, or from marks around a link;
some make a token of each '=' of an underline. Left out of what is embedded, they also cannot change it: a paragraph
that was wrapped anew is not embedded again. What a reader is shown is the text itself, whatever is embedded.
"""

from __future__ import annotations

import re

VERSION = 1

_RULE = re.compile(r"[\W_]{3,}")
_RUN = re.compile(r"([^\w\s])\1{3,}")
_ROLE = re.compile(r":[a-z][\w:.+-]{0,40}:(?=`)")
_TARGET = re.compile(r"[ \t\n]?<(?:\[link\]|[^<>\s`]{1,2000})>(?=`)")
_FOOTNOTE = re.compile(r"[ \n]?\[(?:#?[\w.-]{0,40}|\*)\]_(?!\w)")
_TICKS = re.compile(r"`+(?:__?(?!\w))?")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![\w*])")
_INLINE_LINK = re.compile(r"!?\[([^\[\]]{1,1000})\]\([^()\s]{0,2000}(?:[ \t]\"[^\"]{0,200}\")?\)")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+|[ \t]+#+[ \t]*$")


def prose(text: str, *, markdown: bool) -> str:
    """A paragraph, heading, list's item or table on one line, without its marks."""
    text = _unruled(text)
    if markdown:
        if "](" in text:
            text = _INLINE_LINK.sub(r"\1", text)
    else:
        if ":`" in text:
            text = _ROLE.sub("", text)
        if "]_" in text:
            text = _FOOTNOTE.sub("", text)
        if ">`" in text:
            text = _TARGET.sub("", text)
    if "`" in text:
        text = _TICKS.sub("", text)
    if "*" in text:
        text = _EMPHASIS.sub("", text)
    return " ".join(text.split())


def heading(text: str, *, markdown: bool) -> str:
    """A heading, without its marks."""
    return prose(_HEADING.sub("", text) if markdown else text, markdown=markdown)


def code(text: str) -> str:
    """Code: the lines that are not blank, without the margin that all have."""
    lines = [line.rstrip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return _RUN.sub(r"\1\1\1", "\n".join(line[margin:] for line in lines))


def _unruled(text: str) -> str:
    if "\n" in text:
        text = "\n".join([line for line in text.split("\n") if not _RULE.fullmatch(line)])
    return _RUN.sub(r"\1\1\1", text)
