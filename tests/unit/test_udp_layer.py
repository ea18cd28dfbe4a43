"""Layers over UDP, control side: what is asked and answered, and what is not believed."""

from __future__ import annotations

import dataclasses
import random
import re
from ipaddress import ip_address
from pathlib import Path

import pytest
from irm_world import WALL, World
from support import udp_settings
from udp_world import STRANGER, Network, Node, two_nodes

from ouroboros.control.waiting import LONGEST_PAUSE
from ouroboros.errors import (
    FlowDownException,
    IpcpBootstrapError,
    IrmError,
    NameError,
    OuroborosError,
    UnsupportedError,
)
from ouroboros.layers.base import RESTORATIONS
from ouroboros.layers.effects import (
    Address,
    CloseMember,
    Impair,
    OpenPort,
    PeerGone,
    Release,
    Resolve,
    SendManagement,
)
from ouroboros.layers.face import How
from ouroboros.layers.flows.core import COUNTERS
from ouroboros.layers.flows.incoming import REFUSALS, REQUESTS, WAITING_OF_ONE
from ouroboros.layers.flows.refusals import Refusal
from ouroboros.qos import QoSSpec
from ouroboros.settings import AnySettings
from ouroboros.wire import extension
from ouroboros.wire.control import (
    BindProgram,
    BootstrapIpcp,
    ChangePeers,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    DestroyName,
    Failed,
    FlowEntry,
    ImpairIpcp,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    ListNames,
    NameEntry,
    PortDetails,
    RegisterName,
    UnregisterName,
)
from ouroboros.wire.extension import Extension
from ouroboros.wire.oap import Header
from ouroboros.wire.udp import (
    FlowDealloc,
    FlowDeallocAck,
    FlowReply,
    FlowRequest,
    FlowRetry,
    Message,
    decode,
    digest_of,
)

A: Address = ("192.0.2.1", 3435)
B: Address = ("192.0.2.2", 3435)


def messages(node: Node) -> list[Message | FlowRetry]:
    return [decode(data) for data in node.sent()]


def request(
    name: str = "clock",
    eid: int = 64,
    *,
    number: int = 0,
    age: float = 0.0,
    now: float = 0.0,
    qos: QoSSpec | None = None,
) -> FlowRequest:
    """A request as a node of the C prototype sends it."""
    wall = WALL + round((now - age) * 1e9)
    oap = Header(id=number.to_bytes(16, "big"), timestamp=wall).encode()
    return FlowRequest(eid, qos or QoSSpec(), digest_of(name), oap)


def own_request(
    name: str = "clock",
    eid: int = 64,
    *,
    number: int = 0,
    allocation: bytes = bytes(16),
    flags: int = extension.DEALLOC | extension.RETRY,
) -> FlowRequest:
    """A request as a node of ours sends it."""
    blob = Extension(flags, 8976, 256, allocation).encode()
    oap = Header(id=number.to_bytes(16, "big"), timestamp=WALL, data=blob).encode()
    return FlowRequest(eid, QoSSpec(), digest_of(name), oap)


def arrives(node: Node, message: Message | bytes, source: Address = STRANGER) -> list[Message | FlowRetry]:
    """What the node sends when that comes in."""
    node.sent()
    data = message if isinstance(message, bytes) else message.encode()
    node.irm.management_arrived(node.layer_id, data, source, node.network.now)
    node.collect()
    return messages(node)


def only(found: list[Message | FlowRetry]) -> Message | FlowRetry:
    (message,) = found
    return message


# --- bootstrap and management


def peers(node: Node) -> list[str]:
    return list(entry(node, node.layer_id).peers)


def ipcp(world: World, type: str = "udp4") -> int:
    id = world.manage(CreateIpcp("u0", type))
    assert isinstance(id, int)
    return id


def entry(world: World, id: int) -> IpcpEntry:
    listed = world.manage(ListIpcps())
    assert isinstance(listed, list)
    found = next(each for each in listed if each.id == id)
    assert isinstance(found, IpcpEntry)
    return found


@pytest.mark.parametrize(("type", "host"), [("udp4", "192.0.2.1"), ("udp6", "2001:DB8::1")])
def test_bootstrap_is_answered_when_the_socket_is_there(type: str, host: str) -> None:
    world = World()
    id = ipcp(world, type)
    token = world.send(world.manager, BootstrapIpcp(id, "net", udp_settings(host, 4000)))
    assert world.take(OpenPort) == [OpenPort(id, type, host.lower(), 4000)]
    assert world.answer(token) is None
    assert (entry(world, id).state, entry(world, id).layer) == ("opening", "net")
    world.irm.member_opened(id, 0.0)
    world.collect()
    assert world.answer(token) is not None
    address = "192.0.2.1:4000" if type == "udp4" else "[2001:db8::1]:4000"
    assert entry(world, id) == IpcpEntry(
        id, "u0", type, "operational", "net", "MD5", PortDetails(address=address), counters=dict.fromkeys(COUNTERS, 0)
    )


def test_a_socket_that_cannot_be_had_fails_the_bootstrap_and_another_can_be_tried() -> None:
    world = World()
    id = ipcp(world)
    boot = BootstrapIpcp(id, "net", udp_settings("192.0.2.1"))
    token = world.send(world.manager, boot)
    world.irm.member_failed(id, "192.0.2.1 is no address of this host", 0.0)
    world.collect()
    failed = world.failed(token)
    assert (failed.error, failed.text) == ("IpcpBootstrapError", "192.0.2.1 is no address of this host")
    assert (entry(world, id).state, entry(world, id).layer) == ("boot", "")
    again = world.send(world.manager, boot)
    world.irm.member_opened(id, 0.0)
    world.collect()
    assert world.answer(again) is not None


def test_an_ipc_process_destroyed_while_it_opens_fails_the_bootstrap() -> None:
    world = World()
    id = ipcp(world)
    token = world.send(world.manager, BootstrapIpcp(id, "net", udp_settings("192.0.2.1")))
    world.take(OpenPort)
    world.manage(DestroyIpcp(id))
    assert world.failed(token).error == "IpcpBootstrapError"
    assert world.take(CloseMember) == [CloseMember(id)]
    world.irm.member_opened(id, 0.0)
    assert world.collect() == []


