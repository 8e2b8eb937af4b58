"""Configuration of Sphinx: `make docs` builds the pages into docs/_build/html."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyhrf_parallel import __version__ as release

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pyhrf_parallel"
author = "The pyhrf_parallel developers"
project_copyright = f"2026, {author}"
version = release

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # single backticks in docstrings

html_theme = "furo"
html_title = f"pyhrf_parallel {release}"
html_show_sourcelink = False
_narrow = {"code-font-size": "0.78rem"}  # so that 90 columns of code fit beside the contents
html_theme_options = {"light_css_variables": _narrow, "dark_css_variables": _narrow}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc's sections have them
numpydoc_show_class_members = False  # exceptions inherit many, which the pages need not list


def setup(app: Sphinx) -> None:
    """Leave out the empty line that ends an example for doctest: a reader sees it as a hole."""
    app.connect("source-read", _close_examples)


def _close_examples(_app: Sphinx, _name: str, source: list[str]) -> None:
    source[0] = source[0].replace("\n\n```\n", "\n```\n")
