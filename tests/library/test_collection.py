"""A collection follows its table: what is searched is what the table says, at every moment and after every restart."""

from __future__ import annotations

import threading

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from newsroom import Article, article, expected_ids, held_ids, newsroom, open_at

import headrace as hr
from headrace.errors import InputError, StorageError

WORDS = st.sampled_from(["river", "engine", "launch", "market", "storm", "court", "budget", "harbour"])
BODIES = st.lists(WORDS, min_size=0, max_size=60).map(" ".join)


@pytest.fixture
def live():
    with open_at(None) as live:
        yield live


class TestFollowing:
    def test_a_pushed_document_is_found_by_its_token(self, live):
        token = live.push("article", article("a", "The launch slipped by a week."))
        hits = live.search("library", "why did the launch slip?", after=token)
        assert [(hit.document, hit.text) for hit in hits] == [("a", "The launch slipped by a week.")]

    def test_a_hit_says_where_it_is_from_and_how_old_it_is(self, live):
        token = live.push(Article, article("a", "The launch slipped.", title="Rockets", lang="en", year=2026))
        (hit,) = live.search("library", "launch", after=token)
        assert (hit.title, hit.kind, hit.columns["year"], hit.trusted) == ("Rockets", "article", 2026, True)
        assert 0 <= hit.age < 60
        assert hit.text == hit.text.strip()

    def test_a_deleted_document_is_found_no_more(self, live):
        live.push("article", [article("a", "The launch slipped."), article("b", "The harbour froze.")])
        token = live.delete("article", ["a"])
        assert {hit.document for hit in live.search("library", "launch", after=token)} <= {"b"}
        assert live.library.collections["library"].figures().documents == 1

    def test_an_edit_takes_the_place_of_what_was_said_before(self, live):
        live.push("article", article("a", "The launch is on Monday."))
        token = live.push("article", article("a", "The launch is on Friday."))
        texts = [hit.text for hit in live.search("library", "when is the launch", after=token)]
        assert texts == ["The launch is on Friday."]

    def test_only_what_changed_is_embedded(self, live):
        paragraphs = [f"Paragraph {n} speaks of {n} rivers and their many bends in the land." for n in range(30)]
        live.push("article", article("a", "\n\n".join(paragraphs)))
        live.drain(30)
        before = live.library.collections["library"].figures()
        paragraphs[15] = "This one paragraph is another now, and speaks of storms."
        live.push("article", article("a", "\n\n".join(paragraphs)))
        live.drain(30)
        after = live.library.collections["library"].figures()
        assert 0 < after.embedded - before.embedded < before.embedded / 3
        assert after.kept - before.kept > before.embedded / 2

    def test_an_empty_document_is_no_error(self, live):
        token = live.push("article", article("a", "", title=""))
        assert live.search("library", "anything", after=token) == []
        assert live.dead_letters.count() == {}


class TestModes:
    def test_each_mode_finds_what_says_the_words(self, live):
        token = live.push("article", [article("a", "The launch slipped."), article("b", "The harbour froze.")])
        for mode in ("hybrid", "ranks", "meaning", "words"):
            assert live.search("library", "the launch slipped", mode=mode, after=token)[0].document == "a"

    def test_ranks_are_fused_reciprocally(self, live):
        token = live.push("article", [article("a", "The launch slipped."), article("b", "The harbour froze.")])
        best = live.search("library", "The launch slipped.", k=1, mode="ranks", after=token)[0]
        assert best.score == pytest.approx(2 / 61)


class TestConditions:
    def test_by_expression_and_by_json(self, live):
        rows = [article("a", "storm in the harbour", lang="en"), article("b", "storm in the harbour", lang="de")]
        token = live.push("article", rows)
        for where in (pl.col("lang") == "de", {"lang": "de"}):
            hits = live.search("library", "storm", where=where, after=token)
            assert [hit.document for hit in hits] == ["b"]

    def test_a_changed_column_counts_at_once(self, live):
        live.push("article", article("a", "storm in the harbour", lang="en"))
        live.drain(10)
        token = live.push("article", article("a", "storm in the harbour", lang="de"))
        assert live.search("library", "storm", where={"lang": "en"}, after=token) == []
        assert len(live.search("library", "storm", where={"lang": "de"})) == 1

    def test_an_unknown_column_is_named(self, live):
        with pytest.raises(InputError, match="lang"):
            live.search("library", "storm", where={"language": "en"})

    def test_the_text_itself_is_not_filtered_by_unless_it_is_asked_for(self, live):
        assert set(live.app.collections["library"].columns) == {"id", "lang", "year", "updated"}
        with pytest.raises(hr.SchemaError, match="cannot be filtered by"):
            newsroom(filters=["text"])


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"k": 0}, "k from 1 to"),
            ({"k": 5000}, "k from 1 to"),
            ({"mode": "magic"}, "one of hybrid, ranks, meaning, words"),
            ({"diversity": 2}, "diversity from 0 to 1"),
        ],
    )
    def test_what_cannot_be_asked_is_said(self, live, options, said):
        with pytest.raises(InputError, match=said):
            live.search("library", "x", **options)

    def test_an_unknown_collection_is_named(self, live):
        with pytest.raises(hr.UnknownNameError, match="did you mean 'library'"):
            live.search("libary", "x")

    def test_a_token_of_another_table_is_refused(self, live):
        with pytest.raises(InputError, match="does not have"):
            live.search("library", "x", after=hr.Token({"table/other": 1}))


