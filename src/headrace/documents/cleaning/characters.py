"""Characters: what is invisible or merely styled becomes what it means.

Unicode's compatibility normalisation (NFKC) would do too much: it makes 'x2' of 'x²'. So only letters that are styled
(𝐁𝐨𝐥𝐝, ｆｕｌｌ, Ⓐ, ﬁ) are mapped to what NFKC says of them, and the rest is put into NFC (UAX 15). Direction overrides
and tags are taken away: they can hide text from a person that a model reads.
"""

from __future__ import annotations

import re
import unicodedata

_STYLED = (
    (0x1D400, 0x1D7FF),  # mathematical letters and digits
    (0xFF01, 0xFF5E),  # fullwidth
    (0x24B6, 0x24E9),  # circled letters
    (0x1F130, 0x1F149),  # squared letters
    (0x1F110, 0x1F129),  # letters in parentheses
    (0xFB00, 0xFB06),  # ligatures
    (0x2102, 0x2102), (0x210A, 0x2115), (0x2119, 0x211D), (0x2124, 0x2124), (0x212C, 0x2134), (0x2145, 0x2149),
)  # fmt: skip
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def _single(code: int) -> str | None:
    mapped = unicodedata.normalize("NFKC", chr(code))
    bare = mapped.strip("()")
    return bare if bare and bare != chr(code) else None


_PLAIN: dict[int, str] = {
    **{code: made for first, last in _STYLED for code in range(first, last + 1) if (made := _single(code))},
    # Negative circled and squared letters have no mapping of their own.
    **{first + n: chr(65 + n) for first in (0x1F150, 0x1F170) for n in range(26)},
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    0x2026: "...",
}
# Of program text too: what no reader sees, and line ends.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# Joiners belong to words of Arabic and Indic scripts, and hold emoji together.
_JOINERS = re.compile("[\u200c\u200d](?![\u0600-\u0fff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])")
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029")
_SURROGATES = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    """Every line ends with a line feed, and every character can be seen; code keeps its meaning."""
    if text.isascii() and "\r" not in text and not _CONTROLS.search(text):
        return text
    text = _LINE_ENDS.sub("\n", text)
    text = _HIDDEN.sub("", text)
    return _SURROGATES.sub("\ufffd", _JOINERS.sub("", text))


def plain(text: str) -> str:
    """Styled letters, quotes, dashes and blanks as one types them, in NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_PLAIN))
