"""The table of connectors: found by scheme, imported on first use, and clear about what is missing."""

import importlib.metadata
import sys
from datetime import datetime
from pathlib import Path

import pytest

import headrace as hr
from headrace.errors import ConfigError, MissingDependencyError
from headrace.registry import DEFAULT, Connector, Registry
from headrace.sources.files import FileSource


@pytest.fixture
def registry() -> Registry:
    return Registry(group=None)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `hr_plug`, with the modules that a test writes into it."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "hr_plug"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "hr_plug"]:
        del sys.modules[name]


def test_our_own_file_source_takes_the_same_path():
    source = DEFAULT.create("source", "file:///tmp/a.ndjson", follow=True)
    assert isinstance(source, FileSource)


def test_every_kind_of_ours_is_in_the_table():
    assert {("source", "file"), ("online", "memory"), ("runner", "local")} <= {
        (each.kind, each.scheme) for each in DEFAULT.connectors()
    }


def test_a_target_is_called_with_the_url_and_the_options(registry: Registry, package: Path):
    (package / "one.py").write_text("class Deep:\n    def make(url, **options): return url, options\n")
    registry.register("source", "Plug", "hr_plug.one:Deep.make")
    assert registry.create("source", "plug://x?y", a=1) == ("plug://x?y", {"a": 1})


def test_nothing_is_imported_before_it_is_asked_for(registry: Registry, package: Path):
    (package / "lazy.py").write_text("make = print")
    registry.register("source", "lazy", "hr_plug.lazy:make")
    registry.find("source", "lazy:")
    assert "hr_plug.lazy" not in sys.modules


def test_a_bare_scheme_is_enough(registry: Registry):
    registry.register("runner", "local", "builtins:dict")
    assert registry.find("runner", "local").target == "builtins:dict"


def test_a_missing_package_is_answered_with_the_line_that_installs_it(registry: Registry, package: Path):
    (package / "kafka.py").write_text("import hr_no_such_client.deep")
    registry.register("source", "kafka", "hr_plug.kafka:Kafka", extra="kafka")
    with pytest.raises(MissingDependencyError) as raised:
        registry.create("source", "kafka://host/topic")
    assert 'pip install "headrace[kafka]"' in str(raised.value)
    assert "hr_no_such_client" in str(raised.value)


def test_a_package_that_is_too_old_is_answered_likewise(registry: Registry, package: Path):
    (package / "old.py").write_text("from json import no_such_name")
    registry.register("source", "old", "hr_plug.old:Old", extra="old")
    with pytest.raises(MissingDependencyError, match=r'pip install "headrace\[old\]"'):
        registry.create("source", "old:")


def test_a_missing_package_without_an_extra_is_named(registry: Registry, package: Path):
    (package / "bare.py").write_text("import hr_no_such_client")
    registry.register("source", "bare", "hr_plug.bare:Bare")
    with pytest.raises(MissingDependencyError, match="pip install hr_no_such_client"):
        registry.create("source", "bare:")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hr_plug.nowhere:Source", "cannot be imported"),
        ("hr_plug:Nothing", "hr_plug has no 'Nothing'"),
        ("hr_plug:__name__", "expected something to call"),
    ],
)
def test_a_wrong_target_is_no_missing_dependency(registry: Registry, package: Path, target: str, message: str):
    registry.register("source", "wrong", target, extra="wrong")
    with pytest.raises(ConfigError, match=message) as raised:
        registry.create("source", "wrong:")
    assert not isinstance(raised.value, MissingDependencyError)


@pytest.mark.parametrize(
    ("kind", "url", "message"),
    [
        ("source", "fiel:///a", "no source connector serves 'fiel' (in 'fiel:///a'); did you mean 'file'"),
        ("source", "/data/a.ndjson", "for a file, write file:///data/a.ndjson"),
        ("source", "data/a.ndjson", "for a file, write file:data/a.ndjson"),
        ("source", "", "expected a URL"),
        ("sauce", "file:///a", "no connector of the kind 'sauce' is registered; did you mean 'source'"),
    ],
)
def test_an_unknown_scheme_or_kind_is_answered_with_the_nearest(kind: str, url: str, message: str):
    with pytest.raises(ConfigError) as raised:
        DEFAULT.find(kind, url)
    assert message in str(raised.value)


@pytest.mark.parametrize(("scheme", "target"), [("a b", "m:n"), ("", "m:n"), ("ok", "module"), ("ok", "m:n:o")])
def test_what_cannot_be_registered(registry: Registry, scheme: str, target: str):
    with pytest.raises(ConfigError, match="expected a"):
        registry.register("source", scheme, target)


def test_a_name_is_given_once(registry: Registry):
    registry.register("source", "x", "a:b")
    registry.register("source", "x", "a:b")
    with pytest.raises(ConfigError, match="already a:b, so it cannot be c:d"):
        registry.register("source", "x", "c:d")


def install(folder: Path, *lines: str) -> None:
    """A distribution `hr-plug`, as pip leaves it, with entry points."""
    info = folder.parent / "hr_plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hr-plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[headrace.connectors]", *lines]))


def test_an_installed_package_brings_connectors(package: Path):
    (package / "pulsar.py").write_text("def make(url): return url")
    install(package, "source.pulsar = hr_plug.pulsar:make [client]")
    registry = Registry()
    assert registry.create("source", "pulsar://x") == "pulsar://x"
    assert registry.find("source", "pulsar:").install == 'pip install "hr-plug[client]"'


def test_a_broken_entry_point_leaves_the_others(package: Path, caplog: pytest.LogCaptureFixture):
    install(package, "nodot = hr_plug:a", "source.taken = hr_plug:b", "source.good = hr_plug:c")
    registry = Registry([Connector("source", "taken", "mine:it")])
    assert [each.target for each in registry.connectors("source")] == ["hr_plug:c", "mine:it"]
    assert "'nodot' of the package 'hr-plug' is left out" in caplog.text
    assert "'source.taken' of the package 'hr-plug' is left out" in caplog.text


def test_a_table_without_a_group_reads_no_entry_points(package: Path, registry: Registry):
    install(package, "source.good = hr_plug:c")
    assert importlib.metadata.entry_points(group="headrace.connectors").names >= {"source.good"}
    assert registry.connectors() == []


class Options:
    """A source that only keeps what it was made with."""

    def __init__(self, url: str, **options: object) -> None:
        self.name = url
        self.options = options


def test_a_stream_hands_its_options_to_its_source() -> None:
    """And does not show them: a password may be among them."""
    DEFAULT.register("source", "optioned", f"{__name__}:Options")

    class Click(hr.Event):
        at: datetime = hr.event_time()

    stream = hr.App("till").stream(Click, "optioned:x", options={"config": {"sasl.password": "hunter2"}})
    assert stream.source().options == {"config": {"sasl.password": "hunter2"}}
    assert "hunter2" not in repr(stream)
