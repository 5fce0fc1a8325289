"""The scripted model server of the tests of chat."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "chat"))
