"""`local:`: dense and sparse search in a process of its own, with nothing to install, train or optimise."""

from __future__ import annotations

from headrace.stores.vectors.hosted import HostedStore


class LocalVectors(HostedStore):
    """`local:` within the app's data, or `local:///absolute/path`."""

    scheme = "local"
    engine = "headrace.stores.vectors.local_engine:LocalEngine"
