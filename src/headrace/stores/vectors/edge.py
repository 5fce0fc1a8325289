"""`edge:`: Qdrant Edge, embedded, in a process of its own: it holds the interpreter in all that it does."""

from __future__ import annotations

# Imported here only to be missed here, with the line that installs it; the process is what uses it.
import qdrant_edge  # noqa: F401

from headrace.stores.vectors.hosted import HostedStore


class EdgeVectors(HostedStore):
    """`edge:` within the app's data, or `edge:///absolute/path`."""

    scheme = "edge"
    engine = "headrace.stores.vectors.edge_engine:EdgeEngine"
