"""The plot of the `query` benchmark: what a question costs as the events grow, for both kinds of user.

Both axes are logarithmic, so work in proportion to the events is a straight line upwards and work that does not depend
on them is a level one. The file is the same for the same figures: no date and no random names in it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from headrace.bench.query_report import HTTP, KINDS, LIVE, SIDES, SQL, QueryReport

# Hues apart in lightness too, for those who do not tell hues apart.
_COLOURS = {SQL: "#b3541e", LIVE: "#2a9d8f", HTTP: "#1d4e89"}
_DASHES = {"hot": "-", "typical": (0, (2, 2))}
_MARKS = {SQL: "s", LIVE: "^", HTTP: "o"}
_PANELS = (
    ("p50", 1e-3, "median latency, ms"),
    ("processor time of 1,000", 1.0, "processor time of 1,000 questions, ms"),
)


def draw(report: QueryReport, path: Path) -> None:
    """Write the plot as SVG (or what else the name's ending says)."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    style |= {"svg.hashsalt": "headrace", "svg.fonttype": "none"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 3.9), layout="constrained")
        for axes, (what, scale, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
            _panel(axes, report, what, scale)
            axes.set_title(label, loc="left", fontsize=9)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def _panel(axes: Any, report: QueryReport, what: str, scale: float) -> None:
    for side, kind in itertools.product(SIDES, KINDS):
        found = [report.figure(side, size, f"{kind} user, {what}") for size in report.sizes]
        axes.plot(
            report.sizes,
            [float("nan") if value is None else value * scale for value in found],
            linestyle=_DASHES[kind],
            color=_COLOURS[side],
            marker=_MARKS[side],
            markersize=4,
            label=f"{side}, {kind} user",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("payments in the last hour")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
