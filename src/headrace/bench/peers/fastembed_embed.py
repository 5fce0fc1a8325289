"""FastEmbed: a model from a folder, as a custom model, which is how its documentation brings one of one's own.

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
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "headrace/all-MiniLM-L6-v2"
    TextEmbedding.add_custom_model(name, PoolingType.MEAN, True, ModelSource(hf=name), 384, model_file="model.onnx")
    model: Any = TextEmbedding(name, specific_model_path=folder, threads=int(threads))
    list(model.embed(["The first run of anything is slow."] * 8))
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begin = time.perf_counter()
        # Its default of 256 texts a batch is slower here than 32, so it gets 32.
        found = np.stack(list(model.embed(asked["texts"], batch_size=32)))
        seconds = time.perf_counter() - begin
        answer = {"seconds": seconds, "vectors": found.tolist() if asked.get("vectors") else []}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
