"""Connections to one server, to the one that sentinels name, or to the nodes of a cluster.

`ask` sends commands and waits for all their answers, one round trip whatever the number of nodes, over connections that
are shared by threads and bounded in number. A `Lane` is a connection of its own, for the one who writes: commands are
sent without waiting for answers, up to a bound. redis-py makes the connections (TLS, passwords, sentinels) and knows
the cluster's map of slots; what goes over them is packed here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from headrace.errors import StorageError
from headrace.stores.online.redis_url import Target
from headrace.stores.online.redis_wire import Command, pack

# The cluster's answer that a key is elsewhere now, or will be.
MOVED = (MovedError, AskError, TryAgainError, ClusterDownError)
AWAY = (RedisError, OSError)


def away(target: Target, error: BaseException) -> StorageError:
    """What is told to whoever reads or writes: the host and the reason, and never a password."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        what = "refused the user or password that its URL names; put the right ones there"
    elif isinstance(error, redis.TimeoutError):
        what = f"did not answer within {target.timeout:g} s; see that it runs and can be reached"
    else:
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in (target.password, target.sentinel_password):
            text = text.replace(secret, "…") if secret else text
        what = f"cannot be used: {text[:300]}"
    return StorageError(f"the online store at {target.shown} {what}")


class Lane:
    """A connection for writing to one server; what is sent is acknowledged later."""

    # How much may be on its way: the server keeps answers until they are read.
    MOST_COMMANDS = 20_000
    MOST_BYTES = 4 << 20

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = pool.get_connection()
        self._waiting: list[tuple[int, int]] = []  # commands and bytes of each send
        self._commands = self._bytes = 0

    def send(self, packed: Sequence[bytes], count: int) -> None:
        """Sends `count` commands; waits for the answers of those before if there are too many on their way."""
        data = b"".join(packed)
        while self._waiting and (
            self._commands + count > self.MOST_COMMANDS or self._bytes + len(data) > self.MOST_BYTES
        ):
            self._read()
        self._connection.send_packed_command([data])
        self._waiting.append((count, len(data)))
        self._commands += count
        self._bytes += len(data)

    def settle(self) -> list[Any]:
        """Waits for all answers; returns those of what was sent last.

        Raises:
            ResponseError: The server refused a command.
        """
        answers: list[Any] = []
        while self._waiting:
            answers = self._read()
        return answers

    def _read(self) -> list[Any]:
        count, size = self._waiting.pop(0)
        self._commands -= count
        self._bytes -= size
        read = self._connection.read_response
        return [read() for _ in range(count)]

    def close(self) -> None:
        """Ends the connection: what was on its way may or may not have been done."""
        self._connection.disconnect()
        self._pool.release(self._connection)


