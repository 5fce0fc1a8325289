"""Tables from topics: changes as Debezium tells them, documents of an outbox, or rows under keys.

    kafka://broker:9092/news.public.articles?format=debezium
    kafka://broker:9092/outbox.event.article?format=outbox&deleted=ArticleWithdrawn,*Deleted
    kafka://broker:9092/articles                              (a key, and its row as JSON: `app.publish` writes those)

The topic is read by the reader of `headrace.sources.kafka`, and everything else in a URL means what it means there.

A topic is a log, and a compacted one a table: read from its beginning to where it ended when reading began, it is a
snapshot, after which rows that it did not tell are gone. So a table that begins anew, or whose topic was deleted and
created again, also finds what was deleted. Only the order within a partition counts, in which each key's messages are;
a truncate, which has no key, is therefore taken only from a topic of one partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from headrace.cdc import Change
from headrace.document import TableSchema
from headrace.errors import ConfigError, DecodeError, nearest
from headrace.formats.debezium import FORMATS, change_decoder
from headrace.sources.base import Chunk, Letter, Skipped, Trace
from headrace.sources.kafka_batch import TOMBSTONE
from headrace.sources.kafka_position import TOPIC, Place
from headrace.sources.kafka_reader import KafkaReader
from headrace.sources.kafka_url import KafkaUrl
from headrace.sources.tables import Changes

_OURS = ("format", "deleted", "unavailable")
_NOT_OURS = ("registry", "key", "timestamp", "tombstones", "schema", "message", "validate", "dead_letters", "start")
_BATCH, _CHUNK = 1_000, 16 << 20


class KafkaTable:
    """The source of a table behind `kafka:` URLs.

    Args:
        url: Brokers, topic and `format`: "json" (rows under keys), "debezium" or "outbox".
        options: As in the query; `config` is a mapping of Kafka properties. `deleted` names the event types of an
            outbox that delete, `unavailable` the connector's placeholder for values that it was not told.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query)) | options
        self._format = given.get("format", "json")
        if self._format not in FORMATS:
            raise ConfigError(f"{self._format!r} is not a format of a table's topic; {nearest(self._format, FORMATS)}")
        for name in _NOT_OURS:
            if name in given:
                raise ConfigError(f"{name}= is for a stream; a table's topic has no such option, leave it out")
        self._told = {name: str(given[name]) for name in ("deleted", "unavailable") if name in given}
        kept = "&".join(pair for pair in parts.query.split("&") if pair.partition("=")[0] not in _OURS)
        rest = {name: value for name, value in options.items() if name not in _OURS}
        bounds = {"batch": _BATCH, "chunk": _CHUNK, "tombstones": "reject"}
        bounds = {name: value for name, value in bounds.items() if name not in given}
        self._url = KafkaUrl.parse(urlunsplit(parts._replace(query=kept)), bounds | rest)

    def __repr__(self) -> str:
        return f"KafkaTable({self.name!r})"

    @property
    def name(self) -> str:
        """The brokers, sorted, and the topic."""
        return self._url.name

    def open(self, position: Any | None, schema: TableSchema) -> KafkaTableReader:
        """Begin after a position; see `TableSource.open`. The brokers need not be there yet."""
        return KafkaTableReader(self._url, change_decoder(schema, self._format, **self._told), position)


