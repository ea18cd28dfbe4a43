"""Unicast layers over several layers, over each other, and over themselves, in virtual time."""

from __future__ import annotations

import pytest
from sim_world import RELIABLE, TYPES
from unicast_world import COMPONENTS

from ouroboros.errors import OuroborosError
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_RAW
from ouroboros.settings import Udp4Config, Udp4Settings
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    ConnectIpcp,
    CreateIpcp,
    DestroyIpcp,
    DisconnectIpcp,
    EnrollIpcp,
    ImpairIpcp,
    KeepAliveIpcp,
    RegisterName,
)

#: Layers over UDP in which both nodes are, by their ports.
NETS = {"net4": 3435, "net6": 3436}
SETTLED = 5.0


class Both:
    """Members `a` and `b` of the layer `campus`, on nodes of their own that are in both layers of `NETS`."""

    def __init__(self, *over: str, keepalive: float = 0.1) -> None:
        self.network = Network(5, types=TYPES)
        self.a, self.b = self.network.add_node("a"), self.network.add_node("b")
        self.below: dict[str, tuple[int, int]] = {}
        for layer, port in NETS.items():
            ends = [(self.a, ()), (self.b, (f"campus@{self.a.address}:{port}",))]
            first, second = (self._udp(node, layer, port, peers) for node, peers in ends)
            self.below[layer] = first, second
        self.first = self.a.add_ipcp("unicast", "campus", name="a")
        self.a.manage(BindProcess(self.first, "campus")).value  # noqa: B018 - or its error
        for ipcp, _ in self.below.values():
            self.a.manage(RegisterName("campus", ipcp)).value  # noqa: B018
        id = self.b.manage(CreateIpcp("b", "unicast")).value
        assert isinstance(id, int)
        self.second = id
        self.b.manage(KeepAliveIpcp(self.second, keepalive)).value  # noqa: B018
        self.b.manage(EnrollIpcp(self.second, "campus", True, over=over)).wait().value  # noqa: B018
        for layer in over or ("",):
            self.connect(layer)
        self.network.run(SETTLED)

    def _udp(self, node: Node, layer: str, port: int, peers: tuple[str, ...]) -> int:
        return node.add_ipcp("udp4", layer, Udp4Settings(udp4=Udp4Config(node.address, port=port, peers=peers)))

    def connect(self, over: str = "", name: str = "campus") -> None:
        for component in COMPONENTS:
            self.b.manage(ConnectIpcp(self.second, component, name, QOS_RAW, over)).wait().value  # noqa: B018

    def impair(self, layer: str, words: str) -> None:
        for node, ipcp in zip((self.a, self.b), self.below[layer], strict=True):
            node.manage(ImpairIpcp(ipcp, words)).value  # noqa: B018

    @property
    def member(self) -> UnicastIpcp:
        ipcp = self.b.irm.ipcps[self.second]
        assert isinstance(ipcp, UnicastIpcp)
        return ipcp

    def shown(self) -> list[tuple[str, str, str]]:
        """Component, layer below and state of each connection of `b`."""
        entries = self.member.details().connections
        return sorted((each.component, each.over, each.state) for each in entries)

    def flow(self) -> tuple[Flow, Flow]:
        self.a.offer("clock", self.first)
        self.network.run(SETTLED)
        accepting = self.a.program("server").accept("clock")
        client = self.b.program("client").alloc("clock", RELIABLE).wait().flow
        return client, accepting.wait().flow


def everywhere(state: str = "up", **others: str) -> list[tuple[str, str, str]]:
    """What `shown` says when there is a connection over each layer. `others`: of data transfer, by layer."""
    rows = [("Management", layer, "up") for layer in NETS]
    return sorted(rows + [("Data Transfer", layer, others.get(layer, state)) for layer in NETS])


def test_a_member_is_connected_over_each_layer_that_is_said() -> None:
    both = Both("net4", "net6")
    assert both.shown() == everywhere()
    assert len(both.member.link_state.members()) == 1
    # Once more changes nothing.
    for layer in ("net6", ""):
        both.connect(layer)
    assert both.shown() == everywhere()


def test_without_a_word_one_layer_carries_the_connections() -> None:
    both = Both()
    assert both.shown() == [("Data Transfer", "net4", "up"), ("Management", "net4", "up")]
    both.connect("net6")
    assert both.shown() == everywhere()


@pytest.mark.parametrize("cut", NETS)
def test_a_flow_goes_on_over_the_other_layer_when_one_is_cut(cut: str) -> None:
    both = Both("net4", "net6")
    client, server = both.flow()
    for packet in (b"before", b"while it is cut", b"when that is known", b"after"):
        if packet == b"while it is cut":
            both.impair(cut, "partition")
        elif packet == b"when that is known":
            both.network.run(1.0)
            assert both.shown() == everywhere(**{cut: "silent"})
        elif packet == b"after":
            both.impair(cut, "none")
            both.network.run(1.0)
            assert both.shown() == everywhere()
        client.write(packet)
        assert server.read(2.0) == packet
        server.write(packet)
        assert client.read(2.0) == packet
        # The neighbour never was away: another link to it was there.
        assert both.member.core.counters["links_held_down"] == 0


def test_a_connection_over_a_layer_that_ended_is_made_again_there() -> None:
    both = Both("net4", "net6")
    both.a.manage(DestroyIpcp(both.below["net6"][0])).wait().value  # noqa: B018
    both.network.run(60.0)
    left = [row for row in everywhere() if row[1] == "net4"]
    missing = [(component, "net6", "missing") for component in COMPONENTS]
    assert both.shown() == sorted(left + missing)
    again = both._udp(both.a, "net6", NETS["net6"], ())
    both.a.manage(RegisterName("campus", again)).value  # noqa: B018
    both.network.run(60.0)
    assert both.shown() == everywhere()


def test_who_disconnects_ends_the_connections_over_all_layers() -> None:
    both = Both("net4", "net6")
    both.impair("net6", "partition")
    both.network.run(60.0)
    for component in reversed(COMPONENTS):
        both.b.manage(DisconnectIpcp(both.second, component, "campus")).wait().value  # noqa: B018
    both.impair("net6", "none")
    both.network.run(120.0)
    assert both.shown() == []
    assert both.member.connected() == []


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ("net5", "no flow to 'campus' over layer 'net5': this node is not in it, but in 'campus', 'net4', 'net6'"),
        ("", "'' is empty"),
        ("x" * 300, "layer to connect over"),
    ],
)
def test_a_layer_that_cannot_carry_it_is_an_error(over: str, why: str) -> None:
    both = Both("net4")
    if over:
        with pytest.raises(OuroborosError, match=why):
            both.connect(over)
    id = both.b.manage(CreateIpcp("c", "unicast")).value
    assert isinstance(id, int)
    with pytest.raises(OuroborosError, match=why if over == "net5" else "layer to enroll over"):
        both.b.manage(EnrollIpcp(id, "campus", over=(over,))).wait().value  # noqa: B018
    assert both.shown() == [("Data Transfer", "net4", "up"), ("Management", "net4", "up")]
