"""What a node tells its engine of a unicast layer, and what it hears: three nodes in a row, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from ouroboros.dataplane import Simulation
from ouroboros.layers.effects import (
    Attach,
    CloseMember,
    Effect,
    HandOver,
    Listen,
    Member,
    OpenPort,
    OpenTransfer,
    RemoteEnd,
    Reserve,
    Route,
    SendMessage,
    SendPdu,
    SetAddress,
    TakeBack,
    UnicastEnd,
)
from ouroboros.layers.face import Size
from ouroboros.oap import Session
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.testing.sim.machine import VirtualMachine
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension

UDP, NET = 1, 2
#: What UDP carries over the Ethernet of these nodes in one piece.
WHOLE = 1500 - 28 - 4
LINE = (1, 2, 3)


class Machine(VirtualMachine):
    """One without names of hosts, in a simulation of engines alone."""

    def __init__(self, simulation: Simulation) -> None:
        network: Any = SimpleNamespace(seed=1, delay=1_000_000)
        super().__init__(network, simulation.add_node(), "test")
        self.engine, self._simulation = self._engine, simulation

    def now(self) -> float:
        return self._simulation.now / 1e9


class Hop:
    """One node, and what its IRM was told."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.number, self.irm, self.machine = number, Mock(), Machine(simulation)
        self.runtime = EngineRuntime(self.irm, lambda: None, self.machine)
        self.runtime.open_port(OpenPort(UDP, "udp4", f"10.0.0.{number}", 3435))
        self.do(OpenTransfer(NET, number, 60, False))
        self.flows = 0

    def do(self, effect: Effect) -> None:
        self.runtime.handlers[type(effect)](effect)

    def attach(self, end: RemoteEnd, user: int | Member, side: int = 0) -> Size:
        """Its flows have numbers from 1."""
        self.flows += 1
        return self.runtime.flows.attach(Attach(self.flows, "x", user, side, end), (-1, -1, 0))

    def lower(self, peer: int, fd: int) -> Size:
        """A flow to the node with that number, for control."""
        eids = {"eid": 10 * self.number + peer, "peer_eid": 10 * peer + self.number}
        address = (f"10.0.0.{peer}", 3435)
        end = RemoteEnd(ipcp=UDP, qos=QOS_RAW, session=Session(), address=address, extension=None, **eids)
        return self.attach(end, Member(NET, fd))

    def flow(self, peer: int, qos: QoSSpec, *, eids: tuple[int, int], **told: Any) -> tuple[int, Size]:
        """A flow of a program over the layer, by its number in the engine."""
        told = {"extension": None, **told}
        end = UnicastEnd(ipcp=NET, qos=qos, session=Session(), address=peer, eid=eids[0], peer_eid=eids[1], **told)
        size = self.attach(end, 7)
        number = self.runtime.flows.number(self.flows, 0)
        assert number is not None
        return number, size

    def told(self, verb: str) -> list[tuple[Any, ...]]:
        """What the IRM was told, without the time."""
        return [call.args[:-1] for call in getattr(self.irm, verb).call_args_list]


class Line:
    """Nodes 1, 2 and 3, each with a flow `fd` to its neighbours: 11 to the one before, 12 to the next."""

    def __init__(self) -> None:
        self.simulation = Simulation()
        self.hops = {number: Hop(self.simulation, number) for number in LINE}
        for number, hop in self.hops.items():
            for peer, fd in ((number - 1, 11), (number + 1, 12)):
                if peer in LINE:
                    assert hop.lower(peer, fd) == Size(8976, WHOLE)

    def connect(self) -> None:
        for number, hop in self.hops.items():
            for peer, fd in ((number - 1, 11), (number + 1, 12)):
                if peer in LINE:
                    hop.do(HandOver(NET, fd, peer, True))
            ways: dict[int, tuple[int, ...]]
            ways = {to: (number + 1,) if to > number else (number - 1,) for to in LINE if to != number}
            hop.do(Route(NET, ways, False))

    def run(self, until: int = 100_000_000) -> None:
        until += self.simulation.now
        while True:
            now, news = self.simulation.run(until)
            for place, each in news:
                self.hops[1 + place].runtime.heard(each)
            if now >= until and not news:
                return


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    for hop in line.hops.values():
        hop.do(CloseMember(NET))


