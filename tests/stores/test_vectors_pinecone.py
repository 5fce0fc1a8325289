"""Pinecone as a vector index: the contract on a stand-in of its documented API, with the real client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pinecone_standin import KEY, Pinecone, serving

from headrace.errors import ConfigError, StorageError
from headrace.stores.vectors.base import Query, VectorStore
from headrace.stores.vectors.pinecone import PineconeStore
from headrace.testing.vector_data import COLUMNS, DIMENSION, id_of, new_name, point, unit, words
from headrace.testing.vectors import VectorIndexContract


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Pinecone, str]]:
    standin = Pinecone(DIMENSION)
    with serving(standin) as address:
        yield standin, address


@pytest.fixture
def url(served: tuple[Pinecone, str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PINECONE_API_KEY", KEY)
    return f"pinecone:chunks?host={served[1]}"


class TestContract(VectorIndexContract):
    """The contract, but that all indexes have one dimension."""

    many = 600
    rounds = 8
    url: str

    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url

    def make(self) -> VectorStore:
        return PineconeStore(self.url)

    def test_an_index_that_was_dropped_is_empty(self) -> None:
        """One of another name is left alone; another dimension needs another Pinecone index."""
        name, other = new_name(), new_name()
        store = self.make()
        index, left = store.open(name, DIMENSION, COLUMNS), store.open(other, DIMENSION, COLUMNS)
        index.write([point(1, "mill")], [])
        left.write([point(2, "mill")], [])
        index.drop()
        index = store.open(name, DIMENSION, COLUMNS)
        assert list(index.ids()) == []
        assert list(index.search(Query(5, unit(1), words("mill"))).dense) == []
        assert list(left.ids()) == [id_of(2)]
        index.drop()
        left.drop()


@pytest.fixture
def standin(served: tuple[Pinecone, str]) -> Iterator[Pinecone]:
    """The stand-in, as it was when the test ends."""
    yield served[0]
    served[0].lag, served[0].headers, served[0].failing = 1, True, []
    served[0]._log.clear()


@pytest.mark.parametrize("headers", [True, False])
def test_a_write_returns_when_it_can_be_seen(standin: Pinecone, url: str, headers: bool) -> None:
    """By the positions in the headers, or by what can be fetched; deletes alone, too."""
    standin.lag, standin.headers = 5, headers
    index = PineconeStore(url).open(new_name(), DIMENSION, COLUMNS)
    points = [point(n) for n in range(10)]
    index.write(points, [])
    assert standin.query({"topK": 1, "vector": [1.0] * DIMENSION, "namespace": index._name})["matches"]
    index.write([point(20)], [points[0].id])
    index.write([], [one.id for one in points[1:]])
    assert set(standin._spaces[index._name]) == {id_of(20)}
    index.drop()


def test_a_write_that_is_not_seen_in_time_is_an_error(standin: Pinecone, url: str) -> None:
    """Which says what to do."""
    standin.lag = 10**6
    index = PineconeStore(url + "&fresh=50ms").open(new_name(), DIMENSION, COLUMNS)
    with pytest.raises(StorageError, match="fresh="):
        index.write([point(1)], [])
    index.close()


def test_a_server_that_fails_for_a_moment_is_asked_again(standin: Pinecone, url: str) -> None:
    """By Pinecone's client itself."""
    index = PineconeStore(url).open(new_name(), DIMENSION, COLUMNS)
    standin.failing = [503]
    index.write([point(1)], [])
    assert list(index.ids()) == [id_of(1)]
    index.drop()


def test_a_wrong_key_is_told_without_being_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no key at all, before anything is asked."""
    monkeypatch.setenv("OTHER", "wrong-key")
    with pytest.raises(StorageError, match="refused the API key") as error:
        PineconeStore(url + "&api_key_env=OTHER").open("a", DIMENSION, COLUMNS)
    assert "wrong-key" not in str(error.value)
    monkeypatch.delenv("PINECONE_API_KEY")
    with pytest.raises(ConfigError, match="PINECONE_API_KEY"):
        PineconeStore(url)


def test_texts_are_cut_to_what_metadata_may_hold(standin: Pinecone, url: str) -> None:
    """Forty thousand bytes, however they are written; batches stay within two megabytes."""
    index = PineconeStore(url).open(new_name(), DIMENSION, COLUMNS)
    texts = ["a" * 100_000, "\x01" * 50_000, '"' * 50_000, "😀" * 20_000, "short"] * 20
    points = [point(n, vector=unit(n), lang="en") for n in range(len(texts))]
    for one, text in zip(points, texts, strict=True):
        one.payload["text"] = text  # type: ignore[index]
    index.write(points, [])
    held = standin._spaces[index._name]
    assert [len(held[points[n].id]["metadata"]["text"]) for n in (0, 3, 4)] > [39_000, 9_000, 4]
    assert held[points[4].id]["metadata"]["text"] == "short"
    assert len(list(index.ids())) == len(texts)
    index.drop()


def test_common_words_are_counted_in_a_sample(standin: Pinecone, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare ones exactly, common ones to about a tenth."""
    monkeypatch.setattr("headrace.stores.vectors.pinecone._COUNTED", 150)
    index = PineconeStore(url).open(new_name(), DIMENSION, COLUMNS)
    index.write([point(n, "mill dam" if n < 90 else "mill", unit(n)) for n in range(1_000)], [])
    mill, dam = (index._count(int(words(word).ids[0])) for word in ("mill", "dam"))
    assert dam == 90
    assert mill == pytest.approx(1_000, rel=0.25)
    index.drop()


def test_another_dimension_needs_another_pinecone_index(url: str) -> None:
    with pytest.raises(ConfigError, match="of that dimension"):
        PineconeStore(url).open("a", DIMENSION + 1, COLUMNS)


@pytest.mark.services  # Pinecone's client asks four times, with seconds between
def test_a_server_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time."""
    monkeypatch.setenv("PINECONE_API_KEY", KEY)
    with pytest.raises(StorageError) as error:
        PineconeStore("pinecone:chunks?host=http://127.0.0.1:1&timeout=1s").open("a", DIMENSION, COLUMNS)
    assert KEY not in str(error.value)
