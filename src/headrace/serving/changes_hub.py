"""Who wants to know what changes, and what has: the middle between engine, tables and collections, and subscribers.

Three things must hold. Whoever reports a change never waits (the engine reports from its own thread): a report goes
into a bounded queue, and a thread of the hub's own hands it out. A subscriber that is slow costs bounded memory: of
what is subscribed to it is owed each subject once, as it is when it is told, however often it changed meanwhile; past
a bound it is told that it has lost track. And a subscriber that comes back goes on where it was: the hub remembers the
number of each watched subject's last change, so "all after number n" has an exact answer, or is known to have none.

What has not been subscribed to for a while is not watched, and a view that nobody watches costs the engine nothing.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from headrace.errors import ClosedError, TooLargeError

logger = logging.getLogger("headrace")

Subject = tuple[str, str, Any]
"""What can change: its kind ("features", "document", "row", "pack"), the name of what it is of, and its key."""


class _All:
    """Stands for every key of a name."""


ALL: Final = _All()
MOST_SUBSCRIBERS = 256
MOST_SUBJECTS = 1_000
# Of one subscriber, changes that were not told yet; of all, changes that a returning one can be told.
_MOST_PENDING = 10_000
_MOST_REMEMBERED = 65_536
# Reported keys that were not handed out yet.
_MOST_REPORTED = 1 << 20
_AT_ONCE = 256
# How long what nobody subscribes to any more is watched, for a client that comes back.
_LINGER = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """A change: its number, what changed, and what the reporter said of it."""

    number: int
    subject: Subject
    detail: Any


@dataclass(frozen=True, slots=True)
class Taken:
    """What a subscriber is owed.

    Attributes:
        changes: In the order of their numbers.
        gap: "reset" if it cannot be told what changed since it was last here, "lost" if more changed than is kept for
            it; in both cases all that it subscribes to should be read again. Else empty.
        number: Up to which this is all.
        closed: Whether nothing will come any more.
    """

    changes: list[Told]
    gap: str
    number: int
    closed: bool


class Feed(Protocol):
    """Where changes come from."""

    def attach(self, kind: str, name: str, key: Any) -> None:
        """Somebody watches this from now on: its changes are reported."""

    def detach(self, kind: str, name: str, key: Any) -> None:
        """Nobody does any more."""


@dataclass
class _Watch:
    """One subject, or all of a name; every change after `since` is remembered."""

    since: int
    subscribers: set[Subscription] = field(default_factory=set)
    left: float = 0.0


class Subscription:
    """One subscriber's place; made by `Hub.subscribe`, given back by `close`."""

    def __init__(self, hub: Hub, wants: frozenset[Subject], wake: Callable[[], None]) -> None:
        self._hub = hub
        self._wake = wake
        self._awake = False
        self.wants = wants
        self.pending: dict[Subject, tuple[int, Any]] = {}
        self.gap = ""
        self.closed = False

    def owe(self, subject: Subject, number: int, detail: Any) -> None:
        """Adds a change; with the hub's lock held."""
        if len(self.pending) >= _MOST_PENDING and subject not in self.pending:
            self.lose("lost")
            return
        self.pending.pop(subject, None)
        self.pending[subject] = (number, detail)
        self.rouse()

    def lose(self, why: str) -> None:
        """Forgets what was owed, and says so."""
        self.pending.clear()
        self.gap = self.gap or why
        self.rouse()

    def rouse(self) -> None:
        """Calls the subscriber, once until it has come."""
        if not self._awake:
            self._awake = True
            self._wake()

    def take(self, most: int = 100) -> Taken:
        """What there is to tell, the oldest first; never waits for anything but the hub's lock."""
        with self._hub.lock:
            gap, self.gap = self.gap, ""
            first = [] if gap else list(self.pending)[:most]
            changes = [Told(self.pending[one][0], one, self.pending[one][1]) for one in first]
            for one in first:
                del self.pending[one]
            number = changes[-1].number if changes else self._hub.number
            self._awake = bool(self.pending)
            return Taken(changes, gap, number, self.closed)

    def close(self) -> None:
        """Gives the place back; again does nothing."""
        self._hub.leave(self)


