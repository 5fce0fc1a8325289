"""What was forgotten or erased goes out of the packs that were kept, too.

A pack is a copy of what was read. So each item that came from a row (a passage from a document's, a turn, a session's
summary) says which row that was, and whoever erases rows has the packs that hold them changed: text, title, source and
id of the item are replaced by a note, and what is made of the text, its hash, is made anew. A passage was read from a
table, and the question is another's; but where a turn is forgotten the question is likely the same words, so with
turns the arguments go, and the texts that may repeat them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from headrace.assembly.pack import Dropped, Item, Pack, Packed, Section
from headrace.errors import InputError

NOTE = "[forgotten]"
WHY = "it was forgotten or erased after the pack was given out, and is not kept"
MEMORY_KINDS = ("summary", "recalled", "turns")
_KINDS = ("passages", *MEMORY_KINDS)
_PREFIX = "forgotten/"


def ref(table: str, key: str) -> bytes:
    """A row, as packs are found by it: a digest, which tells nobody whose row it was."""
    return blake2b(f"{len(table)}:{table}{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def row_of(section: Section, item: Item) -> tuple[str, str] | None:
    """The table and the key of the row that an item was made of; None if it is of none."""
    if section.kind not in _KINDS or item.data is None:
        return None
    table, key = item.data.get("table"), item.data.get("document")
    return (table, key) if isinstance(table, str) and isinstance(key, str) else None


def refs(pack: Pack) -> frozenset[bytes]:
    """The rows that a pack holds something of."""
    rows = (row_of(section, one.item) for section in pack.sections for one in section.items)
    return frozenset(ref(*row) for row in rows if row is not None)


def is_forgotten(item: Item) -> bool:
    """Whether an item's text was taken out of the pack."""
    return item.id.startswith(_PREFIX)


def check_arguments(pack: Pack) -> None:
    """Sees that the pack still holds what it was asked with.

    Raises:
        InputError: It was forgotten with what was said.
    """
    if any(one.action == "forgotten" for one in pack.dropped) and _has(pack.arguments, NOTE):
        raise InputError(f"what the pack {pack.id} was asked with is forgotten: its context cannot be asked again")


def redacted(pack: Pack, erased: Container[bytes]) -> Pack:
    """The pack without what came from erased rows; the same object if nothing did."""
    gone: dict[str, Dropped] = {}
    said = False
    for section in pack.sections:
        for one in section.items:
            row = row_of(section, one.item)
            if row is not None and ref(*row) in erased:
                gone[one.item.id] = _told(section, one)
                said = said or section.kind in MEMORY_KINDS
    if not gone:
        return pack
    arguments = pack.arguments
    if said:
        words = [text for text in _texts(arguments) if text.strip()]
        arguments = {name: _blank(value) for name, value in arguments.items()}
        for section in pack.sections:
            for one in section.items if section.kind == "text" else ():
                if not one.item.trusted or any(text in one.item.text for text in words):
                    gone[one.item.id] = _told(section, one)
    sections = tuple(_without(section, gone) for section in pack.sections)
    dropped = (*(one for one in pack.dropped if one.id not in gone), *gone.values())
    return replace(pack, arguments=arguments, sections=sections, dropped=dropped)


def _told(section: Section, one: Packed) -> Dropped:
    return Dropped(section.name, f"{_PREFIX}{one.number}", one.tokens, "forgotten", WHY)


def _without(section: Section, gone: Container[str]) -> Section:
    if not any(one.item.id in gone for one in section.items):
        return section
    items = tuple(
        replace(one, item=Item(f"{_PREFIX}{one.number}", NOTE, role=one.item.role), text=NOTE, cut=False, merged=())
        if one.item.id in gone
        else one
        for one in section.items
    )
    return replace(section, items=items, as_of=None, age=None)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in _texts(one)]


def _blank(value: Any) -> Any:
    return NOTE if _texts(value) or isinstance(value, Mapping) else value


def _has(arguments: Mapping[str, Any], value: str) -> bool:
    return any(one == value for one in arguments.values())
