"""Networks of nodes in virtual time: the control code and the packet engine of real nodes, and nothing of the system.

A `Network` has nodes, the links between them and the time, which passes when it is told to. All that happens follows from
its seed and the calls: two runs are the same, event by event. Only what is encrypted differs, because its keys come from the
system; then the outcome is the same, and the times are nearly. `docs/testing.md` has an example.
"""

from ouroboros.testing.sim.network import Balance, Network
from ouroboros.testing.sim.node import Node
from ouroboros.testing.sim.program import Asked, Flow, Program

__all__ = ["Asked", "Balance", "Flow", "Network", "Node", "Program"]
