"""Impaired layers between real programs: what is lost is counted, and the same for the same seed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support import NodeProcess, Programs, Shell, descriptors, until

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowPeerException,
    QoSSpec,
    flow_alloc,
)
from ouroboros.qos import QOS_DATA
from ouroboros.runtime import client
from ouroboros.settings import LocalSettings
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    ImpairIpcp,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    RegisterName,
)

PACKETS = 400
#: The last packet of a direction; it is sent through a link that loses nothing.
END = b"end"


@dataclass
class Layer:
    """An impaired layer with the name "clock", and what to do about it."""

    ipcp: int

    def impair(self, text: str) -> None:
        client.request(ImpairIpcp(self.ipcp, text))

    def entry(self) -> IpcpEntry:
        entries: list[IpcpEntry] = client.request(ListIpcps())
        return next(each for each in entries if each.id == self.ipcp)

    def seen(self) -> int:
        """How many of the packets that were sent have met their fate."""
        entry = self.entry()
        return int(entry.delivered - entry.duplicated + entry.lost)


@pytest.fixture
def make_layer(node: NodeProcess) -> Callable[[str], Layer]:
    def make(impair: str) -> Layer:
        number = len(client.request(ListIpcps()))
        ipcp = client.request(CreateIpcp(f"l{number}", "local"))
        client.request(BootstrapIpcp(ipcp, f"lab{number}", LocalSettings(impair=impair)))
        client.request(CreateName("clock", "spillover"))
        client.request(RegisterName("clock", ipcp))
        return Layer(ipcp)

    return make


@pytest.fixture
def far(node: NodeProcess, programs: Programs) -> Shell:
    """The program that accepts flows to "clock"; the flow is its `f`."""
    return programs.shell("far")


@pytest.fixture
def connect(far: Shell) -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []

    def make(qos: QoSSpec | None = None) -> Flow:
        far.begin("f = flow_accept(name='clock')")
        flows.append(flow_alloc("clock", qos))
        far.answer()
        return flows[-1]

    yield make
    for flow in flows:
        flow.dealloc()


def send(flow: Flow, layer: Layer) -> None:
    """Send numbered packets, and the end when all have met their fate."""
    before = layer.seen()
    for number in range(PACKETS):
        flow.write(b"%d" % number)
    until(lambda: layer.seen() == before + PACKETS)
    layer.impair("none")
    flow.write(END)


def received(far: Shell) -> list[int]:
    """The numbers that arrived, in the order of their arrival."""
    far.do("got = []")
    far.do("while (packet := f.read()) != b'end': got.append(int(packet))")
    numbers: list[int] = far.do("got")
    return numbers


# --- each impairment


def test_loss_is_counted_and_the_same_for_the_same_seed(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("none")
    arrived = []
    for seed in (42, 42, 43):
        layer.impair(f"loss=20%,seed={seed}")
        before = layer.entry()
        flow = connect()
        send(flow, layer)
        arrived.append(received(far))
        # Before the number of the flow is given to the next one, both have to let go of it.
        flow.dealloc()
        far.do("f.dealloc()")
        until(lambda: client.request(ListFlows()) == [])
        after = layer.entry()
        assert after.lost - before.lost == PACKETS - len(arrived[-1])
        assert after.delivered - before.delivered == len(arrived[-1]) + 1
    assert arrived[0] == arrived[1] != arrived[2]
    for numbers in arrived:
        assert 20 < PACKETS - len(numbers) < 160
        assert numbers == sorted(numbers)


def test_both_directions_are_impaired_and_differ(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("loss=20%,seed=1")
    flow = connect()
    far.do(f"for number in range({PACKETS}): f.write(b'%d' % number)")
    until(lambda: layer.seen() == PACKETS)
    send(flow, layer)
    there = received(far)
    until(lambda: layer.seen() == 2 * PACKETS + 1)
    far.do("f.write(b'end')")
    back = []
    while (packet := flow.read()) != END:
        back.append(int(packet))
    assert there != back
    assert layer.entry().lost == 2 * PACKETS - len(there) - len(back)


def test_duplicates_arrive_twice_and_are_counted(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("duplicate=20%")
    send(connect(), layer)
    numbers = received(far)
    assert sorted(set(numbers)) == list(range(PACKETS))
    assert numbers == sorted(numbers)
    assert layer.entry().duplicated == len(numbers) - PACKETS > 20


def test_reordered_packets_arrive_once_and_are_counted(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("reorder=30%")
    send(connect(), layer)
    numbers = received(far)
    assert sorted(numbers) == list(range(PACKETS))
    overtaken = sum(one > other for one, other in itertools.pairwise(numbers))
    assert layer.entry().reordered == overtaken > 0


def test_delay_and_jitter_keep_the_order(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    make_layer("delay=30ms,jitter=5ms")
    flow = connect()
    begin = time.monotonic()
    for number in range(50):
        flow.write(b"%d" % number)
    flow.write(END)
    assert received(far) == list(range(50))
    there = time.monotonic()
    assert there - begin >= 0.030
    far.do("f.write(b'back')")
    assert flow.read() == b"back"
    assert time.monotonic() - there >= 0.030


def test_the_rate_is_a_bound(make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell) -> None:
    layer = make_layer("rate=8M")
    flow = connect()
    begin = time.monotonic()
    # 100 ms of it.
    for _ in range(100):
        flow.write(bytes(1000))
    until(lambda: layer.entry().delivered == 100)
    assert time.monotonic() - begin >= 0.100
    assert far.do("all(f.read() == bytes(1000) for _ in range(100))")


def test_a_partition_lets_nothing_through_until_it_heals(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("none")
    flow = connect()
    flow.write(b"before")
    assert far.do("f.read()") == b"before"
    layer.impair("partition")
    assert layer.entry().impair == "partition"
    flow.write(b"lost")
    far.do("f.write(b'lost')")
    until(lambda: layer.entry().lost == 2)
    layer.impair("none")
    flow.write(b"after")
    assert far.do("f.read()") == b"after"
    far.do("f.write(b'after')")
    assert flow.read() == b"after"


def test_long_packets_pass_whole(make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell) -> None:
    make_layer("delay=1ms")
    flow = connect()
    flow.write(b"x" * (1 << 20))
    assert far.do("f.read() == b'x' * (1 << 20)")


# --- flows that are promised more than a bad link gives


@pytest.mark.parametrize("qos", [QOS_DATA, QoSSpec(loss=0)], ids=["data", "reliable"])
def test_a_reliable_flow_delivers_everything_in_order(
    make_layer: Callable[[str], Layer], connect: Callable[[QoSSpec], Flow], far: Shell, qos: QoSSpec
) -> None:
    layer = make_layer("loss=10%,reorder=10%,duplicate=10%,delay=1ms,seed=4")
    flow = connect(qos)
    for number in range(500):
        flow.write(number.to_bytes(2) * 700)
    assert far.do("[int.from_bytes(f.read()[:2]) for _ in range(500)] == list(range(500))")
    flow.write(b"x" * (1 << 20))
    far.do("f.write(f.read())")
    assert flow.read() == b"x" * (1 << 20)
    assert layer.entry().lost > 0
    flow.write(b"last words")
    flow.dealloc()
    assert far.do("f.read()") == b"last words"
    with pytest.raises(FlowDownException, match="deallocated"):
        far.do("f.read()")


def test_an_ordered_flow_loses_packets_but_keeps_their_order(
    make_layer: Callable[[str], Layer], connect: Callable[[QoSSpec], Flow], far: Shell
) -> None:
    make_layer("loss=20%,reorder=20%,seed=4")
    flow = connect(QoSSpec(in_order=1))
    for number in range(500):
        flow.write(number.to_bytes(2))
    flow.dealloc()
    code = """
