"""How large a batch should be: as large as still pays, and no larger than what others can wait for.

Doubling a batch helps while what a call costs by itself is shared by more texts; past that it only makes the next text
wait longer. Where that is depends on the model, the machine and the network, so it is tried: a step up is kept if the
throughput is better for it, and is tried again after a while. A batch that took too long, or failed, is a step down.
"""

from __future__ import annotations

_STEPS = tuple(512 << power for power in range(8))  # tokens: 512 to 65,536
_FIRST = 2
_SAMPLES = 3  # batches before a step is judged
_BETTER = 1.05
_REST = 50  # batches until a step that did not pay is tried again
_REST_FAILED = 10
_SMOOTH = 0.3


class BatchSize:
    """The size of the next batch, in tokens; not for several threads.

    Args:
        longest: Seconds that a batch should not take longer than.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._step = _FIRST
        self._rates: dict[int, float] = {}  # tokens a second, by step
        self._samples = 0
        self._rest = 0

    @property
    def tokens(self) -> int:
        """The size."""
        return _STEPS[self._step]

    def took(self, tokens: int, seconds: float) -> None:
        """A batch went through; one that was not nearly full says nothing about its size, unless it took too long."""
        if seconds > self._longest:
            self._go(-1, _REST)
            return
        if tokens < self.tokens * 0.75 or seconds <= 0:
            return
        before = self._rates.get(self._step)
        rate = tokens / seconds
        self._rates[self._step] = rate if before is None else before + _SMOOTH * (rate - before)
        self._samples += 1
        self._rest = max(0, self._rest - 1)
        if self._samples < _SAMPLES:
            return
        below = self._rates.get(self._step - 1)
        if below is not None and self._rates[self._step] < below * _BETTER:
            self._go(-1, _REST)
        elif not self._rest:
            self._go(+1, 0)

    def failed(self) -> None:
        """A batch did not go through, or not in time."""
        self._go(-1, _REST_FAILED)

    def _go(self, step: int, rest: int) -> None:
        self._step = min(max(self._step + step, 0), len(_STEPS) - 1)
        self._rest = rest
        self._samples = 0
        if step > 0:
            self._rates.pop(self._step, None)  # measured anew: what was true then may be otherwise now
