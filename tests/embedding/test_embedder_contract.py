"""Every embedder of ours keeps the contract."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedding_server import EmbeddingServer

from headrace.documents.embed.base import Embedder
from headrace.documents.embed.openai import OpenAIEmbedder
from headrace.documents.embed.weights import find
from headrace.runners.embedding.load import embedder
from headrace.testing.embedders import EmbedderContract


@functools.cache
def loaded(make: Callable[..., Embedder], *arguments: Any) -> Embedder:
    return make(*arguments)


class TestMiniLM(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return embedder("minilm")


class TestStatic(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return embedder("static")


class TestHash(EmbedderContract):
    surrogates = True

    @pytest.fixture
    def embedder(self) -> Embedder:
        return embedder("hash:384")


@pytest.fixture(scope="module")
def behind_a_server() -> Iterator[Embedder]:
    with EmbeddingServer() as server:
        embedder = OpenAIEmbedder("openai:small", base_url=server.url, api_key="secret", limit=512)
        yield embedder
        embedder.close()


class TestOpenAI(EmbedderContract):
    exact = False

    @pytest.fixture
    def embedder(self, behind_a_server: Embedder) -> Embedder:
        return behind_a_server


@pytest.mark.services  # loads PyTorch
@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="not installed")
@pytest.mark.filterwarnings("ignore")
class TestSentenceTransformers(EmbedderContract):
    exact = False

    @pytest.fixture
    def embedder(self) -> Embedder:
        from headrace.documents.embed.sentence_transformers import SentenceTransformerEmbedder

        return loaded(SentenceTransformerEmbedder, f"sentence-transformers:{find().model.parent}")


@pytest.mark.services
@pytest.mark.skipif(importlib.util.find_spec("fastembed") is None, reason="not installed")
@pytest.mark.filterwarnings("ignore")
class TestFastEmbed(EmbedderContract):
    exact = False

    @pytest.fixture
    def embedder(self, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
        return loaded(fastembed, tmp_path_factory.getbasetemp() / "fastembed")


def fastembed(folder: Path) -> Embedder:
    from headrace.bench.embed_onnx import NAME, register, write
    from headrace.documents.embed.fastembed import FastEmbedEmbedder

    write(folder)
    register()
    return FastEmbedEmbedder(f"fastembed:{NAME}", path=str(folder))
