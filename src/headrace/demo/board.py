"""The live board that the demo shows while the replay runs.

It is drawn by `rich`, which leaves colours and control characters out where the output is not a
terminal or NO_COLOR is set. The board reads the views as any reader would, while events are being pushed by
another thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headrace.demo.flights import AIRPORTS, new_york
from headrace.demo.replay import Progress, Replay
from headrace.units import HOUR

if TYPE_CHECKING:
    from headrace.serving.live import Live

_BLOCKS = " ▁▂▃▄▅▆▇█"
_TREND_SLOT = 3 * HOUR
# From these widths on there is room for more columns.
_MEDIUM, _NORMAL, _WIDE = 58, 76, 98
_NONE = "–"  # as tables have it: no departure, so no mean


def short_time(seconds: float | None) -> str:
    """A length of time in the unit that suits it: "412 µs", "3.1 ms", "1.2 s"."""
    if seconds is None:
        return _NONE
    if seconds <= 0:
        return "0 s"
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        amount = seconds / size
        if amount < 999.5:
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def sparkline(values: list[float], top: float) -> str:
    """One block a value, `top` being the highest; a value above 0 always shows."""
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[max(1, round(steps * min(v / top, 1))) if v > 0 and top > 0 else 0] for v in values)


@dataclass
class Board:
    """The live display of a replay; draws what is true at the moment it is rendered."""

    live: Live
    replay: Replay
    start: int
    end: int
    speed: str
    trends: dict[str, dict[int, int]] = field(default_factory=lambda: {code: {} for code in AIRPORTS})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = self.replay.progress()
        # The "^C" that a terminal echoes at the end of the last line must not wrap: the board would be drawn anew one
        # line lower.
        width = options.max_width - 2
        body = [self._head(progress), self._gauges(progress, width), self._airports(progress, width)]
        yield Panel(
            Group(*body),
            title=Text("Headrace · New York's flights, 2013", style="bold"),
            subtitle=Text(f"replayed {self.speed}", style="dim"),
            border_style="cyan",
            padding=(0, 1),
            width=width,
        )

    def _head(self, progress: Progress) -> Table:
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        done = min(1.0, (progress.now - self.start) / max(1, self.end - self.start))
        bar = ProgressBar(total=1.0, completed=done, complete_style="cyan", finished_style="cyan")
        head.add_row(Text(new_york(progress.now, "%a %e %b  %H:%M"), style="bold cyan"), bar, f"{done:.0%}")
        return head

    def _gauges(self, progress: Progress, width: int) -> Table:
        keys = self.keys()
        by_view = ", ".join(f"{count} {view}s" for view, count in keys.items())
        cells = [
            ("events", f"{progress.pushed:,} of {progress.total:,}"),
            ("rate", f"{progress.rate:,.0f} a second"),
            ("lag", short_time(progress.lag)),
            ("due to readable", f"p50 {short_time(progress.fresh_p50)}, p99 {short_time(progress.fresh_p99)}"),
            ("keys", by_view if width >= _WIDE else f"{sum(keys.values())} live"),
        ]
        if width >= _MEDIUM:
            return _stack("", _line(cells[:3]), _line(cells[3:]), "")
        narrow = Table.grid(padding=(0, 1))
        for name, value in cells:
            narrow.add_row(Text(name, style="dim"), value)
        return _stack(narrow, "")

    def keys(self) -> dict[str, int]:
        """The keys that are live, by view."""
        return {name: stats.keys for name, stats in self.live.stats().views.items()}

    def _airports(self, progress: Progress, width: int) -> Table:
        rows = self.live.read_many("origin", list(AIRPORTS)).to_dicts()
        table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True)
        table.add_column("departed\nin 1 h", justify="right", no_wrap=True)
        table.add_column("mean\ndelay", justify="right", no_wrap=True)
        if width >= _MEDIUM:
            table.add_column("over\n15 min", justify="right", no_wrap=True)
        table.add_column("cancelled\nin 24 h", justify="right", no_wrap=True)
        if width >= _NORMAL:
            table.add_column("latest\ndeparture", no_wrap=True)
        if width >= _WIDE:
            table.add_column("cancelled in 24 h,\nthe past week", no_wrap=True, ratio=1)
        self._note_trends(progress, rows)
        top = max((v for trend in self.trends.values() for v in trend.values()), default=0)
        for row in rows:
            name = f"{row['origin']} {AIRPORTS[row['origin']]}" if width >= _MEDIUM else row["origin"]
            cells = [Text(name, style="bold"), *_values(row, width)]
            if width >= _NORMAL:
                cells.append(Text(_latest(row)))
            if width >= _WIDE:
                cells.append(Text(self._trend(row["origin"], top), style="red"))
            table.add_row(*cells)
        return table

    def _note_trends(self, progress: Progress, rows: list[dict[str, Any]]) -> None:
        slot = (progress.now - self.start) // _TREND_SLOT
        for row in rows:
            trend = self.trends[row["origin"]]
            trend[slot] = max(trend.get(slot, 0), row["cancelled_1d"])
            # What is shown is the past week: a slot that has left it is forgotten.
            trend.pop(slot - 7 * 24 * HOUR // _TREND_SLOT, None)

    def _trend(self, origin: str, top: int) -> str:
        trend = self.trends[origin]
        newest = max(trend, default=0)
        oldest = max(0, newest - 7 * 24 * HOUR // _TREND_SLOT + 1)
        values, last = [], 0
        for slot in range(oldest, newest + 1):
            last = trend.get(slot, last)
            values.append(float(last))
        # Two slots a block: 28 characters hold the week.
        return sparkline([max(values[i : i + 2]) for i in range(0, len(values), 2)], top)


def _line(cells: list[tuple[str, str]]) -> Table:
    """Names and values side by side."""
    line = Table.grid(padding=(0, 1), expand=True)
    for _ in cells:
        line.add_column(style="dim", no_wrap=True)
        line.add_column(ratio=1, no_wrap=True)
    line.add_row(*(part for cell in cells for part in cell))
    return line


def _stack(*parts: Any) -> Table:
    grid = Table.grid(expand=True)
    for part in parts:
        grid.add_row(part)
    return grid


def _values(row: dict[str, Any], width: int) -> list[Text]:
    mean, share = row["mean_delay_1h"], row["share_delayed_1h"]
    cells = [
        Text(f"{row['departures_1h']}"),
        Text(_NONE if mean is None else f"{mean:.0f} min", style=_heat(mean, 15, 45)),
    ]
    if width >= _MEDIUM:
        cells.append(Text(_NONE if share is None else f"{share:.0%}", style=_heat(share, 0.25, 0.5)))
    cells.append(Text(f"{row['cancelled_1d']}", style=_heat(row["cancelled_1d"], 10, 50)))
    return cells


def _heat(value: float | None, warm: float, hot: float) -> str:
    if value is None:
        return "dim"
    return "bold red" if value >= hot else "yellow" if value >= warm else "green"


def _latest(row: dict[str, Any]) -> str:
    if not row["latest_departures"]:
        return _NONE
    flight = row["latest_departures"][0]
    return f"{flight['carrier']} {flight['flight']} to {flight['dest']} {flight['dep_delay']:+d}"


PLAIN_HEADER = f"{'New York':<16}{'events':>9}{'a second':>10}{'lag':>9}{'fresh p50':>11}{'p99':>9}   cancelled in 24 h"


def plain_line(board: Board) -> str:
    """The board as one line, for where there is no terminal."""
    progress = board.replay.progress()
    rows = board.live.read_many("origin", list(AIRPORTS)).to_dicts()
    cancelled = " ".join(f"{row['origin']} {row['cancelled_1d']}" for row in rows)
    return (
        f"{new_york(progress.now, '%a %e %b %H:%M'):<16}{progress.pushed:>9,}{progress.rate:>10,.0f}"
        f"{short_time(progress.lag):>9}{short_time(progress.fresh_p50):>11}"
        f"{short_time(progress.fresh_p99):>9}   {cancelled}"
    )
