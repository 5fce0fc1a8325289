"""Hypothesis for all tests: no deadlines on a shared machine, and the same examples each time on a build server.

HEADRACE_EXAMPLES=500 looks harder: so many examples a property, new ones on every run.
"""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Each room's tests may share a module that lies beside them, whatever pytest's import mode.
for room in sorted(Path(__file__).parent.iterdir()):
    if room.is_dir() and str(room) not in sys.path:
        sys.path.append(str(room))

settings.register_profile(
    "headrace",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=5,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search",
    settings.get_profile("headrace"),
    derandomize=False,
    max_examples=int(os.environ.get("HEADRACE_EXAMPLES", "100")),
)
settings.load_profile("search" if "HEADRACE_EXAMPLES" in os.environ else "headrace")
