"""A collection's documents as a data set to train on: JSONL files, and a manifest that says how they were made.

    clean snapshot ─► nearly equal documents out ─► passages ─► nearly equal passages out ─► worded ─► train, test
    (of one version)                                (by length)  (across both sides)

What is nearly the same is taken out before the sides are told apart, so that nothing is tested that was trained on in
other words. Each step counts what it takes out, by reason. The same version, pipeline and recipe make the same bytes.

All text stays on the disk; in memory is a part of the snapshot at a time, and the shingles of what is compared (about
eight bytes a word).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, overload

import msgspec
import polars as pl

from headrace.documents.dataset import Recipe, Side, Wording, line, oldest, side
from headrace.documents.near import groups
from headrace.documents.passages import Count, Passage, estimated, passages
from headrace.errors import InputError
from headrace.filters import parse, to_json
from headrace.runners.library.snapshot import Source
from headrace.stores import disk
from headrace.stores.history.folder import Folder, read_manifest
from headrace.stores.history.parquet import PATTERN

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection

SOURCES = "sources.jsonl"
_CANDIDATES = "candidates"
_COLUMNS = ("key", "version", "at", "title", "text", "format")
# Passages that are worded at once.
_BATCH = 128


class Instructor(Protocol):
    """What writes the instruction that a passage answers; a model, usually."""

    def instructions(self, passages: list[Passage]) -> list[str | None]:
        """One each; None where none could be had."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it."""
        ...


@dataclass(frozen=True)
class Export:
    """A data set that was written.

    Attributes:
        path: The directory, with `train.jsonl`, `test.jsonl`, `sources.jsonl` and `manifest.json`.
        manifest: How it was made, and what was left out.
    """

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def examples(self) -> dict[str, int]:
        """How many examples are on each side."""
        return {name: self.manifest["examples"][name] for name in ("train", "test")}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A passage that may become an example."""

    key: str
    version: int
    at: int
    passage: Passage

    @property
    def age(self) -> tuple[Any, ...]:
        return self.at, self.version, self.key, self.passage.number


def export(
    app: App,
    data: str | Path,
    collection: Collection | str,
    path: str | Path,
    recipe: Recipe | None = None,
    *,
    version: int | None = None,
    at: datetime | int | None = None,
    count: Count = estimated,
    counted_by: str | None = None,
    instructor: Instructor | None = None,
) -> Export:
    """Writes a data set.

    Args:
        app: What was declared.
        data: The data directory that it runs on; nothing in it is changed or locked.
        collection: A collection or its name.
        path: A new or empty directory.
        recipe: How it is made.
        version: Of the table; its newest if neither this nor `at` is given.
        at: The version that was current then; see `snapshot`.
        count: Tokens of a text.
        counted_by: What the manifest calls `count`.
        instructor: What words the passages that begin a section, in place of the recipe's templates.

    Raises:
        UnknownNameError: There is no such collection.
        InputError: There is no data, no such version or time, nothing to export, or something is at `path` already.
        StorageError: It could not be read or written.
    """
    given = recipe or Recipe()
    target = app.collection_of(collection)
    if version is not None and at is not None:
        raise InputError("expected a version or a time, found both; leave one out")
    source = Source(app, Path(data), target, given.where, given.trusted)
    with Folder(Path(path)) as folder:
        with Folder(folder.path / "staged") as staged:
            about = source.documents(staged, version, at)
            if not about["rows"]:
                raise InputError(
                    f"the collection {target.name!r} has nothing to export at version {about['version']}"
                    f"{_reasons(about['removed'])}"
                )
            made = _Maker(folder.path, given, count, instructor)
            made.cut(staged.path)
        made.choose()
        files = made.write()
        if not made.examples["train"] + made.examples["test"]:
            raise InputError(
                f"the collection {target.name!r} gives no example at version {about['version']}"
                f"{_reasons({**made.documents, **made.removed})}"
            )
        name = counted_by or ("bytes / 4" if count is estimated else getattr(count, "__qualname__", repr(count)))
        where = None if given.where is None else to_json(parse(given.where, target.columns))
        manifest = _manifest(about, given, made, instructor)
        manifest["recipe"] |= {"where": where, "counted_by": name}
        folder.commit(manifest | {"files": [folder.written(one, rows).to_dict() for one, rows in files]})
    return Export(Path(path), read_manifest(Path(path)))


class _Maker:
    """Makes the files of one data set, step by step, in a directory that is not there for anybody else yet."""

    def __init__(self, path: Path, recipe: Recipe, count: Count, instructor: Instructor | None) -> None:
        self._path = path
        self._recipe = recipe
        self._count = count
        self._instructor = instructor
        self._kept: list[bool] = []
        self.documents: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.examples: Counter[str] = Counter(train=0, test=0)
        self.removed: Counter[str] = Counter()

    def cut(self, staged: Path) -> None:
        """Cuts the documents that are not nearly the same as an older one into passages."""
        ages = [row[:3] for row in _rows(staged, "at", "version", "key", "text") if row[3].strip()]
        texts = _Texts(lambda: (text for (text,) in _rows(staged, "text") if text.strip()), len(ages))
        kept = iter(self._distinct(texts, ages))
        with (self._path / _CANDIDATES).open("wb") as file:
            for key, version, at, title, text, format in _rows(staged, *_COLUMNS):
                if not text.strip():
                    self.documents["empty"] += 1
                elif not next(kept):
                    self.documents["near_duplicate"] += 1
                else:
                    least, most = self._recipe.least, self._recipe.most
                    found, removed = passages(title, text, format, least=least, most=most, count=self._count)
                    self.removed.update(removed)
                    for passage in found:
                        _write(file, _Candidate(key, version, at, passage))

    def choose(self) -> None:
        """Leaves out passages that are nearly the same as an older one, of whatever document."""
        ages = [one.age for one in self._candidates()]
        texts = _Texts(lambda: (one.passage.text for one in self._candidates()), len(ages))
        self._kept = self._distinct(texts, ages)
        self.removed["near_duplicate"] += self._kept.count(False)

    def _distinct(self, texts: Sequence[str], ages: list[tuple[Any, ...]]) -> list[bool]:
        if self._recipe.near is None or not ages:
            return [True] * len(ages)
        return oldest(groups(texts, self._recipe.near), ages)

    def write(self) -> list[tuple[str, int]]:
        """Writes the files; returns their names and how many lines each has."""
        sides: list[Side] = ["train", "test"] if self._recipe.test else ["train"]
        seen: dict[Side, str] = {}
        with _Files(self._path, [f"{one}.jsonl" for one in sides] + [SOURCES]) as files:
            for candidate, wording in self._worded():
                where = side(candidate.key, self._recipe.seed, self._recipe.test)
                name = f"{where}.jsonl"
                files.add(name, line(self._recipe.format, wording, candidate.passage.text, self._recipe.system))
                self.examples[where] += 1
                self.used[where] += seen.get(where) != candidate.key
                seen[where] = candidate.key
                files.add(SOURCES, _origin(name, self.examples[where], candidate))
        (self._path / _CANDIDATES).unlink()
        return list(files.lines.items())

    def _worded(self) -> Iterator[tuple[_Candidate, Wording]]:
        """The passages that are kept, with what they are asked for by."""
        kept = (one for one, keep in zip(self._candidates(), self._kept, strict=True) if keep)
        while batch := list(islice(kept, _BATCH)):
            for candidate, wording in zip(batch, self._wordings([one.passage for one in batch]), strict=True):
                if wording is not None:
                    yield candidate, wording

    def _wordings(self, found: list[Passage]) -> list[Wording | None]:
        if self._recipe.format == "text":
            return [("", "")] * len(found)
        asked = [one for one in found if not one.before] if self._instructor is not None else []
        answers = iter(self._instructor.instructions(asked) if self._instructor is not None and asked else ())
        wordings: list[Wording | None] = []
        for passage in found:
            if self._instructor is not None and not passage.before:
                answer = next(answers)
                wording = None if answer is None else (answer, "")
                self.removed["model_failed"] += wording is None
            else:
                wording = self._recipe.worder(passage)
                self.removed["left_out"] += wording is None
            wordings.append(wording)
        return wordings

    def _candidates(self) -> Iterator[_Candidate]:
        decoder = msgspec.json.Decoder(_Candidate)
        with (self._path / _CANDIDATES).open("rb") as file:
            for one in file:
                yield decoder.decode(one)


class _Texts(Sequence[str]):
    """Texts that are read from the disk whenever they are gone through."""

    def __init__(self, read: Callable[[], Iterator[str]], length: int) -> None:
        self._read = read
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return self._read()

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        return list(self)[place]


class _Files:
    """Files of lines, written side by side."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._open: dict[str, BinaryIO] = {}
        self._path = path
        self.lines = dict.fromkeys(names, 0)

    def add(self, name: str, value: Any) -> None:
        _write(self._open[name], value)
        self.lines[name] += 1

    def __enter__(self) -> _Files:
        self._open = {name: (self._path / name).open("wb") for name in self.lines}
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()


