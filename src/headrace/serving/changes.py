"""`GET /v1/changes`: server-sent events of what is subscribed to, and `GET /v1/packs/{id}`, with its replay.

An event's id is the hub's name and a number, so a client that comes back with Last-Event-ID goes on where it was, or is
told to read everything again (`reset`). What is told of a key is read when it is told: whoever reads slowly gets fewer
events and never an old state. A client that goes away is noticed at once, one that stops reading by the sweep over
connections, and a server that ends says so by ending its streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.errors import ClosedError, HeadraceError, InputError, nearest
from headrace.serving.change_sources import wanted
from headrace.serving.changes_hub import MOST_SUBJECTS, Hub, Subscription, Taken, Told
from headrace.serving.options import from_query
from headrace.serving.problems import BUSY, ProblemError
from headrace.serving.service import Service

if TYPE_CHECKING:
    from headrace.serving.live import Live

Subject = tuple[str, str, Any]
_KNOWN = ("view", "key", "collection", "table", "pack", "last_event_id")
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy that gathers what it passes on would hold events back
]
_GAPS = {
    "reset": {"detail": "what changed since that Last-Event-ID is no longer known here; read everything again"},
    "lost": {"detail": "more has changed than is kept for a reader that slow; read everything again"},
}
_encode = msgspec.json.Encoder(enc_hook=str).encode


def asked(live: Live, query: bytes) -> tuple[list[Subject], str]:
    """What a query string subscribes to, and the last event that it names.

    A `key` is of the `view` before it.

    Raises:
        InputError: It is not understood, or subscribes to nothing.
        UnknownNameError: There is no such view, collection, table or pack.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=2 * MOST_SUBJECTS
        )
    except ValueError as error:
        raise InputError(f"expected a query of percent-encoded UTF-8, found one that is not ({error})") from error
    views: list[tuple[str, list[str] | None]] = []
    found: list[Subject] = []
    last = ""
    for name, value in pairs:
        if name not in _KNOWN:
            raise InputError(f"expected a known query parameter, found {name!r}; {nearest(name, _KNOWN)}")
        if name == "view":
            views.append((value, None))
        elif name == "key":
            if not views:
                raise InputError("expected the view that a key is of before it, as in ?view=spending&key=u1")
            views[-1] = (views[-1][0], [*(views[-1][1] or ()), value])
        elif name == "last_event_id":
            last = value
        else:
            found += wanted(live, **{name: value})
    for view, keys in views:
        target = live.app.view_of(view)
        parts = None if keys is None else [target.parse_key(_parts(key, len(target.keys))) for key in keys]
        found += wanted(live, view=target, keys=parts)
    if not found:
        raise InputError(
            "expected something to subscribe to, as in ?view=spending&key=u1, ?collection=library, ?table=articles or "
            "?pack=pack_…; found nothing"
        )
    return found, last


def _parts(key: str, count: int) -> list[str]:
    return [key] if count == 1 else key.split("/")


def resumed(text: str) -> tuple[str, int] | None:
    """The hub and the number that an event's id stands for; None for no id.

    Whatever is no id of ours is as good as one of another process: the client is told to begin anew.
    """
    if not text:
        return None
    name, _, number = text.rpartition("-")
    plain = number.isascii() and number.isdigit() and len(number) < 19
    return (name, int(number)) if plain else ("", 0)


async def changes(service: Service, request: Request) -> Response:
    """`GET /v1/changes`."""
    live = service.live
    if request.method == "HEAD":
        return Response(status_code=200, headers={"content-type": "text/event-stream; charset=utf-8"})
    subjects, last = await service.others.run(asked, live, request.scope["query_string"])
    after = resumed(request.headers.get("last-event-id", "") or last)
    if live.hub.subscribers >= live.hub.most:
        raise ProblemError(BUSY, f"expected at most {live.hub.most} subscribers at once; come back shortly")
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the stream with it
            loop.call_soon_threadsafe(woken.set)

    def subscribe() -> Subscription:
        made = live.hub.subscribe(subjects, wake, after)
        if request.scope.get("headrace.gone"):
            made.close()
        return made

    # Packs are looked up, and their contexts asked: on a thread. If we are given up meanwhile, it gives the place back.
    try:
        subscription = await service.others.run(subscribe)
    except BaseException:
        request.scope["headrace.gone"] = True
        raise
    return EventStream(service, live.hub, subscription, woken)


