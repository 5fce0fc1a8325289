"""What commands log."""

from __future__ import annotations

import logging

import pytest

from headrace.cli.apps import log_to_stderr


def test_the_ids_of_mcp_sessions_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, sdk = logging.getLogger(), logging.getLogger("mcp")
    monkeypatch.setattr(root, "handlers", [])  # pytest's own, beside which basicConfig does nothing
    levels = root.level, sdk.level
    try:
        log_to_stderr(logging.INFO)
        logging.getLogger("headrace.http").info("desk listens")
        logging.getLogger("mcp.server.streamable_http").info("Created new transport with session ID: 1ffee95c")
        logging.getLogger("mcp.server.streamable_http").warning("that went wrong")
    finally:
        root.setLevel(levels[0])
        sdk.setLevel(levels[1])
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ", 1)[1] for line in err.splitlines()] == ["desk listens", "that went wrong"]
