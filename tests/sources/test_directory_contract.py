"""The directory source under the contract of tables' sources, told by the system and by listing."""

from pathlib import Path

import pytest

from headrace.document import Document, TableSchema
from headrace.files import File
from headrace.sources.directory import DirectorySource
from headrace.testing.tables import TableSourceContract


class DirectoryWorld:
    """Markdown files in a folder below the root."""

    def __init__(self, root: Path, options: str = "") -> None:
        root.mkdir()
        self.source = DirectorySource(f"dir://{root}?glob=**/*.md{options}")
        self.schema = TableSchema.of("notes", [File], key="id")
        self._folder = root / "below"
        self._folder.mkdir()

    def put(self, key: str, text: str) -> str:
        (self._folder / f"{key}.md").write_text(text)
        return f"below/{key}.md"

    def delete(self, key: str) -> None:
        (self._folder / f"{key}.md").unlink()

    def text(self, document: Document) -> str:
        assert isinstance(document, File)
        return document.text


class TestWatched(TableSourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> DirectoryWorld:
        return DirectoryWorld(tmp_path / "root")


class TestListed(TableSourceContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> DirectoryWorld:
        return DirectoryWorld(tmp_path / "root", "&poll=20ms")
