"""`POST /v1/chat/completions`: OpenAI's API, answered by a model that knows what is true now.

A request waits for a place, gets its context, and becomes a `Conversation`. Here is what surrounds it: the pool of the
app's model servers, which lives as long as the server's event loop; errors in OpenAI's form, since its clients read no
other; and the client itself, which may go away at any time: then what runs for it is cancelled, and with it the request
to the model server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.declarations import RESERVED
from headrace.errors import ConfigError, HeadraceError, InputError, UnknownNameError
from headrace.ops.chat_metrics import ChatFigures, ChatTally
from headrace.serving.body import Bodies, DisconnectedError
from headrace.serving.chat_request import ChatRequest
from headrace.serving.chat_run import DONE, Conversation, event
from headrace.serving.problems import BUSY, INTERNAL, ProblemError, kind_of, problem_of
from headrace.serving.service import JSON, NO_STORE, Service, answer, log
from headrace.serving.service import Pool as Threads
from headrace.upstream.admission import Admission
from headrace.upstream.failures import QueueFullError, UpstreamError
from headrace.upstream.pool import Pool
from headrace.upstream.spec import URLS_VARIABLE

if TYPE_CHECKING:
    from headrace.app_chats import Chat
    from headrace.assembly.pack import Pack
    from headrace.serving.live import Live

CONTEXT_SECONDS = 10.0
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class ChatEngine:
    """The chat endpoint of a running app; for one event loop.

    Raises:
        ConfigError: A key that an upstream names cannot be had.
    """

    def __init__(self, live: Live, chat: Chat, most_body: int) -> None:
        self.live, self.chat = live, chat
        # A request keeps what it was sent until it is answered, and there may be hundreds: they share a budget of
        # their own, so that they neither fill the memory nor keep others' bodies out.
        self.bodies = Bodies(most_body)
        self.pool = Pool(chat.upstreams)
        self.admission = Admission(self.pool.limit, chat.queue)
        self.pool.on_change = self.admission.turn
        self.tally = ChatTally()
        self._threads = Threads(16)

    def priority(self, request: ChatRequest) -> int:
        """Of a request in the queue: as the app says, never as the client does."""
        given = self.chat.priority
        found = given(request.body | {"headrace": msgspec.structs.asdict(request.wanted)}) if callable(given) else given
        if isinstance(found, bool) or not isinstance(found, int):
            raise ConfigError(f"chat: expected priority to be a whole number, found {found!r}")
        return found

    async def conversation(self, request: ChatRequest, deadline: float) -> Conversation:
        """The conversation of a request, with its context read."""
        pack = await self._packed(request, deadline)
        return Conversation(self.live, self.chat, self.pool, request, pack, deadline)

    async def _packed(self, request: ChatRequest, deadline: float) -> Pack | None:
        wanted = request.wanted
        name = wanted.context or self.chat.context
        if name is None:
            return None
        known = self.live.app.context_of(name).parameters.get("properties", {})
        arguments = dict(wanted.arguments)
        for label in ("session", "session_id"):
            if wanted.session is not None and label in known:
                arguments.setdefault(label, wanted.session)
        if "question" not in arguments and _is_text(known.get("question", {})) and (asked := request.question()):
            arguments["question"] = asked
        if taken := sorted(set(arguments) & set(RESERVED)):
            raise InputError(
                f"headrace.arguments: expected the arguments of {name!r}, found {taken}; "
                "they stand beside `arguments`, in `headrace` itself"
            )
        options = {label: getattr(wanted, label) for label in ("budget", "max_age", "on_stale", "after")}
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        work = functools.partial(self.live.context, name, timeout=min(CONTEXT_SECONDS, left), **options, **arguments)
        return await self._threads.run(work)

    async def close(self) -> None:
        """Let go of all connections."""
        await self.pool.close()


def _is_text(schema: Mapping[str, Any]) -> bool:
    return any(one.get("type") in ("string", ["string", "null"]) for one in (schema, *schema.get("anyOf", ())))


async def completions(service: Service, request: Request) -> Response:
    """The handler of the route; all that goes wrong is answered by what it returns."""
    try:
        chat = engine(service)
        async with AsyncExitStack() as held:
            body = await held.enter_async_context(chat.bodies.read(request.scope["headers"], request.receive))
            return ChatAnswer(chat, ChatRequest(body), held.pop_all())
    except DisconnectedError:
        raise
    except HeadraceError as error:
        response = refused(error)
        if service.chat is not None:
            service.chat.tally.ended(response.status_code)
        return response


def start(service: Service) -> None:
    """Make the chat endpoint as the server starts, so that its first request is as quick as the others.

    What is in its way is logged, and told to whoever asks: the rest of the app is of use without it.
    """
    chat = service.live.app.endpoint
    if chat is None or not chat.upstreams:
        return
    try:
        engine(service).pool.start()
    except ConfigError as error:
        log.warning("no chat: %s", error)


def figures(service: Service) -> ChatFigures | None:
    """What the chat endpoint counts, or None if there is none; on the event loop's thread."""
    found: ChatEngine | None = service.chat
    if found is None:
        return None
    tally, pool = found.tally, found.pool
    return ChatFigures(
        requests=dict(tally.requests),
        tokens=dict(tally.tokens),
        queue=found.admission.waiting,
        inside=found.admission.inside,
        retries=pool.retried,
        hedges=pool.hedged,
        upstreams=pool.figures(),
        first=tuple(tally.first),
        first_seconds=tally.first_seconds,
    )