@pytest.mark.parametrize(
    ("type", "options", "error", "text"),
    [
        ("udp4", None, IpcpBootstrapError, "ip: give the address of this host"),
        ("udp4", udp_settings("0.0.0.0"), IpcpBootstrapError, "ip: give the address of this host"),
        ("udp4", udp_settings("::1"), IpcpBootstrapError, "'u0' is of type udp4, its settings of udp6"),
        *(
            ("udp4", udp_settings(ip), IpcpBootstrapError, f"ip: '{ip}' is not the address of one host")
            for ip in ("224.0.0.1", "239.255.255.255", "255.255.255.255", "0.0.0.1")
        ),
        *(
            ("udp6", udp_settings(ip), IpcpBootstrapError, f"ip: '{ip_address(ip)}' is not the address of one host")
            for ip in ("ff02::1", "fe80::1", "::ffff:192.0.2.1")
        ),
        *(
            (
                "udp4",
                udp_settings("192.0.2.1", peers=[f"a@{ip}"]),
                IpcpBootstrapError,
                f"peer: '{ip}' is not the address",
            )
            for ip in ("224.0.0.1", "255.255.255.255", "0.0.0.0")
        ),
        *(
            ("udp6", udp_settings("::1", peers=[f"a@{ip}"]), IpcpBootstrapError, f"peer: '{ip}' is not the address")
            for ip in ("ff02::1", "::", "fe80::1", "::ffff:192.0.2.1")
        ),
        ("udp6", udp_settings("192.0.2.1"), IpcpBootstrapError, "'u0' is of type udp6, its settings of udp4"),
        ("udp6", udp_settings("fe80::1%eth0"), IpcpBootstrapError, "ip: 'fe80::1%eth0' is not the address of one host"),
        (
            "udp4",
            udp_settings("192.0.2.1", dns="192.0.2.9"),
            UnsupportedError,
            "dns: .* `peer NAME@ADDRESS`, or in /etc/",
        ),
        ("udp4", udp_settings("192.0.2.1", peers=["a"]), IpcpBootstrapError, "peer: 'a' is no NAME@ADDRESS"),
        ("udp4", udp_settings("192.0.2.1", peers=["@192.0.2.2"]), IpcpBootstrapError, "peer: the name is empty"),
        ("udp4", udp_settings("192.0.2.1", peers=["a@b"]), IpcpBootstrapError, "peer: 'b' is no address of type udp4"),
        ("udp4", udp_settings("192.0.2.1", peers=["a@192.0.2.2:0"]), IpcpBootstrapError, "peer: '0' in .* is no port"),
        (
            "udp4",
            udp_settings("192.0.2.1", peers=["a@192.0.2.2:65536"]),
            IpcpBootstrapError,
            "'65536' in .* is no port",
        ),
        (
            "udp4",
            udp_settings("192.0.2.1", peers=["a@2001:db8::1"]),
            IpcpBootstrapError,
            "'2001:db8::1' is no address of",
        ),
        (
            "udp4",
            udp_settings("192.0.2.1", peers=["a@[::1]:9"]),
            IpcpBootstrapError,
            r"peer: '\[::1\]:9' is no address of",
        ),
        ("udp6", udp_settings("::1%lo"), IpcpBootstrapError, "ip: '::1%lo' is not the address of one host everywhere"),
        (
            "udp6",
            udp_settings("::1", peers=["a@2001:db8::1%eth0"]),
            IpcpBootstrapError,
            "%eth0' is not the address of one",
        ),
        ("udp6", udp_settings("::1", peers=["a@[::2]:65536"]), IpcpBootstrapError, "peer: '65536' in .* is no port"),
        ("udp6", udp_settings("::1", peers=["a@[::2]x1"]), IpcpBootstrapError, "peer: '1' in .* is no port"),
    ],
)
def test_wrong_options_are_named(
    type: str, options: AnySettings | None, error: type[OuroborosError], text: str
) -> None:
    world = World()
    id = ipcp(world, type)
    with pytest.raises(error, match=text):
        world.manage(BootstrapIpcp(id, "net", options))
    assert entry(world, id).state == "boot"
    assert world.take(OpenPort) == []


def test_options_of_udp_mean_nothing_to_other_types() -> None:
    world = World()
    id = world.manage(CreateIpcp("l0", "local"))
    assert isinstance(id, int)
    with pytest.raises(IpcpBootstrapError, match="'l0' is of type local, its settings of udp4"):
        world.manage(BootstrapIpcp(id, "lab", udp_settings("192.0.2.1")))


def test_a_layer_over_udp_holds_names_by_their_md5() -> None:
    _, _, server = two_nodes()
    layer = server.layer
    assert layer.digest("oping").hex() == "7862c6fec5ecaef4aa2e3934725e23b3"
    assert layer.query(layer.digest("clock"))
    assert not layer.query(layer.digest("other"))
    listed = server.manage(ListNames())
    assert listed == [NameEntry("clock", "spillover", [], [], ["net"])]
    server.manage(UnregisterName("clock", server.layer_id))
    assert not layer.query(layer.digest("clock"))


def test_a_name_that_is_destroyed_leaves_the_layer() -> None:
    _, _, server = two_nodes()
    server.manage(DestroyName("clock"))
    assert not server.layer.query(server.layer.digest("clock"))


def test_names_are_registered_only_in_a_layer() -> None:
    world = World()
    id = ipcp(world)
    world.manage(CreateName("a", "spillover"))
    with pytest.raises(IpcpBootstrapError, match="in no layer yet"):
        world.manage(RegisterName("a", id))


def test_a_layer_can_be_impaired_from_the_start_and_later() -> None:
    world = World()
    id = ipcp(world)
    world.send(world.manager, BootstrapIpcp(id, "net", udp_settings("192.0.2.1", impair="loss=1%")))
    assert world.take(Impair) == []
    world.irm.member_opened(id, 0.0)
    world.collect()
    assert [effect.impairment.loss for effect in world.take(Impair)] == [0.01]
    world.manage(ImpairIpcp(id, "none"))
    assert [effect.impairment.loss for effect in world.take(Impair)] == [0.0]
    assert entry(world, id).impair == "none"


