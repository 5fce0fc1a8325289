"""One memory while it runs: turns are stored, recalled and forgotten.

A turn can be recalled as soon as it is stored: the latest are read from the table itself, by an index over sessions.
Only the search by meaning waits for the collection, which follows the table in its own time. It is narrowed to the
session before anything is ranked, and what it finds is looked up in the table again, so that a turn which is forgotten,
or is another's, is not recalled however far behind the collection is.

Forgetting goes the other way round: rows and their revisions first, the summary with them, and then, once the
collection has followed, what the databases' files still hold of it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.documents.turns import SummaryRow, TurnRow, about_of, group_of, key_of
from headrace.errors import InputError, StaleError
from headrace.runners.library.collection import LiveCollection
from headrace.runners.library.hits import Hit
from headrace.runners.library.memory_keeper import Keeper
from headrace.runners.library.memory_turns import MOST_AT_ONCE, Recalled, Said, Turn, row_of, turn_of
from headrace.runners.library.search import Asked
from headrace.runners.library.table import LiveTable
from headrace.stores.tables import Revision
from headrace.stores.turns import ErasingStore, TurnStore

if TYPE_CHECKING:
    from headrace.declarations import Memory

MOST_TURNS = 1_000
MOST_OLDER = 100
_BATCH = 500
# A long turn is several chunks: more are asked for than turns are wanted.
_CHUNKS = 3
Find = Callable[[Asked], Sequence[Hit]]
Erasing = Callable[[str, Sequence[str]], AbstractContextManager[Callable[[int], None]]]
"""Of a table and the keys of rows that are about to be erased; what it gives is told the table's number after that."""


