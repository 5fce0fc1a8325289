"""A pack made again, as of then: from what is kept of tables and of pushes, by the same rules, and compared.

Passages come from the tables' history at the recorded number, cleaned and cut by the collection's own pipeline; rows of
features from the push log up to the recorded position, read at the pack's own moment; turns from what is remembered.
What is not kept (a source other than pushes, history past its limit, what was forgotten) is said, and not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.assembly.pack import Pack
from headrace.documents.states import Raw
from headrace.features.machine import Batch, ViewMachine, build
from headrace.runners.base import PUSH
from headrace.serving import pack_changes, pack_memory
from headrace.serving.documents import position_of
from headrace.serving.pack_erasure import WHY, is_forgotten
from headrace.serving.pack_memory import Difference, Rebuilt
from headrace.serving.rows import RowMaker
from headrace.units import to_micros

if TYPE_CHECKING:
    from headrace.features.view import View
    from headrace.serving.live import Live
    from headrace.stores.tables import Revision


def rebuild(live: Live, pack: Pack) -> Rebuilt:
    """Makes a pack's items again, as they were.

    Raises:
        StorageError: What is kept cannot be read.
    """
    found = Rebuilt()
    for section in pack.sections:
        for one in section.items:
            if is_forgotten(one.item):
                found.unknown[one.item.id] = WHY
            elif section.kind == "text":
                found.same.append(one.item.id)
    _features(live, pack, found)
    _passages(live, pack, found)
    pack_memory.rebuild(live, pack, found)
    return found


def _features(live: Live, pack: Pack, found: Rebuilt) -> None:
    read = pack_changes.lookups(live, pack)
    known = {item.id for _, item, _, _ in read}
    for _, item in pack_changes.of_kind(pack, "features"):
        if item.id not in known:
            found.unknown[item.id] = "the app no longer declares its view"
    upto = pack.point.positions.get(PUSH)
    log: Any = getattr(live.runner, "log", None)
    machines: dict[str, ViewMachine] = {}
    for section, item, view, key in read:
        why = _not_kept(live, view, log, upto)
        if why:
            found.unknown[item.id] = why
            continue
        if not machines:
            wanted = {one.name: one for _, _, one, _ in read if not _not_kept(live, one, log, upto)}
            machines = _run(live, wanted, log, int(upto or 0))
        now = None if live.app.event_time else to_micros(pack.point.now)
        values = machines[view.name].read(key, now)
        row = RowMaker(view).one(key, values, "").to_dict()
        other = pack_changes.told(item, row)
        if other:
            found.other.append(Difference(section.name, item.id, "value", other))
        else:
            found.same.append(item.id)


def _not_kept(live: Live, view: View, log: Any, upto: Any) -> str:
    stream = live.app.streams[view.stream]
    if stream.url is not None:
        return f"the events of {view.stream} come from {stream.source().name}, whose history is not kept here"
    if log is None:
        return f"the runner {live.app.runner!r} keeps no log of pushes"
    if log.position and log.first > 1:
        return f"pushes up to {log.first - 1} are no longer kept"
    if upto is None and log.position:
        return "the pack does not say which pushes it had seen"
    return ""


def _run(live: Live, views: Mapping[str, View], log: Any, upto: int) -> dict[str, ViewMachine]:
    """Machines that have seen the push log up to a position, and nothing else."""
    machines = {name: build(view) for name, view in views.items()}
    rows = dict.fromkeys(live.app.streams, 0)
    newest: dict[str, int] = {}
    for record in log.replay(0):
        if record.position > upto:
            break
        stream = live.app.streams.get(record.stream)
        if stream is None or not record.frame.height:
            continue
        frame = stream.schema.align(record.frame)
        at = frame[stream.schema.time].to_physical().to_numpy()
        if live.app.event_time:
            now = np.maximum.accumulate(np.maximum(at, newest.get(stream.name, int(at[0]))))
            newest[stream.name] = int(now[-1])
        else:
            now = np.full(frame.height, record.received, np.int64)
        batch = Batch(frame, rows[stream.name], now, stream.lateness)
        rows[stream.name] += frame.height
        for machine in machines.values():
            if machine.view.stream == stream.name:
                machine.commit(machine.prepare(batch))
    return machines


def _passages(live: Live, pack: Pack, found: Rebuilt) -> None:
    by_collection = pack_changes.collections(live, pack)
    known = {item.id for items in by_collection.values() for _, item in items}
    for _, item in pack_changes.of_kind(pack, "passages"):
        if item.id not in known:
            found.unknown[item.id] = "the app no longer declares its collection"
    for name, items in by_collection.items():
        collection = live.app.collections[name]
        seq = pack.point.positions.get(position_of(collection.table.name))
        keys = {item.id: str((item.data or {}).get("document", "")) for _, item in items}
        store = live.library.tables[collection.table.name].store
        then = {one.key: one for one in store.as_of(seq=seq) if one.key in keys.values()} if seq is not None else {}
        for section, item in items:
            revision = then.get(keys[item.id])
            if revision is None:
                why = "the pack does not say which" if seq is None else f"there is none at {seq} any more, of the"
                found.unknown[item.id] = f"{why} revision of {keys[item.id]!r} it had seen"
            elif item.text in _texts(live, name, revision):
                found.same.append(item.id)
            else:
                found.other.append(Difference(section.name, item.id, "changed", f"the document {revision.key!r}"))


def _texts(live: Live, name: str, revision: Revision) -> set[str]:
    """What a revision's document is cut into, by each embedder that the collection has for it."""
    collection = live.app.collections[name]
    document = collection.table.schema.load(revision.kind, revision.body or b"")
    raw = Raw(revision.key, revision.kind, document, revision.seq, revision.at, revision.source, revision.trusted)
    cleaned = collection.handlers.cleaned(raw)
    running = live.library.collections[name]
    running.wait(lambda: running.ready, 60.0)
    spaces = running.spaces.of_kind(revision.kind).values()
    return {piece.text for space in spaces for piece in collection.handlers.pieces(cleaned, space.embedder)}


def replayed(live: Live, id: str) -> dict[str, Any]:
    """A pack, what came of making it again as of then, and what of it differs now; as plain values.

    Raises:
        UnknownNameError: There is no such pack, or it is no longer kept.
        StorageError: What is kept cannot be read.
    """
    pack = live.pack(id)
    rebuilt = rebuild(live, pack)
    now, troubles = pack_changes.differences(live, pack)
    return {
        "pack": pack.to_dict(),
        "rebuilt": {
            "same": rebuilt.same,
            "other": [one.plain() for one in rebuilt.other],
            "unknown": rebuilt.unknown,
        },
        "now": {"changed": [one.plain() for one in now], "not_compared": troubles},
    }
