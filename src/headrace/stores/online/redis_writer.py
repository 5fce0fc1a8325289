"""The engine's side: rows in pipelines of bounded size, then the word of how far it has come.

    write ─► rows, sent without waiting ─► all answered ─► "advance" (a script: only if this engine still may)
      │ the server is away, or has lost something
      └─► wait, then: what it holds is what was written last? ─► send this batch again
                                                      └─ no ──► claim, every live row, "ready"

Rows are absolute values under stable names, so anything may be sent twice. A write does not return before reads see
it, so while the server is away the stream stands still; reading on would only fill memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from headrace.changes import Rows
from headrace.errors import LockedError, StorageError
from headrace.stores.online import redis_meta as meta
from headrace.stores.online.base import Codec, Keeper, Progress
from headrace.stores.online.redis_link import AWAY, LaneSet, Link, away
from headrace.stores.online.redis_meta import Meta, RunRecord, Writer
from headrace.stores.online.redis_wire import SLACK, channel, meta_key, prefix, row_commands

logger = logging.getLogger("headrace")

# Bytes and commands of one send.
_CHUNK = 256 << 10
_COMMANDS = 4_096
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0


class RedisWriter:
    """Writes what an engine changes.

    Args:
        link: The connections.
        app: The app's name.
        codecs: By view.
        keepers: By view: what holds every live row.
        writer: Which of the run's writers this is.
        expires: Whether rows may end by the server's clock.
    """

    def __init__(
        self,
        link: Link,
        app: str,
        codecs: Mapping[str, Codec],
        keepers: Mapping[str, Keeper],
        writer: Writer,
        expires: bool,
    ) -> None:
        self._link = link
        self._app = app
        self._meta, self._channel = meta_key(app), channel(app)
        self._views = {name: codec.fingerprint for name, codec in codecs.items()}
        self._live_for = {
            name: codec.horizon + SLACK if expires and codec.horizon is not None else None
            for name, codec in codecs.items()
        }
        self._keepers = keepers
        self._writer = writer
        self._lanes: LaneSet | None = None
        self._number = 0  # of the last word that the server has acknowledged
        self._whole = True  # whether the server may lack rows
        self._unsure = False  # whether it is not known what the server has of the last write
        self._quit = threading.Event()
        self._prefixes: dict[str, bytes] = {}
        self.epoch: int | None = None
        self.published = threading.Event()
        self.problem: str | None = None
        self.fenced: str | None = None

    # -- what the engine calls -------------------------------------------------------------------------------------

    def write(self, rows: Callable[[], Iterable[Rows]], progress: Progress) -> None:
        """Writes changed rows and the progress; tries until it is done, or `give_up` is called.

        Raises:
            LockedError: Another engine has taken over.
        """
        changed = list(rows())
        wait = _FIRST_WAIT
        while not self._try(changed, progress):
            if self._quit.wait(wait):
                logger.warning("closing without a last write, the next start makes up for it: %s", self.problem)
                return
            wait = min(wait * 2, _LONGEST_WAIT)

    def beat(self, progress: Progress) -> bool:
        """Says how far the engine has come; tries once, and says whether it is done.

        Raises:
            LockedError: Another engine has taken over.
        """
        return self._try([], progress)

    def give_up(self) -> None:
        """Ends a write that waits for the server."""
        self._quit.set()

    def close(self) -> None:
        self._quit.set()
        self._drop()

    # -- one attempt -----------------------------------------------------------------------------------------------

    def _try(self, changed: Sequence[Rows], progress: Progress) -> bool:
        if self.fenced is not None:
            raise LockedError(self.fenced)
        try:
            if self._unsure and not self._whole:
                self._whole = not self._still_there()
            if self._whole:
                self._rewrite(progress)
            else:
                self._send(changed)
                self._advance(progress)
        except AWAY as error:
            self._failed(away(self._link.target, error))
            return False
        except LockedError:
            self._drop()
            raise
        except StorageError as error:
            self._failed(error)
            return False
        if self.problem is not None:
            logger.warning("the online store at %s is written again", self._link.target.shown)
        self.problem = None
        self._unsure = False
        return True

    def _failed(self, error: StorageError) -> None:
        if self.problem is None:
            logger.warning("%s; the stream waits and tries again", error)
        self.problem = str(error)
        self._unsure = True
        # On one server what is written last is lost first; of several, one may have lost what the others have.
        self._whole = self._whole or self._link.divided
        self._drop()
        self._link.renew()

    def _drop(self) -> None:
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()

    def _open(self) -> LaneSet:
        if self._lanes is None:
            self._lanes = self._link.lanes()
        return self._lanes

    def _still_there(self) -> bool:
        """Whether the server has what was acknowledged last: then, on one server, also all that came before."""
        assert self.epoch is not None
        found = Meta.of(self._open().call((b"HGETALL", self._meta)))
        self._check_claim(found.claim(), lost=True)
        said = found.fields.get(meta.at_field(self.epoch) + b"%d" % self._writer.number, b"")
        start, number = self._writer.start, self._number
        if said.startswith(b"%d %d " % (start, number + 1)):
            # The word itself came through, and its answer did not.
            self._number += 1
            return True
        return said.startswith(b"%d %d " % (start, number))

    # -- rows ------------------------------------------------------------------------------------------------------

    def _send(self, changed: Iterable[Rows]) -> None:
        """Sends rows, in parts of bounded size to each server, and waits until all are written."""
        lanes = self._open()
        parts: dict[str, tuple[list[bytes], list[int]]] = {}
        now = time.time_ns() // 1000
        for rows in changed:
            start, live_for = self._prefixes[rows.view], self._live_for[rows.view]
            for key, packed, commands in row_commands(start, rows, live_for, now):
                lane = lanes.name(key)
                part, size = parts.setdefault(lane, ([], [0, 0]))
                part.append(packed)
                size[0] += commands
                size[1] += len(packed)
                if size[0] >= _COMMANDS or size[1] >= _CHUNK:
                    lanes.send(lane, part, size[0])
                    del parts[lane]
        for lane, (part, size) in parts.items():
            lanes.send(lane, part, size[0])
        lanes.settle()

    def _advance(self, progress: Progress) -> None:
        assert self.epoch is not None
        number = self._number + 1
        command = meta.advance(self._meta, self._channel, self._writer, self.epoch, number, progress)
        outcome, held = self._open().call(command)
        if outcome == b"done":
            self._number = number
            return
        self._whole = True
        if outcome == b"claim":
            self._check_claim(meta.parse_claim(held) if held else None, lost=True)
        elif meta.start_of(held) > self._writer.start:
            self._fence(f"another writer {self._writer.number} of the same run")
        raise StorageError(
            f"the online store at {self._link.target.shown} has lost what was written last: it was restarted, emptied "
            "or replaced by a copy; everything is written again"
        )

    def _rewrite(self, progress: Progress) -> None:
        """Claims the store, writes every live row, and makes them the valid ones."""
        begun = time.monotonic()
        lanes = self._open()
        first = self.epoch is None
        asked = self.epoch if self.epoch is not None else self._writer.start
        claim = meta.parse_claim(lanes.call(meta.claim(self._meta, self._writer, asked, first=first)))
        self._check_claim(claim, lost=False)
        self.epoch = claim[0]
        self._prefixes = {view: prefix(self._app, view, self.epoch) for view in self._keepers}
        written = 0
        for keeper in self._keepers.values():
            for rows in keeper.all_rows():
                self._send([rows])
                written += len(rows.keys)
        record = RunRecord(self._writer.run, self.epoch, self._writer.writers, self._views)
        command = meta.ready(self._meta, self._channel, self._writer, record, 1, progress)
        outcome, held = lanes.call(command)
        if outcome != b"done":
            self._check_claim(meta.parse_claim(held) if held else None, lost=True)
            raise StorageError(f"the online store at {self._link.target.shown} was emptied while it was written")
        self._number, self._whole = 1, False
        self.published.set()
        seconds = time.monotonic() - begun
        logger.info("wrote %d rows to the online store at %s in %.2f s", written, self._link.target.shown, seconds)

    # -- who may write ---------------------------------------------------------------------------------------------

    def _check_claim(self, claim: tuple[int, str] | None, *, lost: bool) -> None:
        """Stops for good if a later engine has taken over; an older claim, or none, is what a server has lost."""
        if claim is not None and claim[1] != self._writer.run and (self.epoch is None or claim[0] > self.epoch):
            self._fence(f"the run {claim[1]}")
        if lost and (claim is None or claim[1] != self._writer.run):
            self._whole = True

    def _fence(self, other: str) -> None:
        self.fenced = (
            f"another engine has taken over the app {self._app!r} in the online store at {self._link.target.shown}: "
            f"{other} started later, and one engine at a time may write. Stop one of the two, or give one of them "
            "another app name or another database"
        )
        self.problem = self.fenced
        raise LockedError(self.fenced)
