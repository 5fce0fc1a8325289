"""Packing: which items, whole or cut, make the best of a token budget.

Greedy by marginal value: the item that is worth most comes next, and what is left of the worth of the others sinks as
they say what is packed already. That is the greedy rule for a submodular function under a knapsack constraint, with
lazy evaluation (worth never rises, so that the top of a heap that is still up to date is the best). Passages and
recalled turns are worth their value by their tokens. Features, summaries, texts and the latest turns are not divided by
their tokens, and so come before passages of equal priority; a turn is worth less the older it is, and none is looked at
before the newer ones.

A section's floor is reserved until the section has filled it or has nothing left that could. Items that did not fit are
looked at again when the reservations are released, and then cut at the end of a sentence if that helps.

Source: Lin and Bilmes, "Multi-document Summarization via Budgeted Maximization of Submodular Functions" (NAACL 2010);
Minoux, "Accelerated Greedy Algorithms" (1978).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from headrace.assembly.counting import Counter
from headrace.assembly.layout import APART, aged, entry, head, moment, preamble
from headrace.assembly.pack import Candidate, Dropped, Item, Pack, Packed, Point, Section
from headrace.assembly.render import markdown
from headrace.assembly.sentences import last_end
from headrace.assembly.similar import ALIKE, Similar
from headrace.errors import InputError

LEAST_CUT = 32
"""Tokens of text that must be left of an item for it to be cut rather than dropped."""

_MOST_TRIES = 16
_BY_TOKENS = frozenset({"passages", "recalled"})


@dataclass(frozen=True, slots=True)
class Filled:
    """What was packed.

    Attributes:
        sections: Stable ones first; those of which nothing was packed are left out.
        dropped: Every item that is not in them whole, in the order of the candidates.
        tokens: Of the whole in Markdown; never more than the budget.
    """

    sections: tuple[Section, ...]
    dropped: tuple[Dropped, ...]
    tokens: int


@dataclass(slots=True)
class _Part:
    """A section while it is being filled."""

    place: int
    name: str
    candidate: Candidate
    stable: bool
    head: int
    ceiling: int
    floor: int = 0
    used: int = 0
    # Tokens of items about which nothing is decided yet.
    open: int = 0


@dataclass(slots=True)
class _Entry:
    """An item while it is being decided about. `state` is what becomes of it; "" so far."""

    part: _Part
    place: int
    item: Item
    tokens: int
    worth: float
    compared: int = -1
    left: float = 1.0
    state: Literal["", "packed", "cut", "merged", "dropped"] = ""
    text: str = ""
    kept: int = 0
    reason: str = ""
    merged: list[_Entry] = field(default_factory=list)


def least(counter: Counter, point: Point) -> int:
    """The least budget that any pack has: the rule for the model, and the moment."""
    return counter.count(APART.join([preamble(), moment(point)]))


def pack(candidates: Sequence[Candidate], budget: int, counter: Counter, point: Point) -> Filled:
    """Fills a budget.

    Args:
        candidates: What was read, in the order in which it was asked for.
        budget: Tokens of the whole in Markdown, as the counter counts.
        counter: Tokens of texts; asked once for each item.
        point: What was read is true to; it is part of the whole.

    Returns:
        What is packed, and what became of everything else. If nothing fits, there are no sections.

    Raises:
        InputError: The budget is smaller than what every pack has; the message says how much that is.
    """
    base = least(counter, point)
    if budget < base:
        raise InputError(
            f"budget: expected at least {base} tokens, which the rule for the model and the moment take, found {budget}"
        )
    return _Packer(candidates, budget, counter, point, base).run()


def names(candidates: Sequence[Candidate]) -> list[str]:
    """The names of sections: the candidates', the second of one name with `_2` after it, and so on."""
    given: list[str] = []
    taken: set[str] = set()
    for candidate in candidates:
        name, number = candidate.name, 1
        while name in taken:
            number += 1
            name = f"{candidate.name}_{number}"
        taken.add(name)
        given.append(name)
    return given


