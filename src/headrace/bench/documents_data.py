"""What the `documents` and `retrieval` benchmarks read: the revisions of Python's enhancement proposals.

A Parquet file with the columns `seq` (the order), `op` ("upsert" or "delete"), `id` and `text`; any documents with
their revisions will do. It is not part of the package: `--data FILE`, or HEADRACE_PEPS, says where it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import headrace as hr
from headrace.bench.harness import BenchError

TABLE, COLLECTION = "peps", "library"
_COLUMNS = ("seq", "op", "id", "text")
# The header's field, which may go on in lines that are indented.
_TITLE = re.compile(r"(?m)^Title:[ \t]*(.*(?:\n[ \t]+\S.*)*)\n?")
_HEADER = 4_000


class Pep(hr.Document):
    """A document: its title, and its text."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Edit:
    """A revision; without text it is the document's end."""

    id: str
    text: str | None

    @property
    def row(self) -> dict[str, Any]:
        """As it is pushed."""
        return row(self.id, self.text or "")


def row(id: str, text: str) -> dict[str, Any]:
    """A document as it is pushed: the title is its header's, and stays in the text too."""
    return {"id": id, "title": title_of(text), "text": text}


def title_of(text: str) -> str:
    """What the header calls the document; empty if it does not say."""
    found = _TITLE.search(text, 0, _HEADER)
    return " ".join(found[1].split()) if found else ""


def without_title(text: str) -> str:
    """The text without that line of its header."""
    found = _TITLE.search(text, 0, _HEADER)
    return text[: found.start()] + text[found.end() :] if found else text


def located(given: Path | None) -> Path:
    """The file that was handed over.

    Raises:
        BenchError: None was, or it is not there.
    """
    named = given or os.environ.get("HEADRACE_PEPS") or None
    if named is None:
        raise BenchError(
            "expected a Parquet file of revisions (columns seq, op, id, text), found none; "
            "name one with --data FILE or HEADRACE_PEPS"
        )
    if not Path(named).is_file():
        raise BenchError(f"expected a Parquet file of revisions, found no file {named}; name another with --data FILE")
    return Path(named)


def frame(path: Path, limit: int = 0) -> pl.DataFrame:
    """The revisions in order; the first `limit`, or all for 0.

    Raises:
        BenchError: The file has other columns, or no revisions.
    """
    try:
        lazy = pl.scan_parquet(path)
        missing = sorted(set(_COLUMNS) - set(lazy.collect_schema().names()))
        if missing:
            raise BenchError(f"{path}: expected the columns {', '.join(_COLUMNS)}; {', '.join(missing)} lack")
        found = lazy.select(_COLUMNS).sort("seq").collect()
    except pl.exceptions.PolarsError as error:
        raise BenchError(f"{path}: expected a Parquet file of revisions: {error}") from None
    if found.is_empty():
        raise BenchError(f"{path}: expected revisions, found none")
    return found.head(limit) if limit else found


def edits(revisions: pl.DataFrame) -> Iterator[Edit]:
    """The revisions one by one."""
    for op, id, text in revisions.select("op", "id", "text").iter_rows():
        yield Edit(id, None if op == "delete" else text)


def live(revisions: pl.DataFrame) -> dict[str, str]:
    """The documents after the last revision, by id."""
    last = revisions.group_by("id", maintain_order=True).last().filter(pl.col("op") == "upsert")
    return dict(last.select("id", "text").iter_rows())


def app(embed: Any, index: str, **options: Any) -> hr.App:
    """One table and one collection of such documents."""
    made = hr.App("bench-documents")
    table = made.table(Pep, name=TABLE)
    made.collection(
        COLLECTION, table, embed=embed, index=index, **{"text": ["title", "text"], "filters": ["id", "title"]} | options
    )
    return made
