"""The year's events, read once."""

from __future__ import annotations

import polars as pl
import pytest

from headrace.demo import flights, model


@pytest.fixture(scope="session")
def events() -> pl.DataFrame:
    return flights.load()


@pytest.fixture(autouse=True)
def no_small_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is installed: only tests of it wait for it."""
    monkeypatch.delenv("HEADRACE_UPSTREAMS", raising=False)
    if request.node.get_closest_marker("services") is None:
        monkeypatch.setattr(model, "PACKAGES", {"a_package_that_is_none": "a-package"})
