"""Removes the rows of generations that are no longer valid, in a thread of its own and without hurry.

Nothing reads them. Where events are stamped by the wall clock the server lets go of them by itself in time; elsewhere,
and when engines are started again and again, they would pile up.
"""

from __future__ import annotations

import logging
import threading

from headrace.stores.online.redis_link import AWAY, Link, away
from headrace.stores.online.redis_wire import generation

logger = logging.getLogger("headrace")

# A reader that still knows the old generation alone is told of the new one within this time.
_GRACE = 2.0
_SCAN = 1_000


class Cleaner(threading.Thread):
    """Removes the rows of an app that are older than a generation, once.

    Attributes:
        removed: How many keys are gone.
    """

    def __init__(self, link: Link, app: str, epoch: int, grace: float = _GRACE) -> None:
        super().__init__(name="headrace-redis-cleaner", daemon=True)
        self._link, self._app, self._epoch, self._grace = link, app, epoch, grace
        self._closing = threading.Event()
        self.removed = 0

    def run(self) -> None:
        if self._closing.wait(self._grace):
            return
        try:
            self._clean()
        except AWAY as error:
            # The next engine that starts does it.
            logger.warning("old rows could not be removed: %s", away(self._link.target, error))

    def _clean(self) -> None:
        for client in self._link.nodes():
            cursor: int | None = None
            while cursor != 0 and not self._closing.is_set():
                cursor, keys = client.scan(cursor or 0, match=f"hr:{self._app}:*", count=_SCAN)
                old = [key for key in keys if (found := generation(key, self._app)) is not None and found < self._epoch]
                if old:
                    pipeline = client.pipeline(transaction=False)
                    for key in old:
                        pipeline.unlink(key)
                    pipeline.execute()
                    self.removed += len(old)
        if self.removed:
            logger.info("removed %d keys of earlier runs from %s", self.removed, self._link.target.shown)

    def close(self) -> None:
        self._closing.set()
        if self.ident is not None and threading.current_thread() is not self:
            self.join()