class Link:
    """One server, by its address or by what sentinels say.

    Attributes:
        divided: Whether keys are on several servers, each of which can lose data by itself.
    """

    divided = False

    def __init__(self, target: Target) -> None:
        self.target = target
        self._bound = threading.BoundedSemaphore(target.connections)
        self._client: Any = None
        self._lock = threading.Lock()
        self._closed = False

    def client(self) -> Any:
        """redis-py's client, for what is not asked often."""
        with self._lock:
            if self._closed:
                raise StorageError(f"the online store at {self.target.shown} is closed")
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        target, options = self.target, _options(self.target)
        if target.mode == "sentinel":
            at = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")}
            at |= {"username": target.sentinel_username, "password": target.sentinel_password}
            known: Any = Sentinel  # redis-py leaves it without types
            return known(list(target.hosts), sentinel_kwargs=at, db=target.db, **options).master_for(target.service)
        ((host, port),) = target.hosts
        return redis.Redis(host=host, port=port, db=target.db, **options)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands, in one round trip; one that was refused is answered by its error.

        Raises:
            StorageError: The server did not answer.
        """
        if not self._bound.acquire(timeout=self.target.timeout):
            raise StorageError(
                f"the online store at {self.target.shown}: all {self.target.connections} connections have been in use "
                f"for {self.target.timeout:g} s; write more into the URL, as in ?connections=64"
            )
        try:
            client = self.client()
            try:
                return self._ask(commands)
            except redis.TimeoutError:
                raise
            except (redis.ConnectionError, OSError):
                # A connection that has been idle may be one to a server that was restarted since.
                self.renew(client)
                return self._ask(commands)
        except AWAY as error:
            raise away(self.target, error) from None
        finally:
            self._bound.release()

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        with _connection(self.client().connection_pool) as connection:
            connection.send_packed_command([b"".join([pack(*command) for command in commands])])
            return [_answer(connection) for _ in commands]

    def renew(self, failed: Any = None) -> None:
        """Lets go of all idle connections, and of what was learnt about where the servers are.

        Args:
            failed: The client to let go of, unless another thread has done so; by default the present one.
        """
        with self._lock:
            if failed is not None and failed is not self._client:
                return
            client, self._client = self._client, None
        if client is not None:
            _disconnect(client)

    def lanes(self) -> LaneSet:
        """Connections for writing."""
        return LaneSet(self)

    def lane_of(self, key: bytes) -> tuple[str, Any]:  # noqa: ARG002 - where a cluster knows several
        """The server that holds a key: a name, and the pool of its connections."""
        return "", self.client().connection_pool

    def nodes(self) -> list[Any]:
        """A client for each server that holds keys."""
        return [self.client()]

    def close(self) -> None:
        self.renew()
        with self._lock:
            self._closed = True


class ClusterLink(Link):
    """The nodes of a cluster: each key has a slot, each slot a node."""

    divided = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._slots: dict[int, tuple[str, Any]] = {}

    def _connect(self) -> Any:
        self._slots.clear()
        node: Any = ClusterNode  # redis-py leaves it without types
        nodes = [node(host, port) for host, port in self.target.hosts]
        return redis.RedisCluster(startup_nodes=nodes, **_options(self.target))

    def lane_of(self, key: bytes) -> tuple[str, Any]:
        slot = key_slot(key)
        if slot not in self._slots:
            cluster = self.client()
            node = cluster.get_node_from_key(key)
            if node is None:
                raise redis.ConnectionError("no node of the cluster has the slot of a key")
            self._slots[slot] = node.name, cluster.get_redis_connection(node).connection_pool
        return self._slots[slot]

    def renew(self, failed: Any = None) -> None:
        self._slots.clear()
        super().renew(failed)

    def nodes(self) -> list[Any]:
        cluster = self.client()
        return [cluster.get_redis_connection(node) for node in cluster.get_primaries()]

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Sends to every node before it waits for any."""
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for number, command in enumerate(commands):
            name, pool = self.lane_of(routing_key(command))
            by_node.setdefault(name, (pool, []))[1].append(number)
        answers: list[Any] = [None] * len(commands)
        opened: list[tuple[Any, Any, list[int]]] = []
        try:
            for pool, numbers in by_node.values():
                opened.append((pool, pool.get_connection(), numbers))
                opened[-1][1].send_packed_command([b"".join([pack(*commands[n]) for n in numbers])])
            for _, connection, numbers in opened:
                for n in numbers:
                    answers[n] = _answer(connection)
        except BaseException:
            for _, connection, _ in opened:
                connection.disconnect()
            raise
        finally:
            for pool, connection, _ in opened:
                pool.release(connection)
        return [self._followed(command, answer) for command, answer in zip(commands, answers, strict=True)]

    def _followed(self, command: Command, answer: Any) -> Any:
        """The answer, asked again where the key is now if it has moved: redis-py follows it and learns the new map."""
        if not isinstance(answer, MOVED):
            return answer
        self._slots.clear()
        found = self.client().execute_command(command[0].decode(), *command[1:])
        if isinstance(found, dict):
            return [part for pair in found.items() for part in pair]
        return found


class LaneSet:
    """One lane for each server that is written to, opened when it is first needed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lanes: dict[str, Lane] = {}

    def name(self, key: bytes) -> str:
        """Which lane a key's commands go over."""
        name, pool = self._link.lane_of(key)
        if name not in self._lanes:
            self._lanes[name] = Lane(pool)
        return name

    def send(self, name: str, packed: Sequence[bytes], count: int) -> None:
        self._lanes[name].send(packed, count)

    def settle(self) -> None:
        """Waits until all that was sent is done."""
        for lane in self._lanes.values():
            lane.settle()

    def call(self, command: Command) -> Any:
        """One command and its answer, after all that was sent over its lane."""
        lane = self._lanes[self.name(routing_key(command))]
        lane.settle()
        lane.send([pack(*command)], 1)
        return lane.settle()[0]

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()


def link(target: Target) -> Link:
    """The connections to a target; nothing is connected to before it is needed."""
    return ClusterLink(target) if target.mode == "cluster" else Link(target)


def routing_key(command: Command) -> bytes:
    """The key by which a command finds its node."""
    return command[3] if command[0] == b"EVAL" else command[1]


def _options(target: Target) -> dict[str, Any]:
    return {
        "username": target.username,
        "password": target.password,
        "socket_timeout": target.timeout,
        "socket_connect_timeout": target.timeout,
        "socket_keepalive": True,
        # The second version: the same on old servers, and no messages in between.
        "protocol": 2,
        # Who waits, and for how long, is decided here.
        "retry": Retry(NoBackoff(), 0),
        **(target.tls or {}),
    }


@contextmanager
def _connection(pool: Any) -> Iterator[Any]:
    """A connection of a pool; one that failed in between is not used again."""
    connection = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _answer(connection: Any) -> Any:
    """The next answer, or the error that the server answered with. Others must still be read."""
    try:
        return connection.read_response()
    except (AuthenticationError, NoPermissionError):
        raise
    except ResponseError as error:
        return error


def _disconnect(client: Any) -> None:
    if isinstance(client, redis.RedisCluster):
        client.close()
    else:
        client.connection_pool.disconnect(inuse_connections=False)
        client.close()
