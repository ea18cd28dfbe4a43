"""The laboratory: a network in one line, as processes, in namespaces, or in virtual time, with the same code.

>>> from ouroboros.lab import Lab
>>> with Lab("a - b - c", clock="virtual") as lab:
...     print(lab.a.ping(lab.c))
...     lab.link("a", "b").cut()
a to c: 4 ms, 2 hops: a - b - c

`docs/lab.md` has the rest.
"""

from ouroboros.lab.description import Certificate, Description, Event, Expectation, Layer, Link, Node, Policy, Program
from ouroboros.lab.errors import DescriptionError, LabError, UnavailableError
from ouroboros.lab.grammar import describe
from ouroboros.lab.lab import Here, Lab, LabLink, LabNode
from ouroboros.lab.probe import Ping, Rank, Trace

__all__ = [
    "Certificate",
    "Description",
    "DescriptionError",
    "Event",
    "Expectation",
    "Here",
    "Lab",
    "LabError",
    "LabLink",
    "LabNode",
    "Layer",
    "Link",
    "Node",
    "Ping",
    "Policy",
    "Program",
    "Rank",
    "Trace",
    "UnavailableError",
    "describe",
]
