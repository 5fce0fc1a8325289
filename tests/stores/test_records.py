"""The records of a collection: what is looked up in one statement is what was written, whatever it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stores.records import ChunkRecord, DocumentRecord, Flip, Records

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ODD = ["", "\x00", "a\x00b", '"', "\\", "\u2028", "[1, 2]", "null", "é\U0001f600", "\x1f\x7f"]


def chunk(number: int, text: str, embedded: str | None = None, headings: tuple[str, ...] = ()) -> ChunkRecord:
    return ChunkRecord(f"c{number}", 1, "d", bytes([number] * 16), number, text, embedded, headings, 0, len(text))


def document(title: str, columns: dict[str, object]) -> DocumentRecord:
    return DocumentRecord("d", 7, "note", 1_700_000_000_000_000, "here", False, title, columns, "p1")


def write(records: Records, document: DocumentRecord, chunks: list[ChunkRecord]) -> None:
    records.flip(Flip([document], [], chunks, [], document.seq))


@pytest.mark.parametrize("text", ODD)
def test_a_chunk_comes_back_with_its_document(tmp_path: Path, text: str) -> None:
    records = Records(tmp_path / "records", durable=False)
    one = document(text, {"lang": text, "size": 2**53 + 1, "share": 0.1, "none": None, "tags": [text]})
    chunks = [chunk(0, text, text, (text, "b")), chunk(1, text)]
    write(records, one, chunks)
    with records.moment() as moment:
        assert moment.alive(["c1", "none", "c0"]) == {"c0": (chunks[0], one), "c1": (chunks[1], one)}
        assert moment.alive([]) == {}
    records.close()


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), title=TEXTS)
def test_looked_up_together_or_one_by_one(
    texts: list[str], title: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = Records(tmp_path_factory.mktemp("records") / "records", durable=False)
    write(records, document(title, {}), [chunk(number, text) for number, text in enumerate(texts)])
    ids = [f"c{number}" for number in range(len(texts) + 1)]
    with records.moment() as moment:
        chunks, documents = moment.of_document("d"), moment.documents(["d"])
        assert moment.alive(ids) == {one.id: (one, documents["d"]) for one in chunks}
    records.close()


def test_a_moment_is_not_moved_by_what_is_written_in_it(tmp_path: Path) -> None:
    records = Records(tmp_path / "records", durable=False)
    write(records, document("first", {}), [chunk(0, "first")])
    with records.moment() as moment:
        write(records, document("second", {}), [chunk(0, "second")])
        assert moment.alive(["c0"])["c0"][0].text == "first"
    with records.moment() as moment:
        assert moment.alive(["c0"])["c0"][1].title == "second"
    records.close()


def test_what_is_searched(tmp_path: Path) -> None:
    records = Records(tmp_path / "records", durable=False)
    one, two = records.add_space("hash", "hash", 8), records.add_space("static", "static", 8)
    records.use("note", one, live=True)
    records.use("mail", one, live=True)
    records.use("note", two, live=False)
    with records.moment() as moment:
        assert moment.searched() == {one: {"note", "mail"}}
    records.use("note", two, live=True)
    with records.moment() as moment:
        assert moment.searched() == {one: {"mail"}, two: {"note"}}
    records.close()
