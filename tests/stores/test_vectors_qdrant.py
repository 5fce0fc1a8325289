"""Qdrant as a vector index: the contract on qdrant-client's local mode, and a server that is away."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from headrace.document import Column
from headrace.errors import ClosedError, ConfigError, LockedError, StorageError
from headrace.filters import parse
from headrace.stores.vectors.base import Query, VectorStore
from headrace.stores.vectors.marks import checks
from headrace.stores.vectors.qdrant import QdrantStore
from headrace.stores.vectors.qdrant_filter import condition, indexes
from headrace.testing.vector_data import COLUMNS, DIMENSION, id_of, new_name, parsed, point, unit
from headrace.testing.vectors import VectorIndexContract


class TestContract(VectorIndexContract):
    """The contract, in a directory."""

    many = 1_000
    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make(self) -> VectorStore:
        return QdrantStore(f"qdrant://{self.folder}/q")


def test_every_column_has_an_index_of_its_type() -> None:
    """And so have the ends of lists of numbers."""
    kinds = {name: kind.value for name, kind in indexes(COLUMNS).items()}
    assert kinds == {
        "has": "keyword",
        "is.lang": "keyword",
        "is.year": "integer",
        "is.price": "float",
        "is.draft": "bool",
        "is.updated": "integer",
        "is.tags": "keyword",
        "is.scores": "integer",
        "least.scores": "integer",
        "most.scores": "integer",
    }


def test_a_negation_asks_for_a_value() -> None:
    """What is null is neither equal nor another."""
    found = condition(checks(parsed({"not": {"lang": "en"}}), COLUMNS))
    assert found == models.Filter(
        must=[
            models.FieldCondition(key="has", match=models.MatchValue(value="lang")),
            models.Filter(must_not=[models.FieldCondition(key="is.lang", match=models.MatchValue(value="en"))]),
        ]
    )


# Its client leaves the lock's file to the garbage collector when it is refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_directory_is_open_in_one_place(tmp_path: Path) -> None:
    """And an index that is closed answers nothing."""
    index = QdrantStore(f"qdrant://{tmp_path}").open("a", DIMENSION, COLUMNS)
    with pytest.raises(LockedError, match="one process at a time") as error:
        QdrantStore(f"qdrant://{tmp_path}").open("b", DIMENSION, COLUMNS)
    del error
    gc.collect()
    index.close()
    with pytest.raises(ClosedError):
        index.search(Query(1, unit(1)))


def test_a_collection_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """It has other vectors."""
    store = QdrantStore(f"qdrant://{tmp_path}?prefix=")
    held = store.open("ours", DIMENSION, COLUMNS)
    vectors = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
    held._client.call(lambda on: on.create_collection("theirs", vectors_config=vectors))
    with pytest.raises(ConfigError, match="was not made by Headrace"):
        store.open("theirs", DIMENSION, COLUMNS)
    held.close()


class Refusing:
    """A server that answers everything with one status."""

    def __init__(self, status: int) -> None:
        self.asked: list[Any] = []
        refusing = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                refusing.asked.append(self.headers.get("api-key"))
                body = b'{"status": {"error": "no, s3cret"}}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.port = self.server.server_address[1]


@pytest.fixture(params=[503, 403])
def refusing(request: pytest.FixtureRequest) -> Iterator[Refusing]:
    made = Refusing(request.param)
    yield made
    made.server.shutdown()
    made.thread.join(5)
    made.server.server_close()


def test_a_server_that_refuses_is_asked_again_where_that_helps(
    refusing: Refusing, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As often as the URL says; and the key is sent, but never shown."""
    monkeypatch.setenv("KEY", "s3cret")
    store = QdrantStore(f"qdrant://127.0.0.1:{refusing.port}?api_key_env=KEY&retries=2&timeout=5s")
    with pytest.raises(StorageError) as error:
        store.open("a", DIMENSION, COLUMNS)
    tries = {503: 3, 403: 1}[request.node.callspec.params["refusing"]]
    assert refusing.asked == ["s3cret"] * tries
    assert "s3cret" not in str(error.value)


def test_a_server_that_is_away_is_an_error() -> None:
    """Soon."""
    with pytest.raises(StorageError, match="cannot be reached"):
        QdrantStore("qdrant://127.0.0.1:1?retries=1&timeout=1s").open("a", DIMENSION, COLUMNS)


def test_a_key_does_not_leave_the_machine_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the URL says that it may: TLS is on for any other machine."""
    assert QdrantStore("qdrant://s3cret@far.example")._tls
    assert not QdrantStore("qdrant://s3cret@far.example?tls=false")._tls
    assert not QdrantStore("qdrant://s3cret@localhost")._tls
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(ConfigError, match="set ABSENT"):
        QdrantStore("qdrant://far.example?api_key_env=ABSENT")


def test_columns_of_any_name_are_filtered_by(tmp_path: Path) -> None:
    """A dot in one is not a path."""
    columns = {"größe": Column("str"), "a.b": Column("str")}
    index = QdrantStore(f"qdrant://{tmp_path}").open(new_name(), DIMENSION, columns)
    index.write([point(1, **{"größe": "x", "a.b": "y"}), point(2)], [])
    for name, value in (("größe", "x"), ("a.b", "y")):
        where = parse({name: value}, columns)
        assert [one for one, _ in index.search(Query(5, unit(1), where=where)).dense] == [id_of(1)]
    index.drop()
