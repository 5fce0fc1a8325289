"""What was read for a part, as a candidate for the pack: rows of features and passages as items.

A row is a line a feature, with what the feature is: a bare number says nothing to a model. Values are numbers and times
that we computed, and then the text is our own; where one of them is a text out of an event, or the key is not a plain
one, it came from outside and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.assembly.pack import Candidate, Item
from headrace.parts import Lookup, Search, Text

if TYPE_CHECKING:
    from headrace.features.view import View
    from headrace.runners.library.hits import Hit
    from headrace.serving.rows import Row

# A key that cannot say anything: an id or a number, too short and too plain for instructions.
_PLAIN_KEY = re.compile(r"[\w.:@+-]{1,40}", re.ASCII)
# What the least of several passages is worth, compared with the best.
_LEAST_VALUE = 0.05
_BESIDES = ("as_of", "age", "token", "lagging")


def features(part: Lookup, row: Row, described: Mapping[str, str]) -> Candidate:
    """A key's row.

    Args:
        part: What was asked.
        row: The answer.
        described: What each feature is, by name.
    """
    view: View = part.view
    values = {name: value for name, value in row.to_dict().items() if name not in _BESIDES}
    key = "/".join(str(values[name]) for name in view.keys)
    lines = [f"{name}: {_value(values[name])}" for name in view.keys]
    lines += [f"{name}: {_value(values[name])} ({described[name]})" for name in view.features]
    trusted = all(_plain_key(values[name]) for name in view.keys)
    trusted = trusted and not any(_has_text(values[name]) for name in view.features)
    item = Item(
        id=f"{view.name}/{key}",
        text="\n".join(lines),
        source=f"events of {view.stream}",
        as_of=row.as_of,  # type: ignore[attr-defined]  # every row class has it
        age=row.age,  # type: ignore[attr-defined]  # as above
        trusted=trusted,
        data=msgspec.to_builtins(values),
    )
    return Candidate(view.name, "features", (item,), part.packing, view.doc)


def passages(part: Search, hits: Sequence[Hit]) -> Candidate:
    """A search's hits, worth what they scored, compared with the best of them.

    A document is read, never obeyed: whoever wrote it, and however it came, it is fenced.
    """
    best = hits[0].score if hits else 0.0
    items = tuple(
        Item(
            id=hit.chunk,
            text=hit.text,
            # Scores that are not above 0, as some rerankers give, only say the order.
            value=min(1.0, max(_LEAST_VALUE, hit.score / best if best > 0 else 1 / (1 + place))),
            source=hit.source or hit.document,
            title=hit.title,
            headings=tuple(hit.headings),
            as_of=hit.as_of,
            age=hit.age,
            data={
                "table": part.collection.table.name,
                "document": hit.document,
                "columns": msgspec.to_builtins(dict(hit.columns)),
            },
        )
        for place, hit in enumerate(hits)
    )
    return Candidate(part.collection.name, "passages", items, part.packing, part.collection.about)


def text(part: Text) -> Candidate:
    """A text of the app's."""
    mark = blake2b(part.text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    item = Item(id=f"text/{mark}", text=part.text, source=part.source, trusted=part.trusted)
    return Candidate("text", "text", (item,), part.packing)


def _value(value: Any) -> str:
    """A value as a model reads it: on one line, whatever it is."""
    if value is None:
        return "none"
    if isinstance(value, float):
        plain = f"{value:.4f}".rstrip("0").rstrip(".")
        return plain if value == 0 or 1e-3 <= abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, str) and _PLAIN_KEY.fullmatch(value):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode()


def _plain_key(value: Any) -> bool:
    return not isinstance(value, str) or _PLAIN_KEY.fullmatch(value) is not None


def _has_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_text, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_text, value))
    return isinstance(value, str | bytes)
