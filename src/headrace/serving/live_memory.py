"""What `Live` offers of memories: remember, recall, forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from headrace.errors import InputError
from headrace.runners.library.memory_turns import Recalled, identifier
from headrace.serving import memory as memories
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Memory
    from headrace.serving.live import Live


class LiveMemories:
    """The part of `Live` that is about memories."""

    app: App

    def remember(
        self,
        memory: Memory | str,
        session: str,
        role: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        text: str | None = None,
        *,
        subject: str | None = None,
        id: str | None = None,
        at: datetime | int | None = None,
    ) -> Token:
        """Stores what was said in a session, one turn or many. When it returns, a recall sees it.

        With an `id` it may be said again without harm: the same turn is stored once.

        Args:
            memory: A memory or its name.
            session: Which; any text of up to 512 characters.
            role: "user", "assistant", "tool" or "system"; or a message, or a list of up to 1,000, as OpenAI's API has
                them: ``{"role": "user", "content": "…"}``, which may have an `id`, an `at` and a subject, too.
            text: What was said, up to 64 KiB; not with messages.
            subject: Whom it is about, so that it can be forgotten with them; of messages that do not say it themselves.
            id: Of one turn.
            at: When it was said, if not now.

        Raises:
            UnknownNameError: There is no such memory.
            InputError: Something in it cannot be used, or a turn of that id says something else; nothing is stored.
            TooLargeError: A turn is too long; nothing is stored.
            StorageError: It could not be stored.
        """
        target = self.app.memory_of(memory)
        kept = cast("Live", self).library.memories[target.name]
        return memories.remember(kept, session, role, text, subject, id, at)

    def recall(
        self,
        memory: Memory | str,
        session: str,
        question: str = "",
        *,
        turns: int | None = None,
        k: int = 3,
        after: Token | str | None = None,
        timeout: float = 10.0,
    ) -> Recalled:
        """What a session is known by: its latest turns, a summary of older ones, and those that fit a question.

        The latest are read from what is stored, so they need not be waited for. Older ones are found once they are
        embedded, mostly within the second; with `after` that is waited for.

        Args:
            memory: A memory or its name.
            session: Which; one that nothing was said in is empty.
            question: What older turns are chosen by; empty for none.
            turns: How many of the latest; the memory's own number if not given.
            k: How many older ones.
            after: Wait until older ones are found up to what returned this token.
            timeout: How many seconds to wait for that.

        Raises:
            UnknownNameError: There is no such memory.
            InputError: The session is none, or a number is out of range.
            StaleError: What was waited for did not come in time.
            StorageError: The embedder or the index is out of reach; without a question neither is asked.
        """
        target = self.app.memory_of(memory)
        return memories.recall(cast("Live", self).library, target, session, question, turns, k, after, timeout)

    def forget(
        self,
        memory: Memory | str,
        *,
        session: str | None = None,
        subject: str | None = None,
        before: datetime | int | None = None,
        timeout: float = 30.0,
    ) -> int:
        """Erases what was said: of a session, about somebody, or before a time. How many turns that were.

        They cannot be recalled from the first moment on. When it returns, nothing is left of them on the disk either:
        no row, revision, chunk or vector, and no summary that was made of them; that of what remains is made anew.

        Args:
            memory: A memory or its name.
            session: All turns of this session.
            subject: All turns about them, in all sessions.
            before: All turns that were said before.
            timeout: How many seconds to wait until the collection has followed.

        Raises:
            UnknownNameError: There is no such memory.
            InputError: Not exactly one of the three is given.
            StaleError: The turns are forgotten; what was made of them was not all erased in time, and will be.
            StorageError: It could not be written; ask again.
        """
        target = self.app.memory_of(memory)
        if sum(one is not None for one in (session, subject, before)) != 1:
            raise InputError(f"{target.name}: expected one of session=, subject= and before=, found none or several")
        if session is not None:
            identifier("the session", session)
        if subject is not None:
            identifier("the subject", subject)
        moment = None if before is None else memories.moment(before)
        kept = cast("Live", self).library.memories[target.name]
        return kept.forget(session=session, subject=subject, before=moment, timeout=timeout)
