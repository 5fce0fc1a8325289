"""Contexts as prompts: a prompt's arguments are those of the context, and its message is the packed context.

A prompt's arguments are text, whatever the type of the parameter; a number or a truth value is read as JSON writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.errors import UnknownNameError, nearest
from headrace.serving import context_tool, tool_calls

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.serving.live import Live

_NOT_TEXT = {"integer", "number", "boolean", "array", "object"}


def listed(app: App) -> list[dict[str, Any]]:
    """The prompts: one for each context."""
    return [
        {
            "name": context.name,
            "description": context.about or f"The context {context.name}, as it is now.",
            "arguments": [
                {
                    "name": name,
                    "description": schema.get("description", ""),
                    "required": name not in context.arguments.optional,
                }
                for name, schema in _properties(context).items()
            ],
        }
        for context in app.contexts.values()
    ]


async def text(live: Live, name: str, arguments: Mapping[str, str]) -> tuple[str, str]:
    """What a prompt is about, and what it says now.

    Raises:
        UnknownNameError: There is no such prompt.
        InputError: The arguments are not the context's.
        StaleError: It was not made in time.
    """
    context = live.app.contexts.get(name)
    if context is None:
        raise UnknownNameError(f"expected the name of a prompt, found {name!r}; {nearest(name, live.app.contexts)}")
    properties = _properties(context)
    given = {label: _value(properties.get(label, {}), value) for label, value in arguments.items()}

    def work() -> dict[str, Any]:
        return {"text": context_tool.asked(live, context, given).render("markdown")}

    made = await tool_calls.run_async(live.calls, name, work, tool_calls.DEFAULT_SECONDS)
    return context.about, made["text"]


def _properties(context: Any) -> dict[str, Any]:
    found: dict[str, Any] = context.parameters.get("properties", {})
    return found


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    kinds = schema.get("type", ())
    found = {kinds} if isinstance(kinds, str) else set(kinds)
    for part in schema.get("anyOf", ()):
        found |= _kinds(part)
    return found


def _value(schema: Mapping[str, Any], value: str) -> Any:
    kinds = _kinds(schema)
    if "string" not in kinds and kinds & _NOT_TEXT:
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value  # the context says what was expected
    return value
