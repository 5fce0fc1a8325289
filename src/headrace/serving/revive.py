"""JSON back into values, by the schema that a server's OpenAPI document gives: times are times again, and not text.

JSON has no times and no bytes. The server's schema says where they stood, in rows and inside the lists and objects of
a row, so a client can put them back without having the app's declaration at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import msgspec

from headrace.serving.rows import Row

Convert = Callable[[Any], Any]

_FORMATS: dict[str, type] = {"date-time": datetime, "date": date, "time": time}


class Reviver:
    """Makes the rows of one view from JSON objects."""

    def __init__(self, keys: Sequence[str], properties: Mapping[str, Any]) -> None:
        """
        Args:
            keys: The view's key columns.
            properties: The JSON Schema of each member of a row.
        """
        self.keys = tuple(keys)
        converts = {name: converter(schema) for name, schema in properties.items()}
        self._converts = {name: convert for name, convert in converts.items() if convert is not None}
        self._classes: dict[tuple[str, ...], type[Row]] = {}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> dict[str, Reviver]:
        """One for each view in an OpenAPI document."""
        revivers = {}
        for path, operations in document["paths"].items():
            name = operations.get("get", {}).get("operationId", "")
            if not (path.startswith("/v1/features/") and name.startswith("read_")):
                continue
            view = path.split("/")[3]
            keys = [one["name"] for one in operations["get"]["parameters"] if one["in"] == "path"]
            revivers[view] = cls(keys, document["components"]["schemas"][f"{view}.row"]["properties"])
        return revivers

    def row(self, found: dict[str, Any]) -> Row:
        """A row with its members as attributes, in the order they came."""
        for name, convert in self._converts.items():
            if found.get(name) is not None:
                found[name] = convert(found[name])
        members = tuple(found)
        if members not in self._classes:
            # One class for each set of members; a server that is restarted with other features adds one.
            self._classes = {} if len(self._classes) > 16 else self._classes
            fields: list[tuple[str, Any]] = [(name, Any) for name in members]
            made: type[Row] = msgspec.defstruct("RemoteRow", fields, bases=(Row,), frozen=True)  # type: ignore[assignment]
            self._classes[members] = made
        return self._classes[members](**found)


def converter(schema: Mapping[str, Any]) -> Convert | None:
    """What puts a value of this JSON Schema back, or None if JSON has it as it was."""
    for kind in ("anyOf", "oneOf"):
        for choice in schema.get(kind, ()):
            if found := converter(choice):
                return found
    if (form := _FORMATS.get(schema.get("format", ""))) is not None:
        return lambda value: msgspec.convert(value, form)
    if isinstance(items := schema.get("items"), Mapping) and (each := converter(items)):
        return lambda value: [None if one is None else each(one) for one in value]
    members = {name: found for name, part in schema.get("properties", {}).items() if (found := converter(part))}
    if members:
        return lambda value: {
            name: members[name](one) if name in members and one is not None else one for name, one in value.items()
        }
    return None
