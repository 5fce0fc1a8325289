"""Word, PowerPoint, e-books, mail and whatever else `unstructured` reads: an extra of its own, since it is large.

It is what its users make it: 800 MB, with usage reports of its own, and a language model that it downloads at its first
use (where it cannot, the file goes to the dead letters and says so). The parsers behind it unpack archives that may be
bombs; give it only files of people whom you trust.
"""

from __future__ import annotations

import io
import os

from unstructured.partition.auto import partition

from headrace.errors import InputError, TooLargeError
from headrace.formats.text.states import Extracted, Given

_LONGEST = 200


def load(data: bytes, given: Given) -> Extracted:
    """The elements of a file as Markdown: titles, items and paragraphs.

    Raises:
        InputError: The file is broken, or of a kind whose parser is not installed.
        TooLargeError: What comes out is larger than `given.most_bytes`.
    """
    name = os.path.basename(given.name)
    try:
        elements = partition(file=io.BytesIO(data), metadata_filename=name or None)
    except ImportError as error:
        raise InputError(
            f"expected {name or given.type!r} to be readable, found that unstructured needs {error.name or error}; "
            'pip install "unstructured[all-docs]" brings all its parsers'
        ) from error
    marks = {"Title": "## ", "ListItem": "- "}
    blocks = [marks.get(element.category, "") + str(element).strip() for element in elements if str(element).strip()]
    text = "\n\n".join(blocks)
    if len(text.encode("utf-8", "replace")) > given.most_bytes:
        raise TooLargeError(f"expected a file of at most {given.most_bytes} bytes of text, found {len(text)}")
    title = next((str(element).strip() for element in elements if element.category == "Title"), "")
    return Extracted(title[:_LONGEST] or name, text, "markdown")
