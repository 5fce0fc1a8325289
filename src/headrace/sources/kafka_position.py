"""Where a reading stands: the next offset of each partition, and of which topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import ConfigError

TOPIC = "topic"  # in a position, beside the partitions' numbers


@dataclass(frozen=True)
class Place:
    """A position, read.

    Attributes:
        offsets: The next offset, by partition.
        topic: "CLUSTER/ID" of the topic; None if it was not known.
    """

    offsets: Mapping[int, int]
    topic: str | None

    @classmethod
    def read(cls, position: Any, name: str) -> Place:
        """What `Offsets.position` gave.

        Raises:
            ConfigError: It is not a position in a topic.
        """
        try:
            topic = position.get(TOPIC)
            found = {number: at for number, at in position.items() if number != TOPIC}
            good = all(number.isdecimal() and type(at) is int and at >= 0 for number, at in found.items())
            if good and isinstance(topic, str | None):
                return cls({int(number): at for number, at in found.items()}, topic)
        except AttributeError:
            pass
        raise ConfigError(
            f'expected a position in {name!r}, such as {{"0": 1042, "1": 998}}, found {str(position)[:200]}; '
            "it may be another source's"
        )


@dataclass
class Offsets:
    """Where a reading stands now. The mappings are replaced and never changed, so that any thread may read them.

    Attributes:
        next: The next offset of each partition that is read.
        topic: "CLUSTER/ID".
        ended: The offset at which each partition was last seen to end.
        ends: The next offset that each partition's next message gets, as the brokers said when they were asked.
    """

    next: dict[int, int]
    topic: str | None
    ended: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)

    def advance(self, offsets: Mapping[int, int]) -> None:
        """Partitions have been read to these offsets."""
        if offsets:
            self.next = self.next | dict(offsets)

    def set(self, partition: int, offset: int) -> None:
        """A partition goes on at another offset."""
        self.next = self.next | {partition: offset}

    def end(self, partition: int, offset: int) -> None:
        """A partition was seen to end there; its last offsets may have had no messages."""
        self.ended = self.ended | {partition: offset}
        if offset > self.next.get(partition, offset):
            self.set(partition, offset)

    def restart(self, offsets: dict[int, int], topic: str) -> None:
        """Another topic, from its beginning."""
        self.next, self.topic, self.ended, self.ends = offsets, topic, {}, {}

    def position(self) -> dict[str, Any]:
        """As plain JSON."""
        found: dict[str, Any] = {str(number): at for number, at in self.next.items()}
        return found if self.topic is None else found | {TOPIC: self.topic}
