"""Two snapshots of a collection: its clean documents for training, and its chunks for retrieval.

Both are read from beside the app: no lock, no thread and no model is needed, and the app may run or not. The documents
are those of any version of the table that its history still holds, cleaned as the collection cleans them now; so a
version and a pipeline say all that is in them. The chunks are those of one moment of the collection's records.

A snapshot is a directory of Parquet files with a manifest, or a version of a Delta table. It is there whole or not at
all, in the order of the keys: two snapshots of the same version hold the same.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from headrace.documents.states import Raw
from headrace.errors import InputError
from headrace.filters import parse, predicate, to_json
from headrace.runners.library.prepare import columns_of
from headrace.runners.library.snapshot_rows import CHUNKS, DOCUMENTS, chunk_rows, column_names, dtype, typed
from headrace.stores.datadir import Layout
from headrace.stores.history import delta
from headrace.stores.history.folder import Folder, read_manifest
from headrace.stores.history.parquet import PATTERN, Parts, content, scan
from headrace.stores.history.records import chunks
from headrace.stores.history.tables import TableHistory
from headrace.stores.history.vectors import StoredVectors
from headrace.stores.records import DocumentRecord
from headrace.stores.tables import Revision
from headrace.units import from_micros, to_micros

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection

What = Literal["documents", "chunks"]
Format = Literal["parquet", "delta"]
_MOST_SHOWN = 20
# What a row takes besides its texts, roughly.
_ROW = 200


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was written.

    Attributes:
        path: The directory, or the Delta table.
        manifest: What is in it: `version`, `at`, `rows`, `pipeline`, `files` and more.
        format: "parquet" or "delta".
    """

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)
    format: Format = "parquet"

    @property
    def version(self) -> int:
        """The version of the table."""
        return int(self.manifest["version"])

    @property
    def rows(self) -> int:
        """How many documents or chunks it holds."""
        return int(self.manifest["rows"])

    def frame(self) -> pl.LazyFrame:
        """Its rows, to be read as they are needed; sorted by key."""
        if self.format == "delta":
            return pl.scan_delta(str(self.path), version=self.manifest["delta"]).sort(_order(self.manifest))
        return scan(self.path)


def snapshot(
    app: App,
    data: str | Path,
    collection: Collection | str,
    path: str | Path,
    *,
    what: What = "documents",
    version: int | None = None,
    at: datetime | int | None = None,
    format: Format = "parquet",
    where: pl.Expr | Mapping[str, Any] | None = None,
    trusted: bool = False,
    allow_empty: bool = True,
) -> Snapshot:
    """Writes a snapshot of a collection.

    Args:
        app: What was declared.
        data: The data directory that it runs on; nothing in it is changed or locked.
        collection: A collection or its name.
        path: A new or empty directory; for Delta, a table, which gets a new version.
        what: "documents" or "chunks".
        version: Of the table; its newest if neither this nor `at` is given. Of chunks there are no older ones.
        at: The version that was current then, by when changes were stored; microseconds since the Unix epoch, or a
            datetime (one without a time zone is read as UTC).
        format: "parquet" or "delta".
        where: Only documents that pass, as in a search.
        trusted: Only documents whose text is the operator's own.
        allow_empty: Whether a snapshot of nothing is written, and is no error.

    Raises:
        UnknownNameError: There is no such collection.
        InputError: There is no data, no such version or time, a condition that cannot be used, something is at `path`
            already, or nothing is in the snapshot and that is not allowed.
        MissingDependencyError: `format="delta"`, and the package for it is not installed.
        StorageError: It could not be read or written.
    """
    target = app.collection_of(collection)
    if what not in get_args(What) or format not in get_args(Format):
        raise InputError(
            f'expected what="documents" or "chunks" and format="parquet" or "delta", found {what!r} and {format!r}'
        )
    if version is not None and at is not None:
        raise InputError("expected a version or a time, found both; leave one out")
    if format == "delta":
        delta.check()
    source = Source(app, Path(data), target, where, trusted)
    place = Path(path)
    write = source.documents if what == "documents" else source.chunks
    if format == "parquet":
        with Folder(place) as folder:
            folder.commit(_held(write(folder, version, at), allow_empty))
        return Snapshot(place, read_manifest(place))
    # Staged beside the table, in bounded memory, and then its content in one commit.
    with Folder(place.with_name(place.name + ".staged")) as folder:
        manifest = _held(write(folder, version, at), allow_empty)
        number = delta.write(place, sorted(folder.path.glob(PATTERN)), manifest)
    return Snapshot(place, {**manifest, "delta": number}, "delta")


def _held(manifest: dict[str, Any], allow_empty: bool) -> dict[str, Any]:
    """The manifest, of a snapshot that may be written."""
    if not manifest["rows"] and not allow_empty:
        left_out = sum(manifest.get("removed", {}).values())
        raise InputError(
            f"the collection {manifest['collection']!r} has no {manifest['what']} at version {manifest['version']}"
            f"{f'; {left_out} were left out' if left_out else ''}"
        )
    return manifest


