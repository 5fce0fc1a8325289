"""The public names: what programs outside this repository use."""

from __future__ import annotations

import subprocess
import sys

import headrace as hr

CONTRACT = {
    *("App", "Event", "event_time", "connect", "HeadraceError"),
    *("sum", "count", "mean", "min", "max", "std", "first", "last", "rate"),
    *("distinct", "quantile", "top", "histogram", "latest"),
    *("Document", "chunk"),
}
ADDED = {
    *("Context", "Pack", "section", "text"),
    *("Llm", "Upstream", "llm"),
    *("AsyncRemote", "connect_async", "ChatAnswer", "ChatChunk", "Citation", "ToolRun"),
    *("Collection", "File", "Hit", "Page", "Table", "clean"),
    *("Memory", "Recalled", "Turn"),
    *("Clock", "Feature", "Live", "Reject", "Remote", "Row", "Stream", "Token", "View", "register"),
    *("ClosedError", "ConfigError", "DecodeError", "InputError", "LockedError", "MissingDependencyError"),
    *("RemoteError", "SchemaError", "StaleError", "StorageError", "TooLargeError", "UnknownNameError"),
}


def test_the_public_names_are_these() -> None:
    rooms = {
        "app",
        "changes",
        "errors",
        "features",
        "fields",
        "formats",
        "hashing",
        "registry",
        "runners",
        "schema",
        "serving",
    }
    rooms |= {"sources", "stores", "timestamps", "units", "values", "ops", "cli", "demo", "bench", "testing", "plan"}
    rooms |= {"app_memories", "adapters"}
    rooms |= {"cdc", "declarations", "document", "documents", "files", "filter_expr", "filters"}
    rooms |= {"app_chats", "app_contexts", "app_enrich", "enrich", "upstream", "arguments", "assembly", "parts"}
    public = {name for name in vars(hr) if not name.startswith("_")} - rooms
    assert public == CONTRACT | ADDED


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in sorted(CONTRACT | ADDED) if not (getattr(hr, name).__doc__ or "").strip()] == []


def test_errors_are_one_tree() -> None:
    errors = [value for name, value in vars(hr).items() if name.endswith("Error")]
    assert all(issubclass(error, hr.HeadraceError) for error in errors)


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "headrace", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: headrace" in done.stdout) == (0, True)
