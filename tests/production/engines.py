"""The engine of the production tests, as an operator starts it: one process, or two of a Bytewax cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from services.kafka import free_ports

HERE = Path(__file__).parent
PATIENCE = 60.0


class Engine:
    """The processes that run the app; `kill` ends one of them with SIGKILL.

    Args:
        folder: The data directory and the logs.
        source: The URL of the sales.
        online: The URL of the online store.
        processes: 1 is the local runner, more a Bytewax cluster.
        app: What is run.
    """

    def __init__(
        self, folder: Path, source: str, online: str = "memory:", processes: int = 1, app: str = "till:app"
    ) -> None:
        self._folder = folder
        self._environment = {**os.environ, "ENGINE_SOURCE": source, "PYTHONPATH": str(HERE)}
        self._common = [sys.executable, "-m", "headrace", "run", app, "--data", str(folder / "data")]
        self._common += ["--online", online]
        self._processes = processes
        self._running: list[subprocess.Popen[bytes]] = []
        folder.mkdir(exist_ok=True)

    def start(self) -> None:
        """Starts all processes; they become ready by themselves."""
        commands = [[*self._common, "--port", str(free_ports(1)[0])]]
        if self._processes > 1:
            addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(self._processes))
            commands = [
                [*self._common, "--runner", "bytewax", "--process", str(number), "--addresses", addresses]
                for number in range(self._processes)
            ]
        for number, command in enumerate(commands):
            with open(self._folder / f"engine-{number}.log", "ab") as log:
                self._running.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, cwd=self._folder)
                )

    def kill(self, number: int = 0) -> None:
        """`kill -9` of one process. The others of a cluster cannot go on without it, and are ended too."""
        victim = self._running.pop(number)
        victim.kill()
        victim.wait(PATIENCE)
        self.stop()

    def stop(self) -> None:
        """Ends what still runs: SIGTERM, and SIGKILL for a process that does not heed it."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        self._running = []

    @property
    def log(self) -> str:
        """The end of what the processes have said."""
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self._folder.glob("engine-*.log")))
