"""Postgres with pgvector as a vector index: the contract, and what only a server can do to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import numpy as np
import pytest

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.filters import parse
from headrace.stores.vectors.base import Point, Query, VectorStore
from headrace.stores.vectors.memory import MemoryVectors
from headrace.stores.vectors.pgvector import PgvectorStore
from headrace.testing.vector_data import COLUMNS, DIMENSION, id_of, new_name, parsed, point, unit, words
from headrace.testing.vectors import VectorIndexContract
from services.postgres import PASSWORD, Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres()
    try:
        made.start()
        yield made
    finally:
        made.close()


class TestContract(VectorIndexContract):
    """The contract, on the wheel's Postgres 18 with pgvector 0.8."""

    server: Postgres

    @pytest.fixture(autouse=True)
    def _server(self, server: Postgres) -> None:
        self.server = server

    def make(self) -> VectorStore:
        return PgvectorStore(self.server.url)


@pytest.fixture
def store(server: Postgres) -> PgvectorStore:
    return PgvectorStore(server.url)


def _chunk(n: int, random: np.random.Generator) -> Point:
    """A chunk of some twenty words, a few of them in most chunks."""
    text = " ".join(f"w{word}" for word in np.minimum(random.zipf(1.4, 30), 3_000))
    return point(n, text, unit(n), lang="la" if n % 40 == 0 else "en")


@pytest.mark.parametrize("few", [1, 50, 10**9])
def test_scores_are_exact_however_few_points_are_looked_at(
    store: PgvectorStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """What common words could add is reckoned with, so leaving points out changes no answer."""
    monkeypatch.setattr("headrace.stores.vectors.pgvector._FEW", few)
    random = np.random.default_rng(3)
    points = [_chunk(n, random) for n in range(600)]
    index = store.open(new_name(), DIMENSION, COLUMNS)
    index.write(points, [])
    with closing(MemoryVectors().open("exact", DIMENSION, COLUMNS)) as oracle:
        oracle.write(points, [])
        for question in ("w1 w2 w900", "w1", "w1 w2 w3", "w40 w41 w2 w1", "w7 w7 w7 w1 w2500", "w5000 w1"):
            for where in (None, parsed({"lang": "la"})):
                query = Query(5, terms=words(question), where=where)
                found, exact = index.search(query).sparse, oracle.search(query).sparse
                assert [score for _, score in found] == pytest.approx([score for _, score in exact], rel=1e-4)
    index.drop()


def test_words_are_counted_as_points_come_and_go(server: Postgres, store: PgvectorStore) -> None:
    """The counts are those of the points that are there, after writes, replacements and deletes, by two at once too."""
    name = new_name()
    index = store.open(name, DIMENSION, COLUMNS)
    random = np.random.default_rng(5)

    def work(first: int) -> None:
        for n in range(first, first + 8):
            chunks = [_chunk(number, np.random.default_rng(n)) for number in random.integers(0, 40, 10).tolist()]
            gone = {id_of(n % 40)} - {one.id for one in chunks}
            index.write(chunks, sorted(gone))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    table = f'headrace."chunks_{name}'
    counted = server.run(f'SELECT term, points FROM {table}_words" WHERE points <> 0 ORDER BY term')
    assert counted == server.run(f'SELECT t, count(*) FROM {table}", unnest(terms) AS t GROUP BY t ORDER BY t')
    kept = server.run(f"SELECT points FROM headrace.indexes WHERE name = '{name}'")
    assert kept == server.run(f'SELECT count(*) FROM {table}"')
    index.drop()


def test_names_of_indexes_and_columns_are_only_names(store: PgvectorStore) -> None:
    """Long ones are told apart, and what looks like SQL is not run."""
    columns = {'it\'s "a"%s; --': Column("str"), "größe" * 20: Column("int")}
    odd = "a" * 200
    first, second = (store.open(odd + end, DIMENSION, columns) for end in "12")
    first.write([point(1, "mill", **dict.fromkeys(columns, "x") | {"größe" * 20: 3})], [])
    where = parse({"and": [{name: "x" if column.type == "str" else 3} for name, column in columns.items()]}, columns)
    assert [one for one, _ in first.search(Query(5, unit(1), where=where)).dense] == [id_of(1)]
    assert list(second.ids()) == []
    first.drop()
    second.drop()


def test_a_long_text_in_a_column_is_compared_whole(store: PgvectorStore) -> None:
    """Though only its first letters are in an index."""
    index = store.open(new_name(), DIMENSION, COLUMNS)
    long = "ü" * 5_000
    index.write([point(1, lang=long), point(2, lang=long + "a"), point(3, lang="ü" * 200)], [])
    for text, name in ((long, 1), (long + "a", 2), ("ü" * 200, 3)):
        found = index.search(Query(5, unit(1), where=parsed({"lang": text}))).dense
        assert [one for one, _ in found] == [id_of(name)]
    others = index.search(Query(5, unit(1), where=parsed({"lang": {"ne": long}}))).dense
    assert {one for one, _ in others} == {id_of(2), id_of(3)}
    index.drop()


@pytest.mark.services
def test_a_server_that_comes_back_is_used_again() -> None:
    """While it is away there is an error without the password; what was written is there afterwards."""
    server = Postgres()
    try:
        server.start()
        index = PgvectorStore(server.url + "?timeout=2s").open("a", DIMENSION, COLUMNS)
        index.write([point(1, "mill")], [])
        server.kill()
        with pytest.raises(StorageError, match="cannot be used") as error:
            index.search(Query(1, unit(1)))
        assert PASSWORD not in str(error.value)
        assert quote(PASSWORD, safe="") not in str(error.value)
        with pytest.raises(StorageError):
            index.write([point(2)], [])
        server.start()
        index.write([point(2)], [])
        assert sorted(index.ids()) == sorted([id_of(1), id_of(2)])
        index.close()
        with pytest.raises(ClosedError):
            index.search(Query(1, unit(1)))
    finally:
        server.close()


def test_a_database_without_the_extension_is_named_with_what_to_do(server: Postgres) -> None:
    """Where the user may not make it."""
    database = server.database()
    server.run("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
        PgvectorStore(f"postgres://poor:poor@127.0.0.1:{server.port}/{database}").open("a", DIMENSION, COLUMNS)


def test_vectors_in_full_precision(server: Postgres) -> None:
    """With type=vector; and one index is not both."""
    name = new_name()
    index = PgvectorStore(server.url + "?type=vector").open(name, DIMENSION, COLUMNS)
    index.write([point(1, vector=unit(1))], [])
    ((_, score),) = index.search(Query(1, unit(2))).dense
    assert score == pytest.approx(float(unit(1) @ unit(2)), abs=1e-6)
    with pytest.raises(ConfigError, match="halfvec"):
        PgvectorStore(server.url).open(name, DIMENSION, COLUMNS)
    index.drop()


@pytest.mark.parametrize(
    "rest", ["host/db?nope=1", "host/a/b", "host/db?ef_search=0", "host/db?type=float", "host:x/db"]
)
def test_a_url_that_cannot_be_right_is_refused(rest: str) -> None:
    """Without saying its password."""
    with pytest.raises(ConfigError) as error:
        PgvectorStore(f"postgres://me:secret@{rest}").open("a", DIMENSION, COLUMNS)
    assert "secret" not in str(error.value)
