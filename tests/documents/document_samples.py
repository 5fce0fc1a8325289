"""Texts of several formats, a tokenizer that needs no model, and edits, for the tests of this room."""

from __future__ import annotations

import random
import re

import numpy as np
from hypothesis import strategies as st

from headrace.documents.embed.base import Offsets

MARKDOWN = """# The mill

Water comes down the *headrace* and turns the wheel.
It was dug in 1780.

## The wheel

- oak paddles
- an iron axle
  that was cast in the valley

```python
# not a heading
wheel.turn(  speed=3 )

wheel.stop()
```

| part  | made of |
|-------|---------|
| axle  | iron    |

Setext too
----------

The end.
"""
RST = """========
The mill
========

Water comes down the ``headrace``::

    # literal,   kept

    as it is

and turns the wheel [1]_.

The wheel
---------

.. code-block:: python

   turn()

   stop()

1. oak paddles
2. an iron axle

The axle
~~~~~~~~

Cast in the valley.

History
-------

=====  =====
year   what
=====  =====
1780   dug
=====  =====
"""
OLD_PEP = """PEP: 42
Title: Small requests

Introduction

    This lists what people asked for.

Details

    - one of them
    - another
"""
PYTHON = '''"""A wheel."""
import os

LIMIT = 3


# Turns.
@decorated
def turn(speed):
    """Turns it."""
    if speed > LIMIT:

        raise ValueError("fast")
    return speed


class Wheel:
    """It turns."""

    paddles = 8

    def stop(self):
        return None

    async def start(self):
        return 1


print(turn(1))
'''
GO = """package mill

import "fmt"

// Turn turns it.
func Turn(speed int) int {
\tif speed > 3 {

\t\tpanic("fast")
\t}
\treturn speed
}

type Wheel struct {
\tPaddles int
}
"""
SAMPLES = {"markdown": MARKDOWN, "rst": RST, "plain": OLD_PEP, "python": PYTHON, "go": GO}


class WordTokenizer:
    """A token is a run of letters or digits, or any other character that is not blank."""

    _token = re.compile(r"\w+|[^\w\s]")

    def __init__(self) -> None:
        self.characters = 0

    def offsets(self, text: str) -> Offsets:
        self.characters += len(text)
        return np.array([one.span() for one in self._token.finditer(text)], dtype=np.int64).reshape(-1, 2)


class GreedyTokenizer(WordTokenizer):
    """Blanks are tokens too, and a word longer than eight characters is several: not the sum of its parts."""

    _token = re.compile(r"\w{1,8}|\s+|[^\w\s]")


_NAMES = "water wheel mill stone grain flour river dam sluice race paddle axle gear belt miller sack cart road"
WORDS = _NAMES.split()


def prose(seed: int, paragraphs: int) -> str:
    """A Markdown document of that many paragraphs, with a heading before every sixth."""
    chance = random.Random(seed)
    made = []
    for number in range(paragraphs):
        if number % 6 == 0:
            made.append(f"## Part {chance.choice(WORDS)} {number}")
        sentences = [" ".join(chance.choices(WORDS, k=chance.randint(5, 14))) for _ in range(chance.randint(2, 6))]
        made.append("\n".join(f"{one.capitalize()}." for one in sentences))
    return "\n\n".join(made)


FORMATS = st.sampled_from(["markdown", "rst", "plain", "python", "go", "unknown"])
_LINES = st.one_of(
    st.sampled_from(
        [
            "", "", "   ", "# Heading", "## Deeper", "Title", "=====", "-----", "```", "~~~", "    code", "\tcode",
            "- item", "1. item", "* item", "Text::", ".. code-block:: c", ".. note::", "| a | b |", "|---|---|",
            ">>> 1", "def f():", "class A:", "    return 1", "@d", "}", "some words in a line",
            "and more. And a sentence! So?", "x" * 90, "\u00a0", "\x0c", "wörter 中文字", "PEP: 1", "+---+---+",
            "====  ====",
        ]
    ),
    st.text(max_size=20),
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(_LINES, max_size=40).map("\n".join))
