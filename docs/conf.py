"""Sphinx: MyST pages, and a reference from the docstrings. Nothing is fetched while it builds."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "Headrace"
author = "The Headrace founders"
project_copyright = "The Headrace founders"
release = version = installed("headrace")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"Headrace {release}"
html_static_path = ["_static"]
html_show_sourcelink = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# The docstrings write code in single backticks.
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# "Source:" names where an algorithm comes from; `Attributes:` reads best as a list below the class.
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True
