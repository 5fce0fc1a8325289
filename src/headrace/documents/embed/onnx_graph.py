"""An ONNX model as bytes, written without the `onnx` package: the few messages of its format that a BERT needs.

ONNX is Protocol Buffers: a message is a sequence of fields, each a key (its number and its wire type) and a value,
which is a varint, four bytes, or bytes with their length before them. That is all that is needed to write one, and
saves a package of tens of megabytes for a file that is only handed to the runtime.

Source: `onnx.proto` of ONNX 1.17 (IR version 8, operators of opset 17).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Attribute = float | tuple[int, ...]

MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own, fused operators
_IR_VERSION = 8
_OPSETS = (("", 17), (MICROSOFT, 1))
# TensorProto.DataType
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 6, np.dtype(np.int64): 7}
# AttributeProto.AttributeType
_FLOAT, _INT, _INTS = 1, 2, 7
_VARINT, _BYTES, _FOUR = 0, 2, 5  # wire types


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Attribute) -> bytes:
    """One operation; an input of no name is one that is left out. Attributes are floats, ints or ints in a tuple."""
    return b"".join(
        [
            *(_field(1, name) for name in inputs),
            *(_field(2, name) for name in outputs),
            _field(3, outputs[0]),
            _field(4, op),
            *(_field(5, _attribute(name, value)) for name, value in attributes.items()),
            _field(7, domain),
        ]
    )


def constant(name: str, values: npt.NDArray[Any]) -> bytes:
    """A tensor that the model holds: float32, int32 or int64."""
    dimensions = b"".join(_number(1, length) for length in values.shape)
    raw = np.ascontiguousarray(values).tobytes()
    return dimensions + _number(2, _TYPES[values.dtype]) + _field(8, name) + _field(9, raw)


def value(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> bytes:
    """An input or an output; a length that varies has a name instead of a number."""
    lengths = b"".join(_field(1, _field(2, n) if isinstance(n, str) else _number(1, n)) for n in shape)
    tensor = _number(1, _TYPES[np.dtype(dtype)]) + _field(2, lengths)
    return _field(1, name) + _field(2, _field(1, tensor))


def model(
    nodes: Iterable[bytes], constants: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes]
) -> bytes:
    """The whole model; nodes in an order in which each comes after what it reads."""
    graph = b"".join(
        [
            *(_field(1, each) for each in nodes),
            _field(2, "headrace"),
            *(_field(5, each) for each in constants),
            *(_field(11, each) for each in inputs),
            *(_field(12, each) for each in outputs),
        ]
    )
    opsets = b"".join(_field(8, _field(1, domain) + _number(2, version)) for domain, version in _OPSETS)
    return _number(1, _IR_VERSION) + _field(7, graph) + opsets


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, tuple):
        return _field(1, name) + b"".join(_number(8, each) for each in value) + _number(20, _INTS)
    if isinstance(value, int):
        return _field(1, name) + _number(3, value) + _number(20, _INT)
    return _field(1, name) + _varint(2 << 3 | _FOUR) + struct.pack("<f", value) + _number(20, _FLOAT)


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(number)


def _field(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | _BYTES) + _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # a negative number is written as its two's complement
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
