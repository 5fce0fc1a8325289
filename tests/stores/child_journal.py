"""Run by the tests as a process of its own: takes checkpoints until it is killed, saying which are durable."""

import sys
from pathlib import Path

import polars as pl

from headrace.stores.journal import Checkpoint, Journal, Part

if __name__ == "__main__":
    journal = Journal(Path(sys.argv[1]))
    before = journal.load()
    number = before.meta["n"] if before else 0
    while True:
        number += 1
        rows = pl.DataFrame({"k": [number % 7, number % 5], "n": [number, number]})
        journal.append(Checkpoint({"n": number}, {"p": Part(rows, ("k",))}))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
