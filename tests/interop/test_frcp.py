"""Reliable and ordered flows with the C prototype, over a link that loses, repeats and reorders.

The other side is the prototype without the faults that end its own reliable flows. Where the prototype's own recovery is too
slow for its tools, its side is a program that the test directs.
"""

from __future__ import annotations

import hashlib

import pytest
from interop.conftest import World
from interop.hosts import Program
from interop.test_raw import received
from support import Background, forever

from ouroboros.dev import Flow, FlowProperties, flow_accept, flow_alloc
from ouroboros.errors import FlowSizeException, FlowTimeoutException, FlowWouldBlockException
from ouroboros.qos import QOS_DATA, QoSSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: The prototype's words for a reliable flow and for an ordered one, without a checksum.
DATA = {"delay": 1000, "loss": 0, "ber": 1, "in_order": 1, "max_gap": 2000, "timeout": 120_000}
BEST = DATA | {"loss": 1}
RELIABLE = QoSSpec(delay=1000, loss=0, in_order=1, max_gap=2000)
ORDERED = QoSSpec(in_order=1)

LOSSES = pytest.mark.parametrize("loss", [0, 0.01, 0.05], ids=["no loss", "1% loss", "5% loss"])
LARGEST = {"udp4": 8964, "udp6": 8936}
#: Seconds that a program of theirs waits for a packet or for room: less than until a keepalive might wake anybody.
PATIENCE = 20


def numbered(number: int, size: int) -> bytes:
    """A packet as the prototype's side numbers them."""
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


def digest(packets: list[bytes]) -> str:
    """Of packets, as the prototype's side computes it."""
    whole = hashlib.sha256()
    for packet in packets:
        whole.update(len(packet).to_bytes(4, "big") + packet)
    return whole.hexdigest()


def opened(world: World, qos: QoSSpec) -> tuple[Flow, Program, int]:
    """A flow from us to a program of theirs, with the number that it has there."""
    program = world.theirs.program("theirs")
    program.begin("accept", 40)
    flow = flow_alloc("theirs", qos)
    accepted, _ = program.answer()
    program.do("timeouts", accepted, PATIENCE)
    flow.set_rcv_timeout(2 * PATIENCE)
    return flow, program, accepted


def taken(world: World, spec: dict[str, int]) -> tuple[Flow, Program, int]:
    """A flow from a program of theirs to us."""
    program = world.theirs.program()
    world.ours.offer("ours")
    waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))
    program.begin("alloc", "ours", spec, 40)
    flow = waiting.result()
    allocated = program.answer()
    assert allocated >= 0
    program.do("timeouts", allocated, PATIENCE)
    flow.set_rcv_timeout(2 * PATIENCE)
    return flow, program, allocated


# --- reliable


@LOSSES
def test_our_oping_with_their_server(linked: World, loss: float) -> None:
    linked.theirs.serve("oping", "-Q")
    linked.faults.set(loss=loss)
    assert received(linked.ours.run("oping", "-n", "oping", "-q", "data", "-c", "200", "-i", "10", "-Q")) == (200, 200)


@LOSSES
def test_their_oping_with_our_server(linked: World, loss: float) -> None:
    linked.ours.serve("oping", "-Q")
    linked.faults.set(loss=loss)
    ping = linked.theirs.run("oping", "-n", "oping", "-q", "data", "-c", "200", "-i", "10")
    assert received(ping) == (200, 200)
    assert not any("out-of-order]" in line for line in ping.said)


def test_over_both_families(patched: World) -> None:
    patched.theirs.serve("oping", "-Q")
    assert received(patched.ours.run("oping", "-n", "oping", "-q", "data", "-c", "100", "-i", "5", "-Q")) == (100, 100)


def test_over_both_families_from_them(patched: World) -> None:
    patched.ours.serve("oping", "-Q")
    assert received(patched.theirs.run("oping", "-n", "oping", "-q", "data", "-c", "100", "-i", "5", "-Q")) == (
        100,
        100,
    )


@LOSSES
def test_all_of_ours_arrives_there(linked: World, loss: float) -> None:
    flow, program, accepted = opened(linked, RELIABLE)
    linked.faults.set(loss=loss)
    packets = [numbered(number, 1400) for number in range(2000)]
    with flow:
        program.begin("receive", accepted, len(packets))
        for packet in packets:
            flow.write(packet)
        assert program.answer() == [len(packets), digest(packets), 0]
        assert linked.faults.set().get("lost", 0) > 0 or loss == 0


