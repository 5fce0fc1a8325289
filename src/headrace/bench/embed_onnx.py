"""all-MiniLM-L6-v2 as an export from PyTorch would have it: a folder that FastEmbed loads, for its part in `embed`.

FastEmbed fetches its models from a hub. The benchmark needs the same weights on every system, and no hub; so the model
is written here in ONNX's standard operators, one for each step as an exporter writes them, and it is left to the
runtime to fuse them, as FastEmbed does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from headrace.documents.embed import onnx_graph, weights

NAME = "headrace/all-MiniLM-L6-v2"
_HEADS, _LAYERS, _WIDTH = 12, 6, 384


def write(folder: Path) -> None:
    """The model's folder."""
    files = weights.find()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_Export(weights.tensors(files.model)).model())
    (folder / "tokenizer.json").write_bytes(files.tokenizer.read_bytes())
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0, "max_position_embeddings": 512}))
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256, "max_length": 256, **special}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def register() -> None:
    """Make FastEmbed know the model by its name."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    if NAME not in {each["model"] for each in TextEmbedding.list_supported_models()}:
        source = ModelSource(hf=NAME)
        TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, source, _WIDTH, model_file="model.onnx")


class _Export:
    def __init__(self, tensors: dict[str, Any]) -> None:
        self._tensors = tensors
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}
        self._count = 0

    def model(self) -> bytes:
        x = self._run("Gather", self._tensor("embeddings.word_embeddings.weight"), "input_ids")
        length = self._run("Slice", self._run("Shape", "input_ids"), *(self._ints(n, [n]) for n in (1, 2)))
        places = self._ints("places", list(range(512)))
        positions = self._run("Slice", places, self._ints(0, [0]), length)
        x = self._run("Add", x, self._run("Gather", self._tensor("embeddings.position_embeddings.weight"), positions))
        x = self._run(
            "Add", x, self._run("Gather", self._tensor("embeddings.token_type_embeddings.weight"), "token_type_ids")
        )
        x = self._norm(x, "embeddings.LayerNorm")
        mask = self._run("Unsqueeze", self._run("Cast", "attention_mask", to=1), self._ints("axes", [1, 2]))
        mask = self._run("Mul", self._run("Sub", self._number(1.0), mask), self._number(-10_000.0))
        for number in range(_LAYERS):
            x = self._layer(f"encoder.layer.{number}.", x, mask)
        self._nodes.append(onnx_graph.node("Identity", [x], ["last_hidden_state"]))
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [onnx_graph.value(name, np.int64, ["texts", "tokens"]) for name in names]
        output = onnx_graph.value("last_hidden_state", np.float32, ["texts", "tokens", _WIDTH])
        return onnx_graph.model(self._nodes, self._constants.values(), inputs, [output])

    def _layer(self, layer: str, x: str, mask: str) -> str:
        of = f"{layer}attention.self."
        query, key, value = (self._heads(self._dense(x, f"{of}{part}")) for part in ("query", "key", "value"))
        scores = self._run("MatMul", query, self._run("Transpose", key, perm=(0, 1, 3, 2)))
        scores = self._run("Add", self._run("Div", scores, self._number(math.sqrt(_WIDTH / _HEADS))), mask)
        mixed = self._run("MatMul", self._run("Softmax", scores, axis=-1), value)
        mixed = self._run("Transpose", mixed, perm=(0, 2, 1, 3))
        mixed = self._run("Reshape", mixed, self._ints("joined", [0, 0, _WIDTH]))
        mixed = self._run("Add", self._dense(mixed, f"{layer}attention.output.dense"), x)
        x = self._norm(mixed, f"{layer}attention.output.LayerNorm")
        wide = self._dense(x, f"{layer}intermediate.dense")
        erf = self._run("Erf", self._run("Div", wide, self._number(math.sqrt(2))))
        wide = self._run("Mul", self._run("Mul", wide, self._run("Add", erf, self._number(1.0))), self._number(0.5))
        return self._norm(self._run("Add", self._dense(wide, f"{layer}output.dense"), x), f"{layer}output.LayerNorm")

    def _heads(self, x: str) -> str:
        shaped = self._run("Reshape", x, self._ints("heads", [0, 0, _HEADS, _WIDTH // _HEADS]))
        return self._run("Transpose", shaped, perm=(0, 2, 1, 3))

    def _dense(self, x: str, name: str) -> str:
        matrix = self._hold(f"{name}.weight", self._tensors[f"{name}.weight"].T)
        return self._run("Add", self._tensor(f"{name}.bias"), self._run("MatMul", x, matrix))

    def _norm(self, x: str, name: str) -> str:
        scale, shift = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        return self._run("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)

    def _tensor(self, name: str) -> str:
        return self._hold(name, self._tensors[name])

    def _number(self, number: float) -> str:
        return self._hold(f"number {number}", np.array(number, dtype=np.float32))

    def _ints(self, name: object, values: list[int]) -> str:
        return self._hold(f"ints {name}", np.array(values, dtype=np.int64))

    def _hold(self, name: str, values: Any) -> str:
        self._constants.setdefault(name, onnx_graph.constant(name, values))
        return name

    def _run(self, op: str, *inputs: str, **attributes: onnx_graph.Attribute) -> str:
        self._count += 1
        output = f"{op} {self._count}"
        self._nodes.append(onnx_graph.node(op, inputs, [output], "", **attributes))
        return output
