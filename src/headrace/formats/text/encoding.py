"""Bytes to characters, without guessing.

The order is that of the HTML standard: a byte order mark, what the sender declares, what the document declares of
itself, and else UTF-8. Bytes that are not what they are said to be are refused: a detector that guesses makes
plausible nonsense of them, which is then embedded and found. Whoever has old files says what they are
(`encoding="latin-1"`).
"""

from __future__ import annotations

import codecs
import re

from headrace.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's codecs also hold what is no charset of documents, some of it with quadratic cost (punycode).
_KNOWN = re.compile(
    r"utf-?(8|16|32)(-[lb]e)?|ascii|iso8859-\d+|cp(125\d|866|874|932|949|950|437|850)|koi8-[rut]|mac-(roman|cyrillic)"
    r"|big5(hkscs)?|gb2312|gbk|gb18030|hz|shift_jis|euc_(jp|kr)|iso2022_jp|tis-620"
)
_META = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:\-]+)", re.IGNORECASE)
_COOKIE = re.compile(rb"^[ \t\f]*#[^\n]{0,80}?coding[:=][ \t]*([-\w.]+)")
# Of a text at most one character in so many is a control character; of noise one in nine is.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_RARE = 100


def decode(data: bytes, *, charset: str | None = None, inside: str | None = None) -> str:
    """The characters, with line feeds at the ends of lines.

    Args:
        charset: What the sender or a user says; used where the bytes have no mark.
        inside: What the document says of itself; see `declared`.

    Raises:
        InputError: They are not what they are said to be, or are no text.
    """
    mark, name = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    name = name or known(charset) or known(inside) or "utf-8"
    try:
        text = data[len(mark) :].decode(name)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        if b"\0" in data:
            raise InputError(f"expected text, found binary data (a zero byte at {data.index(0)})") from None
        raise InputError(
            f"expected text in {name.upper()}, found bytes that are not at {at} ({data[at : at + 4].hex(' ')}); "
            "declare its encoding, or convert it to UTF-8"
        ) from None
    _refuse_noise(text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def known(charset: str | None) -> str | None:
    """Python's name of a charset; None if there is no such charset of documents."""
    if not charset:
        return None
    try:
        name = codecs.lookup(charset.strip().lower()).name
    except (LookupError, ValueError):
        return None
    return name if _KNOWN.fullmatch(name) else None


def declared(data: bytes, type_: str) -> str | None:
    """The charset that HTML, XML or Python source declares in its first lines."""
    if type_ in ("html", "xml"):
        found = _META.search(data[:2048])
        name = found[1].decode("ascii") if found else None
        # Whoever can read the declaration of UTF-16 has not read UTF-16; and ISO 8859-1 means Windows-1252.
        if known(name) in ("ascii", "iso8859-1") and type_ == "html":
            return "cp1252"
        return "utf-8" if name and name.lower().startswith("utf-16") else name
    if type_ == "python":
        for line in data[:400].split(b"\n")[:2]:
            found = _COOKIE.match(line)
            if found:
                return found[1].decode("ascii")
    return None


def _refuse_noise(text: str) -> None:
    if "\0" in text:
        raise InputError(
            f"expected text, found binary data (a zero character at {text.index(chr(0))}); "
            "UTF-16 needs its byte order mark"
        )
    controls = len(_CONTROLS.findall(text))
    if controls * _RARE > len(text):
        raise InputError(f"expected text, found binary data ({controls} control characters in {len(text)})")