@LOSSES
def test_all_of_theirs_arrives_here(linked: World, loss: float) -> None:
    flow, program, allocated = taken(linked, DATA)
    linked.faults.set(loss=loss)
    with flow:
        program.begin("send", allocated, 500, 1400)
        packets = [flow.read() for _ in range(500)]
        assert program.answer() == [500, digest(packets), 0]


def test_repeated_and_reordered_packets_are_put_right(linked: World) -> None:
    flow, program, accepted = opened(linked, RELIABLE)
    linked.faults.set(duplicate=0.05, reorder=0.05)
    packets = [numbered(number, 100) for number in range(1000)]
    with flow:
        program.begin("receive", accepted, len(packets))
        for packet in packets:
            flow.write(packet)
        assert program.answer() == [len(packets), digest(packets), 0]
        program.begin("send", accepted, 300, 100)
        answers = [flow.read() for _ in range(300)]
        assert program.answer() == [300, digest(answers), 0]


def test_broken_packets_from_the_peer_change_nothing(linked: World) -> None:
    flow, program, allocated = taken(linked, DATA)
    linked.faults.set(junk=0.3)
    with flow:
        program.begin("send", allocated, 300, 100)
        packets = [flow.read() for _ in range(300)]
        assert program.answer() == [300, digest(packets), 0]
        assert linked.faults.set()["junk"] > 0


def test_our_layer_impairs_what_it_carries(patched: World) -> None:
    patched.ours.irm("ipcp", "impair", "name", "u", "impair", "loss=5%,seed=3")
    flow, program, accepted = opened(patched, RELIABLE)
    packets = [numbered(number, 500) for number in range(500)]
    with flow:
        program.begin("receive", accepted, len(packets))
        for packet in packets:
            flow.write(packet)
        assert program.answer() == [len(packets), digest(packets), 0]


def test_our_server_may_think_before_it_answers(linked: World) -> None:
    # Longer than their delay of acknowledgements: the peer must learn our numbers from what we send before our first data.
    flow, program, allocated = taken(linked, DATA)
    with flow:
        for number in range(20):
            program.do("write", allocated, numbered(number, 64).hex())
            assert flow.read() == numbered(number, 64)
            flow.set_rcv_timeout(0.05)
            with pytest.raises(FlowTimeoutException):
                flow.read()
            flow.set_rcv_timeout(2 * PATIENCE)
            flow.write(b"answer %d" % number)
            assert bytes.fromhex(program.do("read", allocated)) == b"answer %d" % number


def test_their_server_answers_after_a_thousand_messages(linked: World) -> None:
    flow, program, accepted = opened(linked, RELIABLE)
    with flow:
        program.begin("receive", accepted, 1000)
        for number in range(1000):
            flow.write(numbered(number, 100))
        assert program.answer()[0] == 1000
        assert program.do("write", accepted, b"thanks".hex()) == 6
        assert flow.read() == b"thanks"


def test_reader_that_stops_there_stops_only_its_own_flow(linked: World) -> None:
    linked.theirs.serve("oping", "-Q")
    flow, program, accepted = opened(linked, RELIABLE)
    with flow:
        flow.set_flags(flow.get_flags() | FlowProperties.NonBlockingWrite)
        packets: list[bytes] = []

        def write() -> None:
            packet = numbered(len(packets), 1000)
            flow.write(packet)
            packets.append(packet)

        with pytest.raises(FlowWouldBlockException):
            forever(write)
        before = linked.faults.set().get("carried", 0)
        # Unread retransmissions would fill the ring there and stop its whole layer.
        assert received(linked.ours.run("oping", "-n", "oping", "-c", "300", "-i", "10", "-Q")) == (300, 300)
        assert linked.faults.set()["carried"] - before < 1200
        flow.set_flags(flow.get_flags() & ~FlowProperties.NonBlockingWrite)
        assert program.do("receive", accepted, len(packets)) == [len(packets), digest(packets), 0]


def test_reader_that_stops_here_stops_only_its_own_flow(linked: World) -> None:
    linked.ours.serve("oping", "-Q")
    flow, program, allocated = taken(linked, DATA)
    with flow:
        program.begin("send", allocated, 2000, 1000)
        assert received(linked.theirs.run("oping", "-n", "oping", "-c", "100", "-i", "10", "-Q")) == (100, 100)
        packets = [flow.read() for _ in range(2000)]
        assert program.answer() == [2000, digest(packets), 0]


