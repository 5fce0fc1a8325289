"""The app of the tests of the adapters, open and served."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters_desk import NOTES, Gate, desk

import headrace as hr
from headrace.serving.server import BackgroundServer

NOON = "2026-01-31T12:00:00Z"


def pytest_configure(config: pytest.Config) -> None:
    """The marks of plug-ins that LangChain's standard tests use, and are not installed here."""
    for name in ("benchmark", "vcr", "asyncio"):
        config.addinivalue_line("markers", f"{name}: of LangChain's standard tests, for a plug-in that is not here")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine, as some of LangChain's are: no plug-in here does."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**given))
    return True


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def live(gate: Gate, tmp_path: Path) -> Iterator[hr.Live]:
    with desk(gate, tmp_path / "pages").open() as opened:
        opened.push("payment", {"user_id": "u1", "amount": 5.0, "at": NOON})
        opened.push("named", {"config": "a", "run_manager": 7, "at": NOON})
        opened.push("note", NOTES)
        opened.drain(30)
        yield opened
        gate.open.set()


@pytest.fixture
def server(live: hr.Live) -> Iterator[BackgroundServer]:
    with BackgroundServer(live) as running:
        yield running


@pytest.fixture(params=["live", "remote"])
def client(request: pytest.FixtureRequest, live: hr.Live) -> Iterator[Any]:
    """The app in this process, or over HTTP."""
    if request.param == "live":
        yield live
        return
    with hr.connect(request.getfixturevalue("server").url) as connected:
        yield connected
