"""sentence-transformers: the model as its documentation loads and runs it, on the CPU.

Needs no Headrace beside it: it may run in another environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main(folder: str, threads: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(int(threads))
    model: Any = SentenceTransformer(folder, device="cpu")
    model.encode(["The first run of anything is slow."] * 8)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begin = time.perf_counter()
        found = model.encode(asked["texts"], normalize_embeddings=True, show_progress_bar=False)
        seconds = time.perf_counter() - begin
        answer = {"seconds": seconds, "vectors": found.tolist() if asked.get("vectors") else []}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
