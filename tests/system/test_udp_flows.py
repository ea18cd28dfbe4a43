"""What flows between two nodes promise, over good and bad networks, and against whoever sends garbage."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from support import Background, Programs, forever, until
from udp_nodes import FAR, NEAR, Nodes
from warm import Warm

from ouroboros import irm
from ouroboros.dev import MAX_PACKET, Flow, FlowProperties, flow_alloc
from ouroboros.errors import (
    FlowDownException,
    FlowPeerException,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
)
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.node import Node

RELIABLE = QoSSpec(loss=0)
ORDERED = QoSSpec(in_order=1)


# Programs of the tests run on the nodes of this process, so they need no runtime directory of their own.
@pytest.fixture
def programs(warm_programs: Warm, tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path, warm_programs)
    yield started
    started.end()


BAD = "loss=5%,reorder=5%,duplicate=5%,delay=1ms,seed=7"


def numbered(number: int, length: int) -> bytes:
    return number.to_bytes(8) + bytes(number % 251 for _ in range(length - 8))


@pytest.mark.slow
# So many packets that the network loses some: none of 500 in one run of 10¹¹. The longest are two each.
@pytest.mark.parametrize(("length", "amount"), [(8, 2000), (1400, 500), (8000, 500), (100_000, 250)])
def test_a_reliable_flow_delivers_everything_in_order_over_a_bad_network(
    nodes: Nodes, length: int, amount: int
) -> None:
    nodes.impair(BAD)
    near, far = nodes.flow(RELIABLE)
    with near, far:
        packets = [numbered(number, length) for number in range(amount)]
        writing = Background(lambda: [near.write(packet) for packet in packets])
        assert [far.read() for _ in packets] == packets
        writing.result()
        assert nodes.counters(nodes.near)["frcp_retransmitted"] > 0


@pytest.mark.slow
def test_both_directions_of_a_reliable_flow_work_at_once_over_a_bad_network(nodes: Nodes) -> None:
    nodes.impair(BAD)
    near, far = nodes.flow(RELIABLE)
    with near, far:
        packets = [numbered(number, 1000) for number in range(500)]
        for flow in (near, far):
            flow.set_snd_timeout(30)
        writing = [Background(lambda flow=flow: [flow.write(each) for each in packets]) for flow in (near, far)]  # type: ignore[misc]
        reading = Background(lambda: [near.read() for _ in packets])
        assert [far.read() for _ in packets] == packets
        assert reading.result() == packets
        for each in writing:
            each.result()


@pytest.mark.slow
@pytest.mark.parametrize("loss", [0, 1, 2], ids=["fair", "1 %", "2 %"])
def test_asking_and_answering_goes_on_for_long_after_an_outage(nodes: Nodes, loss: int) -> None:
    near, far = nodes.flow(RELIABLE)

    def answer() -> None:
        with pytest.raises(FlowDownException, match="deallocated"):
            forever(lambda: far.write(far.read()))

    def ask(times: int) -> None:
        for number in range(times):
            near.write(number.to_bytes(4) * 200)
            assert near.read() == number.to_bytes(4) * 200

    with far:
        answering = Background(answer)
        with near:
            ask(1000)
            nodes.impair("partition")
            near.write(b"into the dark")
            # So many in vain that the path counts as full.
            until(lambda: nodes.counters(nodes.near)["frcp_timeouts"] >= 5)
            nodes.impair(f"loss={loss}%,seed=1")
            assert near.read() == b"into the dark"
            ask(1000 if loss else 20_000)
        answering.result()
    for node in (nodes.near, nodes.far):
        with node.use():
            (layer,) = (info for info in irm.list_ipcps() if info.name == "net0")
        assert (layer.state, layer.reason) == ("operational", "")
        assert "restored" not in layer.counters


def test_an_ordered_flow_loses_packets_but_never_goes_back(nodes: Nodes) -> None:
    nodes.impair("loss=10%,reorder=10%,seed=3")
    near, far = nodes.flow(ORDERED)
    with near, far:
        far.set_rcv_timeout(30)
        last, numbers = -1, count()

        def write() -> None:
            for _ in range(1000):
                near.write(next(numbers).to_bytes(4))

        writing = Background(write)
        while last < 900:
            number = int.from_bytes(far.read())
            assert number > last
            last = number
        writing.result()


def test_what_a_program_wrote_arrives_after_it_has_gone(nodes: Nodes, programs: Programs) -> None:
    nodes.impair("loss=20%,delay=5ms,seed=1")
    accepting = nodes.accept()
    with nodes.near.use():
        programs.start(
            """
            f = flow_alloc("clock", QoSSpec(loss=0))
            for number in range(200):
                f.write(number.to_bytes(2) * 500)
            os._exit(0)
            """
        ).finish()
    with accepting.result() as far:
        far.set_rcv_timeout(30)
        assert [int.from_bytes(far.read()[:2]) for _ in range(200)] == list(range(200))
        # It did not say that this is all.
        with pytest.raises(FlowPeerException, match="died"):
            far.read()


@pytest.mark.slow
@pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE], ids=["raw", "reliable"])
def test_what_was_written_right_before_dealloc_comes_before_the_end(
    nodes: Nodes, programs: Programs, qos: QoSSpec
) -> None:
    with nodes.far.use():
        programs.start(
            """
            for number in range(100):
                with flow_accept(name="clock") as flow:
                    flow.write(flow.read() + b", %d" % number)
            """
        )
    with nodes.near.use():
        for number in range(100):
            with flow_alloc("clock", qos) as near:
                near.write(b"last words")
                assert near.read() == b"last words, %d" % number
                with pytest.raises(FlowDownException):
                    near.read()


@pytest.mark.parametrize(("qos", "longest"), [(QOS_RAW, 8976), (QoSSpec(ber=0), 8972), (RELIABLE, MAX_PACKET)])
def test_the_longest_packet_passes_and_a_longer_one_is_refused_with_the_limit(
    nodes: Nodes, qos: QoSSpec, longest: int
) -> None:
    near, far = nodes.flow(qos)
    with near, far:
        packet = random.Random(5).randbytes(longest)
        near.write(packet)
        assert far.read() == packet
        with pytest.raises(FlowSizeException, match=f"at most {longest} bytes"):
            near.write(packet + b"!")
        near.write(b"and on it goes")
        assert far.read() == b"and on it goes"


@pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE])
def test_a_reader_that_stops_holds_its_sender_back_and_nobody_else(nodes: Nodes, qos: QoSSpec) -> None:
    slow_near, slow_far = nodes.flow(qos)
    near, far = nodes.flow(RELIABLE)
    with slow_near, slow_far, near, far:
        slow_near.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingWrite)
        written = 0

        def held_back() -> bool:
            nonlocal written
            try:
                slow_near.write(written.to_bytes(8) * 500)
            except FlowWouldBlockException:
                # Both rings and the window between them are full, unless packets are still on their way.
                return written * 4000 > 2_000_000
            written += 1
            return False

        until(held_back)
        for number in range(100):
            near.write(b"%d" % number)
            assert far.read() == b"%d" % number
        slow_far.set_rcv_timeout(20)
        assert [int.from_bytes(slow_far.read()[:8]) for _ in range(300)] == list(range(300))


@pytest.mark.parametrize(
    ("qos", "impair"),
    [(QOS_RAW, "none"), (ORDERED, "none"), (RELIABLE, "none"), (RELIABLE, "loss=30%,delay=5ms,seed=2")],
    ids=["raw", "ordered", "reliable", "reliable-lossy"],
)
@pytest.mark.parametrize("side", ["allocating", "accepting"])
def test_a_program_that_is_killed_is_no_program_that_deallocated(
    nodes: Nodes, programs: Programs, side: str, qos: QoSSpec, impair: str
) -> None:
    nodes.impair(impair)
    with (nodes.near if side == "allocating" else nodes.far).use():
        program = programs.shell()
        if side == "allocating":
            accepting = nodes.accept()
            program.do(f"f = flow_alloc('clock', {qos!r})")
            flow = accepting.result()
        else:
            program.begin_blocked("f = flow_accept(name='clock')", "node")
            with nodes.near.use():
                flow = flow_alloc("clock", qos)
            program.answer()
    with flow, flow.makefile("rb") as file:
        program.do("f.write(b'torn')")
        assert file.read(4) == b"torn"
        program.kill()
        with pytest.raises(FlowPeerException, match="died"):
            file.read(1)
        with pytest.raises(FlowPeerException, match="died"):
            flow.write(b"anybody there?")


def test_the_flows_of_a_layer_that_is_destroyed_were_not_deallocated_by_their_programs(nodes: Nodes) -> None:
    near, far = nodes.flow(RELIABLE)
    with near, far:
        near.write(b"torn")
        assert far.read() == b"torn"
        with nodes.near.use():
            (layer,) = (each for each in irm.list_ipcps() if each.layer == "net")
            irm.destroy_ipcp(layer.pid)
        with pytest.raises(FlowPeerException):
            far.read()


@pytest.mark.parametrize("flag", [FlowProperties.Down, FlowProperties.WriteOnly])
def test_flags_do_not_cross_the_network(nodes: Nodes, flag: FlowProperties) -> None:
    near, far = nodes.flow(RELIABLE)
    with near, far:
        near.set_flags(flag)
        far.write(b"lost")
        until(lambda: nodes.counters(nodes.near)["received"] > 0)
        near.set_flags(FlowProperties.ReadWrite)
        far.write(b"next")
        assert near.read() == b"next"


def test_a_peer_that_falls_silent_is_given_up_after_the_time_of_the_flow(nodes: Nodes) -> None:
    near, far = nodes.flow(QoSSpec(timeout=500))
    with near, far:
        # Keepalives go both ways, so nothing happens while the network works.
        near.set_rcv_timeout(1.2)
        with pytest.raises(FlowTimeoutException):
            near.read()
        near.set_rcv_timeout(None)
        nodes.impair("partition")
        for flow in (near, far):
            with pytest.raises(FlowPeerException, match="does not answer"):
                flow.read()


def test_garbage_from_anywhere_is_dropped_and_disturbs_nothing(nodes: Nodes) -> None:
    near, far = nodes.flow(RELIABLE)
    noise = random.Random(11)
    with near, far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.3", 0))
        for number in range(300):
            for host in (NEAR, FAR):
                for head in (b"", bytes(4), bytes(44) + bytes([noise.randrange(256)])):
                    stranger.sendto(head + noise.randbytes(noise.randrange(2100)), (host, nodes.port))
            near.write(b"%d" % number)
            assert far.read() == b"%d" % number


def test_packets_of_a_flow_are_taken_from_its_peer_only(nodes: Nodes) -> None:
    near, far = nodes.flow()
    with near, far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.3", 0))
        eid = endpoint_id(nodes.far)
        stranger.sendto(eid.to_bytes(4) + b"forged", (FAR, nodes.port))
        near.write(b"genuine")
        assert far.read() == b"genuine"


def endpoint_id(node: Node) -> int:
    """Ours of the only flow of a node, which nobody else can know."""
    (flow,) = node._node._irm.flows.flows.values()  # type: ignore[attr-defined]
    return int(flow.remote.eid)


def test_queued_packets_of_many_flows_stay_apart(nodes: Nodes) -> None:
    pairs: list[tuple[Flow, Flow]] = [nodes.flow(qos) for qos in (QOS_RAW, RELIABLE, ORDERED) for _ in range(10)]
    try:
        for number, (near, far) in enumerate(pairs):
            near.write(b"to %d" % number)
            far.write(b"from %d" % number)
        for number, (near, far) in enumerate(pairs):
            assert far.read() == b"to %d" % number
            assert near.read() == b"from %d" % number
    finally:
        for near, far in pairs:
            near.dealloc()
            far.dealloc()
