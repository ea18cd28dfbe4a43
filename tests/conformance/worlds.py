"""The ways in which two programs can be connected. Each runs the whole suite of flows; a new one is one more entry.

A world may lack something by nature (`PROPERTIES`). A test that needs it says so, `@pytest.mark.needs("back-pressure")`, and
does not run there. In everything else worlds must not differ.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import c_support
from support import Shell, udp_settings, until
from toy_nodes import ToyNode, over_two_ports, over_udp, within_a_node
from udp_nodes import FAR, NEAR, free_port
from unicast_nodes import over_hops, over_ranks

from ouroboros import irm
from ouroboros.dev import MAX_PACKET, Flow, QoSSpec
from ouroboros.qos import QOS_DATA, QOS_RAW
from ouroboros.runtime import client
from ouroboros.settings import LocalSettings
from ouroboros.testing.node import Node, ProcessNode
from ouroboros.wire.control import BootstrapIpcp, CreateIpcp, CreateName, RegisterName

#: What a test may need that not every world has.
PROPERTIES = {
    "back-pressure": "a writer waits, or is told, when the peer does not read; elsewhere packets are lost then",
    "instant": "what one end did has happened at the other when the call returns; elsewhere it may be on its way",
    "long": "packets without FRCT can be longer than a datagram",
    "shared-flags": "the flags that one end sets bind the other end, too",
    "cause": "a reader is told whether the peer deallocated the flow or only set it down, also if nobody watched the flow",
    "death": "a peer that is killed is told of at once; elsewhere it is when it has been silent for long",
    "encryption": "a flow can be asked for encryption",
    "checks": "each packet can be checked for bit errors, and what a flow has of that is told",
    "room": "a flow has room of its own, for less than `TOO_MUCH` bytes; elsewhere all flows of a host share theirs",
    "endless": "a flow can be without a timeout; elsewhere a peer gives it ten minutes",
    "promises": "flows in order and without loss can be had",
    "lossless": "a flow without promises loses nothing that its reader has room for; elsewhere it does when a node does not"
    " run for a while, as what waits on the way is bounded in packets and time. A test that is marked `lossless` gets a"
    " flow with promises there",
}


@dataclass
class Pair:
    """`near` is a flow of the test, and `far` the program at the other end, which calls its flow `f`. `qos`: what was asked
    for."""

    near: Flow
    far: Shell
    qos: QoSSpec


@dataclass(frozen=True)
class World:
    """A way to be connected."""

    name: str
    #: Makes the name known, so that a flow to it goes this way; returns the environment that the far program needs. Is told
    #: whether the test's end is the one that allocates, and how to get another node.
    offer: Callable[[str, bool, Callable[[], Node]], dict[str, str]]
    lacks: frozenset[str] = frozenset()
    #: What a flow asks for when the test does not say. Its `cypher_s` is the least that every flow asks for.
    qos: QoSSpec = QOS_RAW
    #: What the test's end does to get the flow, each in a run of its own.
    sides: tuple[str, ...] = ("allocating", "accepting")
    #: What both programs have in their environment.
    environment: Callable[[], dict[str, str]] = dict
    #: Why it cannot be had here, if so.
    absent: Callable[[], str | None] = lambda: None
    #: Whether it runs every case of a test; else the first, unless `EVERY_CASE` is set.
    thorough: bool = True
    #: Whether it shares those out with the others of which that is so: each case is run by `SHARERS` of them.
    shares: bool = False
    #: Whether the programs need a node of ours.
    needs_node: bool = True
    #: What its nodes are.
    node: type[ProcessNode] = ProcessNode

    def lack(self, needed: Iterable[str], qos: QoSSpec | None = None) -> str | None:
        """What keeps a test with such needs, or a flow of that QoS, from this world."""
        if (absent := self.absent()) is not None:
            return f"{self.name}: {absent}"
        if qos is not None and (qos.reliable or qos.ordered):
            needed = [*needed, "promises"]
        if qos is not None and qos.cypher_s:
            needed = [*needed, "encryption"]
        missing = sorted(self.lacks.intersection(needed))
        return f"{self.name}: {', '.join(missing)}" if missing else None


def arrived(end: Flow | Shell, packets: int) -> None:
    """Wait until so many packets can be read: in some worlds they are still on their way when a write returns.

    `end`: the flow, or the far program that has it.
    """
    if isinstance(end, Flow):
        until(lambda: end.get_rx_queue_len() == packets)
    else:
        until(lambda: end.do("f.get_rx_queue_len()") == packets)


def _direct(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    client.request(CreateName(name, "spillover"))
    return {}


def _relayed(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    ipcp = client.request(CreateIpcp("relay", "local"))
    client.request(BootstrapIpcp(ipcp, "relay", LocalSettings(impair="none")))
    client.request(CreateName(name, "spillover"))
    client.request(RegisterName(name, ipcp))
    return {}


def _udp(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    far, port = another(), free_port()

    def join(host: str, peers: list[str]) -> None:
        ipcp = client.request(CreateIpcp("net", "udp4"))
        client.request(BootstrapIpcp(ipcp, "net", udp_settings(host, port, peers)))
        if not peers:
            client.request(CreateName(name, "spillover"))
            client.request(RegisterName(name, ipcp))

    join(NEAR, [f"{name}@{FAR}"] if allocating else [])
    with far.use():
        join(FAR, [] if allocating else [f"{name}@{NEAR}"])
    return {"OUROBOROS_RUNTIME_DIR": str(far.directory)}


@cache
def _installed() -> Path:
    """Our C libraries, as `ouroboros cdev` installs them."""
    prefix = Path(tempfile.mkdtemp(prefix="o-cdev-"))
    atexit.register(shutil.rmtree, prefix)
    c_support.install(prefix)
    return prefix / "lib"


def _over_c() -> dict[str, str]:
    return {"OUROBOROS_BACKEND": "native", "OUROBOROS_LIBDIR": str(_installed())}


#: Set to have every case in every world.
EVERY_CASE = "OUROBOROS_CONFORMANCE_ALL"
SHARERS = 2

#: Set on a host of the C prototype: the directory of its libraries (`interop/test_native.py`).
PROTOTYPE = "OUROBOROS_CONFORMANCE_OVER"


def _over_prototype() -> dict[str, str]:
    return {"OUROBOROS_BACKEND": "native", "OUROBOROS_LIBDIR": os.environ[PROTOTYPE]}


def _at_prototype(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    irm.create_name(irm.NameInfo(name, irm.LoadBalancePolicy.SPILL))
    return {}


_LIKE_UDP = frozenset(["instant", "long", "shared-flags"])
_BOUNDED = _LIKE_UDP | {"endless"}
#: With queues of members on the way.
_OVER_HOPS = _BOUNDED | {"lossless"}

_WORLDS = [
    # Two programs of one node, with nothing between them but a ring.
    World("local", _direct),
    # ... and they encrypt what is in it.
    World("encrypted", _direct, qos=QoSSpec(cypher_s=256)),
    # ... with the relay of an impaired layer between them, which is set to do no harm. It is the same for both
    # sides, so one is enough.
    World("relayed", _relayed, frozenset(["back-pressure", "instant"]), sides=("allocating",)),
    # Programs of two nodes, with a layer over UDP between them. One side only, because the suite is long.
    World("udp", _udp, _BOUNDED, sides=("allocating",)),
    # ... and flows lose nothing there.
    World("reliable", _udp, _BOUNDED - {"long"}, qos=QOS_DATA, sides=("allocating",)),
    # Two programs of one node, over our C libraries, by `ouroboros.native`, instead of the engine.
    World(
        "native",
        _direct,
        frozenset(["instant", "cause", "encryption"]),
        sides=("allocating",),
        environment=_over_c,
        absent=c_support.not_built,
        thorough=False,
    ),
    # Unicast layers over UDP, with a member in between, or two and flows that lose nothing, or are encrypted.
    World("unicast", over_hops(2), _OVER_HOPS, sides=("allocating",)),
    *(
        World(name, over_hops(3), lacks, qos=qos, sides=("allocating",), thorough=False, shares=True)
        for name, lacks, qos in [
            ("reliable over hops", _BOUNDED - {"long"}, QOS_DATA),
            ("encrypted over hops", _OVER_HOPS, QoSSpec(cypher_s=256)),
        ]
    ),
    # ... and over another unicast layer.
    World("two ranks", over_ranks, _BOUNDED, sides=("allocating",), thorough=False, shares=True),
    # Layers over layers (`toy.py`): over flows with nothing between their ends, over UDP, three on top of each other.
    World(
        "toy over local", within_a_node(1), _OVER_HOPS, sides=("allocating",), node=ToyNode, thorough=False, shares=True
    ),
    World("toy over udp", over_udp(1), _OVER_HOPS, sides=("allocating",), node=ToyNode, thorough=False, shares=True),
    World("toy three deep", over_udp(3), _OVER_HOPS, sides=("allocating",), node=ToyNode),
    # ... with flows above, or below, that lose nothing, or are encrypted.
    *(
        World(name, over_udp(3), lacks, qos=qos, sides=("allocating",), node=ToyNode, thorough=False, shares=True)
        for name, qos, lacks in [
            ("reliable over toys", QOS_DATA, _BOUNDED - {"long"}),
            ("encrypted over toys", QoSSpec(cypher_s=256), _OVER_HOPS),
        ]
    ),
    *(
        World(name, over_udp(2, lower), _OVER_HOPS, sides=("allocating",), node=ToyNode, thorough=False, shares=True)
        for name, lower in [("toy over reliable", QOS_DATA), ("toy over encrypted", QoSSpec(cypher_s=256))]
    ),
    # ... with neighbours over two ports.
    World(
        "toy over two ports",
        over_two_ports,
        _OVER_HOPS,
        sides=("allocating",),
        node=ToyNode,
        thorough=False,
        shares=True,
    ),
]

#: A host of the C prototype, with no node of ours. It is a world of its own, which only exists there.
_PROTOTYPE = World(
    "prototype",
    _at_prototype,
    frozenset(["instant", "cause", "death", "encryption", "checks", "room", "promises"]),
    sides=("allocating",),
    environment=_over_prototype,
    needs_node=False,
)

WORLDS = [_PROTOTYPE] if PROTOTYPE in os.environ else _WORLDS

#: What fits into a packet of any flow on one machine, bytes: encryption takes the rest.
LONGEST = 1_048_260 if PROTOTYPE in os.environ else MAX_PACKET - 28
#: Bytes that no flow with room of its own has room for: not the rings of both ends together with what FRCP keeps between.
TOO_MUCH = 16 * LONGEST
