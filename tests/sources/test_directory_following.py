"""What happens in a directory while it is watched: a table made of what is told is the directory, at every rest."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.document import TableSchema
from headrace.errors import ConfigError, StorageError
from headrace.files import File
from headrace.sources import directory
from headrace.sources.base import Letter
from headrace.sources.directory import DirectoryReader, DirectorySource
from headrace.sources.tables import Changes
from headrace.testing.tables import PATIENCE, TableModel, batches

SCHEMA = TableSchema.of("files", [File], key="id")


class Table:
    """What a reader has told, until now."""

    def __init__(self, reader: DirectoryReader) -> None:
        self.reader = reader
        self.model = TableModel(SCHEMA)
        self.letters: list[Letter] = []
        self.told: list[Changes] = []

    def now(self) -> dict[str, str]:
        """All that the directory holds has been read."""
        for batch in batches(self.reader):
            self.model.take(batch)
            self.letters += batch.letters
            self.told.append(batch)
        return {key: row.text for key, row in self.model.rows.items() if isinstance(row, File)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def table(root: Path) -> Iterator[Table]:
    with closing(DirectorySource(f"dir://{root}").open(None, SCHEMA)) as reader:
        yield Table(reader)


def test_a_row_has_the_columns_of_a_file(root: Path, table: Table) -> None:
    (root / "guide").mkdir()
    (root / "guide" / "start.md").write_text("# Getting started\n\nTurn it on.\n")
    table.now()
    row = table.model.rows["guide/start.md"]
    written = (root / "guide" / "start.md").stat()
    assert row.model_dump() == {
        "id": "guide/start.md",
        "path": f"{root}/guide/start.md",
        "title": "Getting started",
        "text": "# Getting started\n\nTurn it on.\n",
        "format": "markdown",
        "size": written.st_size,
        "modified": row.model_dump()["modified"],
        "suffix": ".md",
        "language": None,
    }
    assert abs(row.model_dump()["modified"].timestamp() - written.st_mtime) < 1e-5


def test_an_edit_is_told_at_once(root: Path, table: Table) -> None:
    """Without a listing: the reader is told by the system."""
    table.now()
    waits = []
    for number in range(10):
        began = time.monotonic()
        (root / "a.md").write_text(f"edit {number}")
        batch = table.reader.read(PATIENCE)
        waits.append(time.monotonic() - began)
        assert batch is not None
        assert [change.row["text"] for change in batch.changes if isinstance(change.row, dict)] == [f"edit {number}"]
    assert sorted(waits)[5] < 0.1


def test_editors_that_write_a_file_beside_and_rename_it(root: Path, table: Table) -> None:
    (root / "a.md").write_text("one")
    table.now()
    (root / ".a.md.swp").write_text("swap")
    (root / "a.md~").write_text("one")
    (root / "4913").write_text("")
    (root / "4913").unlink()
    (root / "new.tmp").write_text("two")
    os.replace(root / "new.tmp", root / "a.md")
    assert table.now() == {"a.md": "two"}
    assert [change.op for batch in table.told for change in batch.changes] == ["upsert", "upsert"]


def test_moves_of_files_and_folders(root: Path, table: Table) -> None:
    (root / "a" / "deep").mkdir(parents=True)
    (root / "a" / "deep" / "x.md").write_text("x")
    (root / "a" / "y.md").write_text("y")
    assert table.now() == {"a/deep/x.md": "x", "a/y.md": "y"}
    (root / "a").rename(root / "b")
    assert table.now() == {"b/deep/x.md": "x", "b/y.md": "y"}
    (root / "b" / "y.md").rename(root / "z.md")
    assert table.now() == {"b/deep/x.md": "x", "z.md": "y"}
    shutil.rmtree(root / "b")
    assert table.now() == {"z.md": "y"}


def test_the_system_alone_tells_of_new_folders(root: Path, table: Table) -> None:
    """No listing is asked for here."""
    table.now()
    (root / "new" / "er").mkdir(parents=True)
    (root / "new" / "er" / "a.md").write_text("a")
    found: dict[str, Any] = {}
    deadline = time.monotonic() + PATIENCE
    while "new/er/a.md" not in found and time.monotonic() < deadline:
        batch = table.reader.read(1)
        for change in batch.changes if batch else ():
            assert isinstance(change.row, dict)
            found[change.row["id"]] = change.row["text"]
    assert found == {"new/er/a.md": "a"}


def test_what_is_left_out(root: Path) -> None:
    for path in ("a.md", ".hidden.md", ".git/x.md", "node_modules/x.md", "drafts/deep/x.md", "b.txt", "sub/c.md"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    for query, expected in {
        "glob=**/*.md&exclude=drafts": {"a.md", "sub/c.md"},
        "glob=*.md&glob=*.txt": {"a.md", "b.txt"},
        "glob=**/*.md&exclude=**/[c-x].md&hidden=true": {"a.md", ".hidden.md"},
        "glob=sub/**": {"sub/c.md"},
    }.items():
        with closing(DirectorySource(f"dir://{root}?{query}").open(None, SCHEMA)) as reader:
            assert set(Table(reader).now()) == expected


def test_another_choice_of_files_is_a_new_snapshot(root: Path) -> None:
    (root / "a.md").write_text("a")
    (root / "b.txt").write_text("b")
    with closing(DirectorySource(f"dir://{root}?glob=*.md").open(None, SCHEMA)) as reader:
        table = Table(reader)
        assert table.now() == {"a.md": "a"}
    with closing(DirectorySource(f"dir://{root}?glob=*.txt").open(table.told[-1].position, SCHEMA)) as reader:
        table.reader = reader
        assert table.now() == {"b.txt": "b"}


def test_links_are_followed_inside_the_root_only(root: Path, tmp_path: Path, table: Table) -> None:
    (tmp_path / "secret.md").write_text("not ours")
    (root / "a.md").write_text("ours")
    (root / "inside.md").symlink_to("a.md")
    (root / "outside.md").symlink_to("../secret.md")
    (root / "up").symlink_to("..")
    (root / "loop.md").symlink_to("loop.md")
    os.mkfifo(root / "pipe.md")
    assert table.now() == {"a.md": "ours", "inside.md": "ours"}


GARBAGE = {
    "noise.md": (bytes(range(256)) * 3, "binary data"),
    "latin.md": ("Z\u00fcrich, caf\u00e9".encode("latin-1"), "UTF-8"),
    "broken.pdf": (b"%PDF-1.7\n" + bytes(range(256)), "cannot read"),
    "big.md": (b"x" * 2_000, "at most 1000 bytes"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_text_goes_to_the_dead_letters(root: Path, name: str) -> None:
    """Its row goes, the others stay; when it is mended it is back."""
    data, reason = GARBAGE[name]
    if not name.endswith("pdf"):
        (root / name).write_text("fine")
    (root / "other.md").write_text("other")
    with closing(DirectorySource(f"dir://{root}?most_bytes=1000").open(None, SCHEMA)) as reader:
        table = Table(reader)
        table.now()
        (root / name).write_bytes(data)
        assert table.now() == {"other.md": "other"}
        assert len(table.letters) == 1
        assert reason in table.letters[0].reason
        assert table.letters[0].trace.origin.startswith(f"{name}@")
        assert table.now() == {"other.md": "other"}
        assert len(table.letters) == 1, "a file that stays as it is was set aside twice"
        if not name.endswith("pdf"):
            (root / name).write_text("mended")
            assert table.now() == {"other.md": "other", name: "mended"}


def test_two_hundred_megabytes_are_not_read(root: Path, table: Table) -> None:
    with open(root / "huge.txt", "wb") as file:
        file.truncate(200 << 20)  # a hole: reading it would be seen in the time and the memory
    (root / "empty.txt").write_text("")
    (root / "word.txt").write_text("a" * 1_000_000)
    assert {key: len(text) for key, text in table.now().items()} == {"empty.txt": 0, "word.txt": 1_000_000}
    assert "209715200" in table.letters[0].reason
    assert table.letters[0].trace.raw == b""


def test_what_may_not_be_read_goes_to_the_dead_letters(
    root: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not stop root, who may run this: so the calls are refused themselves."""
    (root / "a.md").write_text("a")
    (root / "shut").mkdir()
    (root / "shut" / "b.md").write_text("b")
    assert table.now() == {"a.md": "a", "shut/b.md": "b"}
    scan, open_ = os.scandir, os.open

    def refuse(call: Any, *names: str) -> Any:
        def called(path: Any, *rest: Any, **options: Any) -> Any:
            if str(path).endswith(names):
                raise PermissionError(13, "Permission denied")
            return call(path, *rest, **options)

        return called

    monkeypatch.setattr(os, "scandir", refuse(scan, "/shut"))
    monkeypatch.setattr(os, "open", refuse(open_, "/a.md", "/b.md"))
    for path in ("a.md", "shut/b.md"):
        os.utime(root / path)
    assert table.now() == {}
    assert {letter.trace.origin.partition("@")[0] for letter in table.letters} >= {"a.md", "shut/"}


