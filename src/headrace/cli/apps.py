"""What commands share: the App object that one names, and the log."""

from __future__ import annotations

import importlib
import logging
import os
import sys

from headrace.app import App
from headrace.errors import ConfigError, nearest


def log_to_stderr(level: int) -> None:
    """Log to standard error.

    The MCP SDK tells of each session with its id, by which others could speak in it: of that only what is wrong is
    logged.
    """
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("mcp").setLevel(logging.WARNING)


def load_app(target: str) -> App:
    """The App that "module:name" stands for, found from the current directory too.

    Raises:
        ConfigError: There is no such module or object; the message says which.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not name:
        raise ConfigError(f"expected MODULE:APP, as in myapp:app, found {target!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {error.name!r} in {os.getcwd()} or on the Python path; "
                "run the command where it lies, or install it"
            ) from None
        raise ConfigError(f"{module_name} needs the module {error.name!r}, which is not installed") from error
    app = getattr(module, name, None)
    if not isinstance(app, App):
        known = [label for label, value in vars(module).items() if isinstance(value, App)]
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise ConfigError(f"{target}: expected an hr.App, found {found}; {nearest(name, known)}")
    return app
