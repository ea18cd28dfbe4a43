"""Broadcast layers of several real nodes: hosts are nodes with runtime directories and loopback addresses of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import logged_no_bug, until
from udp_nodes import free_port

from ouroboros import aio, cli, irm
from ouroboros.dev import Flow, FlowProperties, flow_join
from ouroboros.errors import (
    FlowNameException,
    FlowTimeoutException,
    FlowWouldBlockException,
    IpcpEnrollError,
)
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.testing.node import ProcessNode

pytestmark = pytest.mark.slow


class Hosts:
    """Nodes with a layer over UDP, in which each finds the members b0, b1, ... of the others."""

    def __init__(self) -> None:
        self.nodes: list[ProcessNode] = []
        self.flows: list[Flow] = []
        self.port = free_port()

    def add(self, peers: int = 3) -> ProcessNode:
        number = len(self.nodes)
        node = ProcessNode(Path(__file__).parent)
        self.nodes.append(node)
        self.be_reachable(number, peers)
        return node

    def be_reachable(self, number: int, peers: int = 3) -> None:
        with self.nodes[number].use():
            others = tuple(f"b{other}@127.0.0.{other + 1}" for other in range(peers) if other != number)
            others += ("hall@127.0.0.1",) if number else ()
            conf = IpcpConfig(IpcpType.UDP4, udp4=Udp4Config(f"127.0.0.{number + 1}", port=self.port, peers=others))
            cli.autoboot("net0", IpcpType.UDP4, "net", conf)

    def layer(self, count: int) -> list[ProcessNode]:
        """Nodes whose members of the layer `hall` are connected in a row."""
        for number in range(count):
            node = self.add()
            with node.use():
                if number:
                    cli.enroll_ipcp(f"b{number}", f"b{number - 1}", autobind=True, ipcp_type=IpcpType.BROADCAST)
                else:
                    cli.autoboot("b0", IpcpType.BROADCAST, "hall")
        for number, node in enumerate(self.nodes):
            with node.use():
                until(functools.partial(has_neighbours, (number > 0) + (number < count - 1)))
        return self.nodes

    def join(self) -> list[Flow]:
        """A flow of each host."""
        return [self.join_at(node) for node in self.nodes]

    def join_at(self, node: ProcessNode) -> Flow:
        with node.use():
            self.flows.append(flow_join("hall"))
        return self.flows[-1]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        yield made
    finally:
        for flow in made.flows:
            flow.dealloc()
        for node in made.nodes:
            node.stop()
            log = node.log()
            node.clean_up()
            print(log)
            assert logged_no_bug(log)


def member() -> irm.IpcpInfo:
    (found,) = cli.list_ipcps(layer="hall")
    return found


def has_neighbours(count: int) -> bool:
    return len(states()) == count


def states() -> list[str]:
    """Of the connections of the member of this node for packets."""
    return [each.state for each in member().connections if each.component == "Data Transfer"]


def exchange(flows: list[Flow], round: int = 0) -> None:
    """Each says something, which all others get once, and nothing else."""
    for number, flow in enumerate(flows):
        flow.write(b"%d says %d" % (number, round))
    for number, flow in enumerate(flows):
        flow.set_rcv_timeout(20)
        got = sorted(flow.read() for _ in range(len(flows) - 1))
        assert got == [b"%d says %d" % (other, round) for other in range(len(flows)) if other != number]


def test_what_one_host_says_the_others_get_once_also_in_a_loop(hosts: Hosts) -> None:
    hosts.layer(3)
    flows = hosts.join()
    exchange(flows)
    with hosts.nodes[0].use():
        cli.connect_ipcp("b0", "b2")
        assert states() == ["up", "up"]
    for round in range(1, 20):
        exchange(flows, round)


def test_the_commands_of_a_second_host(hosts: Hosts) -> None:
    one, two = hosts.add(), hosts.add()
    irm_says(one, "ipcp bootstrap type broadcast name b0 layer hall autobind")
    irm_says(two, "ipcp enroll type broadcast name b1 dst b0 autobind")
    with two.use():
        assert member().layer == "hall"
        assert member().address
    shown = irm_says(two, "ipcp list layer hall")
    assert "b1" in shown
    flows = hosts.join()
    exchange(flows)
    irm_says(two, "ipcp disconnect name b1 dst b0")
    for node in (one, two):
        with node.use():
            until(lambda: not states())
    irm_says(two, "ipcp connect name b1 dst b0")
    exchange(flows, 1)


def test_a_host_comes_in_by_a_member_that_is_named(hosts: Hosts) -> None:
    """By the command, and from Python by id, and not by a layer that is called otherwise."""
    one, two, three = (hosts.add() for _ in range(3))
    irm_says(one, "ipcp bootstrap type broadcast name b0 layer hall autobind")
    irm_says(two, "ipcp enroll type broadcast name b1 layer hall dst b0 autobind")
    with three.use():
        pid = irm.create_ipcp("b2", IpcpType.BROADCAST)
        irm.enroll_ipcp(pid, "b1")
        assert states() == ["up"]
        with pytest.raises(IpcpEnrollError, match="'b1' is a member of layer 'hall', not of 'room'"):
            cli.enroll_ipcp("b3", "b1", ipcp_type=IpcpType.BROADCAST, layer="room")
    exchange(hosts.join())


def test_a_program_joins_a_layer_of_another_host_by_its_name(hosts: Hosts) -> None:
    """Blocking, and awaited; both at once have one member."""
    one, two, three = (hosts.add() for _ in range(3))
    irm_says(one, "ipcp bootstrap type broadcast name b0 layer hall autobind")
    flows = [hosts.join_at(one), hosts.join_at(two), hosts.join_at(two)]
    exchange(flows)
    with two.use():
        assert (member().name, member().members, states()) == ("hall.joined", 2, ["up"])

    async def talk() -> None:
        others = await asyncio.gather(*(aio.flow_join("hall") for _ in range(3)))
        flows[0].write(b"hello")
        assert [await flow.read() for flow in others] == [b"hello"] * 3
        for flow in others:
            flow.dealloc()

    with three.use():
        asyncio.run(talk())
        assert (member().name, states()) == ("hall.joined", ["up"])


def test_a_host_whose_program_waits_no_more_is_left_as_it_was(hosts: Hosts) -> None:
    """Nobody is at the address of the layer. When somebody is, it can be joined."""
    hosts.nodes.append(ProcessNode(Path(__file__).parent))
    two = hosts.add()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await aio.flow_join("hall")

    with two.use():
        with pytest.raises(FlowTimeoutException, match="'hall'"):
            flow_join("hall", timeo=0.2)
        until(lambda: not cli.list_ipcps(name="hall.joined"))
        asyncio.run(give_up())
        until(lambda: not cli.list_ipcps(name="hall.joined"))
    hosts.be_reachable(0)
    irm_says(hosts.nodes[0], "ipcp bootstrap type broadcast name b0 layer hall autobind")
    exchange(hosts.join())


def irm_says(node: ProcessNode, line: str) -> str:
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}
    command = [sys.executable, "-m", "ouroboros.tools.irm", *line.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_member_that_was_started_anew_is_connected_again(hosts: Hosts) -> None:
    one, _ = hosts.layer(2)
    near, far = hosts.join()
    exchange([near, far])
    one.stop()
    one.clean_up()
    one = hosts.nodes[0] = ProcessNode(Path(__file__).parent)
    hosts.be_reachable(0)
    with one.use():
        cli.autoboot("b0", IpcpType.BROADCAST, "hall")
        until(lambda: states() == ["up"])
    exchange([hosts.join_at(one), far], 1)


def test_a_layer_that_nobody_is_in_cannot_be_joined(hosts: Hosts) -> None:
    node = hosts.add()
    with node.use():
        with pytest.raises(IpcpEnrollError, match="b1"):
            cli.enroll_ipcp("b0", "b1", ipcp_type=IpcpType.BROADCAST, timeout=0.5)
        assert not cli.list_ipcps(name="b0")
        with pytest.raises(FlowNameException, match="hall"):
            flow_join("hall")


def numbers(flow: Flow) -> Iterator[int]:
    """All that waits."""
    with contextlib.suppress(FlowWouldBlockException):
        while True:
            yield int(flow.read()[:5])


def test_a_reader_that_sleeps_elsewhere_slows_nobody(hosts: Hosts) -> None:
    nodes = hosts.layer(3)
    writer, reader, sleeper = hosts.join()
    reader.set_rcv_timeout(20)
    count, batch = 4096, 64
    for first in range(0, count, batch):
        for number in range(first, first + batch):
            writer.write(b"%5d" % number * 200)
        # In step with the reader, so that only the sleeper can lose anything.
        assert [int(reader.read()[:5]) for _ in range(batch)] == list(range(first, first + batch))
    with nodes[1].use():
        assert member().lost == 0
    sleeper.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingRead)
    kept = list(numbers(sleeper))
    # What it lost, it lost in its own queue, or in that of its host.
    assert kept == sorted(set(kept))
    assert 0 < len(kept) < count
