"""What a memory gives: turns, and what is recalled of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from headrace.documents.turns import ROLES, TurnRow
from headrace.errors import DecodeError, InputError, TooLargeError
from headrace.stores.tables import Revision
from headrace.units import MIN_TIME, SECOND, from_micros, to_micros

MOST_ID = 512
MOST_TEXT = 64 << 10
MOST_AT_ONCE = 1_000
# Clocks differ: a turn may be said this much later than now.
_AHEAD = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said once in a session.

    Attributes:
        id: The caller's, or one that was made for it.
        role: "user", "assistant", "tool" or "system".
        text: What was said.
        at: When.
        age: Seconds since then.
        subject: Whom it is about, if that was said.
        score: Of a turn that was found by its meaning: the higher the better; else None.
    """

    id: str
    role: str
    text: str
    at: datetime
    age: float
    subject: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is recalled of a session.

    Attributes:
        summary: Of turns before the latest; empty if there are none, or none is summed up yet.
        summary_by: "extractive" or "function": what made it; empty without one.
        summary_problem: Why the memory's own function did not make it; empty if it did, or there is none.
        older: Turns that fit the question, best first; none of them is among `turns`.
        turns: The latest, oldest first.
    """

    summary: str
    older: list[Turn]
    turns: list[Turn]
    summary_by: str = ""
    summary_problem: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """A turn to be remembered, checked.

    Attributes:
        id: The caller's; None for a new one.
        at: The caller's, in microseconds since the Unix epoch; None for now.
    """

    role: str
    text: str
    subject: str | None
    id: str | None
    at: int | None


def identifier(what: str, value: Any) -> str:
    """A session's, a subject's or a turn's name: any text of bounded length.

    Raises:
        InputError: It is none.
    """
    if not isinstance(value, str) or not value:
        raise InputError(f"expected {what} to be a text that is not empty, found {_shown(value)}")
    if len(value) > MOST_ID:
        raise InputError(f"expected {what} of at most {MOST_ID} characters, found {len(value):,}; take a digest of it")
    _encodable(what, value)
    return value


def said(role: Any, text: Any, subject: Any, id: Any, at: Any, now: int) -> Said:
    """A turn, checked.

    Raises:
        InputError: Something in it cannot be used.
        TooLargeError: It is too long.
    """
    if role not in ROLES:
        raise InputError(f"expected a role of {', '.join(ROLES)}, found {_shown(role)}")
    if not isinstance(text, str):
        raise InputError(f"expected a turn's text, found {_shown(text)}")
    _encodable("a turn's text", text)
    if len(text.encode()) > MOST_TEXT:
        raise TooLargeError(
            f"expected a turn of at most {MOST_TEXT:,} bytes, found {len(text.encode()):,}; keep what is longer in a "
            "collection, and say here what it is"
        )
    return Said(
        role,
        text,
        None if subject is None else identifier("the subject", subject),
        None if id is None else identifier("a turn's id", id),
        None if at is None else _moment(at, now),
    )


def message(given: Any, subject_field: str | None, session_field: str, session: str, now: int) -> Said:
    """A turn from a chat message as OpenAI's API has it, or a dict of a turn's own fields.

    `content` may be a text, a list of parts, or null where tools are called; of parts that are no text, the type is
    kept. `id`, `at` and the subject's field may stand in it, too.

    Raises:
        InputError: It is no message, or one of another session.
    """
    if not isinstance(given, Mapping):
        raise InputError(f'expected a message such as {{"role": "user", "content": "…"}}, found {_shown(given)}')
    if given.get(session_field, session) != session:
        raise InputError(f"expected messages of one session, found one whose {session_field} is another")
    subject = given.get("subject")
    if subject is None and subject_field is not None:
        subject = given.get(subject_field)
    text = given["text"] if "text" in given else _content(given)
    return said(given.get("role"), text, subject, given.get("id"), given.get("at"), now)


def _content(given: Mapping[str, Any]) -> str:
    content = given.get("content")
    if content is None and isinstance(given.get("tool_calls"), Sequence):
        return "\n".join(_call(one) for one in given["tool_calls"])
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return "\n".join(_part(one) for one in content)
    if not isinstance(content, str):
        raise InputError(f"expected a message's content to be a text or a list of parts, found {_shown(content)}")
    return content


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{part['type']}]"
    raise InputError(f'expected a content part such as {{"type": "text", "text": "…"}}, found {_shown(part)}')


def _call(call: Any) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InputError(f'expected a tool call with a "function", found {_shown(call)}')
    return f"{function.get('name', '')}({function.get('arguments', '')})"


def turn_of(row: TurnRow, now: int, score: float | None = None) -> Turn:
    """A stored turn, at a time in microseconds since the Unix epoch."""
    age = max(0.0, (now - row.at) / SECOND)
    return Turn(row.id, row.role, row.text, from_micros(row.at), age, row.subject, score)


def row_of(revision: Revision) -> TurnRow:
    """A stored turn's row.

    Raises:
        DecodeError: It is not one.
    """
    try:
        # What is stored was checked when it came: a struct is made without checking it again.
        return TurnRow.model_construct(**msgspec.json.decode(revision.body or b""))
    except (msgspec.DecodeError, TypeError) as error:
        raise DecodeError(f"expected a stored turn, found a row that is none ({error})") from error


def _moment(at: Any, now: int) -> int:
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            raise InputError(f"expected at to be an ISO 8601 time, found {_shown(at)}") from None
    if isinstance(at, datetime):
        at = to_micros(at)
    if isinstance(at, bool) or not isinstance(at, int):
        raise InputError(f"expected at to be a time, or microseconds since the Unix epoch, found {_shown(at)}")
    if not max(MIN_TIME, 0) <= at <= now + _AHEAD:
        raise InputError(f"expected a turn to be said at {from_micros(now).isoformat()} or before, found {at} µs")
    return at


def _encodable(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"expected {what} to be text that UTF-8 can hold, found half a character in it") from None


def _shown(value: Any) -> str:
    return repr(value)[:60]
