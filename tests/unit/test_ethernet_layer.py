"""Layers on an Ethernet segment: the real control code and the real engine, in virtual time."""

from __future__ import annotations

import pytest
from unicast_world import COMPONENTS

from ouroboros.errors import FlowDownException, FlowNameException, FlowPeerException, IpcpBootstrapError
from ouroboros.layers.ethernet.directory import CACHE_TIME, FIRST_PAUSE, QUERIES, LlcEnd
from ouroboros.layers.members.upkeep import SILENT_PAUSE
from ouroboros.oap import Session
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime.devices import Device
from ouroboros.settings import DirectoryHashAlgo, EthConfig, EthDixSettings, EthLlcSettings
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    ConnectIpcp,
    CreateIpcp,
    DestroyIpcp,
    EnrollIpcp,
    Granted,
    RegisterName,
    Request,
    UnregisterName,
)
from ouroboros.wire.ethernet import DIX, NameQuery, NameReply

QUALITIES = [QOS_RAW, QoSSpec(loss=0, in_order=1), QoSSpec(loss=0, in_order=1, cypher_s=256)]


def station(network: Network, name: str) -> tuple[Node, int]:
    node = network.add_node(name)
    return node, node.add_ipcp("eth-dix", "segment", EthDixSettings(eth=EthConfig("eth0")))


def pair(seed: int = 1) -> tuple[Network, Node, Node]:
    """Two stations, the second of which has the name "clock"."""
    network = Network(seed)
    near, _ = station(network, "near")
    far, there = station(network, "far")
    far.offer("clock", there)
    return network, near, far


def connect(near: Node, far: Node, qos: QoSSpec | None = None) -> tuple[Flow, Flow]:
    accepting = far.program("server").accept("clock")
    client = near.program("watch").alloc("clock", qos).wait().flow
    return client, accepting.wait().flow


@pytest.mark.parametrize("qos", QUALITIES)
def test_packets_go_both_ways(qos: QoSSpec) -> None:
    network, near, far = pair()
    client, server = connect(near, far, qos)
    server.echo()
    client.source(200, 1000)
    network.run(5)
    assert client.tally()["read"] == server.tally()["read"] == 200
    assert network.balance().missing == 0


def test_a_lossy_segment_costs_time_but_no_flow_and_no_packet() -> None:
    network, near, far = pair()
    near.impair("loss=30%")
    far.impair("loss=30%")
    client, server = connect(near, far, QUALITIES[1])
    server.sink()
    client.source(300, 900)
    network.run(60)
    assert server.tally()["read"] == 300


def test_a_name_that_no_station_has_is_told_soon_and_says_what_helps() -> None:
    network, near, _ = pair()
    with pytest.raises(
        FlowNameException, match="no station on the segment has it; `irm name register watch layer LAYER`"
    ):
        _ = near.program("watch").alloc("watch").wait().flow
    assert network.now < 5
    (ipcp,) = near.irm.ipcps
    assert near.counters(ipcp)["queries_sent"] == QUERIES


def test_no_proofs_are_counted_where_there_are_none() -> None:
    _, near, _ = pair()
    (ipcp,) = near.irm.ipcps
    assert "requests_proven" not in near.counters(ipcp)
    assert "requests_sent" in near.counters(ipcp)


def test_a_name_is_asked_for_once_and_again_when_the_answer_is_old() -> None:
    network, near, far = pair()
    (ipcp,) = near.irm.ipcps
    for queries in (1, 1):
        connect(near, far)
        assert near.counters(ipcp)["queries_sent"] == queries
    network.run(CACHE_TIME)
    connect(near, far)
    assert near.counters(ipcp)["queries_sent"] == 2


