"""What a layer over UDP has for peers of which nothing is known, and how ours prove their address."""

from __future__ import annotations

import msgspec
import pytest
from irm_world import WALL
from strangers import OLDER, OURS, PROTOTYPE, forged
from udp_world import STRANGER, Network, Node, two_nodes

from ouroboros.layers.bucket import Lines
from ouroboros.layers.effects import Address, Warn
from ouroboros.layers.face import How
from ouroboros.layers.flows import incoming, outgoing
from ouroboros.layers.flows.core import PATIENCE
from ouroboros.qos import QoSSpec
from ouroboros.settings import Strangers
from ouroboros.wire.control import CreateName, Failed, Granted
from ouroboros.wire.udp import FlowReply, FlowRequest, FlowRetry, Message, decode

A, B, C = ("192.0.2.1", 3435), ("192.0.2.2", 3435), ("192.0.2.3", 3435)
COOKIE = 0xFEDC_BA98_7654_3210


def arrives(node: Node, data: bytes | Message | FlowRetry, source: Address = STRANGER) -> list[Message | FlowRetry]:
    """What the node sends when that comes in."""
    node.sent()
    datagram = data if isinstance(data, bytes) else data.encode()
    node.irm.management_arrived(node.layer_id, datagram, source, node.network.now)
    node.collect()
    return [decode(each) for each in node.sent()]


def asked(client: Node, qos: QoSSpec | None = None) -> tuple[int, FlowRequest]:
    """A request for a flow that nobody has answered yet."""
    client.network.faults.loss = 1.0
    client.sent()
    token = client.alloc(client.program("watch"), "clock", qos=qos)
    (request,) = (decode(data) for data in client.sent())
    assert isinstance(request, FlowRequest)
    return token, request


# --- proofs


def test_a_request_goes_out_again_with_the_cookie_and_those_after_it_have_it_from_the_start() -> None:
    _, client, _ = two_nodes()
    _, request = asked(client)
    assert request.cookie == 0
    assert arrives(client, FlowRetry(request.eid, COOKIE), B) == [msgspec.structs.replace(request, cookie=COOKIE)]
    assert client.counters["requests_proven"] == 1
    _, request = asked(client)
    assert request.cookie == COOKIE


def test_a_cookie_is_believed_only_from_where_the_request_went() -> None:
    _, client, _ = two_nodes()
    token, request = asked(client)
    assert arrives(client, FlowRetry(request.eid, COOKIE), STRANGER) == []
    assert arrives(client, FlowRetry(request.eid ^ 1, COOKIE), B) == []
    assert [client.counters[name] for name in ("messages_wrong_source", "messages_unknown")] == [1, 1]
    client.cancel(token)
    assert arrives(client, FlowRetry(request.eid, COOKIE), B) == []


def test_a_peer_that_always_wants_another_cookie_is_not_followed() -> None:
    _, client, _ = two_nodes()
    _, request = asked(client)
    sent = [arrives(client, FlowRetry(request.eid, COOKIE + number), B) for number in range(10)]
    assert sum(map(len, sent)) == outgoing.PROOFS


def test_cookies_are_kept_for_so_many_peers() -> None:
    _, client, _ = two_nodes()
    for number in range(outgoing.COOKIES + 1):
        client.layer._outgoing._cookies[f"198.51.100.{number}", 1] = 1
    _, request = asked(client)
    arrives(client, FlowRetry(request.eid, COOKIE), B)
    assert len(client.layer._outgoing._cookies) == outgoing.COOKIES
    assert client.layer._outgoing._cookies[B] == COOKIE


# --- shares


def test_strangers_have_places_of_their_own_and_give_them_back() -> None:
    network, _, server = two_nodes()
    server.irm.bound_strangers(Strangers(unproven=3, unproven_of_one=2))
    hosts = [("198.51.100.1", 1), ("198.51.100.1", 2), ("198.51.100.2", 1), ("198.51.100.3", 1)]
    for number, host in enumerate(hosts * 2):
        arrives(server, forged(PROTOTYPE, number, WALL), host)
    places = server.layer._incoming._unproven
    assert places.taken == 3
    assert server.counters["messages_dropped"] == 5
    # Whoever has proven its address finds room.
    arrives(server, forged(OURS, 100, WALL), A)
    assert len(server.layer._incoming.waiting) == 4
    network.run(20.0)
    assert server.layer._incoming.waiting == []
    assert places.taken == 0


