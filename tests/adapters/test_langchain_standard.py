"""LangChain's own standard tests of retrievers and tools: they need `langchain-tests`, which `dev` does not bring.

The package brings six plug-ins of pytest that would take part in every test here; `make test-services` installs it
without them, and `conftest.py` has what little of them these tests use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from adapters_desk import NOTES, Gate, desk

import headrace as hr
from headrace.adapters.langchain import HeadraceRetriever, tools
from headrace.serving.server import BackgroundServer

pytestmark = pytest.mark.services
pytest.importorskip("langchain_tests", reason="pip install --no-deps langchain-tests")

from langchain_tests.integration_tests.retrievers import RetrieversIntegrationTests  # noqa: E402
from langchain_tests.integration_tests.tools import ToolsIntegrationTests  # noqa: E402
from langchain_tests.unit_tests.tools import ToolsUnitTests  # noqa: E402


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hr.Remote]:
    folder = tmp_path_factory.mktemp("standard") / "pages"
    with desk(Gate(), folder).open() as live, BackgroundServer(live) as server, hr.connect(server.url) as connected:
        live.push("note", NOTES)
        live.drain(30)
        yield connected


class TestRetriever(RetrieversIntegrationTests):
    """Theirs, over HTTP."""

    retriever_constructor = HeadraceRetriever
    retriever_query_example = "who looks at a payment?"

    @pytest.fixture(autouse=True)
    def _served(self, remote: hr.Remote) -> None:
        type(self).retriever_constructor_params = {"client": remote, "collection": "library"}


class OfTool:
    """A view's tool, over HTTP."""

    tool_constructor_params: dict[str, Any] = {}  # noqa: RUF012 - theirs is a property
    tool_invoke_params_example = {"user_id": "u1"}  # noqa: RUF012 - as above

    @pytest.fixture(autouse=True)
    def _served(self, remote: hr.Remote) -> None:
        type(self).tool_constructor = tools(remote, ["spending"])[0]  # type: ignore[attr-defined]  # theirs


class TestToolAlone(OfTool, ToolsUnitTests):
    """Theirs, of a tool by itself."""


class TestToolCalled(OfTool, ToolsIntegrationTests):
    """Theirs, of a tool that is called."""
