"""Unicast layers of real nodes: hosts are nodes with runtime directories and loopback addresses of their own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import Background, NodeProcess, logged_no_bug, until
from udp_nodes import free_port
from unicast_attack import messages, spoiled
from unicast_nodes import at, join, member, reaches
from unicast_world import packet

from ouroboros import aio, cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowDownException, FlowNameException, IpcpEnrollError
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.testing.node import Node, ProcessNode, ThreadNode
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import Cep, Ours

pytestmark = pytest.mark.slow


class Hosts:
    """Nodes that a test starts."""

    def __init__(self) -> None:
        self.nodes: list[ProcessNode] = []
        self.port = free_port()

    def add(self) -> ProcessNode:
        self.nodes.append(ProcessNode(Path(__file__).parent))
        return self.nodes[-1]

    def row(self, count: int) -> list[ProcessNode]:
        """Nodes in a row, whose members reach each other."""
        nodes = [self.add() for _ in range(count)]
        for number, node in enumerate(nodes):
            with node.use():
                join(number, self.port)
        for node in nodes:
            with node.use():
                until(lambda: reaches(count - 1))
        return nodes


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        yield made
    finally:
        for node in made.nodes:
            node.stop()
            log = node.log()
            node.clean_up()
            print(log)
            assert logged_no_bug(log)


def run(node: Node, line: str) -> str:
    """What a command `irm` says on a node."""
    command = [sys.executable, "-m", "ouroboros.tools.irm", *line.split()]
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tool(node: Node, name: str, *words: str) -> subprocess.Popen[str]:
    """A tool that runs on a node."""
    command = [sys.executable, "-m", f"ouroboros.tools.{name}", *words]
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def flow(near: Node, far: Node, name: str, qos: QoSSpec = QOS_RAW) -> tuple[Flow, Flow]:
    """The ends of a new flow: of the client, of the server."""
    with far.use():
        accepting = Background.waiting_for_node(lambda: flow_accept(name=name))
    with near.use():
        client = flow_alloc(name, qos, 20.0)
    return client, accepting.result()


def talk(client: Flow, server: Flow) -> None:
    with client, server:
        client.write(b"what time is it?")
        assert server.read() == b"what time is it?"
        server.write(b"noon")
        assert client.read() == b"noon"


def test_two_hosts_take_two_commands_each(hosts: Hosts) -> None:
    a, b = hosts.add(), hosts.add()
    run(a, f"ipcp bootstrap type udp4 name net0 layer net ip 127.0.0.1 port {hosts.port}")
    run(a, "ipcp bootstrap type unicast name a layer campus autobind")
    run(b, f"ipcp bootstrap type udp4 name net0 layer net ip 127.0.0.2 port {hosts.port} peer campus@127.0.0.1")
    run(b, "ipcp enroll name b layer campus autobind")
    run(b, "name register clock layer campus")
    for node in (a, b):
        with node.use():
            until(lambda: reaches(1))
    talk(*flow(a, b, "clock"))
    (shown,) = json.loads(run(b, "layer show campus --json"))
    assert {(each["component"], each["name"], each["peer"], each["state"]) for each in shown["connections"]} == {
        (component, "a", "node", "up") for component in ("Management", "Data Transfer")
    }
    assert shown["registered"] == ["clock"]
    text = run(a, "layer show campus")
    assert "a is member" in text
    assert "Members that can be reached:" in text
    # The names of a member are found in the layers below.
    with a.use():
        assert {info.name for info in irm.list_names() if "net" in info.layers} == {"a", "campus"}


@pytest.mark.parametrize("qos", [QOS_RAW, QOS_DATA, QoSSpec(cypher_s=256)], ids=["raw", "reliable", "encrypted"])
def test_flows_over_three_hops(hosts: Hosts, qos: QoSSpec) -> None:
    nodes = hosts.row(4)
    with nodes[0].use():
        cli.reg_name("clock", layer="campus")
    talk(*flow(nodes[3], nodes[0], "clock", qos))


async def layer_of(name: str, layer: str) -> str:
    """The layer of a flow that was asked for there."""
    async with await aio.flow_alloc(name, layer=layer) as f:
        return f.layer


def test_a_program_chooses_the_layer_of_its_flow(hosts: Hosts) -> None:
    near, far = hosts.row(2)
    with far.use():
        for layer in ("campus", "net"):
            cli.reg_name("oping", layer=layer)
    with near.use():
        cli.change_peers("net0", ["oping@127.0.0.2"])
    for chosen, carries in ((None, "campus"), ("campus", "campus"), ("net", "net")):
        with far.use():
            accepting = Background.waiting_for_node(lambda: flow_accept(name="oping"))
        with near.use(), flow_alloc("oping", layer=chosen) as client, accepting.result() as server:
            assert (client.layer, server.layer) == (carries, carries)
            assert [each.layer for each in irm.list_flows() if each.flow_id == client.flow_id] == [carries]
    with far.use():
        accepting = Background.waiting_for_node(lambda: flow_accept(name="oping"))
    with near.use():
        assert asyncio.run(layer_of("oping", "net")) == "net"
    accepting.result().dealloc()
    with near.use(), pytest.raises(FlowNameException, match=r"nobody in layer 'campus' offers 'x'.*members: m0, m1$"):
        flow_alloc("x", layer="campus")
    with near.use(), pytest.raises(FlowNameException, match="this node is not in it, but in"):
        flow_alloc("oping", layer="metro")
    listener = tool(far, "oping", "--listen")
    try:
        with far.use():
            until(lambda: irm.node_info().processes > 1)
            irm.bind_process(listener.pid, "oping")
        for layer in ("campus", "net"):
            done = tool(near, "oping", "-n", "oping", "-c", "2", "-i", "1ms", "--layer", layer)
            said, _ = done.communicate()
            assert done.returncode == 0, said
            assert "2 packets transmitted, 2 received" in said
        failed = tool(near, "oping", "-n", "oping", "--layer", "metro")
        said, _ = failed.communicate()
        assert failed.returncode == 2
        assert "Failed to allocate flow: no flow to 'oping' over layer 'metro': this node is not in it" in said
    finally:
        listener.kill()
        listener.communicate()


def test_hosts_may_start_in_any_order(hosts: Hosts, runtime_dir: Path, tmp_path: Path) -> None:
    """What the file of the newcomer asks for comes about when the other is there."""
    files = {
        "b": f"""
            [udp4.net0]
            bootstrap = "net"
            ip = "127.0.0.2"
            port = {hosts.port}
            peers = ["campus@127.0.0.1"]
            [unicast.b]
            enrol = "campus"
            autobind = true
            reg = ["clock"]
        """,
        "a": f"""
            [udp4.net0]
            bootstrap = "net"
            ip = "127.0.0.1"
            port = {hosts.port}
            [unicast.a]
            bootstrap = "campus"
            autobind = true
        """,
    }
    processes = {}
    try:
        for name, text in files.items():
            config = tmp_path / f"{name}.toml"
            config.write_text(text)
            log = tmp_path / f"{name}.log"
            processes[name] = NodeProcess(runtime_dir / name, log, "--config", str(config))
        with at(runtime_dir / "b"):
            until(lambda: bool(member().routes))
            assert {name for info in irm.list_names() if "net" in info.layers for name in [info.name]} == {
                "b",
                "campus",
            }
            until(lambda: {info.name for info in irm.list_names() if "campus" in info.layers} == {"clock"})
    finally:
        for process in processes.values():
            assert process.stop() == 0
            assert logged_no_bug(process.log())


def test_a_neighbour_that_was_started_anew_is_connected_again(hosts: Hosts) -> None:
    first, second = hosts.row(2)
    with first.use():
        cli.destroy_ipcp("m0")
    with second.use():
        until(lambda: {each.state for each in member().connections} == {"missing"})
    with first.use():
        cli.autoboot("m0", IpcpType.UNICAST, "campus")
        cli.reg_name("clock", layer="campus")
    for node in (first, second):
        with node.use():
            until(lambda: reaches(1))
    talk(*flow(second, first, "clock"))


def test_nobody_to_enroll_with(hosts: Hosts) -> None:
    node = hosts.add()
    run(node, f"ipcp bootstrap type udp4 name net0 layer net ip 127.0.0.1 port {hosts.port}")
    with node.use():
        with pytest.raises(IpcpEnrollError, match=r"nobody offers 'campus' on this node.*irm ipcp peer"):
            cli.enroll_ipcp("b", "campus", ipcp_type=IpcpType.UNICAST)
        assert cli.list_ipcps(ipcp_type=IpcpType.UNICAST) == []


def test_a_destroyed_member_leaves_the_layer(hosts: Hosts) -> None:
    nodes = hosts.row(3)
    with nodes[2].use():
        cli.destroy_ipcp("m2")
    for number, count in ((1, 1), (0, 1)):
        with nodes[number].use():
            until(lambda count=count: reaches(count))  # type: ignore[misc]


def test_an_engine_that_fails_takes_flows_along_and_the_layer_begins_again() -> None:
    nodes = [ThreadNode(Path(__file__).parent) for _ in range(3)]
    port = free_port()
    try:
        for number, node in enumerate(nodes):
            with node.use():
                join(number, port)
        for node in nodes:
            with node.use():
                until(lambda: reaches(2))
        with nodes[0].use():
            cli.reg_name("clock", layer="campus")
        near, far = flow(nodes[2], nodes[0], "clock", QOS_DATA)
        with near, far:
            # The one in between.
            engine: Any = nodes[1]._node._engine
            engine._held.engine._panic()
            with nodes[1].use():
                until(lambda: member().counters.get("restored", 0) == 1)
            for node in nodes:
                with node.use():
                    until(lambda: reaches(2))
            near.write(b"still here?")
            assert far.read() == b"still here?"
        talk(*flow(nodes[2], nodes[0], "clock"))
    finally:
        for node in nodes:
            node.stop()
            node.clean_up()


def resident(node: ProcessNode) -> int:
    """KiB of memory of its process."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def greeted(liar: Node, component: str) -> Flow:
    """A flow of a program to m0, which takes it for a member at an address of its own."""
    protocol, syntax = ("LSP", 0) if component == "Management" else ("dtp", 2)
    with liar.use():
        flow = flow_alloc("m0", QOS_RAW, 20.0)
    flow.write(Cep(component, protocol, 1, syntax, 0x66666666, Ours(0, 1, 0xE71, "liar")).encode())
    assert cep.decode(flow.read()).component == component
    return flow


