"""`headrace bench embed`: texts a second, tokenizing included, beside sentence-transformers and FastEmbed.

The same weights, the same texts, the same cores, float32 everywhere: all-MiniLM-L6-v2 over texts of 20, 128 and 256
tokens (two of them [CLS] and [SEP]), all of a length at once, as a backfill brings them. Each system runs in a process
of its own; they take turns. The vectors are compared first: a system's time counts only if each of its vectors has a
cosine of at least 0.999 with that of the reference implementation (sentence-transformers; without it, Headrace's).

Peers may live in another environment, as PyTorch is gigabytes: HEADRACE_PEERS_PYTHON names its interpreter, or the
interpreters of several, separated by colons.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bench import embed_onnx, peers
from headrace.bench.child import Child
from headrace.bench.embed_texts import texts
from headrace.bench.harness import BenchError, Report, interleave
from headrace.documents.embed import weights
from headrace.documents.embed.minilm import cores
from headrace.runners.embedding.load import embedder

# Tokens a text and texts a round: about a second each for the slowest system on one core.
LENGTHS = {20: 512, 128: 96, 256: 48}
SEED = 1
ALIKE = 0.999
REFERENCE = "sentence-transformers"
PEERS = {
    REFERENCE: ("sentence_transformers", "sentence_transformers_embed"),
    "fastembed": ("fastembed", "fastembed_embed"),
}
NO_PEER = 'not installed; pip install "headrace[sentence-transformers,fastembed]", or set HEADRACE_PEERS_PYTHON'

LAYOUT: dict[str, Any] = {
    "config.json": {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    },
    "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512},
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
}

Run = Callable[[], dict[str, Any]]


def run(*, runs: int = 5, seed: int = SEED, seconds: float = 1.0, peers: bool = True) -> Report:
    """Measure all systems that are there.

    Args:
        runs: Rounds; the figures are their medians.
        seed: Of the texts.
        seconds: About how long a round of the slowest system lasts.
        peers: Whether others than Headrace are measured.
    """
    threads = cores()
    report = Report("embed", seed, f"all-MiniLM-L6-v2, texts/s with tokenizing, float32, {threads} cores")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        children = {
            "headrace minilm": stack.enter_context(Child("headrace.bench.embed_live", "minilm", str(threads))),
            "headrace static": stack.enter_context(Child("headrace.bench.embed_live", "static", "1")),
        }
        for name in PEERS if peers else ():
            if (child := start_peer(name, folder, threads, stack)) is None:
                report.left_out[name] = NO_PEER
            else:
                children[name] = child
        for tokens, count in LENGTHS.items():
            given = texts(embedder("minilm"), tokens - 2, max(8, round(count * seconds)), seed)
            compare(report, children, given, tokens)
            measure_length(report, children, given, tokens, runs)
    describe(report, threads)
    return report


measure = run


def start_peer(name: str, folder: Path, threads: int, stack: contextlib.ExitStack) -> Child | None:
    """A peer in the first interpreter that has it; None if none has."""
    package, module = PEERS[name]
    python = next((each for each in interpreters() if has(each, package)), None)
    if python is None:
        return None
    model = folder / package
    if name == "fastembed":
        embed_onnx.write(model)
    else:
        write_layout(model)
    return stack.enter_context(Peer(python, module, str(model), str(threads)))


def interpreters() -> list[str]:
    named = os.environ.get("HEADRACE_PEERS_PYTHON", "")
    return [sys.executable, *(each for each in named.split(os.pathsep) if each)]


def has(python: str, package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False, capture_output=True, timeout=60).returncode == 0


def write_layout(folder: Path) -> None:
    """The model's folder as sentence-transformers wants it, of its weights and what its authors say beside them."""
    files = weights.find()
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(files.model)
    (folder / "tokenizer.json").symlink_to(files.tokenizer)
    for name, content in LAYOUT.items():
        (folder / name).write_text(json.dumps(content))


class Peer(Child):
    """A peer's script in another interpreter, which need not have Headrace."""

    def __init__(self, python: str, module: str, *arguments: str) -> None:
        script = Path(peers.__file__).with_name(f"{module}.py")
        self._name = f"{python} {script}"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise


def compare(report: Report, children: Mapping[str, Child], given: list[str], tokens: int) -> None:
    """Hold every system's vectors against the reference's.

    Raises:
        BenchError: They are not the same model's.
    """
    same = {name: child for name, child in children.items() if name != "headrace static"}
    found = {name: np.array(child.ask(texts=given, vectors=True)["vectors"]) for name, child in same.items()}
    reference = found.get(REFERENCE, found["headrace minilm"])
    for name, vectors in found.items():
        if name != REFERENCE:
            cosine = float(np.einsum("ij,ij->i", vectors, reference).min())
            report.add(name, f"{tokens} tokens, least cosine", "", [cosine])
            if cosine < ALIKE:
                raise BenchError(f"the vectors of {name} are not those of the reference: least cosine {cosine:.4f}")


def measure_length(report: Report, children: Mapping[str, Child], given: list[str], tokens: int, runs: int) -> None:
    systems: dict[str, Run] = {}
    # A round of the static model would be over before the clock ticks.
    for name, child in children.items():
        systems[name] = functools.partial(child.ask, texts=given * (20 if name == "headrace static" else 1))
    metric = f"{tokens} tokens"
    for name, rounds in interleave(systems, runs).items():
        count = len(given) * (20 if name == "headrace static" else 1)
        report.add(name, metric, "texts/s", [count / each["seconds"] for each in rounds])
    for peer in PEERS:
        report.ratio(f"minilm over {peer}, {metric}", "headrace minilm", peer, metric)


def describe(report: Report, threads: int) -> None:
    """What a reader of the figures must know."""
    report.notes += [
        "one call with all texts of a length; of texts of mixed lengths each system makes its own batches",
        f"{threads} threads each; sentence-transformers on PyTorch with its own batches of 32",
        "fastembed: the same weights in ONNX's standard operators, fused by onnxruntime, in batches of 32",
        "static is another model: it is beside, not in a ratio",
    ]
