"""Memories as `Live` and contexts offer them: messages become turns, and what is recalled becomes candidates.

A model is offered no tool of a memory: it would have to name the session, and could name another's. A session's turns
reach it through a context, whose session the application gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from headrace.assembly.pack import Candidate, Item
from headrace.documents.turns import group_of, key_of
from headrace.errors import InputError
from headrace.runners.library.memory_turns import Recalled, Turn, identifier, message, said
from headrace.runners.library.search import Asked
from headrace.runners.library.search import search as searched
from headrace.serving.documents import wait
from headrace.serving.token import Token
from headrace.units import MAX_TIME, to_micros

if TYPE_CHECKING:
    from headrace.declarations import Memory
    from headrace.parts import Recall
    from headrace.runners.library.hits import Hit
    from headrace.runners.library.library import Library
    from headrace.runners.library.memory import LiveMemory

_TABLE = "table/"


class ReadPoint(Protocol):
    """What is needed of the point that a context is read at."""

    @property
    def now(self) -> int:
        """What ages are counted from, in microseconds since the Unix epoch."""

    def table_seq(self, name: str) -> int:
        """A table's number in the point."""

    def search(self, collection: str, asked: Asked) -> list[Hit]:
        """Searches a collection at the point."""


class _Runs(Protocol):
    """What is needed of a live app."""

    @property
    def library(self) -> Library:
        """Its tables, collections and memories."""


def remember(
    live: LiveMemory,
    session: str,
    role: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    text: str | None,
    subject: str | None,
    id: str | None,
    at: datetime | int | None,
) -> Token:
    """Stores turns; see `Live.remember`."""
    identifier("the session", session)
    now = live.now
    if isinstance(role, str):
        turns = [said(role, text, subject, id, at, now)]
    elif text is not None or id is not None or at is not None:
        raise InputError("expected messages to say their text, id and at themselves, found one of these beside them")
    else:
        listed = [role] if isinstance(role, Mapping) else list(role)
        memory = live.memory
        turns = [message(one, memory.subject, memory.by, session, now) for one in listed]
        if subject is not None:
            who = identifier("the subject", subject)
            turns = [one if one.subject is not None else replace(one, subject=who) for one in turns]
    seq, count = live.remember(session, turns)
    return Token({_TABLE + live.memory.table.name: seq}, count)


def recall(
    library: Library,
    memory: Memory,
    session: str,
    question: str,
    turns: int | None,
    k: int,
    after: Token | str | None,
    timeout: float,
) -> Recalled:
    """What is recalled now; see `Live.recall`."""
    identifier("the session", session)
    live = library.memories[memory.name]
    if after is not None and question.strip():
        wait(library, memory.collection, after, timeout)
    collection = library.collections[memory.collection.name]

    def find(asked: Asked) -> Sequence[Hit]:
        return searched(collection, asked, library.now(), timeout).hits

    return live.recall(session, question, memory.turns if turns is None else turns, k, find)


def candidates(live: _Runs, read: ReadPoint, part: Recall) -> list[Candidate]:
    """What a session's memory has for a context, at the context's point.

    Args:
        live: The app.
        read: The point; it holds the memory's table and collection (`memory.table.name`, `memory.collection.name`).
        part: What the context yielded.

    Returns:
        Of "summary", "recalled" and "turns" those that there are, in this order. A summary is of before the latest
        turns; nothing of it is trusted, for users said it.

    Raises:
        InputError: The session is none, or a number is out of range.
    """
    memory: Memory = part.memory
    identifier("the session", part.session)
    found = live.library.memories[memory.name].recall(
        part.session,
        part.question,
        part.turns,
        part.k,
        lambda asked: read.search(memory.collection.name, asked),
        upto=read.table_seq(memory.table.name),
        now=read.now,
    )
    made: list[Candidate] = []
    if found.summary:
        row = _row(memory, group_of(part.session))
        item = Item(f"{memory.name}/summary", found.summary, source=memory.name, data=row)
        made.append(Candidate(memory.name, "summary", (item,), part.packing, "What was said before, summed up."))
    if found.older:
        best = max((one.score or 0.0 for one in found.older), default=0.0)
        items = tuple(_item(part, one, (one.score or 0.0) / best if best > 0 else 1.0) for one in found.older)
        made.append(Candidate(memory.name, "recalled", items, part.packing, "Said earlier in this conversation."))
    if found.turns:
        count = len(found.turns)
        items = tuple(_item(part, one, (place + 1) / count) for place, one in enumerate(found.turns))
        made.append(Candidate(memory.name, "turns", items, part.packing, "The latest of this conversation."))
    return made


def _row(memory: Memory, key: str) -> dict[str, str]:
    """Which row an item was made of: a kept pack is found by it when the row is forgotten."""
    return {"table": memory.table.name, "document": key}


def _item(part: Recall, turn: Turn, value: float) -> Item:
    memory: Memory = part.memory
    return Item(
        f"{memory.name}/{turn.id}",
        turn.text,
        value=min(1.0, max(0.0, value)),
        source=memory.name,
        as_of=turn.at,
        age=turn.age,
        role=turn.role,
        data=_row(memory, key_of(part.session, turn.id)),
    )


def moment(before: Any) -> int:
    """A time, in microseconds since the Unix epoch.

    Raises:
        InputError: It is none.
    """
    if isinstance(before, datetime):
        return to_micros(before)
    if isinstance(before, bool) or not isinstance(before, int) or not 0 <= before <= MAX_TIME:
        raise InputError(f"expected before to be a datetime, or microseconds since the Unix epoch, found {before!r}")
    return before
