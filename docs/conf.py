"""Sphinx configuration. `make docs` builds with every warning an error and runs the examples."""

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