class EventStream(Response):
    """One client's stream of events."""

    def __init__(self, service: Service, hub: Hub, subscription: Subscription, woken: asyncio.Event) -> None:
        super().__init__()
        self._service = service
        self._hub = hub
        self._subscription = subscription
        self._woken = woken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - an ASGI app
        """Sends events until the client goes, or the server or the app ends."""
        streams = self._service.streams
        streams.open.add(self._woken)
        gone = asyncio.ensure_future(_gone(receive, self._woken))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            subscribed = sorted({f"{kind} {name}".strip() for kind, name, _ in self._subscription.wants})
            number = self._hub.number
            first = self._subscription.take(0).gap
            # Past a gap nothing that came before counts; else the client's own number still does.
            told = f"id: {self._hub.name}-{number}\n" if first or not self._subscription.pending else ""
            await _write(send, f"event: ready\n{told}data: ".encode() + _encode({"subscribed": subscribed}) + b"\n\n")
            if first:
                await _write(send, _event(first, f"{self._hub.name}-{number}", _GAPS[first]))
            while not gone.done() and not streams.ending:
                if not await self._tell(send):
                    break
        finally:
            streams.open.discard(self._woken)
            self._subscription.close()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, send: Send) -> bool:
        """What there is to tell, or a sign of life; False if nothing will come any more."""
        self._woken.clear()
        taken = self._subscription.take()
        if taken.gap or taken.changes:
            await _write(send, await self._events(taken))
            return True
        if taken.closed:
            return False
        try:
            await asyncio.wait_for(self._woken.wait(), self._hub.keep_alive)
        except TimeoutError:
            await _write(send, b": keep-alive\n\n")
        return True

    async def _events(self, taken: Taken) -> bytes:
        live = self._service.live
        if live.remote:
            return await self._service.remote.run(self._told, taken)
        return self._told(taken)

    def _told(self, taken: Taken) -> bytes:
        events = [_event(taken.gap, f"{self._hub.name}-{taken.number}", _GAPS[taken.gap])] if taken.gap else []
        events += [self._one(one) for one in taken.changes]
        return b"".join(events)

    def _one(self, change: Told) -> bytes:
        try:
            data = self._service.live.sources.told(change)
        except ClosedError:
            return b""
        except HeadraceError as error:
            return _event("error", "", {"detail": str(error)})
        return _event(change.subject[0], f"{self._hub.name}-{change.number}", data)


async def _gone(receive: Receive, woken: asyncio.Event) -> None:
    """Ends when the client does."""
    while (await receive())["type"] != "http.disconnect":
        pass
    woken.set()


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _event(name: str, number: str, data: Any) -> bytes:
    head = f"event: {name}\n" + (f"id: {number}\n" if number else "")
    return head.encode() + b"data: " + _encode(data) + b"\n\n"


async def pack(service: Service, request: Request) -> Response:
    """`GET /v1/packs/{id}`: a pack that was given out, as it was."""
    from_query(request.scope["query_string"], ())
    found = await service.others.run(service.live.pack, request.path_params["id"])
    return _plain(found.to_dict())


async def replay(service: Service, request: Request) -> Response:
    """`GET /v1/packs/{id}/replay`: a pack made again as of then, and compared with now."""
    from_query(request.scope["query_string"], ())
    return _plain(await service.waits.run(service.live.replay, request.path_params["id"]))


def _plain(value: dict[str, Any]) -> Response:
    body = msgspec.json.encode(value, enc_hook=str)
    return Response(body, headers={"cache-control": "no-store"}, media_type="application/json")
