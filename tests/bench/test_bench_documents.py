"""The `documents` and `retrieval` benchmarks: what they count is right, and that they run; never a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from headrace.bench import documents, documents_peers, main, retrieval
from headrace.bench.documents_data import frame, live, title_of, without_title
from headrace.bench.documents_live import Script
from headrace.bench.documents_replay import Lines, Tally, replay
from headrace.bench.harness import BenchError
from headrace.bench.retrieval_data import Question, known_items
from headrace.documents.embed.hashed import HashEmbedder
from headrace.runners.library.hits import Hit

_WORDS = re.findall(r"\w+", "river mill wheel stone flour miller weir sluice grain leat race tail wheat oat rye barley")
_TITLES = ("On the keeping of mills", "How a weir is built", "What millers are paid")


def _text(number: int, revision: int) -> str:
    """A document of some sections; each revision changes one."""
    sections = []
    for place in range(4):
        words = [_WORDS[(number * 7 + place * 3 + step * (number + 2)) % len(_WORDS)] for step in range(60)]
        words[5] += f"{number}x{place}" + (f"r{revision}" if place == revision % 4 else "")
        heading = f"The {_WORDS[number]} and the {_WORDS[place + 4]} number {place}"
        sections.append(f"{heading}\n{'=' * len(heading)}\n\n{' '.join(words)}.\n")
    return f"PEP: {number}\nTitle: {_TITLES[number]}\nStatus: Draft\n\n\n" + "\n\n".join(sections)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three documents of five revisions, of which one goes, and comes again."""
    rows = [("upsert", f"pep-{number}", _text(number, revision)) for revision in range(5) for number in range(3)]
    rows[7:7] = [("delete", "pep-1", "")]
    rows.append(("delete", "pep-2", ""))
    path = tmp_path_factory.mktemp("corpus") / "revisions.parquet"
    made = pl.DataFrame(rows, schema=["op", "id", "text"], orient="row").with_row_index("seq")
    made.write_parquet(path)
    return path


def test_without_data_it_says_what_to_hand_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADRACE_PEPS", raising=False)
    for name in ("documents", "retrieval"):
        assert main([name]) == 1
        assert "--data FILE or HEADRACE_PEPS" in capsys.readouterr().err
    pl.DataFrame({"seq": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(BenchError, match="id, op, text lack"):
        frame(tmp_path / "other.parquet")


def test_a_title_may_go_on_in_the_next_line() -> None:
    text = "PEP: 1\nTitle: One\n   and more\nStatus: Final\n\nBody"
    assert title_of(text) == "One and more"
    assert without_title(text) == "PEP: 1\nStatus: Final\n\nBody"
    assert title_of("no header") == ""


def test_what_is_kept_counts_from_the_second_revision() -> None:
    tally = Tally()
    tally.add(100, 100, first=True)
    tally.add(100, 10, first=False)
    assert [tally.kept, tally.kept_of_all] == pytest.approx([0.9, 0.45])
    lines = Lines()
    for text in ("a\nbb\n", "a\nccc\n", "bb\nccc\n"):
        lines.add("one", text)
    assert (lines.tally.later, lines.tally.sent) == (13, 4)


def test_a_replay_embeds_only_what_changed_and_ends_with_the_live_chunks(corpus: Path) -> None:
    """The comparison with the oracle is in it; the last documents are those that were not deleted."""
    revisions = frame(corpus)
    assert sorted(live(revisions)) == ["pep-0", "pep-1"]
    found = replay(revisions, HashEmbedder("hash:16"), mark=3)
    assert len(found.milliseconds) == revisions.height == 17
    assert 0.5 < found.chunks.kept < found.lines.kept + 0.3
    assert found.marks[3] == 0.0
    assert found.live > 0
    assert 0 < found.tokens <= found.limit


def test_edits_are_later_revisions_of_what_is_there(corpus: Path) -> None:
    script = Script.of(frame(corpus), 2, 3, seed=3)
    assert sorted(script.base) == ["pep-0", "pep-1", "pep-2"]
    now = dict(script.base)
    for edit in (edit for edits in script.rounds for edit in edits):
        number, revision = next((n, r) for n in range(3) for r in range(5) if _text(n, r) == edit.text)
        assert now[edit.id] == _text(number, revision - 1)
        now[edit.id] = edit.text or ""
    assert 3 <= sum(map(len, script.rounds)) <= 6


def test_documents_runs(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_peers, "PEERS", {"none": ("no_such_package", "none")})
    report = documents.run(
        data=corpus, runs=1, seconds=0.1, tokenizer="hash", loads=(("hash", 40.0, True),), indexes=("memory:",)
    )
    assert report.value("headrace, 256 tokens", "median of a chunk") is not None
    assert (report.value("headrace hash, cached, memory:", "40 edits/s: searchable p99") or 0) > 0
    assert report.left_out == {"none": documents_peers.NO_PEER}
    assert report.to_dict()["ratios"]


def test_a_question_does_not_stand_where_its_answer_is(corpus: Path) -> None:
    """Titles and headings are taken out, and a section begins where its heading was."""
    items = known_items(live(frame(corpus)), 1, headings=2)
    titles = [one for one in items.questions if one.kind == "title"]
    headings = [one for one in items.questions if one.kind == "heading"]
    assert {one.text for one in titles} == set(_TITLES[:2])
    assert len(headings) == 2
    for one in items.questions:
        assert one.text not in items.texts[one.document]
    original = live(frame(corpus))
    for one in headings:
        section = items.texts[one.document][one.start : one.end].strip()
        assert section
        assert original[one.document].partition(one.text)[2].lstrip("=\n").startswith(section)


def _hit(document: str, start: int, end: int) -> Hit:
    return Hit("", 1.0, document, "", datetime(2026, 1, 1, tzinfo=UTC), 0.0, "", "", (), "pep", {}, start, end, False)


def test_ranks() -> None:
    """Of a title by documents, of a heading by chunks that are half inside of its section."""
    hits = [_hit("a", 0, 100), _hit("a", 100, 200), _hit("b", 0, 100), _hit("b", 90, 200)]
    title = Question("title", "?", "b")
    assert retrieval.rank(hits, title) == 2
    assert retrieval.rank(hits[:2], title) == 0
    section = Question("heading", "?", "b", 80, 400)
    assert retrieval.rank(hits, section) == 4


def test_retrieval_runs(corpus: Path) -> None:
    report = retrieval.run(data=corpus, headings=2, embedders=("hash",), index="memory:")
    for mode in retrieval.MODES:
        found = report.value(f"hash, {mode}", "all: nDCG@10")
        assert found is not None
        assert 0 <= found <= 1
    assert any("hybrid over" in note for note in report.notes)
