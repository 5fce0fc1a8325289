"""Headrace's embedders in a process of their own: `python -m headrace.bench.embed_live minilm 2`."""

from __future__ import annotations

import sys
import time
from typing import Any

from headrace.bench.child import serve
from headrace.runners.embedding.load import embedder


def main(spec: str, threads: str) -> None:
    model = embedder(spec, threads=int(threads)) if spec == "minilm" else embedder(spec)

    def handle(texts: list[str], vectors: bool = False) -> dict[str, Any]:
        begin = time.perf_counter()
        found = model.embed(texts)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "vectors": found.tolist() if vectors else []}

    model.embed(["The first run of anything is slow."] * 8)
    serve(handle)


if __name__ == "__main__":
    main(*sys.argv[1:])