def test_the_first_packet_of_a_lower_flow_is_told_and_the_next_wait(line: Line) -> None:
    for word in (b"who are you", b"first", b"second"):
        line.hops[1].do(SendMessage(NET, 12, word))
    line.run()
    assert line.hops[2].told("message") == [(NET, 11, b"who are you")]
    line.hops[2].do(Listen(NET, 11))
    line.hops[1].do(SendMessage(NET, 12, b"third"))
    line.run()
    assert line.hops[2].told("message")[1:] == [(NET, 11, word) for word in (b"first", b"second", b"third")]


def test_components_hear_one_another_over_a_node_between(line: Line) -> None:
    line.connect()
    line.hops[1].do(SendPdu(NET, 3, 1, b"where is it"))
    line.hops[3].do(SendPdu(NET, 3, 0, b"to myself"))
    line.run()
    assert line.hops[3].told("heard") == [(NET, 0, b"to myself", 0), (NET, 1, b"where is it", 11)]
    assert line.hops[2].told("heard") == []
    line.hops[3].do(SetAddress(NET, 2**32 - 1, 60, False))
    line.hops[3].do(SendPdu(NET, 2**32 - 1, 0, b"to myself again"))
    line.run()
    assert line.hops[3].told("heard")[2:] == [(NET, 0, b"to myself again", 0)]


EXTENSION = Extension(extension.SACK | extension.FRAGMENTS | extension.CREDIT, 9000, 4096, bytes(16))


@pytest.mark.parametrize("qos", [QOS_RAW, QoSSpec(in_order=1, loss=0)], ids=["raw", "reliable"])
@pytest.mark.parametrize("peer", [EXTENSION, None], ids=["ours", "prototype"])
def test_programs_exchange_packets_over_a_node_between(line: Line, qos: QoSSpec, peer: Extension | None) -> None:
    line.connect()
    near, size = line.hops[1].flow(3, qos, eids=(2**63 + 1, 2**44 + 64), extension=peer)
    assert size.whole == WHOLE - 15 - (12 if qos.in_order else 0)
    far, _ = line.hops[3].flow(1, qos, eids=(2**44 + 64, 2**63 + 1), extension=peer)
    line.hops[1].machine.engine.source(near, 20, 1000, 0)
    line.hops[3].machine.engine.echo(far)
    line.run(1_000_000_000)
    tally = line.hops[1].machine.engine.tally(near)
    assert (tally["written"], tally["read"], tally["disordered"]) == (20, 20, 0)
    line.hops[2].runtime.count()
    counters = {call.args[0]: call.args[1] for call in line.hops[2].irm.counted.call_args_list}
    assert counters[NET]["forwarded"] >= 40
    assert "forwarded" not in counters[UDP]


def test_packets_for_a_flow_that_comes_are_kept(line: Line) -> None:
    line.connect()
    near, _ = line.hops[1].flow(3, QOS_RAW, eids=(100, 200))
    line.hops[3].do(Reserve(NET, 200, 1))
    line.hops[1].machine.engine.source(near, 3, 10, 0)
    line.run()
    far, _ = line.hops[3].flow(1, QOS_RAW, eids=(200, 100))
    line.hops[3].machine.engine.sink(far)
    line.run()
    assert line.hops[3].machine.engine.tally(far)["read"] == 3


def test_a_flow_is_as_thin_as_the_thinnest_lower_flow_and_none_without_one(line: Line) -> None:
    with pytest.raises(OSError, match="has no neighbours"):
        line.hops[2].flow(1, QOS_RAW, eids=(100, 200))
    line.connect()
    assert line.hops[2].flow(1, QOS_RAW, eids=(101, 200))[1] == Size(8976 - 15, WHOLE - 15)
    line.hops[2].do(TakeBack(NET, 11))
    line.hops[2].do(TakeBack(NET, 12))
    with pytest.raises(OSError, match="has no neighbours"):
        line.hops[2].flow(1, QOS_RAW, eids=(102, 200))


def test_what_is_told_of_a_layer_that_is_gone_does_nothing(line: Line) -> None:
    line.connect()
    hop = line.hops[2]
    hop.do(CloseMember(NET))
    for effect in (
        SetAddress(NET, 9, 60, False), Listen(NET, 11), HandOver(NET, 11, 1, True), TakeBack(NET, 11), Route(NET, {}, False),
        SendMessage(NET, 11, b"x"), SendPdu(NET, 1, 0, b"x"),
    ):  # fmt: skip
        hop.do(effect)
    line.hops[1].do(SendPdu(NET, 3, 1, b"lost"))
    line.run()
    assert line.hops[3].told("heard") == []
