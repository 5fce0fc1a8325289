"""An app whose stream asks a model, for the tests of enrichment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

import headrace as hr


class Message(hr.Event):
    text: str
    number: int
    at: datetime = hr.event_time()


class Verdict(BaseModel):
    mood: Literal["good", "bad"]
    score: float = Field(ge=0)


NAME = "message_verdict"


class App:
    """The app, its streams, a view of the base and one of what comes of it."""

    def __init__(self, url: str = "http://127.0.0.1:9/v1", *, source: str | None = None, **options: Any) -> None:
        clock = options.pop("clock", "event")
        upstreams = options.pop("upstreams", [hr.Upstream(url, health=None)])
        prompt = options.pop("prompt", "Judge {text} #{number} .")
        self.app = hr.App("mood", clock=clock, checkpoint="50ms")
        self.messages = self.app.stream(Message, source)
        self.verdicts = self.messages.enrich(hr.llm(prompt, output=Verdict, upstreams=upstreams, **options))

        @self.app.features(self.messages, key="text")
        class Texts:
            """Of the base."""

            count = hr.count(over="1h")

        @self.app.features(self.verdicts, key="text")
        class Verdicts:
            """Of what came."""

            count = hr.count(over="1h")
            all = hr.latest(1_000, "number", "mood", "score")

        self.Texts, self.Verdicts = Texts, Verdicts


def rows(*numbers: int, text: str = "t") -> list[dict[str, Any]]:
    """Events of these numbers, at one time: what is latest of them is told by the order in which they came."""
    return [{"text": text, "number": number, "at": 1_700_000_000} for number in numbers]


def until(found: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits until something holds."""
    ends, pause = time.monotonic() + seconds, threading.Event()
    while not found():
        assert time.monotonic() < ends, "it did not come"
        pause.wait(0.01)
