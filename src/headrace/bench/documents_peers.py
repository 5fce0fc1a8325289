"""The peers of the `documents` benchmark: each replays the beginning of the history in a process of its own.

They may live in another environment: HEADRACE_PEERS_PYTHON names its interpreter, or several, separated by colons. A
peer's share is of all chunks of all revisions, first ones counted, since it is not told which those are; ours over the
same revisions stands beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import headrace
from headrace.bench.embed import has, interpreters
from headrace.bench.harness import BenchError, Report, say

# The package that must be there, and the module that replays.
PEERS = {
    "langchain": ("langchain_text_splitters", "langchain_documents"),
    "llamaindex": ("llama_index.core", "llamaindex_documents"),
    "cocoindex": ("cocoindex", "cocoindex_documents"),
}
NO_PEER = "not installed; install it, or name an interpreter that has it with HEADRACE_PEERS_PYTHON"
TIMEOUT = 600.0


def add(report: Report, path: Path, revisions: int, ours: Mapping[int, float]) -> None:
    """Each peer that is there over the first revisions, and our shares over the same.

    Args:
        ours: By tokens of a chunk, the share of all characters that was not embedded.
    """
    for size, share in ours.items():
        metric = f"first {revisions:,} revisions: not embedded, of all"
        report.add(f"headrace, {size} tokens", metric, "% of characters", [100 * share])
    for peer, (package, module) in PEERS.items():
        python = next((each for each in interpreters() if has(each, package)), None)
        if python is None:
            report.left_out[peer] = NO_PEER
            continue
        say(f"{peer}: {revisions:,} revisions")
        try:
            add_one(report, peer, revisions, replayed(python, module, path, revisions))
        except BenchError as error:
            report.left_out[peer] = str(error)


def add_one(report: Report, peer: str, revisions: int, found: Mapping[str, Any]) -> None:
    what = f"first {revisions:,} revisions"
    share = 1 - found["embedded_characters"] / max(found["total_characters"], 1)
    report.add(peer, f"{what}: not embedded, of all", "% of characters", [100 * share])
    report.add(peer, f"{what}: chunks embedded", "chunks", [found["chunks_embedded"]])
    report.add(peer, f"{what}: replayed", "revisions/s", [revisions / max(found["seconds"], 1e-9)])
    report.add(peer, f"{what}: stale chunks at the end", "chunks", [found["stale"]])
    report.add(peer, f"{what}: missing chunks at the end", "chunks", [found["missing"]])


def replayed(python: str, module: str, path: Path, revisions: int) -> dict[str, Any]:
    """What a peer says of its replay.

    Raises:
        BenchError: It failed, or took too long.
    """
    command = [python, "-m", f"headrace.bench.peers.{module}", str(path), str(revisions)]
    source = str(Path(headrace.__file__).parent.parent)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "PYTHONPATH": source},
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"took more than {TIMEOUT:g} s for {revisions:,} revisions and was stopped") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        tail = " / ".join(done.stderr.strip().splitlines()[-2:])
        raise BenchError(f"ended with status {done.returncode}: {tail}")
    found = json.loads(lines[-1])
    if not isinstance(found, dict):
        raise BenchError(f"expected a JSON object on the last line, found {lines[-1][:80]!r}")
    return found
