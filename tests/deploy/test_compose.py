"""deploy/: the Compose file against the specification's schema, and what a schema cannot say; the Dockerfile, linted.

No container engine is needed: the commands are parsed by the command line that would run them, and
test_production.py runs them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from headrace.cli import parser
from headrace.units import duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IMAGE = "headrace-fraud-desk"
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def services(compose: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from compose["services"].items()


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services(compose) if service["image"].startswith(IMAGE)}


def stage_lines(word: str) -> list[str]:
    """The instructions of one kind in the Dockerfile, each on one line."""
    text = re.sub(r"\\\n(\s*#.*\n)*", " ", (DEPLOY / "Dockerfile").read_text())
    return [line.removeprefix(word).strip() for line in text.splitlines() if line.startswith(f"{word} ")]


def test_it_is_what_the_specification_says(compose: dict[str, Any]) -> None:
    # The Compose Specification's own schema, as the package check-jsonschema carries it.
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    found = Draft202012Validator(json.loads(schema.read_text())).iter_errors(compose)
    assert [f"{error.json_path}: {error.message}" for error in found] == []


def test_the_schema_is_in_force(compose: dict[str, Any]) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    wrong = compose | {"services": {"redis": {"image": "redis:8.2.2-alpine", "helthcheck": {}}}}
    assert not Draft202012Validator(json.loads(schema.read_text())).is_valid(wrong)


@pytest.mark.parametrize("kind", ["networks", "secrets"])
def test_what_a_service_names_is_declared_and_used(compose: dict[str, Any], kind: str) -> None:
    named = {name for _, service in services(compose) for name in service.get(kind, [])}
    assert named == set(compose[kind])


def test_every_volume_is_a_named_one(compose: dict[str, Any]) -> None:
    named = {volume.partition(":")[0] for _, service in services(compose) for volume in service.get("volumes", [])}
    assert named == set(compose["volumes"])


def test_what_is_waited_for_can_become_so(compose: dict[str, Any]) -> None:
    for name, service in services(compose):
        for other, how in service.get("depends_on", {}).items():
            awaited = compose["services"][other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in awaited, f"{name} waits for {other}, which never says that it is healthy"
            else:
                assert awaited["restart"].startswith("on-failure"), f"{name} waits for {other}, which never ends"


def test_ports_are_published_on_loopback_alone(compose: dict[str, Any]) -> None:
    published = [port for _, service in services(compose) for port in service.get("ports", [])]
    assert len(published) == len(set(published)) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_the_engine_and_the_store_are_not_published(compose: dict[str, Any]) -> None:
    assert compose["networks"]["inside"]["internal"] is True
    for name in ("engine", "redis"):
        assert "ports" not in compose["services"][name]
        assert compose["services"][name]["networks"] == ["inside"]


def test_images_are_pinned(compose: dict[str, Any]) -> None:
    assert all(PINNED.fullmatch(service["image"]) for _, service in services(compose))


def test_everything_is_bounded_and_comes_back(compose: dict[str, Any]) -> None:
    for name, service in services(compose):
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= set(limits), name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] in ("unless-stopped", "on-failure:5"), name
        if name != "topics":
            check = service["healthcheck"]
            assert duration(check["timeout"]) <= duration(check["interval"]), name


def test_ours_run_with_no_rights_and_the_key_as_a_secret(compose: dict[str, Any]) -> None:
    assert sorted(ours(compose)) == ["api-1", "api-2", "engine"]
    for service in ours(compose).values():
        assert service["user"] == stage_lines("USER")[-1] == "10001:10001"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "--api-key-file=/run/secrets/api_key" in service["command"]
    assert "secrets/" in (ROOT / ".gitignore").read_text()


def test_the_replicas_are_the_same(compose: dict[str, Any]) -> None:
    one, two = (compose["services"][name] | {"ports": None} for name in ("api-1", "api-2"))
    assert one == two


def test_the_command_line_knows_the_commands(compose: dict[str, Any]) -> None:
    online = set()
    for service in ours(compose).values():
        parsed = parser().parse_args(service["command"])
        assert (parsed.app, parsed.host, parsed.port) == ("app:app", "0.0.0.0", 8900)
        online.add(parsed.online)
        port = [port.rpartition(":")[2] for port in service.get("ports", ["8900"])]
        assert port == [str(parsed.port)] == stage_lines("EXPOSE")
    assert online == {"redis://redis:6379/0"}


def test_health_is_asked_at_a_route_that_is_there(compose: dict[str, Any]) -> None:
    checks = [service["healthcheck"]["test"][-1] for service in ours(compose).values()] + stage_lines("HEALTHCHECK")
    assert {route for check in checks for route in re.findall(r"127\.0\.0\.1:8900(/\w+)", check)} == {
        "/readyz",
        "/healthz",
    }
    for check in checks:
        compile(re.search(r"from urllib[^\"]*", check)[0], "healthcheck", "exec")  # type: ignore[index]


def test_the_dockerfile_is_linted() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, 'hadolint is not installed: pip install -e ".[dev]"'
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_made_of_what_is_there() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    app = stage_lines("ARG")[-1].removeprefix("APP=")
    copied = [path for line in stage_lines("COPY") if not line.startswith("--from") for path in line.split()[:-1]]
    assert sorted(copied) == sorted(
        ["pyproject.toml", "README.md", "LICENSE", "./src".removeprefix("./"), "${APP}/*.py"]
    )
    assert all((ROOT / path).exists() for path in kept)
    assert list((ROOT / app).glob("app.py"))
    assert {path.partition("/")[0] for path in (*copied[:-1], app)} == set(kept)


def test_it_starts_headrace_itself_as_nobody_in_particular() -> None:
    assert stage_lines("ENTRYPOINT") == ['["headrace"]']
    assert stage_lines("USER") == ["10001:10001"]
    assert len(stage_lines("FROM")) == 2
    assert all("${PYTHON}-slim-" in base for base in stage_lines("FROM"))
