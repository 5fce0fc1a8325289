"""The documents half of the demo, on an environment of a few made-up packages and with a light embedder."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import headrace as hr
from headrace.cli import main
from headrace.demo import documents, packages
from headrace.demo.show import run_demo
from headrace.runners.library.collection import LiveCollection

README = "# Usage\n\nCall `moo()` for [bold]cows[/bold].\x1b[31m"


def install(site: Path, name: str, summary: str, text: str = README, version: str = "1.0") -> Path:
    """As pip leaves it."""
    place = site / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(packages.metadata(name, version, summary, text))
    return place


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path / "site", "cowsay", "Says things as a cow.")
    install(tmp_path / "site", "tablet", "Draws tables in a terminal.")
    return tmp_path / "site"


@pytest.fixture
def standard(tmp_path: Path) -> Path:
    (tmp_path / "standard" / "json").mkdir(parents=True)
    (tmp_path / "standard" / "json" / "__init__.py").write_text(
        '"""Encodes and decodes JSON."""\n\ndef loads(s):\n    ...\n'
    )
    (tmp_path / "standard" / "secret_of_mine.py").write_text("x = 1\n")
    return tmp_path / "standard"


@pytest.fixture
def live(site: Path, standard: Path, tmp_path: Path) -> Iterator[hr.Live]:
    (tmp_path / "tryout").mkdir()
    with packages.library(site, standard, tmp_path / "tryout", embed="hash", index="memory:").open() as opened:
        assert opened.library.drain(20)
        yield opened


def followed(live: hr.Live, count: int) -> bool:
    collection: LiveCollection = live.library.collections["packages"]
    return collection.wait(lambda: collection.figures().documents == count, 10)


def test_a_readme_is_found_with_its_package(live: hr.Live) -> None:
    hit = live.search("packages", "says things as a cow", k=1)[0]
    assert (hit.title, hit.columns["name"], hit.columns["version"]) == ("cowsay 1.0", "cowsay", "1.0")
    assert hit.source.endswith("cowsay-1.0.dist-info/METADATA")
    assert "Metadata-Version" not in hit.text


def test_a_module_is_found_by_its_name_and_others_are_left_alone(live: hr.Live) -> None:
    assert live.search("standard_library", "decodes JSON", k=1)[0].title == "json"
    assert live.stats().tables["module"].rows == 1


def test_what_is_installed_upgraded_and_uninstalled_is_followed(live: hr.Live, site: Path) -> None:
    place = install(site, "zebra", "Stripes.")
    assert followed(live, 3)
    assert live.search("packages", "stripes", k=1)[0].title == "zebra 1.0"
    place.rename(site / "~ebra-1.0.dist-info")  # as pip does before it upgrades
    install(site, "zebra", "Dots.", version="2.0")
    shutil.rmtree(site / "~ebra-1.0.dist-info")
    with live.library.tables["packages_installed"].changed:
        assert live.library.tables["packages_installed"].changed.wait_for(
            lambda: live.stats().tables["packages_installed"].seq == 5, 10
        )
    assert followed(live, 3)
    shutil.rmtree(site / "zebra-2.0.dist-info")
    assert followed(live, 2)
    assert "zebra" not in {hit.columns["name"] for hit in live.search("packages", "dots", k=9)}


@pytest.mark.parametrize(
    ("header", "format"),
    [("", "rst"), ("text/markdown; charset=UTF-8", "markdown"), ("text/x-rst", "rst"), ("text/odd", "plain")],
)
def test_a_readme_is_what_its_header_says(header: str, format: str) -> None:
    told = f"Description-Content-Type: {header}\n" if header else ""
    row = {"id": "a", "text": f"Name: a\nVersion: 1\n{told}\nA title\n=======\n"}
    package = packages.Package.model_validate(row)
    assert (package.name, package.version, package.format, package.text) == ("a", "1", format, "A title\n=======\n")


def test_an_old_description_is_in_the_header() -> None:
    package = packages.Package.model_validate({"id": "a", "text": "Name: a\nDescription: Old.\n        More.\n"})
    assert package.text.split() == ["Old.", "More."]


def test_a_file_that_is_none_is_rejected() -> None:
    with pytest.raises(ValueError, match="name"):
        packages.Package.model_validate({"id": "a", "text": "no header at all"})


def test_an_install_is_measured_by_searching(live: hr.Live, tmp_path: Path) -> None:
    times = documents.measure(live, tmp_path / "tryout", 2)
    assert [len(times.found), len(times.gone)] == [2, 2]
    assert max(*times.found, *times.gone) < 5
    assert list((tmp_path / "tryout").iterdir()) == []


def test_it_says_what_there_is_and_answers(site: Path, standard: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    documents.show(console, embed="hash", site=site, standard=standard, rounds=1, index="memory:")
    out = console.file.getvalue()
    assert "2 READMEs of installed packages and 1 modules of the standard library" in out
    assert "3 documents in " in out
    assert "Installed: found after " in out
    assert all(question in out for question in documents.QUESTIONS)
    assert "seconds ago" in out or "ms ago" in out or "s ago" in out
    assert {c for c in out if ord(c) < 32} == {"\n"}
    assert "[bold]cows[/bold]" in out  # as it is written, and no markup


def test_what_takes_too_long_goes_on_meanwhile(site: Path, standard: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    documents.show(console, embed="hash", site=site, standard=standard, patience=0, index="memory:")
    out = console.file.getvalue()
    assert " more are being read meanwhile." in out
    assert "Installed: found" not in out


PROMPTED = """
import sys
from pathlib import Path
from rich.console import Console
from headrace.demo import documents
site, standard = map(Path, sys.argv[1:])
console = Console(force_terminal=True, width=100)
documents.show(console, embed="hash", site=site, standard=standard, rounds=1, index="memory:")
"""


def test_on_a_terminal_it_answers_what_is_typed(site: Path, standard: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROMPTED, str(site), str(standard)]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    ) as demo:
        os.close(theirs)
        screen = read_until(ours, "An empty line ends it.")
        os.write(ours, b"says things as a cow\r")
        screen = read_until(ours, "cowsay 1.0")
        os.write(ours, b"\r")
        while read(ours):
            pass
    os.close(ours)
    assert demo.returncode == 0
    assert "says things as a cow" in screen


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how a terminal tells that the other side has gone
        return b""


def read_until(terminal: int, text: str) -> str:
    screen = b""
    while text.encode() not in screen:
        more = read(terminal)
        assert more, screen.decode()
        screen += more
    return screen.decode()


def test_what_is_missing_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles._rust_notify", None)
    monkeypatch.delitem(sys.modules, "headrace.sources.directory", raising=False)
    assert main(["demo", "--documents"]) == 1
    assert 'pip install "headrace[files]"' in capsys.readouterr().err


def test_without_it_the_flights_are_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles._rust_notify", None)
    monkeypatch.delitem(sys.modules, "headrace.sources.directory", raising=False)
    assert run_demo(week="2013-02-08T16:00", weeks=0.01, speed=None, part="both") == 0
    out = capsys.readouterr().out
    assert "The documents half is left out" in out
    assert "headrace demo --serve" in out
