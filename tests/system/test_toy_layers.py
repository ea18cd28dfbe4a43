"""Layers over layers on real nodes (`toy.py`): what ends below ends above, and every program is told.

What flows over them can do is in the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from support import Background, flows_of_node, logged_no_bug, until
from toy_nodes import ToyNode, over_two_ports, over_udp

from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowDownException, FlowNameException, FlowPeerException
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.runtime import client
from ouroboros.testing.node import Node
from ouroboros.wire.control import ConnectIpcp, DestroyIpcp, DisconnectIpcp, ImpairIpcp, IpcpEntry, ListIpcps


@dataclass
class Tower:
    """Two nodes with toy layers between them, and `clock` in the highest at the far one."""

    near: ToyNode
    far: ToyNode

    def flow(self, qos: QoSSpec = QOS_RAW, name: str = "clock") -> tuple[Flow, Flow]:
        with self.far.use():
            accepting = Background.waiting_for_node(lambda: flow_accept(name=name))
        with self.near.use():
            near = flow_alloc(name, qos)
        return near, accepting.result()

    def member(self, node: ToyNode, name: str) -> int:
        with node.use():
            entries: list[IpcpEntry] = client.request(ListIpcps())
        return next(entry.id for entry in entries if entry.name == name)

    def impair(self, name: str, text: str) -> None:
        """Let this happen to all that either node sends by a layer over UDP."""
        for node in (self.near, self.far):
            id = self.member(node, name)
            with node.use():
                client.request(ImpairIpcp(id, text))

    def destroy(self, node: ToyNode, name: str) -> None:
        id = self.member(node, name)
        with node.use():
            client.request(DestroyIpcp(id))


@contextmanager
def built(offer: Callable[[str, bool, Callable[[], Node]], dict[str, str]]) -> Iterator[Tower]:
    """`offer`: of `toy_nodes`."""
    nodes: list[ToyNode] = []

    def another() -> ToyNode:
        nodes.append(ToyNode(Path(__file__).parent))
        return nodes[-1]

    near = another()
    try:
        with near.use():
            offer("clock", True, another)
        yield Tower(near, nodes[1])
    finally:
        for node in nodes:
            node.stop()
            log = node.log()
            node.clean_up()
            print(log)
            assert logged_no_bug(log)


@pytest.fixture
def tower() -> Iterator[Tower]:
    """Three layers on top of each other."""
    with built(over_udp(3)) as tower:
        yield tower


@pytest.mark.slow
@pytest.mark.parametrize("qos", [QOS_RAW, QOS_DATA, QoSSpec(cypher_s=256)], ids=["raw", "reliable", "encrypted"])
@pytest.mark.parametrize(("side", "name"), [("far", "udp"), ("near", "udp"), ("far", "far1"), ("near", "near2")])
def test_what_is_destroyed_takes_all_above_along(tower: Tower, side: str, name: str, qos: QoSSpec) -> None:
    near, far = tower.flow(qos)
    with near, far:
        near.write(b"tick")
        assert far.read() == b"tick"
        tower.destroy(tower.near if side == "near" else tower.far, name)
        for flow in (near, far):
            with pytest.raises(FlowDownException):
                flow.read()
    level = 1 if name == "udp" else int(name[-1])
    for node in (tower.near, tower.far):
        with node.use():
            # Those of the layers below go on, but not that of the last one that is destroyed.
            until(lambda: len(flows_of_node()) == level - 1)


@pytest.mark.slow
@pytest.mark.parametrize("qos", [QOS_RAW, QOS_DATA], ids=["raw", "reliable"])
def test_a_node_that_is_killed_is_missed_at_the_top(tower: Tower, qos: QoSSpec) -> None:
    near, far = tower.flow(msgspec.structs.replace(qos, timeout=1500))
    tower.far.kill()
    with near, pytest.raises(FlowPeerException):
        near.read()
    with far, pytest.raises(FlowDownException):
        far.read()


@pytest.mark.slow
def test_a_neighbour_that_comes_again_carries_flows_again(tower: Tower) -> None:
    id = tower.member(tower.near, "near2")
    with tower.near.use():
        client.request(DisconnectIpcp(id, "Data Transfer", "far2"))
        third = tower.member(tower.near, "near3")
        with pytest.raises(FlowNameException):
            flow_alloc("clock")
        client.request(ConnectIpcp(id, "Data Transfer", "far2", QOS_RAW))
        client.request(ConnectIpcp(third, "Data Transfer", "far3", QOS_RAW))
    near, far = tower.flow(QOS_DATA)
    with near, far:
        far.write(b"tock")
        assert near.read() == b"tock"


@pytest.mark.slow
def test_a_blocked_port_holds_only_what_goes_over_it() -> None:
    with built(over_two_ports) as tower:
        held, there = tower.flow(QOS_DATA, "clock over the first port")
        near, far = tower.flow(QOS_DATA)
        with held, there, near, far:
            held.write(b"one")
            assert there.read() == b"one"
            tower.impair("udp-first", "partition")
            for number in range(200):
                held.write(b"%d" % number)
                near.write(b"%d" % number)
                assert far.read() == b"%d" % number
                far.write(b"answer")
                assert near.read() == b"answer"
            assert there.get_rx_queue_len() == 0
            tower.impair("udp-first", "none")
            assert [there.read() for _ in range(200)] == [b"%d" % number for number in range(200)]
