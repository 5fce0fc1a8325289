"""An open desk with a payment and a note, and the gate that its searches wait for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mcp_desk import Gate, desk, paid

import headrace as hr


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def live(gate: Gate) -> Iterator[hr.Live]:
    with desk(gate).open() as opened:
        paid(opened, 5.0)
        opened.push("note", {"id": "large", "body": "A payment of more than 1000 is looked at by two people."})
        opened.drain()
        yield opened
        gate.open.set()
