"""What users of a shared node get of flows, requests and programs, beside its owner."""

from __future__ import annotations

import pytest
from irm_world import OWNER, World
from udp_world import Network, Node

from ouroboros.control.flows import ENDS_A_TURN
from ouroboros.control.parties import Process
from ouroboros.control.shares import EVERYBODY, LISTED, PEERS, STARTS, Kind, Share, default_shares
from ouroboros.errors import NodeLimitError
from ouroboros.layers.effects import Attach, MarkDead, StartProgram
from ouroboros.layers.face import How
from ouroboros.qos import QoSSpec
from ouroboros.settings import Strangers
from ouroboros.wire.control import (
    Alloc,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    Failed,
    Granted,
    Join,
    ListNames,
    RegisterName,
)

USER, ANOTHER = OWNER + 1, OWNER + 2
SPEC = QoSSpec()
ALLOC = Alloc("nobody", SPEC, None)

SMALL = default_shares(20_000, 15_904) | {
    Kind.PROCESSES: Share(2, 3),
    Kind.REQUESTS: Share(2, 3),
    Kind.FLOWS: Share(3, 5),
}


@pytest.fixture
def world() -> World:
    return World(shares=SMALL)


def flow(world: World, *, asks: int, serves: int) -> tuple[int, int]:
    """A flow between two users; the tokens of both."""
    server, client = process_of(world, serves), process_of(world, asks)
    world.manage(CreateName("name", "spillover"))
    world.manage(BindProcess(server.pid, "name"))
    took = world.accept(server, "name")
    return world.alloc(client, "name"), took


def process_of(world: World, user: int) -> Process:
    known = [each for each in world.irm.registry.processes.values() if each.uid == user]
    return known[0] if known else world.program("program", user)


def held(world: World, kind: Kind, user: int) -> int:
    return world.irm.shares.held(kind, user)


def test_a_user_has_its_share_of_flows_and_the_owner_goes_on(world: World) -> None:
    tokens = [flow(world, asks=USER, serves=OWNER) for _ in range(3)]
    refused, waits = flow(world, asks=USER, serves=OWNER)
    error = world.failed(refused)
    assert error.error == "NodeLimitError"
    assert f"user {USER} has 3 ends of flows, and its share of this node is 3: deallocate some" in error.text
    assert "[share.flows]" in error.text
    # Whoever accepts waits on, and gets the next flow of somebody else.
    assert world.answer(waits) is None
    owner = world.alloc(process_of(world, OWNER), "name")
    assert world.connected(owner, waits)
    world.dealloc(process_of(world, USER), tokens[0][0])
    again, took = flow(world, asks=USER, serves=OWNER)
    assert world.connected(again, took)


def test_a_flow_counts_for_both_users_that_hold_ends(world: World) -> None:
    asks, took = flow(world, asks=USER, serves=ANOTHER)
    assert world.connected(asks, took)
    assert held(world, Kind.FLOWS, USER) == held(world, Kind.FLOWS, ANOTHER) == 1
    # Each until it lets go: whoever keeps the end of a flow that is over still has a descriptor of the node.
    world.dealloc(process_of(world, USER), asks)
    assert (held(world, Kind.FLOWS, USER), held(world, Kind.FLOWS, ANOTHER)) == (0, 1)
    world.kill(process_of(world, ANOTHER))
    assert held(world, Kind.FLOWS, ANOTHER) == 0


def test_a_flow_between_programs_of_one_user_is_two_ends_or_none(world: World) -> None:
    assert world.connected(*flow(world, asks=USER, serves=USER))
    refused, waits = flow(world, asks=USER, serves=USER)
    assert f"user {USER} has 3 ends of flows" in world.failed(refused).text
    assert world.answer(waits) is None
    assert held(world, Kind.FLOWS, USER) == 2


def test_a_server_that_has_its_share_is_named_to_the_client(world: World) -> None:
    for _ in range(3):
        assert world.connected(*flow(world, asks=OWNER, serves=USER))
    refused, _ = flow(world, asks=OWNER, serves=USER)
    assert f"user {USER} has 3 ends of flows" in world.failed(refused).text


