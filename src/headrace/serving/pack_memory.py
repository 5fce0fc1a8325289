"""What a pack recalled of sessions, compared with what is remembered: then, for a replay, and now.

A turn is written once and never changed, so as of then it reads as it does now, unless it was forgotten; and what the
latest turns were is told by the table's number at the pack's point. A forgotten turn is named as forgotten and shown
nowhere: also not from a pack that was kept, whether or not that has been written anew yet. A summary is replaced as it
is brought on, and what it was is not kept: that is said, and not guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.assembly.pack import Item, Pack, Section
from headrace.documents.turns import group_of
from headrace.errors import HeadraceError
from headrace.parts import Recall
from headrace.runners.library.memory_turns import row_of
from headrace.serving import pack_erasure
from headrace.serving.context_parts import parts
from headrace.serving.documents import position_of
from headrace.serving.pack_erasure import MEMORY_KINDS, WHY, check_arguments, is_forgotten, redacted, ref
from headrace.units import to_micros

if TYPE_CHECKING:
    from headrace.runners.library.memory import LiveMemory
    from headrace.serving.live import Live

# Turns since then are counted up to here.
_MOST_NEW = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in a pack that is otherwise now.

    Attributes:
        section: The section's name.
        id: The item's id; of a new passage, the chunk's; of new turns, the memory's name.
        what: "value" (it reads otherwise), "changed" or "deleted" (a passage's document), "new passage", "new turn",
            "summary" (it was brought on), "forgotten".
        detail: In words, for people.
    """

    section: str
    id: str
    what: str
    detail: str = ""

    def plain(self) -> dict[str, str]:
        """As JSON."""
        return {"section": self.section, "id": self.id, "what": self.what, "detail": self.detail}


@dataclass
class Rebuilt:
    """What came of making a pack's items again.

    Attributes:
        same: The ids of items that were made again, and are what the model saw.
        other: Those that came out otherwise.
        unknown: Those that cannot be made again, and why.
    """

    same: list[str] = field(default_factory=list)
    other: list[Difference] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)


def asked(live: Live, pack: Pack) -> list[Any]:
    """The parts of a pack's context, as its function asks them with the pack's arguments.

    Raises:
        HeadraceError: The context is no longer declared as it was, or the arguments are forgotten.
    """
    check_arguments(pack)
    context = live.app.context_of(pack.context)
    arguments, _ = context.arguments.check(context.name, pack.arguments)
    return list(parts(live.app, context, arguments))


def of_memories(live: Live, pack: Pack) -> Iterable[tuple[Section, Item, LiveMemory, str]]:
    """The items that were recalled, each with its memory and its row's key; forgotten ones are left out."""
    by_table = {one.table.name: one.name for one in live.app.memories.values()}
    for section in pack.sections:
        for one in section.items if section.kind in MEMORY_KINDS else ():
            row = pack_erasure.row_of(section, one.item)
            if row is not None and row[0] in by_table:
                yield section, one.item, live.library.memories[by_table[row[0]]], row[1]


def sessions(live: Live, pack: Pack) -> list[tuple[str, str]]:
    """The memories and sessions (their digests) that a pack recalled, also those that had nothing yet."""
    found: list[tuple[str, str]] = []
    if not live.app.memories:
        return found
    with contextlib.suppress(HeadraceError):  # it can no longer be asked: what it holds still says most of it
        found = [(one.memory.name, group_of(one.session)) for one in asked(live, pack) if isinstance(one, Recall)]
    for section, _, memory, key in of_memories(live, pack):
        if section.kind == "summary":
            found.append((memory.memory.name, key))
        else:
            row = memory.store.get([key]).get(key)
            found += [] if row is None else [(memory.memory.name, row_of(row).group)]
    return list(dict.fromkeys(found))


def without_forgotten(live: Live, pack: Pack) -> Pack:
    """The pack without turns that are forgotten or too old, whether or not it has been written so yet."""
    gone = {
        ref(memory.memory.table.name, key)
        for section, _, memory, key in of_memories(live, pack)
        if not _kept(section, memory, key)
    }
    return redacted(pack, gone)