def test_a_stranger_waits_behind_all_others() -> None:
    network, client, server = two_nodes()
    program = server.server("clock", "other")
    server.offer("other")
    arrives(server, forged(PROTOTYPE, 1, WALL), STRANGER)
    arrives(server, forged(OLDER, 2, WALL, name="other"), STRANGER)
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    here = server.alloc(server.program("here"), "other")
    accepting = [server.accept(program) for _ in range(4)]
    network.run(0.1)
    assert client.granted(asking).qos.timeout == QoSSpec().timeout
    assert server.answer(here) is not None
    who = [server.granted(token) for token in accepting]
    strangers = [flow.flow_id for flow in server.history if flow.address == STRANGER]
    assert [each.flow_id in strangers for each in who] == [False, False, True, True]


def test_flows_of_peers_leave_half_of_a_node_to_its_programs() -> None:
    network = Network()
    clients = [Node(network, at, peers=["clock@192.0.2.2"]) for at in (A, C)]
    server = Node(network, B, flow_limit=8)
    server.offer("clock")
    program = server.server("clock")
    for client in clients:
        tokens = [client.alloc(client.program("watch"), "clock") for _ in range(4)]
        for _ in tokens:
            server.accept(program)
        network.run(0.1)
        answers = [client.answer(token) for token in tokens]
        # One host has half of those of all, and leaves the rest to others.
        assert [each.error for each in answers if isinstance(each, Failed)] == ["FlowRefusedException"] * 2
        assert sum(isinstance(each, Granted) for each in answers) == 2
    server.manage(CreateName("here", "spillover"))
    here = server.server("here")
    for _ in range(4):
        accepting, asking = server.accept(here, "here"), server.alloc(server.program("p"), "here")
        assert server.granted(accepting).flow_id == server.granted(asking).flow_id


@pytest.mark.parametrize(("timeout", "gets"), [(0, 600_000), (700_000, 600_000), (600_000, 600_000), (5000, 5000)])
def test_the_longest_timeout_is_the_acceptors_and_both_are_told(timeout: int, gets: int) -> None:
    network, client, server = two_nodes()
    accepting = server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock", qos=QoSSpec(timeout=timeout))
    network.run(0.1)
    assert client.granted(asking).qos.timeout == server.granted(accepting).qos.timeout == gets
    replies = [decode(data) for source, _, data in network.sent if source == B]
    assert [reply.timeout for reply in replies if isinstance(reply, FlowReply)] == [0 if timeout == gets else gets]


def test_a_peer_cannot_shorten_a_timeout_to_nothing_or_make_it_longer() -> None:
    shortened = [outgoing._shortened(own, told) for own, told in ((0, 1), (5000, 999), (5000, 9000), (0, 1000))]
    assert shortened == [0, 5000, 5000, 1000]


def test_nothing_new_is_said_to_a_node_of_the_prototype() -> None:
    network, _, server = two_nodes()
    server.accept(server.server("clock"))
    (reply,) = arrives(server, forged(PROTOTYPE, 1, WALL), A)
    assert isinstance(reply, FlowReply)
    assert reply.timeout == 0
    assert network.now == 0.0


# --- answers


def test_a_stranger_is_told_once_of_the_end_of_its_flow() -> None:
    network, _, server = two_nodes()
    server.accept(server.server("clock"))
    request = forged(OLDER, 1, WALL)
    (reply,) = arrives(server, request)
    assert isinstance(reply, FlowReply)
    server.end(reply.peer_eid, How.SILENT)
    network.run(10.0)
    assert len([data for source, to, data in network.sent if (source, to) == (B, STRANGER)]) == 1


def test_a_handshake_that_makes_no_sense_is_not_answered_to_somebody_who_is_no_prototype() -> None:
    _, _, server = two_nodes()
    request = decode(forged(PROTOTYPE, 1, WALL))
    assert isinstance(request, FlowRequest)
    for eid, answers in ((64, 1), (10_240, 0)):
        broken = msgspec.structs.replace(request, eid=eid, oap=request.oap[:-1])
        assert len(arrives(server, broken)) == answers


# --- damage


