"""What of an app can be read by an address: `headrace://features/{view}/{key}` and `headrace://collections/{name}`.

An address names what a read takes: the parts of a key stand between slashes, percent-encoded, in the order of the
view's key columns. What is read is JSON, as the HTTP API gives it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import msgspec

from headrace.errors import InputError, UnknownNameError, nearest
from headrace.serving.status import status
from headrace.serving.tool_calls import shortened

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.serving.live import Live

SCHEME = "headrace://"
JSON = "application/json"
FEATURES, COLLECTIONS = "features", "collections"
_LONGEST = 4_096
_SECONDS = 10.0


def templates(app: App) -> list[dict[str, Any]]:
    """A template for each view."""
    return [
        {
            "name": view.name,
            "uriTemplate": f"{SCHEME}{FEATURES}/{view.name}/" + "/".join(f"{{{key}}}" for key in view.keys),
            "description": (view.doc or f"The current features of one {' and '.join(view.keys)}.").strip(),
            "mimeType": JSON,
        }
        for view in app.views.values()
    ]


def listed(app: App) -> list[dict[str, Any]]:
    """The resources that have an address of their own: collections, and what they hold."""
    return [
        {
            "name": one.name,
            "uri": f"{SCHEME}{COLLECTIONS}/{quote(one.name, safe='')}",
            "description": one.about or f"The collection {one.name}: what it holds, and what it can be filtered by.",
            "mimeType": JSON,
        }
        for one in app.collections.values()
    ]


def parse(app: App, uri: str) -> tuple[str, str, Any]:
    """The kind, the name and (of features) the key that an address stands for.

    Raises:
        UnknownNameError: It names what is not there.
        InputError: It is no such address, or the key is none of the view's.
    """
    if not uri.startswith(SCHEME) or len(uri) > _LONGEST:
        raise _no_address(uri)
    kind, *parts = [_text(part) for part in uri[len(SCHEME) :].split("/")]
    if kind == FEATURES and len(parts) > 1:
        view = app.views.get(parts[0])
        if view is None:
            raise UnknownNameError(f"expected the name of a view, found {parts[0]!r}; {nearest(parts[0], app.views)}")
        return FEATURES, view.name, view.parse_key(parts[1:])
    if kind == COLLECTIONS and len(parts) == 1:
        return COLLECTIONS, app.collection_of(parts[0]).name, None
    raise _no_address(uri)


def _no_address(uri: str) -> InputError:
    known = f"{SCHEME}{FEATURES}/VIEW/KEY or {SCHEME}{COLLECTIONS}/NAME"
    return InputError(f"expected an address such as {known}, found {uri[:200]!r}")


async def read(live: Live, uri: str) -> Any:
    """What is at an address, ready for JSON.

    Raises:
        InputError: It is no address; see `parse`.
    """
    kind, name, key = parse(live.app, uri)
    if kind == COLLECTIONS:
        return shortened(await asyncio.to_thread(_collection, live, name))
    if live.remote:
        row = await asyncio.wait_for(asyncio.to_thread(live.read, name, key), _SECONDS)
    else:
        row = live.read(name, key)
    return shortened(msgspec.to_builtins(row))


def _collection(live: Live, name: str) -> dict[str, Any]:
    found = status(live)
    figures = found.get("collections", {}).get(name, {})
    return {"collection": name, **found["declared"]["collections"][name], "figures": figures}


def _text(part: str) -> str:
    try:
        return unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"expected an address of percent-encoded UTF-8, found {part[:60]!r}") from error
