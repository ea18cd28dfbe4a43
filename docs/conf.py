"""Sphinx configuration. `make docs` builds with every warning an error and runs the examples."""

import re

from sphinx.application import Sphinx

import ouroboros

project = "PyOuroboros"
author = "the PyOuroboros developers"
project_copyright = "the PyOuroboros developers, LGPL-2.1-or-later"
version = release = ouroboros.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"PyOuroboros {version}"

# Docstrings write code in single backticks.
default_role = "literal"
highlight_language = "default"  # Python, but a drawing in a docstring is no error

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False

# References to our own objects must resolve. Others would need their projects' inventories: a build fetches nothing.
nitpick_ignore_regex = [("py:.*", r"(?!ouroboros\.).*")]

# The examples that are run need no node, so none is started for them. Those in docstrings import nothing themselves.
doctest_global_setup = """
import os
os.environ["OUROBOROS_AUTOSTART"] = "0"
from ouroboros.dev import *
from ouroboros.qos import *
"""


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-bases", leave_out_private)


def add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    """A table of contents is the list of pages on the first one of a folder, which is plain Markdown for other readers."""
    if page in ("index", "spec/index"):
        pages = re.findall(r"\]\(([a-z/-]+)\.md\)", source[0].partition("## Pages")[2])
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", "", *pages, "```", ""])


def leave_out_private(_app: Sphinx, _name: str, _object: type, _options: object, bases: list[type]) -> None:
    """Bases of our own that are no part of the API are not shown."""
    shown = [base for base in bases if not re.search(r"^ouroboros\..*\b_", f"{base.__module__}.{base.__qualname__}")]
    bases[:] = shown or [object]
