"""`sentence-transformers:NAME`: any model of the sentence-transformers library, instruction-tuned ones among them.

Such models (for code, say) were trained with an instruction before a query, and often another before a document. What
the model itself declares under the names "query" and "document" is used; `query=` and `document=` say otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from headrace.documents.embed.base import Offsets, Vectors
from headrace.documents.embed.wordpiece import check_unicode
from headrace.errors import ConfigError

_DEFAULT_LIMIT = 512


class SentenceTransformerEmbedder:
    """A model, loaded by the library.

    Args:
        spec: "sentence-transformers:NAME", a name on the hub or a directory.
        query: The instruction that stands before a query; the model's own if it is not said.
        document: And before a document.
        device: "cpu", "cuda", …; the library's choice if it is not said.
        dimensions: Cut the vectors off there, where the model was trained for it (Matryoshka).
        revision: Of the model on the hub: a commit keeps it from changing.
        batch: Texts at a time.
        trust_remote_code: Let the model bring code of its own, which is run.

    Raises:
        ConfigError: The model cannot be loaded.
    """

    def __init__(
        self,
        spec: str,
        *,
        query: str | None = None,
        document: str | None = None,
        device: str | None = None,
        dimensions: int | None = None,
        revision: str | None = None,
        batch: int = 32,
        trust_remote_code: bool = False,
    ) -> None:
        model = spec.partition(":")[2]
        if not model:
            raise ConfigError(f"expected a model's name as in 'sentence-transformers:all-MiniLM-L6-v2', found {spec!r}")
        try:
            self._model: Any = SentenceTransformer(
                model,
                device=device,
                revision=revision,
                truncate_dim=dimensions,
                trust_remote_code=trust_remote_code,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"sentence-transformers cannot load the model {model!r}: {error}") from error
        self._batch = batch
        self._prompts = {"query": query, "document": document}
        # One at a time: the library pads and moves tensors in ways that it does not promise to be thread-safe.
        self._lock = threading.Lock()
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        added: int = self._model.tokenizer.num_special_tokens_to_add()
        self.limit = int(self._model.max_seq_length or _DEFAULT_LIMIT) - added
        said = self._model.prompts.get("document", "") if document is None else document
        shape = f"/{dimensions}" if dimensions else ""
        self.name = f"sentence-transformers:{model}@{revision or 'latest'}/{self.limit}{shape}" + (
            f"/{said!r}" if said else ""
        )

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each token begins and ends in the text, in characters."""
        check_unicode([text])
        with self._lock:
            found = self._model.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
            )
        return np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:
        """Shape (n, dimension), float32, rows of length 1.

        Raises:
            InputError: A text that is not Unicode.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        check_unicode(texts)
        encode = self._model.encode_query if kind == "query" else self._model.encode_document
        with self._lock:
            vectors = encode(
                list(texts),
                prompt=self._prompts[kind],
                batch_size=self._batch,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)
