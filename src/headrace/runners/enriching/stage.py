"""One enrichment: events are asked about as they were taken in, calls run side by side, and answers leave in order.

    entries ─► window of slots ─► queue ─► workers ─► answers
                     └──────── the done ones at its head ─► outbox ─► push to the derived stream

A slot stands for one event and holds what will come of it. What is at the head of the window and done leaves it, with
the position that it stands for, through the outbox (`headrace.stores.enrichments`): so the derived stream has the order
of its input however calls overtake each other. The window is bounded, so that one slow answer cannot make us pay
far ahead of what has come out.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import xxhash

from headrace.enrich.derived import Answers, BadAnswerError
from headrace.enrich.prompt import Question
from headrace.enrich.spec import Llm
from headrace.formats.written import lines
from headrace.runners.enriching.asker import Asked, Asker, Failed, Found, Outcome, persist
from headrace.runners.enriching.figures import EnrichmentFigures, Tally
from headrace.runners.local import LocalRunner
from headrace.stores.enrichments import EnrichmentStore, Entry, Letter, Outbox
from headrace.units import SECOND

if TYPE_CHECKING:
    from headrace.app_enrich import Enrichment

logger = logging.getLogger("headrace")
_LEAST_WINDOW = 64
_AT_ONCE = 200  # rows looked up in the cache together
_MOST_OUT = 1_000  # rows in a push
_ENTRIES = 4  # read ahead


@dataclass
class Slot:
    """One event in the window."""

    entry: Entry
    row: int
    outcome: asyncio.Future[Outcome]


class Stage:
    """One enrichment, while it runs; for one event loop but for what says otherwise.

    Args:
        enrichment: What was declared.
        runner: Where derived events go.
        store: What it keeps.
        changed: Notified, in whichever thread, whenever something has come out.

    Raises:
        StorageError: What it keeps cannot be read.
    """

    def __init__(
        self,
        enrichment: Enrichment,
        runner: LocalRunner,
        store: EnrichmentStore,
        changed: threading.Condition,
    ) -> None:
        self.enrichment = enrichment
        self.spec: Llm = enrichment.spec
        self.tally = Tally()
        self.answers = Answers(self.spec.output)
        self._name, self._runner, self._store, self._changed = enrichment.name, runner, store, changed
        self._columns = list(enrichment.stream.schema.columns)
        self._slots: deque[Slot] = deque()
        self._window = max(_LEAST_WINDOW, 4 * self.spec.concurrent * self.spec.batch)
        self._arrived, self._moved = asyncio.Event(), asyncio.Event()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.last_in, self.waiting, self._oldest = store.waiting(self._name)
        entry, row = self._at = store.progress(self._name)
        first = store.entries(self._name, 0, 1)
        within = bool(first) and first[0].id == entry
        self.waiting -= row if within else 0
        self.done = entry - 1 if within else entry
        outbox = store.outbox(self._name)
        self.pending: int | None = None if outbox is None else outbox.after
        self.recovered = False  # whether what the last process had settled has been pushed
        self._asker: Asker | None = None
        self._queue: asyncio.Queue[Asked] = asyncio.Queue()
        # Questions that are being asked, by key; and those of them that are answered, and in the cache by now.
        self._under_way: dict[bytes, asyncio.Future[Outcome]] = {}
        self._answered: list[bytes] = []
        self._fingerprint = b""

    # -- for feeds, in their threads -------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more events may wait."""
        return self.spec.backlog - self.waiting

    def taken_in(self, last: int, rows: int, received: int) -> None:
        """Events have been taken in."""
        with self._lock:
            self.last_in = max(self.last_in, last)
            self.waiting += rows
            if self._oldest is None:
                self._oldest = received
        with self._changed:
            self._changed.notify_all()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._arrived.set)

    def letters(self, letters: Sequence[tuple[str, str, bytes]]) -> None:
        """Sets events aside, each known by an identity: once however often it is told.

        Raises:
            StorageError: They could not be kept.
        """
        source = f"enrich {self.enrichment.base.name}"
        rows = [(source, reason, raw, f"{self._name}/{identity}") for identity, reason, raw in letters]
        self._runner.dead_letters.add_each(self._name, self._runner.app.clock.now(), rows)
        self.tally.failed += len(rows)

    def fail(self, reason: str) -> None:
        """It has stopped for good."""
        self.tally.failure = reason
        with self._changed:
            self._changed.notify_all()

    def figures(self) -> EnrichmentFigures:
        """Its figures; from any thread."""
        counts = {name: value for name, value in vars(self.tally).items() if name not in ("problem", "failure")}
        oldest = self._oldest
        lag = 0.0 if oldest is None else max(0.0, (self._runner.app.clock.now() - oldest) / SECOND)
        running = 0 if self._asker is None else self._asker.running
        problem = self.tally.failure or self.tally.problem
        return EnrichmentFigures(
            self.enrichment.base.name, **counts, waiting=self.waiting, running=running, lag=lag, problem=problem
        )

    # -- in the loop -----------------------------------------------------------------------------------------------

    async def run(self, asker: Asker, fingerprint: bytes) -> None:
        """Until it is cancelled.

        Args:
            asker: What asks.
            fingerprint: What tells its answers from those to other questions.
        """
        self._loop, self._asker, self._fingerprint = asyncio.get_running_loop(), asker, fingerprint
        await persist(self.tally, self._recover)
        self.recovered = True
        with self._changed:
            self._changed.notify_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fill())
            group.create_task(self._leave())
            for _ in range(self.spec.concurrent):
                group.create_task(self._work(asker))

    def _recover(self) -> None:
        """Pushes what a crash may have kept from being pushed."""
        outbox = self._store.outbox(self._name)
        if outbox is None:
            return
        self._set_aside(outbox)
        if not any(record.stream == self._name for record in self._runner.log.replay(outbox.after)):
            self._push(outbox)
        self._pushed()

    async def _work(self, asker: Asker) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self.spec.batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await asker.ask(batch)
            await self._keep(batch)

    async def _keep(self, batch: Iterable[Asked]) -> None:
        kept = []
        for one in batch:
            outcome = one.outcome.result()
            if one.key is not None and isinstance(outcome, Found):
                kept.append((one.key, outcome.said))
        if kept:
            now = self._runner.app.clock.now()
            await persist(self.tally, partial(self._store.keep, kept, now))
        self._answered += [one.key for one in batch if one.key is not None]

    # -- in ----------------------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        last, (entry, skip) = 0, self._at
        while True:
            self._arrived.clear()
            found = await persist(self.tally, partial(self._store.entries, self._name, last, _ENTRIES))
            for one in found:
                last = one.id
                frame = self.enrichment.base.schema.align(one.frame)
                aligned = Entry(one.id, one.received, frame)
                start = skip if one.id == entry else 0
                for begin in range(start, frame.height, _AT_ONCE):
                    await self._ask_about(aligned, begin, min(begin + _AT_ONCE, frame.height))
            if not found:
                await self._arrived.wait()

    async def _ask_about(self, entry: Entry, begin: int, end: int) -> None:
        answered, self._answered = self._answered, []
        for one in answered:  # from here on they are found in the cache, which is asked next
            del self._under_way[one]
        rows = entry.frame.slice(begin, end - begin).rows(named=True)
        questions = [self._question(row) for row in rows]
        keys = [self._key(one) for one in questions]
        known = await self._known({key for key in keys if key is not None})
        for row, (question, key) in enumerate(zip(questions, keys, strict=True), begin):
            while len(self._slots) >= self._window:
                self._moved.clear()
                await self._moved.wait()
            self._slots.append(Slot(entry, row, self._outcome(question, key, known)))
            self._moved.set()

    def _outcome(
        self, question: Question | Failed, key: bytes | None, known: Mapping[bytes, Found]
    ) -> asyncio.Future[Outcome]:
        if key is not None and key in self._under_way:
            self.tally.cached += 1
            return self._under_way[key]
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if isinstance(question, Failed):
            outcome.set_result(question)
        elif key is not None and key in known:
            self.tally.cached += 1
            outcome.set_result(known[key])
        else:
            if key is not None:
                self._under_way[key] = outcome
            self._queue.put_nowait(Asked(question, key, outcome))
        return outcome

    def _question(self, row: Mapping[str, Any]) -> Question | Failed:
        try:
            return self.enrichment.question(row)
        except Exception as error:  # noqa: BLE001 - the app's own function: what it raises is the event's reason
            return Failed(f"the prompt's function raised {type(error).__name__}: {error}")

    def _key(self, question: Question | Failed) -> bytes | None:
        if self.spec.cache is None or isinstance(question, Failed):
            return None
        return xxhash.xxh3_128_digest(self._fingerprint + question.alone().encode("utf-8", "surrogatepass"))

    async def _known(self, keys: set[bytes]) -> dict[bytes, Found]:
        if self.spec.cache is None or not keys:
            return {}
        since = self._runner.app.clock.now() - self.spec.cache
        found = await persist(self.tally, partial(self._store.answers, sorted(keys), since))
        known = {}
        for key, said in found.items():
            try:
                known[key] = Found(self.answers.read(msgspec.json.decode(said)), said)
            except BadAnswerError:
                continue  # the model of the output has become stricter: asked again
        return known

    # -- out ---------------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        while True:
            while not self._slots:
                self._moved.clear()
                await self._moved.wait()
            await asyncio.wait([self._slots[0].outcome])
            leaving: list[Slot] = []
            for slot in self._slots:
                if len(leaving) == _MOST_OUT or not slot.outcome.done():
                    break
                leaving.append(slot)
            await self._settle(leaving)
            for _ in leaving:
                self._slots.popleft()
            self._moved.set()

    async def _settle(self, leaving: list[Slot]) -> None:
        """What came of the next events goes into the outbox, and from there to the derived stream."""
        last = leaving[-1]
        whole = last.row + 1 == last.entry.frame.height
        self.pending = self._runner.log.position
        outbox = await asyncio.to_thread(self._outbox, leaving, self.pending)
        finished = last.entry.id if whole else last.entry.id - 1
        place = (last.entry.id, last.row + 1, finished)
        await persist(self.tally, partial(self._store.decide, self._name, *place, outbox))
        # Each is done again by itself if it fails: a push that is stored is never made again.
        for step in (partial(self._set_aside, outbox), partial(self._push, outbox), self._pushed):
            await persist(self.tally, step)
        following = self._slots[len(leaving)] if len(self._slots) > len(leaving) else leaving[-1]
        with self._lock:
            self.waiting -= len(leaving)
            self._oldest = following.entry.received if self.waiting else None
        self.done = finished
        with self._changed:
            self._changed.notify_all()

    def _outbox(self, leaving: list[Slot], after: int) -> Outbox:
        frames: list[pl.DataFrame] = []
        letters: list[Letter] = []
        for _, of_entry in groupby(leaving, key=lambda slot: slot.entry.id):
            slots = list(of_entry)
            base = slots[0].entry.frame
            for slot in slots:
                if isinstance(outcome := slot.outcome.result(), Failed):
                    (raw,) = lines(self.enrichment.base.schema, base.slice(slot.row, 1))
                    letters.append((f"enrich#{slot.entry.id}.{slot.row}", outcome.reason, raw))
            found = [(slot.row, one.frame) for slot in slots if isinstance(one := slot.outcome.result(), Found)]
            if found:
                rows = base[[row for row, _ in found]]
                frames.append(pl.concat([rows, pl.concat([frame for _, frame in found])], how="horizontal"))
        frame = pl.concat(frames).select(self._columns) if frames else None
        return Outbox(after, frame, letters)

    def _set_aside(self, outbox: Outbox) -> None:
        if outbox.letters:
            self.letters(outbox.letters)

    def _push(self, outbox: Outbox) -> None:
        """Pushes what is settled.

        Raises:
            StorageError: It is not stored.
        """
        if outbox.frame is not None:
            stream = self.enrichment.stream
            self._runner.submit(stream, stream.schema.align(outbox.frame))
            self.tally.events += outbox.frame.height

    def _pushed(self) -> None:
        self._store.pushed(self._name)
        self.pending = None
