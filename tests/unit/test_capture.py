"""Captures of nodes in virtual time."""

from __future__ import annotations

import io

import dpkt
import pytest
from capture_files import blocks, opened
from sim_world import TYPES, toy
from unicast_world import Layer, line

from ouroboros.errors import FlowNameException, FlowPermissionException, IpcpCreateError
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.settings import LocalSettings
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.testing.sim.capture import Capture
from ouroboros.wire.control import Capture as CaptureRequest
from ouroboros.wire.control import CreateIpcp, DestroyIpcp, Granted

ENCRYPTED = QoSSpec(loss=0, cypher_s=256)
SECRET = b"the secret of this flow, 32 long"


def pair(seed: int = 1) -> tuple[Network, Node, Node, int, int]:
    """Two nodes, the second of which has the name "clock", and their members."""
    network = Network(seed, types=TYPES)
    near, far = network.add_node("near"), network.add_node("far")
    one, other = near.over_udp(peers=[f"clock@{far.address}"]), far.over_udp()
    far.offer("clock", other)
    return network, near, far, one, other


def connect(near: Node, far: Node, qos: QoSSpec = QOS_RAW) -> tuple[Flow, Flow]:
    accepting = far.program("server").accept("clock")
    return near.program("client").alloc("clock", qos).wait().flow, accepting.wait().flow


def payloads(capture: Capture) -> list[bytes]:
    """Of the datagrams in the file, by an independent reader."""
    packets = [dpkt.ip.IP(data) for _, data in dpkt.pcapng.Reader(io.BytesIO(capture.pcapng()))]
    return [bytes(each.udp.data) for each in packets]


def test_both_ends_of_a_path_see_the_same_datagrams() -> None:
    network, near, far, one, other = pair()
    here, there = near.capture(one), far.capture(other)
    client, server = connect(near, far)
    client.write(SECRET)
    assert server.read() == SECRET
    network.run(1)
    assert payloads(here) == payloads(there)
    # A request, its answer, and what the program wrote, behind an endpoint id.
    assert payloads(here)[-1][4:] == SECRET
    assert [record.outward for record in here.records] == [not record.outward for record in there.records]
    assert here.comments[0] == f"layer net: to {far.address}:3435: management"
    number, ours = client.granted.flow_id, here.records[-1].ours
    assert here.comments[-1].endswith(f"flow {number} (endpoint id {ours} here, {here.records[-1].theirs} there)")
    assert (there.records[-1].ours, there.records[-1].theirs) == (here.records[-1].theirs, ours)
    ip = dpkt.ip.IP([data for _, data in dpkt.pcapng.Reader(io.BytesIO(here.pcapng()))][-1])
    ends = [dpkt.utils.inet_to_str(end) for end in (ip.src, ip.dst)]
    assert (ends, ip.udp.sport, ip.udp.dport) == ([near.address, far.address], 3435, 3435)


def test_a_capture_is_in_no_layer() -> None:
    _, near, _, one, _ = pair()
    granted = near.ask(near.program("capture").process, CaptureRequest(one, 64)).wait().flow.granted
    assert (granted.name, granted.layer) == ("capture of net", "")


def test_what_was_sent_is_captured_when_it_leaves_and_when_it_arrives() -> None:
    network, near, far, one, other = pair()
    here, there = near.capture(one), far.capture(other)
    client, server = connect(near, far)
    client.source(50, 1400)
    server.sink()
    network.run(5)
    flights = [late.time - early.time for early, late in zip(here.records, there.records, strict=True) if early.outward]
    assert set(flights) == {1_000_000}
    assert [record.time for record in here.records] == sorted(record.time for record in here.records)
    assert here.records[0].time >= network.wall - 6 * 10**9


@pytest.mark.parametrize("below", [QOS_RAW, ENCRYPTED])
def test_what_a_flow_of_the_layer_encrypts_stays_encrypted(below: QoSSpec) -> None:
    layer = Layer([])
    layer.add([0])
    layer.connect(1, 0, below)
    layer.offer("clock", 0)
    captures = [node.capture(id) for node, id in zip(layer.nodes, layer.ids, strict=True)]
    captures += [node.capture(id) for node, id in zip(layer.nodes, layer.udp, strict=True)]
    client, server = layer.flow("clock", 1, 0, ENCRYPTED)
    client.write(SECRET)
    assert server.read() == SECRET
    server.write(SECRET[::-1])
    assert client.read() == SECRET[::-1]
    for capture in captures:
        assert capture.records
        file = capture.pcapng()
        assert SECRET[:8] not in file
        assert SECRET[::-1][:8] not in file
    sealed = [record for record in captures[1].records if record.sealed]
    assert {record.outward for record in sealed} == {True, False}
    assert {record.flow for record in sealed} == {client.granted.flow_id}


