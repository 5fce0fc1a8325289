"""The year's events, read once."""

from __future__ import annotations

import polars as pl
import pytest

from headrace.demo import flights


@pytest.fixture(scope="session")
def events() -> pl.DataFrame:
    return flights.load()
