"""The documentation is complete: what the program has, the pages name, and what the pages state, the program has.

That the examples run is held by the `conftest.py` at the root, which makes each of them a test of its own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

import headrace as hr
from headrace import cli, errors, filters
from headrace.document import MOST_BYTES
from headrace.documents import chunk, clean
from headrace.features import bags
from headrace.formats import pieces
from headrace.ops import security
from headrace.ops.metrics import HttpTally, exposition
from headrace.parts import Search
from headrace.runners import inbox
from headrace.runners.library import search
from headrace.serving import body, connection, library_routes, live, openapi, options
from headrace.serving.http import MAX_BODY, MAX_KEYS
from headrace.serving.problems import KINDS
from headrace.sources import directory_url, mongodb_url, postgres_url, rabbitmq_url, web_url
from headrace.sources.file_url import CHUNK, MAX_ROW, OPTIONS
from headrace.stores.vectors import milvus, pgvector_link, pinecone, qdrant
from headrace.upstream import spec

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
MIB = 1 << 20


class Click(hr.Event):
    page: str
    at: datetime = hr.event_time()


app = hr.App("site", clock="event")
clicks = app.stream(Click)


@app.features(clicks, key="page")
class Traffic:
    """Clicks of a page."""

    clicks_1h = hr.count(over="1h")


class Guide(hr.Document):
    id: str
    text: str


guides = app.table(Guide)
library = app.collection("library", guides, embed="hash", index="memory:")
chat = app.memory("chat", embed="hash", index="memory:")


@app.context()
def help_with(question: str) -> Iterator[Search]:
    """Guides for a question."""
    yield library.search(question)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def codes(text: str) -> set[str]:
    """All that stands between single backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]


def test_every_public_name_is_in_the_reference() -> None:
    described = set(re.findall(r"^\.\. auto\w+:: headrace\.(\w+)$", page("reference"), re.MULTILINE))
    rooms = {name for name in vars(hr) if not isinstance(getattr(hr, name), type) and not callable(getattr(hr, name))}
    assert {name for name in vars(hr) if not name.startswith("_")} - rooms - described == set()


def test_every_aggregate_is_in_the_guide() -> None:
    aggregates = {
        name for name, value in vars(hr).items() if getattr(value, "__module__", "") == "headrace.features.spec"
    }
    explained = {name for row in rows(page("features")) for name in re.findall(r"`hr\.(\w+)\(", row[0])}
    assert aggregates - {"Feature"} == explained


def test_the_tree_of_errors_is_the_one_in_the_source() -> None:
    tree = re.search(r"HeadraceError\n.*?answer$", (errors.__doc__ or ""), re.DOTALL | re.MULTILINE)
    assert tree is not None
    assert re.sub(r"^    ", "", tree[0], flags=re.MULTILINE) in page("reference")


def test_every_kind_of_problem_is_in_the_reference() -> None:
    stated = {
        row[2].strip("`").removeprefix("urn:headrace:problem:"): int(row[1])
        for row in rows(page("reference"))
        if len(row) == 3 and row[1].isdigit()
    }
    # Of a server's own configuration and of other servers a client sees an internal fault; see `problems.error_of`.
    assert stated == {name: kind.status for name, kind in KINDS.items() if name not in ("schema", "config", "remote")}


def test_every_route_is_in_the_reference() -> None:
    documented = {
        (method, re.sub(r"\{key\}.*", "{key}", path))
        for row in rows(page("reference"))
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", row[0])
    }
    with app.open() as opened:
        described = openapi.document(opened.app, False)
    served = {(method.upper(), template(path)) for path, methods in described["paths"].items() for method in methods}
    assert served - documented == set()
    assert documented - served <= {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}


