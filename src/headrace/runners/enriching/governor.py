"""When a call may begin: a rate, and budgets of tokens and money by the hour and the day.

Before a call the most that it can take is reserved: its prompt, estimated, and the longest answer that it asks for. A
call whose reservation does not fit waits for what is under way to cost less than was reserved, and then for the next
period. So a budget is kept as long as servers count as they say and stop where they are told to. What was spent is
stored when a call has ended, and a restart goes on from there; a call that a crash cut off is charged with what was
reserved, for the reservation is stored with it. A call belongs to the period in which it began: what it gives back when
that is over is given to nobody.

The rate is exact: no minute, wherever it begins, sees more calls begin than were allowed. The moment is given by the
app's clock, so that tests need not wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from headrace.enrich.spec import PERIODS, Llm
from headrace.stores.enrichments import Spent
from headrace.units import MINUTE, format_duration

MOST_TOKENS = 1 << 62  # what is counted up to: the ledger's integers have 64 bits


class Ledger(Protocol):
    """Where what was spent is kept."""

    def spent(self, name: str, period: str) -> Spent | None:
        """What was spent in the last period."""

    def spend(self, name: str, periods: dict[str, Spent]) -> None:
        """Notes it."""


class Governor:
    """Of one enrichment; for one thread at a time.

    Args:
        name: The enrichment.
        spec: Its limits.
        ledger: Where what was spent is kept.
        now: The app's clock.

    Raises:
        StorageError: What was spent cannot be read.
    """

    def __init__(self, name: str, spec: Llm, ledger: Ledger, now: Callable[[], int]) -> None:
        self._name, self._spec, self._ledger, self._now = name, spec, ledger, now
        self._begun: deque[int] = deque()
        periods = sorted({one.period for one in spec.limits})
        self._spent = {period: ledger.spent(name, period) or Spent(0, 0, 0.0) for period in periods}

    def impossible(self, tokens: int, money: float) -> str | None:
        """Why a call that may take as much can never be made, or None."""
        for limit in self._spec.limits:
            wanted = tokens if limit.what == "tokens" else money
            if wanted > limit.most:
                return (
                    f"a call may take {wanted:,.6g} of {limit.what}, more than the budget of {limit.most:,.6g} in "
                    f"a whole {limit.period}; give it more, or lower max_tokens or batch"
                )
        return None

    def wait(self, tokens: int, money: float) -> tuple[str, int] | None:
        """What a call has to wait for, and microseconds until it may begin at the latest; None if it may now."""
        now = self._now()
        if self._spec.per_minute is not None:
            while self._begun and not now - MINUTE < self._begun[0] <= now:
                self._begun.popleft()
            if len(self._begun) >= self._spec.per_minute:
                return "the rate", self._begun[0] + MINUTE - now
        for limit in self._spec.limits:
            spent = self._current(limit.period, now)
            taken = spent.tokens + tokens if limit.what == "tokens" else spent.money + money
            if taken > limit.most + 1e-9:
                left = spent.start + PERIODS[limit.period] - now
                return f"the budget of {limit.what} of this {limit.period}, {format_duration(max(1, left))} more", left
        return None

    def begin(self, tokens: int, money: float) -> int:
        """A call begins, which may take as much: it is charged now. Returns when, for `end`.

        Raises:
            StorageError: That could not be stored, and the call must not begin.
        """
        now = self._now()
        self._charge(now, tokens, money)
        if self._spec.per_minute is not None:
            self._begun.append(now)
        return now

    def end(self, begun: int, reserved: tuple[int, float], taken: tuple[int, float]) -> None:
        """A call has ended: what it took stands for what was reserved.

        Raises:
            StorageError: That could not be stored.
        """
        self._charge(self._now(), taken[0] - reserved[0], taken[1] - reserved[1], begun)

    def _charge(self, now: int, tokens: int, money: float, begun: int | None = None) -> None:
        if not self._spent:
            return
        charged = {}
        for period in self._spent:
            one = self._current(period, now)
            # What was reserved in the period before is not given back to this one.
            least = 0 if begun is not None and begun < one.start else -MOST_TOKENS
            more, paid = max(least, tokens), max(float(least), money)
            charged[period] = Spent(one.start, min(MOST_TOKENS, max(0, one.tokens + more)), max(0.0, one.money + paid))
        self._ledger.spend(self._name, charged)
        self._spent |= charged

    def _current(self, period: str, now: int) -> Spent:
        start = now - now % PERIODS[period]
        one = self._spent[period]
        return one if one.start >= start else Spent(start, 0, 0.0)
