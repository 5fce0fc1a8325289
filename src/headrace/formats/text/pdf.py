"""PDF to text, page by page, by pypdf. What a file may cost is bounded: pages, text, the size of a stream, time.

A PDF is a program that draws; words in it have places and no order. What comes out is good enough to be searched, and
scanned pages come out empty. Where a page begins in the text is in the metadata.
"""

from __future__ import annotations

import io
import os
import time
from typing import Any

import pypdf

from headrace.errors import InputError, TooLargeError
from headrace.formats.text.states import Extracted, Given

MOST_PAGES = 2_000
MOST_SECONDS = 60.0
_STREAM = 32 << 20  # bytes that a compressed stream may become
_LIMITS: dict[str, Any] = {
    "maximum_declared_stream_length": _STREAM,
    "array_based_stream_maximum_output_length": _STREAM,
    "zlib_maximum_output_length": _STREAM,
    "lzw_maximum_output_length": _STREAM,
    "run_length_maximum_output_length": _STREAM,
    "stream_decoding_work_maximum_length": 2 * _STREAM,
    "stream_parsing_work_maximum_count": 500_000,
    "xform_maximum_invocations_per_extraction": 500,
    "disable_legacy_handling": True,
}
_LONGEST = 200


def load(data: bytes, given: Given) -> Extracted:
    """The text of all pages, an empty line between two.

    Raises:
        InputError: It is no PDF, is broken, or is encrypted.
        TooLargeError: It has too many pages or too much text, or took too long.
    """
    with pypdf.apply_configuration(**_LIMITS):
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted:
            raise InputError("expected a PDF that can be read, found an encrypted one; save it without a password")
        count = len(reader.pages)
        if count > MOST_PAGES:
            raise TooLargeError(f"expected a PDF of at most {MOST_PAGES} pages, found {count}; split it")
        title, author = _about(reader)
        text, starts = _pages(reader, count, given.most_bytes)
    said = {"pages": count, "page_starts": starts} | ({"author": author} if author else {})
    return Extracted(title or os.path.basename(given.name), text, "plain", None, said)


def _about(reader: pypdf.PdfReader) -> tuple[str, str]:
    about = reader.metadata
    if about is None:
        return "", ""
    return _clean(str(about.title or "")).strip()[:_LONGEST], _clean(str(about.author or "")).strip()[:_LONGEST]


def _pages(reader: pypdf.PdfReader, count: int, most_bytes: int) -> tuple[str, list[int]]:
    ends = time.monotonic() + MOST_SECONDS
    parts: list[str] = []
    starts: list[int] = []
    length = size = 0
    for number in range(count):
        page = _clean(reader.pages[number].extract_text()).strip()
        starts.append(length)
        parts.append(page)
        length += len(page) + 2
        size += len(page.encode()) + 2
        if size > most_bytes:
            raise TooLargeError(
                f"expected a PDF of at most {most_bytes} bytes of text, found more by page {number + 1}"
            )
        if time.monotonic() > ends:
            raise TooLargeError(
                f"expected a PDF that is read within {MOST_SECONDS:.0f} s, found {number + 1} of {count} pages read by "
                "then; split it"
            )
    return "\n\n".join(parts), starts


def _clean(text: str) -> str:
    """Without what no text may hold: half of a surrogate pair, and zeros."""
    return text.encode("utf-8", "replace").decode().replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
