"""The rooms: imports run one way, no room imports a neighbour, and the pure ones touch nothing outside."""

from __future__ import annotations

import ast
import sys
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

SOURCE = Path(__file__).parent.parent / "src" / "headrace"
GROUND = {"errors", "units", "hashing", "fields", "timestamps", "values", "schema", "changes", "cdc", "document"}
GROUND |= {"filters", "filter_expr", "files", "parts", "arguments"}
# What whoever runs an app may use besides.
INSIDE = {"registry", "formats", "sources", "stores", "features", "documents", "assembly", "upstream", "declarations"}
INSIDE |= {"enrich"}
# Each room, and the rooms that it may import; what a room may import, its users may not assume.
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    "registry": GROUND,
    "formats": GROUND | {"registry"},  # what reads a file's text is found by its kind
    "sources": GROUND | {"formats", "registry"},  # messages are decoded by what their formats say of them
    "stores": GROUND,
    "features": GROUND,
    "documents": GROUND,
    "assembly": GROUND | {"documents"},
    "upstream": GROUND,
    "declarations": GROUND | {"registry", "documents"},
    "app_chats": GROUND | {"declarations", "upstream"},
    "enrich": GROUND | {"assembly", "formats", "registry", "upstream"},
    "app_enrich": GROUND | {"declarations", "enrich", "upstream"},
    "app_contexts": GROUND | {"declarations"},
    "app_memories": GROUND | {"declarations", "upstream"},
    "app": GROUND
    | {"registry", "features", "documents", "declarations", "app_chats", "app_contexts", "app_enrich", "app_memories"},
    "plan": GROUND | {"registry", "features", "documents", "declarations", "app", "app_enrich"},
    "runners": GROUND | INSIDE | {"app", "app_enrich", "plan"},
    "ops": GROUND,
    "serving": GROUND | INSIDE | {"app", "plan", "runners", "ops"},
    "adapters": GROUND,  # what it adapts is handed to it
    "testing": GROUND | INSIDE | {"app"},
}
# `app.open()` starts the engine, which a declaration does not need: imported when it is called.
LATE = {("headrace.app", "headrace.serving.live")}
# A pack is rendered by what knows the pack.
LATE |= {("headrace.assembly.pack", f"headrace.assembly.{form}") for form in ("render", "plain")}
PURE = {"features", "documents", "assembly"}
# An embedder is a model that is loaded, or asked of a server.
LOADED = ("documents", "embed")
PURE_MAY_USE = {"polars", "numpy", "msgspec", "xxhash", "__future__"}
NOT_PURE = {"asyncio", "threading", "time", "os", "io", "pathlib", "socket", "subprocess", "queue", "concurrent"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("headrace", exclude_type_checking_imports=True, cache_dir=None)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_run_one_way(graph: grimp.ImportGraph) -> None:
    broken = [
        f"{module} imports {imported}"
        for module in sorted(graph.modules)
        if _room(module) in MAY_IMPORT
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        if _room(imported)
        and _room(imported) != _room(module)
        and _room(imported) not in MAY_IMPORT[_room(module)]
        and (module, imported) not in LATE
    ]
    assert broken == []


def test_every_room_has_its_place() -> None:
    on_top = {"", "cli", "demo", "bench", "__init__", "__main__"}
    rooms = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir() if not path.name.startswith("__p")}
    assert rooms - set(MAY_IMPORT) - on_top - {"py"} == set()


def test_there_are_no_cycles(graph: grimp.ImportGraph) -> None:
    cycles = []
    for module in sorted(graph.modules - {"headrace"}):
        for imported in graph.find_modules_directly_imported_by(module):
            if imported in ("headrace", module) or (module, imported) in LATE:
                continue
            back = graph.find_shortest_chain(imported, module)
            if back is not None and not any(pair in LATE for pair in pairwise(back)):
                cycles.append(back)
    assert cycles == []


def test_no_private_name_crosses_a_room() -> None:
    crossed = []
    for path in SOURCE.rglob("*.py"):
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("headrace."):
                private = [name.name for name in node.names if name.name.startswith("_") and name.name != "__version__"]
                private += [part for part in node.module.split(".")[1:] if part.startswith("_")]
                if private and _room(node.module) != here:
                    crossed.append(f"{path.name}: {private} of {node.module}")
    assert crossed == []


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_rooms_do_no_io_and_read_no_clock(room: str) -> None:
    used = set()
    for path in (SOURCE / room).rglob("*.py"):
        if path.relative_to(SOURCE).parts[:2] == LOADED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.split(".")[0])
    outside = used - sys.stdlib_module_names - {"headrace"}
    assert (outside - PURE_MAY_USE, used & NOT_PURE) == (set(), set())


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(SOURCE)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
