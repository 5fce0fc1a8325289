"""A data set: what is in it, what is left out and why, and that the same goes in as comes out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from exported import delete, newsroom, store_at, stored, upsert, written
from hypothesis import given
from hypothesis import strategies as st

from headrace.documents.dataset import Recipe, side
from headrace.documents.passages import Passage
from headrace.errors import InputError
from headrace.serving.export import Export, export

WORDS = [f"word{n}" for n in range(400)]


def prose(seed: int, length: int = 40) -> str:
    """Words that no other seed gives in this order."""
    return " ".join(WORDS[(seed * 37 + n * (seed + 3)) % len(WORDS)] for n in range(length)) + "."


def exported(data: Path, out: Path, recipe: Recipe | None = None, **options: Any) -> Export:
    return export(newsroom(), data, "library", out, recipe, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


def of(done: Export, name: str) -> set[str]:
    """The documents on a side."""
    return {one["document"] for one in lines(done.path / "sources.jsonl") if one["file"] == f"{name}.jsonl"}


def test_a_chat_of_each_section(tmp_path: Path) -> None:
    text = f"# Rivers\n\n{prose(1)}\n\n# Mills\n\n{prose(2)}"
    data = written(tmp_path / "data", [upsert("a", text, "Guide")])
    done = exported(data, tmp_path / "out", Recipe(test=0))
    assert lines(tmp_path / "out" / "train.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": f'Write the section "{heading}" of "Guide".'},
                {"role": "assistant", "content": prose(seed)},
            ]
        }
        for seed, heading in ((1, "Rivers"), (2, "Mills"))
    ]
    assert sorted(path.name for path in done.path.iterdir()) == ["manifest.json", "sources.jsonl", "train.jsonl"]


def test_a_line_can_be_followed_to_its_document(tmp_path: Path) -> None:
    """So what a deleted document gave to a data set can be found."""
    data = written(tmp_path / "data", [upsert(f"d{n}", prose(n), "T") for n in range(1, 20)])
    done = exported(data, tmp_path / "out", Recipe("text", test=0.5))
    files = {name: lines(done.path / f"{name}.jsonl") for name in ("train", "test")}
    for source in lines(done.path / "sources.jsonl"):
        text = files[source["file"].removesuffix(".jsonl")][source["line"] - 1]["text"]
        assert text == prose(int(source["document"][1:]))[source["start"] : source["end"]]
    assert len(files["train"]) + len(files["test"]) == 19


_ROWS = st.dictionaries(st.sampled_from([f"k{n}" for n in range(12)]), st.integers(1, 6), min_size=2)


@given(rows=_ROWS, seed=st.integers(0, 3))
def test_the_sides_share_nothing_and_are_stable(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, int], seed: int
) -> None:
    """For any documents, many of them the same: no text is on both sides; each is on the side that its key says."""
    folder = tmp_path_factory.mktemp("export")
    data = written(folder / "data", [upsert(key, prose(text), "T") for key, text in rows.items()])
    done = exported(data, folder / "out", Recipe("text", test=0.5, seed=seed))
    train, test = ({one["text"] for one in lines(done.path / f"{name}.jsonl")} for name in ("train", "test"))
    assert (train & test, train | test) == (set(), {prose(text) for text in rows.values()})
    assert {key for key in rows if side(key, seed, 0.5) == "test"} >= of(done, "test")
    assert of(done, "train").isdisjoint(of(done, "test"))


def test_nearly_equal_documents_are_taken_out_across_the_sides(tmp_path: Path) -> None:
    """The older one is kept, whichever side it is on."""
    newer, older = upsert("a", prose(1, 200) + " Again.", "T", at=2), upsert("b", prose(1, 200), "T", at=1)
    data = written(tmp_path / "data", [newer, older, upsert("c", prose(5), "T", at=3)])
    done = exported(data, tmp_path / "out", Recipe(test=0.5))
    assert of(done, "train") | of(done, "test") == {"b", "c"}
    assert done.manifest["documents"]["removed"] == {"near_duplicate": 1}
    both = exported(data, tmp_path / "all", Recipe(test=0.5, near=None))
    assert of(both, "train") | of(both, "test") == {"a", "b", "c"}


def test_a_section_that_stands_in_many_documents_counts_once(tmp_path: Path) -> None:
    """A licence at the end of every page: the documents differ, the passage does not."""
    pages = [upsert(f"d{n}", f"# Page\n\n{prose(n, 300)}\n\n# Licence\n\n{prose(90)}", "T", at=n) for n in range(1, 5)]
    done = exported(written(tmp_path / "data", pages), tmp_path / "out", Recipe("text", test=0))
    assert [one["text"] for one in lines(done.path / "train.jsonl")].count(prose(90)) == 1
    assert done.manifest["examples"]["removed"] == {"near_duplicate": 3}


def test_the_same_version_makes_the_same_bytes(tmp_path: Path) -> None:
    """Whatever was written since; and the manifest has the SHA-256 of each file."""
    store = store_at(tmp_path / "data")
    stored(store, [upsert(f"d{n}", prose(n), "T") for n in range(30)])
    one = exported(tmp_path / "data", tmp_path / "one", version=30)
    stored(store, [delete("d3"), upsert("d4", prose(99), "T")])
    two = exported(tmp_path / "data", tmp_path / "two", version=30)
    store.close()
    names = sorted(path.name for path in one.path.iterdir())
    assert names == ["manifest.json", "sources.jsonl", "test.jsonl", "train.jsonl"]
    assert [(one.path / name).read_bytes() for name in names] == [(two.path / name).read_bytes() for name in names]
    assert {file["name"]: file["sha256"] for file in one.manifest["files"]} == {
        name: hashlib.sha256((one.path / name).read_bytes()).hexdigest() for name in names[1:]
    }


def test_documents_keep_their_side_when_others_come(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data")
    stored(store, [upsert(f"d{n}", prose(n), "T", at=n) for n in range(30)])
    before = exported(tmp_path / "data", tmp_path / "one", Recipe(test=0.3))
    stored(store, [upsert(f"e{n}", prose(n + 40), "T", at=100 + n) for n in range(30)])
    after = exported(tmp_path / "data", tmp_path / "two", Recipe(test=0.3))
    store.close()
    assert of(before, "test") == {key for key in of(after, "test") if key.startswith("d")}
    assert of(before, "test")


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        upsert("good", prose(1), "T", trusted=True),
        upsert("untrusted", prose(2), "T"),
        upsert("german", prose(3), "T", trusted=True, lang="de"),
        upsert("empty", " \n ", "T", trusted=True),
        upsert("short", "Hm.", "T", trusted=True),
        upsert("nameless", prose(4), trusted=True),
    ]
    recipe = Recipe(test=0, trusted=True, where={"lang": "en"})
    done = exported(written(tmp_path / "data", rows), tmp_path / "out", recipe)
    assert done.manifest["documents"] == {
        "read": 6,
        "train": 1,
        "test": 0,
        "removed": {"empty": 1, "filtered": 1, "untrusted": 1},
        "failures": [],
    }
    assert done.manifest["examples"] == {"train": 1, "test": 0, "removed": {"no_prompt": 1, "too_short": 1}}
    assert done.manifest["recipe"]["where"] == {"lang": {"eq": "en"}}


def test_wording_may_be_a_function(tmp_path: Path) -> None:
    """It is given the passage; None leaves it out."""

    def worded(passage: Passage) -> tuple[str, str] | None:
        return ("Tell me.", "") if passage.title == "T" else None

    data = written(tmp_path / "data", [upsert("a", prose(1), "T"), upsert("b", prose(2), "U")])
    done = exported(data, tmp_path / "out", Recipe("completion", test=0, wording=worded))
    assert lines(done.path / "train.jsonl") == [{"prompt": "Tell me.", "completion": prose(1)}]
    assert done.manifest["examples"]["removed"] == {"left_out": 1}


def test_tokens_may_be_counted_otherwise(tmp_path: Path) -> None:
    def words(text: str) -> int:
        return len(text.split())

    data = written(tmp_path / "data", [upsert("a", prose(1, 10), "T"), upsert("b", prose(2, 30), "T")])
    done = exported(data, tmp_path / "out", Recipe("text", test=0, least=20), count=words)
    assert of(done, "train") == {"b"}
    assert done.manifest["recipe"]["counted_by"].endswith("words")


def test_nothing_to_export_is_an_error(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [upsert("a", "Hm.", "T")])
    with pytest.raises(InputError, match="gives no example at version 1; left out: 1 too short"):
        exported(data, tmp_path / "out")
    with pytest.raises(InputError, match="nothing to export at version 1; left out: 1 filtered"):
        exported(data, tmp_path / "out", Recipe(where={"lang": "de"}))
    with pytest.raises(InputError, match="nothing to export at version 0"):
        exported(data, tmp_path / "out", version=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
