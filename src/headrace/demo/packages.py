"""The app of the demo's documents half: what is installed here, and some of the standard library, watched.

An installed package is a folder `NAME-VERSION.dist-info` with a file METADATA, which pip and uv write when they install
it and remove when they uninstall it: its header says what the package is, its body is the README. So a directory of
packages is a table by `dir:`, and nothing has to be told that something was installed.

`headrace run headrace.demo.packages:app` serves it for the environment that it runs in.
"""

from __future__ import annotations

import sysconfig
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from pydantic import model_validator

import headrace as hr

# A part of the standard library that people ask about, small enough to be searchable in seconds.
MODULES = (
    *("asyncio/runners.py", "asyncio/tasks.py", "asyncio/queues.py", "asyncio/threads.py", "asyncio/timeouts.py"),
    *("asyncio/taskgroups.py", "asyncio/locks.py", "asyncio/streams.py", "json/__init__.py", "json/decoder.py"),
    *("concurrent/futures/thread.py", "collections/__init__.py", "contextlib.py", "csv.py", "dataclasses.py"),
    *("functools.py", "heapq.py", "random.py", "shutil.py", "statistics.py", "tempfile.py", "textwrap.py"),
    *("threading.py", "graphlib.py", "secrets.py"),
)
# Of a README; what some append to it is the history of all releases.
_MOST_CHARACTERS = 20_000
_FORMATS = {"text/markdown": "markdown", "text/x-rst": "rst", "text/plain": "plain"}


class Package(hr.Document):
    """An installed package: its README, and what its header says."""

    id: str
    name: str
    version: str = ""
    summary: str = ""
    text: str = ""
    format: str = "rst"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, row: Any) -> Any:
        """A file METADATA as a package; what is one already stays as it is."""
        if not isinstance(row, dict) or "name" in row:
            return row
        found = HeaderParser().parsestr(str(row.get("text", "")))
        kind = found.get("Description-Content-Type", "text/x-rst").partition(";")[0].strip().lower()
        readme = found.get_payload()
        return {
            "id": row.get("id"),
            "name": found.get("Name"),
            "version": found.get("Version", ""),
            "summary": found.get("Summary", ""),
            "text": readme if isinstance(readme, str) and readme.strip() else found.get("Description", ""),
            "format": _FORMATS.get(kind, "plain"),
        }


class Module(hr.Document):
    """A module of the standard library: its source."""

    id: str
    text: str
    format: str = "python"


def readme(package: Package) -> tuple[str, str]:
    """A package's title and text: its summary says what its README often takes for granted."""
    return f"{package.name} {package.version}", f"{package.summary}\n\n{package.text[:_MOST_CHARACTERS]}"


def source(module: Module) -> tuple[str, str]:
    """A module's name, as it is imported, and its text."""
    return module.id.removesuffix(".py").removesuffix("/__init__").replace("/", "."), module.text


def library(
    site: str | Path | None = None,
    standard: str | Path | None = None,
    tryout: str | Path | None = None,
    *,
    embed: str = "static",
    index: str = "local:",
) -> hr.App:
    """The app.

    Args:
        site: The directory of the installed packages; of this environment, if not given.
        standard: That of the standard library.
        tryout: A directory of packages of its own, to measure with.
        embed: What embeds them.
        index: Where they are searched.
    """
    app = hr.App("this-environment")
    kept = {"embed": embed, "index": index}
    modules = app.table(
        Module,
        f"dir://{Path(standard or sysconfig.get_path('stdlib')).as_posix()}",
        options={"glob": list(MODULES), "exclude": ["site-packages", "dist-packages", "test"]},
    )
    places = {"packages": site or sysconfig.get_path("purelib")} | ({"tryout": tryout} if tryout else {})
    for name, place in places.items():
        # What pip is about to remove has a name that begins with "~".
        options = {"glob": "*.dist-info/METADATA", "exclude": "~*"}
        table = app.table(Package, f"dir://{Path(place).as_posix()}", name=f"{name}_installed", options=options)
        about = "The READMEs of the installed packages."
        app.collection(name, table, text=readme, about=about, filters=["name", "version"], **kept)
    app.collection("standard_library", modules, text=source, about="Source of the standard library.", **kept)
    return app


def metadata(name: str, version: str, summary: str, text: str) -> str:
    """A file METADATA, as an installer writes it."""
    header = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
    return f"{header}Description-Content-Type: text/markdown\n\n{text}\n"


app = library()