numbers = []
try:
    while True:
        numbers.append(int.from_bytes(f.read()))
except FlowDownException:
    pass
len(numbers), numbers == sorted(numbers)
"""
    received, in_order = far.do(code)
    assert 300 < received < 500
    assert in_order


# --- ends


@pytest.mark.parametrize("impair", ["none", "delay=20ms"])
@pytest.mark.parametrize("leaver", ["allocator", "acceptor"])
def test_what_was_written_before_dealloc_still_arrives(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell, impair: str, leaver: str
) -> None:
    make_layer(impair)
    flow = connect()
    if leaver == "allocator":
        flow.write(b"last words")
        flow.dealloc()
        assert far.do("f.read()") == b"last words"
        with pytest.raises(FlowDownException, match="deallocated"):
            far.do("f.read()")
    else:
        far.do("f.write(b'last words'); f.dealloc()")
        assert flow.read() == b"last words"
        with pytest.raises(FlowDownException, match="deallocated"):
            flow.read()


@pytest.mark.parametrize("impair", ["none", "delay=20ms"])
@pytest.mark.parametrize("qos", [None, QoSSpec(in_order=1), QoSSpec(loss=0)], ids=["raw", "ordered", "reliable"])
def test_the_allocator_hears_of_the_death_of_the_acceptor(
    make_layer: Callable[[str], Layer],
    connect: Callable[[QoSSpec | None], Flow],
    far: Shell,
    qos: QoSSpec | None,
    impair: str,
) -> None:
    make_layer(impair)
    flow = connect(qos)
    far.do("f.write(b'last words')")
    far.kill()
    assert flow.read() == b"last words"
    with pytest.raises(FlowPeerException, match="died"):
        flow.read()


def test_the_acceptor_hears_of_the_death_of_the_allocator(
    make_layer: Callable[[str], Layer], far: Shell, programs: Programs
) -> None:
    make_layer("delay=20ms")
    near = programs.shell("near")
    far.begin("f = flow_accept(name='clock')")
    near.do("f = flow_alloc('clock'); f.write(b'last words')")
    far.answer()
    far.begin_blocked("f.read(), f.read()", "poll")
    near.kill()
    with pytest.raises(FlowPeerException, match="died"):
        far.answer()


def test_a_writer_hears_of_the_death_of_its_reader(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    make_layer("delay=1ms")
    flow = connect()
    far.kill()

    def write_until_down() -> None:
        while True:
            flow.write(b"anybody there?")

    with pytest.raises(FlowPeerException, match="died"):
        write_until_down()


def test_flows_of_a_layer_that_is_destroyed_end_without_a_word_of_the_peer(
    node: NodeProcess, make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    layer = make_layer("delay=1ms")
    flow = connect()
    far.begin_blocked("f.read()", "poll")
    client.request(DestroyIpcp(layer.ipcp))
    with pytest.raises(FlowPeerException, match="layer between ended"):
        flow.read()
    with pytest.raises(FlowPeerException, match="layer between ended"):
        far.answer()
    far.do("f.dealloc()")
    flow.dealloc()
    until(lambda: client.request(ListFlows()) == [])
    # The name is in no impaired layer any more.
    flow = connect()
    flow.write(b"directly")
    assert far.do("f.read()") == b"directly"


def test_flags_of_a_flow_reach_the_other_side(
    make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    make_layer("none")
    flow = connect()
    far.do("f.set_flags(FlowProperties.ReadWrite | FlowProperties.Down)")
    with pytest.raises(FlowDownException, match=r"FlowProperties\.Down"):
        flow.read()
    far.do("f.set_flags(FlowProperties.ReadWrite); f.write(b'up again')")

    def heard() -> bool:
        try:
            return flow.read() == b"up again"
        except FlowDownException:
            return False

    until(heard)


def test_nothing_is_left_of_relayed_flows(
    node: NodeProcess, make_layer: Callable[[str], Layer], connect: Callable[[], Flow], far: Shell
) -> None:
    make_layer("none")
    # What the first flow makes, such as the connection of the far program, stays.
    connect().dealloc()
    far.do("f.dealloc()")
    until(lambda: client.request(ListFlows()) == [])
    # The engine lets go a bit later.
    until(lambda: descriptors(node.pid)["flow memory"] == 0)
    before = descriptors(node.pid)
    for _ in range(20):
        connect().dealloc()
        far.do("f.dealloc()")
    until(lambda: client.request(ListFlows()) == [])
    # Doorbells of the first flow may have been among those counted before.
    until(lambda: not descriptors(node.pid) - before)
