"""Emoji and URLs: they cost tokens and say little."""

from __future__ import annotations

import re

PLACEHOLDER = "[link]"

# What is shown as a picture by default (Unicode's Emoji_Presentation), with what modifies it.
_PICTURE = (
    "\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd\u26be"
    "\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755\u2757"
    "\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55\U0001f004\U0001f0cf\U0001f18e\U0001f191-\U0001f19a"
    "\U0001f1e6-\U0001f1ff\U0001f201-\U0001f251\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7eb"
    "\U0001f90c-\U0001f9ff\U0001fa70-\U0001faff"
)
# Characters that become a picture by the selector behind them: digits (keycaps) keep their digit.
_EMOJI = re.compile(
    f"[{_PICTURE}][\ufe0e\ufe0f\u200d\u20e3]*|[\u2190-\u2bff\u3030\u303d\u3297\u3299]\ufe0f[\u200d\u20e3]*|[\u200d]*\ufe0f\u20e3?|\u20e3"
)
# An address may have pairs of parentheses; one that is closed without being opened stands around the address.
_ADDRESS = r"[^\s<>\"'`\])}(]+(?:\([^\s<>()]{0,200}\)[^\s<>\"'`\])}(]*)*"
_URL = re.compile(rf"(?:[Hh][Tt][Tt][Pp][Ss]?|[Ff][Tt][Pp])://{_ADDRESS}")
_BARE = re.compile(rf"(?<![\w.])www\.[A-Za-z0-9-]{{1,63}}\.{_ADDRESS}")
_AUTOLINK = re.compile(r"<(?:https?|ftp)://[^\s<>]+>")
_MARKDOWN = re.compile(
    r"!?\[([^\[\]\n]{0,1000})\]\((?=[^()\s]{0,2000}[/.#@])[^()\s]{1,2000}(?:\([^()\s]{0,200}\)[^()\s]{0,200})?"
    r"(?:[ \t]+\"[^\"\n]{0,200}\")?\)"
)
_RST = re.compile(r"`([^`<>\n]{1,300}?(?:\n[^`<>\n]{1,300}?)?)\s?<(?:https?|ftp)://[^\s<>]{1,2000}>`__?")


def emoji(text: str) -> str:
    """Without pictures."""
    return text if text.isascii() else _EMOJI.sub("", text)


def urls(text: str) -> str:
    """An address is a placeholder; a link is its words."""
    if "](" in text:
        text = _MARKDOWN.sub(r"\1", text)
    if "://" in text:
        text = _RST.sub(lambda found: found[1].rstrip(), text)
        text = _AUTOLINK.sub(PLACEHOLDER, text)
        text = _URL.sub(_placeholder, text)
    return _BARE.sub(_placeholder, text) if "www." in text else text


def _placeholder(found: re.Match[str]) -> str:
    # A full stop at the end is the sentence's.
    return PLACEHOLDER + found[0][len(found[0].rstrip(".,;:!?")) :]
