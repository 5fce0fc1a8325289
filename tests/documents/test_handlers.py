"""Handlers: what is done with a document is chosen by its type, and an error says the type and the step."""

from __future__ import annotations

from typing import Any

import pytest
from document_samples import WordTokenizer

from headrace.document import Document, TableSchema
from headrace.documents.chunk import chunk
from headrace.documents.clean import clean
from headrace.documents.handlers import Handlers
from headrace.documents.states import Cleaned, Raw
from headrace.errors import ConfigError, InputError, SchemaError, UnknownNameError


class Post(Document):
    id: str
    kind: str = "post"
    title: str | None = None
    body: str = ""
    tags: tuple[str, ...] = ()
    likes: int = 0


class SourceFile(Document):
    id: str
    kind: str = "source_file"
    text: str
    language: str | None = None


_SCHEMA = TableSchema.of("things", [Post, SourceFile], "id", kind="kind")
_TEXT = {Post: ["title", "body", "tags"], SourceFile: "text"}


def _raw(document: Document) -> Raw:
    return Raw("1", document.kind, document, 1, 0)  # type: ignore[attr-defined]


def _cleaned(document: Document, **given: Any) -> Cleaned:
    return Handlers.of(_SCHEMA, **({"text": _TEXT} | given)).cleaned(_raw(document))


def test_the_first_of_several_columns_is_the_title() -> None:
    post = Post(id="1", title="  𝐓itle  \n two ", body="The\n\n\n\nbody 🚀", tags=("a", "b"))
    assert _cleaned(post) == Cleaned("1", "post", "Title two", "The\n\nbody\n\na\nb", "plain")


def test_one_column_has_no_title_and_nulls_are_left_out() -> None:
    assert _cleaned(SourceFile(id="1", text="x")).title == ""
    assert _cleaned(Post(id="1", title=None, body="b")) == Cleaned("1", "post", "", "b", "plain")


def test_an_empty_text_is_no_error_and_has_no_chunks() -> None:
    handlers = Handlers.of(_SCHEMA, text=_TEXT)
    cleaned = handlers.cleaned(_raw(Post(id="1", title="Only a title")))
    assert handlers.pieces(cleaned, WordTokenizer()) == []


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "x", "python"),
        ("Go", "x", "go"),
        ("cs", "Dobrý den", "plain"),
        ("en", "# Title\n\n## Next\n", "markdown"),
        (None, "Title\n=====\n\n.. note:: x\n", "rst"),
    ],
)
def test_the_format_is_told_or_seen(language: str | None, text: str, expected: str) -> None:
    assert _cleaned(SourceFile(id="1", text=text, language=language)).format == expected


def test_each_type_has_its_own_handler_and_the_rest_the_default() -> None:
    handlers = Handlers.of(
        _SCHEMA,
        text=_TEXT,
        clean={SourceFile: False},
        chunk={"source_file": chunk(64), "*": chunk(128)},
        embed={Post: "static"},
    )
    assert [handlers.embedder(kind) for kind in ("post", "source_file")] == ["static", "minilm"]
    assert handlers.handler("source_file").chunking.tokens == 64
    assert handlers.handler("post").chunking.tokens == 128
    assert handlers.handler("source_file").cleaning.steps == ()
    assert handlers.handler("post").cleaning == clean()


def test_a_function_reads_a_document() -> None:
    def read(post: Post) -> tuple[str, str]:
        return f"{post.likes} likes", post.body

    assert _cleaned(Post(id="1", body="b", likes=3), text={Post: read, "*": "text"}).title == "3 likes"


def test_conventional_columns_need_no_naming() -> None:
    class Page(Document):
        id: str
        title: str
        text: str

    assert Handlers.of(TableSchema.of("page", [Page], "id")).handler("page").text == ("title", "text")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({}, SchemaError, "the type post: expected text= to name the columns that are searched"),
        ({"text": "titel"}, SchemaError, "Post has no field 'titel'; did you mean 'title'"),
        ({"text": {"psot": "title"}}, ConfigError, "text= names the type 'psot'; did you mean 'post'"),
        ({"text": _TEXT, "clean": 3}, ConfigError, "the type post: expected clean to be"),
        ({"text": _TEXT, "chunk": 3}, ConfigError, "the type post: hr.chunk: expected by"),
        ({"text": _TEXT, "embed": 3}, ConfigError, "the type post: expected embed to be a name or an embedder"),
        ({"text": []}, SchemaError, "the type post: expected text= to name at least one column"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Handlers.of(_SCHEMA, **given)


def _fails(value: Any) -> Any:
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": {Post: _fails, "*": "text"}}, "post, step text: .*ZeroDivisionError"),
        ({"text": {Post: lambda post: 3, "*": "text"}}, "post, step text: .*found int"),
        ({"text": {Post: "likes", "*": "text"}}, "post, step text: expected text in 'likes', found int"),
        ({"clean": _fails}, "post, step clean: the function .*_fails failed: ZeroDivisionError"),
        ({"chunk": _fails}, "post, step chunk: the splitter .*_fails failed"),
    ],
)
def test_a_bad_document_is_told_with_its_type_and_step(given: dict[str, Any], said: str) -> None:
    handlers = Handlers.of(_SCHEMA, **({"text": _TEXT} | given))
    with pytest.raises(InputError, match=said):
        handlers.pieces(handlers.cleaned(_raw(Post(id="1", title="t", body="words"))), WordTokenizer())


def test_a_tokenizer_that_fails_is_told() -> None:
    class Broken:
        def offsets(self, text: str) -> Any:
            return _fails(text)

    handlers = Handlers.of(_SCHEMA, text=_TEXT)
    with pytest.raises(InputError, match=r"post, step chunk: .*ZeroDivisionError"):
        handlers.pieces(handlers.cleaned(_raw(Post(id="1", body="words"))), Broken())


def test_the_fingerprint_tells_what_changes_the_chunks_and_not_the_embedder() -> None:
    base: dict[str, Any] = {"text": _TEXT}
    changes = [{}, {"clean": clean(without="emoji")}, {"chunk": chunk(64)}, {"text": {Post: "body", "*": "text"}}]
    made = {Handlers.of(_SCHEMA, **(base | change)).fingerprint("post") for change in changes}
    assert len(made) == len(changes)
    again = Handlers.of(_SCHEMA, **(base | {"embed": "static", "chunk": {SourceFile: chunk(64)}}))
    assert again.fingerprint("post") == Handlers.of(_SCHEMA, **base).fingerprint("post")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no handler for documents of the type 'pots'; did you mean 'post'"):
        Handlers.of(_SCHEMA, text=_TEXT).embedder("pots")
