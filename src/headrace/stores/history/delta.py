"""A snapshot as the next version of a Delta table.

Each snapshot replaces the table's content in one commit, so readers of the table see whole snapshots, and Delta's own
time travel leads back to earlier ones. What a manifest says stands in the commit's metadata, under `headrace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from headrace.errors import MissingDependencyError, StorageError

KEY = "headrace"


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


def write(target: Path, rows: pl.LazyFrame, manifest: Mapping[str, Any]) -> int:
    """Makes `rows` the table's content; returns Delta's number of the version.

    Raises:
        MissingDependencyError: The package `deltalake` is not installed.
        StorageError: It could not be written; the table is as it was.
    """
    check()
    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import DeltaError

    about = CommitProperties(custom_metadata={KEY: msgspec.json.encode(manifest).decode()})
    options = {"schema_mode": "overwrite", "commit_properties": about}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        rows.sink_delta(str(target), mode="overwrite", delta_write_options=options)
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
