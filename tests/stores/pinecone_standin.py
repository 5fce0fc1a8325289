"""A stand-in for Pinecone's data plane, in this process: it stores, filters and scores, by the documented API.

It is that of 2026-07. One dense index with the metric dotproduct. Writes go to a log; readers see them once the log has
been applied, which takes as many readings as `lag` says: so eventual consistency happens, and takes no time. It keeps
to the documented limits, and refuses what Pinecone refuses: zero vectors, nulls and nested values in metadata, too much
of anything.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "pc-secret-key"
Metadata = Mapping[str, Any]


class RefusalError(Exception):
    """An answer that says no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Pinecone:
    """An index.

    Attributes:
        lag: After how many readings a write is seen.
        headers: Whether positions are told.
        failing: A status that is answered instead, so often.
        asked: How often each path was asked for.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.lag = 1
        self.headers = True
        self.failing: list[int] = []
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._spaces: dict[str, dict[str, dict[str, Any]]] = {}
        # What was written and is not seen yet: the readings that it still takes, its position, and what to do.
        self._log: list[list[Any]] = []
        self._written = self._seen = 0

    # -- writing ---------------------------------------------------------------------------------------------------

    def upsert(self, asked: Any) -> Any:
        vectors = asked["vectors"]
        _must(0 < len(vectors) <= 1_000, "1 to 1000 vectors")
        for vector in vectors:
            self._check(vector)
        self._write(asked.get("namespace", ""), vectors, [])
        return {"upsertedCount": len(vectors)}

    def _check(self, vector: Any) -> None:
        _must(len(vector["values"]) == self.dimension, f"dimension {self.dimension}")
        _must(any(vector["values"]), "dense vectors contain a value that is not 0")
        _must(len(json.dumps(vector.get("metadata", {}), ensure_ascii=False).encode()) <= 40_960, "40 KB of metadata")
        for value in vector.get("metadata", {}).values():
            listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
            _must(listed or isinstance(value, str | int | float | bool), "texts, numbers, booleans, lists of texts")
        sparse = vector.get("sparseValues")
        if sparse is not None:
            _must(0 < len(sparse["indices"]) == len(sparse["values"]) <= 1_000, "1 to 1000 sparse values")
            _must(
                all(sparse["values"]) and len(set(sparse["indices"])) == len(sparse["indices"]), "values that are not 0"
            )

    def delete(self, asked: Any) -> Any:
        name, ids = asked.get("namespace", ""), asked["ids"]
        _must(0 < len(ids) <= 1_000, "1 to 1000 ids")
        self._exists(name)
        self._write(name, [], ids)
        return {}

    def _exists(self, name: str) -> None:
        if name not in self._spaces and not any(name == entry[2] for entry in self._log):
            raise RefusalError(404, f"Namespace not found: {name}")

    def _write(self, name: str, vectors: list[Any], ids: list[str]) -> None:
        self._written += 1
        self._log.append([self.lag, self._written, name, vectors, ids])
        self._apply(0)

    def _apply(self, readings: int) -> None:
        """One reading more: the oldest writes are applied when their time has come."""
        for entry in self._log:
            entry[0] -= readings
        while self._log and self._log[0][0] <= 0:
            _, self._seen, name, vectors, ids = self._log.pop(0)
            space = self._spaces.setdefault(name, {})
            space.update((vector["id"], vector) for vector in vectors)
            for each in ids:
                space.pop(each, None)

    def delete_namespace(self, name: str) -> Any:
        self._exists(name)
        self._spaces.pop(name, None)
        self._log = [entry for entry in self._log if entry[2] != name]
        return {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def query(self, asked: Any) -> Any:
        _must(1 <= asked["topK"] <= 10_000, "topK from 1 to 10000")
        _must(len(asked["vector"]) == self.dimension, f"dimension {self.dimension}")
        dense = np.array(asked["vector"])
        sparse = asked.get("sparseVector") or {"indices": [], "values": []}
        words = dict(zip(sparse["indices"], sparse["values"], strict=True))
        found = []
        for key, vector in self._spaces.get(asked.get("namespace", ""), {}).items():
            if holds(asked.get("filter") or {}, vector.get("metadata", {})):
                own = vector.get("sparseValues") or {"indices": [], "values": []}
                score = float(dense @ np.array(vector["values"]))
                score += sum(words.get(i, 0.0) * v for i, v in zip(own["indices"], own["values"], strict=True))
                found.append({"id": key, "score": score})
        found.sort(key=lambda match: -match["score"])
        return {"matches": found[: asked["topK"]], "namespace": asked.get("namespace", ""), "usage": {"readUnits": 1}}

    def fetch(self, name: str, ids: list[str]) -> Any:
        space = self._spaces.get(name, {})
        return {"vectors": {each: space[each] for each in ids if each in space}, "namespace": name}

    def list(self, name: str, limit: int, token: str | None) -> Any:
        _must(1 <= limit <= 100, "a limit from 1 to 100")
        ids = sorted(key for key in self._spaces.get(name, {}) if token is None or key > token)
        page: dict[str, Any] = {"vectors": [{"id": key} for key in ids[:limit]], "namespace": name}
        return page | ({"pagination": {"next": ids[limit - 1]}} if len(ids) > limit else {})

    def stats(self) -> Any:
        counts = {name: {"vectorCount": len(space)} for name, space in self._spaces.items()}
        return {
            "namespaces": counts,
            "dimension": self.dimension,
            "totalVectorCount": sum(len(space) for space in self._spaces.values()),
            "indexFullness": 0,
            "metric": "dotproduct",
            "vectorType": "dense",
        }

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        body = await request.body()
        with self._lock:
            self.asked[path] += 1
            try:
                if self.failing:
                    raise RefusalError(self.failing.pop(), "try again")
                if request.headers.get("api-key") != KEY:
                    raise RefusalError(401, "Invalid API key")
                if len(body) > 2 << 20:
                    raise RefusalError(413, "the request is larger than 2 MB")
                asked = json.loads(body or b"{}")
                return self._said(path, asked, request)
            except RefusalError as error:
                said = {"code": 3, "message": str(error), "details": []}
                return JSONResponse(said, status_code=error.status)

    def _said(self, path: str, asked: Any, request: Request) -> Response:
        query = request.query_params
        name = query.get("namespace", "")
        written = None
        if path in ("/vectors/upsert", "/vectors/delete"):
            said = self.upsert(asked) if path.endswith("upsert") else self.delete(asked)
            written = str(self._written)
        elif path.startswith("/namespaces/"):
            said = self.delete_namespace(request.path_params["name"])
        else:
            self._apply(1)
            if path == "/query":
                said = self.query(asked)
            elif path == "/vectors/fetch":
                said = self.fetch(name, query.getlist("ids"))
            elif path == "/vectors/list":
                said = self.list(name, int(query.get("limit", "100")), query.get("paginationToken"))
            else:
                said = self.stats()
        response = JSONResponse(said)
        if self.headers and written:
            response.headers["x-pinecone-request-lsn"] = written
        if self.headers and path == "/query":
            response.headers["x-pinecone-max-indexed-lsn"] = str(self._seen)
        return response


def holds(where: Mapping[str, Any], metadata: Metadata) -> bool:
    """Whether metadata pass a filter, as the documentation has it."""
    return all(
        all(holds(part, metadata) for part in asked)
        if name == "$and"
        else any(holds(part, metadata) for part in asked)
        if name == "$or"
        else all(_compared(metadata.get(name), op, value) for op, value in asked.items())
        for name, asked in where.items()
    )


def _compared(held: Any, op: str, value: Any) -> bool:
    if op == "$exists":
        return (held is not None) is value
    if held is None:
        # The documentation does not say what "not in" means here, so it must not matter: it fails.
        return False
    items = held if isinstance(held, list) else [held]
    if op in ("$in", "$nin"):
        return any(item in value for item in items) is (op == "$in")
    assert isinstance(value, int | float), f"{op} compares numbers"
    order = {"$lt": held < value, "$lte": held <= value, "$gt": held > value, "$gte": held >= value}
    return order[op]


def _must(so: bool, expected: str) -> None:
    if not so:
        raise RefusalError(400, f"expected {expected}")


@contextmanager
def serving(standin: Pinecone) -> Iterator[str]:
    """Serves it on a free port of 127.0.0.1; gives its address."""
    paths = ("/vectors/upsert", "/vectors/delete", "/query", "/describe_index_stats", "/vectors/fetch", "/vectors/list")
    routes = [Route(path, standin.answer, methods=["GET", "POST"]) for path in paths]
    routes.append(Route("/namespaces/{name}", standin.answer, methods=["DELETE"]))
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()
