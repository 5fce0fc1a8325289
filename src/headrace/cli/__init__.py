"""The command line."""

from headrace.cli.apps import load_app
from headrace.cli.main import main, parser

__all__ = ["load_app", "main", "parser"]
