"""The report of the `query` benchmark: one line for a size, a kind of user and a way of asking."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.bench.harness import Report, aligned, readable

SQL, LIVE, HTTP = "SQL in Postgres", "headrace", "headrace over HTTP"
SIDES = (SQL, LIVE, HTTP)
KINDS = ("hot", "typical")
_HEAD = ("events", "user", "in window", "asked of", "p50 µs", "p99 µs", "arriving: p50", "p99", "CPU ms/1,000", "pages")
_COLUMNS = (
    "p50",
    "p99",
    "while payments arrive, p50",
    "while payments arrive, p99",
    "processor time of 1,000",
    "pages touched",
)


def metric(size: int, what: str) -> str:
    """The name of a figure of one size."""
    return f"{size:,} events, {what}"


class QueryReport(Report):
    """A report whose table is read across: latency and load of one way of asking stand in one line."""

    def __init__(self, name: str, seed: int, about: str, sizes: Sequence[int]) -> None:
        super().__init__(name, seed, about)
        self.sizes = list(sizes)

    def figure(self, side: str, size: int, what: str) -> float | None:
        """The median of a figure of one size."""
        return self.value(side, metric(size, what))

    def table(self) -> list[str]:
        """The medians; the other figures' least and greatest are in the JSON."""
        cells: list[tuple[str, ...]] = [_HEAD]
        for size in self.sizes:
            for kind in KINDS:
                rows = self.figure(SQL, size, f"{kind} user, payments in the window")
                for side in SIDES:
                    found = [rows, *(self.figure(side, size, f"{kind} user, {what}") for what in _COLUMNS)]
                    first, *others = ["" if value is None else readable(value) for value in found]
                    cells.append((f"{size:,}", kind, first, side, *others))
        return aligned(cells, right={0, 2, *range(4, len(_HEAD))})
