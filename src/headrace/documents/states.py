"""The states that a document passes, each a type: raw → cleaned → chunks → embedded chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.document import Document


@dataclass(frozen=True, slots=True)
class Raw:
    """A row as its table has it.

    Attributes:
        key: The row's key, as a text.
        kind: The model's name in snake_case.
        document: The row.
        seq: The table's number of this revision; it grows.
        at: When it changed, microseconds since the Unix epoch.
        source: Where it came from.
        trusted: Whether the text is the operator's own.
    """

    key: str
    kind: str
    document: Document
    seq: int
    at: int
    source: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A document's text, clean.

    Attributes:
        key: As before; so are the others.
        title: The first of the text columns, if there are several; it heads each chunk's heading path.
        text: What is chunked.
        format: How it is structured: "markdown", "rst", "html", "plain", or the name of a programming language.
    """

    key: str
    kind: str
    title: str
    text: str
    format: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What a splitter cuts: text[start:end], under its headings.

    Attributes:
        text: Usually the slice of the cleaned text; a custom splitter may give another.
        start: Where it begins in the cleaned text, in characters; -1 where a custom splitter does not know.
        end: Where it ends.
        headings: From the outermost to the innermost.
        embedded: What is embedded, where that is not simply the headings and the text.
    """

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    embedded: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece with an identity: the hash of what is embedded.

    Attributes:
        id: A UUID's text, from the collection's space, the document's key, the hash, and the number among equal ones.
        hash: Of `embedded`, 32 hexadecimal digits (XXH3, 128 bits).
        embedded: What is embedded: the heading path and the text.
        number: Its place in the document, from 0.
    """

    id: str
    hash: str
    document: str
    text: str
    embedded: str
    headings: tuple[str, ...]
    start: int
    end: int
    number: int


@dataclass(frozen=True, slots=True)
class EmbeddedChunk:
    """A chunk and its vector, shape (dimension,), float32, of length 1."""

    chunk: Chunk
    vector: npt.NDArray[np.float32]