def test_a_node_with_a_layer_over_udp_is_busy_without_programs() -> None:
    world = World()
    assert not world.irm.busy
    id = ipcp(world)
    assert not world.irm.busy
    world.send(world.manager, BootstrapIpcp(id, "net", udp_settings("192.0.2.1")))
    world.irm.member_opened(id, 0.0)
    busy = [world.irm.busy]
    world.manage(DestroyIpcp(id))
    assert [*busy, world.irm.busy] == [True, False]


def test_peers_are_changed_all_or_none() -> None:
    _, client, _ = two_nodes()
    with pytest.raises(IpcpBootstrapError, match=r"peer: 'x@192.0.2.9' is not in the table"):
        client.manage(ChangePeers(client.layer_id, ["b@192.0.2.3"], ["clock@192.0.2.2", "x@192.0.2.9"]))
    assert peers(client) == ["clock@192.0.2.2"]
    client.manage(ChangePeers(client.layer_id, ["b@192.0.2.3:99", "b@192.0.2.3:99"], ["clock@192.0.2.2"]))
    assert peers(client) == ["b@192.0.2.3:99"]
    local = client.manage(CreateIpcp("l0", "local"))
    assert isinstance(local, int)
    with pytest.raises(IrmError, match="of type local has no peers"):
        client.manage(ChangePeers(local, [], []))


# --- a flow with another node


@pytest.mark.parametrize("type", ["udp4", "udp6"])
def test_two_nodes_make_a_flow(type: str) -> None:
    network, client, server = two_nodes(type=type)
    accepting = server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    asks, takes = client.granted(asking), server.granted(accepting)
    assert (asks.side, takes.side) == (0, 1)
    assert asks.qos == takes.qos == QoSSpec()
    (ours,), (theirs,) = client.attached.values(), server.attached.values()
    assert (ours.eid, ours.peer_eid, ours.address) == (theirs.peer_eid, theirs.eid, server.address)
    assert theirs.address == client.address
    assert ours.extension is not None
    assert theirs.extension is not None
    assert ours.extension.request == theirs.extension.request
    assert ours.extension.max_packet == (8976 if type == "udp4" else 8948)
    assert ours.session is None


