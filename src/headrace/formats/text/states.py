"""What goes into a loader and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.document import MOST_BYTES


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of some bytes before they are read.

    Attributes:
        name: The file's name, or what stands for one; it ends with the suffix, if there is one.
        type: How the text is structured, in the words of `headrace.formats.text.kinds`: "markdown", "html", "python".
        url: Where it came from; links are read against it.
        charset: What the sender says the encoding is, or what a user says that it is where it is not UTF-8.
        most_bytes: The longest text, in bytes of UTF-8, that may come out.
    """

    name: str = ""
    type: str = "plain"
    url: str = ""
    charset: str | None = None
    most_bytes: int = MOST_BYTES


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a file or a page.

    Attributes:
        title: What it calls itself, else the name of the file; empty where there is neither.
        text: Lines end with a line feed.
        format: "markdown", "rst", "plain", or the name of a programming language.
        language: The language that it says it is in, such as "en"; None if it says none. It is not guessed.
        metadata: What else it says of itself: "author", "date" (ISO 8601), "description", "pages".
    """

    title: str
    text: str
    format: str
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Loader(Protocol):
    """Makes text of bytes; what is registered under the kind "text" is called like this."""

    def __call__(self, data: bytes, given: Given) -> Extracted:
        """The text.

        Raises:
            InputError: There is none to be had; the message says why.
        """
        ...
