"""The contract of an embedder as a test suite: subclass it, and say how to make the embedder.

    class TestMine(EmbedderContract):
        @pytest.fixture
        def embedder(self):
            return loaded("mine:small")             # loaded once: every test asks for it

Set `exact = False` where answers of the same text may differ in the last digits (a server, a GPU), and
`surrogates = True` where the embedder takes text that is not Unicode.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from headrace.documents.embed.base import Embedder, Vectors
from headrace.errors import InputError

TEXTS = (
    "Water drives the mill wheel.",
    "The mill's wheel is driven by water.",
    "Pay the invoice before the end of the month.",
    "def add(a, b):\n    return a + b",
    "Größe, naïve, Ångström, 東京, Привет, 👩‍👩‍👧",
    "a",
    "word " * 2_000,
    "\t \n",
    "",
    "x" * 50_000,
    "\x00\x07 control \u200b signs \ufeff",
)
_NEAR, _SAME, _FAR = TEXTS[:3]
_THREADS = 4


class EmbedderContract:
    """What every embedder promises; see the module for how to use it."""

    exact: ClassVar[bool] = True
    surrogates: ClassVar[bool] = False

    @pytest.fixture
    def embedder(self) -> Embedder:
        """The embedder; the same for all tests, as loading one may take long."""
        raise NotImplementedError("override the fixture `embedder` to return the embedder under test")

    def close(self, found: Vectors, expected: Vectors) -> bool:
        """Whether vectors are the same, but for what batches of other shapes do to the last digits."""
        return bool(np.abs(np.einsum("ij,ij->i", found, expected) - 1).max() < (1e-5 if self.exact else 1e-3))

    def test_it_has_a_name(self, embedder: Embedder) -> None:
        """Stored vectors are kept by it."""
        assert isinstance(embedder.name, str)
        assert embedder.name

    def test_its_numbers(self, embedder: Embedder) -> None:
        """A dimension and a limit."""
        assert isinstance(embedder.dimension, int)
        assert embedder.dimension > 1
        assert isinstance(embedder.limit, int)
        assert embedder.limit > 0

    @pytest.mark.parametrize("kind", ["document", "query"])
    def test_rows_of_length_1(self, embedder: Embedder, kind: Any) -> None:
        """Whatever the text: an inner product is a cosine."""
        vectors = embedder.embed(TEXTS, kind)
        assert (str(vectors.dtype), vectors.shape) == ("float32", (len(TEXTS), embedder.dimension))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)

    def test_no_texts(self, embedder: Embedder) -> None:
        """No rows, of the right width."""
        assert embedder.embed([]).shape == (0, embedder.dimension)

    def test_a_vector_depends_on_its_text_alone(self, embedder: Embedder) -> None:
        """Not on the texts beside it, nor on their order."""
        together = embedder.embed(TEXTS)
        assert self.close(np.concatenate([embedder.embed([text]) for text in TEXTS]), together)
        assert self.close(embedder.embed(TEXTS[::-1])[::-1], together)

    def test_many_texts(self, embedder: Embedder) -> None:
        """In the order in which they were given."""
        texts = [f"text number {number} " + "and more " * (number % 7) for number in range(100)]
        some = [0, 41, 99]
        assert self.close(embedder.embed(texts)[some], embedder.embed([texts[place] for place in some]))

    def test_like_texts_are_near(self, embedder: Embedder) -> None:
        """Nearer than one that has nothing to do with them."""
        near, same, far = embedder.embed([_NEAR, _SAME, _FAR])
        assert near @ same > near @ far

    def test_what_is_past_the_limit_does_not_count(self, embedder: Embedder) -> None:
        """A text may be as long as it likes."""
        long = "river " * (2 * embedder.limit)
        assert self.close(embedder.embed([long + "mill"]), embedder.embed([long + "bank"]))

    def test_from_several_threads(self, embedder: Embedder) -> None:
        """At once, with the same answers."""
        expected = embedder.embed(TEXTS)
        found: list[Vectors] = []
        threads = [threading.Thread(target=lambda: found.append(embedder.embed(TEXTS))) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [self.close(each, expected) for each in found] == [True] * _THREADS

    @pytest.mark.parametrize("text", TEXTS)
    def test_offsets_lie_in_the_text(self, embedder: Embedder, text: str) -> None:
        """In order, none of them empty, and together they hold every letter."""
        offsets = embedder.offsets(text)
        assert (str(offsets.dtype), offsets.shape[1:]) == ("int64", (2,))
        starts, ends = offsets.T
        assert (starts < ends).all()
        assert (np.diff(starts) >= 0).all()
        assert (np.diff(ends) >= 0).all()
        assert ends.max(initial=0) <= len(text)
        held = np.zeros(len(text), dtype=bool)
        for start, end in offsets:
            held[start:end] = True
        assert [
            sign for sign, inside in zip(text, held, strict=True) if sign.isascii() and sign.isalnum() and not inside
        ] == []

    def test_no_text_no_tokens(self, embedder: Embedder) -> None:
        """Special tokens are left out."""
        assert embedder.offsets("").shape == (0, 2)

    def test_what_is_not_unicode(self, embedder: Embedder) -> None:
        """It is refused as the fault of the text, and the embedder works on."""
        if self.surrogates:
            pytest.skip("it takes any string")
        with pytest.raises(InputError):
            embedder.embed(["fine", "\ud800"])
        assert embedder.embed(["fine"]).shape == (1, embedder.dimension)

    def test_it_does_not_keep_what_it_is_given(self, embedder: Embedder) -> None:
        """A vector that was given out is its receiver's own."""
        texts: Sequence[str] = [_NEAR]
        first = embedder.embed(texts)
        copy = first.copy()
        first[:] = 0
        assert self.close(embedder.embed(texts), copy)
