"""What `Live` offers of tables and collections: deletions, searches, snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from headrace.document import Document
from headrace.errors import UnknownNameError
from headrace.serving import documents
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Collection, Table
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.library import Library
    from headrace.runners.library.snapshot import Snapshot
    from headrace.serving.manifests import Manifests


class LiveDocuments:
    """The part of `Live` that is about documents."""

    app: App
    _library: Library | None
    _packs: Manifests

    def delete(self, table: Table | type[Document] | str, keys: Iterable[Any], *, erase: bool = False) -> Token:
        """Takes rows out of a table; a key that is not there is passed over. When it returns that is stored.

        Args:
            table: A table, its model or its name.
            keys: The key column's values; for several columns tuples in their order, or dicts.
            erase: Whether their earlier revisions are forgotten, too, and what packs hold of them; else they can be
                asked for while history is kept.

        Raises:
            UnknownNameError: There is no such table.
            InputError: A key is none of the table's; nothing is deleted.
            StorageError: It could not be stored; nothing is deleted.
        """
        packs = self._packs if erase else None
        return documents.delete(self.library, self.app.table_of(table), keys, packs)

    def search(
        self,
        collection: Collection | str,
        query: str,
        *,
        k: int = 5,
        where: pl.Expr | Mapping[str, Any] | None = None,
        mode: str = "hybrid",
        diversity: float = 0.0,
        after: Token | str | None = None,
        timeout: float = 10.0,
    ) -> list[Hit]:
        """The chunks of a collection that answer a question best, as they are at this moment.

        Args:
            collection: A collection or its name.
            query: The question.
            k: How many hits.
            where: Only documents that pass: an expression such as ``pl.col("lang") == "en"``, or ``{"lang": "en"}``.
            mode: "hybrid" (meaning and words, blended), "ranks" (the same, fused by rank), "meaning" or "words".
            diversity: From 0, the best, to 1, as different from each other as can be.
            after: Wait until the search sees the write that returned this token.
            timeout: How many seconds to wait for that.

        Raises:
            UnknownNameError: There is no such collection.
            InputError: The query or the condition cannot be used.
            StaleError: What was waited for did not come in time.
            StorageError: The embedder or the index is out of reach.
        """
        target = self.app.collection_of(collection)
        return documents.search(self.library, target, query, k, where, mode, diversity, after, timeout)

    @property
    def library(self) -> Library:
        """The tables and collections of the app, running.

        Raises:
            UnknownNameError: It declares none.
        """
        if self._library is None:
            raise UnknownNameError(f"the app {self.app.name!r} declares no tables; begin with app.table(Model)")
        return self._library

    def snapshot(
        self,
        collection: Collection | str,
        path: str | Path,
        *,
        what: Literal["documents", "chunks"] = "documents",
        version: int | None = None,
        at: datetime | int | None = None,
        format: Literal["parquet", "delta"] = "parquet",
        where: pl.Expr | Mapping[str, Any] | None = None,
        trusted: bool = False,
    ) -> Snapshot:
        """Writes a collection's clean documents (to train on) or its chunks (to retrieve from) into a directory.

        Args:
            collection: A collection or its name.
            path: A new or empty directory; for Delta, a table, which gets a new version.
            what: "documents" or "chunks".
            version: Of the table; its newest if neither this nor `at` is given. Of chunks there are no older ones.
            at: The version that was current then, by when changes were stored.
            format: "parquet" or "delta".
            where: Only documents that pass, as in a search.
            trusted: Only documents whose text is the operator's own.

        Raises:
            UnknownNameError: There is no such collection.
            InputError: There is no such version or time, or something is at `path` already.
            MissingDependencyError: `format="delta"`, and the package for it is not installed.
            StorageError: It could not be written.
        """
        from headrace.runners.library.snapshot import snapshot

        target = self.app.collection_of(collection)
        chosen = {"what": what, "version": version, "at": at, "format": format, "where": where, "trusted": trusted}
        return snapshot(self.app, self.library.path, target, path, **chosen)  # type: ignore[arg-type]  # as above
