"""A reader of the Markdown that packs are rendered as, which shares no code with what writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile


@dataclass
class ReadItem:
    """An item: its number, what stands in its fence, and what stands behind it."""

    number: int
    fences: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    fenced: str | None = None
    open: list[str] = field(default_factory=list)


@dataclass
class Read:
    """What a rendering says: its sections' titles and items, and how often it says what time it is."""

    titles: list[str] = field(default_factory=list)
    items: list[list[ReadItem]] = field(default_factory=list)
    moments: int = 0

    @property
    def numbers(self) -> list[list[int]]:
        return [[item.number for item in section] for section in self.items]

    @property
    def fences(self) -> list[list[int]]:
        return [[len(item.fences) for item in section] for section in self.items]


def read(markdown: str) -> Read:
    """Reads line by line: a fence ends at its own mark and nowhere else."""
    found = Read()
    lines = iter(markdown.splitlines())
    for line in lines:
        if fence := re.fullmatch(r"<data-([0-9]{6,})>", line):
            item = found.items[-1][-1]
            item.fences.append(fence[1])
            inside = []
            while (line := next(lines)) != f"</data-{fence[1]}>":
                inside.append(line)
            labels = list(takewhile(bool, inside))
            item.labels = dict(label.split(": ", 1) for label in labels)
            item.fenced = "\n".join(inside[len(labels) + 1 :]) if len(labels) < len(inside) else None
        elif line.startswith("## "):
            found.titles.append(line[3:])
            found.items.append([])
        elif number := re.match(r"\[([0-9]+)\]", line):
            found.items[-1].append(ReadItem(int(number[1])))
        elif line.startswith("Now: "):
            found.moments += 1
        elif found.items and found.items[-1]:
            found.items[-1][-1].open.append(line)
    return found


def marks(text: str) -> int:
    """How many marks of fences a lenient eye finds."""
    return len(re.findall(r"[<＜]\s*[/／]?\s*data\s*[-‐]\s*[0-9]", text, re.IGNORECASE))
