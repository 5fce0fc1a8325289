"""From a context and its arguments to the parts that are to be read: nothing is read here.

A context's function is the app's own code and may yield anything, so what comes out of it is checked part by part, and
bounded: a generator that never ends must not hold a request for ever. Contexts within contexts are put in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.errors import InputError, TooLargeError
from headrace.parts import Lookup, Packing, Recall, Search, Text, Within

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.declarations import Context

MOST_PARTS = 64
MOST_DEPTH = 8
MOST_TEXT = 1 << 20

Leaf = Lookup | Search | Recall | Text
_PLAIN = Packing()


def parts(app: App, context: Context, arguments: Mapping[str, Any]) -> list[Leaf]:
    """The parts of a context, those of contexts within it in their place.

    Args:
        app: Whose views, collections and contexts they must be.
        context: What is asked for.
        arguments: As its function takes them.

    Raises:
        InputError: The function yields what is no part, too many of them, or a context that contains itself.
        UnknownNameError: A part is of another app.
    """
    found: list[Leaf] = []
    for part in _flat(app, context, arguments, (context.name,)):
        if len(found) == MOST_PARTS:
            raise InputError(f"{context.name}: expected at most {MOST_PARTS} parts, found more; yield fewer")
        found.append(part)
    return found


def _flat(app: App, context: Context, arguments: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Leaf]:
    made = context.function(**arguments)
    if made is None or isinstance(made, str | bytes | Mapping) or not isinstance(made, Iterable):
        raise InputError(
            f"{context.name}: expected a function that yields parts or returns a list, found {_shown(made)}"
        )
    # A context that yields nothing but contexts that yield nothing is bounded, too.
    for number, one in enumerate(made):
        if number == MOST_PARTS:
            raise InputError(f"{context.name}: expected at most {MOST_PARTS} parts, found more; yield fewer")
        if isinstance(one, Within):
            yield from _within(app, one, path)
        else:
            yield _checked(app, context.name, one)


def _within(app: App, part: Within, path: tuple[str, ...]) -> Iterator[Leaf]:
    inner = app.context_of(part.context)
    if inner.name in path:
        raise InputError(
            f"{path[0]}: expected contexts within one another to end, found {' → '.join([*path, inner.name])}"
        )
    if len(path) == MOST_DEPTH:
        raise InputError(
            f"{path[0]}: expected contexts at most {MOST_DEPTH} deep, found {' → '.join([*path, inner.name])}"
        )
    packing = part.packing
    if replace(packing, priority=1.0) != _PLAIN:
        raise InputError(
            f"{path[-1]}: a section around the context {inner.name!r} can only have a priority; "
            "give its own sections the rest"
        )
    arguments, _ = inner.arguments.check(inner.name, part.arguments)
    for leaf in _flat(app, inner, arguments, (*path, inner.name)):
        own = replace(leaf.packing, priority=leaf.packing.priority * packing.priority)
        yield replace(leaf, packing=own)


def _checked(app: App, name: str, part: Any) -> Leaf:
    if isinstance(part, str):
        part = Text(part)
    if isinstance(part, Text):
        if not isinstance(part.text, str) or len(part.text) > MOST_TEXT:
            raise TooLargeError(
                f"{name}: expected a text of at most {MOST_TEXT:,} characters, found {_shown(part.text)}"
            )
        return part
    if isinstance(part, Lookup):
        app.view_of(part.view)
        return part
    if isinstance(part, Search):
        app.collection_of(part.collection)
        return part
    if isinstance(part, Recall):
        app.memory_of(part.memory)
        return part
    raise InputError(
        f"{name}: expected parts such as Spending(user_id), library.search(question), hr.text(…) or a text, "
        f"found {_shown(part)}"
    )


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '…'}"
