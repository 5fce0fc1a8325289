"""An app whose one context waits until somebody opens the other end of a pipe: for calls that a client gives up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import headrace as hr

PIPE = "HEADRACE_TEST_PIPE"
app = hr.App("slow")
chat = app.memory("chat", embed="hash", index="memory:")


@app.context(budget=300)
def slow(question: str) -> Any:
    """An answer that takes its time."""
    yield hr.text(Path(os.environ[PIPE]).read_text(), trusted=True)


@app.context(budget=300)
def quick(question: str) -> Any:
    """An answer at once."""
    yield hr.text("At once.", trusted=True)


@app.context(budget=300)
def talk(question: str, session: str = "s1") -> Any:
    """What was said, of whomever the caller names."""
    yield chat.recall(session, question)


@app.context(budget=300)
def own(question: str) -> Any:
    """What was said in the session that the application knows."""
    yield chat.recall("session-17", question)
