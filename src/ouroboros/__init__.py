"""Ouroboros: flows to names, with a quality of service. Start with `ouroboros.dev`."""

__version__ = "0.1.0"
