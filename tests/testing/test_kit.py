"""The kit as its users meet it: imported by name, loading what only tests need when it is asked for."""

import subprocess
import sys

import pytest

import headrace.testing
from headrace.testing import (
    EmbedderContract,
    MachineContract,
    OnlineStoreContract,
    SourceContract,
    TableSourceContract,
    VectorIndexContract,
    VirtualClock,
    oracle,
    strategies,
)


def test_every_name_is_there() -> None:
    """And nothing else."""
    found = {name: getattr(headrace.testing, name) for name in headrace.testing.__all__}
    assert found == {
        "EmbedderContract": EmbedderContract,
        "MachineContract": MachineContract,
        "OnlineStoreContract": OnlineStoreContract,
        "SourceContract": SourceContract,
        "TableSourceContract": TableSourceContract,
        "VectorIndexContract": VectorIndexContract,
        "VirtualClock": VirtualClock,
        "oracle": oracle,
        "strategies": strategies,
    }
    with pytest.raises(AttributeError, match="no attribute 'Clock'"):
        headrace.testing.Clock  # noqa: B018


def test_a_clock_needs_neither_pytest_nor_hypothesis() -> None:
    """Whoever runs a program on a virtual clock does not install a test framework."""
    code = (
        "import sys; from headrace.testing import VirtualClock, oracle; VirtualClock();"
        "sys.exit(bool({'pytest', 'hypothesis', '_pytest'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
