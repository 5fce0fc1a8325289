"""What a pack says that no longer holds: values that read otherwise now, passages that are gone, new ones that fit.

What it recalled is compared in `pack_memory`; what was erased since then is told as such.

Everything is compared with what the pack itself holds, so a pack can be checked at any time, also after a restart. A
chunk's id is of its text: while a collection knows the id, the passage reads as it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.assembly.pack import Item, Pack, Section
from headrace.errors import HeadraceError
from headrace.parts import Search
from headrace.serving import pack_memory
from headrace.serving.pack_erasure import WHY, is_forgotten
from headrace.serving.pack_memory import Difference, asked

if TYPE_CHECKING:
    from headrace.features.view import View
    from headrace.runners.library.collection import LiveCollection
    from headrace.serving.live import Live

_TIMEOUT = 5.0
_BESIDES = ("as_of", "age", "token", "lagging")


def of_kind(pack: Pack, kind: str) -> Iterable[tuple[Section, Item]]:
    """The items of the sections of a kind; those that were forgotten are left out."""
    return (
        (section, one.item)
        for section in pack.sections
        if section.kind == kind
        for one in section.items
        if not is_forgotten(one.item)
    )


def forgotten(pack: Pack) -> list[Difference]:
    """What was taken out of the pack since it was given out."""
    items = ((section, one.item) for section in pack.sections for one in section.items)
    return [Difference(section.name, item.id, "forgotten", WHY) for section, item in items if is_forgotten(item)]


def lookups(live: Live, pack: Pack) -> list[tuple[Section, Item, View, Any]]:
    """The rows of features in a pack, each with its view and key; what the app no longer declares is left out."""
    found = []
    for section, item in of_kind(pack, "features"):
        view = live.app.views.get(item.id.split("/", 1)[0])
        if view is not None and item.data is not None and set(view.keys) <= set(item.data):
            found.append((section, item, view, view.key({name: item.data[name] for name in view.keys})))
    return found


def collections(live: Live, pack: Pack) -> dict[str, list[tuple[Section, Item]]]:
    """The passages of a pack by collection."""
    found: dict[str, list[tuple[Section, Item]]] = {}
    for section, item in of_kind(pack, "passages"):
        # Two sections of one collection are told apart by what follows its name.
        names = [name for name in live.app.collections if section.name.startswith(name)]
        if names:
            found.setdefault(max(names, key=len), []).append((section, item))
    return found


def searches(live: Live, pack: Pack) -> list[Search]:
    """The searches among them."""
    return [part for part in asked(live, pack) if isinstance(part, Search)]


def values(live: Live, pack: Pack) -> list[Difference]:
    """The rows of features that read otherwise now."""
    found = []
    for section, item, view, key in lookups(live, pack):
        other = told(item, live.read(view, key).to_dict())
        if other:
            found.append(Difference(section.name, item.id, "value", other))
    return found


def told(item: Item, row: Mapping[str, Any]) -> str:
    """What of a row's features reads otherwise than in an item, in words; empty if nothing does."""
    was = dict(item.data or {})
    other = [name for name in row if name not in _BESIDES and _json(was.get(name)) != _json(row[name])]
    return "; ".join(f"{name}: {_text(was.get(name))} → {_text(row[name])}" for name in other[:5])


def passages(live: Live, pack: Pack) -> list[Difference]:
    """The passages that are no longer there."""
    found = []
    for name, items in collections(live, pack).items():
        found += _gone(live.library.collections[name], items)
    return found


def _gone(live: LiveCollection, items: Sequence[tuple[Section, Item]]) -> list[Difference]:
    with live.records.moment() as moment:
        alive = moment.alive([item.id for _, item in items])
        keys = {item.id: str((item.data or {}).get("document", "")) for _, item in items if item.id not in alive}
        documents = moment.documents(set(keys.values()))
        texts = {key: {chunk.text for chunk in moment.of_document(key)} for key in documents}
    found = []
    for section, item in items:
        key = keys.get(item.id)
        if key is None or item.text in texts.get(key, ()):
            continue  # an embedder was changed, and with it the ids
        what = "changed" if key in documents else "deleted"
        found.append(Difference(section.name, item.id, what, f"the document {key!r}"))
    return found


def news(live: Live, pack: Pack) -> list[Difference]:
    """Passages that the pack's searches find now, and that were not known when it was made.

    Raises:
        HeadraceError: The context is no longer declared as it was, or a search cannot be run now.
    """
    known = {item.id for _, item in of_kind(pack, "passages")}
    known |= {one.id for one in pack.dropped}
    known |= {id for section in pack.sections for one in section.items for id in one.merged}
    found: dict[str, Difference] = {}
    for part in searches(live, pack):
        name = part.collection.name
        hits = live.search(
            part.collection,
            part.question,
            k=part.k,
            where=part.where,
            mode=part.mode,
            diversity=part.diversity,
            timeout=_TIMEOUT,
        )
        for hit in hits:
            if hit.chunk not in known:
                found[hit.chunk] = Difference(name, hit.chunk, "new passage", f"the document {hit.document!r}")
    return list(found.values())


def differences(live: Live, pack: Pack) -> tuple[list[Difference], list[str]]:
    """All of it; and what could not be compared, in words."""
    found, troubles = forgotten(pack), []
    for compare in (values, passages, pack_memory.differences, news):
        try:
            found += compare(live, pack)
        except HeadraceError as error:
            troubles.append(str(error))
    return found, troubles


def _json(value: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(value, enc_hook=str), order="sorted", enc_hook=str)


def _text(value: Any) -> str:
    shown = _json(value).decode()
    return shown if len(shown) <= 80 else shown[:77] + "…"
