"""Server-sent events out of bytes, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.serving import client_events
from headrace.serving.client_events import EventReader, SentEvent

STREAM = (
    ': a sign of life\n\nevent: row\nid: h-1\ndata: {"a": "ü\u2028\x85"}\n\n'
    "data:first\r\ndata: second\r\n\r\nevent: nothing\n\nretry: 5\nid\ndata\n\n"
).encode()
EVENTS = [
    SentEvent("row", "h-1", '{"a": "ü\u2028\x85"}'.encode()),
    SentEvent("message", "", b"first\nsecond"),
    SentEvent("message", "", b""),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    reader = EventReader()
    pieces = [STREAM[start:end] for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True)]
    assert [event for piece in pieces for event in reader.feed(piece)] == EVENTS


def test_byte_by_byte() -> None:
    reader = EventReader()
    assert [event for at in range(len(STREAM)) for event in reader.feed(STREAM[at : at + 1])] == EVENTS


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_events, "MOST_BYTES", 1_000)
    reader = EventReader()
    assert list(reader.feed(b"data: " + b"x" * 900 + b"\n")) == []
    with pytest.raises(hr.RemoteError, match="found a larger one"):
        list(reader.feed(b"data: " + b"x" * 900 + b"\n"))
