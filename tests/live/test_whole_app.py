"""The whole app against the oracle: whatever is pushed, read, closed, opened and killed in whatever order."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from scenario import LATENESS, SCHEMA, START, USERS, WAYS, Life, make

from headrace.testing import VirtualClock, strategies
from headrace.units import HOUR, MINUTE, SECOND

EVENTS = strategies.events(
    SCHEMA,
    at=strategies.times(START, spread=20 * MINUTE, tiles=(MINUTE, 7 * MINUTE), far=HOUR),
    keys={"user_id": USERS, "shop": (0, 1)},
    max_rows=12,
)
# A life writes to disk at each step: a handful by default, as many as asked for by HEADRACE_EXAMPLES.
EXAMPLES = int(os.environ.get("HEADRACE_EXAMPLES", "4"))
STEPS = st.sampled_from(["push", "push", "push", "read", "drain", "advance", "reopen", "crash"])


@pytest.mark.parametrize("clock", ["event", "virtual"])
@pytest.mark.parametrize("checkpoint", ["1ms", "1h"])
@given(data=st.data())
@settings(suppress_health_check=list(HealthCheck), max_examples=EXAMPLES)
def test_on_disk(clock: str, checkpoint: str, data: DataObject) -> None:
    """Checkpoints after every batch, or none but at the end."""
    with tempfile.TemporaryDirectory() as folder:
        run(Life(make(clock, checkpoint), Path(folder)), data)


@pytest.mark.parametrize("clock", ["event", "virtual"])
@given(data=st.data())
@settings(suppress_health_check=list(HealthCheck), max_examples=EXAMPLES)
def test_in_memory(clock: str, data: DataObject) -> None:
    """Nothing is kept, so there is nothing to reopen."""
    run(Life(make(clock), None), data, without=("reopen", "crash"))


def run(life: Life, data: DataObject, without: tuple[str, ...] = ()) -> None:
    """Lives for up to ten steps; what is read must be right at each, and at the end."""
    try:
        for step in data.draw(st.lists(STEPS.filter(lambda step: step not in without), min_size=1, max_size=10)):
            take(life, step, data)
        assert life.wrong(LATENESS) == []
        assert life.live.dead_letters.count().get("payment", 0) >= life.rejected
    finally:
        life.close()


def take(life: Life, step: str, data: DataObject) -> None:
    if step == "push":
        life.push(data.draw(EVENTS), data.draw(st.sampled_from(sorted(WAYS))))
    elif step == "read":
        assert life.wrong(data.draw(st.integers(0, LATENESS))) == []
    elif step == "drain":
        life.live.drain()
    elif step == "advance":
        if isinstance(life.app.clock, VirtualClock):
            life.app.clock.advance(data.draw(st.sampled_from([1, SECOND, MINUTE, 10 * MINUTE, HOUR])) / SECOND)
    elif step == "reopen":
        life.reopen()
    else:
        life.crash()
