"""Bytewax's entry point, as this package calls it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

    from headrace.app import App

# Each epoch ends with a pause until all is saved; more often than this it would be mostly pauses.
_SHORTEST = timedelta(milliseconds=50)
# Where nothing is saved, an epoch need not end.
_ONLY = timedelta(days=3650)


def execute(
    flow: Dataflow,
    app: App,
    recovery: Path | None,
    *,
    workers: int = 1,
    process: int | None = None,
    addresses: Sequence[str] = (),
) -> None:
    """Runs a dataflow in this thread until its input ends.

    Args:
        app: Whose; an epoch is as long as from one of its checkpoints to the next.
        recovery: The folder of the recovery partitions; None saves nothing.
        workers: Threads of this process.
        process: Which of the addresses this process is.
        addresses: Where each process of the cluster listens; none for one process alone.
    """
    saving: dict[str, Any] = {"epoch_interval": _ONLY}
    if recovery is not None:
        config = RecoveryConfig(recovery)  # type: ignore[no-untyped-call]
        saving = {"epoch_interval": max(timedelta(microseconds=app.checkpoint), _SHORTEST), "recovery_config": config}
    cli_main(  # type: ignore[no-untyped-call]
        flow, workers_per_process=workers, process_id=process, addresses=list(addresses) or None, **saving
    )