def test_what_was_written_before_deallocation_arrives(linked: World) -> None:
    flow, program, accepted = opened(linked, RELIABLE)
    linked.faults.set(from_near=0.3)
    packets = [numbered(number, 500) for number in range(50)]
    with flow:
        for packet in packets:
            flow.write(packet)
    # It lingers in the node, not in the program.
    assert program.do("receive", accepted, len(packets)) == [len(packets), digest(packets), 0]


def test_largest_message_and_one_byte_more(patched: World) -> None:
    largest = LARGEST[patched.family]
    flow, program, accepted = opened(patched, RELIABLE)
    with flow:
        program.begin("echo", accepted, 2)
        for message in (numbered(1, largest), b"x"):
            flow.write(message)
            assert flow.read() == message
        assert program.answer() == [2, 0]
        with pytest.raises(FlowSizeException, match=str(largest)):
            flow.write(bytes(largest + 1))


def test_reliable_flow_that_asks_for_a_checksum(linked: World) -> None:
    # The prototype puts none on acknowledgements and drops ours without: it must not be asked for any.
    linked.theirs.serve("oping", "-Q")
    program = linked.theirs.program("theirs")
    program.begin("accept", 40)
    with flow_alloc("theirs", QOS_DATA) as flow:
        accepted, seen = program.answer()
        assert seen["ber"] != 0
        program.begin("receive", accepted, 300)
        packets = [numbered(number, 100) for number in range(300)]
        for packet in packets:
            flow.write(packet)
        assert program.answer() == [300, digest(packets), 0]


# --- ordered, may lose


@pytest.mark.parametrize("qos", ["best", "voice", "video"])
def test_our_oping_in_order_with_their_server(linked: World, qos: str) -> None:
    linked.theirs.serve("oping", "-Q")
    assert received(linked.ours.run("oping", "-n", "oping", "-q", qos, "-c", "100", "-i", "10", "-Q")) == (100, 100)


@pytest.mark.parametrize("qos", ["best", "voice", "video"])
def test_their_oping_in_order_with_our_server(linked: World, qos: str) -> None:
    linked.ours.serve("oping", "-Q")
    ping = linked.theirs.run("oping", "-n", "oping", "-q", qos, "-c", "100", "-i", "10")
    assert received(ping) == (100, 100)
    assert not any("out-of-order]" in line for line in ping.said)


@pytest.mark.parametrize("loss", [0.01, 0.05], ids=["1% loss", "5% loss"])
def test_ordered_flow_goes_on_after_losses(linked: World, loss: float) -> None:
    linked.theirs.serve("oping", "-Q")
    linked.faults.set(loss=loss)
    sent, back = received(linked.ours.run("oping", "-n", "oping", "-q", "best", "-c", "300", "-i", "10", "-Q"))
    lost = linked.faults.set()["lost"]
    assert sent == 300
    # Each lost datagram costs at most one packet, and their layer sometimes lets one overtake another, which costs one, too.
    assert 300 - lost - 30 <= back < 300


def test_ordered_flow_survives_more_losses_than_its_window(linked: World) -> None:
    # A receiver of the prototype's kind closes the window for good at the 256th packet that is lost.
    flow, program, allocated = taken(linked, BEST)
    linked.faults.set(from_far=0.1)
    with flow:
        program.begin("send", allocated, 4000, 100)
        numbers: list[int] = []
        flow.set_rcv_timeout(5)
        with pytest.raises(FlowTimeoutException):
            forever(lambda: numbers.append(int.from_bytes(flow.read()[:4], "big")))
        assert program.answer()[0] == 4000
        assert numbers == sorted(set(numbers))
        assert 4000 - linked.faults.set()["lost"] <= len(numbers) + 20
        assert numbers[-1] > 3900


def test_ordered_flow_one_way_to_them_does_not_stop(linked: World) -> None:
    # The prototype's receiver says nothing about its window until it is asked.
    flow, program, accepted = opened(linked, ORDERED)
    program.do("timeouts", accepted, 3)
    with flow:
        program.begin("receive", accepted, 1000)
        for number in range(1000):
            flow.write(numbered(number, 100))
        # Its layer reorders, and what comes late is lost on such a flow.
        assert program.answer()[0] > 500


def test_ordered_flow_one_way_to_us_does_not_stop(linked: World) -> None:
    # The prototype's sender stops after 64 packets when it hears nothing.
    flow, program, allocated = taken(linked, BEST)
    flow.set_rcv_timeout(3)
    numbers: list[int] = []
    with flow:
        program.begin("send", allocated, 1000, 100)
        with pytest.raises(FlowTimeoutException):
            forever(lambda: numbers.append(int.from_bytes(flow.read()[:4], "big")))
        assert program.answer()[0] == 1000
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 500