class Source:
    """What a collection has on the disk, to be read only.

    Args:
        app: What was declared.
        data: The data directory.
        collection: Which one.
        where: Only documents that pass.
        trusted: Only documents whose text is the operator's own.

    Raises:
        InputError: There is no such directory, or the condition cannot be used.
    """

    def __init__(
        self,
        app: App,
        data: Path,
        collection: Collection,
        where: pl.Expr | Mapping[str, Any] | None = None,
        trusted: bool = False,
    ) -> None:
        self._app = app
        self._layout = Layout(data)
        self._collection = collection
        self._where = None if where is None else parse(where, collection.columns)
        self._passes = None if self._where is None else predicate(self._where)
        self._trusted = trusted
        if not data.is_dir():
            raise InputError(f"expected a data directory, found none at {data.absolute()}; name it with --data")

    def documents(self, folder: Folder, version: int | None, at: datetime | int | None) -> dict[str, Any]:
        """Writes the documents of a version or time; returns the manifest."""
        table = self._collection.table
        path = self._layout.tables / f"{table.name}.db"
        with closing(TableHistory(path, table.name)) as history:
            wanted, stored = self._version(history, version, at)
            names = column_names(self._collection)
            schema = DOCUMENTS | {shown: dtype(self._collection.columns[name]) for name, shown in names.items()}
            parts = Parts(folder, schema)
            removed: Counter[str] = Counter()
            failures: list[dict[str, str]] = []
            for revision in history.rows(wanted):
                try:
                    found = self._row(revision, names)
                except InputError as error:
                    removed["failed"] += 1
                    if len(failures) < _MOST_SHOWN:
                        failures.append({"key": revision.key, "reason": str(error)})
                    continue
                if isinstance(found, str):
                    removed[found] += 1
                else:
                    parts.add(found, len(found["text"]) + len(revision.body or b"") + _ROW)
            files = parts.finish()
            # What was forgotten while this was read would be missing in it.
            self._check(history, wanted, at)
        made = self._manifest("documents", wanted, stored, parts)
        return {**made, "removed": dict(sorted(removed.items())), "failures": failures, "content": content(files)}

    def chunks(self, folder: Folder, version: int | None, at: datetime | int | None) -> dict[str, Any]:
        """Writes the chunks as they are now; returns the manifest."""
        if at is not None:
            raise InputError("of chunks there is only the present, found a time; take the documents of that time")
        name = self._collection.name
        parts = Parts(folder, CHUNKS)
        with_vector = 0
        with chunks(self._layout.collections / f"{name}.db", name) as reader:
            if version is not None and version != reader.position:
                raise InputError(
                    f"of chunks there is only the present: the collection {name!r} is at version {reader.position}, "
                    f"found a request for {version}; take the documents of that version"
                )
            with StoredVectors(self._layout.embeddings) as vectors:
                documents = (one for one in reader.documents() if self._wanted(one[0]))
                for row in chunk_rows(documents, reader.embedders, vectors):
                    numbers = 0 if row["vector"] is None else len(row["vector"])
                    with_vector += numbers > 0
                    parts.add(row, 2 * len(row["text"]) + 4 * numbers + _ROW)
            position, embedders = reader.position, sorted(set(reader.embedders.values()))
        files = parts.finish()
        made = self._manifest("chunks", position, None, parts)
        return {**made, "embedders": embedders, "vectors": with_vector, "content": content(files)}

    def _wanted(self, document: DocumentRecord) -> bool:
        if self._trusted and not document.trusted:
            return False
        return self._passes is None or self._passes(document.columns) is True

    def _version(self, history: TableHistory, version: int | None, at: datetime | int | None) -> tuple[int, int | None]:
        """The version that is asked for, held to be there and whole, and when its last change was stored."""
        if at is not None:
            time = to_micros(at) if isinstance(at, datetime) else at
            now = self._app.clock.now()
            if time > now:
                raise InputError(
                    f"expected a time that has passed, found {from_micros(time).isoformat()}, and now is "
                    f"{from_micros(now).isoformat()}: what is stored until then is not known yet"
                )
            version = history.version_at(time)
        found = history.seq() if version is None else version
        self._check(history, found, at)
        return found, history.stored(found)

    def _check(self, history: TableHistory, version: int, at: datetime | int | None) -> None:
        forgotten = self._app.clock.now() - self._collection.table.history
        time = to_micros(at) if isinstance(at, datetime) else at
        # What was current at a time since then is whole, whatever its number is.
        if time is None or time < forgotten:
            history.check(version, forgotten)

    def _row(self, revision: Revision, names: Mapping[str, str]) -> dict[str, Any] | str:
        """A row of the snapshot, or why the document is not wanted."""
        if self._trusted and not revision.trusted:
            return "untrusted"
        columns = self._collection.columns
        document = self._collection.table.schema.load(revision.kind, revision.body or b"")
        raw = Raw(revision.key, revision.kind, document, revision.seq, revision.at, revision.source, revision.trusted)
        payload = columns_of(document, columns)
        if self._passes is not None and self._passes(payload) is not True:
            return "filtered"
        cleaned = self._collection.handlers.cleaned(raw)
        return {
            **{names[name]: typed(value, columns[name]) for name, value in payload.items() if name in names},
            "key": revision.key,
            "kind": revision.kind,
            "version": revision.seq,
            "at": from_micros(revision.at),
            "source": revision.source,
            "trusted": revision.trusted,
            "title": cleaned.title,
            "text": cleaned.text,
            "format": cleaned.format,
        }

    def _manifest(self, what: What, version: int, stored: int | None, parts: Parts) -> dict[str, Any]:
        kinds = self._collection.table.schema.models
        return {
            "headrace": importlib.metadata.version("headrace"),
            "app": self._app.name,
            "collection": self._collection.name,
            "table": self._collection.table.name,
            "what": what,
            "version": version,
            "at": None if stored is None else from_micros(stored).isoformat(),
            "rows": parts.rows,
            "where": None if self._where is None else to_json(self._where),
            "trusted_only": self._trusted,
            "pipeline": {kind: self._collection.handlers.fingerprint(kind) for kind in kinds},
            "files": [file.to_dict() for file in parts.files],
        }


def _order(manifest: Mapping[str, Any]) -> list[str]:
    return ["key"] if manifest["what"] == "documents" else ["document", "embedder", "number"]