def template(path: str) -> str:
    """A route of this app as the reference writes it, for any app."""
    for found, written in (
        ("/v1/streams/click", "/v1/streams/{stream}"),
        ("/v1/features/traffic/{page}", "/v1/features/{view}/{key}"),
        ("/v1/features/traffic", "/v1/features/{view}"),
        ("/v1/tools/traffic", "/v1/tools/{name}"),
        ("/v1/tables/guide", "/v1/tables/{table}"),
        ("/v1/collections/library/search", "/v1/collections/{name}/search"),
        ("/v1/tools/library", "/v1/tools/{name}"),
        ("/v1/memories/chat/{session_id}", "/v1/memories/{name}/{session}"),
        ("/v1/memories/chat", "/v1/memories/{name}"),
        ("/v1/contexts/help_with", "/v1/contexts/{name}"),
        ("/v1/tools/help_with", "/v1/tools/{name}"),
    ):
        if path == found:
            return written
    return path


def test_every_metric_is_in_the_guide_and_none_else() -> None:
    tally = HttpTally()
    tally.observe("/healthz", 200, 0.001)
    with app.open() as opened:
        opened.push(clicks, {"page": "/", "at": 0})
        opened.push(clicks, {"page": "/"})
        opened.drain()
        text = exposition(opened.stats(), tally)[0].decode()
    exposed = {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else "")
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
        if not name.endswith("_created")
    }
    documented = {code for row in rows(page("operations")) for code in codes(row[0]) if code.startswith("headrace_")}
    # There is no age of a checkpoint before the first.
    assert documented == exposed | {"headrace_checkpoint_age_seconds"}


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["serve"],
        ["status"],
        ["check"],
        ["demo"],
        ["bench"],
        ["dead-letters", "list"],
        ["dead-letters", "show"],
        ["dead-letters", "replay"],
        ["tables", "list"],
        ["tables", "forget"],
        ["export"],
        ["mcp"],
    ],
)
def test_every_command_is_in_the_reference(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    row = next(row for row in rows(page("reference")) if row[0].startswith(f"`headrace {' '.join(command)}"))
    stated = {code for code in codes(" ".join(row)) if code.startswith("--")}
    offered = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert stated <= offered
    assert offered == stated


def test_the_limits_are_those_of_the_program() -> None:
    text = page("operations")
    for stated in (
        f"| {inbox.MOST_ROWS:,};",
        f"| {MAX_BODY // MIB} MiB, also unpacked; all bodies at once {4 * MAX_BODY // MIB} MiB |",
        f"| {body.LEAST_RATE >> 10} KiB a second, after {body.GRACE_SECONDS:g} seconds |",
        f"| {connection.MAX_HEAD >> 10} KiB |",
        f"| {connection.MAX_CONNECTIONS:,} |",
        f"| {connection.STUCK_SECONDS} seconds |",
        f"| {MAX_KEYS:,}; in one call in process {live.MOST_KEYS:,} |",
        f"| {options.LONGEST_WAIT:g} seconds; {options.DEFAULT_WAIT:g} unless asked |",
        f"| {pieces.MAX_ROW_BYTES // MIB} MiB; a longer one",
    ):
        assert stated in text


def test_the_sizes_of_sketches_are_those_of_the_program() -> None:
    text = page("features")
    assert f"{bags.LIMIT:,} smallest 64-bit hashes" in text
    assert f"√{bags.LIMIT - 2}, which is {100 / (bags.LIMIT - 2) ** 0.5:.1f} %" in text
    assert f"at most {100 * bags.RELATIVE:g} % away" in text


def test_the_options_of_files_are_those_of_the_program() -> None:
    stated = {row[0].strip("`").partition("=")[0]: row[2] for row in rows(page("sources")) if row[0].count("=") == 1}
    assert set(stated) == set(OPTIONS)
    assert stated["chunk"] == f"`{CHUNK // MIB}MiB`"
    assert stated["max_row"] == f"`{MAX_ROW // MIB}MiB`"


def test_the_variables_are_those_of_the_program() -> None:
    stated = {code for row in rows(page("operations")) for code in codes(row[0]) if code.startswith("HEADRACE_")}
    upstreams = {spec.URLS_VARIABLE, spec.KEY_FILE_VARIABLE}
    assert stated == upstreams | {
        "HEADRACE_ONLINE",
        "HEADRACE_RUNNER",
        security.KEY_VARIABLE,
        security.FILE_VARIABLE,
    }


def test_every_variable_is_in_the_reference() -> None:
    read = {name for path in (ROOT / "src").rglob("*.py") for name in re.findall(r"HEADRACE_[A-Z_]+", path.read_text())}
    stated = {code for row in rows(page("reference")) for code in codes(row[0]) if code.startswith("HEADRACE_")}
    assert stated == read


def test_the_limits_of_documents_are_those_of_the_program() -> None:
    text = page("documents")
    for stated in (
        f"| {MOST_BYTES // MIB} MiB of text |",
        f"| {search.MOST_HITS:,}; of a tool",
        f"| {search.MOST_QUESTION:,} characters |",
        f"| {filters.MOST_PARTS}, nested {filters.MOST_DEPTH} deep, with {filters.MOST_VALUES:,} values of at most "
        f"{filters.MOST_TEXT:,} characters |",
        f"| {library_routes.MOST_KEYS:,} |",
        f"| {chunk.LEAST_TOKENS} to {chunk.MOST_TOKENS:,} |",
    ):
        assert stated in text


def test_the_steps_of_cleaning_are_those_of_the_program() -> None:
    stated = [code for row in rows(section("documents", "Cleaning")) for code in codes(row[0])]
    assert tuple(stated) == clean.STEPS


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("Postgres", postgres_url.OPTIONS),
        ("MongoDB", mongodb_url.OPTIONS),
        ("RabbitMQ", rabbitmq_url.OPTIONS),
        ("Directories", directory_url.OPTIONS),
        ("Pages and feeds", web_url.OPTIONS),
    ],
)
def test_the_options_of_tables_sources_are_those_of_the_program(heading: str, known: tuple[str, ...]) -> None:
    stated = {code for row in rows(section("tables", heading)) if len(row) == 3 for code in codes(row[0])}
    assert set(known) <= stated


