"""What a memory keeps: turns of a conversation as rows, and its running summary.

A row's key is a digest of the session and the turn's id: to say a turn again writes the same row, and the mark that a
deleted row leaves behind tells nobody whose it was. A session is filtered by its digest, too: any text may be a
session's name, and an index need not be able to hold it.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from headrace.document import Document

Role = Literal["user", "assistant", "tool", "system"]
ROLES: tuple[Role, ...] = ("user", "assistant", "tool", "system")


class TurnRow(Document):
    """A turn as it is stored.

    Attributes:
        key: See `key_of`.
        group: See `group_of`.
        number: Its place in the session: microseconds since the Unix epoch, moved on where two would share one.
        at: When it was said, in microseconds since the Unix epoch.
        subject: Whom it is about, or None.
        about: The subject's digest: what it is looked up by.
    """

    key: str
    group: str
    session: str
    id: str
    number: int
    at: int
    role: Role
    text: str
    subject: str | None = None
    about: str | None = None


class SummaryRow(Document):
    """A session's running summary.

    Attributes:
        key: The session's group.
        covers: The number of the last turn that is in it.
        covers_id: That turn's id.
        at: When that turn was said.
        first_at: When the first turn that it is made of was said: it must not outlive that.
        turns: How many turns it was made of.
        by: "extractive" or "function": what made it.
        problem: Why the memory's own function did not make it; empty if it did, or there is none.
    """

    key: str
    text: str
    covers: int
    covers_id: str
    at: int
    first_at: int
    turns: int
    by: str
    problem: str = ""


def group_of(session: str) -> str:
    """A session's digest."""
    return _digest(session)


def about_of(subject: str) -> str:
    """A subject's digest."""
    return _digest("subject", subject)


def key_of(session: str, id: str) -> str:
    """The key of a session's turn."""
    return _digest(session, id)


def _digest(*parts: str) -> str:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()
