"""Pieces become chunks: an identity that stays when a document is edited elsewhere.

A chunk is what is embedded, so its hash is of that (XXH3, 128 bits) and of nothing else: not of its place, so that what
only moved is not embedded again. Its id is a UUID (version 8, RFC 9562) of the collection's space, the document, the
hash and the number among equal chunks of the document, counted from the top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import xxhash

from headrace.documents.states import Chunk, Piece

SEPARATOR = " > "


def embedded(piece: Piece) -> str:
    """What is embedded of a piece: what its splitter says, else the headings above the text."""
    if piece.embedded:
        return piece.embedded
    return f"{SEPARATOR.join(piece.headings)}\n{piece.text}" if piece.headings else piece.text


def content_hash(text: str) -> str:
    """32 hexadecimal digits: XXH3 (128 bits) of the text in UTF-8."""
    return xxhash.xxh3_128_hexdigest(_bytes(text))


def identified(space: str, document: str, pieces: Iterable[Piece]) -> list[Chunk]:
    """The chunks of a document, in order.

    Args:
        space: What sets apart the chunks of equal text and document: the collection, and the embedder.
        document: The document's key.
        pieces: As its splitter gave them; those without a character that is not blank are left out.
    """
    seen: Counter[str] = Counter()
    # Lengths first, so that no space and document run into one another.
    prefix = f"{len(space)}:{space}{len(document)}:{document}"
    found: list[Chunk] = []
    for piece in pieces:
        said = embedded(piece)
        if not piece.text.strip():
            continue
        hashed = content_hash(said)
        identity = _uuid(xxhash.xxh3_128_intdigest(_bytes(f"{prefix}{hashed}{seen[hashed]}")))
        seen[hashed] += 1
        found.append(
            Chunk(identity, hashed, document, piece.text, said, piece.headings, piece.start, piece.end, len(found))
        )
    return found


def _uuid(digest: int) -> str:
    """A UUID's canonical text: version 8, the rest from the digest."""
    digest = digest & ~(0xF << 76) | 0x8 << 76
    digest = digest & ~(0x3 << 62) | 0x2 << 62
    digits = f"{digest:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _bytes(text: str) -> bytes:
    # A lone surrogate is no text, but it must not stop a document either.
    return text.encode("utf-8", "surrogatepass")
