"""Help for testing programs that use flows: a pytest plugin (`plugin.py`) with private nodes and impaired layers.

pytest finds the plugin by itself once the package is installed. `docs/testing.md` shows how a test looks.
"""
