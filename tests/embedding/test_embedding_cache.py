"""The cache: what is put is got, after a restart and after kill -9 too, and never more than its room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import ClosedError, StorageError
from headrace.stores.embeddings import EmbeddingCache, Vector


def hash_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def vector_of(number: int, dimension: int = 8) -> Vector:
    return np.random.default_rng(number).normal(size=dimension).astype(np.float32)


def entries(*numbers: int) -> list[tuple[bytes, Vector]]:
    return [(hash_of(number), vector_of(number)) for number in numbers]


def there(cache: EmbeddingCache, *numbers: int) -> list[int]:
    found = cache.get("m", [hash_of(number) for number in numbers])
    for number in numbers:
        if hash_of(number) in found:
            np.testing.assert_array_equal(found[hash_of(number)], vector_of(number))
    return [number for number in numbers if hash_of(number) in found]


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_put_is_got(tmp_path: Path, kept: bool) -> None:
    cache = EmbeddingCache(tmp_path / "c.db" if kept else None)
    cache.put("m", entries(*range(1_200)))
    assert there(cache, *range(0, 2_000, 3)) == list(range(0, 1_200, 3))
    assert cache.count() == 1_200
    cache.close()


def test_models_are_told_apart() -> None:
    cache = EmbeddingCache(None)
    cache.put("m", entries(1))
    cache.put("n", [(hash_of(1), vector_of(2, 4))])
    assert there(cache, 1) == [1]
    np.testing.assert_array_equal(cache.get("n", [hash_of(1)])[hash_of(1)], vector_of(2, 4))
    assert cache.get("another", [hash_of(1)]) == {}


def test_it_outlives_a_restart(tmp_path: Path) -> None:
    for numbers in ([1, 2], [2, 3]):
        cache = EmbeddingCache(tmp_path / "c.db")
        cache.put("m", entries(*numbers))
        size = cache.size
        cache.close()
    cache = EmbeddingCache(tmp_path / "c.db")
    assert (there(cache, 1, 2, 3, 4), cache.size) == ([1, 2, 3], size)
    cache.close()


CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
from headrace.stores.embeddings import EmbeddingCache
from test_embedding_cache import entries
cache = EmbeddingCache(sys.argv[1])
number = 0
while True:
    cache.put("m", entries(*range(number, number + 50)))
    number += 50
    print(number, flush=True)
"""


def test_it_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(5)]
        child.kill()
    cache = EmbeddingCache(path)
    assert there(cache, *range(said[-1])) == list(range(said[-1]))
    assert cache.count() % 50 == 0
    cache.close()


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = EmbeddingCache(None, keep_bytes=100 * 128)  # a hundred vectors of eight numbers
    for begin in range(0, 90, 5):
        cache.put("m", entries(*range(begin, begin + 5)))
    assert there(cache, 0, 1, 2) == [0, 1, 2]
    for begin in range(90, 150, 5):
        cache.put("m", entries(*range(begin, begin + 5)))
        assert cache.size <= 100 * 128
    assert there(cache, 0, 1, 2, 10, 11, 12) == [0, 1, 2]
    assert there(cache, *range(140, 150)) == list(range(140, 150))
    assert cache.size == cache.count() * 128


def test_a_batch_larger_than_the_room() -> None:
    cache = EmbeddingCache(None, keep_bytes=10 * 128)
    cache.put("m", entries(*range(50)))
    assert cache.size <= 10 * 128
    assert cache.size == cache.count() * 128


@pytest.mark.parametrize("content", [b"this is no database, but a text of some length. " * 100, b"\x00" * 8192])
def test_a_damaged_cache_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.db").write_bytes(content)
    cache = EmbeddingCache(tmp_path / "c.db")
    cache.put("m", entries(1))
    assert there(cache, 1) == [1]
    cache.close()


def test_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open the embedding cache"):
        EmbeddingCache(tmp_path / "nowhere" / "c.db")


def test_closed_is_closed() -> None:
    cache = EmbeddingCache(None)
    cache.close()
    cache.close()
    with pytest.raises(ClosedError):
        cache.get("m", [hash_of(1)])