def test_names_that_are_not_utf8(root: Path, table: Table) -> None:
    (root / os.fsdecode(b"caf\xe9.md")).write_text("a")
    assert table.now() == {}
    assert "UTF-8" in table.letters[0].reason


def test_a_file_that_is_being_written_is_not_told(root: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes between the two looks of a read, three times; only the whole one is told."""
    (root / "a.md").write_text("old")
    table.now()
    read, parts = directory.read, ["ha", "lf", "!"]

    def read_while_written(url: Any, path: str) -> Any:
        if not parts:
            return read(url, path)
        with open(root / path, "a") as file:
            file.write(parts.pop(0))
        found = read(url, path)
        return type(found)(found.stamp, found.data, torn=True)

    monkeypatch.setattr(directory, "read", read_while_written)
    (root / "a.md").write_text("")
    assert table.now() == {"a.md": "half!"}
    assert [change.row["text"] for batch in table.told for change in batch.changes if isinstance(change.row, dict)] == [
        "old",
        "half!",
    ]


def test_a_root_that_is_gone_is_waited_for(root: Path, table: Table, tmp_path: Path) -> None:
    """Its rows stay meanwhile; when it is back it is told anew, with what was deleted."""
    (root / "a.md").write_text("a")
    (root / "b.md").write_text("b")
    assert table.now() == {"a.md": "a", "b.md": "b"}
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="expected the directory"):
        table.now()
    with pytest.raises(StorageError, match="read on when it is back"):
        table.reader.read(0)
    (tmp_path / "elsewhere" / "b.md").unlink()
    (tmp_path / "elsewhere" / "c.md").write_text("c")
    (tmp_path / "elsewhere").rename(root)
    assert table.now() == {"a.md": "a", "c.md": "c"}


def test_where_nothing_can_be_watched_it_is_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the system's limit of watches is reached."""

    def refuse(*_: Any) -> Any:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(directory, "RustNotify", refuse)
    (root / "a.md").write_text("a")
    with (
        caplog.at_level(logging.WARNING),
        closing(DirectorySource(f"dir://{root}").open(None, SCHEMA)) as reader,
    ):
        table = Table(reader)
        assert table.now() == {"a.md": "a"}
        (root / "a.md").write_text("another")
        batch = reader.read(PATIENCE)
    assert batch is not None
    assert "watch limit" in caplog.text


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a directory at"):
        DirectorySource(f"dir://{tmp_path}/none").open(None, SCHEMA)
    with pytest.raises(ConfigError, match="key"):
        DirectorySource(f"dir://{tmp_path}").open(None, TableSchema.of("files", [File], key="title"))


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "replace", "move", "delete", "drop", "rename", "read", "reopen"]),
        st.sampled_from(["a.md", "b.md", "x/a.md", "x/y/b.md", "z/a.md"]),
        st.sampled_from(["c.md", "x/c.md", "w/a.md", "a.md"]),
        st.text("ab\u00e9 \n", max_size=4),
    ),
    max_size=25,
)