@pytest.mark.parametrize("longest", [extension.LEAST_PACKET - 1, 0, -4])
def test_no_flow_is_asked_for_or_accepted_where_no_packets_fit(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a lower flow that carries next to nothing: what we take could not be said."""
    _, client, server = two_nodes()
    for node in (client, server):
        core = node.irm.ipcps[node.layer_id]._core  # type: ignore[attr-defined]
        monkeypatch.setattr(core.directory, "longest", lambda _: longest)
    asking = client.alloc(client.program("watch"), "clock")
    assert client.failed(asking).error == "FlowRefusedException"
    assert f"{extension.LEAST_PACKET} bytes" in client.failed(asking).text
    assert client.sent() == []
    server.accept(server.server("clock"))
    reply = only(arrives(server, own_request()))
    assert isinstance(reply, FlowReply)
    assert reply.response == Refusal.EIPCP
    # A node of the prototype is told nothing of sizes.
    assert isinstance(only(arrives(server, request(eid=65))), FlowReply)


def test_flows_with_other_nodes_are_listed_with_their_address() -> None:
    network, client, server = two_nodes()
    process = server.server("clock")
    server.accept(process)
    client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    assert server.manage(ListFlows()) == [
        FlowEntry(1, "clock", (0, process.pid), QoSSpec(), "net", "192.0.2.1:3435", "node")
    ]


def test_the_name_need_not_exist_on_the_client_and_need_not_be_accepted_yet() -> None:
    network, client, server = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    network.run(3.0)
    assert client.answer(asking) is None
    server.accept(server.server("clock"))
    network.run(0.1)
    client.granted(asking)
    assert server.counters["requests_repeated"] == 1


def test_a_program_is_started_for_a_peer() -> None:
    network, client, server = two_nodes()
    server.manage(BindProgram("/bin/clockd", "clock", True, []))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    server.accept(server.program("clockd"))
    network.run(0.1)
    client.granted(asking)


def test_peers_and_programs_wait_in_one_queue() -> None:
    network, client, server = two_nodes()
    first = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    second = server.alloc(server.program("watch"), "clock")
    process = server.server("clock")
    server.accept(process)
    network.run(0.1)
    client.granted(first)
    assert server.answer(second) is None
    server.accept(process)
    server.granted(second)


def test_reliable_flows_ask_for_order_and_for_a_crc_only_among_our_nodes() -> None:
    network, client, server = two_nodes()
    accepting = server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock", qos=QoSSpec(loss=0, ber=0))
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    assert (sent.qos.loss, sent.qos.in_order, sent.qos.ber) == (0, 1, 1)
    network.run(0.1)
    assert client.granted(asking).qos == server.granted(accepting).qos == QoSSpec(loss=0, in_order=1, ber=0)


def test_a_served_name_stays_on_the_node() -> None:
    network, client, server = two_nodes()
    accepting = client.accept(client.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    assert client.connected(asking, accepting)
    network.run(1.0)
    assert messages(client) == messages(server) == []


def test_a_name_of_the_node_that_nobody_serves_is_asked_elsewhere() -> None:
    network, client, server = two_nodes()
    client.manage(CreateName("clock", "spillover"))
    server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    client.granted(asking)


def test_who_is_not_found_elsewhere_waits_here() -> None:
    network, client, _ = two_nodes()
    client.manage(CreateName("other", "spillover"))
    asking = client.alloc(client.program("watch"), "other")
    network.run(1.0)
    accepting = client.accept(client.server("other"))
    assert client.connected(asking, accepting)


def test_an_acceptor_that_comes_during_the_lookup_wins() -> None:
    network, client, _ = two_nodes()
    client.answers_lookups = False
    client.manage(CreateName("other", "spillover"))
    asking = client.alloc(client.program("watch"), "other")
    accepting = client.accept(client.server("other"))
    assert client.connected(asking, accepting)
    network.hosts[digest_of("other").hex()] = ["192.0.2.2"]
    client.answer_lookup(client.lookups[0])
    network.run(1.0)
    assert messages(client) == []


# --- resolution


def test_names_are_looked_up_by_their_md5_once_a_minute() -> None:
    network, client, server = two_nodes(name="other")
    server.offer("clock")
    network.hosts["clock"] = ["192.0.2.9"]
    network.hosts[digest_of("clock").hex()] = ["192.0.2.2"]
    process, program = server.server("clock"), client.program("watch")
    for _ in range(2):
        server.accept(process)
        asking = client.alloc(program, "clock")
        network.run(0.1)
        client.granted(asking)
    (lookup,) = client.take(Resolve)
    assert lookup == Resolve(client.layer_id, 1, digest_of("clock").hex(), "udp4", lookup.asked)
    network.run(60.0)
    client.alloc(program, "clock")
    assert len(client.take(Resolve)) == 1


def test_two_who_look_for_a_name_look_once() -> None:
    network, client, _ = two_nodes()
    for _ in range(2):
        client.alloc(client.program("watch"), "other")
    assert len(client.lookups) == 1
    network.run(0.1)
    assert client.irm.deadline() is None


def test_a_name_that_is_nowhere_is_an_error_that_says_where_to_add_it() -> None:
    network, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "other")
    network.run(0.1)
    failed = client.failed(asking)
    assert failed.error == "FlowNameException"
    assert digest_of("other").hex() in failed.text


def test_addresses_that_no_host_has_are_not_asked() -> None:
    network, client, _ = two_nodes()
    network.hosts[digest_of("other").hex()] = ["224.0.0.1", "0.0.0.0", "::1", "no address"]
    asking = client.alloc(client.program("watch"), "other")
    network.run(0.1)
    assert client.failed(asking).error == "FlowNameException"
    assert messages(client) == []


def test_several_addresses_are_asked_in_turn() -> None:
    network, client, server = two_nodes()
    client.manage(ChangePeers(client.layer_id, ["clock@192.0.2.8", "clock@192.0.2.2"], ["clock@192.0.2.2"]))
    server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(1.0)
    assert client.answer(asking) is None
    network.run(1.0)
    client.granted(asking)


def test_the_first_layer_that_knows_the_name_is_asked() -> None:
    network, client, server = two_nodes()
    six = ipcp_with_peer(client, "udp6", "2001:db8::9")
    server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    client.granted(asking)
    client.manage(ChangePeers(client.layer_id, [], ["clock@192.0.2.2"]))
    client.take(SendManagement)
    client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    assert [(sent.ipcp, sent.where) for sent in client.take(SendManagement)] == [(six, ("2001:db8::9", 3435))]


@pytest.mark.parametrize(("type", "own", "host"), [("udp4", "192.0.2.3", B[0]), ("udp6", "2001:db8::1", "2001:db8::9")])
def test_the_peers_of_all_layers_come_before_any_resolver(type: str, own: str, host: str) -> None:
    """A resolver without a name server takes five seconds and more to say that it knows nothing."""
    network, client, _ = two_nodes()
    client.answers_lookups = False
    client.manage(ChangePeers(client.layer_id, [], ["clock@192.0.2.2"]))
    second = ipcp_with_peer(client, type, host, own=own)
    client.take(SendManagement)
    client.alloc(client.program("watch"), "clock")
    client.alloc(client.program("watch"), "other")
    network.run(0.1)
    assert [(sent.ipcp, sent.where) for sent in client.take(SendManagement)] == [(second, (host, 3435))]
    assert [(each.ipcp, each.host) for each in client.lookups] == [(client.layer_id, digest_of("other").hex())]


def ipcp_with_peer(node: Node, type: str, host: str, *, own: str = "2001:db8::1") -> int:
    id = node.manage(CreateIpcp("u6", type))
    assert isinstance(id, int)
    node.manage(BootstrapIpcp(id, "beside", udp_settings(own, peers=[f"clock@{host}"])))
    return id


class Scripted(random.Random):
    """Draws the numbers it is told to."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(1)
        self._numbers = list(numbers)

    def getrandbits(self, k: int) -> int:
        return self._numbers.pop(0)


def test_endpoint_ids_are_random_unique_and_none_of_those_that_mean_something_else() -> None:
    _, client, _ = two_nodes()
    core = client.layer._core
    core.host = dataclasses.replace(core.host, random=Scripted(0, 0xFFFFFFFF, 7, 7, 0, 8))
    assert [core.draw_eid(), core.draw_eid()] == [7, 8]


# --- requests that are not answered


def test_requests_are_repeated_with_fresh_numbers() -> None:
    network, client, _ = two_nodes()
    network.nodes.pop(B)
    asking = client.alloc(client.program("watch"), "clock", timeout=11.0)
    times = []
    sent: list[Message | FlowRetry] = []
    for _ in range(11):
        found = messages(client)
        times += [network.now] * len(found)
        sent += found
        network.run(0.5)
        found = messages(client)
        times += [network.now] * len(found)
        sent += found
        network.run(0.5)
    assert times == [0.0, 1.5, 4.5, 10.5]
    requests = [message for message in sent if isinstance(message, FlowRequest)]
    assert len({each.eid for each in requests}) == 4
    assert len({each.oap[:16] for each in requests}) == 4
    failed = client.failed(asking)
    assert failed.error == "FlowTimeoutException"
    assert "no answer from 192.0.2.2:3435 to 4 requests (layer 'net')" in failed.text
    network.run(100.0)
    client.assert_idle()


def test_a_lookup_that_takes_too_long_is_a_timeout() -> None:
    network, client, _ = two_nodes()
    client.answers_lookups = False
    asking = client.alloc(client.program("watch"), "other", timeout=1.0)
    network.run(1.0)
    assert "still being looked up" in client.failed(asking).text
    client.answer_lookup(client.lookups[0])
    network.run(100.0)
    client.assert_idle()


def test_no_time_is_no_request() -> None:
    _, client, _ = two_nodes()
    assert client.failed(client.alloc(client.program("watch"), "clock", timeout=0)).error == "FlowTimeoutException"
    assert messages(client) == []


def test_a_repeated_request_gets_the_same_answer_and_makes_no_second_flow() -> None:
    network, client, server = two_nodes()
    server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.faults.loss = 1.0
    network.run(0.0)
    # The request was on its way before everything was lost, so only the answer is.
    network.run(1.4)
    network.faults.loss = 0.0
    network.run(1.0)
    client.granted(asking)
    assert len(server.history) == 1
    assert server.counters["requests_repeated"] == 1
    assert (client.history[0].eid, client.history[0].peer_eid) == (
        server.history[0].peer_eid,
        server.history[0].eid,
    )


def test_who_hangs_up_and_is_accepted_later_tells_the_peer() -> None:
    network, client, server = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    network.run(1.0)
    client.cancel(asking)
    assert client.reserved == {}
    accepting = server.accept(server.server("clock"))
    server.granted(accepting)
    network.run(0.1)
    assert server.take(PeerGone) == [PeerGone(server.layer_id, server.history[0].eid, died=False)]
    assert client.counters["replies_late"] == 1
    network.run(100.0)
    client.assert_idle()


def test_an_answer_is_believed_only_from_where_the_request_went() -> None:
    _, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    for source in (STRANGER, (B[0], 3436), (STRANGER[0], B[1])):
        arrives(client, FlowReply(sent.eid, 64, -1003, b""), source)
    arrives(client, FlowReply(sent.eid + 1, 64, -1003, b""), B)
    assert client.answer(asking) is None
    assert (client.counters["messages_wrong_source"], client.counters["messages_unknown"]) == (3, 1)


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (
            -1003,
            "FlowRefusedException",
            "(-1003 EIPCP): the name is not registered in its layer, or no program accepted",
        ),
        (-1007, "FlowNameException", "(-1007 ENAME): it does not know the name"),
        (
            -1008,
            "FlowCryptException",
            "(-1008 ECRYPT): the two sides agree on no encryption; this side asks for no encryption, and the server",
        ),
        (
            -1009,
            "FlowAuthException",
            "(-1009 EAUTH): the server does not believe the request: the clocks of the two hosts differ",
        ),
        (-12, "FlowRefusedException", "(-12 ENOMEM): it has no room for another flow"),
        (-110, "FlowRefusedException", "(-110 ETIMEDOUT): it does not say why"),
        (-1, "FlowRefusedException", "(-1 EPERM): it does not say why"),
        (-5000, "FlowRefusedException", "(-5000): it does not say why"),
    ],
)
def test_a_refusal_is_an_error_that_says_by_whom_and_why(code: int, error: str, text: str) -> None:
    _, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    assert arrives(client, FlowReply(sent.eid, 0, code, b""), B) == []
    failed = client.failed(asking)
    assert failed.error == error
    assert failed.text.startswith(f"192.0.2.2:3435 refused the flow to 'clock' {text}")


