"""Makes the client for threads out of the one for an event loop: `make client`.

The two differ in words only (`await`, `async with`, names that begin with Async), so one is written and the other made:
what they do cannot drift apart. What differs in more than words is in `client_waiting`, under both names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SERVING = Path(__file__).parent.parent / "src" / "headrace" / "serving"
SOURCE, TARGET = SERVING / "client_async", SERVING / "client_sync"
INIT = '"""The client for threads. Made of `client_async` by `make client`: change that."""\n'
WORDS = [
    (r"client_async", "client_sync"),
    (r"for one event loop: any number of its tasks may call at once\.", "for any number of threads."),
    (r" A call that is cancelled closes its connection\.", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\banext\(", "next("),
    (r"\ba(close|read|iter_bytes)\b", r"\1"),
    (r"\bAsync(?=[A-Z])", ""),
]
RUFF = [sys.executable, "-m", "ruff"]


def made(source: Path) -> str:
    """The client for threads that one module of the other becomes, as it is committed."""
    text = source.read_text()
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    text = f"# Made of {source.relative_to(SERVING)} by `make client`: change that, not this.\n{text}"
    name = str(TARGET / source.name)
    for step in (["check", "--quiet", "--fix", "--select", "I"], ["format"]):
        command = [*RUFF, *step, "--stdin-filename", name, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def sources() -> list[Path]:
    """The modules that are made into others."""
    return sorted(path for path in SOURCE.glob("*.py") if path.name != "__init__.py")


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for old in TARGET.glob("*.py"):
        old.unlink()
    (TARGET / "__init__.py").write_text(INIT)
    for one in sources():
        (TARGET / one.name).write_text(made(one))
