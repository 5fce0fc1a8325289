"""`openai:NAME`: any server that answers `POST /v1/embeddings` as OpenAI documents it.

Built on httpx, which is installed anyway; the `openai` package would be a second way to do the retries that have to be
ours: a text that the server refuses must be told from a server that refuses everything (a wrong key, a wrong model),
because the first is the text's fault and becomes a dead letter, and the second is nobody's text's fault and is waited
for. So when a request is refused, a harmless text is tried: if that is refused too, it is the server.

- Texts go in batches under the documented limits (2,048 inputs, 300,000 tokens), several requests in flight.
- 408, 409, 425, 429, 5xx and broken connections are tried again, with exponential backoff, full jitter, and the
  server's own Retry-After; after a few attempts it is a StorageError, and who calls tries later.
- Every answer is checked: as many vectors as texts, each of the dimension that the first one had, finite, not zero.

How many tokens a text has only the server knows; here four characters of a word count as one.

Source: OpenAI's API reference, "Embeddings"; Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import msgspec
import numpy as np

from headrace.documents.embed.base import Offsets, Vectors
from headrace.errors import ClosedError, ConfigError, InputError, StorageError

BASE_URL = "https://api.openai.com/v1"
_INPUTS = 256  # texts a request
_TOKENS = 100_000  # tokens a request, as they are counted here
_PROBE = "water"
_AGAIN = {408, 409, 425, 429}
_REFUSED = {400, 413, 422}
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_LARGEST_ANSWER = 256 << 20
_TOKEN = re.compile(r"\w{1,4}|[^\w\s]")


class _Vector(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Vector]


class OpenAIEmbedder:
    """A model behind an OpenAI-compatible API; `close()` gives its connections back.

    Args:
        spec: "openai:text-embedding-3-small", say.
        base_url: Up to and with /v1; OPENAI_BASE_URL, or OpenAI's own.
        api_key: OPENAI_API_KEY if it is not said; none is sent if there is none.
        dimensions: Asks for shorter vectors, where the model has them.
        limit: The most tokens of a text that count.
        query: What stands before a query, as some models were trained with; and so for a document.
        in_flight: Requests at a time.
        timeout: Seconds for one request.
        attempts: How often a request is sent before it counts as failed.

    Raises:
        ConfigError: An option cannot be.
    """

    def __init__(
        self,
        spec: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        limit: int = 8_000,
        query: str = "",
        document: str = "",
        in_flight: int = 4,
        timeout: float = 60.0,
        attempts: int = 4,
    ) -> None:
        self._model = spec.partition(":")[2]
        if not self._model:
            raise ConfigError(f"expected a model's name as in 'openai:text-embedding-3-small', found {spec!r}")
        if min(in_flight, attempts, limit) < 1 or timeout <= 0:
            raise ConfigError("expected in_flight, attempts and limit of at least 1 and a timeout above 0")
        url = httpx.URL(base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"expected a base URL such as {BASE_URL}, found one without http(s) or a host")
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
        self.limit = limit
        self.in_flight = in_flight
        self._dimensions, self._attempts = dimensions, attempts
        self._prefix = {"query": query, "document": document}
        # Whoever serves it: the same name may be another model elsewhere. A password in the URL is no part of it.
        self._where = f"{url.host}{f':{url.port}' if url.port else ''}"
        self._url = url.copy_with(path=url.path.rstrip("/") + "/embeddings")
        shape = f"/{dimensions}" if dimensions else ""
        prefix = f"/{document!r}" if document else ""
        self.name = f"openai:{self._model}@{self._where}{shape}/{limit}{prefix}"
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=2 * in_flight, max_keepalive_connections=in_flight),
        )
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="headrace-openai")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._known: int | None = None

    @property
    def dimension(self) -> int:
        """Numbers a vector; asked of the server once.

        Raises:
            StorageError: The server does not answer, or refuses.
        """
        with self._lock:
            if self._known is None:
                self._known = len(self._request([_PROBE])[0])
            return self._known

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): about where tokens begin and end, as only the server's tokenizer knows it."""
        return np.array([token.span() for token in _TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2)

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:
        """Shape (n, dimension), float32, rows of length 1.

        Raises:
            InputError: The server refuses one of these texts, and takes others.
            StorageError: It does not answer, refuses everything, or answers what is no embedding of these texts.
            ClosedError: `close` was called.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        prepared = [self._prepared(text, kind) for text in texts]
        batches = list(_batches(prepared))
        if len(batches) == 1:
            return self._embed(batches[0])
        try:
            running = [self._pool.submit(self._embed, batch) for batch in batches]
        except RuntimeError:
            raise self._is_closed() from None
        try:
            return np.concatenate([each.result() for each in running])
        finally:
            for each in running:
                each.cancel()

    def close(self) -> None:
        """Ends what waits, and gives the connections back; again does nothing."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _prepared(self, text: str, kind: Literal["document", "query"]) -> str:
        """As it is sent: with its prefix, not longer than the limit, and never empty, which the API refuses."""
        whole = self._prefix[kind] + text
        if len(whole) > self.limit:  # no token is shorter than a character
            places = [found.end() for _, found in zip(range(self.limit), _TOKEN.finditer(whole), strict=False)]
            whole = whole[: places[-1] if places else 1]
        return whole if whole.strip() else "."

    def _embed(self, texts: list[str]) -> Vectors:
        vectors = self._request(texts)
        with self._lock:
            self._known = self._known or vectors.shape[1]
            expected = self._known
        if vectors.shape[1] != expected:
            raise StorageError(
                f"expected vectors of {expected} numbers from {self._shown}, found {vectors.shape[1]}: its model has "
                "changed; declare the collection with another model name, or restart to index it anew"
            )
        return vectors

    def _request(self, texts: list[str]) -> Vectors:
        """One request, tried several times."""
        body: dict[str, Any] = {"model": self._model, "input": texts, "encoding_format": "float"}
        if self._dimensions:
            body["dimensions"] = self._dimensions
        try:
            content = msgspec.json.encode(body)
        except UnicodeEncodeError:
            raise InputError(
                "expected texts in Unicode, found a lone surrogate in one; decode it with errors='replace'"
            ) from None
        problem, status = "", 0
        for attempt in range(self._attempts):
            if self._closed.is_set():
                raise self._is_closed()
            wait = random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt))
            try:
                status, headers, answer = self._post(content)
            except httpx.HTTPError as error:
                problem, status = f"{type(error).__name__}: {error}", 0
            except RuntimeError:
                raise self._is_closed() from None
            else:
                if status == 200:
                    return self._vectors(answer, len(texts))
                problem = f"HTTP {status}: {_said(answer)}"
                if status not in _AGAIN and status < 500:
                    raise self._refusal(status, problem, texts)
                wait = max(wait, _retry_after(headers))
            # Who asks for more patience than we have gets it from the caller, who tries later.
            if attempt + 1 == self._attempts or wait > _LONGEST_DELAY:
                break
            self._closed.wait(wait)
        if status == 500:
            # Some servers answer so to a text that is too long for them, each time.
            raise self._refusal(status, problem, texts)
        raise StorageError(f"{self._shown} could not be asked ({problem}), {attempt + 1} times; a later try may help")

    def _post(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Content-Type": "application/json"}
        with self._client.stream("POST", self._url, content=content, headers=headers) as answer:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > _LARGEST_ANSWER:
                    raise StorageError(
                        f"{self._shown} answered more than {_LARGEST_ANSWER >> 20} MiB; nothing was used"
                    )
            return answer.status_code, answer.headers, bytes(body)

    def _refusal(self, status: int, problem: str, texts: list[str]) -> InputError | StorageError:
        """Whose fault it is: a harmless text is tried."""
        if status in _REFUSED | {500} and texts != [_PROBE]:
            self._request([_PROBE])
            which = "this text" if len(texts) == 1 else f"one of these {len(texts)} texts"
            return InputError(f"{self._shown} refuses {which}: {problem}")
        advice = "check OPENAI_API_KEY" if status in (401, 403) else "check the model's name and OPENAI_BASE_URL"
        if status == 500:
            advice = "a later try may help"
        return StorageError(f"{self._shown} refuses every text ({problem}); {advice}")

    def _vectors(self, answer: bytes, count: int) -> Vectors:
        try:
            data = msgspec.json.decode(answer, type=_Answer).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(
                f"expected a list of embeddings from {self._shown}, found something else: {error}"
            ) from None
        data.sort(key=lambda each: each.index)
        if [each.index for each in data] != list(range(count)):
            raise StorageError(f"expected {count} vectors from {self._shown}, found {len(data)}, or none for some text")
        lengths = {len(each.embedding) for each in data}
        if len(lengths) > 1 or 0 in lengths or (self._dimensions and lengths != {self._dimensions}):
            wanted = self._dimensions or "one and the same number of"
            raise StorageError(f"expected {wanted} numbers a vector from {self._shown}, found {sorted(lengths)}")
        vectors: Vectors = np.array([each.embedding for each in data], dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise StorageError(
                f"expected finite vectors from {self._shown}, found one that is zero, infinite or no number"
            )
        vectors /= norms
        return vectors

    @property
    def _shown(self) -> str:
        return f"the embedding model {self._model!r} at {self._where}"

    def _is_closed(self) -> ClosedError:
        return ClosedError(f"{self._shown} is closed: open the app again")


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in order, in batches under both limits, of at least one."""
    batch: list[str] = []
    tokens = 0
    for text in texts:
        size = len(text) // 3 + 1
        if batch and (len(batch) == _INPUTS or tokens + size > _TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
    yield batch


def _said(answer: bytes) -> str:
    """What a server says was wrong: a little of it, on one line."""
    try:
        error = msgspec.json.decode(answer)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError):
        text = answer[:200].decode(errors="replace")
    return " ".join(str(text).split())[:200]


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds that the server asks for; a date is left to our own backoff."""
    try:
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
