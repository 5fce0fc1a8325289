"""RabbitMQ for tests: Debian's package, as a process of the test's own, without the service manager.

A node of its own name, with its files in a directory of the test's and all its ports on 127.0.0.1. Erlang's port mapper
is started beside it, on a port of its own, so that none is left running. Queues that are durable outlive a kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError
from aiormq.abc import AbstractChannel

from services.kafka import free_ports, until

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PATIENCE = 60.0


class Rabbit:
    """The server, and what a test asks of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._distribution, self._mapper_port = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._mapper: subprocess.Popen[bytes] | None = None

    def start(self) -> Rabbit:
        """Starts it, and returns once it answers."""
        if not PROGRAM.exists() and "HEADRACE_SERVICES" not in os.environ:
            pytest.skip("needs Debian's package rabbitmq-server")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "plugins").write_text("[].")
        with (self.folder / "log").open("ab") as log:
            if self._mapper is None:
                mapper = [which("epmd") or "epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port)]
                self._mapper = subprocess.Popen(mapper, stdout=log, stderr=log)
                # Before the server looks for it: it would start one of its own, and leave it running.
                until(lambda: _listens(self._mapper_port), "Erlang's port mapper to listen")
            self._process = subprocess.Popen(
                [str(PROGRAM)], stdout=log, stderr=log, env=self._environment(), cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"RabbitMQ ended: {said}"
            assert time.monotonic() < deadline, f"RabbitMQ did not answer within {PATIENCE} s: {said}"
            time.sleep(0.05)
        return self

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return os.environ | {
            "HOME": folder,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": f"headrace-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOGS": f"{folder}/rabbit.log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbit",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RUNNING_UNDER_SYSTEMD": "1",  # no shell that waits beside it
        }

    def answers(self) -> bool:
        if _listens(self.port):
            with contextlib.suppress(AMQPError, OSError, TimeoutError):
                self.do(lambda channel: asyncio.sleep(0))
                return True
        return False

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kills it and starts it again."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Ends it, whatever it does."""
        self._end(signal.SIGKILL)
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait(PATIENCE)
            self._mapper = None

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, how)
            self._process.wait(PATIENCE)
            self._process = None

    def __enter__(self) -> Rabbit:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, queue: str, **options: Any) -> str:
        """The URL of a queue."""
        query = "".join(f"&{name}={value}" for name, value in options.items())
        return f"rabbitmq://{self.address}/?queue={queue}{query}"

    def do(self, work: Callable[[AbstractChannel], Coroutine[Any, Any, Any]]) -> Any:
        """Runs something on a channel of its own.

        Raises:
            TimeoutError: The server does not answer; what was asked of it may be done.
        """

        async def on_channel() -> Any:
            connection = await aio_pika.connect(f"amqp://guest:guest@{self.address}/", timeout=10)
            async with connection:
                # A server that is just starting accepts connections, and may never answer what it is asked on them.
                async with asyncio.timeout(10):
                    channel = await connection.channel()
                    underlay = await channel.get_underlay_channel()
                return await work(underlay)

        return asyncio.run(asyncio.wait_for(on_channel(), PATIENCE))

    def queue(self, type: str = "classic", **arguments: Any) -> str:
        """A new durable queue; returns its name."""
        name = f"q-{uuid.uuid4().hex[:12]}"
        told = {"x-queue-type": type} | arguments
        self.do(lambda channel: channel.queue_declare(name, durable=True, arguments=told))
        return name

    def settle(self) -> None:
        """Ends it in order and starts it again, so that a kill finds its quorum queues again.

        Which files are a quorum queue's, RabbitMQ 3.10 writes to the disk some minutes after the queue was made, or
        when it ends in order. Killed before, it makes new files, and the queue never has a leader any more.
        """
        self.stop()
        self.start()

    def delete(self, queue: str) -> None:
        self.do(lambda channel: channel.queue_delete(queue))

    def publish(self, queue: str, messages: Sequence[bytes | tuple[bytes, Mapping[str, Any]]]) -> None:
        """Sends messages, each with properties if it is a pair, and returns when the server has them.

        Raises:
            OSError, AMQPError: It does not say so; some may be there.
        """

        async def work(channel: AbstractChannel) -> None:
            for each in messages:
                body, properties = each if isinstance(each, tuple) else (each, {})
                told = aiormq_properties(delivery_mode=2, **properties)
                # A quorum queue that has no leader yet, just after a start, may never confirm.
                publishing = channel.basic_publish(body, routing_key=queue, properties=told)
                await asyncio.wait_for(publishing, 3)

        self.do(work)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def aiormq_properties(**properties: Any) -> Any:
    """The properties of a message."""
    from aiormq import spec

    return spec.Basic.Properties(**properties)
