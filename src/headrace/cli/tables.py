"""Tables: what is stored of them, and letting a source go for good."""

from __future__ import annotations

import argparse

from headrace.cli.apps import load_app
from headrace.cli.letters import existing
from headrace.stores.datadir import Layout
from headrace.stores.tables import TableStore


def list_tables(parsed: argparse.Namespace) -> int:
    """One line a table of a data directory, also while a server has it open."""
    files = sorted(Layout(existing(parsed.data)).tables.glob("*.db"))
    for file in files:
        store = TableStore(file)
        try:
            print(f"{file.stem}  {store.count()} rows  change {store.seq}")
        finally:
            store.close()
    if not files:
        print("none")
    return 0


def forget_source(parsed: argparse.Namespace) -> int:
    """Takes away what a table's source made on its server: a replication slot, a publication."""
    table = load_app(parsed.app).table_of(parsed.table)
    drop = None if table.url is None else getattr(table.source(), "drop", None)
    if drop is None:
        print(f"{table.name}: its source keeps nothing on a server, so there is nothing to take away")
        return 0
    drop()
    print(f"{table.name}: what its source kept on the server has been let go of; see what its URL says to keep")
    return 0