def test_a_segment_that_answered_for_a_name_is_asked_before_others() -> None:
    network = Network(1)
    near, far = network.add_node("near"), network.add_node("far")
    # In the other layer, whose names have other hashes, nobody has it. It is older, so it is asked first.
    other = EthDixSettings(eth=EthConfig("eth1"), dir_hash_algo=DirectoryHashAlgo.SHA3_512)
    near.add_ipcp("eth-dix", "other", other)
    for node in (near, far):
        ipcp = node.add_ipcp("eth-dix", "segment", EthDixSettings(eth=EthConfig("eth0")))
    far.offer("clock", ipcp)
    took = []
    for _ in range(2):
        start = network.now
        connect(near, far)
        took.append(network.now - start)
    assert took[0] > FIRST_PAUSE * (2**QUERIES - 1)
    assert took[1] < FIRST_PAUSE


def test_an_answer_that_nobody_asked_for_is_not_believed() -> None:
    network, near, far = pair()
    (id,) = near.irm.ipcps
    ipcp = near.irm.ipcps[id]
    ipcp.received(DIX.encode(NameReply(ipcp.digest("clock"))), ("02:66:6f:72:67:65", 0), network.now)
    assert ipcp.entry().counters["messages_unknown"] == 1
    client, server = connect(near, far)
    server.echo()
    client.source(3, 10)
    network.run(1)
    assert client.tally()["read"] == 3


def test_queries_for_names_of_others_are_not_answered_and_a_flood_is_bounded() -> None:
    network, _, far = pair()
    (id,) = far.irm.ipcps
    ipcp, source = far.irm.ipcps[id], ("02:66:6f:72:67:65", 0)
    ipcp.received(DIX.encode(NameQuery(ipcp.digest("watch"))), source, network.now)
    assert ipcp.entry().counters["queries_answered"] == 0
    for _ in range(5000):
        ipcp.received(DIX.encode(NameQuery(ipcp.digest("clock"))), source, network.now)
    counters = ipcp.entry().counters
    assert counters["queries_answered"] == 1000
    assert counters["messages_dropped"] == 4000


def test_a_name_that_was_unregistered_is_found_no_more() -> None:
    _, near, far = pair()
    (id,) = far.irm.ipcps
    far.manage(UnregisterName("clock", id)).value  # noqa: B018 - or its error
    with pytest.raises(FlowNameException):
        _ = near.program("watch").alloc("clock").wait().flow


def test_of_several_stations_one_takes_the_flow() -> None:
    network, near, far = pair()
    third, there = station(network, "third")
    third.offer("clock", there)
    accepting = [node.program("server").accept("clock") for node in (far, third)]
    near.program("watch").alloc("clock").wait()
    network.run(1)
    assert [asked.answer is None for asked in accepting].count(True) == 1


def test_a_station_that_leaves_tells_its_peers() -> None:
    network, near, far = pair()
    client, _ = connect(near, far)
    (id,) = far.irm.ipcps
    far.manage(DestroyIpcp(id)).wait().value  # noqa: B018 - or its error
    network.run(1)
    with pytest.raises(FlowPeerException):
        client.read()


def test_a_raw_packet_is_as_long_as_a_frame_carries() -> None:
    _, near, far = pair()
    far.program("server").accept("clock")
    granted = near.program("watch").alloc("clock", QOS_RAW).wait().answer
    assert isinstance(granted, Granted)
    assert granted.max_packet == 1496


def test_names_are_hashed_as_the_layer_is_told() -> None:
    network = Network(1)
    near, far = network.add_node("near"), network.add_node("far")
    for node in (near, far):
        assert node.irm.ipcps == {}
        settings = EthDixSettings(dir_hash_algo=DirectoryHashAlgo.SHA3_512, eth=EthConfig("eth0"))
        node.add_ipcp("eth-dix", "segment", settings)
    (id,) = far.irm.ipcps
    assert far.irm.ipcps[id].entry().hash == "SHA3_512"
    assert len(far.irm.ipcps[id].digest("clock")) == 64
    far.offer("clock", id)
    connect(near, far)


def test_a_segment_of_llc_is_for_real_devices() -> None:
    node = Network(1).add_node("near")
    with pytest.raises(IpcpBootstrapError, match="cannot use the device eth0 for a layer of type eth-llc"):
        node.add_ipcp("eth-llc", "segment", EthLlcSettings(eth=EthConfig("eth0")))


