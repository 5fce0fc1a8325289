"""`headrace status`: a running app's figures in a terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from headrace.ops.security import read_api_key
from headrace.serving.client import connect

Json = Mapping[str, Any]


def show(parsed: argparse.Namespace) -> int:
    """Prints the figures; 0 if the app is ready, else 1."""
    with connect(parsed.url, api_key=read_api_key(parsed.api_key_file)) as remote:
        status = remote.status()
    print(json.dumps(status, indent=2) if parsed.json else drawn(status))
    return 0 if status["ready"] else 1


def drawn(status: Json) -> str:
    """The figures as text of a few lines and tables."""
    state = "ready" if status["ready"] else f"NOT READY: {status['problem']}"
    behind = f"{status['behind']:.1f} s behind its input{', LAGGING' if status['lagging'] else ''}"
    lines = [f"{status['app']}: {state}; {behind}; up {_span(status['uptime'])}", ""]
    lines += _table(
        ("stream", "events", "rejected", "late", "letters", "lag", "delay", "fresh p50", "p99", "batch p50", "source"),
        [_stream(name, one, status["dead_letters"].get(name, 0)) for name, one in status["streams"].items()],
    )
    partitions = [
        (name, partition, f"{messages:,}")
        for name, one in status["streams"].items()
        for partition, messages in one["lag"].items()
    ]
    if partitions:
        lines += ["", *_table(("stream", "partition", "lag"), partitions)]
    if status["views"]:
        views = [
            (name, f"{one['keys']:,}", f"{one['tiles']:,}", f"{one['bytes'] / 1e6:,.1f} MB")
            for name, one in status["views"].items()
        ]
        lines += ["", *_table(("view", "keys", "tiles", "memory"), views)]
    lines += _documents(status)
    lines += _chat(status.get("chat"))
    age = status["checkpoint_age"]
    checkpoint = "none yet" if age is None else f"{_span(age)} ago"
    lines += ["", f"queue: {status['queue_rows']:,} events; checkpoint: {checkpoint}"]
    return "\n".join(lines)


def _documents(status: Json) -> list[str]:
    """Tables and collections, if there are any."""
    tables = [
        (name, *(f"{one[column]:,}" for column in ("rows", "changed", "rejected")), _lag(one["lag"]), _well(one))
        for name, one in status["tables"].items()
    ]
    collections = [
        (
            name,
            *(f"{one[column]:,}" for column in ("documents", "chunks", "failed", "waiting")),
            _span(one["behind"]),
            "filling a new index" if one["filling"] and not one["problem"] else _well(one),
        )
        for name, one in status["collections"].items()
    ]
    lines = ["", *_table(("table", "rows", "changed", "rejected", "lag", "source"), tables)] if tables else []
    heads = ("collection", "documents", "chunks", "failed", "waiting", "behind", "state")
    return [*lines, "", *_table(heads, collections)] if collections else lines


def _chat(chat: Json | None) -> list[str]:
    """The chat endpoint's model servers, if it has any."""
    if chat is None:
        return []
    servers = [
        (
            one["url"],
            one["model"] or "any",
            *(f"{one[column]:,}" for column in ("outstanding", "requests", "failures")),
            "up" if one["up"] else "down",
        )
        for one in chat["upstreams"]
    ]
    heads = ("upstream", "model", "outstanding", "requests", "failures", "state")
    return ["", *_table(heads, servers), "", f"chat: {chat['inside']:,} inside, {chat['queue']:,} waiting"]


def _lag(lag: Json) -> str:
    return ", ".join(f"{amount:,} {unit}" for unit, amount in lag.items()) or "–"


def _well(one: Json) -> str:
    return str(one["problem"] or "ok")


def _stream(name: str, one: Json, letters: int) -> tuple[str, ...]:
    lag = f"{sum(one['lag'].values()):,}" if one["lag"] else "–"
    delay = "–" if one["delay"] is None else _span(one["delay"])
    fresh = [_quantile(one["freshness"], share) for share in (0.5, 0.99)]
    counts = (f"{one[column]:,}" for column in ("processed", "rejected", "late"))
    seconds = ("–" if bound is None else f"≤ {_span(bound)}" for bound in fresh)
    rows = _quantile(one["batch_rows"], 0.5)
    batch = "–" if rows is None else f"≤ {rows:,.0f}"
    return (name, *counts, f"{letters:,}", lag, delay, *seconds, batch, one["problem"] or "ok")


def _quantile(histogram: Json | None, share: float) -> float | None:
    """The upper end of the bucket that holds this share of the values; None if there are none."""
    if histogram is None or not sum(histogram["counts"]):
        return None
    bounds: list[float] = [*histogram["bounds"], float("inf")]
    wanted = share * sum(histogram["counts"])
    return next(bound for bound, upto in zip(bounds, accumulate(histogram["counts"]), strict=True) if upto >= wanted)


def _span(seconds: float) -> str:
    if seconds == float("inf"):
        return "∞"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of aligned columns: the first to the left, the others to the right, but text at the end to the left."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if number in (0, len(head) - 1) and not cell[:1].isdigit() else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