class LiveMemory:
    """A memory that takes turns.

    Args:
        memory: What was declared.
        table: Its turns.
        summaries: Its summaries.
        collection: What finds turns by their meaning.
        now: The time, in microseconds since the Unix epoch.
    """

    def __init__(
        self,
        memory: Memory,
        table: LiveTable,
        summaries: LiveTable,
        collection: LiveCollection,
        now: Callable[[], int],
    ) -> None:
        assert isinstance(table.store, TurnStore)
        assert isinstance(summaries.store, ErasingStore)
        self.memory = memory
        self.store: TurnStore = table.store
        self._summary_store: ErasingStore = summaries.store
        self._table = table
        self._summaries = summaries
        self._collection = collection
        self._now = now
        # One at a time gives turns their numbers, forgets, and writes summaries: none of them undoes another.
        self._lock = threading.Lock()
        self.keeper = Keeper(self)
        # Around whatever erases rows: what was made of them elsewhere is erased with them.
        self.erasing: Erasing = _alone
        self.listeners: list[Callable[[Sequence[str]], None]] = []  # told of the sessions in which something changed
        self.forgotten = 0  # how often something was: a summary that was begun before is not written

    def start(self) -> None:
        """Begins to age out and to sum up."""
        self.keeper.start()

    @property
    def now(self) -> int:
        """The app's time, in microseconds since the Unix epoch."""
        return self._now()

    @property
    def oldest(self) -> int:
        """The time of the oldest turn that is kept, in microseconds since the Unix epoch."""
        return max(0, self._now() - self.memory.keep)

    # -- in --------------------------------------------------------------------------------------------------------

    def remember(self, session: str, turns: Sequence[Said]) -> tuple[int, int]:
        """Stores turns, all or none: the table's number after them, and how many are new.

        Raises:
            InputError: A turn of that id is there already, and says something else.
            StorageError: They could not be stored.
        """
        if len(turns) > MOST_AT_ONCE:
            raise InputError(
                f"expected at most {MOST_AT_ONCE:,} turns at once, found {len(turns):,}; bring them in parts"
            )
        group = group_of(session)
        with self._lock:
            rows = self._numbered(session, group, turns)
            if not rows:
                return self.store.seq, 0
            summary = self.summary(group)
            if summary is not None and any(row["number"] <= summary.covers for row in rows):
                self._drop_summaries([group])  # told late: what was summed up has a gap there
            seq, taken, rejects = self._table.push(rows)
        if rejects:
            raise InputError(f"expected {len(rows)} turns that can be stored, found {rejects[0].reason}")
        self.keeper.look_at(group)
        self._tell([group])
        return seq, taken

    def _tell(self, groups: Sequence[str]) -> None:
        for listener in self.listeners:
            listener(groups)

    def _numbered(self, session: str, group: str, turns: Sequence[Said]) -> list[dict[str, Any]]:
        """Turns as rows, without those that are there already."""
        keys = [key_of(session, turn.id or uuid.uuid4().hex) if turn.id else "" for turn in turns]
        known = {key: _what(row_of(found)) for key, found in self.store.get([key for key in keys if key]).items()}
        last = self.store.last_number(group)
        taken: set[int] = set()
        rows: list[dict[str, Any]] = []
        for turn, key in zip(turns, keys, strict=True):
            if key in known:
                if known[key] != (turn.role, turn.text, turn.subject):
                    raise InputError(
                        f"expected the turn {turn.id!r} to be new, or what it was; found it saying something else: "
                        "give another id"
                    )
                continue
            id = turn.id or uuid.uuid4().hex
            now = self._now()
            number = max(now, last + 1) if turn.at is None else self._free(group, turn.at, taken)
            last = max(last, number)
            taken.add(number)
            key = key or key_of(session, id)
            known[key] = (turn.role, turn.text, turn.subject)
            rows.append(
                {
                    **{"key": key, "group": group, "session": session, "id": id, "number": number},
                    **{"at": now if turn.at is None else turn.at, "role": turn.role, "text": turn.text},
                    "subject": turn.subject,
                    "about": None if turn.subject is None else about_of(turn.subject),
                }
            )
        return rows

    def _free(self, group: str, first: int, taken: set[int]) -> int:
        """The first number from one on that no turn of the session has."""
        number = first
        while True:
            found = set(self.store.numbers(group, number, _BATCH))
            if not found and number not in taken:
                return number
            for _ in range(_BATCH):
                if number not in found and number not in taken:
                    return number
                number += 1

    # -- out -------------------------------------------------------------------------------------------------------

    def recall(
        self,
        session: str,
        question: str,
        turns: int,
        k: int,
        find: Find,
        *,
        upto: int | None = None,
        now: int | None = None,
    ) -> Recalled:
        """What is recalled of a session.

        Args:
            find: Searches the memory's collection.
            upto: Turns as the table was after this change; None for now.
            now: What ages are counted from; None for now.

        Raises:
            InputError: A number is out of range.
        """
        _within("turns", turns, MOST_TURNS)
        _within("k", k, MOST_OLDER)
        moment = self._now() if now is None else now
        group = group_of(session)
        most = max(turns, self.memory.turns + 1)  # one more than the latest, to see what is to be summed up
        window = [row_of(one) for one in self.store.newest(group, most, since=self.oldest, upto=upto)]
        rows = window[len(window) - min(turns, len(window)) :]
        latest = [turn_of(one, moment) for one in rows]
        older: list[Turn] = []
        if question.strip() and k and len(rows) == turns:
            older = self._older(group, question, k, rows[0].number if rows else None, find, upto, moment)
        summary = self._current(group, window)
        if summary is None:
            return Recalled("", older, latest)
        return Recalled(summary.text, older, latest, summary.by, summary.problem)

    def _older(
        self, group: str, question: str, k: int, first: int | None, find: Find, upto: int | None, now: int
    ) -> list[Turn]:
        where: dict[str, Any] = {"group": group}
        if first is not None:
            where["number"] = {"lt": first}
        asked = Asked.of(self._collection, question, k * _CHUNKS, where, "hybrid", 0.0)
        scores: dict[str, float] = {}
        for hit in find(asked):
            scores.setdefault(hit.document, hit.score)
        oldest = self.oldest
        turns: list[Turn] = []
        for key, revision in self.store.get(list(scores)).items():
            row = row_of(revision)
            own = row.group == group and row.at >= oldest and (first is None or row.number < first)
            if own and (upto is None or revision.seq <= upto):
                turns.append(turn_of(row, now, scores[key]))
        return turns[:k]

    def _current(self, group: str, window: Sequence[TurnRow]) -> SummaryRow | None:
        """The summary, if none of what it is made of is too old; if it is not what it should be, it is looked at."""
        summary = self.summary(group)
        if len(window) > self.memory.turns:
            reaches = window[-self.memory.turns - 1]
            if summary is None or summary.covers < reaches.number or summary.first_at < self.oldest:
                self.keeper.look_at(group)
        return None if summary is None or summary.first_at < self.oldest else summary

    def summary(self, group: str) -> SummaryRow | None:
        """A session's stored summary."""
        found = self._summaries.store.get([group]).get(group)
        if found is None or found.body is None:
            return None
        return SummaryRow.model_construct(**msgspec.json.decode(found.body))

    def write_summary(self, row: SummaryRow, forgotten: int) -> bool:
        """Stores a summary; not if something was forgotten since it was begun."""
        with self._lock:
            if self.forgotten != forgotten:
                return False
            self._summaries.push([row])
            self._summary_store.forget_replaced(row.key)
        self._tell([row.key])
        return True

    # -- forgetting ------------------------------------------------------------------------------------------------

    def forget(
        self, *, session: str | None = None, subject: str | None = None, before: int | None = None, timeout: float
    ) -> int:
        """Erases turns; how many there were.

        Raises:
            StaleError: They are gone and cannot be recalled, and what was made of them was not all erased in time.
        """
        if session is not None:
            group = group_of(session)
            count = self._erase(lambda: self.store.after(group, -1, _BATCH))
            with self._lock:
                self._drop_summaries([group])
        elif subject is not None:
            about = about_of(subject)
            count = self._erase(lambda: self.store.of_subject(about, _BATCH))
        else:
            count = self._erase(lambda: self.store.said_before(before or 0, _BATCH))
        if not self.cleared(timeout):
            why = self._collection.trouble() or "the collection is on its way"
            raise StaleError(
                f"{self.memory.name}: {count} turns are forgotten and cannot be recalled; expected what was made of "
                f"them to be erased within {timeout} s, and it is not yet: {why}"
            )
        return count

    def age_out(self, limit: int = _BATCH) -> int:
        """Erases some of the turns that are older than is kept; how many."""
        return self._erase(lambda: self.store.said_before(self.oldest, limit), rounds=1)

    def _erase(self, choose: Callable[[], list[Revision]], rounds: int = 1 << 30) -> int:
        count = 0
        for _ in range(rounds):
            with self._lock:
                found = choose()
                if not found:
                    break
                self.forgotten += 1
                groups = sorted({row_of(one).group for one in found})
                keys = [one.key for one in found]
                with self.erasing(self.memory.table.name, [*keys, *groups]) as done:
                    self._drop_summaries(groups)
                    done(self._table.delete(keys, erase=True))
            count += len(found)
            self.keeper.unscrubbed = True
            self._tell(groups)
            for group in groups:
                self.keeper.look_at(group)
        return count

    def _drop_summaries(self, groups: Sequence[str]) -> None:
        """Erases summaries; the lock is held."""
        self.forgotten += 1
        self._summaries.delete(groups, erase=True)

    def cleared(self, timeout: float) -> bool:
        """Waits until nothing that was forgotten is in the collection or in a file any more; False if it is still."""
        seq = self.store.seq
        live = self._collection
        if not live.wait(lambda: live.ready and live.position >= seq and not live.sweeping(), timeout):
            return False
        # All three, also if the first could not be.
        return [self.store.scrub(), self._summary_store.scrub(), live.records.scrub()] == [True] * 3

    def tidy(self) -> None:
        """After a start: what a crash left of revisions that were being erased is erased."""
        for table in (self._table, self._summaries):
            table.store.prune(self._now() + 1, min(self._collection.position, table.store.seq))


def _alone(table: str, keys: Sequence[str]) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG001 - as said
    return nullcontext(lambda _: None)


def _what(row: Any) -> tuple[str, str, str | None]:
    return row.role, row.text, row.subject


def _within(name: str, value: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InputError(f"expected {name} to be a whole number from 0 to {most:,}, found {value!r}")