def test_frames_of_llc_carry_the_saps_of_both_ends() -> None:
    end = LlcEnd(
        ipcp=1, qos=QOS_RAW, session=Session(), eid=9, peer_eid=3, address=("02:00:00:00:00:01", 1), extension=None
    )
    assert end.place == (("02:00:00:00:00:01", 3), 9 << 8 | 3)


OFF, UNPLUGGED, CARRYING = (
    Device(on=False, carries=False),
    Device(on=True, carries=False),
    Device(on=True, carries=True),
)


def test_programs_see_a_device_that_is_off_and_not_one_without_a_carrier() -> None:
    network, near, far = pair()
    client, server = connect(near, far)
    for state, raises in (UNPLUGGED, False), (OFF, True), (UNPLUGGED, False), (OFF, True), (CARRYING, False):
        near.switch("eth0", state)
        if raises:
            with pytest.raises(FlowDownException):
                client.read()
    server.echo()
    client.source(5, 100)
    network.run(1)
    assert client.tally()["read"] == 5


@pytest.mark.parametrize(("state", "why"), [(OFF, "is off; `ip link set dev eth0 up`"), (UNPLUGGED, "has no carrier")])
def test_nobody_is_asked_while_the_device_carries_nothing_and_all_are_asked_anew_after_that(
    state: Device, why: str
) -> None:
    network, near, far = pair()
    (id,) = near.irm.ipcps
    connect(near, far)
    near.switch("eth0", state)
    asked, began = near.counters(id)["queries_sent"], network.now
    with pytest.raises(FlowNameException, match=f"the device eth0 {why}"):
        _ = near.program("watch").alloc("clock").wait().flow
    assert (near.counters(id)["queries_sent"], network.now) == (asked, began)
    near.switch("eth0", CARRYING)
    connect(near, far)
    assert near.counters(id)["queries_sent"] == asked + 1


def test_a_layer_whose_device_is_gone_has_failed_and_says_why() -> None:
    network, near, far = pair()
    client, _ = connect(near, far)
    near.switch("eth0", None)
    network.run(1)
    with pytest.raises(FlowPeerException):
        client.read()
    (ipcp,) = near.irm.ipcps.values()
    assert (ipcp.state, ipcp.reason) == ("failed", "the device eth0 is gone")
    assert "the device eth0 is gone" in near.warnings[-1]
    with pytest.raises(FlowDownException, match="the device eth0 is gone"):
        _ = near.program("watch").alloc("clock").wait().flow
    near.switch("eth0", CARRYING)
    assert ipcp.state == "failed"


@pytest.mark.parametrize("state", [OFF, UNPLUGGED])
def test_a_member_above_goes_on_over_another_layer(state: Device) -> None:
    """Seconds later: by the silence of its neighbour it would find out after half a minute."""
    network = Network(1)
    (near, _), (far, there) = (station(network, name) for name in ("near", "far"))
    ways = [there, far.over_udp()]
    over_udp = near.over_udp(peers=[f"b@{far.address}"])
    b = far.add_ipcp("unicast", "campus", name="b")
    binding: list[Request] = [BindProcess(b, "b"), *(RegisterName("b", ipcp) for ipcp in ways)]
    for request in binding:
        far.manage(request).value  # noqa: B018 - or its error
    a = near.manage(CreateIpcp("a", "unicast")).value
    assert isinstance(a, int)
    wanted: list[Request] = [EnrollIpcp(a, "b"), *(ConnectIpcp(a, each, "b", QOS_RAW) for each in COMPONENTS)]
    for request in wanted:
        near.manage(request).wait().value  # noqa: B018 - or its error
    far.offer("clock", b)
    client, server = connect(near, far, QUALITIES[1])
    server.echo()
    client.source(1000, 100, interval=0.002)
    network.run(0.2)
    for node in (near, far):
        node.switch("eth0", state)
    network.run(SILENT_PAUSE + 3)
    assert client.tally()["read"] == 1000
    assert near.counters(over_udp)["sent"] > 500
