"""Unicast layers of whole nodes in virtual time: enrollment, routes, names, flows over several hops, and what ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from types import FrameType

import msgspec
import pytest
from sim_world import RELIABLE
from unicast_world import COMPONENTS, Layer, grid, line, ring

from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowNameException,
    FlowPeerException,
    FlowRefusedException,
    IpcpBootstrapError,
    IpcpConnectError,
    IpcpEnrollError,
)
from ouroboros.layers.base import State
from ouroboros.layers.members.core import KEEPALIVE
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.qos import QOS_DATA, QOS_RAW, QOS_VIDEO, QoSSpec
from ouroboros.settings import DirectoryHashAlgo, DtConfig, UnicastConfig, UnicastSettings
from ouroboros.testing.sim import Node
from ouroboros.wire.control import (
    BootstrapIpcp,
    ChangePeers,
    CreateIpcp,
    DestroyIpcp,
    DisconnectIpcp,
    EnrollIpcp,
    FlowEntry,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    UnicastDetails,
    UnregisterName,
)

#: Time in which all is known to all.
SETTLED = 5.0


def with_clock(number: int, edges: Iterable[tuple[int, int]], *, seed: int = 1) -> Layer:
    """A layer in which that member has the name "clock", as all know."""
    layer = Layer(edges, seed=seed)
    layer.converge()
    layer.offer("clock", number)
    layer.network.run(SETTLED)
    return layer


def details(layer: Layer, number: int) -> UnicastDetails:
    node, id = layer.nodes[number], layer.ids[number]
    entries = node.manage(ListIpcps()).value
    assert isinstance(entries, list)
    (entry,) = (each for each in entries if each.id == id)
    assert isinstance(entry, IpcpEntry)
    assert isinstance(entry.details, UnicastDetails)
    return entry.details


def flows(node: Node, layer: str = "campus") -> list[FlowEntry]:
    entries = node.manage(ListFlows()).value
    assert isinstance(entries, list)
    return [each for each in entries if each.layer == layer]


def exchange(layer: Layer, name: str, near: int, far: int, qos: QoSSpec = QOS_RAW) -> None:
    """A packet each way, over a flow that is deallocated then."""
    client, server = layer.flow(name, near, far, qos)
    client.write(b"what time is it?")
    assert server.read() == b"what time is it?"
    server.write(b"noon")
    assert client.read() == b"noon"
    client.dealloc()
    server.dealloc()


# --- enrollment


def newcomer(delay: float = 0.05) -> tuple[Layer, Node, int]:
    """A member, a node that knows where it is, and an IPC process there."""
    layer = Layer([], delay=delay)
    node = layer.network.add_node("newcomer")
    node.over_udp(peers=[f"m0@{layer.nodes[0].address}"])
    id = node.manage(CreateIpcp("late", "unicast")).value
    assert isinstance(id, int)
    layer.network.run(SETTLED)
    return layer, node, id


def test_a_newcomer_is_a_member_after_three_round_trips_and_connected_after_four() -> None:
    layer, node, id = newcomer()
    start, round_trip = layer.network.now, 0.1
    node.manage(EnrollIpcp(id, "m0", True)).wait().value  # noqa: B018
    # The proof of its address, the flow, the greeting with the request.
    assert layer.network.now - start == pytest.approx(3 * round_trip)
    for component in COMPONENTS:
        layer.connect_ipcp(node, id, component, "m0").wait().value  # noqa: B018
    assert layer.network.now - start == pytest.approx(4 * round_trip)
    # The member of before knows it after half a round trip more at the most.
    layer.network.run(round_trip / 2)
    (entry,) = (each for each in details(layer, 0).connections if each.component == "Data Transfer")
    assert (entry.name, entry.state) == ("late", "up")
    ipcp = node.irm.ipcps[id]
    assert isinstance(ipcp, UnicastIpcp)
    assert {each.name for each in ipcp.upkeep.wishes} == {"m0"}


@pytest.mark.parametrize("delays", range(9))
def test_an_enrollment_that_is_interrupted_leaves_nothing_behind(delays: int) -> None:
    layer, node, id = newcomer()
    held = [len(each.irm.flows.flows) for each in layer.network.nodes]
    asked = node.manage(EnrollIpcp(id, "m0", True))
    layer.network.run((delays + 0.5) * layer.network.delay / 1e9)
    is_member = asked.answer is not None
    assert is_member is (delays >= 6)
    asked.cancel()
    layer.network.run(60)
    ipcp = node.irm.ipcps[id]
    assert isinstance(ipcp, UnicastIpcp)
    if is_member:
        assert [each.component for each in ipcp.connections.rows()] == [*COMPONENTS]
        return
    assert ipcp.state == State.BOOT
    assert ipcp.deadline() is None
    assert [len(each.irm.flows.flows) for each in layer.network.nodes] == held
    assert layer.member(0).connections.rows() == []
    assert node.manage(EnrollIpcp(id, "m0")).wait().value == id


@pytest.mark.parametrize("delays", range(9))
def test_an_ipc_process_can_be_destroyed_at_each_step_of_its_enrollment(delays: int) -> None:
    layer, node, id = newcomer()
    asked = node.manage(EnrollIpcp(id, "m0", True))
    layer.network.run((delays + 0.5) * layer.network.delay / 1e9)
    node.manage(DestroyIpcp(id)).value  # noqa: B018 - or its error
    layer.network.run(60)
    assert asked.answer is not None
    assert id not in node.irm.ipcps
    assert layer.member(0).connections.rows() == []


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 6.0), (1.0, 1.0), (30.0, 30.0)])
def test_an_enrollment_with_a_host_that_is_down_fails_in_time_and_says_so(
    timeout: float | None, seconds: float
) -> None:
    layer, node, id = newcomer()
    layer.nodes[0].impair("partition")
    start = layer.network.now
    text = rf"no answer from 10\.0\.0\.1:3435 to \d requests? .*; given up after {timeout or 6:g} s: is that host up"
    with pytest.raises(IpcpEnrollError, match=text):
        node.manage(EnrollIpcp(id, "m0", True, timeout)).wait().value  # noqa: B018
    assert layer.network.now - start == pytest.approx(seconds)
    layer.nodes[0].impair(None)
    assert node.manage(EnrollIpcp(id, "m0")).wait().value == id


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("inf"), float("nan")])
def test_the_timeout_of_an_enrollment_is_a_time(timeout: float) -> None:
    _, node, id = newcomer()
    with pytest.raises(IpcpEnrollError, match="the timeout of an enrollment is a time in seconds, not"):
        node.manage(EnrollIpcp(id, "m0", timeout=timeout)).value  # noqa: B018


# --- members, routes and names


@pytest.mark.parametrize(
    "edges", [line(2), line(5), ring(4), ring(7), grid(3)], ids=["two", "line", "square", "ring", "grid"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_name_resolves_and_every_pair_exchanges_packets(edges: list[tuple[int, int]], seed: int) -> None:
    layer = Layer(edges, seed=seed)
    layer.converge()
    count = len(layer.nodes)
    for number in range(count):
        layer.offer(f"clock{number}", number)
    layer.network.run(SETTLED)
    pairs = list(combinations(range(count), 2))
    for near, far in pairs if count < 6 else pairs[:: count // 2]:
        exchange(layer, f"clock{far}", near, far)
        exchange(layer, f"clock{near}", far, near, RELIABLE)
    assert [node.warnings for node in layer.nodes] == [[]] * count


@pytest.mark.parametrize(
    "qos", [QOS_RAW, QOS_DATA, QOS_VIDEO, QoSSpec(cypher_s=256), QoSSpec(loss=0, ber=0, cypher_s=128)]
)
def test_flows_of_all_kinds_over_several_hops(qos: QoSSpec) -> None:
    layer = with_clock(3, line(4))
    exchange(layer, "clock", 0, 3, qos)


@pytest.mark.parametrize(("timeout", "gets"), [(0, 600_000), (700_000, 600_000), (5000, 5000)])
def test_the_longest_timeout_of_a_flow_is_the_acceptors_and_both_are_told(timeout: int, gets: int) -> None:
    """A member that goes without a word does not keep its flow for ever."""
    layer = Layer(line(3))
    layer.converge()
    layer.offer("clock", 2)
    client, server = layer.flow("clock", 0, 2, QoSSpec(timeout=timeout))
    assert client.granted.qos.timeout == server.granted.qos.timeout == gets


def test_no_proofs_are_counted_where_there_are_none() -> None:
    layer = Layer(line(2))
    assert "requests_proven" not in layer.member(0).entry().counters
    assert "requests_sent" in layer.member(0).entry().counters


def test_a_newcomer_learns_the_settings_of_the_layer() -> None:
    config = UnicastConfig(DtConfig(max_ttl=7))
    layer = Layer(line(3), settings=UnicastSettings(DirectoryHashAlgo.SHA3_512, unicast=config))
    for number in range(3):
        member = layer.member(number)
        assert (member.layer, member.hash) == ("campus", "SHA3_512")
        assert member.core.config == config


def test_members_are_listed_with_neighbours_routes_and_names() -> None:
    layer = Layer(line(3))
    layer.converge()
    layer.offer("clock", 1)
    addresses = [details(layer, number).address for number in range(3)]
    assert len(set(addresses)) == 3
    middle = details(layer, 1)
    assert middle.registered == ("clock",)
    assert {(each.component, each.name, each.address, each.peer, each.state) for each in middle.connections} == {
        (component, f"m{other}", addresses[other], "node", "up") for component in COMPONENTS for other in (0, 2)
    }
    first = details(layer, 0)
    assert {(each.address, each.hops, each.via, each.peer) for each in first.routes} == {
        (addresses[1], 1, (addresses[1],), "node"),
        (addresses[2], 2, (addresses[1],), "node"),
    }


def test_a_flow_is_listed_with_layer_address_and_kind_of_its_peer() -> None:
    layer = with_clock(2, line(3))
    layer.flow("clock", 0, 2)
    (entry,) = flows(layer.nodes[0])
    assert (entry.name, entry.address, entry.peer) == ("clock", details(layer, 2).address, "node")


def test_a_member_keeps_its_address_over_a_restart() -> None:
    layer = Layer(line(2))
    address = layer.member(1).core.address
    node = layer.nodes[1]
    again = type(node)(layer.network, node.engine, node.address, node.name, flow_limit=100, security=None)
    member = again.manage(CreateIpcp("m1", "unicast")).value
    assert isinstance(member, int)
    again.manage(BootstrapIpcp(member, "campus")).wait()
    assert again.irm.ipcps[member].core.address == address  # type: ignore[attr-defined]


# --- names at several members


def test_a_name_at_several_members_is_that_of_the_nearest() -> None:
    layer = Layer(line(5))
    layer.converge()
    layer.offer("clock", 1, 4)
    layer.network.run(SETTLED)
    for near, far in ((0, 1), (3, 4), (0, 1)):
        exchange(layer, "clock", near, far)


def test_the_nearest_that_is_still_there_is_asked() -> None:
    layer = Layer(ring(5))
    layer.converge()
    layer.offer("clock", 1, 3)
    layer.network.run(SETTLED)
    exchange(layer, "clock", 0, 1)
    layer.nodes[1].manage(DestroyIpcp(layer.ids[1])).wait().value  # noqa: B018 - or its error
    layer.network.run(SETTLED)
    exchange(layer, "clock", 0, 3)


def test_of_members_that_are_as_near_each_has_its_turn() -> None:
    layer = Layer([(0, 1), (0, 2)])
    layer.converge()
    layer.offer("clock", 1, 2)
    layer.network.run(SETTLED)
    servers = [layer.nodes[number].program("server") for number in (1, 2)]
    waiting = [server.accept("clock") for server in servers]
    for _ in range(2):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018 - or its error
    assert all(each.answer is not None for each in waiting)


def test_the_next_one_is_asked_when_one_refuses() -> None:
    layer = Layer(line(3))
    layer.converge()
    layer.offer("clock", 1, 2)
    layer.network.run(SETTLED)
    # It was served there, and is not any more.
    server = layer.nodes[1].program("server")
    server.accept("clock")
    server.die()
    exchange(layer, "clock", 0, 2)


def test_a_refusal_by_all_is_told_at_once() -> None:
    layer = Layer(line(3))
    layer.converge()
    layer.offer("clock", 1, 2)
    layer.network.run(SETTLED)
    for number in (1, 2):
        server = layer.nodes[number].program("server")
        server.accept("clock")
        server.die()
    before = layer.network.now
    with pytest.raises(FlowException, match=r"registered in layer 'campus' at .*, .*, and nobody serves it there"):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018
    assert layer.network.now - before < 1.0


def test_a_name_that_nobody_has_says_how_it_would_be_found() -> None:
    layer = Layer(line(3))
    layer.converge()
    with pytest.raises(FlowNameException, match="no member of layer 'campus' has it; `irm name register clock layer"):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018


def test_a_name_that_nobody_has_says_who_the_members_are() -> None:
    layer = Layer(line(3))
    layer.converge()
    with pytest.raises(
        FlowNameException, match=r"nobody in layer 'campus' offers 'clock': .* members: m0, m1, [0-9a-f.]+$"
    ):
        layer.nodes[0].program("client").alloc("clock", layer="campus").wait().flow  # noqa: B018


def test_the_layer_of_a_flow_can_be_chosen_and_is_known_at_both_ends() -> None:
    layer = Layer(line(2))
    layer.converge()
    near, far = layer.nodes
    layer.offer("clock", 1)
    far.offer("clock", layer.udp[1])
    near.manage(ChangePeers(layer.udp[0], [f"clock@{far.address}"], [])).value  # noqa: B018
    layer.network.run(SETTLED)
    below = next(each.layer for each in near.irm.ipcps.values() if each.type == "udp4")
    server, client = far.program("server"), near.program("client")
    for asked_for, found in ((None, "campus"), ("campus", "campus"), (below, below)):
        accepting = server.accept("clock")
        flow = client.alloc("clock", layer=asked_for).wait().flow
        assert [flow.granted.layer, accepting.wait().flow.granted.layer] == [found, found]
        assert [each.layer for each in flows(near, found) if each.name == "clock"] == [found]
        flow.write(b"x")
        assert accepting.flow.read() == b"x"
        flow.dealloc()
        accepting.flow.dealloc()
    # On the node that serves it, as well.
    accepting = server.accept("clock")
    assert far.program("client").alloc("clock", layer="campus").wait().flow.granted.layer == "campus"
    with pytest.raises(FlowNameException, match="over layer 'metro': this node is not in it, but in 'campus', "):
        client.alloc("clock", layer="metro").wait().flow  # noqa: B018


def test_a_name_that_is_taken_out_is_not_found_any_more() -> None:
    layer = with_clock(2, line(3))
    exchange(layer, "clock", 0, 2)
    layer.nodes[2].manage(UnregisterName("clock", layer.ids[2])).value  # noqa: B018
    layer.network.run(SETTLED)
    with pytest.raises((FlowNameException, FlowRefusedException)):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018


# --- what ends


def test_the_end_of_a_flow_is_told_over_all_hops() -> None:
    layer = with_clock(3, line(4))
    client, server = layer.flow("clock", 0, 3)
    client.write(b"last words")
    client.dealloc()
    assert server.read() == b"last words"
    with pytest.raises(FlowDownException):
        server.read()


def test_the_death_of_a_program_is_told_over_all_hops() -> None:
    layer = with_clock(2, line(3))
    accepting = layer.nodes[2].program("server")
    asked = accepting.accept("clock")
    client = layer.nodes[0].program("client").alloc("clock").wait().flow
    asked.wait()
    accepting.die()
    with pytest.raises(FlowPeerException):
        client.read()


def test_nothing_is_left_of_flows_that_are_over() -> None:
    layer = with_clock(2, line(3))
    for _ in range(3):
        exchange(layer, "clock", 0, 2)
    layer.network.run(60.0)
    for number in range(3):
        assert flows(layer.nodes[number]) == []
        assert layer.member(number)._core.eids == set()


# --- connections


def test_a_second_connect_makes_no_second_flow() -> None:
    layer = Layer(line(2))
    layer.converge()
    before = len(flows(layer.nodes[1], "net"))
    layer.connect(1, 0)
    layer.network.run(SETTLED)
    assert len(flows(layer.nodes[1], "net")) == before == 2


def test_a_lost_connection_is_made_again() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.nodes[0].manage(DestroyIpcp(layer.ids[0])).wait()
    layer.network.run(SETTLED)
    missing = {(each.component, each.name) for each in details(layer, 1).connections if each.state == "missing"}
    assert missing == {(component, "m0") for component in COMPONENTS}
    assert details(layer, 1).routes == ()
    # It comes back.
    node = layer.nodes[0]
    layer.ids[0] = node.add_ipcp("unicast", "campus", name="m0")
    layer.bind(0)
    layer.converge(120.0)
    assert {each.state for each in details(layer, 1).connections} == {"up"}


def test_one_that_both_asked_for_is_made_again_when_the_first_to_ask_lets_go_unheard() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.know(0, 1)
    layer.connect(0, 1)
    layer.nodes[1].impair("partition")
    for component in reversed(COMPONENTS):
        layer.nodes[1].manage(DisconnectIpcp(layer.ids[1], component, "m0")).wait().value  # noqa: B018 - or its error
    layer.network.run(300.0)
    assert details(layer, 1).connections == ()
    layer.nodes[1].impair("none")
    layer.converge()


@pytest.mark.parametrize("by", [0, 1])
def test_one_that_was_disconnected_stays_so(by: int) -> None:
    layer = Layer(line(2))
    layer.converge()
    for component in reversed(COMPONENTS):
        layer.nodes[by].manage(DisconnectIpcp(layer.ids[by], component, f"m{1 - by}")).wait().value  # noqa: B018
    layer.network.run(120.0)
    for number in (0, 1):
        assert (details(layer, number).connections, details(layer, number).routes) == ((), ())
    layer.connect(1, 0)
    layer.converge()


def test_a_ring_goes_on_when_one_of_its_members_ends() -> None:
    layer = with_clock(2, ring(5))
    client, server = layer.flow("clock", 0, 2, RELIABLE)
    layer.nodes[1].manage(DestroyIpcp(layer.ids[1])).wait()
    layer.network.run(SETTLED)
    client.write(b"still here?")
    assert server.read() == b"still here?"


def test_an_ordered_connection_is_for_those_who_are_known_as_ours() -> None:
    layer = Layer(line(2))
    layer.converge()
    node, id = layer.nodes[1], layer.ids[1]
    node.manage(DisconnectIpcp(id, "Data Transfer", "m0")).wait().value  # noqa: B018
    layer.connect(1, 0, QOS_DATA)
    layer.converge()
    layer.offer("clock", 0)
    layer.network.run(SETTLED)
    exchange(layer, "clock", 1, 0)


def test_nodes_at_rest_are_woken_by_keepalives_and_a_few_times_an_hour() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.offer("clock", 0)
    layer.network.run(60)
    sent, heard, timeouts = layer.network.counted()["sent"], layer.network.heard, 0
    for node in layer.nodes:
        timeout = node.irm.timeout

        def note(now: float, timeout: Callable[[float], None] = timeout) -> None:
            nonlocal timeouts
            timeouts += 1
            timeout(now)

        node.irm.timeout = note  # type: ignore[method-assign]
    layer.network.run(3600)
    # Links and names are announced anew; a lower flow for each component has two ends, which say that they are there, in
    # data transfer every `KEEPALIVE` seconds, a bit earlier or later by chance.
    assert 0 < layer.network.heard - heard + timeouts <= 120
    assert layer.network.counted()["sent"] - sent <= 1.2 * 4 * 3600 / KEEPALIVE


def test_a_flow_costs_control_the_same_with_no_flow_and_with_a_hundred() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.network.run(SETTLED)
    layer.offer("clock", 0)
    layer.network.run(SETTLED)
    few = _calls(lambda: exchange(layer, "clock", 1, 0))
    kept = [layer.flow("clock", 1, 0) for _ in range(100)]
    layer.network.run(SETTLED)
    many = _calls(lambda: exchange(layer, "clock", 1, 0))
    assert many <= 1.1 * few
    assert len(kept) == 100


def _calls(call: Callable[[], None]) -> int:
    """How many Python functions are called, on average of some times."""
    times, count = 5, 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    for _ in range(times):
        call()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for _ in range(times):
            call()
    finally:
        sys.setprofile(before)
    return count // times


# --- what cannot be


def test_what_no_member_can_do_is_said() -> None:
    layer = Layer(line(2))
    layer.converge()
    node = layer.nodes[1]
    with pytest.raises(IpcpConnectError, match="'m1' has no Data Transfer connection with 'm7'; it has with: m0"):
        node.manage(DisconnectIpcp(layer.ids[1], "Data Transfer", "m7")).wait().value  # noqa: B018
    with pytest.raises(IpcpBootstrapError, match="is in layer 'campus' already"):
        node.manage(EnrollIpcp(layer.ids[1], "m0")).wait().value  # noqa: B018
    lonely = node.manage(CreateIpcp("late", "unicast")).value
    assert isinstance(lonely, int)
    with pytest.raises(IpcpEnrollError, match=r"'late' cannot enroll with 'm7'.*nobody offers 'm7'"):
        node.manage(EnrollIpcp(lonely, "m7")).wait().value  # noqa: B018
    layer.ids[1] = lonely
    with pytest.raises(IpcpBootstrapError, match="is in no layer yet"):
        layer.ask_to_connect(1, 0, "Management").wait().value  # noqa: B018
    # It can still enroll.
    assert node.manage(EnrollIpcp(lonely, "m0")).wait().value == lonely


def test_an_enrollment_that_goes_on_is_the_only_one_and_ends_with_its_ipc_process() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.nodes[0].impair("partition")
    node = layer.nodes[1]
    late = node.manage(CreateIpcp("late", "unicast")).value
    assert isinstance(late, int)
    asked = node.manage(EnrollIpcp(late, "m0"))
    for request in (EnrollIpcp(late, "m0"), BootstrapIpcp(late, "other")):
        with pytest.raises(IpcpBootstrapError, match="'late' is being enrolled: wait for the end of that"):
            node.manage(request).value  # noqa: B018
    node.manage(DestroyIpcp(late)).wait().value  # noqa: B018
    with pytest.raises(IpcpEnrollError, match="'late' was destroyed"):
        asked.value  # noqa: B018
    layer.network.run(60.0)


def test_an_enrollment_that_fails_can_be_tried_again_or_give_way_to_a_bootstrap() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.nodes[0].impair("partition")
    node = layer.nodes[1]
    late = node.manage(CreateIpcp("late", "unicast")).value
    assert isinstance(late, int)
    with pytest.raises(IpcpEnrollError, match="no answer from"):
        node.manage(EnrollIpcp(late, "m0")).wait().value  # noqa: B018
    layer.nodes[0].impair(None)
    assert node.manage(EnrollIpcp(late, "m0")).wait().value == late
    other = node.manage(CreateIpcp("other", "unicast")).value
    assert isinstance(other, int)
    with pytest.raises(IpcpEnrollError):
        node.manage(EnrollIpcp(other, "nobody")).wait().value  # noqa: B018
    assert node.manage(BootstrapIpcp(other, "elsewhere")).wait().value == other


def test_a_member_without_neighbours_says_that_it_has_none() -> None:
    layer = Layer([(0, 1)])
    layer.converge()
    for component in reversed(COMPONENTS):
        layer.nodes[1].manage(DisconnectIpcp(layer.ids[1], component, "m0")).wait().value  # noqa: B018
    layer.network.run(SETTLED)
    with pytest.raises(FlowNameException, match="'m1' has no neighbour in layer 'campus'; `irm ipcp connect name m1"):
        layer.nodes[1].program("client").alloc("clock").wait().flow  # noqa: B018


# --- layers over layers


def test_a_unicast_layer_over_a_unicast_layer() -> None:
    layer = Layer(line(3))
    layer.converge()
    tops: list[int] = []
    for number in (0, 2):
        node = layer.nodes[number]
        if tops:
            id = node.manage(CreateIpcp("top1", "unicast")).value
            assert isinstance(id, int)
            node.manage(EnrollIpcp(id, "top0")).wait().value  # noqa: B018
            for component in COMPONENTS:
                layer.connect_ipcp(node, id, component, "top0").wait().value  # noqa: B018
        else:
            id = node.add_ipcp("unicast", "top", name="top0")
            layer.make_known(node, id, "top0", layer.ids[0])
            layer.network.run(SETTLED)
        tops.append(id)
    top = layer.nodes[0].irm.ipcps[tops[0]]
    assert layer.network.run_until(lambda: len(top.link_state.members()) == 1)  # type: ignore[attr-defined]
    assert top.core.rank == 2  # type: ignore[attr-defined]
    layer.nodes[0].offer("clock", tops[0])
    layer.network.run(SETTLED)
    for qos in (QOS_RAW, RELIABLE):
        exchange(layer, "clock", 2, 0, qos)


# --- what goes wrong on the way


@pytest.mark.parametrize("edges", [line(4), ring(4)], ids=["line", "ring"])
def test_a_layer_over_bad_links_works(edges: list[tuple[int, int]]) -> None:
    layer = Layer(edges, seed=3)
    for node in layer.nodes:
        node.impair("loss=5%,duplicate=5%,delay=5ms,jitter=3ms")
    layer.converge(120.0)
    layer.offer("clock", 2)
    layer.network.run(30.0)
    for _ in range(3):
        exchange(layer, "clock", 0, 2, RELIABLE)


def test_a_member_that_was_cut_off_is_back_when_its_links_are() -> None:
    layer = with_clock(2, ring(4), seed=2)
    layer.nodes[2].impair("partition")
    layer.network.run(300.0)
    assert len(layer.member(0).link_state.members()) == 2
    with pytest.raises(FlowException):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018
    layer.nodes[2].impair(None)
    layer.converge(300.0)
    layer.network.run(SETTLED)
    exchange(layer, "clock", 0, 2)


def test_a_member_with_the_address_of_another_gets_a_new_one() -> None:
    layer = Layer(line(3))
    layer.converge()
    # It comes back with what it remembers of a life in which it had that address.
    (key,) = layer.network.memories["n0"]
    kept = msgspec.msgpack.decode(layer.network.memories["n0"][key])
    layer.network.memories["n3"] = {"unicast/m3/address": msgspec.msgpack.encode([*kept[:3], kept[3] ^ 1])}
    layer.add([2])
    layer.converge(120.0)
    addresses = {layer.member(number).core.address for number in range(4)}
    assert len(addresses) == 4
    layer.offer("clock", 3)
    layer.network.run(SETTLED)
    exchange(layer, "clock", 0, 3)


def test_a_name_of_an_earlier_life_is_found_nowhere_once_somebody_was_refused() -> None:
    layer = with_clock(2, line(3))
    # As if it had been started anew, without the name, and with its address.
    layer.member(2)._incoming.unregister("clock")
    layer.member(2).directory._publisher._names.clear()
    with pytest.raises(FlowNameException, match="nobody serves it there"):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018
    layer.network.run(30.0)
    with pytest.raises(FlowNameException, match="no member of layer 'campus' has it"):
        layer.nodes[0].program("client").alloc("clock").wait().flow  # noqa: B018


def test_a_newcomer_enrolls_over_links_that_repeat_all_they_carry() -> None:
    layer = Layer(line(2))
    layer.converge()
    layer.nodes[1].impair("duplicate=100%,delay=5ms,jitter=4ms")
    for _ in range(10):
        layer.add([1])
    layer.converge()
