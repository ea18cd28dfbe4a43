"""Encrypted flows between real programs: what they say is nowhere in clear, and what is altered or repeated is dropped."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Background, NodeProcess, Programs, until
from udp_nodes import FAR, NEAR, Nodes, join

from ouroboros import aio, cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowCryptException, FlowQosException, FlowSizeException
from ouroboros.irm import IpcpType
from ouroboros.qos import QoSSpec
from ouroboros.testing.node import Node

TAP = "127.0.0.3"
ENCRYPTED = QoSSpec(cypher_s=256)
RELIABLE = QoSSpec(loss=0, cypher_s=256)
#: Not the same in two places of the memory of this process.
MARKER = bytes(range(65, 91)) + b"-in-clear-"


def memory_of_flows(pid: int) -> bytes:
    """What is in the shared memory of all flows of a node."""
    found = b""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            if "memfd:" in os.readlink(path):
                found += Path(path).read_bytes()
        except FileNotFoundError:
            continue
    return found


# --- within a node


def local(qos: QoSSpec) -> tuple[Flow, Flow]:
    accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    return flow_alloc("clock", qos), accepting.result()


@pytest.mark.parametrize("qos", [QoSSpec(), ENCRYPTED, RELIABLE])
def test_the_memory_between_two_programs_holds_what_they_say_only_when_they_ask_for_no_encryption(
    node: NodeProcess, qos: QoSSpec
) -> None:
    near, far = local(qos)
    with near, far:
        near.write(MARKER)
        assert (MARKER in memory_of_flows(node.pid)) == (qos.cypher_s == 0)
        assert far.read() == MARKER
        far.write(b"answer")
        assert near.read() == b"answer"
        assert near.get_qos() == far.get_qos() == qos


def test_what_is_known_of_a_flow_is_the_same_at_both_ends(node: NodeProcess) -> None:
    near, far = local(QoSSpec(cypher_s=128))
    with near, far:
        assert near.security == far.security
        assert near.security is not None
        assert (near.security.strength, near.security.peer_name, near.security.peer_certificate) == (128, None, None)
        assert near.security.suite.startswith("aes-128-gcm")


def test_a_flow_in_clear_says_so(node: NodeProcess) -> None:
    near, far = local(QoSSpec())
    with near, far:
        assert near.security is None
        assert far.security is None


def test_the_longest_packet_leaves_room_for_the_seal(node: NodeProcess) -> None:
    near, far = local(ENCRYPTED)
    with near, far:
        longest = (1 << 20) - 28
        reading = Background(far.read)
        assert near.write(bytes(longest)) == longest
        assert len(reading.result()) == longest
        with pytest.raises(FlowSizeException, match=str(longest)):
            near.write(bytes(longest + 1))


def test_a_relay_of_an_impaired_layer_sees_nothing(ouroboros_inproc_node: Callable[[], Node]) -> None:
    node = ouroboros_inproc_node()
    node.impair("clock", "none")
    near, far = local(ENCRYPTED)
    with near, far:
        near.write(MARKER)
        assert far.read() == MARKER
        assert MARKER not in memory_of_flows(node.pid)
        assert near.security == far.security != None  # noqa: E711


def test_flows_between_two_processes_are_encrypted(node: NodeProcess, programs: Programs) -> None:
    cli.create_name("clock")
    server = programs.start(
        """
        from ouroboros.dev import *
        with flow_accept(name="clock") as f:
            say(f.get_qos().cypher_s)
            while (packet := f.read()) != b"end":
                f.write(packet)
        """
    )
    with flow_alloc("clock", RELIABLE) as flow:
        assert server.line() == 256
        for number in range(100):
            flow.write(b"%d" % number)
            assert flow.read() == b"%d" % number
        flow.write(b"end")
    assert server.finish() == 0


def test_aio_flows_tell_their_security(node: NodeProcess) -> None:
    cli.create_name("clock")

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(aio.flow_accept(name="clock"))
            flow = await aio.flow_alloc("clock", ENCRYPTED)
            async with flow, await accepting as far:
                assert flow.security is not None
                assert flow.security == far.security
                await flow.write(b"x")
                assert await far.read() == b"x"

    asyncio.run(both())


def test_a_broadcast_layer_encrypts_nothing_and_says_so(node: NodeProcess) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    with pytest.raises(FlowQosException, match="nor encrypt"):
        flow_join("chat", ENCRYPTED)


def test_keys_are_in_no_listing_and_no_log(node: NodeProcess) -> None:
    near, far = local(ENCRYPTED)
    with near, far:
        near.write(b"x")
        assert far.read() == b"x"
        (flow,) = irm.list_flows()
        assert "key" not in repr(flow)
    assert "key" not in node.log()


# --- over UDP


@pytest.fixture
def make_nodes(ouroboros_inproc_node: Callable[[], Node]) -> Callable[..., Nodes]:
    def make(peer: str = FAR, impair: str | None = None) -> Nodes:
        nodes = join(ouroboros_inproc_node(), ouroboros_inproc_node(), peer=peer)
        if impair is not None:
            nodes.impair(impair)
        return nodes

    return make


class Tap:
    """Somebody on the way between the nodes, who keeps all datagrams and can send them again."""

    def __init__(self, port: int) -> None:
        self.datagrams: list[bytes] = []
        self._port = port
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((TAP, port))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            datagram, source = self._socket.recvfrom(65536)
            if not datagram:
                return
            self.datagrams.append(datagram)
            target = FAR if source[0] == NEAR else NEAR
            self._socket.sendto(datagram, (target, self._port))

    def repeat(self, datagram: bytes, target: str) -> None:
        self._socket.sendto(datagram, (target, self._port))

    def close(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            end.sendto(b"", (TAP, self._port))
        self._thread.join()
        self._socket.close()


@contextmanager
def tapped(make_nodes: Callable[..., Nodes]) -> Iterator[tuple[Nodes, Tap]]:
    nodes = make_nodes(peer=TAP)
    tap = Tap(nodes.port)
    try:
        yield nodes, tap
    finally:
        tap.close()


@pytest.mark.parametrize("qos", [QoSSpec(), ENCRYPTED, RELIABLE, QoSSpec(loss=0, ber=0, cypher_s=192)])
def test_what_goes_over_the_network_is_in_clear_only_when_nobody_asked(
    make_nodes: Callable[..., Nodes], qos: QoSSpec
) -> None:
    with tapped(make_nodes) as (nodes, tap):
        near, far = nodes.flow(qos)
        with near, far:
            for from_, to in ((near, far), (far, near)):
                from_.write(MARKER)
                assert to.read() == MARKER
            assert near.get_qos().cypher_s == far.get_qos().cypher_s == qos.cypher_s
        seen = b"".join(tap.datagrams)
        assert (MARKER in seen) == (qos.cypher_s == 0)


@pytest.mark.parametrize("qos", [ENCRYPTED, RELIABLE])
def test_packets_that_are_sent_again_or_altered_on_the_way_are_dropped(
    make_nodes: Callable[..., Nodes], qos: QoSSpec
) -> None:
    with tapped(make_nodes) as (nodes, tap):
        near, far = nodes.flow(qos)
        with near, far:
            near.write(MARKER)
            assert far.read() == MARKER
            (packet,) = {each for each in tap.datagrams if each[:4] != bytes(4) and len(each) >= len(MARKER) + 32}
            for _ in range(3):
                tap.repeat(packet, FAR)
            # With the number of a later packet, because those that were here are not even opened.
            tap.repeat(packet[:15] + bytes([packet[15] ^ 0x40]) + packet[16:], FAR)
            until(lambda: nodes.counters(nodes.far)["rejected"] == 1)
            assert nodes.counters(nodes.far)["replayed"] == 3
            near.write(b"the next one")
            assert far.read() == b"the next one"


def test_a_packet_that_is_sent_back_is_dropped(make_nodes: Callable[..., Nodes]) -> None:
    with tapped(make_nodes) as (nodes, tap):
        near, far = nodes.flow(ENCRYPTED)
        with near, far:
            far.write(b"from far")
            assert near.read() == b"from far"
            near.write(MARKER)
            assert far.read() == MARKER
            to_near = next(each for each in tap.datagrams if len(each) == 4 + 28 + len(b"from far"))
            to_far = next(each for each in tap.datagrams if len(each) == 4 + 28 + len(MARKER))
            tap.repeat(to_near[:4] + to_far[4:], NEAR)
            until(lambda: nodes.counters(nodes.near)["replayed"] == 1)


@pytest.mark.parametrize("impair", [None, "loss=5%,seed=3"])
@pytest.mark.parametrize("ber", [0, 10**9])
def test_a_reliable_flow_is_whole_and_encrypted_over_a_bad_link(
    make_nodes: Callable[..., Nodes], impair: str | None, ber: int
) -> None:
    nodes = make_nodes(impair=impair)
    near, far = nodes.flow(QoSSpec(loss=0, ber=ber, cypher_s=256))
    with near, far:
        packets = [b"%06d" % number * 200 for number in range(2000)]
        reading = Background(lambda: [far.read() for _ in packets])
        for packet in packets:
            near.write(packet)
        assert reading.result() == packets
        counters = nodes.counters(nodes.far)
        assert (counters["rejected"], counters["damaged"]) == (0, 0)
        if impair is not None:
            assert nodes.counters(nodes.near)["frcp_retransmitted"] > 0


def test_a_raw_flow_loses_what_the_link_loses_and_nothing_else(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes(impair="loss=5%,seed=1")
    near, far = nodes.flow(ENCRYPTED)
    with near, far:
        for number in range(1000):
            near.write(b"%04d" % number)
        near.dealloc()
        until(lambda: nodes.counters(nodes.far)["received"] > 800)
        numbers = [far.read() for _ in range(800)]
        assert numbers == sorted(set(numbers))
        assert nodes.counters(nodes.far)["rejected"] == 0


@pytest.mark.parametrize("qos", [ENCRYPTED, QoSSpec(ber=0, cypher_s=256), RELIABLE])
def test_messages_of_all_lengths_arrive_whole(make_nodes: Callable[..., Nodes], qos: QoSSpec) -> None:
    nodes = make_nodes()
    near, far = nodes.flow(qos)
    with near, far:
        longest = 8976 - 28 - (4 if qos.ber == 0 else 0)
        for length in (1, 1399, 1400, 1472, 1473, longest):
            near.write(bytes(length))
            assert far.read() == bytes(length)
        if not qos.ordered:
            with pytest.raises(FlowSizeException, match=str(longest)):
                near.write(bytes(longest + 1))


def test_a_server_that_requires_more_refuses_and_the_client_is_told(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes()
    folder = nodes.far.security / "server" / "clock"
    folder.mkdir(parents=True)
    (folder / "enc.conf").write_text("kex=X448MLKEM1024\n")
    with nodes.far.use():
        accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    with nodes.near.use():
        with pytest.raises(FlowCryptException, match=r"-1008 ECRYPT.* this side wants at least secp521r1, aes-256-gcm"):
            flow_alloc("clock", ENCRYPTED)
        with pytest.raises(FlowCryptException, match="this side asks for no encryption, and the server wants more"):
            flow_alloc("clock")
    (folder / "enc.conf").write_text("")
    with nodes.near.use(), flow_alloc("clock", ENCRYPTED) as flow, accepting.result() as far:
        assert flow.security is not None
        assert far.security is not None
        assert flow.security.suite == far.security.suite == "secp521r1, aes-256-gcm, sha3-256"
