"""Embedders by name: loaded once a process, refused with a reason."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from headrace import registry
from headrace.documents.embed.base import Embedder
from headrace.documents.embed.hashed import HashEmbedder
from headrace.documents.embed.static import token_vectors
from headrace.errors import ConfigError
from headrace.runners.embedding.load import embedder

made: list[str] = []


class Slow(HashEmbedder):
    def __init__(self, spec: str) -> None:
        made.append(spec)
        super().__init__("hash")


@pytest.fixture(scope="module", autouse=True)
def slow() -> None:
    registry.register("embed", "slow-test", f"{__name__}:Slow")


@pytest.mark.parametrize(("spec", "dimension"), [("minilm", 384), ("static", 384), ("hash", 64), ("hash:128", 128)])
def test_by_name(spec: str, dimension: int) -> None:
    assert embedder(spec).dimension == dimension
    assert embedder(spec) is embedder(spec)


def test_loaded_once_for_all_threads() -> None:
    barrier, found = threading.Barrier(8), []

    def load() -> None:
        barrier.wait(10)
        found.append(embedder("slow-test:x"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(map(id, found))), made) == (1, ["slow-test:x"])


def test_an_embedder_is_given_back() -> None:
    mine = HashEmbedder("hash:32")
    assert embedder(mine) is mine


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("minilmm", {}, "did you mean 'minilm'"),
        ("hash:x", {}, "expected 'hash' or 'hash:N'"),
        ("hash:1", {}, "expected 'hash' or 'hash:N'"),
        ("hash", {"size": 3}, r"does not take \['size'\]"),
        ("static:large", {}, "one model"),
        (object(), {}, "a object without name, dimension"),
    ],
)
def test_what_is_none(spec: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embedder(spec, **options)


def test_static_words_count_the_less_the_more_frequent_they_are() -> None:
    words = np.random.default_rng(1).normal(size=(3_000, 16)).astype(np.float32) + 1
    table = token_vectors(words)
    lengths = np.linalg.norm(table, axis=1)
    assert lengths[1_000:1_100].mean() < lengths[2_900:].mean()
    assert np.abs(table.astype(np.float64).mean()) < 0.1


@pytest.fixture(scope="module")
def static() -> Embedder:
    return embedder("static")


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (["The cat sat on the mat.", "Interest rates rose again."], "a kitten on a rug"),
        (["def read(path): return open(path).read()", "Boil the pasta for nine minutes."], "load a file in Python"),
    ],
)
def test_static_finds_the_nearer_text(static: Embedder, texts: Sequence[str], query: str) -> None:
    near, far = static.embed(texts) @ static.embed([query], "query")[0]
    assert near > far


def test_static_remembers_no_more_words_than_it_has_room_for(static: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.documents.embed.wordpiece._KEPT", 100)
    texts = [f"word{number} and another{number}" for number in range(200)]
    expected = static.embed(texts)
    np.testing.assert_array_equal(np.concatenate([static.embed([text]) for text in texts]), expected)
    assert static._words._size <= 400
