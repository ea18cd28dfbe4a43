"""Datagrams of a stranger, and layers that are not ready, cost the flow that they are about, and never the layer below."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import Background, NodeProcess, descriptors, until
from toy import ToyIpcp
from udp_nodes import FAR, NEAR, Nodes, free_port

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowDownException, FlowRefusedException, FlowTimeoutException, NodeError, NodeLimitError
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.oap import ClientHandshake, Server, Settings
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime import client
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.testing.node import Node
from ouroboros.wire import extension
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ChangePeers,
    CreateIpcp,
    IpcpEntry,
    ListIpcps,
    RegisterName,
)
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import FlowReply, FlowRequest, decode, digest_of

RAW_CHECKED, ORDERED, ORDERED_CHECKED = QoSSpec(ber=0), QoSSpec(in_order=1), QoSSpec(in_order=1, ber=0)
QOSES = pytest.mark.parametrize("qos", [RAW_CHECKED, ORDERED, ORDERED_CHECKED], ids=["raw", "ordered", "checked"])
#: Also with the least that is believed out of the way: what counts then is what the engine is told.
BELIEVED = extension.LEAST_PACKET
LEAST = pytest.mark.parametrize("least", [1, BELIEVED])
#: So many datagrams: more than a layer begins again.
MANY = 6
GHOST = "127.0.0.3"
#: Milliseconds for which a peer may say nothing: more than this machine may be busy with other things.
SILENCE = 3000
NO_PACKETS = "the node could not make the flow: its path carries no packets"


def runtime(node: Node) -> Any:
    return node._node  # type: ignore[attr-defined]


def on_loop(node: Node, call: Callable[[], object]) -> object:
    """What the node gives when it does something."""

    async def do() -> object:
        return call()

    return asyncio.run_coroutine_threadsafe(do(), node._loop).result()  # type: ignore[attr-defined]


def member(node: Node, name: str = "net0") -> Any:
    (found,) = (ipcp for ipcp in runtime(node)._irm.ipcps.values() if ipcp.name == name)
    return found


def stands(node: Node) -> None:
    """The layer did not fail."""
    with node.use():
        entries: list[IpcpEntry] = client.request(ListIpcps())
    (info,) = (entry for entry in entries if entry.name == "net0")
    assert info.state == "operational"
    assert "restored" not in info.counters


def engine_has(node: Node) -> list[object]:
    """Flows, in the tables of the node."""
    engine = runtime(node)._engine
    return [*engine._held.flows, *engine._held.numbers, *engine._held.lower]


def blob(longest: int, request: bytes) -> bytes:
    # A node of ours never says so little. Nor does this one come again when it is asked to.
    flags = 0xFF & ~(extension.DEALLOC | extension.RETRY)
    return Extension(flags, longest, 4096, request).encode()


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        yield sock


def request(number: int, qos: QoSSpec, longest: int) -> bytes:
    chance = random.Random(number)
    data = blob(longest, chance.randbytes(16))
    handshake = ClientHandshake("clock", Settings(), random=chance, wall=time.time_ns(), data=data)
    # One of ours has a number that none of the prototype has, and one of the prototype has a small one.
    eid = number + (1 << 20) * (number % 2)
    return FlowRequest(eid, qos, digest_of("clock"), handshake.request).encode()


def test_a_crowd_of_programs_does_not_hide_the_packet_that_proves_a_peer_alive(
    node: NodeProcess, stranger: socket.socket
) -> None:
    # More than the engine is told of in two waits, of which the second begins after the time to hear of the peer.
    crowd_size = 600
    port = free_port()
    cli.autoboot("net0", IpcpType.UDP4, "net", IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(NEAR, port=port)))
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    cli.reg_name("clock", layer="net")
    with ExitStack() as stack:
        crowd = [stack.enter_context(flow_join("chat")) for _ in range(crowd_size)]
        accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
        stranger.sendto(request(2, QoSSpec(timeout=SILENCE), 1400), (NEAR, port))
        reply = decode(stranger.recv(2048))
        assert isinstance(reply, FlowReply)

        def send(packet: bytes) -> None:
            stranger.sendto(reply.peer_eid.to_bytes(4, "big") + packet, (NEAR, port))

        flow = stack.enter_context(accepting.result())
        send(b"tick")
        assert flow.read() == b"tick"
        os.kill(node.pid, signal.SIGSTOP)
        try:
            until(lambda: "State:\tT" in Path(f"/proc/{node.pid}/status").read_text())
            for each in crowd:
                each.write(b"all at once")
            send(b"tock")
            # As long as the peer may be silent, and more.
            flow.set_rcv_timeout(1.2 * SILENCE / 1000)
            with pytest.raises(FlowTimeoutException):
                flow.read()
        finally:
            os.kill(node.pid, signal.SIGCONT)
        flow.set_rcv_timeout(None)
        assert flow.read() == b"tock"


def works(nodes: Nodes, qos: QoSSpec = QOS_RAW) -> None:
    near, far = nodes.flow(qos)
    with near, far:
        near.write(b"as before")
        assert far.read() == b"as before"


@LEAST
@QOSES
@pytest.mark.parametrize("longest", [1, 4, 12, 16, 17, 28, 29, 127])
def test_a_request_that_leaves_no_room_for_packets_ends_nothing_but_itself(
    nodes: Nodes, stranger: socket.socket, monkeypatch: pytest.MonkeyPatch, qos: QoSSpec, longest: int, least: int
) -> None:
    monkeypatch.setattr(extension, "LEAST_PACKET", least)
    near, far = nodes.flow(QoSSpec(loss=0))
    with near, far:
        for number in range(1, MANY + 1):
            accepting = nodes.accept()
            stranger.sendto(request(number, qos, longest), (FAR, nodes.port))
            if least == BELIEVED and number % 2:
                # It is no request of ours, and no node of the prototype has such a number.
                until(lambda n=number: member(nodes.far)._core.counters["messages_malformed"] >= (n + 1) // 2)  # type: ignore[misc]
                with nodes.near.use():
                    flow_alloc("clock").dealloc()
            let_go(accepting)
        near.write(b"as before")
        assert far.read() == b"as before"
        stands(nodes.far)
    works(nodes)


def let_go(accepting: Background[Flow]) -> None:
    """The acceptor has a flow, or is told in words why not."""
    text = NO_PACKETS
    try:
        accepting.result().dealloc()
    except NodeLimitError as error:
        text = str(error)
    assert text == NO_PACKETS


@LEAST
@QOSES
@pytest.mark.parametrize("longest", [1, 16, 127])
def test_a_reply_that_leaves_no_room_for_packets_ends_nothing_but_itself(
    nodes: Nodes, stranger: socket.socket, monkeypatch: pytest.MonkeyPatch, qos: QoSSpec, longest: int, least: int
) -> None:
    monkeypatch.setattr(extension, "LEAST_PACKET", least)
    stranger.bind((GHOST, nodes.port))
    pid = member(nodes.near).id
    with nodes.near.use():
        client.request(ChangePeers(pid, [f"ghost@{GHOST}"], []))
    near, far = nodes.flow(QoSSpec(loss=0))
    server = Server()
    with near, far:
        for number in range(MANY):
            with nodes.near.use():
                asking = Background(lambda: flow_alloc("ghost", qos))
            data, address = stranger.recvfrom(4096)
            asked = decode(data)
            assert isinstance(asked, FlowRequest)
            received = server.receive(asked.oap, Settings(), time.time_ns())
            theirs = extension.decode(received._header.data)
            assert theirs is not None
            oap, _ = received.respond(random=random.Random(1), wall=time.time_ns(), data=blob(longest, theirs.request))
            stranger.sendto(FlowReply(asked.eid, 70 + number, 0, oap).encode(), address)
            let_go(asking)
        near.write(b"as before")
        assert far.read() == b"as before"
        stands(nodes.near)
    works(nodes)


# --- bugs of ours that somebody may find


@pytest.fixture
def buggy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let each flow that is given to the engine meet a bug, from then on."""

    def bug(**_: object) -> None:
        raise OverflowError("a bug")

    with monkeypatch.context() as patch:
        yield lambda: patch.setattr("ouroboros.runtime.carrying.Setup", bug)


