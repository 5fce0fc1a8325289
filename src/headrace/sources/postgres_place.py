"""Where a reading of a Postgres table stands, as plain JSON: a place in the log of one server, or in a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.errors import ConfigError
from headrace.sources.postgres_output import lsn_number, lsn_text


@dataclass(frozen=True)
class Place:
    """A position, read.

    Attributes:
        lsn: The place in the log.
        table: The table's number.
        snapshot: A snapshot is under way.
        after: The primary key that it goes on after; None if it has to begin again.
    """

    lsn: int
    slot: str
    system: str
    table: int
    snapshot: bool = False
    after: tuple[str, ...] | None = None

    @classmethod
    def read(cls, position: Any, name: str) -> Place:
        """What `json` gave.

        Raises:
            ConfigError: It is not a position in a database's log.
        """
        try:
            after = position.get("after")
            return cls(
                lsn_number(position["lsn"]), str(position["slot"]), str(position["system"]), int(position["table"]),
                bool(position.get("snapshot")), None if after is None else tuple(map(str, after)),
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ConfigError(
                f'expected a position in {name!r}, such as {{"lsn": "0/16B3748", "slot": …, "system": …, "table": …}}, '
                f"found {str(position)[:200]}; it may be another source's"
            ) from None

    def json(self) -> dict[str, Any]:
        """As plain JSON."""
        found: dict[str, Any] = {
            "lsn": lsn_text(self.lsn), "slot": self.slot, "system": self.system, "table": self.table,
        }  # fmt: skip
        if self.snapshot:
            found["snapshot"] = True
        return found if self.after is None else found | {"after": list(self.after)}
