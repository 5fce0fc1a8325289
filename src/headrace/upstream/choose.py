"""Which server gets a request: the one that has seen its beginning before, unless that is clearly busier.

A model server keeps the work for a prompt's beginning; a request that begins the same is answered sooner there. So the
beginning is hashed, and rendezvous hashing gives every beginning an order of the servers in which few change when a
server comes or goes. The first of that order is taken as long as it is not clearly busier than the least busy one, so
that one popular beginning cannot drown one server; then, as without a beginning, the least outstanding requests count.

Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 1998; for the bound,
Mirrokni et al., "Consistent Hashing with Bounded Loads", SODA 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import xxhash

SLACK = 4  # requests by which the preferred server may be ahead
FACTOR = 1.25  # and the ratio


class Load(Protocol):
    """What the choice looks at."""

    @property
    def name(self) -> str:
        """The same over restarts."""

    @property
    def outstanding(self) -> int:
        """Requests that it has now."""


def score(name: str, prefix: bytes) -> int:
    """A server's weight for a beginning."""
    return xxhash.xxh3_64_intdigest(name.encode() + b"\0" + prefix)


def choose(servers: Sequence[Load], prefix: bytes | None) -> int:
    """The index of the server to send to; there is at least one."""
    least = min(one.outstanding for one in servers)
    if prefix is not None:
        preferred = max(range(len(servers)), key=lambda i: score(servers[i].name, prefix))
        if servers[preferred].outstanding <= max(least + SLACK, least * FACTOR):
            return preferred
    # Among equals the beginning decides as well, or the name: the first in the list must not get all that comes.
    tie = prefix or b"%d" % sum(one.outstanding for one in servers)
    return min(range(len(servers)), key=lambda i: (servers[i].outstanding, -score(servers[i].name, tie)))