@pytest.mark.parametrize(
    ("index", "known"),
    [
        ("`qdrant://`", qdrant.OPTIONS),
        ("`postgres://`", pgvector_link.OPTIONS),
        ("`milvus:`", milvus.OPTIONS),
        ("`pinecone:`", pinecone.OPTIONS),
    ],
)
def test_the_options_of_indexes_are_those_of_the_program(index: str, known: dict[str, str]) -> None:
    row = next(row for row in rows(section("documents", "Indexes")) if row[0] == index)
    assert set(known) <= codes(row[1])


def test_the_extras_are_those_of_the_package() -> None:
    stated = {code for row in rows(section("reference", "Extras")) for code in codes(row[0])}
    given = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert stated == set(given)


def section(name: str, heading: str) -> str:
    """What stands under a heading of a page, its subsections among it."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(name), re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        linked = (path.parent / target) if target else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """The anchors of a page: its labels, and its headings as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_blocks_are_of_a_language_that_is_run_or_meant_not_to_be(path: Path) -> None:
    fences = re.findall(r"^```(\S*)", path.read_text(), re.MULTILINE)[::2]
    run, shown, page_parts = (
        {"python", "console"},
        {"sh", "text", "toml", "json"},
        {"{toctree}", "{eval-rst}", "{include}"},
    )
    assert set(fences) <= run | shown | page_parts
    if path.name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        assert run.isdisjoint(fences), "the examples of this page are not run"


def test_the_map_names_every_room() -> None:
    source = ROOT / "src" / "headrace"
    named = (ROOT / "CONTRIBUTING.md").read_text()
    modules = {path.name for path in source.glob("*.py") if not path.name.startswith("_")}
    rooms = {f"{path.parent.name}/" for path in source.glob("*/__init__.py")}
    assert {name for name in modules | rooms if name not in named} == set()
