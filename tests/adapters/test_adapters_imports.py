"""What an import of the adapters does: nothing without a network, and words where a package is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

GUARD = """
import socket, sys
def refuse(*args, **options):
    raise AssertionError(f"the network was asked for: {args}")
real = socket.socket.connect
def connect(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
        refuse(address)
    return real(self, address)
socket.socket.connect = connect
socket.getaddrinfo = socket.create_connection = refuse
"""
USE = """
import tempfile
from pathlib import Path
from adapters_desk import NOTES, Gate, desk
from headrace.adapters import {name}
with desk(Gate(), Path(tempfile.mkdtemp()) / "pages").open() as live:
    live.push("note", NOTES)
    live.drain(30)
    made = {name}.tools(live)
    retriever = {name}.HeadraceRetriever(client=live, collection="library")
    found = retriever.{ask}("who looks at a payment?")
    print(len(made), len(found))
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "ask"), [("langchain", "invoke"), ("llamaindex", "retrieve")])
def test_nothing_is_fetched(name: str, ask: str) -> None:
    assert run(GUARD + USE.format(name=name, ask=ask)).split() == ["6", "4"]


@pytest.mark.parametrize(("name", "package"), [("langchain", "langchain_core"), ("llamaindex", "llama_index")])
def test_a_missing_package_is_answered_with_the_line_that_installs_it(name: str, package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
import headrace, headrace.adapters
try:
    import headrace.adapters.{name}
except headrace.MissingDependencyError as error:
    print(error)
"""
    assert f'pip install "headrace[{name}]"' in run(code)


def test_neither_is_loaded_by_the_rest() -> None:
    code = "import sys, headrace, headrace.adapters, headrace.adapters.common, headrace.serving.server\n"
    code += "print([name for name in ('langchain_core', 'llama_index') if name in sys.modules])"
    assert run(code).strip() == "[]"