def test_all_users_together_leave_the_rest_to_the_owner(world: World) -> None:
    for user in (USER, USER, USER, ANOTHER, ANOTHER):
        assert world.connected(*flow(world, asks=user, serves=OWNER))
    refused, _ = flow(world, asks=ANOTHER, serves=OWNER)
    text = world.failed(refused).text
    assert (
        f"all users of this node have 5 ends of flows, and their share is 5, beside that of its owner (user {ANOTHER}"
        in text
    )
    for _ in range(10):
        assert world.connected(*flow(world, asks=OWNER, serves=OWNER))


def test_a_member_of_a_broadcast_layer_counts_twice(world: World) -> None:
    ipcp = world.manage(CreateIpcp("b", "broadcast"))
    assert isinstance(ipcp, int)
    world.manage(BootstrapIpcp(ipcp, "lab"))
    user = world.program("program", USER)
    joined = world.send(user, Join("lab", SPEC, None))
    world.granted(joined)
    assert held(world, Kind.FLOWS, USER) == 2
    assert "user" in world.failed(world.send(user, Join("lab", SPEC, None))).text
    world.dealloc(user, joined)
    assert held(world, Kind.FLOWS, USER) == 0


def test_requests_that_wait_are_bounded_and_given_back_however_they_end(world: World) -> None:
    world.manage(CreateName("nobody", "spillover"))
    user = world.program("program", USER)
    first, second = world.alloc(user, "nobody", 5.0), world.alloc(user, "nobody", 50.0)
    text = world.failed(world.alloc(user, "nobody")).text
    assert f"user {USER} has 2 requests for flows that wait, and its share of this node is 2" in text
    world.cancel(second)
    third = world.alloc(user, "nobody", 50.0)
    world.advance(10.0)
    assert world.failed(first).error == "FlowTimeoutException"
    assert held(world, Kind.REQUESTS, USER) == 1
    world.kill(user)
    assert world.answer(third) is None
    assert held(world, Kind.REQUESTS, USER) == 0
    # The owner has as many as it likes.
    for _ in range(20):
        assert world.answer(world.alloc(world.manager, "nobody")) is None


def test_a_connection_counts_for_its_user_and_not_for_that_of_the_process(world: World) -> None:
    """One that gave up rights uses up the share of whom it is now."""
    world.manage(CreateName("nobody", "spillover"))
    was_root = world.program("program", 0)
    for _ in range(2):
        world.send(was_root, ALLOC, uid=USER)
    assert isinstance(world.answer(world.send(was_root, ALLOC, uid=USER)), Failed)
    assert world.answer(world.send(was_root, ALLOC, uid=0)) is None


def test_processes_of_a_user_are_bounded(world: World) -> None:
    first = world.program("program", USER)
    world.program("program", USER)
    with pytest.raises(NodeLimitError, match=f"user {USER} has 2 processes that use this node"):
        world.program("program", USER)
    world.kill(first)
    world.program("program", USER)
    world.program("program", ANOTHER)
    with pytest.raises(NodeLimitError, match="all users of this node have 3 processes"):
        world.program("program", ANOTHER)
    world.program("program", OWNER)


def start(world: World, user: int) -> Failed | None:
    """A flow is asked for to a name whose program is started, and ends without a word."""
    token = world.alloc(process_of(world, user), "clock")
    if world.take(StartProgram):
        world.irm.program_ended("clock", "clockd", "ended with status 1", False, world.now)
        world.collect()
    return world.failed(token) if world.answer(token) else None


def test_a_user_has_programs_started_so_often_and_the_owner_as_often_as_it_likes(world: World) -> None:
    world.manage(BindProgram("/bin/clockd", "clock", True, []))
    rate, burst = STARTS
    errors = [start(world, USER) for _ in range(20)]
    refused = [error for error in errors if error is not None and error.error == "NodeLimitError"]
    assert len(refused) == 20 - burst
    assert f"user {USER} has had this node start programs too often" in refused[0].text
    assert held(world, Kind.REQUESTS, USER) == 0
    for _ in range(50):
        error = start(world, OWNER)
        assert error is not None
        assert error.error == "FlowRefusedException"
    world.advance(1 / rate)
    error = start(world, USER)
    assert error is not None
    assert error.error == "FlowRefusedException"


