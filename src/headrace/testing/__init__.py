"""Contract suites, strategies, an oracle and a virtual clock: shipped to users.

Each name is imported on first use, since the suites need `pytest` and `hypothesis`, which a program that runs does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.testing import oracle as oracle
    from headrace.testing import strategies as strategies
    from headrace.testing.clock import VirtualClock as VirtualClock
    from headrace.testing.embedders import EmbedderContract as EmbedderContract
    from headrace.testing.machines import MachineContract as MachineContract
    from headrace.testing.sources import SourceContract as SourceContract
    from headrace.testing.stores import OnlineStoreContract as OnlineStoreContract
    from headrace.testing.tables import TableSourceContract as TableSourceContract
    from headrace.testing.vectors import VectorIndexContract as VectorIndexContract

_WHERE = {
    "EmbedderContract": "headrace.testing.embedders",
    "MachineContract": "headrace.testing.machines",
    "OnlineStoreContract": "headrace.testing.stores",
    "SourceContract": "headrace.testing.sources",
    "TableSourceContract": "headrace.testing.tables",
    "VectorIndexContract": "headrace.testing.vectors",
    "VirtualClock": "headrace.testing.clock",
}
__all__ = [
    "EmbedderContract",
    "MachineContract",
    "OnlineStoreContract",
    "SourceContract",
    "TableSourceContract",
    "VectorIndexContract",
    "VirtualClock",
    "oracle",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name in ("oracle", "strategies"):
        return import_module(f"headrace.testing.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