def ends_as_bug(asking: Background[Flow]) -> None:
    with pytest.raises(NodeError, match=r"bug in the node: OverflowError\('a bug'\)"):
        asking.result()


def test_a_flow_that_meets_a_bug_is_not_its_layer(
    nodes: Nodes, stranger: socket.socket, buggy: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "ouroboros.irmd")
    near, far = nodes.flow(QoSSpec(loss=0))
    with near, far:
        had = len(engine_has(nodes.far)), member(nodes.far)._ends.keys()
        buggy()
        before = descriptors(os.getpid())
        for number in range(MANY):
            accepting = nodes.accept()
            stranger.sendto(request(number + 100, QOS_RAW, 1400), (FAR, nodes.port))
            ends_as_bug(accepting)
        assert (len(engine_has(nodes.far)), member(nodes.far)._ends.keys()) == had
        assert descriptors(os.getpid())["socket"] <= before["socket"]
        near.write(b"as before")
        assert far.read() == b"as before"
        stands(nodes.far)
        with nodes.far.use():
            # Nothing is left of it in the table of flows.
            assert len(irm.list_flows()) == 1


def test_a_flow_within_the_node_that_meets_a_bug_is_not_its_layer(
    ouroboros_inproc_node: Callable[[], Node], buggy: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "ouroboros.irmd")
    node = ouroboros_inproc_node()
    with node.use():
        node.impair("clock", "delay=1ms")
        buggy()
        for _ in range(MANY):
            accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
            ends_as_bug(Background(lambda: flow_alloc("clock")))
            ends_as_bug(accepting)
            with pytest.raises(NodeError, match="a bug"):
                flow_join("broadcast")
        assert {info.state for info in irm.list_ipcps()} == {"operational"}
        assert not any("restored" in info.counters for info in irm.list_ipcps())
        assert irm.list_flows() == []
        assert engine_has(node) == []