def test_one_who_had_too_many_started_does_not_keep_others_from_theirs(world: World) -> None:
    world.manage(BindProgram("/bin/clockd", "clock", True, []))
    for _ in range(20):
        start(world, USER)
    world.take(StartProgram)
    first = world.alloc(process_of(world, OWNER), "clock")
    theirs = world.alloc(process_of(world, USER), "clock")
    own = world.alloc(process_of(world, OWNER), "clock")
    world.cancel(first)
    world.take(StartProgram)
    # They wait for one that runs, and it ends: it is started again for the first of them that may have it.
    world.irm.program_ended("clock", "clockd", "ended", True, world.now)
    world.collect()
    assert len(world.take(StartProgram)) == 1
    assert world.failed(theirs).error == "NodeLimitError"
    assert world.answer(own) is None


def test_a_user_with_its_share_of_look_ups_has_no_layer_asked_and_the_owner_has() -> None:
    node = Node(Network(), ("192.0.2.1", 3435))
    node.irm.shares.change(Kind.LOOKUPS, 1, 1)
    user, owner = node.program("program", USER), node.program("program")
    node.irm.shares.take(Kind.LOOKUPS, USER)
    text = node.failed(node.alloc(user, "far")).text
    assert f"user {USER} has 1 look-ups of names under way, and its share of this node is 1" in text
    assert node.answer(node.alloc(owner, "far")) is None
    assert held(node, Kind.REQUESTS, USER) == 0


def test_other_nodes_have_programs_started_so_often() -> None:
    network = Network()
    server, client = Node(network, ("192.0.2.2", 3435)), Node(network, ("192.0.2.1", 3435), peers=["clock@192.0.2.2"])
    server.manage(BindProgram("/bin/clockd", "clock", True, []))
    server.manage(RegisterName("clock", server.layer_id))
    program, started = client.program("program"), 0
    for _ in range(20):
        client.alloc(program, "clock")
        network.run(0.1)
        for _ in server.take(StartProgram):
            started += 1
            server.irm.program_ended("clock", "clockd", "ended with status 1", False, server.now)
            server.collect()
        network.run(0.1)
    rate, burst = STARTS
    assert burst <= started <= burst + rate * server.now
    # The owner's programs have it started.
    server.alloc(server.program("program"), "clock")
    assert len(server.take(StartProgram)) == 1


def test_a_flow_that_a_peer_asks_a_user_for_is_of_the_share_of_peers_and_of_that_of_the_user() -> None:
    network = Network()
    peers = ["theirs@192.0.2.2", "own@192.0.2.2"]
    # One host has half of what all have.
    clients = {name: Node(network, (f"192.0.2.{at}", 3435), peers=peers) for name, at in (("theirs", 1), ("own", 3))}
    node = Node(network, ("192.0.2.2", 3435), flow_limit=8)
    node.irm.shares.change(Kind.FLOWS, 4, 4)
    servers = {"theirs": node.program("server", USER), "own": node.program("server")}
    for name, server in servers.items():
        node.offer(name)
        node.manage(BindProcess(server.pid, name))

    def got(name: str) -> bool:
        accepted.append(node.accept(servers[name], name))
        client = clients[name]
        asking = client.alloc(client.program("program"), name)
        network.run(0.1)
        return isinstance(client.answer(asking), Granted)

    accepted: list[int] = []
    # Two ends each.
    assert [got("theirs") for _ in range(3)] == [True, True, False]
    # Half of the flows of the node are for peers. The one that was refused is not one of those.
    assert [got("own") for _ in range(3)] == [True, True, False]
    assert held(node, Kind.FLOWS, USER) == 4
    node.dealloc(servers["theirs"], accepted[0])
    network.run(1.0)
    assert held(node, Kind.FLOWS, USER) == 2
    # Nor does the user lose what peers were refused.
    clients["own"] = Node(network, ("192.0.2.4", 3435), peers=peers)
    assert [got("own"), got("theirs")] == [True, False]
    assert held(node, Kind.FLOWS, USER) == 2


