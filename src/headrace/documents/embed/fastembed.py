"""`fastembed:NAME`: any text model of the FastEmbed library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from fastembed import TextEmbedding

from headrace.documents.embed.base import Offsets, Vectors
from headrace.documents.embed.wordpiece import check_unicode, token_offsets, tokenizers
from headrace.errors import ConfigError


class FastEmbedEmbedder:
    """A model, loaded by the library; a query and a document are embedded as the library has it for the model.

    Args:
        spec: "fastembed:NAME", one of the models that FastEmbed lists.
        path: A directory that has the model's files; they are fetched from the hub if it is not said.
        cache: Where fetched models are kept.
        threads: Of the runtime.
        batch: Texts at a time.

    Raises:
        ConfigError: The model is not one of FastEmbed's, or cannot be loaded.
    """

    def __init__(
        self,
        spec: str,
        *,
        path: str | None = None,
        cache: str | None = None,
        threads: int | None = None,
        batch: int = 64,
    ) -> None:
        model = spec.partition(":")[2]
        if not model:
            raise ConfigError(f"expected a model's name as in 'fastembed:BAAI/bge-small-en-v1.5', found {spec!r}")
        placed = {} if path is None else {"specific_model_path": path}
        try:
            self._model: Any = TextEmbedding(model, cache_dir=cache, threads=threads, **placed)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"FastEmbed cannot load the model {model!r}: {error}") from error
        inner: Any = self._model.model.tokenizer
        self.limit = int((inner.truncation or {"max_length": 512})["max_length"]) - inner.num_special_tokens_to_add(
            False
        )
        self._tokenizer, _ = tokenizers(inner.to_str(), self.limit)
        self.dimension = int(self._model.embedding_size)
        self._batch = batch
        self.name = f"fastembed:{model}/{self.limit}"

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each token begins and ends in the text, in characters."""
        return token_offsets(self._tokenizer, text)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:
        """Shape (n, dimension), float32, rows of length 1.

        Raises:
            InputError: A text that is not Unicode.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        check_unicode(texts)
        run = self._model.query_embed if kind == "query" else self._model.passage_embed
        vectors = np.stack(list(run(list(texts), batch_size=self._batch))).astype(np.float32)
        # Not all of its models have rows of length 1.
        normal: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return normal