@given(edits=EDITS)
def test_the_table_is_the_directory(edits: list[tuple[str, str, str, str]], tmp_path_factory: Any) -> None:
    """Whatever is done to it and whenever it is read or read on by another reader."""
    root: Path = tmp_path_factory.mktemp("tree")
    source = DirectorySource(f"dir://{root}")
    table = Table(source.open(None, SCHEMA))
    try:
        for what, path, other, text in [*edits, ("read", "a.md", "a.md", "")]:
            one, two = root / path, root / other
            if what == "write":
                one.parent.mkdir(parents=True, exist_ok=True)
                one.write_text(text)
            elif what == "replace" and one.exists():
                (root / "new.tmp").write_text(text)
                os.replace(root / "new.tmp", one)
            elif what == "move" and one.exists():
                two.parent.mkdir(parents=True, exist_ok=True)
                one.rename(two)
            elif what == "delete":
                one.unlink(missing_ok=True)
            elif what == "drop" and one.parent != root:
                shutil.rmtree(one.parent, ignore_errors=True)
            elif what == "rename" and (root / "x").exists() and not (root / "v").exists():
                (root / "x").rename(root / "v")
            elif what == "read":
                there = {str(file.relative_to(root)): file.read_text() for file in root.rglob("*.md")}
                assert table.now() == there
            elif what == "reopen":
                table.reader.close()
                position = table.told[-1].position if table.told else None
                table.reader = source.open(position, SCHEMA)
    finally:
        table.reader.close()