@pytest.mark.parametrize("how", ["delivered", "the peer died first", "the layer is destroyed", "the engine failed"])
def test_a_flow_with_another_node_counts_until_the_engine_is_done_with_it(how: str) -> None:
    """What a program wrote before it let go is still to be delivered."""
    network = Network()
    far, node = Node(network, ("192.0.2.2", 3435)), Node(network, ("192.0.2.1", 3435), peers=["clock@192.0.2.2"])
    process, program = far.server("clock"), node.program("program", USER)
    far.manage(RegisterName("clock", far.layer_id))
    far.accept(process)
    token = node.alloc(program, "clock")
    network.run(0.1)
    node.granted(token)
    assert held(node, Kind.FLOWS, USER) == 2
    if how == "the peer died first":
        (eid,) = node.attached
        node.irm.flow_ended(node.layer_id, eid, How.DIED, node.now)
        node.collect()
        # The program still has the end, and its descriptors.
        assert held(node, Kind.FLOWS, USER) == 2
        node.dealloc(program, token)
        assert held(node, Kind.FLOWS, USER) == 0
        return
    node.dealloc(program, token)
    assert held(node, Kind.FLOWS, USER) == 2
    match how:
        case "delivered":
            network.run(1.0)
        case "the layer is destroyed":
            node.manage(DestroyIpcp(node.layer_id))
        case "the engine failed":
            node.irm.member_broke(node.layer_id, "a bug", node.now)
    assert held(node, Kind.FLOWS, USER) == 0


def deaths(world: World) -> int:
    return sum(isinstance(effect, MarkDead) for effect in world.collect())


def test_a_process_that_dies_with_many_flows_lets_go_of_a_few_a_turn() -> None:
    """Others do not wait for all of them; and the peers of all hear of it, also when the node ends meanwhile."""
    world, flows = World(), 5 * ENDS_A_TURN
    for _ in range(flows):
        assert world.connected(*flow(world, asks=USER, serves=OWNER))
    world.irm.process_died(process_of(world, USER), world.now)
    turns = [deaths(world)]
    while (deadline := world.irm.deadline()) is not None and deadline <= world.now:
        # Between two turns, another has what it asks for.
        assert world.connected(*flow(world, asks=ANOTHER, serves=OWNER))
        (world.irm.timeout if len(turns) < 3 else world.irm.shut_down)(world.now)
        turns.append(deaths(world))
    assert turns == [ENDS_A_TURN, ENDS_A_TURN, ENDS_A_TURN, 2 * ENDS_A_TURN]
    assert held(world, Kind.FLOWS, USER) == 0


def test_a_list_costs_a_user_what_it_is_long_and_where_it_is_looked_for(world: World) -> None:
    """Not the number of its rows alone: a row can have thousands of routes, and each name is looked for in each layer."""
    burst = int(LISTED[1])
    for number in range(100):
        world.manage(CreateName(f"name{number}", "spillover"))
    for number in range(20):
        world.manage(CreateIpcp(f"ipcp{number}", "local"))
    for _ in range(burst // (100 * 20)):
        world.irm.check_list(ListNames(), USER, world.now)
    with pytest.raises(NodeLimitError, match="this list has 2000"):
        world.irm.check_list(ListNames(), USER, world.now)
    world.irm.check_list(ListNames(), OWNER, world.now)


def test_one_host_has_a_part_of_the_memory_of_peers() -> None:
    network = Network()
    clients = [Node(network, (f"192.0.2.{at}", 3435), peers=["clock@192.0.2.9"]) for at in (1, 2)]
    node = Node(network, ("192.0.2.9", 3435))
    node.offer("clock")
    server = node.program("server", USER)
    node.manage(BindProcess(server.pid, "clock"))
    for client in clients:
        for _ in range(2):
            node.accept(server, "clock")
            client.alloc(client.program("program"), "clock", qos=QoSSpec(loss=0))
            network.run(0.1)
    paid = [effect.accounts for effect in node.take(Attach)]
    memory = Strangers().memory
    share = default_shares(20_000, 15_904)[Kind.MEMORY]
    common = {USER: share.user, EVERYBODY: share.users, PEERS: memory}
    hosts = [[key for key in accounts if key not in common] for accounts in paid]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    assert [accounts[host] for accounts, (host,) in zip(paid, hosts, strict=True)] == [memory // 4] * 4
    assert all(common.items() <= accounts.items() for accounts in paid)
