"""Both snapshots of an app that runs: pushed, edited and deleted in one process, and read beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from exported import newsroom

from headrace.runners.library.snapshot import snapshot
from headrace.serving.export import export
from headrace.serving.live import Live

WORDS = "The river runs past the old mill and turns its wheel all day long, whatever the weather may be, in year"


@pytest.fixture
def live(tmp_path: Path) -> Live:
    app = newsroom()
    app.clock.time += 3600 * 10**6  # type: ignore[attr-defined]
    return app.open(tmp_path / "data")


def test_the_chunks_are_those_that_a_search_can_find(live: Live, tmp_path: Path) -> None:
    """After upserts, an edit and a deletion: the same ids, and the vectors that the embedder gives."""
    with live:
        live.push("article", [{"id": f"d{n}", "title": "T", "body": f"{WORDS} {n}"} for n in range(5)])
        live.push("article", [{"id": "d1", "title": "T", "body": f"{WORDS} changed"}])
        live.delete("article", ["d2"])
        live.drain(30)
        made = snapshot(live.app, tmp_path / "data", "library", tmp_path / "out", what="chunks")
        found = live.search("library", WORDS, k=100)
        space = next(iter(live.library.collections["library"].spaces.open.values()))
        frame = made.frame().collect()
        expected = space.embedder.embed(frame["embedded"].to_list())
        size = space.embedder.dimension
    assert sorted(frame["id"]) == sorted(hit.chunk for hit in found)
    assert made.version == made.manifest["version"] == 7
    vectors = frame["vector"].cast(pl.Array(pl.Float32, size)).to_numpy()
    assert np.allclose(vectors, expected, atol=1e-6)


def test_an_older_version_while_it_runs(live: Live, tmp_path: Path) -> None:
    """The documents of then, and a data set of them; the app has the data directory all the while."""
    with live:
        live.push("article", [{"id": "a", "title": "T", "body": f"{WORDS} {n}"} for n in range(1, 4)])
        live.push("article", [{"id": "b", "title": "U", "body": "Something quite different, of rivers and mills."}])
        then = snapshot(live.app, tmp_path / "data", "library", tmp_path / "then", version=2)
        export(live.app, tmp_path / "data", "library", tmp_path / "set", version=2)
    assert then.frame().collect().select("key", "text").rows() == [("a", f"{WORDS} 2")]
    assert (tmp_path / "set" / "sources.jsonl").read_text().count('"document":"a"') == 1