def test_an_answer_without_a_valid_handshake_is_an_error() -> None:
    _, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    assert arrives(client, FlowReply(sent.eid, 64, 0, bytes(84)), B) == []
    assert client.failed(asking).error == "FlowAuthException"
    assert client.reserved == {}


def test_a_node_without_room_gives_the_flow_back() -> None:
    network = Network()
    server = Node(network, B)
    client = Node(network, A, peers=["clock@192.0.2.2"], flow_limit=0)
    server.offer("clock")
    server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    assert client.failed(asking).error == "NodeLimitError"
    assert len(server.take(PeerGone)) == 1
    network.run(100.0)
    client.assert_idle()


# --- requests of peers


def test_a_node_of_the_prototype_is_answered_without_a_blob() -> None:
    _, _, server = two_nodes()
    accepting = server.accept(server.server("clock"))
    reply = only(arrives(server, request(qos=QoSSpec(ber=0, in_order=1)), A))
    assert isinstance(reply, FlowReply)
    assert (reply.eid, reply.response, len(reply.oap)) == (64, 0, 84)
    flow = server.attached[reply.peer_eid]
    assert (flow.extension, flow.session, flow.address, flow.peer_eid) == (None, None, A, 64)
    # A build of it that asks for CRCs gets them.
    assert server.granted(accepting).qos == QoSSpec(ber=0, in_order=1)


def test_a_request_for_no_loss_without_order_is_no_reliable_flow() -> None:
    _, _, server = two_nodes()
    accepting = server.accept(server.server("clock"))
    arrives(server, request(qos=QoSSpec(loss=0)), A)
    assert not server.granted(accepting).qos.ordered


def test_only_names_that_are_registered_in_the_layer_can_be_reached() -> None:
    _, _, server = two_nodes()
    server.accept(server.server("clock", "hidden"))
    reply = only(arrives(server, request("hidden"), A))
    assert reply == FlowReply(64, 0, -1003, b"")
    assert server.counters["requests_unknown_name"] == 1


def test_each_accept_takes_flows_of_peers_to_its_name_alone() -> None:
    network, client, server = two_nodes()
    client.manage(ChangePeers(client.layer_id, ["watch@192.0.2.2"], []))
    server.offer("watch")
    both, asker = server.server("clock", "watch"), client.program("asker")
    taken = {name: server.accept(both, name) for name in ("clock", "watch")}
    for name in ("watch", "clock"):
        asking = client.alloc(asker, name)
        network.run(0.1)
        assert client.granted(asking).name == server.granted(taken[name]).name == name
    asking = client.alloc(asker, "watch")
    again = server.accept(both, "clock")
    network.run(5.0)
    assert (client.answer(asking), server.answer(again)) == (None, None)
    late = server.accept(both, "watch")
    network.run(0.1)
    assert client.granted(asking).name == server.granted(late).name == "watch"


def test_when_nobody_accepts_the_peer_is_told_before_it_gives_up() -> None:
    network, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    network.run(19.6)
    assert "no program accepted in time" in client.failed(asking).text