class TestBadInput:
    def test_an_invalid_row_is_named_and_kept(self, live):
        token = live.push("article", [article("a", "fine"), {"id": "b", "title": 7}])
        assert (token.accepted, [one.row for one in token.rejected]) == (1, [1])
        assert live.dead_letters.count() == {"article": 1}

    def test_a_word_of_a_million_letters_is_cut(self, live):
        token = live.push("article", article("a", "x" * 1_000_000))
        assert len(live.search("library", "x" * 50, after=token, timeout=60)) > 0

    def test_a_document_that_cannot_be_embedded_is_a_dead_letter_and_the_rest_goes_on(self):
        with newsroom(embed=Poisoned()).open() as live:
            token = live.push("article", [article("bad", "this is poison"), article("good", "this is water")])
            assert [hit.document for hit in live.search("library", "this", after=token)] == ["good"]
            (letter,) = live.dead_letters.list()
            assert "poison" in letter.reason
            assert live.library.collections["library"].figures().failed == 1

    def test_what_a_poison_revision_said_before_is_not_found_any_more(self):
        with newsroom(embed=Poisoned()).open() as live:
            live.push("article", article("a", "this is water"))
            token = live.push("article", article("a", "this is poison"))
            assert live.search("library", "this is water", after=token) == []

    def test_an_embedder_that_is_down_is_waited_for(self):
        embedder = Poisoned()
        embedder.up.clear()
        with newsroom(embed=embedder).open() as live:
            token = live.push("article", article("a", "this is water"))
            with pytest.raises(hr.StaleError, match="within"):
                live.search("library", "water", after=token, timeout=0.3)
            embedder.up.set()
            assert len(live.search("library", "water", after=token, timeout=30)) == 1

    def test_a_dead_letter_that_is_replayed_is_made_anew(self):
        embedder = Poisoned()
        with newsroom(embed=embedder).open() as live:
            live.push("article", article("a", "this is poison"))
            live.drain(10)
            embedder.refuses = "nothing"
            assert live.replay_dead_letters() == (1, 0)
            live.drain(10)
            assert len(live.search("library", "poison")) == 1
            assert live.stats().collections["library"].failed == 0

    def test_what_a_source_brought_stays_untrusted_when_it_is_replayed(self, live):
        raw = b'{"id": "w", "title": "t", "body": "from outside"}'
        live.dead_letters.add("article", "https://example.org", 1, [("it was broken", raw)])
        live.replay_dead_letters([live.dead_letters.list()[-1].id])
        live.drain(10)
        assert [hit.trusted for hit in live.search("library", "outside")] == [False]

    def test_an_erased_document_leaves_no_revision(self, live):
        live.push("article", [article("a", "secret"), article("b", "kept")])
        live.delete("article", ["a"], erase=True)
        store = live.library.tables["article"].store
        assert [one.key for one in store.as_of(seq=2)] == ["b"]


class Poisoned:
    """The hash embedder, but for texts that it refuses, and times when it is away."""

    def __init__(self) -> None:
        from headrace.documents.embed.hashed import HashEmbedder

        self._inner = HashEmbedder()
        self.up = threading.Event()
        self.up.set()
        self.name = "poisoned"
        self.dimension = self._inner.dimension
        self.limit = self._inner.limit
        self.refuses = "poison"

    def offsets(self, text):
        return self._inner.offsets(text)

    def embed(self, texts, kind="document"):
        if not self.up.is_set():
            raise StorageError("the embedder is away")
        if any(self.refuses in text for text in texts) and kind == "document":
            raise InputError("the embedder refuses poison")
        return self._inner.embed(texts, kind)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcde"), BODIES),
        st.tuples(st.just("delete"), st.sampled_from("abcde"), st.none()),
        st.tuples(st.just("drain"), st.none(), st.none()),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=20,
)


@given(operations=OPERATIONS)
def test_the_index_holds_the_chunks_of_the_live_documents_and_nothing_else(tmp_path_factory, operations):
    path = tmp_path_factory.mktemp("data")
    rows: dict[str, dict] = {}
    live = open_at(path)
    for what, key, body in operations:
        if what == "put":
            rows[key] = article(key, body)
            live.push("article", rows[key])
        elif what == "delete":
            rows.pop(key, None)
            live.delete("article", [key])
        elif what == "drain":
            live.drain(30)
        else:
            live.close()
            live = open_at(path)
    live.drain(30)
    wanted = expected_ids(live, rows)
    assert held_ids(live) == (wanted, wanted)
    live.close()


def test_a_reader_never_sees_half_a_revision():
    """One document says the same word in every chunk; a search that finds two words has seen two revisions."""
    with newsroom(chunk=hr.chunk(tokens=16, overlap=0)).open() as live:
        words = ["amber", "bronze", "copper", "damask", "ebony", "fawn"]
        live.push(
            "article",
            article(
                "a",
                "\n\n".join([f"{words[0]} line {n} of the twelve lines that stand in this one" for n in range(12)]),
                title="",
            ),
        )
        live.drain(10)
        done = threading.Event()
        seen: list[set[str]] = []

        def read() -> None:
            while not done.is_set():
                hits = live.search("library", "line", k=12)
                seen.append({hit.text.split()[0] for hit in hits})

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(1, 25):
            word = words[turn % len(words)]
            live.push(
                "article",
                article(
                    "a",
                    "\n\n".join([f"{word} line {n} of the twelve lines that stand in this one" for n in range(12)]),
                    title="",
                ),
            )
            live.drain(10)
        done.set()
        for thread in threads:
            thread.join()
        assert {len(words) for words in seen} == {1}