@pytest.mark.parametrize("cypher_s", [0, 256])
@pytest.mark.parametrize(("damage", "come"), [(0.05, 50), (0.5, 40)])
def test_handshakes_with_damaged_datagrams_make_flows_of_which_both_sides_know_the_same(
    damage: float, come: int, cypher_s: int
) -> None:
    granted = 0
    for seed in range(50):
        network = Network(seed)
        client, server = (
            Node(network, A, peers=["clock@192.0.2.2"], guarded=True),
            Node(network, B, guarded=True),
        )
        server.offer("clock")
        program = server.server("clock")
        network.faults.damage = damage
        for _ in range(4):
            server.accept(program)
        qos = QoSSpec(in_order=1, ber=0, cypher_s=cypher_s)
        token = client.alloc(client.program("watch"), "clock", qos=qos)
        network.run(20.0)
        granted += isinstance(client.answer(token), Granted)
        # Raises when a client has another flow than its server.
        network.check()
    assert granted >= come


def test_a_damaged_reply_is_none_and_one_without_a_checksum_only_from_somebody_new() -> None:
    network, client, _ = two_nodes()
    token, request = asked(client)
    arrives(client, FlowRetry(request.eid, COOKIE), B)
    good = FlowReply(request.eid, 0, -1003, b"", checked=True).encode()
    for at in range(8, 8 * len(good)):
        damaged = bytearray(good)
        damaged[at // 8] ^= 1 << at % 8
        client.layer._outgoing._cookies[B] = COOKIE
        arrives(client, bytes(damaged), B)
        assert client.answer(token) is None, at
    # Then there is no cookie any more, and the next answer counts: there may be another node.
    for _ in range(2):
        assert client.answer(token) is None
        arrives(client, FlowReply(request.eid, 0, -1003, b""), B)
    assert client.failed(token).error == "FlowRefusedException"
    assert network.now == 0.0


def test_a_node_that_is_known_gets_the_same_request_once_more_soon() -> None:
    network, client, _ = two_nodes()
    _, request = asked(client)
    arrives(client, FlowRetry(request.eid, COOKIE), B)
    client.sent()
    network.run(outgoing.QUICK_PAUSE)
    assert [decode(data) for data in client.sent()] == [msgspec.structs.replace(request, cookie=COOKIE)]
    network.run(PATIENCE.pause - outgoing.QUICK_PAUSE)
    (again,) = (decode(data) for data in client.sent())
    assert isinstance(again, FlowRequest)
    assert (again.eid != request.eid, again.cookie) == (True, COOKIE)


# --- the log


def test_lines_are_bounded_and_those_that_were_left_out_are_counted() -> None:
    said: list[str] = []
    lines = Lines(1.0, 5.0, said.append)
    for number in range(1000):
        lines.add(f"line {number}", 100.0)
    assert said == [f"line {number}" for number in range(5)]
    deadline = lines.deadline()
    assert deadline is not None
    assert deadline == pytest.approx(101.0, abs=0.01)
    lines.timeout(100.5)
    assert len(said) == 5
    lines.timeout(deadline)
    assert said[5:] == ["995 more like that were not logged"]
    assert lines.deadline() is None


def test_who_fills_the_log_leaves_others_their_lines_and_all_together_have_an_end() -> None:
    said: list[str] = []
    lines = Lines(1.0, 5.0, said.append)
    now = 100.0
    for second in range(60):
        for _ in range(100):
            lines.add("flood", now, whose=1)
        lines.add(f"of another in second {second}", now, whose=2)
        now += 1.01
        lines.timeout(now)
    assert [each for each in said if "another" in each] == [f"of another in second {each}" for each in range(60)]
    counts = [int(each.split()[0]) for each in said if "more like that" in each]
    # A line a second, which is the count.
    assert (len(counts), sum(counts) + said.count("flood"), said.count("flood")) == (60, 6000, 5)

    said.clear()
    for whose in range(1000):
        lines.add("crowd", now, whose=("crowd", whose))
    assert said == ["crowd"] * 25
    lines.timeout(now + 1.01)
    assert said[25:] == ["975 more like that were not logged"]


def test_strangers_cannot_fill_the_log() -> None:
    network, _, server = two_nodes()
    server.files["server/clock/policy.conf"] = b"require=certificate"
    for number in range(500):
        arrives(server, forged(PROTOTYPE, number, WALL), (f"198.51.100.{number % 250}", 1))
    network.run(2.0)
    said = [warn.text for warn in server.take(Warn)]
    assert len(said) == incoming.WARNINGS[1] + 1
    assert said[-1] == f"{500 - int(incoming.WARNINGS[1])} more like that were not logged"
