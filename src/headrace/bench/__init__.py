"""Benchmarks beside their peers: `headrace bench NAME`.

Rules that every one of them keeps: the peers run in the same run on the same data, in turn; the ratio is
the figure; every output is compared with an offline oracle before its time counts; a latency is measured
from the *scheduled* time of what it waits for; the machine, the versions and the seed are printed. A peer
that is not installed is left out and said so.
"""

from headrace.bench.command import main

__all__ = ["main"]
