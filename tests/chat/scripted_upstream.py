"""A model server that does what a test says, over real sockets: it streams, stalls, dies, lies, refuses."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
STALL = object()
DIE = object()


def delta(finish: str | None = None, **content: Any) -> Json:
    """A chunk."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": content, "finish_reason": finish}],
    }


def usage(prompt: Any = 10, completion: Any = 5) -> Json:
    """The chunk that tells the usage."""
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 15}
    return delta() | {"choices": [], "usage": told}


def text(*words: str) -> list[Any]:
    """A stream that says these words."""
    return [delta(role="assistant", content=""), *(delta(content=one) for one in words), delta("stop"), usage()]


def calls(*wanted: tuple[str, Json]) -> list[Any]:
    """A stream that calls these tools, their arguments in pieces."""
    steps: list[Any] = [delta(role="assistant", content=None)]
    for index, (name, arguments) in enumerate(wanted):
        head = {"index": index, "id": f"call_{name}_{index}", "type": "function"}
        written = json.dumps(arguments)
        steps.append(delta(tool_calls=[head | {"function": {"name": name, "arguments": ""}}]))
        pieces = (written[:3], written[3:])
        steps += [delta(tool_calls=[{"index": index, "function": {"arguments": piece}}]) for piece in pieces]
    return [*steps, delta("tool_calls"), usage()]


def whole(steps: list[Any]) -> Json:
    """The same as an answer in one piece."""
    content, found = "", []
    for step in steps:
        for choice in step["choices"]:
            content += choice["delta"].get("content") or ""
            for piece in choice["delta"].get("tool_calls", ()):
                if "id" in piece:
                    found.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
                else:
                    found[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    message = {"role": "assistant", "content": content or None} | ({"tool_calls": found} if found else {})
    reasons = [choice["finish_reason"] for step in steps for choice in step["choices"] if choice["finish_reason"]]
    choice = {"index": 0, "message": message, "finish_reason": reasons[-1]}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [choice],
        "usage": steps[-1]["usage"],
    }


@dataclass(frozen=True)
class Raw:
    """Bytes instead of an answer, and then the connection's end."""

    data: bytes


class ScriptedUpstream:
    """The server; `script` gives a request's steps, or a status with headers.

    A step is a chunk, bytes of the body, a `Raw` answer, STALL, DIE, seconds, or an event to wait for.
    """

    def __init__(self, script: Callable[[Json], list[Any]] | list[Any]) -> None:
        self.script = script if callable(script) else lambda _: script
        self.requests: list[Json] = []
        self.times: list[float] = []
        self.open = self.checks = 0
        self.health = 200
        self.gone = threading.Event()
        self.stalled = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._begun: set[Any] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def __enter__(self) -> ScriptedUpstream:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)  # a server that is closed would leave open what it has accepted and not begun to serve
        server.close()
        # What was accepted and has not begun begins, and ends at once: cancelled before, its socket would stay open.
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest & self._begun:
                task.cancel()
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.wait(rest, timeout=1)
        await asyncio.sleep(0)  # the transports' sockets are closed in the loop's next turn

    def kill(self) -> None:
        """Die as a process does: nothing is listened on, and every connection is reset."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def drop(self) -> None:
        """Close the connections that are open, as a server does whose keep-alive is over."""

        async def close() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stop.is_set():
            writer.transport.abort()
            return
        self._writers.add(writer)
        self._begun.add(asyncio.current_task())
        self.open += 1
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if head.startswith("GET"):
            self.checks += 1
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % self.health)
            return True
        asked = json.loads(body)
        self.times.append(time.monotonic())
        self.requests.append(asked | {"_authorization": fields.get("authorization")})
        steps = self.script(asked)
        if isinstance(steps[0], tuple):
            status, headers = steps[0]
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            said = b'{"error": {"message": "as the script says"}}'
            writer.write(f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(said)}\r\n\r\n".encode() + said)
            return True
        if not asked.get("stream"):
            for step in steps:
                await _waited(step)
            said = json.dumps(whole([one for one in steps if isinstance(one, dict)])).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
            return True
        return await self._stream(steps, reader, writer)

    async def _stream(self, steps: list[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        begun = False
        for step in steps:
            if step is DIE:
                writer.transport.abort()
                return False
            if step is STALL:
                self.stalled.set()
                await reader.read(1)
                self.gone.set()
                return False
            if await _waited(step):
                continue
            if isinstance(step, Raw):
                writer.write(step.data)
                writer.close()
                return False
            if not begun:
                begun = True
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
            data = step if isinstance(step, bytes) else b"data: " + json.dumps(step).encode() + b"\n\n"
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        done = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done))
        return True


async def _waited(step: Any) -> bool:
    """Do a step that is nothing but a pause; whether it is one."""
    if isinstance(step, float):
        await asyncio.sleep(step)
    elif isinstance(step, threading.Event):
        while not step.is_set():
            await asyncio.sleep(0.005)
    return isinstance(step, float | threading.Event)
