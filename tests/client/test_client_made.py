"""The client for threads is what is made of the one for an event loop."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import headrace as hr

MAKER = Path(__file__).parents[2] / "tools" / "make_client.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_client", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_committed_is_what_is_made(maker: ModuleType) -> None:
    made = {source.name: maker.made(source) for source in maker.sources()} | {"__init__.py": maker.INIT}
    assert {path.name: path.read_text() for path in maker.TARGET.glob("*.py")} == made, "run `make client`"


def test_nothing_of_an_event_loop_is_left(maker: ModuleType) -> None:
    words = ("async", "await", "Async", "aclose")
    for path in maker.TARGET.glob("*.py"):
        text = "\n".join(line for line in path.read_text().splitlines() if "client_async" not in line)
        assert [word for word in words if word in text] == [], path.name


def test_both_have_the_same_methods_with_docstrings_and_types() -> None:
    public = [name for name in dir(hr.Remote) if not name.startswith("_")]
    assert public == [name for name in dir(hr.AsyncRemote) if not name.startswith("_")]
    for name in public:
        near, far = getattr(hr.Remote, name), getattr(hr.AsyncRemote, name)
        assert inspect.getdoc(near) == inspect.getdoc(far)
        assert str(inspect.signature(far)).replace("Async", "") == str(inspect.signature(near))
        unnamed = [one for one in inspect.signature(near).parameters.values() if one.annotation is one.empty]
        assert [one.name for one in unnamed] == ["self"]
        assert inspect.getdoc(near)
