"""Flows on an Ethernet segment between our node and the C prototype as it is."""

from __future__ import annotations

import re

import pytest
from interop.conftest import World
from interop.hosts import Command
from support import Background

from ouroboros.dev import flow_accept, flow_alloc
from ouroboros.errors import FlowNameException, FlowSizeException
from ouroboros.qos import QoSSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

#: Largest packet of a raw flow, with an MTU of 1500.
LARGEST = {"eth-dix": 1496, "eth-llc": 1497}


@pytest.fixture(params=sorted(LARGEST))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def received(ping: Command) -> tuple[int, int]:
    """How many packets a run of `oping` sent and how many replies it got."""
    said = "\n".join(ping.finish())
    match = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert match, said
    return int(match[1]), int(match[2])


@pytest.mark.parametrize("size", [64, 1400])
def test_our_oping_with_their_server(stock: World, size: int) -> None:
    stock.theirs.serve("oping")
    ping = stock.ours.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-s", str(size))
    assert received(ping) == (20, 20)


@pytest.mark.parametrize("size", [64, 1400])
def test_their_oping_with_our_server(stock: World, size: int) -> None:
    stock.ours.serve("oping")
    ping = stock.theirs.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-s", str(size))
    assert received(ping) == (20, 20)


def test_flows_in_order(stock: World) -> None:
    """A few packets with pauses: more of them the prototype does not bear."""
    stock.theirs.serve("oping")
    assert received(stock.ours.run("oping", "-n", "oping", "-q", "best", "-c", "3", "-i", "200")) == (3, 3)


def test_their_flows_in_order(stock: World) -> None:
    """Their client gives some up by itself (`shims.md` 10), also with a server of its own kind."""
    stock.ours.serve("oping")
    sent, got = received(stock.theirs.run("oping", "-n", "oping", "-q", "best", "-c", "3", "-i", "200"))
    assert sent == 3
    assert got >= 1


def test_the_longest_packet_arrives_whole_both_ways(stock: World) -> None:
    longest = LARGEST[stock.family]
    receiver = stock.theirs.program("theirs")
    receiver.begin("accept", 20)
    with flow_alloc("theirs", QoSSpec(loss=1, in_order=0), timeo=20) as flow:
        accepted, _ = receiver.answer()
        receiver.begin("echo", accepted, 1)
        packet = bytes(range(256)) * 5 + bytes(longest - 1280)
        with pytest.raises(FlowSizeException):
            flow.write(bytes(longest + 1))
        flow.write(packet)
        assert flow.read() == packet
        assert receiver.answer() == [1, 0]


def test_a_name_is_found_only_where_it_is_registered(stock: World) -> None:
    with pytest.raises(FlowNameException, match="no station on the segment has it"):
        flow_alloc("theirs", timeo=20)
    stock.ours.irm("name", "create", "ours")
    said = stock.theirs.run("oping", "-n", "ours", "-c", "1").finish()
    assert "Failed to allocate flow: -1003" in "\n".join(said)


def test_their_flow_is_accepted_by_name(stock: World) -> None:
    stock.ours.offer("ours")
    accepting = Background.waiting_for_node(lambda: flow_accept(name="ours", timeo=30))
    sender = stock.theirs.program()
    spec = {"delay": 1000, "loss": 1, "ber": 1, "in_order": 0, "max_gap": 1000, "timeout": 120_000}
    their_end = sender.do("alloc", "ours", spec, 20)
    assert their_end >= 0
    with accepting.result() as flow:
        assert flow.name == "ours"
        assert sender.do("write", their_end, b"hello".hex()) == 5
        assert flow.read() == b"hello"
        flow.write(b"welcome")
        assert sender.do("read", their_end) == b"welcome".hex()
