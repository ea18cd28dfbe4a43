"""Virtual time, and what happens next in it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from ouroboros.dataplane import Simulation
from ouroboros.layers.base import Ipcp
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.testing.sim.capture import Capture
from ouroboros.testing.sim.node import Node

#: The wall clock at the start, nanoseconds since 1970.
_WALL = 1_800_000_000 * 10**9
#: Things that are due at one instant, at the most.
_MOST_CALLS = 100_000


def nanoseconds(seconds: float) -> int:
    """The first instant that is not before a time: what waits for the time finds it passed then."""
    instant = math.ceil(seconds * 1e9)
    while instant / 1e9 < seconds:
        instant += 1
    return instant


class Balance(NamedTuple):
    """Where all packets are that were given to ports or to flows within nodes: those of flows, keepalives, those of FRCP,
    words of control. `sent + duplicated = received + queued`, and those dropped, by the reason (`docs/udp.md`).

    `duplicated`: by bad links, or because more than one member of a broadcast layer got them. `queued`: on links, at ports
    and for their flows. A packet of a flow over flows of a layer below is in packets of those, and is not counted again.
    """

    sent: int
    duplicated: int
    received: int
    queued: int
    dropped: dict[str, int]

    @property
    def missing(self) -> int:
        """Packets that are nowhere."""
        return self.sent + self.duplicated - self.received - self.queued - sum(self.dropped.values())


class Network:
    """Nodes, and the time that they have. Times are seconds."""

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.001,
        types: Mapping[str, type[Ipcp]] = IPCP_TYPES,
        log: bool = False,
    ) -> None:
        """`delay`: how long a datagram takes from node to node. `types`: of IPC processes, by the words of the command line.
        `log`: keep all that happens in `self.log`, a line each, for comparisons."""
        self.seed = seed
        self.delay = nanoseconds(delay)
        self.types = types
        self.nodes: list[Node] = []
        self.captures: list[Capture] = []
        #: Addresses by name of host, for layers that ask.
        self.hosts: dict[str, list[str]] = {}
        #: What nodes were told to remember, by their names.
        self.memories: dict[str, dict[str, bytes]] = {}
        self.log: list[str] | None = [] if log else None
        #: Names of nodes between which nothing gets through.
        self._cuts: dict[frozenset[str], None] = {}
        self._simulation = Simulation()
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        #: Nodes that may want to be looked after at another time than before. They are asked when time is about to pass:
        #: some are asked for a hundred flows at one instant.
        self.unplanned: dict[Node, None] = {}
        #: News that nodes heard.
        self.heard = 0

    def add_node(
        self, name: str = "", *, flow_limit: int = 10_239, security: Mapping[str, bytes] | None = None
    ) -> Node:
        """One node more, with an address of its own. One of the name of a node that crashed is that node, started anew: it
        has its memory, and its address. `security`: files of its security directory, by their paths in it."""
        number = len(self.nodes)
        name = name or f"n{number}"
        before = next((node for node in reversed(self.nodes) if node.crashed and node.name == name), None)
        address = str(IPv4Address("10.0.0.1") + number) if before is None else before.address
        node = Node(self, self._simulation.add_node(), address, name, flow_limit=flow_limit, security=security)
        self.nodes.append(node)
        for pair in self._cuts:
            self._sever(pair, on=True)
        return node

    def cut(self, one: Node, other: Node) -> None:
        """Nothing gets from one node to the other any more, either way, also when one of them is started anew. What is on
        its way is lost."""
        pair = frozenset((one.name, other.name))
        self._cuts[pair] = None
        self._sever(pair, on=True)

    def mend(self, one: Node, other: Node) -> None:
        """End the cut. No error when there is none."""
        pair = frozenset((one.name, other.name))
        if pair in self._cuts:
            del self._cuts[pair]
            self._sever(pair, on=False)

    def _sever(self, names: frozenset[str], *, on: bool) -> None:
        engines = [node.engine for node in self.nodes if node.name in names and not node.crashed]
        for one, other in itertools.combinations(engines, 2):
            one.sever(other, on)

    # --- time

    @property
    def now(self) -> float:
        return self._simulation.now / 1e9

    @property
    def wall(self) -> int:
        """Nanoseconds since 1970."""
        return _WALL + self._simulation.now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self._simulation.now + nanoseconds(seconds)
        while self._step(until):
            pass

    def run_until(self, done: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Let time pass until something has come about, so many seconds at the most. Whether it has."""
        until = self._simulation.now + nanoseconds(seconds)
        while not done():
            if not self._step(until):
                return done()
        return True

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call at that time, or now if it has passed. Calls of one time are made in the order of the requests."""
        when = max(nanoseconds(seconds), self._simulation.now)
        heapq.heappush(self._calls, (when, next(self._serial), call))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def _step(self, until: int) -> bool:
        """Let time pass up to the next thing that somebody in Python has to know. False: that is all, and it is `until`."""
        self._plan()
        next_call = self._calls[0][0] if self._calls else until
        now, news = self._simulation.run(min(until, next_call))
        captured = [capture.drain() for capture in self.captures[:]]
        for number, each in news:
            self.heard += sum(len(kind) for kind in each)
            self.nodes[number].hear(each)
        for _ in range(_MOST_CALLS):
            self._plan()
            if not self._calls or self._calls[0][0] > now:
                return bool(news) or any(captured) or now < until
            heapq.heappop(self._calls)[2]()
        raise RuntimeError(f"{_MOST_CALLS} things were due at {now} ns: something waits for a time that does not come")

    def _plan(self) -> None:
        while self.unplanned:
            node = next(iter(self.unplanned))
            del self.unplanned[node]
            node.plan()

    # --- what happened

    def note(self, node: str, text: str) -> None:
        if self.log is not None:
            self.log.append(f"{self._simulation.now} {node} {text}")

    def balance(self) -> Balance:
        """Where all packets are. At any time as many came to be as are somewhere: `Balance.missing` is 0, or the engine has
        a bug."""
        counts, dropped = self._simulation.balance()
        return Balance(**counts, dropped=dropped)

    def counted(self) -> dict[str, int]:
        """Datagrams `sent`, that `arrived`, had no target (`astray`), were `lost` or `duplicated` on links; and how often
        programs and nodes were `woken`. `stuck` is 0, or the engine has a bug."""
        return self._simulation.counted()
