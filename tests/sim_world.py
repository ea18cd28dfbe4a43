"""Two nodes in virtual time with toy layers (`toy.py`) on top of each other, and what happens there. As a program, it prints
the log of a run: `sim_world.py SCENE SEED`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from toy import ToyIpcp

from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.settings import LocalSettings
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.wire.control import BindProcess, ConnectIpcp, CreateName, DestroyIpcp, RegisterName

RELIABLE = QoSSpec(loss=0)
ENCRYPTED = QoSSpec(loss=0, cypher_s=256)
TYPES = {**IPCP_TYPES, "toy": ToyIpcp}


def toy(node: Node, name: str, layer: str, below: int = 0) -> int:
    """A member of a toy layer that can be reached by its name. `below`: where the name is registered."""
    ipcp = node.add_ipcp("toy", layer, name=name)
    node.manage(BindProcess(ipcp, name))
    if below:
        node.manage(RegisterName(name, below))
    return ipcp


@dataclass
class Way:
    """`toys`: near and far members, the lowest first. `below`: what carries the lowest on the far side, 0 for nothing."""

    network: Network
    near: Node
    far: Node
    toys: list[tuple[int, int]]
    below: int

    def offer(self, name: str = "clock") -> None:
        """The far node has the name, in the topmost layer."""
        self.far.manage(CreateName(name, "spillover"))
        self.far.manage(RegisterName(name, self.toys[-1][1]))

    def flow(self, qos: QoSSpec = QOS_RAW, name: str = "clock") -> tuple[Flow, Flow]:
        """The ends of a new flow: of the client, of the server."""
        accepting = self.far.program("server").accept(name)
        client = self.near.program("watch").alloc(name, qos).wait().flow
        return client, accepting.wait().flow


def build(
    depth: int, *, udp: bool, local: bool = False, lower: QoSSpec = QOS_RAW, seed: int = 1, log: bool = False
) -> Way:
    """`udp`: between two nodes. `local`: over an impaired layer. `lower`: of the flows of members to their neighbours."""
    network = Network(seed, types=TYPES, log=log)
    near = network.add_node("near")
    far = network.add_node("far") if udp else near
    lowest = below = 0
    if udp:
        near.over_udp(peers=[f"far1@{far.address}"])
        lowest = below = far.over_udp()
    elif local:
        lowest = below = near.add_ipcp("local", "local", LocalSettings(impair="none"))
    toys: list[tuple[int, int]] = []
    for level in range(1, depth + 1):
        pair = toy(near, f"near{level}", f"toys{level}"), toy(far, f"far{level}", f"toys{level}", below)
        connecting = near.manage(ConnectIpcp(pair[0], "Data Transfer", f"far{level}", lower))
        assert connecting.wait().value is None
        below = pair[1]
        toys.append(pair)
    way = Way(network, near, far, toys, lowest)
    way.offer()
    return way


def _plain(seed: int) -> list[str]:
    """Toys over toys over a bad link, and a layer that ends under them."""
    way = build(2, udp=True, seed=seed, log=True)
    network, near = way.network, way.near
    for node in network.nodes:
        node.impair(f"loss=5%,jitter=3ms,duplicate=5%,seed={seed}")
    flows = [way.flow(qos) for qos in (QOS_RAW, RELIABLE, QoSSpec(ber=0), RELIABLE)]
    for client, server in flows:
        client.source(200, 500, 0.001)
        server.echo()
    network.run(20)
    for client, server in flows[:2]:
        client.dealloc()
        server.dealloc()
    network.run(5)
    near.manage(DestroyIpcp(way.toys[0][0]))
    network.run(200)
    assert network.log is not None
    tallies = [str(end.tally()) for flow in flows[2:] for end in flow]
    return [*network.log, *tallies, str(network.counted())]


def _encrypted(seed: int) -> list[str]:
    """What programs get over encrypted flows, whatever the keys are."""
    way = build(2, udp=True, lower=ENCRYPTED, seed=seed)
    client, server = way.flow(ENCRYPTED)
    client.source(200, 500)
    server.echo()
    way.network.run(60)
    return [str(end.tally()) for end in (client, server)]


SCENES: dict[str, Callable[[int], list[str]]] = {"plain": _plain, "encrypted": _encrypted}

if __name__ == "__main__":
    print("\n".join(SCENES[sys.argv[1]](int(sys.argv[2]))))
