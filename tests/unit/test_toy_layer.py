"""Layers over layers: the toy layer (`toy.py`) within a node, over UDP, and over itself, three deep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from toy_world import Air, Host, Way, build, settle
from udp_world import Faults

from ouroboros.errors import (
    FlowDownException,
    FlowNameException,
    FlowRefusedException,
    IpcpConnectError,
)
from ouroboros.layers.face import How
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.wire.control import (
    BindProcess,
    FlowEntry,
    Granted,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    RegisterName,
    UnregisterName,
)

WAYS: dict[str, Callable[[], Way]] = {
    "over nothing": lambda: build(1, udp=False),
    "over an impaired local layer": lambda: build(1, udp=False, local=True),
    "over udp": lambda: build(1, udp=True),
    "over a reliable flow": lambda: build(1, udp=True, lower=QOS_DATA),
    "over an encrypted flow": lambda: build(1, udp=True, lower=QoSSpec(cypher_s=256)),
    "three deep within a node": lambda: build(3, udp=False),
    "three deep over udp": lambda: build(3, udp=True),
    "three deep over encrypted reliable flows": lambda: build(
        3, udp=True, lower=QoSSpec(loss=0, ber=0, in_order=1, cypher_s=256)
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]()


#: A packet of a flow without FRCP.
LONGEST_RAW = 65_535

#: Those between two nodes: within one, whoever asks for a name waits for an acceptor before he goes through a layer.
apart = pytest.mark.parametrize("way", [name for name in WAYS if "udp" in name], indirect=True)


# --- flows


@pytest.mark.parametrize("qos", [QOS_RAW, QOS_DATA, QoSSpec(cypher_s=128)], ids=["raw", "reliable", "encrypted"])
def test_programs_have_a_flow_and_packets_cross_all_layers(way: Way, qos: QoSSpec) -> None:
    client, server = way.flow(qos)
    assert way.near.granted(client).qos == way.far.granted(server).qos
    for granted in (way.near.granted(client), way.far.granted(server)):
        assert (granted.security is not None) == bool(qos.cypher_s)
    way.near.write(client, b"what time is it?")
    way.far.write(server, b"noon")
    way.run()
    assert (way.far.heard[server], way.near.heard[client]) == ([b"what time is it?"], [b"noon"])


@pytest.mark.slow
def test_keys_of_lower_flows_change_and_nothing_is_lost() -> None:
    #: Packets after which a key changes.
    epoch = 1 << 20
    way = build(2, udp=True, lower=QoSSpec(cypher_s=256))
    client, server = way.flow(QoSSpec(cypher_s=256))
    packets = 3 * epoch // 2
    client.flow.source(packets, 16)
    server.flow.echo()
    way.run(60.0)
    tally = client.flow.tally()
    assert (tally["read"], tally["disordered"]) == (packets, 0)
    way.near.node._runtime.count()
    entries = way.near.manage(ListFlows())
    assert isinstance(entries, list)
    for counters in (entry.counters for entry in entries):
        assert counters["sent"] + counters["received"] > 2 * epoch
        assert (counters["rejected"], counters["replayed"], counters["unsealed"]) == (0, 0, 0)


def test_each_layer_takes_four_bytes(way: Way) -> None:
    client, _ = way.flow()
    (below,) = {size.most for size in way.near.lower(way.toys[-1][0]).values()}
    assert way.near.granted(client).max_packet == min(below - 4, LONGEST_RAW)


def test_a_flow_is_listed_with_its_layer_and_the_flow_below(way: Way) -> None:
    client, _ = way.flow()
    entries = way.near.manage(ListFlows())
    assert isinstance(entries, list)
    (entry,) = (each for each in entries if each.name == "clock" and each.id == way.near.granted(client).flow_id)
    assert isinstance(entry, FlowEntry)
    (lower,) = way.near.lower(way.toys[-1][0])
    assert (entry.layer, entry.address, entry.peer) == (f"toys{len(way.toys)}", f"flow {lower}", "node")


def test_members_show_their_neighbours(way: Way) -> None:
    entries = way.near.manage(ListIpcps())
    assert isinstance(entries, list)
    (entry,) = (each for each in entries if each.name == f"near{len(way.toys)}")
    assert isinstance(entry, IpcpEntry)
    (peer,) = entry.peers
    assert peer.startswith(f"the neighbour 'far{len(way.toys)}' (flow ")


# --- no flows


def test_a_name_that_no_neighbour_knows_is_not_waited_for(way: Way) -> None:
    asked = way.near.alloc(way.near.program("watch"), "nowhere")
    way.run()
    failed = way.near.failed(asked)
    assert failed.error == FlowNameException.__name__
    # Layers over UDP that would have to ask a resolver come behind.
    assert "register it at a neighbour, or connect the neighbour that has it" in failed.text
    way.assert_idle()


@apart
def test_a_name_that_nobody_accepts_is_refused_in_the_end(way: Way) -> None:
    way.offer("clock")
    way.far.server("clock")
    asked = way.near.alloc(way.near.program("watch"), "clock", timeout=40.0)
    way.run(19.0)
    assert way.near.answer(asked) is None
    way.run(2.0)
    assert "no program accepted in time" in way.near.failed(asked).text
    way.assert_idle()


def test_a_node_without_room_says_so(way: Way) -> None:
    way.far.irm.flows._table._limit = len(way.far.irm.flows.flows)
    way.offer("clock")
    accepting = way.far.accept(way.far.server("clock"), "clock")
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run()
    assert way.near.failed(asked).text
    assert way.far.answer(accepting) is None
    way.assert_idle()


def test_an_asker_that_hangs_up_leaves_nothing(way: Way) -> None:
    way.offer("clock")
    server = way.far.server("clock")
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run(0.0015)
    way.near.cancel(asked)
    accepting = way.far.accept(server, "clock")
    way.run(5.0)
    assert way.near.answer(asked) is None
    # It may have been too late for the server.
    if isinstance(way.far.answer(accepting), Granted):
        assert way.far.told[accepting] is How.GONE
        way.far.kill(server)
    way.assert_idle()


def test_whoever_waits_for_a_name_asks_the_layer_that_leads_there_once() -> None:
    way = build(1, udp=False)
    way.offer("clock")
    server = way.far.server("clock")
    client = way.near.alloc(way.near.program("watch"), "clock", wait=True)
    # Somebody is there, and gone again: it was time enough to ask the layer.
    way.far.accept(server, "clock", timeout=0.0)
    way.run(5.0)
    assert len(way.toys[0][1]._incoming.waiting) == 1
    accepting = way.far.accept(server, "clock")
    way.run()
    assert way.near.granted(client).name == way.far.granted(accepting).name == "clock"
    way.near.release(client)
    way.run()
    way.far.release(accepting)
    way.assert_idle()


# --- ends


@pytest.mark.parametrize("side", ["near", "far"])
@pytest.mark.parametrize("dies", [False, True], ids=["deallocates", "dies"])
def test_the_peer_of_a_program_is_told_once_how_it_ended(way: Way, side: str, dies: bool) -> None:
    tokens = way.flow()
    hosts = [way.near, way.far]
    mine, theirs = (0, 1) if side == "near" else (1, 0)
    if dies:
        hosts[mine].kill(tokens[mine].process)
    else:
        hosts[mine].release(tokens[mine])
    way.run()
    assert hosts[theirs].told == {tokens[theirs]: How.GONE}
    assert (tokens[theirs] in hosts[theirs].peer_died) == dies
    hosts[theirs].release(tokens[theirs])
    way.assert_idle()


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_member_that_is_destroyed_takes_its_flows_along(way: Way, side: str) -> None:
    client, server = way.flow()
    near, far = way.toys[-1]
    if side == "near":
        way.near.destroy(near)
    else:
        way.far.destroy(far)
    way.run(5.0)
    assert way.near.told.keys() | way.far.told.keys() == {client, server}
    way.near.release(client)
    way.far.release(server)
    settle(way.hosts)
    left = (2 if way.near is way.far else 1) * (len(way.toys) - 1)
    for host in way.hosts:
        host.assert_idle(lower=left)


@pytest.mark.parametrize("side", ["near", "far"])
def test_what_is_below_takes_all_above_along(way: Way, side: str) -> None:
    client, server = way.flow()
    host = way.near if side == "near" else way.far
    host.destroy(host.udp or way.below or way.toys[0][side == "far"])
    way.run(5.0)
    assert way.near.told.keys() | way.far.told.keys() == {client, server}
    for here in way.hosts:
        # A member whose neighbour is gone is a member all the same.
        assert all(ipcp.state == "operational" for ipcp in here.irm.ipcps.values())
        assert here.held == set()
    way.near.release(client)
    way.far.release(server)
    settle(way.hosts)
    for here in way.hosts:
        here.assert_idle()


def test_a_node_that_is_gone_takes_all_above_along() -> None:
    way = build(3, udp=True)
    client, _ = way.flow()
    for host in way.hosts:
        host.node.impair("partition")
    way.run(5.0)
    assert way.near.told == {}
    way.run(130.0)
    assert way.near.told.keys() == {client}
    way.near.release(client)
    way.run(150.0)
    way.near.assert_idle()


def test_flows_come_again_with_the_neighbour(way: Way) -> None:
    client, server = way.flow()
    near, _ = way.toys[-1]
    name = f"far{len(way.toys)}"
    assert way.near.done(way.near.disconnect(near, name))
    way.run()
    assert way.near.told.keys() | way.far.told.keys() == {client, server}
    way.near.release(client)
    way.far.release(server)
    accepting = way.far.accept(way.far.server("clock"), "clock")
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run()
    assert way.near.failed(asked).error == FlowNameException.__name__
    way.far.cancel(accepting)
    connecting = way.near.connect(near, name)
    way.run()
    assert way.near.done(connecting)
    client, server = way.flow()
    assert way.near.granted(client).name == "clock"
    assert way.far.granted(server).name == "clock"


# --- neighbours


def test_neighbours_are_asked_until_one_knows_the_name() -> None:
    way = build(1, udp=True)
    other = Host(way.air)
    other.over_udp()
    there = other.toy("far2", "toys1", other.udp)
    way.near.irm.ipcps[way.near.udp].change_peers([f"far2@{other.address}"], [], way.air.now)
    connecting = way.near.connect(way.toys[0][0], "far2")
    way.run()
    assert way.near.done(connecting)
    other.offer("moon", there.id)
    server = other.accept(other.server("moon"), "moon")
    client = way.near.alloc(way.near.program("watch"), "moon")
    way.run()
    assert way.near.granted(client).name == other.granted(server).name == "moon"
    assert way.far.irm.ipcps[way.toys[0][1].id].entry().counters["requests_unknown_name"] == 1
    way.near.write(client, b"hello, moon")
    way.run()
    other.listen()
    assert other.heard[server] == [b"hello, moon"]


def test_the_next_neighbour_has_as_much_time_as_the_first() -> None:
    way = build(1, udp=True)
    sent: list[float] = []
    for number in (2, 3):
        way.far.toy(f"far{number}", "toys1", way.far.udp)
        way.near.irm.ipcps[way.near.udp].change_peers([f"far{number}@{way.far.address}"], [], way.air.now)
        way.near.connect(way.toys[0][0], f"far{number}")
    way.run()
    (moon,) = (each.id for each in way.far.irm.ipcps.values() if each.name == "far3")
    way.far.offer("moon", moon)
    way.far.server("moon")
    begin = way.air.now
    counters = way.near.irm.ipcps[way.toys[0][0].id].entry
    before = counters().counters["requests_sent"]
    asked = way.near.alloc(way.near.program("watch"), "moon")
    while way.air.now < begin + 2.0:
        way.run(0.1)
        sent += [round(way.air.now - begin, 1)] * (counters().counters["requests_sent"] - before - len(sent))
    assert sent == [0.1, 0.1, 0.1, 1.6]
    assert way.near.answer(asked) is None


def test_a_neighbour_that_goes_while_it_is_asked_is_passed_over() -> None:
    way = build(1, udp=True)
    way.offer("clock")
    way.far.server("clock")
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run()
    assert way.near.answer(asked) is None
    assert len(way.toys[0][1]._incoming.waiting) == 1
    way.near.disconnect(way.toys[0][0], "far1")
    way.run()
    assert way.near.failed(asked).error == FlowNameException.__name__
    settle(way.hosts)
    for host in way.hosts:
        host.assert_idle()


@apart
def test_whoever_waits_for_a_member_that_is_destroyed_is_refused(way: Way) -> None:
    way.offer("clock")
    way.far.server("clock")
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run()
    assert way.near.answer(asked) is None
    way.far.destroy(way.toys[-1][1])
    way.run()
    assert way.near.failed(asked).error == FlowRefusedException.__name__


def test_a_member_is_connected_to_a_name_once(way: Way) -> None:
    near, _ = way.toys[-1]
    for token in (way.near.connect(near, f"far{len(way.toys)}"), way.near.disconnect(near, "nobody")):
        assert way.near.failed(token).error == IpcpConnectError.__name__


def test_a_name_that_leads_nowhere_is_no_neighbour(way: Way) -> None:
    connecting = way.near.connect(way.toys[-1][0], "nowhere")
    way.run()
    assert way.near.failed(connecting).error == FlowNameException.__name__
    way.assert_idle()


@pytest.mark.parametrize("after", [0.0, 0.0005, 0.0015, 0.0025])
def test_who_changes_his_mind_about_a_neighbour_gets_none(way: Way, after: float) -> None:
    near, _ = way.toys[-1]
    name = f"far{len(way.toys)}"
    way.near.disconnect(near, name)
    way.run()
    connecting = way.near.connect(near, name)
    way.run(after)
    in_time = way.near.answer(connecting) is None
    assert way.near.done(way.near.disconnect(near, name))
    if in_time:
        assert way.near.failed(connecting).error == FlowDownException.__name__
    way.run(30.0)
    assert near.neighbours.flows == {}
    settle(way.hosts)
    left = (2 if way.near is way.far else 1) * (len(way.toys) - 1)
    for host in way.hosts:
        host.assert_idle(lower=left)


def test_a_neighbour_for_whom_the_engine_has_no_room_is_none(way: Way) -> None:
    near, far = way.toys[-1]
    way.near.disconnect(near, f"far{len(way.toys)}")
    way.run()
    way.near.full = "too many open files"
    connecting = way.near.connect(near, f"far{len(way.toys)}")
    way.run()
    assert "too many open files" in way.near.failed(connecting).text
    way.near.full = ""
    way.run(5.0)
    assert (near.neighbours.flows, far.neighbours.flows) == ({}, {})
    settle(way.hosts)
    left = (2 if way.near is way.far else 1) * (len(way.toys) - 1)
    for host in way.hosts:
        host.assert_idle(lower=left)


def test_a_layer_is_not_put_over_itself() -> None:
    way = build(2, udp=True)
    (near1, far1), (_, far2) = way.toys
    way.far.manage(BindProcess(far1.id, "loop"))
    way.far.offer("loop", far2.id)
    connecting = way.near.connect(near1, "loop")
    way.run()
    # Only a layer above knows where it is.
    assert way.near.failed(connecting).error == FlowNameException.__name__
    # The node of a stranger cannot see that, and the other node does.
    connecting = way.near.connect(way.near.toy("stranger", "toys9"), "loop")
    way.run()
    assert way.near.failed(connecting).error == FlowRefusedException.__name__
    way.assert_idle()


@pytest.mark.parametrize("udp", [False, True])
def test_there_are_eight_layers_on_top_of_each_other_at_most(udp: bool) -> None:
    way = build(8, udp=udp)
    client, server = way.flow()
    way.near.write(client, b"from far above")
    way.run()
    assert way.far.heard[server] == [b"from far above"]
    ninth = way.near.toy("near9", "toys9")
    way.far.toy("far9", "toys9", way.toys[-1][1].id)
    connecting = way.near.connect(ninth, "far9")
    way.run()
    assert way.near.failed(connecting).error == FlowRefusedException.__name__


# --- bad weather


@pytest.mark.parametrize("seed", range(3))
def test_flows_are_there_at_both_ends_or_not_at_all_in_bad_weather(way: Way, seed: int) -> None:
    way.air.faults = Faults(loss=0.2, duplicate=0.3, jitter=0.1 + seed / 100)
    for number in range(6):
        client, server = way.flow(QOS_DATA if number % 2 else QOS_RAW)
        got = way.near.answer(client), way.far.answer(server)
        if isinstance(got[0], Granted):
            assert isinstance(got[1], Granted)
            assert way.near.granted(client).qos == way.far.granted(server).qos
            way.near.release(client)
        way.run(30.0)
        if isinstance(got[1], Granted):
            assert way.far.told[server] is How.GONE
            way.far.release(server)
        else:
            way.far.cancel(server)
    assert way.near.told == {} or way.near is way.far
    way.assert_idle()


@apart
def test_a_name_that_is_not_registered_any_more_is_unknown(way: Way) -> None:
    client, server = way.flow()
    way.far.manage(UnregisterName("clock", way.toys[-1][1].id))
    way.near.release(client)
    way.run()
    way.far.release(server)
    asked = way.near.alloc(way.near.program("watch"), "clock")
    way.run()
    assert way.near.failed(asked).error == FlowNameException.__name__
    way.assert_idle()


@pytest.mark.parametrize("served", [True, False])
def test_a_member_finds_those_elsewhere_by_a_name_that_it_is_bound_to_itself(served: bool) -> None:
    air = Air()
    near, far = Host(air), Host(air)
    for host, other in ((near, far), (far, near)):
        host.over_udp(f"campus@{other.address}")
    a, b = near.toy("a", "campus", near.udp), far.toy("b", "campus", far.udp)
    for host, toy in ((near, a), (far, b))[: 1 + served]:
        host.manage(BindProcess(toy.id, "campus"))
        host.manage(RegisterName("campus", host.udp))
    asked = near.connect(a, "campus")
    air.run(5.0)
    if served:
        assert near.done(asked)
        assert len(near.lower(a)) == len(far.lower(b)) == 1
    else:
        air.run(20.0)
        assert "the name is not registered in its layer" in near.failed(asked).text