class _Packer:
    """One pack's work."""

    def __init__(self, candidates: Sequence[Candidate], budget: int, counter: Counter, point: Point, base: int) -> None:
        self._budget, self._counter, self._point = budget, counter, point
        self._free = budget - base
        self._most_number = sum(len(candidate.items) for candidate in candidates)
        self._parts = [
            self._part(place, name, candidate)
            for place, (name, candidate) in enumerate(zip(names(candidates), candidates, strict=True))
        ]
        self._entries = [
            [self._entry(part, *placed) for placed in enumerate(part.candidate.items)] for part in self._parts
        ]
        self._flat = [one for entries in self._entries for one in entries]
        self._taken: list[_Entry] = []
        self._set_floors()
        self._set_compared()

    def _part(self, place: int, name: str, candidate: Candidate) -> _Part:
        packing, items = candidate.packing, candidate.items
        trusted = all(item.trusted for item in items)
        stable = (trusted and candidate.kind == "text") if packing.stable is None else packing.stable
        if not items:
            return _Part(place, name, candidate, stable, 0, 0)
        newest = _newest(items)
        title = packing.title or candidate.name
        top = head(name, candidate.kind, title, candidate.about, trusted, newest[1], newest[0], stable=stable)
        words = aged(*newest) if stable else ""
        tokens = self._counter.count(f'{APART}{top}\n"{title}" above is {words}.\n' if words else f"{APART}{top}")
        ceiling = self._budget if packing.ceiling is None else packing.ceiling
        return _Part(place, name, candidate, stable, tokens, ceiling)

    def _entry(self, part: _Part, place: int, item: Item) -> _Entry:
        kind, packing = part.candidate.kind, part.candidate.packing
        tokens = self._tokens(part, item, item.text)
        value = item.value if item.value > 0 else 0.0  # not a number is worth nothing either
        worth = value * packing.priority
        if kind in _BY_TOKENS:
            worth /= tokens
        elif kind == "turns":
            worth /= len(part.candidate.items) - place
        part.open += tokens
        return _Entry(part, place, item, tokens, worth)

    def _tokens(self, part: _Part, item: Item, text: str) -> int:
        return self._counter.count("\n" + entry(self._most_number, item, text, stable=part.stable))

    def _set_floors(self) -> None:
        """Floors as far as they can be filled and the budget holds them, by priority."""
        left = self._free
        for part in sorted(self._parts, key=lambda part: (-part.candidate.packing.priority, part.place)):
            if part.open:
                part.floor = min(part.candidate.packing.floor, part.head + part.open, part.ceiling, left)
                left -= part.floor

    def _set_compared(self) -> None:
        """Numbers what can be said twice: passages and recalled turns, and the turns that a recalled one may be."""
        kinds = {part.candidate.kind for part in self._parts if part.open}
        if not kinds & _BY_TOKENS:
            return
        compared = _BY_TOKENS | {"turns"} if "recalled" in kinds else _BY_TOKENS
        entries = [one for one in self._flat if one.part.candidate.kind in compared]
        if len(entries) < 2:
            return
        self._compared = entries
        self._similar = Similar([one.item.text for one in entries])
        for number, one in enumerate(entries):
            one.compared = number

    def run(self) -> Filled:
        waiting = self._greedy()
        # Floors first: what they still lack, cut if need be, while the others' are reserved.
        for one in waiting:
            if one.part.used < one.part.floor:
                self._again(one, reserved=True)
        for one in waiting:
            self._again(one, reserved=False)
        for one in waiting:
            if not one.state:
                one.state = "dropped"
        return self._filled()

    def _greedy(self) -> list[_Entry]:
        """Packs what fits whole, best first; returns what does not, best first."""
        waiting: list[_Entry] = []
        heap: list[tuple[float, int, int]] = []
        for part in self._parts:
            entries = self._entries[part.place]
            # Of turns only the newest that is not decided about stands in the heap.
            entries = entries[-1:] if part.candidate.kind == "turns" else entries
            heap.extend((-one.worth, part.place, one.place) for one in entries)
        heapq.heapify(heap)
        while heap:
            worth, place, number = heapq.heappop(heap)
            one = self._entries[place][number]
            if one.state:
                continue
            if -worth > one.worth * one.left:
                heapq.heappush(heap, (-one.worth * one.left, place, number))
                continue
            turn = one.part.candidate.kind == "turns"
            room = self._room(one.part, reserved=True)
            if one.tokens <= room:
                self._take(one, one.item.text, one.tokens)
            elif not (turn and self._cut(one, room)):
                waiting.append(one)
            if turn and number:
                before = self._entries[place][number - 1]
                heapq.heappush(heap, (-before.worth, place, number - 1))
        return waiting

    def _room(self, part: _Part, *, reserved: bool) -> int:
        """Tokens for one more item of a section; without its head, if that is not there yet."""
        free = self._free
        if reserved:
            free -= sum(_reserve(other) for other in self._parts if other is not part)
        return min(part.ceiling - part.used, free) - (0 if part.used else part.head)

    def _again(self, one: _Entry, *, reserved: bool) -> None:
        """Packs what did not fit, whole or cut, or more of what was cut, into the room that there is now."""
        if one.state == "cut":
            self._untake(one)
        elif one.state:
            return
        room = self._room(one.part, reserved=reserved)
        if one.tokens <= room:
            self._take(one, one.item.text, one.tokens)
        else:
            self._cut(one, room)

    def _cut(self, one: _Entry, room: int) -> bool:
        """Packs the beginning of an item, if a sentence of it ends within the room; else says why not."""
        limit = one.part.ceiling - one.part.used - (0 if one.part.used else one.part.head)
        why = f"it has {one.tokens} tokens, and {max(room, 0)} were left"
        why += f" of its section's {one.part.ceiling}" if room == limit and one.part.ceiling < self._budget else ""
        one.reason = why
        if one.part.candidate.kind == "features":
            one.reason += "; a row is never cut"
            return False
        most = room - self._tokens(one.part, one.item, "") if room >= LEAST_CUT else 0
        if most < LEAST_CUT:
            return False
        end = last_end(one.item.text, self._counter.fit(one.item.text, most))
        for _ in range(_MOST_TRIES):
            if not end:
                break
            text = one.item.text[:end]
            tokens = self._tokens(one.part, one.item, text)
            if tokens <= room:
                self._take(one, text, tokens)
                return True
            # Cleaning made it longer, or its end is counted otherwise.
            end = last_end(text, min(end - 1, end * room // tokens))
        one.reason += "; no sentence ends within them"
        return False

    def _take(self, one: _Entry, text: str, tokens: int) -> None:
        part = one.part
        cost = tokens + (0 if part.used else part.head)
        part.used += cost
        part.open -= one.tokens
        self._free -= cost
        one.text, one.kept = text, tokens
        one.state = "packed" if len(text) == len(one.item.text) else "cut"
        self._taken.append(one)
        if one.compared >= 0:
            self._discount(one)

    def _untake(self, one: _Entry) -> None:
        part = one.part
        self._taken.remove(one)
        part.used -= one.kept
        self._free += one.kept
        part.open += one.tokens
        if part.used == part.head:
            part.used = 0
            self._free += part.head
        one.state = ""

    def _discount(self, one: _Entry) -> None:
        """Takes from the worth of what says the same; what says nearly nothing else is merged."""
        alike = self._similar.to(one.compared) if one.state == "packed" else self._similar.to_text(one.text)
        for number in alike.nonzero()[0].tolist():
            other = self._compared[number]
            if other.state or other is one or other.part.candidate.kind == "turns":
                continue
            how = float(alike[number])
            other.left = min(other.left, 1.0 - how)
            if how >= ALIKE:
                other.state = "merged"
                other.reason = f"{how:.0%} the same as {one.item.id}, which is packed"
                other.part.open -= other.tokens
                one.merged.append(other)

    def _filled(self) -> Filled:
        """The sections; should the whole have more tokens than its parts, without what was packed last."""
        while True:
            sections = self._sections()
            whole = Pack("", "", {}, sections, (), 0, self._budget, self._counter.name, self._point)
            tokens = self._counter.count(markdown(whole))
            if tokens <= self._budget or not self._taken:
                return Filled(sections, tuple(self._dropped()), tokens)
            last = self._taken.pop()
            for one in (last, *last.merged):
                one.state = "dropped"
                one.reason = f"the whole has {tokens} tokens with {last.item.id}, and the budget is {self._budget}"
            last.merged.clear()

    def _sections(self) -> tuple[Section, ...]:
        """Stable ones first, else as they were asked for; citations are numbered through."""
        sections: list[Section] = []
        number = 0
        for part in sorted(self._parts, key=lambda part: (not part.stable, part.place)):
            kept = [one for one in self._entries[part.place] if one.state in ("packed", "cut")]
            if not kept:
                continue
            items = tuple(_packed(number + place, one) for place, one in enumerate(kept, 1))
            number += len(items)
            sections.append(_section(part, items))
        return tuple(sections)

    def _dropped(self) -> list[Dropped]:
        found = []
        for one in self._flat:
            if one.state == "cut":
                reason = f"{one.reason}: kept {one.kept}, up to the end of a sentence"
                found.append(Dropped(one.part.name, one.item.id, max(one.tokens - one.kept, 0), "cut", reason))
            elif one.state == "merged":
                found.append(Dropped(one.part.name, one.item.id, one.tokens, "merged", one.reason))
            elif one.state == "dropped":
                found.append(Dropped(one.part.name, one.item.id, one.tokens, "dropped", one.reason))
        return found


def _reserve(part: _Part) -> int:
    """What of a section's floor is still to be filled, and can be."""
    head_left = 0 if part.used else part.head
    return max(0, min(part.floor - part.used, part.open + head_left)) if part.open else 0


def _packed(number: int, one: _Entry) -> Packed:
    merged = tuple(other.item.id for other in one.merged)
    return Packed(number, one.item, one.text, one.kept, one.state == "cut", merged)


def _section(part: _Part, items: tuple[Packed, ...]) -> Section:
    candidate = part.candidate
    as_of, age = _newest([packed.item for packed in items])
    return Section(
        name=part.name,
        kind=candidate.kind,
        title=candidate.packing.title or candidate.name,
        items=items,
        tokens=part.head + sum(packed.tokens for packed in items),
        trusted=all(packed.item.trusted for packed in items),
        stable=part.stable,
        as_of=as_of,
        age=age,
        about=candidate.about,
    )


def _newest(items: Sequence[Item]) -> tuple[datetime | None, float | None]:
    """Moment and age of the newest of some items; None where none is known."""
    moments = [item.as_of for item in items if item.as_of is not None]
    ages = [item.age for item in items if item.age is not None]
    return max(moments, default=None), min(ages, default=None)
