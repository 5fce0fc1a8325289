"""Source code: a definition is a block.

Python is cut where its own parser says that statements begin, decorators and the comments above included, and a class
into its methods. Any other language is cut at lines at the margin that follow a blank line, which is where people put
definitions in nearly all of them.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator

from headrace.documents.structure.blocks import MOST_HEADING, Block, Line, end_of, groups

# What Python warns of in a document's code (an invalid escape) is no business of the program that reads it.
_NAME = "<document>"
for _category in (SyntaxWarning, DeprecationWarning):
    warnings.filterwarnings("ignore", category=_category, module=re.escape(_NAME))

# The parser's own stack is finite, and so is patience.
_MOST_PARSED = 2_000_000
_OPENING = re.compile(
    r"\s*(?:(?:export|public|private|protected|static|async|abstract|final|pub|default|inline|virtual)\s+){0,5}"
    r"(?:class|def|func|fn|function|interface|struct|enum|trait|impl|module|namespace|type|record|object)\b"
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def blocks(text: str, language: str) -> list[Block]:
    """The blocks of a program."""
    if language == "python" and len(text) <= _MOST_PARSED:
        parsed = _python(text)
        if parsed is not None:
            return parsed
    return _by_margin(text)


def _python(text: str) -> list[Block] | None:
    """The blocks of a Python module; None if it is none."""
    try:
        tree = ast.parse(text, _NAME)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts: dict[int, tuple[str, ...]] = {}
    for line, path in _statements(tree.body, ()):
        starts.setdefault(line, path)
    lines = [line for group in groups(text) for line in group]
    # Python also ends a line at a carriage return or a form feed within, which `groups` does not.
    if not lines or any("\r" in line.text or "\f" in line.text for line in lines):
        return None
    offsets = [0]
    for line_text in text.split("\n"):
        offsets.append(offsets[-1] + len(line_text) + 1)
    begins = [(offsets[number - 1], path) for number, path in sorted(starts.items())]
    return _assigned(text, begins)


def _statements(body: list[ast.stmt], path: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line (from 1) where each definition begins, and where what follows it does; with the path of both."""
    after = False
    for node in body:
        if isinstance(node, _Definition):
            kind = "class" if isinstance(node, ast.ClassDef) else "def"
            own = (*path, f"{kind} {node.name}")
            yield min([node.lineno, *(one.lineno for one in node.decorator_list)]), own
            if isinstance(node, ast.ClassDef):
                yield from _statements(node.body, own)
            after = True
        elif after:
            yield node.lineno, path
            after = False


def _assigned(text: str, begins: list[tuple[int, tuple[str, ...]]]) -> list[Block]:
    """The groups of lines as blocks: one of each definition; those between definitions as they stand."""
    positions = [start for start, _ in begins]
    found: list[Block] = []
    for group in groups(text):
        for part in _parts(group, positions):
            start, end = part[0].start, end_of(part[-1])
            # Comments right above a definition belong to it.
            at = bisect_right(positions, end) - 1
            path = begins[at][1] if at >= 0 else ()
            owner = positions[at] if at >= 0 else -1
            inside = bool(path) and path[-1].startswith("def ")
            if inside and found and found[-1].path == path and found[-1].end > owner and start > owner:
                found[-1] = found[-1]._replace(end=end)
            else:
                found.append(Block(start, end, "code", path))
    return found


def _parts(group: list[Line], positions: list[int]) -> Iterator[list[Line]]:
    """A group cut before each definition in it, and before the comments that stand right above one."""
    cut = 0
    comments: int | None = None
    for number, line in enumerate(group):
        at = bisect_right(positions, line.start + line.indent) - 1
        begins = at >= 0 and positions[at] >= line.start
        if begins:
            start = comments if comments is not None else number
            if start > cut:
                yield group[cut:start]
                cut = start
            comments = None
        elif line.text.lstrip().startswith("#"):
            comments = number if comments is None else comments
        else:
            comments = None
    yield group[cut:]


def _by_margin(text: str) -> list[Block]:
    found: list[Block] = []
    path: tuple[str, ...] = ()
    for group in groups(text):
        first = group[0]
        closes = first.text.lstrip()[:1] in ("}", ")", "]")
        if found and (first.indent > 0 or closes):
            found[-1] = found[-1]._replace(end=end_of(group[-1]))
            continue
        opening = next((line.text.strip() for line in group if _OPENING.match(line.text)), "")
        path = (opening.rstrip(" {:(")[:MOST_HEADING],) if opening else ()
        found.append(Block(first.start, end_of(group[-1]), "code", path))
    return found