def engine(service: Service) -> ChatEngine:
    """The chat endpoint, made as the server starts, or when it is first asked.

    Raises:
        ProblemError: The app has none, or no model server.
    """
    if service.chat is None:
        chat = service.live.app.endpoint
        if chat is None:
            raise UnknownNameError("expected an app with a chat endpoint, found one without; declare app.chat()")
        if not chat.upstreams:
            raise ProblemError(
                BUSY,
                "expected a model server to ask, found none; name some with "
                f"app.chat(upstreams=[…]) or in {URLS_VARIABLE}",
            )
        service.chat = ChatEngine(service.live, chat, service.bodies.limit)
    found: ChatEngine = service.chat
    return found


class ChatAnswer(Response):
    """An answer on its way, ended when the client goes away."""

    def __init__(self, chat: ChatEngine, request: ChatRequest, held: AsyncExitStack) -> None:
        super().__init__()
        self._engine, self._request, self._held = chat, request, held
        self._begun = False
        self._since = time.monotonic()
        self._status = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        async with self._held:
            await self._run(receive, send)

    async def _run(self, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._answer(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = work.done()
            for task in (work, gone):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            await asyncio.wait({work})
            self._engine.tally.ended(self._status if finished else 499)
        if not finished:
            raise DisconnectedError
        work.result()

    async def _answer(self, send: Send) -> None:
        chat, request = self._engine, self._request
        deadline = asyncio.get_running_loop().time() + chat.chat.time_limit
        try:
            wait = min(chat.chat.wait, chat.chat.time_limit)
            async with chat.admission.enter(chat.priority(request), wait):
                conversation = await chat.conversation(request, deadline)
                try:
                    async with asyncio.timeout_at(deadline):
                        if request.stream:
                            await self._stream(conversation, send)
                        else:
                            await self._whole(conversation, send)
                finally:
                    chat.tally.used(conversation.used)
        except TimeoutError:
            await self._fail(send, _late(chat.chat.time_limit))
        except Exception as error:  # noqa: BLE001 - each becomes an answer in OpenAI's form; ours are logged there
            await self._fail(send, error)

    async def _whole(self, conversation: Conversation, send: Send) -> None:
        body = msgspec.json.encode(await conversation.whole())
        self._begins()
        await answer(send, body)

    def _begins(self) -> None:
        self._begun = True
        self._engine.tally.began(time.monotonic() - self._since)

    async def _stream(self, conversation: Conversation, send: Send) -> None:
        async with aclosing(conversation.events()) as events:
            async for data in events:
                if not self._begun:
                    self._begins()
                    await send({"type": "http.response.start", "status": 200, "headers": [_EVENTS, NO_STORE]})
                await send({"type": "http.response.body", "body": data, "more_body": not data.endswith(DONE)})

    async def _fail(self, send: Send, error: Exception) -> None:
        if not self._begun:
            response = refused(error)
            self._status = response.status_code
            headers = [one for one in response.raw_headers if one[0] not in (b"content-type", b"content-length")]
            headers = [one for one in headers if one[0] != b"cache-control"]
            await answer(send, bytes(response.body), response.status_code, JSON, headers)
            return
        # What has been sent cannot be taken back; without [DONE] a client knows that it is not whole.
        self._status, body = form(error)
        await send({"type": "http.response.body", "body": event(body), "more_body": False})


def refused(error: Exception) -> Response:
    """An error as OpenAI's clients read it."""
    status, body = form(error)
    headers = {"cache-control": "no-store"} | (error.headers if isinstance(error, ProblemError) else {})
    after = getattr(error, "retry_after", None)
    if after is not None or status == 503:
        headers["retry-after"] = f"{max(1, math.ceil(after or 1))}"
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def form(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and body of an error: {"error": {...}}, as OpenAI has it."""
    kind = kind_of(error)
    status, code = kind.status, kind.slug
    if isinstance(error, UpstreamError | QueueFullError):
        status = error.status
        code = error.code if isinstance(error, UpstreamError) else "queue_full"
    instance = ""
    if status == INTERNAL.status and not isinstance(error, HeadraceError):
        instance = uuid.uuid4().urn
        log.error("POST /v1/chat/completions failed: %s", instance, exc_info=error)
    elif status >= 500:
        log.warning("POST /v1/chat/completions: %s", error)
    types: Mapping[int, str] = {429: "rate_limit_error", 404: "not_found_error"}
    name = types.get(status, "invalid_request_error" if status < 500 else "server_error")
    detail = problem_of(error, instance).detail
    return status, {"error": {"message": detail, "type": name, "param": None, "code": code}}


def _late(seconds: float) -> UpstreamError:
    return UpstreamError(
        f"expected the answer within {seconds:g} s, found it unfinished; ask for less, or declare a longer time_limit",
        504,
        again=False,
        code="time_limit",
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
