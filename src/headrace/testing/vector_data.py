"""Chunks, filters and comparisons to test a vector index with."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import xxhash

from headrace.document import Column
from headrace.filters import Filter, parse
from headrace.stores.vectors.base import Found, Point, Query, Terms, Vector
from headrace.stores.vectors.memory import MemoryVectors

DIMENSION = 16
COLUMNS = {
    "lang": Column("str"),
    "year": Column("int"),
    "price": Column("float"),
    "draft": Column("bool"),
    "updated": Column("time"),
    "tags": Column("str", many=True),
    "scores": Column("int", many=True),
}
# Of which an index could take one for another, cut one short, or have no place for.
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "a",
    "ü",
    "u\u0308",
    "😀",
    "'; --",
    '"',
    "\\",
    "{x}",
    "%",
    "null",
    "\n",
    "\u202eabc",
    "١",
)
DAY = 86_400_000_000
ROWS: Sequence[Mapping[str, Any]] = (
    {"lang": "en", "year": 2020, "price": 1.5, "draft": False, "updated": 0, "tags": ["a", "b"], "scores": [1, 2]},
    {"lang": "en", "year": 2021, "price": 2.0, "draft": True, "updated": DAY, "tags": ["b"], "scores": []},
    {"lang": "de", "year": 2021, "price": -0.5, "draft": False, "updated": -DAY, "tags": [], "scores": [-3]},
    {"lang": "de", "year": None, "price": None, "draft": None, "updated": None, "tags": None, "scores": None},
    {"lang": None, "year": 2024, "price": 0.0, "draft": True, "updated": 1_700_000_000_000_000, "tags": ["c"]},
    {},
    {"lang": "EN", "year": -1, "price": 1e12, "draft": False, "updated": 1, "tags": ["a"], "scores": [2**53]},
    {"lang": "", "year": 2**60, "price": 0.1, "draft": True, "updated": 2, "tags": [""], "scores": [0, 0]},
)
CONDITIONS: Sequence[Mapping[str, Any]] = (
    {"lang": "en"},
    {"lang": {"ne": "en"}},
    {"lang": {"in": ["en", "de", ""]}},
    {"lang": {"in": []}},
    {"not": {"lang": {"in": ["en", "de"]}}},
    {"lang": None},
    {"not": {"lang": None}},
    {"year": 2021},
    {"year": {"ne": 2021}},
    {"year": {"gte": 2020, "lt": 2024}},
    {"year": {"gt": 2020}},
    {"year": {"lte": 2020}},
    {"not": {"year": {"gt": 2020}}},
    {"year": {"in": [-1, 2024]}},
    {"price": 0.1},
    {"price": {"lt": 1.5}},
    {"price": {"gte": 1.5}},
    {"price": {"in": [2.0, 0.0]}},
    {"draft": True},
    {"draft": {"ne": True}},
    {"not": {"draft": True}},
    {"draft": None},
    {"updated": {"gte": "1970-01-02"}},
    {"updated": {"lt": 0}},
    {"updated": 1},
    {"tags": "a"},
    {"tags": {"ne": "a"}},
    {"tags": {"in": ["a", "c"]}},
    {"not": {"tags": {"in": ["a", "c"]}}},
    {"tags": None},
    {"not": {"tags": None}},
    {"scores": {"gte": 1}},
    {"scores": -3},
    {"not": {"scores": {"gt": 0}}},
    {"or": [{"lang": "de"}, {"year": {"gt": 2021}}]},
    {"not": {"or": [{"lang": "de"}, {"year": {"gt": 2021}}]}},
    {"and": [{"lang": "en"}, {"not": {"tags": "a"}}]},
    {"not": {"and": [{"lang": "en"}, {"draft": True}]}},
    {"or": [{"lang": None}, {"not": {"draft": {"ne": True}}}]},
    {"not": {"not": {"price": {"gt": 0.0}}}},
    {"and": []},
    {"or": []},
)
WORDS = ("river", "mill", "wheel", "stone", "water", "grain", "flour", "dam")


def unit(*seed: int, dimension: int = DIMENSION) -> Vector:
    """A vector of length 1 in a direction of its own."""
    found = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return found / np.float32(np.linalg.norm(found))


def words(text: str) -> Terms:
    """A text's words as a chunk has them, or a query: each dampened by how often it occurs."""
    counts: dict[int, int] = {}
    for word in re.findall(r"\w+", text.lower()):
        number = xxhash.xxh32_intdigest(word.encode())
        counts[number] = counts.get(number, 0) + 1
    ids = sorted(counts)
    weights = [counts[one] * 2.2 / (counts[one] + 1.2) for one in ids]
    return Terms(np.array(ids, np.uint32), np.array(weights, np.float32))


def point(name: object, text: str = "", vector: Vector | None = None, **payload: Any) -> Point:
    """A chunk of a name; the same name is the same point."""
    number = uuid.uuid5(uuid.NAMESPACE_OID, str(name))
    direction = unit(number.int % 2**32) if vector is None else vector
    return Point(str(number), direction, words(text), {"document": str(name), "text": text, **payload})


def id_of(name: object) -> str:
    """The id of the point of that name."""
    return point(name).id


def new_name() -> str:
    """A name that no index has."""
    return f"contract-{uuid.uuid4().hex[:12]}"


def parsed(condition: Mapping[str, Any]) -> Filter:
    """A condition in JSON form, as a tree."""
    return parse(condition, COLUMNS)


def exact(points: Sequence[Point], query: Query) -> Found:
    """What the exact index answers."""
    with closing(MemoryVectors().open("exact", DIMENSION, COLUMNS)) as index:
        index.write(points, [])
        return index.search(query)
