"""Systems in processes of their own, kept loaded and asked in turn.

Loading a million keys takes longer than measuring; so each system is loaded once, in a child process, and
the rounds alternate between the children: A B A B …. A child answers each line of JSON on its standard
input with one line of JSON on its standard output; it is idle while another one is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from headrace.bench.harness import BenchError

STOP_TIMEOUT = 20.0


class Child:
    """A child process that runs a module of the benchmarks; made by `Child(module, *arguments)`.

    Attributes:
        ready: What it said when it had loaded.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = " ".join([module, *arguments])
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, **command: Any) -> Callable[[], dict[str, Any]]:
        """Send a command; the answer is waited for when what this returns is called."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer

    def close(self) -> None:
        """Let it end by itself, and end it if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._name} ended with status {self._process.wait()}; its message is above")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise BenchError(f"expected a JSON object from {self._name}, found {line[:80]!r}")
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer(value: dict[str, Any]) -> None:
    """The child's side: one answer."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(handle: Callable[..., dict[str, Any]], **ready: Any) -> None:
    """The child's side: say that it is ready, then answer every command until the input ends."""
    answer(ready)
    for line in sys.stdin:
        answer(handle(**json.loads(line)))
