"""Milvus as a vector index: the contract on Milvus Lite, and a server that is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, StorageError
from headrace.filters import Compare
from headrace.stores.vectors.base import Query, VectorStore
from headrace.stores.vectors.marks import checks
from headrace.stores.vectors.milvus import MilvusStore
from headrace.stores.vectors.milvus_filter import condition, literal
from headrace.testing.vector_data import COLUMNS, DIMENSION, id_of, point, unit, words
from headrace.testing.vectors import VectorIndexContract


class TestContract(VectorIndexContract):
    """The contract, in a file."""

    many = 600
    rounds = 5
    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> VectorStore:
        return MilvusStore(f"milvus:{self.folder}/m.db")


def _read(quoted: str) -> tuple[str, str]:
    """A literal as Milvus reads it: its text, and what is left behind it."""
    assert quoted[0] == '"'
    text, at = "", 1
    while quoted[at] != '"':
        if quoted[at] == "\\":
            at += 1
            text += {"n": "\n", "r": "\r", "t": "\t"}.get(quoted[at], quoted[at])
        else:
            assert quoted[at] not in "\r\n"
            text += quoted[at]
        at += 1
    return text, quoted[at + 1 :]


@given(text=st.text(st.sampled_from("\"\\'\n\r\tab] ),;") | st.characters(codec="utf-8")))
def test_a_literal_ends_where_its_text_does(text: str) -> None:
    """Whatever the text is."""
    assert _read(literal(text)) == (text, "")


def test_what_looks_like_a_condition_is_a_text(tmp_path: Path) -> None:
    """In values and in names of columns: none of it is run."""
    name = 'a"] == "x" or marks["is"]["a'
    columns = {"lang": Column("str"), name: Column("str")}
    evil = ('" or true or "', '"]) or json_contains_any(marks["has"], ["lang"', "\\", '\\"', "' or 1 == 1 --", "{x}")
    index = MilvusStore(f"milvus:{tmp_path}/m.db").open("a", DIMENSION, columns)
    index.write([point(text, **{"lang": text, name: text}) for text in evil] + [point("good", lang="en")], [])
    for text in evil:
        for column in columns:
            found = index.search(Query(20, unit(1), where=Compare(column, "eq", text))).dense
            assert [one for one, _ in found] == [id_of(text)]
    assert list(index.search(Query(20, unit(1), where=Compare("lang", "eq", "nobody"))).dense) == []
    index.drop()


def test_names_with_a_hyphen_are_not_those_with_an_underscore(tmp_path: Path) -> None:
    """Though Milvus knows underscores only."""
    store = MilvusStore(f"milvus:{tmp_path}/m.db")
    first, second = store.open("a-b", DIMENSION, COLUMNS), store.open("a_b", DIMENSION, COLUMNS)
    first.write([point(1)], [])
    assert (list(first.ids()), list(second.ids())) == ([id_of(1)], [])
    first.drop()
    second.drop()
    with pytest.raises(ClosedError):
        second.search(Query(1, unit(1)))


def test_a_long_text_is_cut_to_what_milvus_takes(tmp_path: Path) -> None:
    """And is found by all of its words."""
    index = MilvusStore(f"milvus:{tmp_path}/m.db").open("a", DIMENSION, COLUMNS)
    text = "ü" * 40_000 + " mill"
    index.write([point(1, text)], [])
    assert [one for one, _ in index.search(Query(1, terms=words("mill"))).sparse] == [id_of(1)]
    index.drop()


def test_counts_are_kept_while_little_changes(tmp_path: Path) -> None:
    """Until a hundredth of the points has been written."""
    index = MilvusStore(f"milvus:{tmp_path}/m.db").open("a", DIMENSION, COLUMNS)
    index.write([point(n, "mill") for n in range(200)], [])
    asked: list[int] = []
    count = index._frequencies._ask_count
    index._frequencies._ask_count = lambda term: asked.append(term) or count(term)  # type: ignore[func-returns-value]
    for written, expected in ((0, 1), (1, 1), (1, 1), (1, 2)):
        index.write([point("new", "mill")] * written, [])
        index.search(Query(1, terms=words("mill")))
        assert len(asked) == expected
    index.drop()


def test_what_is_missing_does_not_matter_to_a_condition() -> None:
    """A list that is not there passes as an empty one."""
    found = condition(checks(Compare("tags", "ne", "a", many=True), COLUMNS))
    assert found == (
        '((not json_contains_any(marks["has"], ["tags"])) or (not json_contains_any(marks["is"]["tags"], ["a"])))'
    )


def test_a_server_that_is_away_is_an_error() -> None:
    """In time, and without the token."""
    began = time.monotonic()
    with pytest.raises(StorageError) as error:
        MilvusStore("milvus://me:s3cret@127.0.0.1:1?timeout=1s").open("a", DIMENSION, COLUMNS)
    assert "s3cret" not in str(error.value)
    assert time.monotonic() - began < 10


def test_lite_ends_with_its_last_index(tmp_path: Path) -> None:
    """No thread of it serves on."""
    store = MilvusStore(f"milvus:{tmp_path}/m.db")
    index = store.open("a", DIMENSION, COLUMNS)
    serving = [thread for thread in threading.enumerate() if "_serve" in thread.name]
    assert serving
    index.close()
    for thread in serving:
        # gRPC's thread ends by itself, soon after the server was told to stop.
        thread.join(30)
    assert not any(thread.is_alive() for thread in serving)


@pytest.mark.parametrize("url", ["milvus:./chunks", "milvus://h:x", "milvus://h?nope=1", "milvus:"])
def test_a_url_that_cannot_be_right_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        MilvusStore(url)
