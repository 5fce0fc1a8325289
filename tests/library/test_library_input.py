"""What is too large, no text, or meets what is broken: a clear error or a dead letter, and the rest goes on."""

from __future__ import annotations

import numpy as np
import pytest
from newsroom import article, newsroom, open_at
from small_index import SmallVectors

import headrace as hr
from headrace.documents.embed.hashed import HashEmbedder
from headrace.registry import DEFAULT


@pytest.fixture
def live():
    with open_at(None) as live:
        yield live


def test_a_document_of_200_megabytes_is_refused_and_the_rest_goes_on(live):
    token = live.push("article", [article("huge", "x" * (200 << 20)), article("a", "The launch slipped.")])
    assert [one.row for one in token.rejected] == [0]
    assert "at most 16777216 bytes, found 2097152" in token.rejected[0].reason
    assert [hit.document for hit in live.search("library", "launch", after=token)] == ["a"]
    (letter,) = live.dead_letters.list()
    assert len(letter.raw) <= 1 << 20


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"\xff\xfe\x00\x01" * 1000, "not JSON"),
        (b'{"id": "a", "title": "t", "body": "\xff\xfe"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": null, "title": "t", "body": "b"}', "id"),
        (b'{"id": "a", "title": "t"}', "body"),
    ],
)
def test_noise_is_a_dead_letter(live, rows, said):
    token = live.push("article", rows)
    assert (token.accepted, all(said in one.reason for one in token.rejected)) == (0, True)
    assert live.dead_letters.count()["article"] == len(token.rejected) > 0


def test_noise_as_one_json_value_is_refused_whole(live):
    with pytest.raises(hr.DecodeError, match="expected a JSON array"):
        live.push("article", b"\x00\x01\x02", format="json")


def test_control_characters_and_lone_surrogates_do_not_stop_a_document(live):
    token = live.push("article", article("a", "before\x00\x07after the launch \u200b\ufeff"))
    assert [hit.document for hit in live.search("library", "launch", after=token)] == ["a"]


class Wrong(HashEmbedder):
    """Says 64 dimensions and gives 32, until it is mended."""

    mended = False

    def embed(self, texts, kind="document"):
        found = super().embed(texts, kind)
        return found if self.mended else np.ascontiguousarray(found[:, :32])


def test_an_embedder_with_the_wrong_dimension_is_named_and_waited_for():
    embedder = Wrong()
    with newsroom(embed=embedder).open() as live:
        token = live.push("article", article("a", "The launch slipped."))
        with pytest.raises(hr.StaleError):
            live.search("library", "launch", after=token, timeout=1)
        assert "32" in str(live.stats().collections["library"].problem)
        embedder.mended = True
        assert len(live.search("library", "launch", after=token, timeout=60)) == 1


def test_an_index_that_is_full_is_said_and_waited_for(monkeypatch):
    DEFAULT.register("vectors", "small", "small_index:SmallVectors")
    with newsroom(index="small:").open() as live:
        token = live.push("article", [article(f"a{n}", f"Story {n}.") for n in range(3)])
        assert len(live.search("library", "story", after=token)) == 3
        token = live.push("article", article("b", "One story too many."))
        with pytest.raises(hr.StaleError, match="the index is full"):
            live.search("library", "story", after=token, timeout=1)
        assert len(live.search("library", "story")) == 3
        assert "the index is full" in str(live.stats().collections["library"].problem)
        monkeypatch.setattr(SmallVectors, "room", 10)
        assert len(live.search("library", "story", after=token, timeout=30)) == 4
