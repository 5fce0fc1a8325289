"""Whether Bytewax is there; imported before all that needs it."""

from __future__ import annotations

import sys

from headrace.errors import MissingDependencyError

try:
    import bytewax.dataflow  # noqa: F401
except ImportError as missing:
    if sys.version_info < (3, 13):
        raise
    raise MissingDependencyError(
        f"the runner 'bytewax' needs Bytewax, which has no wheels for Python {sys.version_info[0]}."
        f"{sys.version_info[1]}: use Python 3.11 or 3.12, or the runner 'local'"
    ) from missing
