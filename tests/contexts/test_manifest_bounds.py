"""What keeping packs costs and promises: bounds that hold under load, and what a crash may lose."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.assembly.pack import Item, Pack, Packed, Point, Section
from headrace.serving.manifests import MOST_WAITING, Manifests, manifest
from headrace.stores.packs import PackStore
from headrace.units import SECOND, to_micros

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def made(number: int, at: datetime = NOON) -> Pack:
    """A pack of six passages."""
    texts = [f"Passage {one} of pack {number}: a refund takes {number % 30} days. " * 8 for one in range(6)]
    items = tuple(
        Packed(one + 1, Item(f"chunk{one}", text, data={"table": "article", "document": f"d{one}"}), text, 100)
        for one, text in enumerate(texts)
    )
    section = Section("library", "passages", "Library", items, 600, False, False)
    return Pack(f"pack_{number:06}", "support", {"n": number}, (section,), (), 700, 1500, "estimate", Point(at, at, ""))


def test_count_and_bytes_hold_after_every_group_while_many_threads_keep(tmp_path: Path) -> None:
    store = PackStore(tmp_path / "packs.db", most=200, most_bytes=150_000)
    over: list[tuple[int, int]] = []

    def keep(first: int) -> None:
        for group in range(10):
            packs = [manifest(made(first + group * 20 + one)) for one in range(20)]
            store.add(packs, to_micros(NOON))
            if store.count > 200 or store.bytes > 150_000:
                over.append((store.count, store.bytes))

    threads = [threading.Thread(target=keep, args=(first * 1_000,)) for first in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert over == []
    assert 0 < store.count <= 200
    kept = store.newest(1_000)
    assert len(kept) == store.count
    size = store.bytes
    store.close()
    again = PackStore(tmp_path / "packs.db")
    assert (again.count, again.bytes) == (len(kept), size)
    again.close()


def test_age_holds_with_every_group(tmp_path: Path) -> None:
    store = PackStore(tmp_path / "packs.db", longest=10 * SECOND)
    for second in range(60):
        at = NOON + timedelta(seconds=second)
        store.add([manifest(made(second, at))], to_micros(at))
        assert min(one[2] for one in store.newest(100)) >= to_micros(at) - 10 * SECOND
    assert store.count == 11
    store.close()


def test_what_refers_to_a_pack_goes_with_it(tmp_path: Path) -> None:
    store = PackStore(tmp_path / "packs.db", most=5)
    store.add([manifest(made(number)) for number in range(20)], to_micros(NOON))
    one = manifest(made(19))
    assert store.change(one.refs, lambda found: replace(found, refs=())) == 5
    assert store.change(one.refs, lambda found: found) == 0
    store.close()


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_manifest_bounds import made
from headrace.serving.manifests import Manifests
kept = Manifests(Path({path!r}), lambda: 0)
for number in range(int(sys.argv[1])):
    kept.keep(made(number))
    if number == 150:
        assert kept.flush(60)
os._exit(9)
"""


@pytest.mark.parametrize("count", [151, 700])
def test_a_crash_loses_no_more_than_waited(tmp_path: Path, count: int) -> None:
    path = tmp_path / "packs.db"
    code = CHILD.format(here=str(Path(__file__).parent), path=str(path))
    assert subprocess.run([sys.executable, "-c", code, str(count)], check=False, timeout=120).returncode == 9
    store = PackStore(path)
    found = sorted(one[0] for one in store.newest(10_000))
    # Whole groups, in their order, all that was flushed among them, and the newest are what is missing.
    assert found == [f"pack_{number:06}" for number in range(len(found))]
    assert 151 <= len(found) <= count
    assert count - len(found) <= MOST_WAITING
    store.close()
    again = Manifests(path, lambda: 0)
    assert again.get(found[-1]) is not None
    again.close()
