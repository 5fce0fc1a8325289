"""A pack as plain JSON values, and back: what HTTP answers, what a client gets, what a manifest keeps.

`revive(plain(pack)) == pack`, also through JSON, as long as `arguments`, `positions` and `data` hold what JSON can say.
What it cannot becomes the nearest that it can: a moment or a decimal a text, not-a-number null, a tuple a list.
A text that is packed whole is written once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from headrace.assembly.pack import Pack
from headrace.errors import InputError

# What JSON's readers hold exactly: past 64 bits, they make floats of integers, or refuse them.
_LEAST, _MOST = -(2**63), 2**64 - 1
_HALVES = re.compile("[\ud800-\udfff]")


def plain(pack: Pack) -> dict[str, Any]:
    """A pack as dicts, lists, texts, numbers, booleans and None."""
    whole: dict[str, Any] = _value(msgspec.to_builtins(pack, str_keys=True, enc_hook=_other))
    for section in whole["sections"]:
        for packed in section["items"]:
            if packed["item"]["text"] == packed["text"]:
                del packed["item"]["text"]
    return whole


def revive(values: Mapping[str, Any]) -> Pack:
    """The pack that `plain` made these of.

    Raises:
        InputError: They are no pack: something is missing, or of another type.
    """
    try:
        sections = [_with_texts(section) for section in values["sections"]]
        return msgspec.convert({**values, "sections": sections}, Pack)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"context pack: expected what Pack.to_dict() gives, found {problem}; was it written by another version?"
        ) from None


def _with_texts(section: Mapping[str, Any]) -> dict[str, Any]:
    items = [{**packed, "item": {"text": packed["text"], **packed["item"]}} for packed in section["items"]]
    return {**section, "items": items}


def _value(value: Any) -> Any:
    if isinstance(value, str):
        # Half a surrogate pair is no text: no UTF-8 holds it.
        return value if value.isascii() else _HALVES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_value(name): _value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if _LEAST <= value <= _MOST else str(value)
    return value


def _other(value: Any) -> Any:
    """What msgspec does not know as JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
