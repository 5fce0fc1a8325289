"""The chunks of one moment, for retrieval elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from exported import NOW, newsroom

from headrace.errors import InputError
from headrace.runners.library.snapshot import snapshot
from headrace.stores.embeddings import EmbeddingCache
from headrace.stores.records import ChunkRecord, DocumentRecord, Flip, Records


def document(key: str, seq: int, **columns: object) -> DocumentRecord:
    return DocumentRecord(key, seq, "article", NOW, f"test:{key}", True, f"Title of {key}", columns, "p1")


def chunk(id: str, space: int, key: str, number: int, embedded: str | None = None) -> ChunkRecord:
    return ChunkRecord(id, space, key, bytes([number] * 16), number, f"text {id}", embedded, ("H",), 10 * number, 9)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two documents in a space that is searched, and one of them also in a space that is being filled."""
    (tmp_path / "data" / "collections").mkdir(parents=True)
    records = Records(tmp_path / "data" / "collections" / "library.db", durable=False)
    old, new = records.add_space("hash", "hash-64", 64), records.add_space("minilm", "minilm-384", 384)
    records.use("article", old, live=True)
    records.use("article", new, live=False)
    written = [chunk("c3", old, "b", 0), chunk("c2", old, "a", 1), chunk("c1", old, "a", 0, "H\ntext c1")]
    filling = [chunk("c9", new, "a", 0)]
    flip = Flip([document("a", 4, lang="en"), document("b", 7, lang="de")], [], [*written, *filling], [], 7)
    records.flip(flip)
    records.close()
    return tmp_path / "data"


def test_the_chunks_of_what_is_searched(data: Path, tmp_path: Path) -> None:
    """In the order of documents and places; a space that is still being filled has no say."""
    made = snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks")
    frame = made.frame().collect()
    assert frame.select("document", "number", "id").rows() == [("a", 0, "c1"), ("a", 1, "c2"), ("b", 0, "c3")]
    assert frame.row(0, named=True) == {
        "id": "c1",
        "document": "a",
        "kind": "article",
        "version": 4,
        "at": datetime(2026, 1, 10, tzinfo=UTC),
        "source": "test:a",
        "trusted": True,
        "title": "Title of a",
        "hash": "00" * 16,
        "number": 0,
        "headings": ["H"],
        "text": "text c1",
        "embedded": "H\ntext c1",
        "start": 0,
        "end": 9,
        "embedder": "hash-64",
        "vector": None,
    }
    assert (made.version, made.manifest["embedders"], made.manifest["vectors"]) == (7, ["hash-64"], 0)


def test_vectors_are_those_of_the_cache(data: Path, tmp_path: Path) -> None:
    """By what was embedded and by which embedder; one that has been dropped from the cache is null."""
    cache = EmbeddingCache(data / "embeddings.db")
    cache.put("hash-64", [(bytes([1] * 16), np.array([0.6, 0.8], dtype=np.float32))])
    cache.put("minilm-384", [(bytes([0] * 16), np.array([1.0], dtype=np.float32))])
    made = snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks")
    cache.close()
    frame = made.frame().collect()
    assert frame.schema["vector"] == pl.List(pl.Float32)
    assert frame.select("id", "vector").rows() == [
        ("c1", None),
        ("c2", np.array([0.6, 0.8], dtype=np.float32).tolist()),
        ("c3", None),
    ]
    assert made.manifest["vectors"] == 1


def test_the_same_moment_makes_the_same_bytes(data: Path, tmp_path: Path) -> None:
    one, two = (snapshot(newsroom(), data, "library", tmp_path / name, what="chunks") for name in ("one", "two"))
    for name in ("part-00000.parquet", "manifest.json"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


def test_chunks_of_documents_that_pass(data: Path, tmp_path: Path) -> None:
    made = snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks", where={"lang": "de"})
    assert made.frame().collect()["id"].to_list() == ["c3"]


def test_of_chunks_there_is_only_the_present(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is at version 7, found a request for 6"):
        snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks", version=6)
    with pytest.raises(InputError, match="found a time"):
        snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks", at=NOW)
    assert snapshot(newsroom(), data, "library", tmp_path / "out", what="chunks", version=7).rows == 3


def test_a_collection_that_never_ran(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="expected the collection 'library'"):
        snapshot(newsroom(), tmp_path / "data", "library", tmp_path / "out", what="chunks")