class Hub:
    """Takes reports and hands them out.

    Args:
        feed: Where changes come from.
        remembered: The changes that a returning subscriber can be told.
        subscribers: The most at once.
        linger: Seconds for which what nobody subscribes to any more is still watched.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        remembered: int = _MOST_REMEMBERED,
        subscribers: int = MOST_SUBSCRIBERS,
        linger: float = _LINGER,
    ) -> None:
        # Another process numbers its changes otherwise: a number is only worth something with this name.
        self.name = secrets.token_hex(6)
        self.number = 0
        self.lock = threading.Lock()
        self.most = subscribers
        self.keep_alive = 15.0
        self._feed = feed
        self._remembered = remembered
        self._linger = linger
        self._floor = 0
        self._ring: OrderedDict[Subject, tuple[int, Any]] = OrderedDict()
        self._topics: dict[tuple[str, str], dict[Any, _Watch]] = {}
        self._subscriptions: set[Subscription] = set()
        self._changing = threading.Lock()  # one subscribes or leaves at a time: feeds are attached outside of `lock`
        self._gate = threading.Lock()
        self._reports: deque[tuple[str, str, Sequence[Any], Sequence[Any] | None] | Callable[[], None]] = deque()
        self._reported = 0
        self._overrun = False
        self._news = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    # -- reporting -------------------------------------------------------------------------------------------------

    def report(self, kind: str, name: str, keys: Sequence[Any], details: Sequence[Any] | None = None) -> None:
        """Says that these have changed; from any thread, at once."""
        with self._gate:
            if self._reported + len(keys) > _MOST_REPORTED:
                self._overrun = True
            else:
                self._reported += len(keys)
                self._reports.append((kind, name, keys, details))
        self._news.set()

    def soon(self, work: Callable[[], None]) -> None:
        """Has something done on the hub's thread, after what was reported so far."""
        with self._gate:
            self._reports.append(work)
        self._news.set()

    def _run(self) -> None:
        while not self._closed:
            self._news.wait(self._linger / 4)
            self._news.clear()
            try:
                self._hand_out()
                self._forget()
            except Exception:
                # Subscribers must not take for silence what is a fault of ours.
                logger.exception("changes could not be told; subscribers are told that they lost track")
                self._lose_all()

    def _hand_out(self) -> None:
        while True:
            with self._gate:
                overrun, self._overrun = self._overrun, False
                report = self._reports.popleft() if self._reports else None
                if isinstance(report, tuple):
                    self._reported -= len(report[2])
            if overrun:
                self._lose_all()
            if report is None:
                return
            if isinstance(report, tuple):
                self._deliver(*report)
            else:
                report()

    def _deliver(self, kind: str, name: str, keys: Sequence[Any], details: Sequence[Any] | None) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            # In small parts: whoever takes what it is owed waits for this lock.
            with self.lock:
                topic = self._topics.get((kind, name))
                if topic is None:
                    return
                whole = topic.get(ALL)
                for place in range(start, min(start + _AT_ONCE, len(keys))):
                    one = topic.get(keys[place])
                    if one is not None or whole is not None:
                        detail = None if details is None else details[place]
                        self._note((kind, name, keys[place]), detail, whole, one)

    def _note(self, subject: Subject, detail: Any, *watches: _Watch | None) -> None:
        self.number += 1
        self._ring.pop(subject, None)
        self._ring[subject] = (self.number, detail)
        if len(self._ring) > self._remembered:
            self._floor = self._ring.popitem(last=False)[1][0]
        for watch in watches:
            for subscription in watch.subscribers if watch is not None else ():
                subscription.owe(subject, self.number, detail)

    def _lose_all(self) -> None:
        with self.lock:
            self.number += 1
            self._ring.clear()
            self._floor = self.number
            for subscription in self._subscriptions:
                subscription.lose("lost")

    # -- subscribing -----------------------------------------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._subscriptions)

    @property
    def watched(self) -> int:
        """How many subjects are watched, or were until a moment ago."""
        return sum(len(topic) for topic in self._topics.values())

    def subscribe(
        self, wants: Iterable[Subject], wake: Callable[[], None], after: tuple[str, int] | None = None
    ) -> Subscription:
        """A place for a subscriber.

        Args:
            wants: What it is told of; a key of `ALL` is every key.
            wake: Called from another thread when there is something to take; it must return at once.
            after: The hub's name and the number that it has been told up to, if it was here before.

        Raises:
            TooLargeError: There are too many subscribers, or one asks for too much.
            ClosedError: The hub is closed.
        """
        wanted = frozenset(wants)
        if len(wanted) > MOST_SUBJECTS:
            raise TooLargeError(
                f"expected at most {MOST_SUBJECTS:,} subjects a subscription, found {len(wanted):,}; "
                "subscribe to a whole view, or in parts"
            )
        made = Subscription(self, wanted, wake)
        with self._changing:
            if self._closed:
                raise ClosedError("the app is closed: open it again to follow its changes")
            if len(self._subscriptions) >= self.most:
                raise TooLargeError(f"expected at most {self.most} subscribers at once; come back shortly")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-changes", daemon=True)
                self._thread.start()
            with self.lock:
                fresh = [one for one in wanted if self._watch(one, made)]
                self._subscriptions.add(made)
                if after is not None:
                    self._resume(made, after)
            try:
                for one in fresh:
                    self._feed.attach(*one)
            except BaseException:
                with self.lock:
                    self._withdraw(made)
                    for one in fresh:
                        self._drop(one)
                for one in fresh:  # of what was not attached, that does nothing
                    self._feed.detach(*one)
                raise
        return made

    def _watch(self, subject: Subject, subscription: Subscription) -> bool:
        """Puts it among those who are told; whether it was not watched before."""
        kind, name, key = subject
        topic = self._topics.setdefault((kind, name), {})
        known = topic.get(key)
        watch = known or topic.setdefault(key, _Watch(self.number))
        watch.subscribers.add(subscription)
        return known is None

    def _resume(self, subscription: Subscription, after: tuple[str, int]) -> None:
        name, number = after
        since = [self._topics[kind, of][key].since for kind, of, key in subscription.wants]
        if name != self.name or not self._floor <= number <= self.number or any(one > number for one in since):
            subscription.lose("reset")
            return
        missed = []
        for subject, (one, detail) in reversed(self._ring.items()):
            if one <= number:
                break
            if subject in subscription.wants or (*subject[:2], ALL) in subscription.wants:
                missed.append((subject, one, detail))
        for subject, one, detail in reversed(missed):
            subscription.owe(subject, one, detail)

    def leave(self, subscription: Subscription) -> None:
        """Gives a place back."""
        with self.lock:
            self._withdraw(subscription)

    def _withdraw(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        for kind, name, key in subscription.wants:
            watch = self._topics.get((kind, name), {}).get(key)
            if watch is not None:
                watch.subscribers.discard(subscription)
                watch.left = time.monotonic()

    def _forget(self) -> None:
        """Stops watching what nobody has subscribed to for a while, or too much of it."""
        with self._changing:
            now = time.monotonic()
            with self.lock:
                idle = [
                    (watch.left, (kind, name, key))
                    for (kind, name), topic in self._topics.items()
                    for key, watch in topic.items()
                    if not watch.subscribers
                ]
                idle.sort(key=lambda one: one[0])
                excess = len(idle) - self._remembered
                gone = [one for place, (left, one) in enumerate(idle) if left + self._linger <= now or place < excess]
                for one in gone:
                    self._drop(one)
            for one in gone:
                self._feed.detach(*one)

    def _drop(self, subject: Subject) -> None:
        topic = self._topics.get(subject[:2], {})
        topic.pop(subject[2], None)
        if not topic:
            self._topics.pop(subject[:2], None)

    def close(self) -> None:
        """Tells everybody that nothing comes any more; again does nothing."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            with self.lock:
                watched = [(*topic, key) for topic, found in self._topics.items() for key in found]
                self._topics.clear()
                for subscription in self._subscriptions:
                    subscription.closed = True
                    subscription.rouse()
                self._subscriptions.clear()
            for one in watched:
                self._feed.detach(*one)
        self._news.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
