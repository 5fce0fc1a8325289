"""Every test of this folder is run on every runner: what an app answers does not depend on what moves its batches."""

from importlib.util import find_spec

import pytest

NO_BYTEWAX = "Bytewax has no wheels for Python 3.13 and later"
RUNNERS = [
    "local",
    pytest.param("bytewax", marks=pytest.mark.skipif(find_spec("bytewax") is None, reason=NO_BYTEWAX)),
]


@pytest.fixture(params=RUNNERS, autouse=True)
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The runner of the apps that the test makes, and of those that its processes do."""
    monkeypatch.setenv("HEADRACE_RUNNER", request.param)
    return str(request.param)
