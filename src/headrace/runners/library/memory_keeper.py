"""What a memory does in the background: it ages out, and keeps the running summaries.

A session is looked at when something was said in it, when something of it was forgotten, and when a recall finds its
summary behind. So nothing has to be noted down for a restart. Each look is bounded: some hundred turns at most, and a
memory's own function has a time limit, some tries, and the extractive summary behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headrace.assembly.summary import TOKENS, extract
from headrace.documents.turns import SummaryRow, TurnRow
from headrace.errors import ClosedError, HeadraceError
from headrace.runners.library.memory_turns import Turn, row_of, turn_of

if TYPE_CHECKING:
    from headrace.runners.library.memory import LiveMemory

logger = logging.getLogger("headrace")
# A summary that is made from nothing reaches back this many turns; the function is given this many at once.
_MOST_TURNS = 512
_AT_ONCE = 64
_MOST_SESSIONS = 10_000
_MOST_SUMMARY = 16 << 10
_TRIES = 3
_LIMIT = 60.0
_BACKOFF = 0.1
_PATROL = 30.0
_AGED_AT_ONCE = 500
Summarize = Callable[[str, list[Turn]], str]


class Keeper:
    """The background work of one memory."""

    def __init__(self, memory: LiveMemory) -> None:
        self._memory = memory
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._busy = False
        self._closing = threading.Event()
        self.unscrubbed = False  # whether files may hold what was erased
        self._call: threading.Thread | None = None
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        given = memory.memory.summary
        # What makes summaries; whoever opens a memory for which a model was named puts it here.
        self.function: Summarize | None = given if callable(given) else None
        self.made: dict[str, int] = {}
        self.failed = 0

    def start(self) -> None:
        """Begins."""
        name = f"headrace-memory-{self._memory.memory.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def look_at(self, group: str) -> None:
        """Has a session's summary looked at soon; of very many the longest waiting are left to their next recall."""
        with self._changed:
            self._waiting[group] = None
            if len(self._waiting) > _MOST_SESSIONS:
                self._waiting.popitem(last=False)
            self._changed.notify_all()

    def settled(self, timeout: float | None) -> bool:
        """Waits until every session was looked at; False if not in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closing.is_set() or (not self._waiting and not self._busy), timeout
            )

    def stop(self) -> None:
        """Stops; what was not looked at is when it is recalled next."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = _BACKOFF
        try:
            self._memory.tidy()
        except HeadraceError as error:
            logger.warning("the memory %s: %s", self._memory.memory.name, error)
        while not self._closing.is_set():
            group = self._next()
            try:
                self.patrol()
                if group is not None:
                    self.sum_up(group)
                backoff = _BACKOFF
            except ClosedError:
                return
            except HeadraceError as error:
                logger.warning("the memory %s: %s; trying again", self._memory.memory.name, error)
                self._closing.wait(backoff)
                backoff = min(backoff * 2, _PATROL)
                if group is not None:
                    self.look_at(group)
            except Exception as error:
                # One session's trouble is not the others': it is looked at again when it is recalled.
                logger.exception("the memory %s: a session could not be summed up", self._memory.memory.name)
                self.failure = f"{type(error).__name__}: {error}"
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closing.is_set(), _PATROL)
            self._busy = True
            return self._waiting.popitem(last=False)[0] if self._waiting else None

    def patrol(self) -> int:
        """Ages out, all that is due, and has the files forget it; how many turns."""
        aged = 0
        while not self._closing.is_set():
            count = self._memory.age_out(_AGED_AT_ONCE)
            aged += count
            if count < _AGED_AT_ONCE:
                break
        if self.unscrubbed:
            self.unscrubbed = not self._memory.cleared(0.0)
        return aged

    # -- summaries -------------------------------------------------------------------------------------------------

    def sum_up(self, group: str) -> None:
        """Brings a session's summary up to its latest turns, as far as one look goes."""
        memory, store = self._memory, self._memory.store
        while not self._closing.is_set():
            forgotten = memory.forgotten
            window = store.newest(group, memory.memory.turns, since=memory.oldest)
            if len(window) < memory.memory.turns:
                return
            first = row_of(window[0]).number
            before = memory.summary(group)
            if before is not None and before.first_at < memory.oldest:
                before = None
            if before is None:
                found = store.newest(group, _MOST_TURNS, since=memory.oldest, before=first)
            else:
                found = store.after(group, before.covers, _MOST_TURNS, before=first)
            rows = [row_of(one) for one in found]
            if not rows:
                return
            turns = [turn_of(row, rows[-1].at) for row in rows]
            summary = self._next_summary(group, before, rows, turns)
            if summary is not None and not memory.write_summary(summary, forgotten):
                self.look_at(group)
                return

    def _next_summary(
        self, group: str, before: SummaryRow | None, rows: Sequence[TurnRow], turns: Sequence[Turn]
    ) -> SummaryRow | None:
        text, by, problem = "" if before is None else before.text, "extractive", ""
        for start in range(0, len(turns), _AT_ONCE):
            part = turns[start : start + _AT_ONCE]
            text, by, problem = self._made(text, part)
            if self._closing.is_set():
                return None
        last = rows[-1]
        return SummaryRow(
            key=group,
            text=text,
            covers=last.number,
            covers_id=last.id,
            at=last.at,
            first_at=min([one.at for one in rows] + ([] if before is None else [before.first_at])),
            turns=len(rows) + (0 if before is None else before.turns),
            by=by,
            problem=problem,
        )

    def _made(self, before: str, turns: Sequence[Turn]) -> tuple[str, str, str]:
        """A summary, what made it, and why that was not the memory's own function."""
        function = self.function
        problem = ""
        if function is not None:
            text, problem = self._asked(function, before, turns)
            if text is not None:
                by = str(getattr(function, "by", "function"))
                self.made[by] = self.made.get(by, 0) + 1
                return text, by, ""
            self.failed += 1
            logger.warning("the memory %s: its summary: %s; extracted instead", self._memory.memory.name, problem)
        self.made["extractive"] = self.made.get("extractive", 0) + 1
        return extract(before, [(one.role, one.text) for one in turns], tokens=TOKENS), "extractive", problem

    def _asked(self, function: Summarize, before: str, turns: Sequence[Turn]) -> tuple[str | None, str]:
        """What the function says, after some tries; or None, and why."""
        problem = ""
        for number in range(_TRIES):
            if self._call is not None and self._call.is_alive():
                return None, "the call before it has not ended"
            found: list[Any] = []
            self._call = threading.Thread(target=_call, args=(function, before, list(turns), found), daemon=True)
            self._call.start()
            self._wait_for(self._call)
            if not found:
                return None, f"expected an answer within {_LIMIT:g} s, found none"
            if isinstance(found[0], str) and len(found[0].encode(errors="replace")) <= _MOST_SUMMARY:
                return found[0].encode(errors="replace").decode(), ""
            problem = _problem(found[0])
            if number + 1 < _TRIES and self._closing.wait(_BACKOFF * 2**number):
                break
        return None, problem

    def _wait_for(self, call: threading.Thread) -> None:
        until = time.monotonic() + _LIMIT
        while call.is_alive() and time.monotonic() < until and not self._closing.is_set():
            call.join(_BACKOFF)


def _call(function: Summarize, before: str, turns: list[Turn], found: list[Any]) -> None:
    try:
        found.append(function(before, turns))
    except Exception as error:  # noqa: BLE001  # the app's own code: what goes wrong is said with the summary
        found.append(error)


def _problem(found: Any) -> str:
    if isinstance(found, Exception):
        return f"{type(found).__name__}: {found}"[:500]
    if isinstance(found, str):
        return f"expected a summary of at most {_MOST_SUMMARY:,} bytes, found {len(found):,} characters"
    return f"expected a summary as text, found {type(found).__name__}"