# --- IPC processes that are not ready


@pytest.mark.parametrize("asked", [True, False], ids=["control", "engine"])
def test_a_name_of_an_ipc_process_without_a_layer_ends_nothing(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setitem(IPCP_TYPES, "toy", ToyIpcp)
    if not asked:
        # As when it is in one, and the engine has just begun again.
        monkeypatch.setattr(runtime(nodes.far)._irm.flows._matching, "_check_carrier", lambda *_: None)
    with nodes.near.use():
        client.request(ChangePeers(member(nodes.near).id, [f"toy0@{FAR}"], []))
    near, far = nodes.flow(QoSSpec(loss=0))
    with near, far:
        with nodes.far.use():
            toy: int = client.request(CreateIpcp("toy0", "toy"))
            client.request(BindProcess(toy, "toy0"))
            client.request(RegisterName("toy0", member(nodes.far).id))
        for _ in range(MANY):
            with nodes.near.use():
                if asked:
                    with pytest.raises(FlowRefusedException):
                        flow_alloc("toy0")
                else:
                    # The peer is told before the engine is.
                    with flow_alloc("toy0") as flow, pytest.raises(FlowDownException):
                        flow.read()
        near.write(b"as before")
        assert far.read() == b"as before"
        stands(nodes.far)
        with nodes.far.use():
            client.request(BootstrapIpcp(toy, "toys"))
        with nodes.near.use(), flow_alloc("toy0"):
            until(lambda: len(member(nodes.far, "toy0").neighbours.flows) == 1)
