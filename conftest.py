"""Runs the examples of README.md and docs/*.md: what is shown is what happens.

In one page, from top to bottom and in one folder of its own:

- a `python` block is run; one that begins with `>>>` is a session whose results are compared;
- a `python` block that begins with a comment `# name.py` is also written to that file, as a reader would (and
  `# conftest.py` is only written: it is meant for a pytest of its own);
- of a `console` block each `$ ` line (and what is indented below it) is run by the shell. It must end with status 0,
  and print what is shown, where `...` stands for anything;
- `headrace run` in a `console` block starts a server on a free port; the port 8900 in what follows then means that one.
  At the page's end it is stopped by SIGTERM and must end with status 0.

Blocks in other languages (`sh`, `text`, `json`) are not run.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sybil import Example, Region, Sybil
from sybil.document import Document
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.myst import CodeBlockParser
from sybil.region import Lexeme

ROOT = Path(__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PORT = "8900"
PATIENCE = 60.0
_FILE = re.compile(r"# (\w+\.py)\n")
_SERVING = re.compile(r"http://[^\s:/]+:(\d+)")


class Server:
    """`headrace run`, started by an example."""

    def __init__(self, command: str, folder: Path) -> None:
        # A free port: whoever runs the tests may have a server of their own on 8900.
        self._command = re.sub(rf" --port {PORT}\b", "", command).replace(
            "headrace run", "exec headrace run --port 0", 1
        )
        self._said: list[str] = []
        self._serves = threading.Event()
        self.port = ""
        self._process = subprocess.Popen(
            ["bash", "-c", self._command],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        assert self._serves.wait(PATIENCE), f"{self._command} did not start: {self._said}"
        assert self.port, f"{self._command} ended: {self._said}"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if not self.port and (found := _SERVING.search(line)):
                self.port = found[1]
                self._serves.set()
        self._serves.set()

    def stop(self) -> None:
        """Ends it as `kill` does; it has to end cleanly."""
        self._process.terminate()
        status = self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert status == 0, f"{self._command} ended with {status}: {''.join(self._said)}"


def environment() -> dict[str, str]:
    """The commands of this Python first, and no settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_") and name != "CI"}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}


def setup(namespace: dict[str, Any]) -> None:
    """A page begins: a folder of its own, from which its modules can be imported."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-docs-"))
    namespace["__page__"] = page = {
        "folder": folder,
        "before": os.getcwd(),
        "server": None,
        "modules": set(sys.modules),
    }
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    page["path"] = sys.path[0]


def teardown(namespace: dict[str, Any]) -> None:
    """It ends: the server has to stop cleanly, and nothing of the page stays behind."""
    page = namespace["__page__"]
    try:
        if page["server"] is not None:
            page["server"].stop()
    finally:
        os.chdir(page["before"])
        sys.path.remove(page["path"])
        for name in set(sys.modules) - page["modules"]:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if origin.startswith(page["path"]):
                del sys.modules[name]
        shutil.rmtree(page["folder"])


def ported(text: str, namespace: dict[str, Any]) -> str:
    """The text with the port of the page's own server."""
    server = namespace["__page__"]["server"]
    return text if server is None else text.replace(f":{PORT}", f":{server.port}")


class PythonBlocks:
    """`python` blocks: code, files and sessions."""

    def __init__(self) -> None:
        self._blocks = CodeBlockParser("python", self._run)
        self._code = PythonEvaluator()
        self._sessions = DocTestStringParser(DocTestEvaluator(FLAGS))

    def __call__(self, document: Document) -> Iterable[Region]:
        for region in self._blocks(document):
            if region.parsed.startswith(">>>"):
                for session in self._sessions(region.parsed, document.path):
                    session.adjust(region, region.parsed)
                    yield session
            else:
                yield region

    def _run(self, example: Example) -> None:
        if named := _FILE.match(example.parsed):
            (example.namespace["__page__"]["folder"] / named[1]).write_text(example.parsed)
            if named[1] == "conftest.py":
                return
        block = example.parsed
        example.parsed = Lexeme(ported(block, example.namespace), block.offset, block.line_offset)
        self._code(example)


def commands(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it is shown to print."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block begins with '$ ': {block}"
    for part in parts[1:]:
        lines = part.splitlines()
        more = 1
        while more < len(lines) and lines[more].startswith("  ") and _open(lines[:more]):
            more += 1
        yield "\n".join(lines[:more]), "\n".join(lines[more:])


def _open(lines: list[str]) -> bool:
    """Whether a command goes on: a quote is open, or its last line ends with a backslash."""
    return "\n".join(lines).count("'") % 2 == 1 or lines[-1].endswith("\\")


def run_console(example: Example) -> str | None:
    """A `console` block; returns what was wrong, if anything was."""
    page = example.namespace["__page__"]
    for command, shown in commands(example.parsed):
        if command.startswith("headrace run"):
            assert page["server"] is None, "one server a page"
            page["server"] = Server(command, page["folder"])
        elif wrong := run_command(ported(command, example.namespace), shown, page["folder"]):
            return f"{command}\n{wrong}"
    return None


def run_command(command: str, shown: str, folder: Path) -> str | None:
    """One command; returns what was wrong, if anything was."""
    if command.startswith("curl"):
        command = command.replace("curl", "curl --fail-with-body --max-time 60", 1)
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        return f"ended with {done.returncode}: {done.stdout}{done.stderr}"
    found = done.stdout.rstrip() + "\n"
    if shown and not doctest.OutputChecker().check_output(shown + "\n", found, FLAGS):
        return f"expected:\n{shown}\nfound:\n{found}"
    return None


pytest_collect_file = Sybil(
    parsers=[PythonBlocks(), CodeBlockParser("console", run_console)],
    patterns=["README.md", "docs/*.md"],
    path=str(ROOT),
    setup=setup,
    teardown=teardown,
).pytest()
