"""Contract suites, strategies, an oracle and a virtual clock: shipped to users.

Each name is imported on first use, since the suites need `pytest` and the strategies `hypothesis`, which only tests do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.testing import strategies as strategies
    from headrace.testing.clock import VirtualClock as VirtualClock
    from headrace.testing.machines import MachineContract as MachineContract
    from headrace.testing.oracle import disagreements as disagreements
    from headrace.testing.oracle import expected as expected
    from headrace.testing.oracle import oracle as oracle
    from headrace.testing.oracle import oracle_many as oracle_many
    from headrace.testing.sources import SourceContract as SourceContract

_WHERE = {
    "VirtualClock": "clock",
    "MachineContract": "machines",
    "SourceContract": "sources",
    "disagreements": "oracle",
    "expected": "oracle",
    "oracle_many": "oracle",
}
__all__ = [*_WHERE, "oracle", "strategies"]  # noqa: PLE0604 - names are strings
