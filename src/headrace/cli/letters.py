"""What could not be used: listed, shown, pushed again."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from headrace.cli.apps import load_app
from headrace.errors import InputError
from headrace.stores.datadir import Layout
from headrace.stores.dead_letters import DeadLetters
from headrace.units import from_micros


def existing(data: str) -> Path:
    """The data directory, which must be there: these commands make none."""
    path = Path(data)
    if not path.is_dir():
        raise InputError(f"expected a data directory, found none at {path.absolute()}; name it with --data")
    return path


def _letters(data: str) -> closing[DeadLetters]:
    """The dead letters of a data directory, also while a server has it open."""
    return closing(DeadLetters(Layout(existing(data)).dead_letters))


def list_letters(parsed: argparse.Namespace) -> int:
    with _letters(parsed.data) as letters:
        found = letters.list(parsed.stream, limit=parsed.limit, after=parsed.after)
        for letter in found:
            when = from_micros(letter.at).isoformat(timespec="seconds")
            print(f"{letter.id:>6}  {when}  {letter.stream}  {letter.source}  {letter.reason}")
        counts = letters.count()
    shown = f"{len(found)} shown" if found else "none"
    print(f"{shown}; kept: {', '.join(f'{count} of {stream}' for stream, count in counts.items()) or 'none'}")
    return 0


def show_letter(parsed: argparse.Namespace) -> int:
    with _letters(parsed.data) as letters:
        letter = letters.get(parsed.id)
    print(f"stream: {letter.stream}\nsource: {letter.source}\nwhen:   {from_micros(letter.at).isoformat()}")
    print(f"reason: {letter.reason}\n", flush=True)
    sys.stdout.buffer.write(letter.raw + b"\n")
    sys.stdout.buffer.flush()
    return 0


def replay_letters(parsed: argparse.Namespace) -> int:
    with load_app(parsed.app).open(existing(parsed.data)) as live:
        taken, rejected = live.replay_dead_letters(parsed.ids or None)
        live.drain()
    print(f"{taken} taken, {rejected} still rejected")
    return 0 if rejected == 0 else 1
