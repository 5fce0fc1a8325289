"""A snapshot as the next version of a Delta table.

Each snapshot replaces the table's content in one commit, so readers of the table see whole snapshots, and Delta's own
time travel leads back to earlier ones. What a manifest says stands in the commit's metadata, under `headrace`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from headrace.errors import MissingDependencyError, StorageError

KEY = "headrace"
# The writer holds whole batches, row groups and files: small ones keep it small.
_BATCH = 256
_GROUP_ROWS = 4096
_FILE_BYTES = 32 << 20


def check() -> None:
    """Holds that what it needs is installed.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import deltalake  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f'a Delta table needs the package "deltalake", which cannot be imported ({error}); install it with: '
            'pip install "headrace[delta]"'
        ) from error


def write(target: Path, parts: Sequence[Path], manifest: Mapping[str, Any]) -> int:
    """Makes what is in Parquet files of one schema the table's content; returns Delta's number of the version.

    Raises:
        MissingDependencyError: The package `deltalake` is not installed.
        StorageError: It could not be written; the table is as it was.
    """
    check()
    from arro3.core import RecordBatchReader, Table
    from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    def batches() -> Iterator[Any]:
        for part in parts:
            frame = pl.read_parquet(part)
            for start in range(0, frame.height, _BATCH):
                yield from Table.from_arrow(frame.slice(start, _BATCH)).to_batches()

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        schema = Table.from_arrow(pl.read_parquet(parts[0], n_rows=0)).schema
        write_deltalake(
            str(target),
            RecordBatchReader.from_batches(schema, batches()),
            mode="overwrite",
            schema_mode="overwrite",
            target_file_size=_FILE_BYTES,
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=_GROUP_ROWS),
            commit_properties=CommitProperties(custom_metadata={KEY: msgspec.json.encode(manifest).decode()}),
        )
        number: int = DeltaTable(str(target)).version()
    except (DeltaError, pl.exceptions.PolarsError, OSError) as error:
        raise StorageError(f"cannot write the Delta table {target}: {error}; the table is as it was") from error
    return number


def read_manifest(target: Path, version: int | None = None) -> dict[str, Any]:
    """What the commit of a version says; of the newest if none is named.

    Raises:
        StorageError: There is no such table or version, or it was not written here.
    """
    check()
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        found = DeltaTable(str(target), version=version).history(1)[0]
        return msgspec.json.decode(found[KEY], type=dict[str, Any])
    except (DeltaError, KeyError, IndexError) as error:
        raise StorageError(
            f"expected a Delta table of snapshots at {target}, found none ({error}); name another directory"
        ) from error