def _write(file: BinaryIO, value: Any) -> None:
    try:
        file.write(msgspec.json.encode(value) + b"\n")
    except OSError as error:
        raise disk.storage_error(error, f"cannot write {file.name}") from error


def _rows(staged: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Columns of the clean documents, a part at a time; times in microseconds since the Unix epoch."""
    for part in sorted(staged.glob(PATTERN)):
        frame = pl.read_parquet(part, columns=list(columns)).select(columns)
        if "at" in columns:
            frame = frame.with_columns(pl.col("at").cast(pl.Int64))
        yield from frame.iter_rows()


def _origin(name: str, number: int, candidate: _Candidate) -> dict[str, Any]:
    """Which part of which document a line was made from."""
    passage = candidate.passage
    place = {"start": passage.start, "end": passage.end}
    return {"file": name, "line": number, "document": candidate.key, "version": candidate.version, **place}


def _reasons(removed: Mapping[str, int]) -> str:
    told = [f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(removed.items()) if count]
    return f"; left out: {', '.join(told)}" if told else ""


def _manifest(about: dict[str, Any], recipe: Recipe, made: _Maker, instructor: Instructor | None) -> dict[str, Any]:
    same = ("headrace", "app", "collection", "table", "version", "at", "pipeline")
    removed = Counter(about["removed"]) + made.documents
    return {
        **{name: about[name] for name in same},
        "what": "dataset",
        "recipe": recipe.shown(),
        "model": None if instructor is None else instructor.describe(),
        "documents": {
            "read": about["rows"] + sum(about["removed"].values()),
            "train": made.used["train"],
            "test": made.used["test"],
            "removed": dict(sorted((reason, count) for reason, count in removed.items() if count)),
            "failures": about["failures"],
        },
        "examples": {
            "train": made.examples["train"],
            "test": made.examples["test"],
            "removed": dict(sorted((reason, count) for reason, count in made.removed.items() if count)),
        },
    }
