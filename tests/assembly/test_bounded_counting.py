"""What is asked of texts and tokenizers in the middle of a request is bounded: no long look back, and no fetching."""

from __future__ import annotations

import base64
import hashlib
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.assembly.sentences import FARTHEST, last_end
from headrace.serving.token_counts import counter


def work(text: str, most: int) -> tuple[int, int]:
    """Where the last sentence ends, and how many calls it took to know."""
    calls = 0

    def count(_frame: Any, event: str, _what: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        found = last_end(text, most)
    finally:
        sys.setprofile(before)
    return found, calls


@pytest.mark.parametrize("piece", ["word ", "a. ", "\n1. ", "abc. def ", "."])
def test_the_look_for_an_end_costs_no_more_in_a_long_text(piece: str) -> None:
    short = piece * (2 * FARTHEST // len(piece))
    long = piece * (1_200_000 // len(piece))
    cut = len(short) // len(piece) * len(piece)
    found, few = work(short, cut)
    _, many = work(long, cut)
    assert many <= few + 100
    _, most = work(long, len(long))
    assert most <= few + 100
    assert found in (0, cut)


def test_an_end_is_found_as_far_back_as_is_said() -> None:
    end = "It ended here."
    assert last_end(end + " " + "Word " * 1_000, 5_000) == len(end)
    far = " Word" * (FARTHEST // 5)
    assert last_end(end + far, len(end) + FARTHEST - 1) == len(end)
    assert last_end(end + far + far, len(end) + 2 * len(far)) == 0


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ranks())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}", asked
        found.shutdown()
        thread.join()


def ranks() -> bytes:
    return b"\n".join(base64.b64encode(bytes([one])) + b" %d" % one for one in range(256))


def test_an_encoding_is_taken_from_the_cache_and_never_fetched(
    server: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken import registry
    from tiktoken.load import load_tiktoken_bpe

    url, asked = server
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tiktoken.list_encoding_names()
    for name in ("headrace_there", "headrace_absent"):

        def made(name: str = name) -> dict[str, Any]:
            found = load_tiktoken_bpe(f"{url}/{name}")
            return {"name": name, "pat_str": r"\S+|\s+", "mergeable_ranks": found, "special_tokens": {}}

        assert registry.ENCODING_CONSTRUCTORS is not None
        monkeypatch.setitem(registry.ENCODING_CONSTRUCTORS, name, made)
    (tmp_path / hashlib.sha1(f"{url}/headrace_there".encode()).hexdigest()).write_bytes(ranks())

    assert (counter("tiktoken:headrace_there").name, counter("tiktoken:headrace_there").count("gate")) == (
        "tiktoken:headrace_there",
        4,
    )
    with caplog.at_level(logging.WARNING, "headrace"):
        assert counter("tiktoken:headrace_absent").name == "estimate (for tiktoken:headrace_absent)"
    assert "not fetched" in caplog.text
    assert asked == []
    # Whoever asks tiktoken themselves gets what they ask for.
    assert tiktoken.get_encoding("headrace_absent").name == "headrace_absent"
    assert asked == ["/headrace_absent"]