def _kept(section: Section, memory: LiveMemory, key: str) -> bool:
    """Whether a row is neither forgotten nor too old. A summary that is being made anew counts as kept."""
    if section.kind == "summary":
        summary = memory.summary(key)
        return summary is None or summary.first_at >= memory.oldest
    found = memory.store.get([key]).get(key)
    return found is not None and row_of(found).at >= memory.oldest


def differences(live: Live, pack: Pack, known: Iterable[tuple[str, str]] | None = None) -> list[Difference]:
    """What was recalled and is forgotten, and what was said since.

    Args:
        known: What `sessions` says of the pack, if that was asked before.
    """
    found = []
    for section, item, memory, key in of_memories(live, pack):
        name = memory.memory.name
        if section.kind == "summary":
            summary = memory.summary(key)
            if summary is None or summary.text != item.text:
                said = "there is none now" if summary is None else f"it is of {summary.turns} turns now"
                found.append(Difference(section.name, item.id, "summary", said))
        elif not _kept(section, memory, key):
            found.append(Difference(section.name, item.id, "forgotten", f"a turn of the memory {name!r}"))
    for name, group in sessions(live, pack) if known is None else known:
        memory = live.library.memories[name]
        seen = pack.point.positions.get(position_of(memory.memory.table.name))
        if isinstance(seen, int):
            count = sum(one.seq > seen for one in memory.store.newest(group, _MOST_NEW, since=memory.oldest))
            if count:
                shown = f"{count} since" if count < _MOST_NEW else f"{count} or more since"
                found.append(Difference(name, name, "new turn", shown))
    return found


def rebuild(live: Live, pack: Pack, found: Rebuilt) -> None:
    """Makes again what was recalled, as of the pack's point."""
    known = set()
    by_section: dict[str, tuple[Section, LiveMemory, list[Any]]] = {}
    for section, item, memory, key in of_memories(live, pack):
        known.add(item.id)
        if section.kind == "summary":
            summary = memory.summary(key)
            if summary is not None and summary.text == item.text:
                found.same.append(item.id)
            else:
                found.unknown[item.id] = "a summary is not kept once it is brought on"
            continue
        revision = memory.store.get([key]).get(key)
        seen = pack.point.positions.get(position_of(memory.memory.table.name))
        if revision is None:
            found.unknown[item.id] = WHY
        elif not isinstance(seen, int):
            found.unknown[item.id] = "the pack does not say which turns it had seen"
        elif revision.seq <= seen and row_of(revision).text == item.text:
            found.same.append(item.id)
            by_section.setdefault(section.name, (section, memory, []))[2].append(row_of(revision))
        else:
            found.other.append(Difference(section.name, item.id, "turn", "it was not there, or said something else"))
    for section, memory, rows in by_section.values():
        if section.kind == "turns":
            _left_out(pack, section, memory, rows, found)
    for section in pack.sections:
        for one in section.items if section.kind in MEMORY_KINDS else ():
            if one.item.id not in known and not is_forgotten(one.item):
                found.unknown[one.item.id] = "the app no longer declares its memory"


def _left_out(pack: Pack, section: Section, memory: LiveMemory, rows: list[Any], found: Rebuilt) -> None:
    """Turns that were among the latest then, and of which the pack says nothing."""
    name = memory.memory.name
    told = {one.item.id for one in section.items} | {one.id for one in pack.dropped if one.section == section.name}
    then = memory.store.newest(
        rows[0].group,
        len(told),
        since=max(0, to_micros(pack.point.now) - memory.memory.keep),
        upto=pack.point.positions[position_of(memory.memory.table.name)],
    )
    first = min(one.number for one in rows)
    for one in map(row_of, then):
        # Further back are turns that only count among the latest since others were forgotten.
        if one.number > first and f"{name}/{one.id}" not in told:
            found.other.append(Difference(section.name, f"{name}/{one.id}", "turn", "it was there, and is not told"))
