"""CocoIndex: a directory of files is the source and a table of SQLite the target; a revision is a file and an update.

Files are memoised, and so is the embedding of each chunk, by its text: of a file that changed only new chunks are
embedded. The time is mostly that of an update, which looks at all files; the other peers are told what has changed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# It would tell its makers of every update, and is asked not to before it is loaded.
os.environ["COCOINDEX_DISABLE_USAGE_TRACKING"] = "1"

import cocoindex as coco
from cocoindex.connectors import localfs, sqlite
from cocoindex.ops.text import RecursiveSplitter
from cocoindex.resources.file import FileLike

from headrace.bench.peers.replay import CHUNK, OVERLAP, Account, revisions

DATABASE = coco.ContextKey[sqlite.ManagedConnection]("replay")
_splitter = RecursiveSplitter()


def _split(text: str) -> list[str]:
    chunks = _splitter.split(text, chunk_size=CHUNK, chunk_overlap=OVERLAP, language="markdown")
    return [chunk.text for chunk in chunks]


account = Account(_split)


@dataclass
class Chunk:
    """A row of the target."""

    id: str
    document: str
    text: str
    vector: bytes


@coco.fn(memo=True)
async def embed(text: str) -> bytes:
    return bytes(round(number * 100) for number in account.embed([text])[0])


@coco.fn(memo=True)
async def index_file(file: FileLike, table: Any) -> None:
    name, seen = file.file_path.path.name, dict[str, int]()
    for text in _split(await file.read_text()):
        seen[text] = seen.get(text, 0) + 1
        key = hashlib.blake2b(f"{name}\0{text}\0{seen[text]}".encode(), digest_size=16).hexdigest()
        table.declare_row(row=Chunk(key, name, text, await embed(text)))


@coco.fn
async def keep(folder: Path) -> None:
    schema = await sqlite.TableSchema.from_class(Chunk, primary_key=["id"])
    table = await sqlite.mount_table_target(DATABASE, table_name="chunks", table_schema=schema)
    await coco.mount_each(index_file, localfs.walk_dir(folder).items(), table)


def main(path: str, limit: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["COCOINDEX_DB"] = str(Path(home) / "state")
        files = Path(home) / "files"
        files.mkdir()
        connection = sqlite.connect(str(Path(home) / "chunks.sqlite"), load_vec=False)

        @coco.lifespan
        async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
            builder.provide(DATABASE, connection)
            yield

        app = coco.App(coco.AppConfig(name="replay"), keep, folder=files)
        for revision in account.replay(revisions(path, limit)):
            file = files / revision.document
            if revision.text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(revision.text)
            app.update_blocking()
        with connection.readonly() as reading:
            account.say(reading.execute("SELECT document, text FROM chunks").fetchall())


if __name__ == "__main__":
    main(*sys.argv[1:])
