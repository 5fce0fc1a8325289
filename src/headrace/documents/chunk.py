"""A clean text into pieces: by structure first, then by the embedder's own tokens.

    hr.chunk(tokens=256, overlap=32)

Blocks (paragraphs, items, tables, code, definitions) stay whole where they fit. Small ones that stand together share a
chunk, and where chunks begin is decided so that it stays when the text is edited elsewhere (see `group`). A block that
is longer than a chunk is cut at sentences or lines, then anywhere; only there do chunks overlap. What is embedded is
the headings above a piece and its words (see `normal`); what a reader is given is the text itself, with its offsets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headrace.documents import normal
from headrace.documents.group import Atom, common, grouped
from headrace.documents.identity import SEPARATOR
from headrace.documents.splitters import Splitter, describe, split
from headrace.documents.states import Piece
from headrace.documents.structure import formats
from headrace.documents.structure.blocks import Block
from headrace.documents.structure.parts import parts
from headrace.documents.tokens import MOST_CHARACTERS, Counter, counter_of, key_of
from headrace.errors import ConfigError

if TYPE_CHECKING:
    from headrace.documents.embed.base import Tokenizer

# Changes when the same text is cut otherwise than before: all documents are then cut again.
VERSION = 1
LEAST_TOKENS = 16
MOST_TOKENS = 8192
# Headings may take this part of a chunk's tokens.
_MOST_PREFIX = 0.25


@dataclass(frozen=True)
class Chunking:
    """How a text is cut; made by `hr.chunk`.

    Attributes:
        tokens: The most tokens of a chunk, its headings among them.
        overlap: Tokens that a chunk which begins inside a block takes from the one before.
        by: "structure", or what cuts instead: a function from a text to texts, or a splitter of LangChain's or
            Chonkie's.
        floor: The part of `tokens` that a chunk should have at least; smaller blocks are put together.
    """

    tokens: int = 256
    overlap: int = 32
    by: Splitter = "structure"
    floor: float = 0.5

    @property
    def fingerprint(self) -> str:
        """A text that changes when the same document would be cut otherwise."""
        by = self.by if isinstance(self.by, str) else describe(self.by)
        return f"chunk/{VERSION}.{normal.VERSION}/{self.tokens}/{self.overlap}/{self.floor}/{by}"

    def split(self, text: str, format: str, tokenizer: Tokenizer, title: str = "") -> list[Piece]:
        """Cuts a text.

        Args:
            text: Clean.
            format: "markdown", "rst", "plain" or the name of a programming language.
            tokenizer: The embedder's.
            title: The document's; it heads each piece's headings.

        Returns:
            Pieces in order. They hold all that is not blank, and each has at most `tokens` tokens.

        Raises:
            InputError: A custom splitter failed, or gave what is not text.
        """
        if not text.strip():
            return []
        # A chunk that the model does not see to its end could be found by a part of it only.
        spec = replace(self, tokens=min(self.tokens, getattr(tokenizer, "limit", self.tokens)))
        cutter = _Cutter(spec, text, format, counter_of(tokenizer), " ".join(title.split()))
        return cutter.by_structure() if self.by == "structure" else cutter.by_splitter(self.by)


def chunk(tokens: int = 256, overlap: int | None = None, by: Splitter = "structure", floor: float = 0.5) -> Chunking:
    """How a text is cut into chunks.

    Args:
        tokens: The most tokens of a chunk, its headings among them; as the embedder counts them, and never more than
            it sees.
        overlap: Tokens that a chunk which begins inside a long paragraph or code block takes from the one before; an
            eighth of `tokens` if not given.
        by: "structure"; or a function from a text to texts, an object with `split_text` (LangChain's splitters) or with
            `chunk` (Chonkie's chunkers). What they give is cut again where it is longer than `tokens`.
        floor: The part of `tokens` that a chunk should have at least. Less keeps more of an edited document as it was,
            more gives a model more context.

    Raises:
        ConfigError: A value is out of its range, or `by` is none of these.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not LEAST_TOKENS <= tokens <= MOST_TOKENS:
        raise ConfigError(f"hr.chunk: expected tokens from {LEAST_TOKENS} to {MOST_TOKENS}, found {tokens!r}")
    overlap = tokens // 8 if overlap is None else overlap
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 0 <= overlap <= tokens // 4:
        raise ConfigError(
            f"hr.chunk: expected overlap from 0 to {tokens // 4} (a quarter of tokens), found {overlap!r}"
        )
    if not 0 < floor <= 0.9:
        raise ConfigError(f"hr.chunk: expected floor above 0 and at most 0.9, found {floor!r}")
    if by != "structure" and (
        isinstance(by, str) or not (callable(by) or hasattr(by, "split_text") or hasattr(by, "chunk"))
    ):
        raise ConfigError(
            "hr.chunk: expected by to be 'structure', a function from a text to texts, or an object with split_text or "
            f"chunk, found {by!r}"
        )
    return Chunking(tokens, overlap, by, floor)


def chunking(given: Any) -> Chunking:
    """What a user gave as `chunk=`: a spec, a splitter, or None for the default.

    Raises:
        ConfigError: It is none of these.
    """
    if given is None:
        return Chunking()
    return given if isinstance(given, Chunking) else chunk(by=given)


class _Cutter:
    """One text that is being cut."""

    def __init__(self, spec: Chunking, text: str, format: str, counter: Counter, title: str) -> None:
        self._spec = spec
        self._text = text
        self._markdown = format in ("markdown", "html")
        self._code = formats.is_code(format)
        self._format = format
        self._counter = counter
        self._title = title
        self._most_prefix = int(spec.tokens * _MOST_PREFIX)
        self._prefixes: dict[tuple[str, ...], tuple[str, int]] = {}

    def by_structure(self) -> list[Piece]:
        atoms: list[Atom] = []
        for block in formats.blocks(self._text, self._format):
            self._atoms_of(block, atoms)
        spec = self._spec
        cuts = grouped(atoms, spec.tokens, spec.floor, spec.overlap)
        return [piece for first, last in cuts for piece in self._fitted(self._piece(atoms, first, last))]

    def by_splitter(self, splitter: Any) -> list[Piece]:
        blocks = formats.blocks(self._text, self._format)
        starts = [block.start for block in blocks]
        found: list[Piece] = []
        for piece in split(splitter, self._text):
            at = bisect_right(starts, piece.start) - 1 if piece.start >= 0 else -1
            path = self._titled(blocks[at].path if at >= 0 else ())
            prefix = self._prefix(path)[0]
            found += self._fitted(
                Piece(piece.text, piece.start, piece.end, path, f"{prefix}\n{piece.text}" if prefix else piece.text)
            )
        return found

    # -- atoms -----------------------------------------------------------------------------------------------------

    def _atoms_of(self, block: Block, atoms: list[Atom]) -> None:
        """A block as an atom, or as several if it is too long for a chunk."""
        path = self._titled(block.path)
        prefix = self._prefix(path)[1]
        room = self._spec.tokens - prefix
        if block.end - block.start <= room * MOST_CHARACTERS:
            said, tokens, chance = self._said(block.start, block.end, block.kind)
            if tokens <= room:
                atoms.append(Atom(block.start, block.end, block.kind, path, said, tokens, chance, False, prefix))
                return
        inside = False
        for start, end in self._fitting_parts(block, room - self._spec.overlap):
            said, tokens, chance = self._said(start, end, block.kind)
            atoms.append(Atom(start, end, block.kind, path, said, tokens, chance, inside, prefix))
            inside = True

    def _fitting_parts(self, block: Block, room: int) -> Iterator[tuple[int, int]]:
        """Sentences or lines; those that do not fit are cut by tokens."""
        for start, end in parts(self._text, block):
            fits = end - start <= room * MOST_CHARACTERS
            if fits and self._said(start, end, block.kind)[1] <= room:
                yield start, end
                continue
            cuts = [start, *(start + cut for cut in self._counter.cuts(self._text[start:end], room)), end]
            for here, there in pairwise(cuts):
                if self._text[here:there].strip():
                    yield here, there

    def _said(self, start: int, end: int, kind: str) -> tuple[str, int, float]:
        text = self._text[start:end]
        salt = (kind == "code") + 2 * (kind == "heading") + 4 * self._markdown + 8 * self._code
        return self._counter.blocks.get(key_of(text, salt), lambda: self._measured(text, kind))

    def _measured(self, text: str, kind: str) -> tuple[str, int, float]:
        if kind == "code":
            said = normal.code(text)
        elif kind == "heading":
            said = normal.heading(text, markdown=self._markdown)
        else:
            said = normal.prose(text, markdown=self._markdown)
        return said, self._counter.of(said), (key_of(said) & 0xFFFF) / 0x10000

    # -- headings --------------------------------------------------------------------------------------------------

    def _titled(self, path: tuple[str, ...]) -> tuple[str, ...]:
        if not self._title or (path and path[0].casefold() == self._title.casefold()):
            return path
        return (self._title, *path)

    def _prefix(self, path: tuple[str, ...]) -> tuple[str, int]:
        """The headings as they are embedded, and their tokens: the innermost that fit, and the title if it does."""
        known = self._prefixes.get(path)
        if known is None:
            known = self._prefixes[path] = self._fitting_prefix(path)
        return known

    def _fitting_prefix(self, path: tuple[str, ...]) -> tuple[str, int]:
        said = SEPARATOR.join(path)
        tokens = self._counter.of(said)
        inner = path
        while tokens > self._most_prefix and len(inner) > 1:
            inner = inner[:1] + inner[2:] if len(inner) > 2 else inner[1:]
            said = SEPARATOR.join(inner)
            tokens = self._counter.of(said)
        if tokens > self._most_prefix:
            cut = self._counter.cuts(said, self._most_prefix)
            said = said[: cut[0]].rstrip() if cut else said
        # Whatever was left out, a shorter path may need more than what is left.
        return said, tokens if inner is path and tokens <= self._most_prefix else self._most_prefix

    # -- pieces ----------------------------------------------------------------------------------------------------

    def _piece(self, atoms: Sequence[Atom], first: int, last: int) -> Piece:
        path = atoms[first].path
        for atom in atoms[first + 1 : last]:
            if atom.path is not path and atom.path != path:
                path = path[: common(path, atom.path)]
        # A heading that the piece begins with is not said twice.
        above = path[:-1] if atoms[first].kind == "heading" and path == atoms[first].path else path
        prefix = self._prefix(above)[0]
        from_, tail = self._overlap(atoms, first)
        start = atoms[from_].start if tail is None else tail
        said = [] if tail is None else [self._said(tail, atoms[first - 1].end, atoms[first - 1].kind)[0]]
        said += [self._said(*one)[0] for one in _ranges(atoms[from_:last])]
        body = "\n".join([one for one in said if one])
        text = self._text[start : atoms[last - 1].end]
        return Piece(text, start, atoms[last - 1].end, path, f"{prefix}\n{body}" if prefix and body else body or text)

    def _overlap(self, atoms: Sequence[Atom], first: int) -> tuple[int, int | None]:
        """What a piece takes from the one before if it begins inside a block: whole sentences or lines.

        Returns:
            The first atom that it has; and where the words begin that it takes of a sentence that is too long.
        """
        from_, left = first, self._spec.overlap
        while atoms[from_].inside and atoms[from_ - 1].tokens <= left:
            from_ -= 1
            left -= atoms[from_].tokens
        before = atoms[first - 1]
        if from_ < first or not atoms[first].inside or not left or before.kind in ("code", "table"):
            return from_, None
        tail = before.start + self._counter.tail(self._text[before.start : before.end], left)
        return first, tail if tail < before.end else None

    def _fitted(self, piece: Piece) -> Iterator[Piece]:
        """The piece, or several if it has too many tokens after all.

        Blocks are counted one by one; a tokenizer that sees them together may make more of them. A custom splitter
        knows nothing of the limit.
        """
        limit = self._spec.tokens
        if len(piece.embedded) <= limit * MOST_CHARACTERS and self._counter.of(piece.embedded) <= limit:
            yield piece
            return
        prefix, taken = self._prefix(piece.headings)
        room = max(limit - taken - 1, 1)
        cuts = [0, *self._counter.cuts(piece.text, room), len(piece.text)]
        for here, there in pairwise(cuts):
            text = piece.text[here:there]
            if text.strip():
                start, end = (piece.start + here, piece.start + there) if piece.start >= 0 else (-1, -1)
                yield Piece(text, start, end, piece.headings, f"{prefix}\n{text}" if prefix else text)


def _ranges(atoms: Sequence[Atom]) -> list[tuple[int, int, str]]:
    """Where the atoms are, with their kinds; lines of the same code are one range, so that they keep their margin."""
    found: list[tuple[int, int, str]] = []
    for atom in atoms:
        if atom.inside and atom.kind == "code" and found:
            found[-1] = (found[-1][0], atom.end, atom.kind)
        else:
            found.append((atom.start, atom.end, atom.kind))
    return found
