"""Nodes in virtual time, one of which has a broadcast layer that programs of another join."""

from __future__ import annotations

from unicast_world import Layer

from ouroboros.settings import EthConfig, EthDixSettings
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.wire.control import BindProcess, IpcpEntry, ListIpcps, RegisterName


def make_hall(node: Node, below: int, layer: str = "chat") -> int:
    """The node has the first member of a broadcast layer, which is known by the name of the layer and its own."""
    id = node.add_ipcp("broadcast", layer, name="b0")
    for name in ("b0", layer):
        node.manage(BindProcess(id, name)).value  # noqa: B018 - or its error
        node.manage(RegisterName(name, below)).value  # noqa: B018
    return id


def over_udp(network: Network) -> tuple[Node, Node]:
    """A node with a hall, and one that knows where that is."""
    hub = network.add_node("hub")
    make_hall(hub, hub.over_udp())
    near = network.add_node("near")
    near.over_udp(peers=[f"chat@{hub.address}", f"b0@{hub.address}"])
    return hub, near


def over_ethernet() -> tuple[Network, Node, Node]:
    network = Network(1)
    hub, near = network.add_node("hub"), network.add_node("near")
    segment = EthDixSettings(eth=EthConfig("eth0"))
    make_hall(hub, hub.add_ipcp("eth-dix", "segment", segment))
    near.add_ipcp("eth-dix", "segment", segment)
    return network, hub, near


def over_unicast() -> tuple[Network, Node, Node]:
    campus = Layer([(0, 1), (1, 2)])
    campus.converge()
    make_hall(campus.nodes[0], campus.ids[0])
    campus.network.run(2)
    return campus.network, campus.nodes[0], campus.nodes[2]


def world(seed: int = 1) -> tuple[Network, Node, Node]:
    network = Network(seed)
    return (network, *over_udp(network))


def members(node: Node) -> list[IpcpEntry]:
    entries = node.manage(ListIpcps()).value
    assert isinstance(entries, list)
    return [each for each in entries if each.type == "broadcast"]


def talk(network: Network, *flows: Flow) -> None:
    """What each says, the others get once."""
    for number, flow in enumerate(flows):
        flow.write(b"%d" % number)
    network.run(1)
    for number, flow in enumerate(flows):
        assert sorted(iter(flow.poll, None)) == sorted(b"%d" % each for each in range(len(flows)) if each != number)
