"""The real small model in `headrace bench chat`: left out by name, or measured."""

from __future__ import annotations

import pytest

from headrace.bench import chat_small
from headrace.bench.harness import Report
from headrace.demo import model


def test_where_it_is_not_installed_it_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PACKAGES", {"a_package_that_is_none": "a-package"})
    report = Report("chat", 1, "a test")
    chat_small.add(report, 1)
    assert "a-package" in report.left_out["a real small model"]
    assert report.figures == []


@pytest.mark.services
def test_it_is_measured_alone_and_through_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    if why := model.missing():
        pytest.skip(why)
    monkeypatch.setattr(chat_small, "STREAMS", (1, 2))
    monkeypatch.setattr(chat_small, "TOKENS", 4)
    report = Report("chat", 1, "a test")
    chat_small.add(report, 1)
    for system in (chat_small.ALONE, chat_small.THROUGH):
        for count in (1, 2):
            assert report.value(system, f"{count} streams: first token")
            assert report.value(system, f"{count} streams: tokens a second")
