"""The modules of examples/llm_twin, as their own folder would have them, with light models unless told otherwise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "examples" / "llm_twin"
LIGHT = {"HEADRACE_TWIN": "", "HEADRACE_TWIN_EMBED": "hash", "HEADRACE_TWIN_INDEX": "memory:"}


def twin_module(name: str) -> ModuleType:
    """One of them, made anew: an app is declared once for each time it is imported."""
    spec = importlib.util.spec_from_file_location(f"llm_twin_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # Pydantic looks a model's annotations up there
    spec.loader.exec_module(made)
    return made
