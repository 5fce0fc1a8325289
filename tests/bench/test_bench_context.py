"""The `context` benchmark: that it runs and checks what it is given; never a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.bench import context
from headrace.bench.context_app import BUDGET, Notes, Payments, check, desk, said
from headrace.bench.harness import BenchError


def test_context_runs() -> None:
    report = context.run(chunks=40, keys=20, runs=1, seconds=0.2, rate=20.0, embed="hash", index="memory:")
    assert (report.value("headrace", "pack p99") or 0) > 0
    assert (report.value("headrace", "the packer alone p50") or 0) > 0
    assert 0 <= (report.value("headrace", "consistent packs") or 0) <= 100
    assert 0 < (report.value("headrace", "median of a pack") or 0) <= BUDGET
    assert len(report.to_dict()["ratios"]) == 3


def test_what_is_another_users_is_found(tmp_path: Path) -> None:
    made, notes = desk("hash", "memory:"), Notes(5, seed=1)
    with made.app.open(tmp_path) as live:
        everyone = Payments(np.arange(3), np.random.default_rng(1))
        live.push(made.payments, everyone.frame(0, 3))
        live.push(made.notes, [notes.row(number) for number in range(5)])
        live.remember(made.chat, "s1", said("s1"))
        live.drain()
        pack = live.context(made.context, user_id="u0000002", question=notes.questions(1)[0], session="s1")
    check(pack, 2, "s1")
    with pytest.raises(BenchError, match="three rows of u0000001"):
        check(pack, 1, "s1")
    with pytest.raises(BenchError, match="turns of s2"):
        check(pack, 2, "s2")
    with pytest.raises(BenchError, match="its budget is 1500"):
        check(replace(pack, tokens=1_501), 2, "s1")