def test_everything_that_is_counted_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "udp.md").read_text()
    assert [name for name in COUNTERS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("age", [20.5, -0.2])
def test_a_request_of_another_time_is_refused(age: float) -> None:
    _, _, server = two_nodes()
    server.accept(server.server("clock"))
    assert only(arrives(server, request(age=age), A)) == FlowReply(64, 0, -1009, b"")


def test_a_replayed_request_is_answered_again_but_makes_no_flow() -> None:
    _, _, server = two_nodes()
    process = server.server("clock")
    server.accept(process)
    first = arrives(server, request(), A)
    waiting = server.accept(process)
    assert arrives(server, request(), A) == first
    # From elsewhere it is a replay.
    assert only(arrives(server, request(), STRANGER)) == FlowReply(64, 0, -1009, b"")
    assert server.answer(waiting) is None
    assert len(server.history) == 1


def test_the_same_allocation_in_another_request_gets_the_answer_of_the_first() -> None:
    _, _, server = two_nodes()
    process = server.server("clock")
    server.accept(process)
    first = arrives(server, own_request(eid=64, number=1), A)
    server.accept(process)
    assert arrives(server, own_request(eid=65, number=2), A) == first
    assert arrives(server, own_request(eid=65, number=2), A) == first
    # Another host may have drawn the same number.
    assert arrives(server, own_request(eid=65, number=3), STRANGER) != first
    assert server.counters["requests_repeated"] == 2


@pytest.mark.parametrize(
    "data", [b"", bytes(46), bytes(47), bytes(3000), FlowReply(1, 1, 0, b"").encode()[:44] + b"\x09\0\0"]
)
def test_what_is_no_message_is_counted_and_never_answered(data: bytes) -> None:
    _, _, server = two_nodes()
    assert arrives(server, data) == []
    assert server.counters["messages_malformed"] == 1


def test_an_endpoint_id_that_the_prototype_does_not_hand_out_is_not_sent_to_it() -> None:
    _, _, server = two_nodes()
    assert arrives(server, request("other", eid=10_240), A) == []
    assert server.counters["messages_malformed"] == 1
    assert arrives(server, request("other", eid=10_239), A) != []


def test_a_refusal_is_shorter_than_the_request() -> None:
    _, _, server = two_nodes()
    for asked in (request("other"), request(age=100.0), FlowRequest(64, QoSSpec(), digest_of("clock"), b"")):
        server.sent()
        arrives(server, asked)
        assert all(len(data) < len(asked.encode()) for _, _, data in server.network.sent)


def test_refusals_are_bounded() -> None:
    _, _, server = two_nodes()
    sent = [arrives(server, request("other", number=number)) for number in range(int(REFUSALS[1]) + 50)]
    assert sum(map(len, sent)) == REFUSALS[1]
    assert server.counters["messages_dropped"] == 50


def test_requests_are_bounded() -> None:
    network, _, server = two_nodes()
    data = request("other").encode()
    for number in range(int(REQUESTS[1]) + 7):
        # One host has a part of them.
        server.irm.management_arrived(server.layer_id, data, (f"198.51.100.{number % 4}", 9), network.now)
    assert server.counters["messages_dropped"] >= 7
    assert server.counters["requests_unknown_name"] == REQUESTS[1]
    network.run(1.0)
    server.irm.management_arrived(server.layer_id, data, STRANGER, network.now)
    assert server.counters["requests_unknown_name"] == REQUESTS[1] + 1


def test_one_host_cannot_take_all_places_in_the_queue() -> None:
    _, _, server = two_nodes()
    for number in range(WAITING_OF_ONE + 10):
        arrives(server, own_request(number=number, allocation=number.to_bytes(16)))
    assert len(server.layer._incoming.waiting) == WAITING_OF_ONE
    arrives(server, request(number=5000), A)
    assert len(server.layer._incoming.waiting) == WAITING_OF_ONE + 1
    assert server.counters["messages_dropped"] == 10


def test_a_full_node_refuses_and_the_acceptor_goes_on_waiting() -> None:
    network = Network()
    server = Node(network, B, flow_limit=0)
    server.offer("clock")
    accepting = server.accept(server.server("clock"))
    assert only(arrives(server, request(), A)) == FlowReply(64, 0, -12, b"")
    assert server.answer(accepting) is None
    server.cancel(accepting)
    network.run(100.0)
    server.assert_idle()


def test_a_destroyed_name_refuses_those_who_wait_for_it() -> None:
    network, client, server = two_nodes()
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    server.manage(DestroyName("clock"))
    network.run(0.1)
    assert client.failed(asking).error == "FlowNameException"


# --- names that nobody serves, or nobody any more


def test_a_peer_whose_server_has_ended_refuses_at_once() -> None:
    network, client, server = two_nodes()
    program = server.server("clock")
    server.accept(program)
    asked = [client.alloc(client.program("watch"), "clock") for _ in range(2)]
    network.run(0.1)
    assert [isinstance(client.answer(token), Failed) for token in asked] == [False, False]
    server.kill(program)
    network.run(0.1)
    late = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    for token in (asked[1], late):
        failed = client.failed(token)
        assert failed.error == "FlowNameException"
        assert failed.text.endswith("it does not know the name, or the program that served it has ended")


def test_who_waits_for_a_name_asks_the_peer_until_somebody_serves_it() -> None:
    network, client, server = two_nodes()
    program = server.server("clock")
    server.accept(program, timeout=0)
    server.kill(program)
    asking = client.alloc(client.program("watch"), "clock", 60.0, wait=True)
    network.run(30.0)
    assert client.answer(asking) is None
    # Sensibly often: the pauses double, up to two seconds.
    assert 15 <= client.counters["requests_sent"] <= 20
    accepting = server.accept(server.program("clockd"), "clock")
    network.run(LONGEST_PAUSE + 0.1)
    assert client.granted(asking).name == server.granted(accepting).name == "clock"
    network.run(100.0)
    assert client.irm.deadline() is None


@pytest.mark.parametrize(
    "what", ["the peer gets the name", "the name gets a peer", "the resolver learns it", "a layer"]
)
def test_who_waits_for_a_name_finds_it_when_it_becomes_reachable(what: str) -> None:
    network, client, server = two_nodes()
    name = "clock" if what == "the peer gets the name" else "other"
    server.manage(UnregisterName("clock", server.layer_id))
    if what == "a layer":
        client.manage(DestroyIpcp(client.layer_id))
    asking = client.alloc(client.program("watch"), name, wait=True)
    network.run(5.0)
    assert client.answer(asking) is None
    server.offer(name)
    match what:
        case "the name gets a peer":
            client.manage(ChangePeers(client.layer_id, ["other@192.0.2.2"], []))
        case "the resolver learns it":
            network.hosts[digest_of("other").hex()] = ["192.0.2.2"]
        case "a layer":
            client.layer_id = ipcp(client)
            options = udp_settings(*A, ["other@192.0.2.2"])
            client.manage(BootstrapIpcp(client.layer_id, "net", options))
    accepting = server.accept(server.server(name))
    network.run(LONGEST_PAUSE + 0.1)
    assert client.granted(asking).name == server.granted(accepting).name == name


def test_who_waits_for_a_name_waits_here_while_a_peer_does_not_answer() -> None:
    network, client, _ = two_nodes()
    client.manage(ChangePeers(client.layer_id, ["clock@192.0.2.8"], ["clock@192.0.2.2"]))
    asking = client.alloc(client.program("watch"), "clock", 60.0, wait=True)
    network.run(10.0)
    accepting = client.accept(client.program("clockd"), "clock")
    assert client.connected(asking, accepting)
    assert client.reserved == {}
    network.run(100.0)
    assert client.irm.deadline() is None


def test_who_waits_for_a_name_waits_on_when_the_layer_that_is_asked_goes() -> None:
    network, client, server = two_nodes()
    asking = client.alloc(client.program("watch"), "clock", wait=True)
    network.run(1.0)
    client.manage(DestroyIpcp(client.layer_id))
    assert client.answer(asking) is None
    assert client.connected(asking, client.accept(client.program("clockd"), "clock"))
    network.run(60.0)
    assert server.irm.deadline() is None


def test_the_timeout_of_who_waits_for_a_name_tells_what_the_peer_said_last() -> None:
    network, client, server = two_nodes()
    server.manage(UnregisterName("clock", server.layer_id))
    asking = client.alloc(client.program("watch"), "clock", 3.0, wait=True)
    network.run(3.0)
    failed = client.failed(asking)
    assert failed.error == "FlowTimeoutException"
    assert "in time: 192.0.2.2:3435 refused the flow to 'clock' (-1003 EIPCP)" in failed.text


@pytest.mark.parametrize(("code", "error"), [(-1008, "FlowCryptException"), (-1009, "FlowAuthException"), (-12, None)])
def test_what_time_does_not_cure_is_told_to_who_waits_for_a_name(code: int, error: str | None) -> None:
    _, client, _ = two_nodes()
    asking = client.alloc(client.program("watch"), "clock", wait=True)
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    arrives(client, FlowReply(sent.eid, 0, code, b""), B)
    assert client.failed(asking).error == (error or "FlowRefusedException")
    assert client.irm.deadline() is not None, "late answers are told of"


# --- the end of flows


def established(**kinds: str) -> tuple[Network, Node, Node, int, int]:
    """Two nodes with a flow, and the tokens of its ends."""
    network, client, server = two_nodes(**kinds)  # type: ignore[arg-type]
    accepting = server.accept(server.server("clock"))
    asking = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    return network, client, server, asking, accepting


def test_a_node_of_ours_is_told_when_everything_was_delivered() -> None:
    network, client, server, asking, _ = established()
    client.linger = 5.0
    client.sent()
    process = client.irm.registry.processes[client.irm.flows.flows[client.granted(asking).flow_id].pids[0]]
    client.dealloc(process, asking)
    assert client.take(Release) == [Release(1, client.layer_id)]
    network.run(4.0)
    assert messages(client) == []
    assert client.irm.flows.flows == {}
    network.run(1.1)
    notice = only(messages(client))
    assert notice == FlowDealloc(client.history[0].eid, server.history[0].eid)
    assert messages(server)[-1] == FlowDeallocAck(server.history[0].eid, client.history[0].eid)
    assert server.take(PeerGone) == [PeerGone(server.layer_id, server.history[0].eid, died=False)]
    # The program there has its end until it lets go.
    assert len(server.irm.flows.flows) == 1
    network.run(100.0)
    client.assert_idle()


def test_a_node_of_ours_is_told_that_the_program_died() -> None:
    network, client, server, asking, _ = established()
    process = client.irm.registry.processes[client.irm.flows.flows[client.granted(asking).flow_id].pids[0]]
    client.sent()
    client.kill(process)
    network.run(0.1)
    assert only(messages(client)) == FlowDealloc(client.history[0].eid, server.history[0].eid, died=True)
    assert server.take(PeerGone) == [PeerGone(server.layer_id, server.history[0].eid, died=True)]
    network.run(100.0)
    client.assert_idle()


@pytest.mark.parametrize(
    ("how", "died"), [(How.CLOSED, False), (How.DIED, True), (How.SILENT, True), (How.BROKEN, True)]
)
def test_a_flow_that_did_not_end_in_order_is_no_deallocation(how: How, died: bool) -> None:
    network, client, server, _, _ = established()
    client.end(client.history[0].eid, how)
    network.run(0.1)
    assert [each.died for each in server.take(PeerGone)] == [died]


@pytest.mark.parametrize("first", [False, True])
def test_the_first_notice_counts(first: bool) -> None:
    _, client, server, _, _ = established()
    ours, theirs = client.history[0].eid, server.history[0].eid
    for died in (first, not first):
        assert only(arrives(server, FlowDealloc(ours, theirs, died), A)) == FlowDeallocAck(theirs, ours)
    assert [each.died for each in server.take(PeerGone)] == [first]


def test_a_notice_with_a_reason_that_is_none_ends_nothing() -> None:
    _, client, server, _, _ = established()
    data = bytearray(FlowDealloc(client.history[0].eid, server.history[0].eid).encode())
    data[12:16] = (1).to_bytes(4)
    assert arrives(server, bytes(data), A) == []
    assert server.take(PeerGone) == []
    assert server.counters["messages_malformed"] == 1


def test_a_notice_is_repeated_until_it_is_acknowledged_or_given_up() -> None:
    network, client, _, _, _ = established()
    client.sent()
    network.nodes.pop(B)
    client.end(client.history[0].eid, How.CLOSED)
    network.run(10.0)
    assert len(messages(client)) == 5
    assert client.counters["notices_unanswered"] == 1
    network.run(100.0)
    assert client.layer._core.eids == set()


def test_a_node_of_the_prototype_is_told_nothing() -> None:
    network, _, server = two_nodes()
    server.accept(server.server("clock"))
    reply = only(arrives(server, request(), A))
    assert isinstance(reply, FlowReply)
    server.end(reply.peer_eid, How.CLOSED)
    network.run(100.0)
    assert messages(server) == []


def test_nobody_else_can_end_a_flow() -> None:
    _, client, server, _, _ = established()
    ours, theirs = client.history[0].eid, server.history[0].eid
    assert arrives(server, FlowDealloc(ours, theirs), STRANGER) == []
    assert arrives(server, FlowDealloc(ours ^ 1, theirs), A) == []
    assert server.take(PeerGone) == []
    assert server.counters["messages_wrong_source"] == 2


def test_a_notice_that_comes_twice_is_acknowledged_twice_and_told_once() -> None:
    _, client, server, _, _ = established()
    ours, theirs = client.history[0].eid, server.history[0].eid
    for _ in range(2):
        assert only(arrives(server, FlowDealloc(ours, theirs), A)) == FlowDeallocAck(theirs, ours)
    assert len(server.take(PeerGone)) == 1


def test_a_notice_for_a_flow_that_is_over_is_acknowledged() -> None:
    _, client, server, _, _ = established()
    ours, theirs = client.history[0].eid, server.history[0].eid
    server.end(theirs, How.SILENT)
    assert only(arrives(server, FlowDealloc(ours, theirs), A)) == FlowDeallocAck(theirs, ours)


def test_a_notice_that_overtakes_the_answer_is_repeated() -> None:
    _, client, _ = two_nodes()
    client.alloc(client.program("watch"), "clock")
    sent = only(messages(client))
    assert isinstance(sent, FlowRequest)
    assert arrives(client, FlowDealloc(64, sent.eid), B) == []


def test_both_may_let_go_at_once() -> None:
    network, client, server, _, _ = established()
    client.end(client.history[0].eid, How.CLOSED)
    server.end(server.history[0].eid, How.CLOSED)
    network.run(100.0)
    assert client.layer._core.eids == server.layer._core.eids == set()
    assert client.counters.get("notices_unanswered", 0) == 0


def test_a_destroyed_layer_tells_everybody() -> None:
    network, client, server, _, _ = established()
    waiting = client.alloc(client.program("watch"), "clock")
    network.run(0.1)
    client.manage(DestroyIpcp(client.layer_id))
    assert client.failed(waiting).error == FlowDownException.__name__
    network.run(0.1)
    # The program there did not let go.
    assert [each.died for each in server.take(PeerGone)] == [True]
    server.manage(DestroyIpcp(server.layer_id))
    assert server.irm.deadline() is None
    assert server.irm.flows._waiting._waiting == {}


def test_a_process_that_dies_takes_its_requests_along() -> None:
    network, client, _ = two_nodes()
    process = client.program("watch")
    client.alloc(process, "clock")
    client.kill(process)
    assert client.reserved == {}
    network.run(100.0)
    client.assert_idle()


def test_what_is_told_of_layers_that_are_gone_is_ignored() -> None:
    _, client, _ = two_nodes()
    id = client.layer_id
    client.manage(DestroyIpcp(id))
    client.irm.member_opened(id, 0.0)
    client.irm.member_failed(id, "x", 0.0)
    client.irm.resolved(id, 1, [], 0.0)
    client.irm.management_arrived(id, b"", A, 0.0)
    client.irm.flow_ended(id, 1, How.CLOSED, 0.0)
    assert client.collect() == []


def test_a_layer_name_is_there_once() -> None:
    _, client, _ = two_nodes()
    id = client.manage(CreateIpcp("u1", "udp4"))
    assert isinstance(id, int)
    with pytest.raises(NameError, match="in udp4 layer 'net' already"):
        client.manage(BootstrapIpcp(id, "net", udp_settings("192.0.2.1", 4000)))


# --- a layer whose part in the engine breaks


def break_layer(node: Node, reason: str = "out of luck") -> None:
    """The thread ended, and its flows with it."""
    node.ends.clear()
    node.carried.clear()
    node.irm.member_broke(node.layer_id, reason, node.now)
    node.collect()


def test_a_layer_that_breaks_begins_again_and_peers_hear_that_their_flows_died() -> None:
    network, near, far = two_nodes()
    far.offer("clock")
    server, client = far.server("clock"), near.program("client")
    accepted, asked = far.accept(server), near.alloc(client, "clock")
    network.run(1.0)
    assert near.granted(asked).side == 0
    near.take(OpenPort)
    break_layer(near)
    assert near.take(OpenPort) == [OpenPort(near.layer_id, "udp4", *near.address)]
    assert near.layer.state == "operational"
    network.run(1.0)
    (flow,) = far.history
    assert far.told[flow.eid].died
    # What was there before is there again, but for the flows.
    near.dealloc(client, asked)
    far.dealloc(server, accepted)
    again, asked = far.accept(server), near.alloc(client, "clock")
    network.run(1.0)
    far.dealloc(server, again)
    near.dealloc(client, asked)
    assert near.counters["restored"] == 1
    network.settle()


def test_who_waits_for_a_flow_goes_on_waiting_when_the_layer_begins_again() -> None:
    network, near, far = two_nodes()
    far.offer("clock")
    asked = near.alloc(near.program("client"), "clock")
    network.run(0.5)
    break_layer(near)
    break_layer(far)
    accepted = far.accept(far.server("clock"))
    network.run(5.0)
    assert (near.granted(asked).side, far.granted(accepted).side) == (0, 1)


def test_a_layer_that_breaks_again_and_again_stays_failed_and_says_why() -> None:
    network, near, far = two_nodes()
    far.offer("clock")
    client = near.program("client")
    asked = near.alloc(client, "clock")
    network.run(0.5)
    for _ in range(RESTORATIONS + 1):
        break_layer(near)
    why = r"the layer 'net' has failed \(out of luck\): destroy its IPC process 'u0', and bootstrap one again"
    for token in (asked, near.alloc(client, "clock")):
        assert near.failed(token).error == "FlowDownException"
        assert re.fullmatch(why, near.failed(token).text)
    entries: object = near.manage(ListIpcps())
    assert [each.state for each in entries if each.id == near.layer_id] == ["failed: out of luck"]  # type: ignore[attr-defined]
    assert not near.irm.busy
    options = udp_settings(*near.address, ["clock@10.0.0.2"])
    with pytest.raises(IpcpBootstrapError, match=why):
        near.manage(BootstrapIpcp(near.layer_id, "net", options))
    near.manage(DestroyIpcp(near.layer_id))
    near.layer_id = near.manage(CreateIpcp("u0", "udp4"))  # type: ignore[assignment]
    near.manage(BootstrapIpcp(near.layer_id, "net", options))
    assert near.layer.state == "operational"


def test_a_layer_whose_socket_is_gone_when_it_begins_again_has_failed() -> None:
    _, near, _ = two_nodes()
    near.layer.broke("out of luck", near.now)
    near.irm.member_failed(near.layer_id, "cannot use the port: in use", 0.0)
    assert near.layer.entry().state == "failed: cannot use the port: in use"
