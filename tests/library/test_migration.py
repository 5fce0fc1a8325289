"""A changed pipeline is applied in the background, to what it affects, while searches go on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from newsroom import article, expected_ids, held_ids, open_at

import headrace as hr
from headrace.documents.embed.hashed import HashEmbedder
from headrace.errors import StorageError

ROWS = [
    article(f"a{n}", f"Story {n} is about the harbour and the number {n}.\n\nIt ends with a storm.") for n in range(20)
]


def settle(live) -> None:
    live.drain(30)
    assert live.library.settled(30)


def filled(path: Path, **options) -> None:
    with open_at(path, **options) as live:
        live.push("article", ROWS)
        settle(live)


def test_another_chunker_cuts_all_anew_in_the_same_index(tmp_path):
    filled(tmp_path)
    with open_at(tmp_path, chunk=hr.chunk(tokens=16, overlap=0)) as live:
        settle(live)
        wanted = expected_ids(live, {row["id"]: row for row in ROWS})
        assert held_ids(live) == (wanted, wanted)
        assert len(live.library.collections["library"].spaces.open) == 1


def test_the_same_pipeline_embeds_nothing(tmp_path):
    filled(tmp_path, index="local:")
    with open_at(tmp_path, index="local:") as live:
        settle(live)
        figures = live.stats().collections["library"]
        assert (figures.embedded, figures.written, figures.documents) == (0, 0, 20)


def test_a_cleaner_embeds_only_what_it_changes(tmp_path):
    rows = [article("plain", "Nothing to see here at all."), article("smile", "A smile 😀 in the middle of a line.")]
    with open_at(tmp_path, clean=hr.clean(without=("emoji",))) as live:
        live.push("article", rows)
        settle(live)
    with open_at(tmp_path) as live:
        settle(live)
        assert live.stats().collections["library"].embedded == 1


def test_more_filters_make_old_documents_anew(tmp_path):
    filled(tmp_path, filters=["lang"])
    with open_at(tmp_path, filters=["lang", "year"]) as live:
        token = live.push("article", article("new", "A harbour story.", year=1999))
        settle(live)
        assert live.search("library", "harbour", where={"year": {"gte": 2000}}, after=token) == []
        assert len(live.search("library", "harbour", k=50, where={"year": None})) == 20
        assert [hit.document for hit in live.search("library", "harbour", where={"year": 1999})] == ["new"]


class Gated(HashEmbedder):
    """A new embedder that is slow to come: it waits for a signal."""

    def __init__(self) -> None:
        super().__init__("hash:96")
        self.name = "gated"
        self.open = threading.Event()

    def embed(self, texts, kind="document"):
        if kind == "document" and not self.open.is_set():
            raise StorageError("the new embedder is not there yet")
        return super().embed(texts, kind)


def test_another_embedder_fills_a_new_index_while_the_old_one_serves(tmp_path):
    filled(tmp_path)
    embedder = Gated()
    with open_at(tmp_path, embed=embedder) as live:
        hits = live.search("library", "the number 7", k=20)
        assert "a7" in {hit.document for hit in hits}
        figures = live.stats().collections["library"]
        assert figures.filling == 1
        embedder.open.set()
        settle(live)
        running = live.library.collections["library"]
        assert [one.embedder.name for one in running.spaces.open.values()] == ["gated"]
        wanted = expected_ids(live, {row["id"]: row for row in ROWS})
        assert held_ids(live) == (wanted, wanted)
        assert "a7" in {hit.document for hit in live.search("library", "the number 7", k=20)}


def test_edits_are_seen_while_a_new_index_is_filled(tmp_path):
    filled(tmp_path)
    embedder = Gated()
    embedder.open.set()
    with open_at(tmp_path, embed=embedder) as live:
        token = live.push("article", article("a3", "Story 3 is about a volcano now."))
        live.delete("article", ["a4"])
        texts = [hit.text for hit in live.search("library", "volcano", k=20, after=token)]
        assert any("volcano" in text for text in texts)
        settle(live)
        rows = {row["id"]: row for row in ROWS} | {"a3": article("a3", "Story 3 is about a volcano now.")}
        del rows["a4"]
        wanted = expected_ids(live, rows)
        assert held_ids(live) == (wanted, wanted)


def test_a_fill_that_was_interrupted_goes_on(tmp_path):
    filled(tmp_path)
    embedder = Gated()
    with open_at(tmp_path, embed=embedder) as live:
        live.search("library", "storm")
    embedder.open.set()
    with open_at(tmp_path, embed=embedder) as live:
        settle(live)
        assert len(live.library.collections["library"].spaces.open) == 1


def test_types_may_have_embedders_of_their_own(tmp_path):
    class Post(hr.Document):
        """A short text."""

        id: str
        type: str
        text: str

    class Code(hr.Document):
        """A program."""

        id: str
        type: str
        text: str

    app = hr.App("twin")
    table = app.table([Post, Code], kind="type", name="writings")
    app.collection("mind", table, embed={Post: "hash", Code: "hash:128"}, index="memory:")
    with app.open(tmp_path) as live:
        token = live.push(
            "writings",
            [
                {"id": "p", "type": "post", "text": "I wrote about the harbour."},
                {"id": "c", "type": "code", "text": "def harbour():\n    return 1"},
            ],
        )
        hits = live.search("mind", "harbour", after=token)
        assert {(hit.document, hit.kind) for hit in hits} == {("p", "post"), ("c", "code")}
        assert len(live.library.collections["mind"].spaces.open) == 2
        (rejected,) = live.push("writings", {"id": "x", "type": "poem", "text": "…"}).rejected
        assert "one of post, code" in rejected.reason


@pytest.mark.parametrize("index", ["memory:", "local:", "edge:"])
def test_an_index_that_lost_its_points_is_filled_again(tmp_path, index):
    import shutil

    filled(tmp_path, index=index)
    shutil.rmtree(tmp_path / "indexes", ignore_errors=True)
    with open_at(tmp_path, index=index) as live:
        settle(live)
        wanted = expected_ids(live, {row["id"]: row for row in ROWS})
        assert held_ids(live) == (wanted, wanted)


def test_an_edit_does_not_wait_for_a_new_embedder_that_is_away(tmp_path):
    filled(tmp_path)
    embedder = Gated()
    with open_at(tmp_path, embed=embedder) as live:
        token = live.push("article", article("a3", "Story 3 is about a volcano now."))
        texts = [hit.text for hit in live.search("library", "volcano", k=20, after=token)]
        assert any("volcano" in text for text in texts)
        embedder.open.set()
        settle(live)
        rows = {row["id"]: row for row in ROWS} | {"a3": article("a3", "Story 3 is about a volcano now.")}
        wanted = expected_ids(live, rows)
        assert held_ids(live) == (wanted, wanted)
