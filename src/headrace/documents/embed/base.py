"""What an embedder is: texts in, vectors of length 1 out, and its own tokens.

`headrace.testing.embedders.EmbedderContract` holds this as tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Offsets = npt.NDArray[np.int64]


class Tokenizer(Protocol):
    """How a model cuts text."""

    def offsets(self, text: str) -> Offsets:
        """Shape (tokens, 2): where each token begins and ends in the text, in characters; special tokens left out."""
        ...


class Embedder(Tokenizer, Protocol):
    """A model that is loaded; loaded once a process and used from any thread."""

    @property
    def name(self) -> str:
        """What its vectors depend on: model, revision, pooling. Vectors of equal names are interchangeable."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers a vector."""
        ...

    @property
    def limit(self) -> int:
        """The most tokens of a text that count; what follows is not seen by the model."""
        ...

    def embed(self, texts: Sequence[str], kind: Literal["document", "query"] = "document") -> Vectors:
        """Shape (n, dimension), float32, rows of length 1.

        Raises:
            InputError: This text can never be embedded, and a later try will not help.
            StorageError: The model is out of reach (a server); a later try may help.
        """
        ...
