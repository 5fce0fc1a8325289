"""Which format a text has, and its blocks.

A format that is told goes before one that is guessed. Guessing is careful: without clear marks a text is plain, which
is never far wrong.
"""

from __future__ import annotations

import re

from headrace.documents.structure import code, markdown, rst
from headrace.documents.structure.blocks import Block

PROSE = ("markdown", "rst", "plain")
_LANGUAGES = (
    "python javascript typescript jsx tsx java kotlin scala c cpp csharp go rust ruby php swift perl lua r julia shell "
    "bash sql haskell elixir erlang clojure dart zig html css json yaml toml ini xml dockerfile makefile proto graphql"
)
LANGUAGES = frozenset(_LANGUAGES.split())
_SAME = {
    "md": "markdown", "text/markdown": "markdown", "gfm": "markdown", "html": "markdown", "text/html": "markdown",
    "restructuredtext": "rst", "text/x-rst": "rst", "rest": "rst",
    "txt": "plain", "text": "plain", "text/plain": "plain", "": "plain",
    "py": "python", "python3": "python", "text/x-python": "python", "js": "javascript", "ts": "typescript",
    "c++": "cpp", "cc": "cpp", "hpp": "cpp", "h": "c", "c#": "csharp", "cs": "csharp", "golang": "go", "rs": "rust",
    "rb": "ruby", "sh": "shell", "kt": "kotlin", "yml": "yaml",
}  # fmt: skip
# Sniffing reads the beginning: what a text is shows there, and a text may be large.
_READ = 20_000
_MARKDOWN = (
    re.compile(r"(?m)^ {0,3}#{1,6} \S"),
    re.compile(r"(?m)^ {0,3}(?:```|~~~)"),
    re.compile(r"\]\((?:https?://|\.{0,2}/|#|mailto:)"),
    re.compile(r"(?m)^\|.*\|[ \t]*$"),
    re.compile(r"\*\*\w"),
)
_RST = (
    re.compile(r"(?m)^\s*\.\. [\w|\[][^\n]{0,80}?(?:::|:\s|\])"),
    re.compile(r":[a-z][\w-]{1,20}:`"),
    re.compile(r"``[^`\n]{1,80}``"),
    re.compile(r"(?m)^[^\n#].*::[ \t]*$"),
    re.compile(r"`[^`\n]{1,80}`_"),
    re.compile(r"(?m)^[^\s=~^\"*#+-][^\n]{2,80}\n(?:={4,}|-{4,}|~{4,}|\^{4,}|\"{4,})[ \t]*$"),
)


def known(name: str) -> str | None:
    """A format's own name: "markdown" for "md"; None for one that is not known."""
    lowered = name.strip().lower().lstrip(".")
    lowered = _SAME.get(lowered, lowered)
    return lowered if lowered in LANGUAGES or lowered in PROSE else None


def sniff(text: str) -> str:
    """ "markdown", "rst" or "plain"."""
    head = text[:_READ]
    markdown_marks = sum(min(len(mark.findall(head)), 3) for mark in _MARKDOWN)
    rst_marks = sum(min(len(mark.findall(head)), 3) for mark in _RST)
    if max(markdown_marks, rst_marks) < 2:
        return "plain"
    return "rst" if rst_marks >= markdown_marks else "markdown"


def is_code(format: str) -> bool:
    """Whether the whole text is a program."""
    return format in LANGUAGES


def blocks(text: str, format: str) -> list[Block]:
    """The blocks of a text: in order, apart, holding everything that is not blank.

    Args:
        text: Lines end with line feeds.
        format: "markdown", "rst", "plain" or the name of a programming language; any other is taken as plain.
    """
    if format in ("markdown", "html"):
        return markdown.blocks(text)
    if format in LANGUAGES:
        return code.blocks(text, format)
    return rst.blocks(text, plain=format != "rst")