class KafkaTableReader:
    """One reading of a table's topic; made by `KafkaTable.open`. Its position has the topic's in it.

    Args:
        url: The topic.
        decode: What reads a message as changes; see `formats.debezium.change_decoder`.
        position: Where to begin; None for the beginning.
    """

    def __init__(self, url: KafkaUrl, decode: Any, position: Any | None) -> None:
        self._url = url
        self._decode = decode
        self._begins = position is None
        self._in_snapshot = position is None
        self._ends: dict[str, int] | None = None  # where the snapshot ends, by partition
        place, self._offsets = None, dict[str, Any]()
        if position is not None:
            self._offsets, self._ends = _position(position, url.name)
            self._in_snapshot = self._ends is not None
            place = Place.read(self._offsets, url.name)
        self._reader = KafkaReader(url, (0, 1), place)

    def read(self, timeout: float) -> Changes | None:
        """The next batch; see `TableReader.read`."""
        chunk = self._reader.read(timeout)
        if chunk is None:
            if self._in_snapshot and self._reader.at_end():
                return self._batch([], [], complete=True)
            return None
        self._compare(chunk)
        self._offsets = dict(chunk.position)
        if self._in_snapshot and self._ends is None:
            self._reader.at_end()  # asks where the partitions end
            lag = self._reader.lag()
            self._ends = {number: at + lag.get(number, 0) for number, at in self._partitions().items()}
        changes, letters = self._read(chunk)
        complete = self._in_snapshot and all(
            at >= (self._ends or {}).get(number, 0) for number, at in self._partitions().items()
        )
        return self._batch(changes, letters, complete=complete, created=chunk.created)

    def stored(self, changes: Changes) -> None:
        """A topic keeps what it has; see `TableReader.stored`."""

    def lag(self) -> Mapping[str, int]:
        """Messages that were not read, as last heard; see `TableReader.lag`."""
        return {"messages": sum(self._reader.lag().values())}

    def at_end(self) -> bool:
        """Asks the brokers whether all has been read; see `TableReader.at_end`."""
        return not self._in_snapshot and self._reader.at_end()

    def close(self) -> None:
        """Leaves the brokers; see `TableReader.close`."""
        self._reader.close()

    def _partitions(self) -> dict[str, int]:
        return {number: at for number, at in self._offsets.items() if number != TOPIC}

    def _compare(self, chunk: Chunk) -> None:
        """Another topic under the same name is another table: a new snapshot begins."""
        before, now = self._offsets.get(TOPIC), chunk.position.get(TOPIC)
        # The part before the "/" is the cluster's: a mirror has the same messages.
        if before and now and before != now and before.partition("/")[0] == now.partition("/")[0]:
            self._begins, self._in_snapshot, self._ends = True, True, None

    def _batch(
        self, changes: Sequence[Change], letters: Sequence[Letter], *, complete: bool, created: int | None = None
    ) -> Changes:
        begins, self._begins = self._begins, False
        snapshot, self._in_snapshot = self._in_snapshot, self._in_snapshot and not complete
        position: dict[str, Any] = {"offsets": self._offsets}
        if self._in_snapshot:
            position["snapshot"] = self._ends or {}
        else:
            self._ends = None
        return Changes(changes, position, snapshot, complete, begins, letters, created=created)

    def _read(self, chunk: Chunk) -> tuple[list[Change], list[Letter]]:
        changes: list[Change] = []
        letters = [Letter(each.reason, _trace(each)) for each in chunk.skipped]
        for row, value in enumerate(chunk.messages or ()):
            assert chunk.trace is not None
            trace = chunk.trace(row)
            try:
                found = self._decode(trace.key, None if value is TOMBSTONE else value, trace.headers)
                if any(change.op == "truncate" for change in found) and len(self._partitions()) > 1:
                    raise DecodeError(
                        "a truncate has no place among the messages of other partitions; write the table's changes to "
                        "a topic of one partition, or delete its rows"
                    )
            except DecodeError as error:
                letters.append(Letter(str(error), trace))
                continue
            changes += [replace(change, origin=trace.origin, source=self._url.name) for change in found]
        return changes, letters


def _trace(skipped: Skipped) -> Trace:
    return Trace(f"{skipped.path}@{skipped.start}", skipped.raw)


def _position(position: Any, name: str) -> tuple[dict[str, Any], dict[str, int] | None]:
    """The topic's position, and where the snapshot ends that is under way."""
    try:
        offsets, ends = position["offsets"], position.get("snapshot")
        if isinstance(offsets, dict) and (ends is None or all(type(at) is int for at in ends.values())):
            return dict(offsets), None if ends is None else dict(ends)
    except (AttributeError, KeyError, TypeError):
        pass
    raise ConfigError(
        f'expected a position in {name!r}, such as {{"offsets": {{"0": 1042}}}}, found {str(position)[:200]}; '
        "it may be another source's"
    )
