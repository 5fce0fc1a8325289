"""A BERT sentence encoder as one ONNX model: tokens in, one vector of length 1 a text out.

A graph that is exported from PyTorch is hundreds of small operations that a runtime has to recognise and fuse again.
Here it is written with onnxruntime's fused ones in the first place: attention with its projections is one operation,
so is GELU with its bias. The two residual additions and the layer norm are left apart, and
the runtime's own optimiser is kept from fusing them: its fused SkipLayerNormalization is slower on a CPU (measured on
128 tokens, one core: 58 texts/s apart, 52 fused). Pooling and the division by the length are in the graph too, so a
batch of 256 tokens a text brings 1.5 kB a text back instead of 393 kB.

The table of the words' vectors, half of the model, is no part of the graph: looking a word up takes no runtime, and
the table stays in the mapped file, where it is the same memory for every process that uses it.

Source: Devlin et al., "BERT", NAACL 2019; Wang et al., "MiniLM", NeurIPS 2020; Reimers & Gurevych, "Sentence-BERT",
EMNLP 2019 (mean pooling).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from headrace.documents.embed.onnx_graph import MICROSOFT, constant, model, node, value

Weights = Mapping[str, npt.NDArray[np.float32]]

_EPSILON = 1e-12


class _Graph:
    """Nodes and constants while they are collected."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []

    def hold(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.constants.append(constant(name, values))
        return name

    def weight(self, name: str) -> str:
        """A vector of the model, under its own name."""
        return self.hold(name, self.weights[name])

    def matrix(self, name: str) -> str:
        """PyTorch keeps the matrix of a linear layer transposed."""
        return self.hold(name, self.weights[name].T)

    def run(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: float) -> str:
        self.nodes.append(node(op, inputs, [output], domain, **attributes))
        return output


class Words:
    """What a token is before it meets its neighbours: the vectors of its word, its position and its segment."""

    def __init__(self, weights: Weights) -> None:
        self._words = weights["embeddings.word_embeddings.weight"]
        # Every token is of the first segment, so that segment's vector is part of every position's.
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self._positions = weights["embeddings.position_embeddings.weight"] + segment

    def __call__(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Shape (texts, tokens, dimension) of tokens' numbers, shape (texts, tokens)."""
        found: npt.NDArray[np.float32] = self._words[ids]
        found += self._positions[: ids.shape[1]]
        return found


def sentence_encoder(weights: Weights, heads: int, layers: int) -> bytes:
    """The model of a BERT with mean pooling.

    Inputs: `words`, float32, shape (texts, tokens, dimension), each token's word, position and segment vectors added
    up (`Words`), anything at the padding, which is on the right; `lengths`, int32, shape (texts,), the tokens of
    each; `share`, float32, shape (texts, 1, tokens), 1 ÷ the text's tokens at tokens and 0 at the padding. Output:
    `vectors`, float32, shape (texts, dimension).

    Args:
        weights: By their names in the safetensors file, float32.
        heads: Of the attention.
        layers: How many.
    """
    graph = _Graph(weights)
    scale, shift = graph.weight("embeddings.LayerNorm.weight"), graph.weight("embeddings.LayerNorm.bias")
    hidden = graph.run("LayerNormalization", ["words", scale, shift], "embedded", axis=-1, epsilon=_EPSILON)
    for number in range(layers):
        hidden = _layer(graph, f"encoder.layer.{number}.", hidden, heads)
    pooled = graph.run("MatMul", ["share", hidden], "pooled")
    unit = graph.run("LpNormalization", [pooled], "unit", axis=-1, p=2)
    graph.run("Squeeze", [unit, graph.hold("axis", np.array([1], dtype=np.int64))], "vectors")
    dimension = weights["embeddings.LayerNorm.weight"].shape[0]
    return model(
        graph.nodes,
        graph.constants,
        [
            value("words", np.float32, ["texts", "tokens", dimension]),
            value("lengths", np.int32, ["texts"]),
            value("share", np.float32, ["texts", 1, "tokens"]),
        ],
        [value("vectors", np.float32, ["texts", dimension])],
    )


def _layer(graph: _Graph, layer: str, hidden: str, heads: int) -> str:
    """Attention and the feed-forward part, each with its residual and norm."""
    of, weights = f"{layer}attention.self.", graph.weights
    projections = np.concatenate([weights[f"{of}{part}.weight"].T for part in ("query", "key", "value")], axis=1)
    biases = np.concatenate([weights[f"{of}{part}.bias"] for part in ("query", "key", "value")])
    inputs = [hidden, graph.hold(f"{of}weight", projections), graph.hold(f"{of}bias", biases), "lengths"]
    attended = graph.run("Attention", inputs, f"{of}out", MICROSOFT, num_heads=heads)
    mixed = _residual(graph, f"{layer}attention.output.", attended, hidden)
    wide = graph.run("MatMul", [mixed, graph.matrix(f"{layer}intermediate.dense.weight")], f"{layer}wide")
    bias = graph.weight(f"{layer}intermediate.dense.bias")
    active = graph.run("BiasGelu", [wide, bias], f"{layer}active", MICROSOFT)
    return _residual(graph, f"{layer}output.", active, mixed)


def _residual(graph: _Graph, part: str, inner: str, outer: str) -> str:
    """LayerNorm(dense(inner) + outer)."""
    product = graph.run("MatMul", [inner, graph.matrix(f"{part}dense.weight")], f"{part}product")
    dense = graph.run("Add", [product, graph.weight(f"{part}dense.bias")], f"{part}dense")
    added = graph.run("Add", [dense, outer], f"{part}added")
    scale, shift = graph.weight(f"{part}LayerNorm.weight"), graph.weight(f"{part}LayerNorm.bias")
    return graph.run("LayerNormalization", [added, scale, shift], f"{part}normal", axis=-1, epsilon=_EPSILON)
