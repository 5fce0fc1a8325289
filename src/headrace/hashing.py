"""A stable 64-bit hash of any column: the same on every machine, version and restart, as stored state needs.

Polars' own hash promises no such stability. Numbers are mixed by SplitMix64 (Steele et al., OOPSLA 2014) in
NumPy; everything else is hashed as text by XXH64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

UInt64 = npt.NDArray[np.uint64]
# Wider than the 64 bits that are mixed, so hashed as text.
_WIDE = (pl.Int128, pl.UInt128, pl.Decimal)


def hash64(values: pl.Series) -> UInt64:
    """Shape (n,), uint64; equal values have equal hashes. Nulls are not expected."""
    number = values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.Boolean
    if number and not isinstance(values.dtype, _WIDE):
        physical = values.to_physical()
        if physical.dtype.is_float():
            # -0.0 equals 0.0 and must hash like it; adding 0.0 makes it so.
            bits = (physical.cast(pl.Float64).to_numpy() + 0.0).view(np.uint64)
        elif physical.dtype == pl.UInt64:
            bits = physical.to_numpy()
        else:
            bits = physical.cast(pl.Int64).to_numpy().view(np.uint64)
        return _mix(bits)
    texts = values.to_list() if values.dtype == pl.String else [repr(value) for value in values.to_list()]
    return np.fromiter(map(xxhash.xxh64_intdigest, map(str.encode, texts)), dtype=np.uint64, count=len(texts))


def _mix(bits: npt.NDArray[Any]) -> UInt64:
    with np.errstate(over="ignore"):
        x = bits + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: UInt64 = x ^ (x >> np.uint64(31))
    return mixed
