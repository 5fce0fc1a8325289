"""Text from outside, made harmless, and the fence that it stands in.

No wording makes a model immune to instructions in its data. What can be held is the structure: whatever a text says, it
stands inside its fence, and the fence is the only one of its kind. Two things hold that, each of them alone:

- The mark is taken from the text: `clean` breaks every `<data-` and `</data-` in it. It breaks too the marks by which
  chat templates change the speaker, and numbers at the start of a line that look like our citations, and it takes out
  what is not seen: controls, bidirectional overrides, tags (U+E0000), by which words for a model hide from a person.
- The number in the mark is chosen: `choose` derives it by hash from a section's own texts, and takes the next while it
  occurs in any text of the pack. So the same pack has the same fences, and a section that stays the same keeps its own,
  whatever stands after it (but for a text that holds its number): prefix caches live on that. Digits, since tokenizers
  take equally many tokens for any six.

Source: Greshake et al., "Not what you've signed up for" (AISec 2023); Hines et al., "Defending Against Indirect Prompt
Injection Attacks With Spotlighting" (2024), whose delimiters and markers these are.
"""

from __future__ import annotations

import re
from functools import lru_cache

import xxhash

DIGITS = 6
LONGEST_LINE = 200
_TRIES = 64

# Whatever any reader takes for the end of a line; `str.splitlines` knows all of these.
_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, soft hyphen, bidirectional marks and overrides, invisible operators, variation selectors but for emoji's,
# interlinear marks, the block of tags. Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_HIDDEN = re.compile(f"[{_UNSEEN}]")
# No text at all: halves of surrogate pairs and what is no character, which neither UTF-8 nor XML can hold.
_BROKEN = re.compile("[\ud800-\udfff\ufffe\uffff]")
_ODD = re.compile(f"[{_UNSEEN}\ud800-\udfff\ufffe\uffff]")
_LEFT = "<\uff1c\ufe64"
_DASHES = "\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_GAP = r"[\s\u200c\u200d]*+"  # possessive, as all that repeats here: a text must not be able to make us slow
_MARK = re.compile(rf"[{_LEFT}](?={_GAP}[/\uff0f]?{_GAP}data{_GAP}[-{_DASHES}])", re.IGNORECASE)
# By which chat templates tell who speaks: ChatML, Llama, Gemma, Mistral, DeepSeek, tool calls.
_TURN = re.compile(
    rf"[{_LEFT}](?={_GAP}[|\uff5c])|[{_LEFT}](?=/?(?:start_of_turn|end_of_turn|bos|eos|s|tool_call|tool_response|system"
    rf"|function_calls|function_results|think|invoke)>)|[{_LEFT}](?=[{_LEFT}]/?SYS)",
    re.IGNORECASE,
)
_INSTRUCT = re.compile(r"\[(/?(?:INST|SYSTEM_PROMPT|TOOL_[A-Z]+|AVAILABLE_TOOLS)\])", re.IGNORECASE)
_CITED = re.compile(
    r"^([^\S\n]*+(?:[>*#\u200c\u200d-][^\S\n]*+)*+)[\[\uff3b\u3010](\s*+\d++\s*+)[\]\uff3d\u3011]", re.MULTILINE
)
_NAME = re.compile(r"[\w.:/#@+=-]{1,80}")
_SPACES = re.compile(r"\s+")
_OPENERS = ("<", "\uff1c", "\ufe64")
_BRACKETS = ("[", "\uff3b", "\u3010")


def tidy(text: str) -> str:
    """The text with every line ended by a newline, and without characters that are not seen. What is read stays."""
    if _ODD.search(text) is None:
        return text
    text = _BREAKS.sub("\n", text)
    return _HIDDEN.sub("", _BROKEN.sub("\ufffd", text))


def unmarked(text: str) -> str:
    """The text, tidied, with nothing in it that reads as one of our fences. All that trusted text needs."""
    text = tidy(text)
    return _MARK.sub("‹", text) if any(map(text.__contains__, _OPENERS)) else text


def clean(text: str) -> str:
    """Text from outside as it may stand in a fence.

    It says the same: `<` before one of our marks or a chat template's becomes `‹`, and a number in brackets at the
    start of a line, which is how we number citations, stands in parentheses.
    """
    text = tidy(text)
    if any(map(text.__contains__, _OPENERS)):
        text = _TURN.sub("‹", _MARK.sub("‹", text))
    if any(map(text.__contains__, _BRACKETS)):
        text = _CITED.sub(r"\1(\2)", _INSTRUCT.sub(r"(\1", text))
    return text


def one_line(text: str) -> str:
    """A name, a title or a heading: cleaned, on one line, and of a length that is no text's."""
    # The same few roles, sources and titles come again and again; a long text does not.
    return _one_line(text) if len(text) <= LONGEST_LINE else _one_line.__wrapped__(text)


@lru_cache(maxsize=4096)
def _one_line(text: str) -> str:
    text = _SPACES.sub(" ", clean(text)).strip()
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"


def is_name(text: str) -> bool:
    """Whether it can be no sentence: a short name, path or key."""
    return _NAME.fullmatch(text) is not None


def escape(text: str) -> str:
    """The text as XML's, in an element or in a quoted attribute."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;")


def choose(own: str, all_texts: str) -> str:
    """The number of a section's fence: a hash of its own texts that occurs in no text of the pack.

    Args:
        own: The section's texts, tidied.
        all_texts: Every text of the pack, in any order, tidied.
    """
    seed = xxhash.xxh64_intdigest(own.encode())
    digits = DIGITS
    while True:
        for attempt in range(_TRIES):
            number = f"{(seed + attempt * 0x9E3779B97F4A7C15) % 2**64 % 10**digits:0{digits}d}"
            if number not in all_texts:
                return number
        digits += 3  # a text that holds them all is longer than any budget: this ends