def test_a_layer_over_others_is_captured_with_what_goes_through_its_member() -> None:
    layer = Layer(line(3))
    layer.offer("clock", 0)
    middle, end = layer.nodes[1].capture(layer.ids[1]), layer.nodes[2].capture(layer.ids[2])
    client, server = layer.flow("clock", 2, 0)
    layer.network.run(1)
    before = len(middle.records)
    client.write(SECRET)
    assert server.read() == SECRET
    middle.drain()
    came, went = middle.records[before:]
    assert (came.outward, went.outward, came.below != went.below) == (False, True, True)
    assert came.data[15:] == went.data[15:] == SECRET
    # One that is not for it is of none of its flows, and its TTL is one less behind it.
    assert (came.flow, came.data[5] - went.data[5]) == (None, 1)
    address = layer.member(0).entry().address
    assert f"to member {address}, cube" in middle.comments[before]
    ends = f"endpoint id {end.records[-1].ours} here, {end.records[-1].theirs} there"
    assert end.comments[-1].endswith(f"flow {client.granted.flow_id} ({ends})")


def test_words_between_members_are_captured_with_their_layer() -> None:
    layer = Layer([])
    capture = layer.nodes[0].capture(layer.ids[0])
    layer.add([0])
    layer.network.run(2)
    control = [comment for comment in capture.comments if comment.endswith("control message")]
    assert any("received by flow" in comment for comment in control)
    assert any("sent by flow" in comment for comment in control)
    # The names of components are in their greetings.
    assert any(b"Management" in record.data for record in capture.records if record.control)


def test_a_toy_layer_is_captured_with_its_endpoint_ids() -> None:
    _network, near, far, _one, other = pair()
    toys = toy(far, "far-toy", "toys", other)
    capture = far.capture(toys)
    client, server = connect(near, far)
    client.write(SECRET)
    assert server.read() == SECRET
    # What the layer below carries for others is none of its packets.
    assert capture.records == []


@pytest.mark.parametrize("kind", ["local", "broadcast"])
def test_what_stays_in_the_node_is_captured_once(kind: str) -> None:
    network = Network(1)
    node = network.add_node("n")
    ipcp = node.add_ipcp(kind, "lab", LocalSettings(impair="delay=1ms") if kind == "local" else None)
    capture = node.capture(ipcp)
    if kind == "local":
        node.offer("clock", ipcp)
        client, server = connect(node, node)
    else:
        client, server, other = (node.program(each).join("lab").wait().flow for each in ("one", "two", "three"))
    client.write(SECRET)
    assert server.read() == SECRET
    if kind == "broadcast":
        assert other.read() == SECRET
    capture.drain()
    assert [record.data for record in capture.records] == [SECRET]
    assert capture.comments[0].startswith("layer lab: within the node: 32 bytes")
    assert (capture.records[0].flow is None) == (kind == "broadcast")


def test_no_more_is_kept_of_a_packet_than_is_wanted() -> None:
    _network, near, far, _one, other = pair()
    whole, short = far.capture(other), far.capture(other, snap=20)
    client, server = connect(near, far)
    client.write(bytes(1400))
    server.read()
    whole.drain()
    short.drain()
    assert [record.length for record in short.records] == [len(record.data) for record in whole.records]
    assert {len(record.data) for record in short.records} == {20}
    assert [record.data[:20] for record in whole.records] == [record.data for record in short.records]