def test_a_member_that_floods_with_garbage_ends_no_node_and_fills_none(hosts: Hosts) -> None:
    nodes = hosts.row(2)
    with nodes[0].use():
        cli.reg_name("clock", layer="campus")
    client, server = flow(nodes[1], nodes[0], "clock", QOS_DATA)
    liar = hosts.add()
    chance = Random(1)
    made = [(each.eid, data) for each in messages(0x66666666, 0x66666667) for data in spoiled(each)]
    chance.shuffle(made)
    with nodes[0].use():
        target = int.from_bytes(bytes.fromhex(member().address.replace(".", "")), "little")
    with liar.use():
        conf = IpcpConfig(IpcpType.UDP4, udp4=Udp4Config("127.0.0.3", port=hosts.port, peers=("m0@127.0.0.1",)))
        cli.autoboot("net0", IpcpType.UDP4, "net", conf)
    flows = {each: greeted(liar, each) for each in ("Management", "Data Transfer")}
    before, logged = [resident(node) for node in nodes], [len(node.log().splitlines()) for node in nodes]
    for number, (eid, message) in enumerate(made * 2):
        said = message[:1200] if eid < 0 else packet(target, eid, message[:1200])
        component = "Management" if eid < 0 else "Data Transfer"
        try:
            flows[component].write(said)
        except FlowDownException:
            # Some messages say that it leaves.
            flows[component].dealloc()
            flows[component] = greeted(liar, component)
        if number % 1000 == 0:
            client.write(b"still here?")
            assert server.read() == b"still here?"
    for each in flows.values():
        each.dealloc()
    talk(client, server)
    talk(*flow(nodes[1], nodes[0], "clock"))
    for node, size, lines in zip(nodes, before, logged, strict=True):
        assert resident(node) < size + 32_768
        assert len(node.log().splitlines()) < lines + 60
    with nodes[0].use():
        assert member().counters["lsus_malformed"] > 100
