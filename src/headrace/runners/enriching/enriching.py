"""All enrichments of a running app: one thread with one event loop, which asks the models of all of them.

It stands beside the runner, and after it: it is opened when the runner is there, and closed before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headrace.errors import ClosedError, ConfigError
from headrace.runners.base import Runner
from headrace.runners.enriching.asker import Asker, persist
from headrace.runners.enriching.feeds import Feed, PushFeed, SourceFeed
from headrace.runners.enriching.figures import EnrichmentFigures
from headrace.runners.enriching.governor import Governor
from headrace.runners.enriching.stage import Stage
from headrace.runners.local import LocalRunner
from headrace.stores.datadir import Layout
from headrace.stores.enrichments import EnrichmentStore
from headrace.upstream.pool import Pool
from headrace.upstream.spec import Upstream

if TYPE_CHECKING:
    from headrace.app import App

logger = logging.getLogger("headrace")
_EXPIRE = 3600.0
_CLOSE_SECONDS = 10.0


class Enriching:
    """Runs an app's enrichments.

    Args:
        app: What was declared.
        path: The data directory, which the runner holds; None keeps nothing once it is closed.
        runner: What the app runs on.

    Raises:
        ConfigError: There is no model server, a key cannot be had, or the runner cannot be followed.
        StorageError: What is on the disk cannot be read.
    """

    def __init__(self, app: App, path: Path | None, runner: Runner) -> None:
        app.check_enrichments(app.runner)
        if not isinstance(runner, LocalRunner):
            raise ConfigError(f"the app {app.name!r} asks models in its streams, which needs the runner 'local'")
        self._app, self._runner = app, runner
        self._upstreams = {name: app.upstreams_of(one) for name, one in app.enrichments.items()}
        for upstream in {one for some in self._upstreams.values() for one in some}:
            upstream.key()  # one that cannot be had is found here
        folder = Path(tempfile.mkdtemp(prefix="headrace-")) if path is None else path
        self._temporary = folder if path is None else None
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="headrace-enrich", daemon=True)
        self._closed = False
        with contextlib.ExitStack() as undo:
            undo.callback(self._remove)
            layout = Layout(folder)
            self._store = EnrichmentStore(layout.enrichments, durable=path is not None)
            undo.callback(self._store.close)
            self._stages = {
                name: Stage(one, runner, self._store, self._changed) for name, one in app.enrichments.items()
            }
            self._feeds = {
                name: self._feeds_of(one, None if path is None else layout.log) for name, one in self._stages.items()
            }
            undo.pop_all()
        runner.checkpointer.floor = self.floor

    def _feeds_of(self, stage: Stage, log: Path | None) -> list[Feed]:
        release = self._release if log is None else lambda: None  # what is on the disk goes with a checkpoint
        feeds: list[Feed] = [PushFeed(stage, self._runner, self._store, log, self._changed, release)]
        if stage.enrichment.base.url is not None:
            feeds.append(SourceFeed(stage, self._runner, self._store, self._changed))
        return feeds

    def start(self) -> None:
        """Begins to read and to ask."""
        self._thread.start()
        self._ready.wait()
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.start()

    def floor(self, upto: int) -> int:
        """The push log's position up to which nothing is needed here, at most `upto`."""
        needed = [position for some in self._feeds.values() for feed in some if (position := feed.floor()) is not None]
        pending = [stage.pending for stage in self._stages.values() if stage.pending is not None]
        return min([upto, *needed, *pending])

    def _release(self) -> None:
        log = self._runner.log
        log.truncate(self.floor(log.position))

    def drain(self, timeout: float | None) -> bool:
        """Waits until all input that is there now has come out, and has been processed; False if it did not in time.

        Raises:
            ClosedError: An enrichment or the engine has stopped.
        """
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        # In the order of their declaration, so one that follows another comes after it.
        for name, stage in self._stages.items():
            for feed in self._feeds[name]:
                if not feed.caught_up(left()):
                    return False
            last = stage.last_in
            with self._changed:
                if not self._changed.wait_for(partial(self._settled, stage, last), left()):
                    return False
            if stage.done < last or stage.tally.failure is not None:
                raise ClosedError(f"the enrichment {name!r} has stopped: {stage.tally.failure or 'the app is closed'}")
            if not self._runner.drain(left()):
                return False
        return True

    def _settled(self, stage: Stage, last: int) -> bool:
        return (stage.recovered and stage.done >= last) or self._closed or stage.tally.failure is not None

    def again(self, name: str, frame: pl.DataFrame) -> None:
        """Takes events in once more, that were dead letters.

        Raises:
            StorageError: They could not be stored.
        """
        now = self._app.clock.now()
        last = self._store.take_in(name, None, None, [(now, frame)])
        self._stages[name].taken_in(last, frame.height, now)

    def figures(self) -> dict[str, EnrichmentFigures]:
        """Of each enrichment, how it stands."""
        return {name: stage.figures() for name, stage in self._stages.items()}

    def problem(self) -> str | None:
        """Which enrichment has stopped for good, or None; a model that is away is no such problem."""
        for name, stage in self._stages.items():
            if stage.tally.failure is not None:
                return f"the enrichment {name!r} has stopped: {stage.tally.failure}"
        return None

    def close(self) -> None:
        """Ends all calls and lets go of everything; what has not come out is asked about after the next start."""
        if self._closed:
            return
        self._closed = True
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.close()
        if self._thread.ident is not None and self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                # A push waits for an engine that takes nothing in: it is stored, and counted after the next start.
                self._runner.inbox.close()
                self._thread.join()
        with self._changed:
            self._changed.notify_all()
        self._store.close()
        self._remove()

    def _remove(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:
            logger.exception("enrichment has stopped")
            for stage in self._stages.values():
                stage.fail(f"{type(error).__name__}: {error}")
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        pools: dict[Sequence[Upstream], Pool] = {}
        for some in self._upstreams.values():
            pools.setdefault(some, Pool(some, hedge=False))
        tasks = [asyncio.create_task(self._guarded(stage, pools)) for stage in self._stages.values()]
        tasks.append(asyncio.create_task(self._expire()))
        self._ready.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in pools.values():
            await pool.close()

    async def _guarded(self, stage: Stage, pools: dict[Sequence[Upstream], Pool]) -> None:
        name, upstreams = stage.enrichment.name, self._upstreams[stage.enrichment.name]
        try:
            governor = Governor(name, stage.spec, self._store, self._app.clock.now)
            asker = Asker(stage.spec, pools[upstreams], stage.answers, governor, stage.tally)
            await stage.run(asker, stage.spec.fingerprint(upstreams))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of Polars is no Exception, and nothing may end unnoticed
            logger.exception("the enrichment %r has stopped", name)
            first = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            stage.fail(f"{type(first).__name__}: {first}")

    async def _expire(self) -> None:
        """Answers that are too old for all are dropped, now and then."""
        longest = max((stage.spec.cache or 0 for stage in self._stages.values()), default=0)
        first = next(iter(self._stages.values()))
        while True:
            await persist(first.tally, partial(self._store.expire, self._app.clock.now() - longest))
            await asyncio.sleep(_EXPIRE)