def test_a_reader_that_is_too_slow_loses_packets_and_slows_nobody() -> None:
    network, near, far, _one, other = pair()
    slow = far.capture(other)
    client, server = connect(near, far, QoSSpec(loss=0))
    slow.drain()
    network.captures.remove(slow)
    slow._flow.watch(on=False)
    client.source(5000, 1200)
    server.sink()
    network.run(30)
    assert server.tally()["read"] == 5000
    assert network.balance().missing == 0
    slow.drain()
    # The next packet tells what is missing before it.
    server.write(SECRET)
    network.run(2)
    slow.drain()
    lost = [record.lost for record in slow.records]
    assert (lost[0], lost) == (0, sorted(lost))
    assert lost[-1] > 3000
    counters = far.counters(other)
    assert len(slow.records) + lost[-1] == counters["received"] + counters["sent"]
    # And so does the file, packet by packet and in sum.
    packets = [body for kind, body in blocks(slow.pcapng()) if kind == 6]
    gaps = [option.data for body in packets for option in opened(body).opts if option.code == 4]
    assert sum(int.from_bytes(gap, "little") for gap in gaps) == lost[-1]
    *_, (kind, statistics) = blocks(slow.pcapng())
    assert kind == 5
    assert statistics[16:24] == (len(lost) + lost[-1]).to_bytes(8, "little")
    assert statistics[28:36] == lost[-1].to_bytes(8, "little")


def test_a_capture_changes_nothing_of_what_it_sees() -> None:
    def run(captured: bool) -> tuple[dict[str, int], float]:
        network, near, far, one, other = pair()
        captures = [near.capture(one), far.capture(other)] if captured else []
        client, server = connect(near, far, QoSSpec(loss=0))
        near.impair("loss=5%,reorder=5%,delay=3ms,seed=3")
        client.source(300, 1000)
        server.sink()
        network.run(20)
        assert server.tally()["read"] == 300
        assert all(capture.records for capture in captures)
        return network.counted() | server.tally(), network.now

    with_captures, without = run(captured=True), run(captured=False)
    # Programs and nodes are looked after as often, and at the same times.
    assert with_captures == without


def test_two_runs_of_a_seed_are_captured_byte_for_byte() -> None:
    def run(seed: int) -> list[bytes]:
        layer = Layer(line(3), seed=seed)
        layer.offer("clock", 0)
        captures = [node.capture(id) for node, id in zip(layer.nodes, layer.ids, strict=True)]
        captures += [node.capture(id) for node, id in zip(layer.nodes, layer.udp, strict=True)]
        client, server = layer.flow("clock", 2, 0, QoSSpec(loss=0))
        client.source(20, 500)
        server.echo()
        layer.network.run(5)
        return [capture.pcapng() for capture in captures]

    assert run(1) == run(1) != run(2)


def test_a_capture_ends_with_its_layer_and_costs_nothing_after_it_was_stopped() -> None:
    network, near, far, one, other = pair()
    gone, stopped, last = far.capture(other), far.capture(other), near.capture(one)
    connect(near, far)
    stopped.stop()
    seen = len(stopped.records)
    far.manage(DestroyIpcp(other)).wait().value  # noqa: B018 - or its error
    network.run(1)
    assert network.captures == [last]
    assert gone.records
    assert len(stopped.records) == seen
    assert [flow.name for flow in far.irm.flows.flows.values() if flow.name.startswith("capture")] == []


def test_what_a_reader_writes_goes_nowhere() -> None:
    network, _near, far, _one, other = pair()
    capture = far.capture(other)
    for _ in range(3000):
        capture._flow.write(bytes(1000))
    network.run(1)
    capture.drain()
    assert (capture.records, network.balance().sent, network.balance().missing) == ([], 0, 0)
    capture.stop()
    network.run(1)
    assert far.irm.flows.flows == {}


def test_only_the_owner_may_capture() -> None:
    network, _near, far, _one, other = pair()
    stranger = far.irm.process_arrived(77, 4711, "spy")
    asked = far.ask(stranger, CaptureRequest(other, 100))
    # The owner of the connection counts, whoever the process is.
    assert isinstance(asked.answer, Granted)
    refused: list[object] = []
    far._answer = lambda token, message: refused.append(message)  # type: ignore[method-assign]
    far.irm.handle(9999, stranger, CaptureRequest(other, 100), network.now, user=4711)
    far._carry_out()
    (answer,) = refused
    assert getattr(answer, "error", "") == FlowPermissionException.__name__


def test_what_is_in_no_layer_cannot_be_captured() -> None:
    _network, near, *_ = pair()
    idle = near.manage(CreateIpcp("idle", "local")).value
    assert isinstance(idle, int)
    with pytest.raises(FlowNameException, match="in no layer yet"):
        near.capture(idle)
    manager = near.program("manager")
    with pytest.raises(IpcpCreateError, match="no IPC process"):
        near.ask(manager.process, CaptureRequest(12, 100)).value  # noqa: B018
