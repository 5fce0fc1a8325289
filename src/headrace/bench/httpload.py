"""An open-loop HTTP load generator: many kept-alive connections, one thread, one request at a time on each.

Python, but lean: prepared requests on raw non-blocking sockets and one epoll, about 20 µs of processor time
a request. It shares the machine with the server that it loads, so its own cost is in the figures. A request
that is due while all the connections wait is sent when one is free, and its latency counts from when it was
due.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.bench.child import serve
from headrace.bench.data import user_ids, zipf
from headrace.bench.openloop import Latencies, precise_timer

TIMEOUT = 30.0


class Load:
    """Connections to one server."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            connection = socket.create_connection((host, port), TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._partial: dict[int, bytes] = {}

    def run(self, requests: Sequence[bytes], rate: float) -> tuple[Latencies, int]:
        """Send the requests at `rate` a second; the latencies, and how many answers were not 200."""
        precise_timer()
        clock, count = time.perf_counter_ns, len(requests)
        sent_at, done_at = np.zeros(count, np.int64), np.zeros(count, np.int64)
        idle, flying = deque(self._sockets), dict[int, int]()
        following = done = failed = 0
        begin = clock() + 1_000_000
        due = begin + (np.arange(count) * (1e9 / rate)).astype(np.int64)
        moments = due.tolist()
        while done < count:
            now = clock()
            while following < count and idle and moments[following] <= now:
                connection = idle.popleft()
                flying[connection] = following
                sent_at[following] = clock()
                self._sockets[connection].send(requests[following])
                following += 1
            wait = (moments[following] - clock()) / 1e9 if following < count and idle else TIMEOUT
            # epoll's own timeout is in milliseconds; select's on the epoll's descriptor is in microseconds.
            if not select.select([self._epoll], [], [], max(wait, 0.0))[0]:
                if wait == TIMEOUT:
                    raise TimeoutError(f"no answer within {TIMEOUT:g} s; {done:,} of {count:,} were answered")
                continue
            for connection, _ in self._epoll.poll(0):
                status = self._receive(connection)
                if status:
                    index = flying.pop(connection)
                    done_at[index] = clock()
                    failed += status != 200
                    done += 1
                    idle.append(connection)
        return Latencies((done_at - due) / 1e3, (done_at - sent_at) / 1e3), failed

    def _receive(self, connection: int) -> int:
        """What has come on a connection: the status of a whole answer, or 0 if there is more to come."""
        data = self._sockets[connection].recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed a kept-alive connection")
        data = self._partial.pop(connection, b"") + data
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            at = data[:head].lower().find(b"content-length:")
            if at < 0:
                raise ConnectionError("expected an answer with a content-length")
            end = data.find(b"\r\n", at)
            if len(data) >= head + 4 + int(data[at + 15 : end]):
                return int(data[9:12])
        self._partial[connection] = data
        return 0

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._epoll.close()


def requests(path: str, ids: Sequence[str], batch: int, host: str) -> list[bytes]:
    """One request for each `batch` ids: a GET for one key, a POST for more."""
    made = []
    for start in range(0, len(ids), batch):
        some = ids[start : start + batch]
        if batch == 1:
            made.append(f"GET {path}/{some[0]} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            continue
        body = '{"keys":["' + '","'.join(some) + '"]}'
        made.append(
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    return made


def main(host: str, port: str, path: str, keys: str, connections: str, seed: str) -> None:
    rng = np.random.default_rng(int(seed))
    load = Load(host, int(port), int(connections))

    def measure(rate: float, seconds: float, batch: int) -> dict[str, Any]:
        count = int(rate * seconds)
        ids = user_ids(zipf(count * batch, int(keys), 0.99, rng)).to_list()
        prepared = requests(path, ids, batch, host)
        cpu, begin = time.process_time(), time.perf_counter()
        latencies, failed = load.run(prepared, rate)
        wall = time.perf_counter() - begin
        used = (time.process_time() - cpu) / wall
        return {"latency": latencies.to_dict(), "failed": failed, "rate": count / wall, "cpu": used}

    serve(measure)
    load.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
