"""Flow allocation: who gets which flow, how long everybody waits, and what the death of a process leaves behind."""

from __future__ import annotations

import pytest
from irm_world import OWNER, World

from ouroboros.control.flows import ALLOC_TIMEOUT
from ouroboros.control.parties import Process
from ouroboros.layers.effects import Connect, MarkDead, Release, StartProgram
from ouroboros.qos import QOS_DATA, QOS_VOICE
from ouroboros.wire.control import (
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyName,
    Failed,
    FlowEntry,
    ListFlows,
    RegisterName,
    UnbindProcess,
    UnbindProgram,
)


@pytest.fixture
def world() -> World:
    return World()


def connect(world: World, client: Process, server: Process, name: str) -> int:
    """A flow from client to server; its id."""
    taken = world.accept(server)
    asked = world.alloc(client, name)
    assert world.connected(asked, taken)
    return world.granted(asked).flow_id


# --- the queue


def test_an_acceptor_that_waits_gets_the_flow_at_once(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    taken = world.accept(server)
    assert world.answer(taken) is None
    asked = world.alloc(client, "x", timeout=0)
    assert world.connected(asked, taken)


def test_a_client_that_comes_first_is_connected_when_the_server_accepts(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    asked = world.alloc(client, "x")
    assert world.answer(asked) is None
    taken = world.accept(server, timeout=0)
    assert world.connected(asked, taken)


def test_clients_are_served_in_the_order_of_their_arrival(world: World) -> None:
    server = world.server("x")
    asked = [world.alloc(world.program("client"), "x") for _ in range(5)]
    taken = [world.accept(server) for _ in asked]
    assert all(world.connected(*pair) for pair in zip(asked, taken, strict=True))


def test_both_ends_get_the_qos_that_the_client_asked_for(world: World) -> None:
    taken = world.accept(world.server("x"))
    asked = world.alloc(world.program("client"), "x", qos=QOS_VOICE)
    assert world.granted(asked).qos == world.granted(taken).qos == QOS_VOICE


def test_an_unknown_name_is_refused_at_once_and_says_what_to_do(world: World) -> None:
    failed = world.failed(world.alloc(world.program("client"), "nobody"))
    assert failed.error == "FlowNameException"
    assert "'nobody'" in failed.text
    assert "irm name create" in failed.text


@pytest.mark.parametrize("name", ["", "x" * 10_000, "a\nb"])
def test_what_cannot_be_a_name_is_unknown(world: World, name: str) -> None:
    assert world.failed(world.alloc(world.program("client"), name)).error == "FlowNameException"


# --- time


def test_client_waits_for_an_acceptor_until_its_timeout(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    asked = world.alloc(client, "x", timeout=3.0)
    world.advance(2.999)
    assert world.answer(asked) is None
    world.advance(0.001)
    assert world.failed(asked).error == "FlowTimeoutException"
    assert world.answer(world.accept(server)) is None, "the client is out of the queue"


def test_client_without_a_limit_waits_for_the_default(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    asked = world.alloc(world.program("client"), "x")
    assert world.irm.deadline() == ALLOC_TIMEOUT == 20.0
    world.advance(20.0)
    assert world.failed(asked).error == "FlowTimeoutException"


def test_acceptor_waits_until_its_timeout(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    taken = world.accept(server, timeout=1.5)
    world.advance(1.499)
    assert world.answer(taken) is None
    world.advance(0.001)
    assert world.failed(taken) == Failed("FlowTimeoutException", "nobody asked for a flow in time")
    assert world.answer(world.alloc(client, "x")) is None, "the acceptor is out of the queue"


def test_acceptor_without_a_limit_has_no_deadline(world: World) -> None:
    taken = world.accept(world.server("x"))
    assert world.irm.deadline() is None
    world.advance(1e9)
    assert world.answer(taken) is None


def test_a_client_that_may_not_wait_fails_when_nobody_accepts(world: World) -> None:
    world.server("x")
    failed = world.failed(world.alloc(world.program("client"), "x", timeout=0))
    assert failed.error == "FlowTimeoutException"
    assert world.irm.deadline() is None


def test_an_acceptor_that_may_not_wait_fails_when_nobody_asks(world: World) -> None:
    server = world.server("x")
    assert world.failed(world.accept(server, timeout=0)).error == "FlowTimeoutException"
    asked = world.alloc(world.program("client"), "x")
    assert world.answer(asked) is None


def test_negative_timeouts_are_as_good_as_none(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    assert world.failed(world.accept(server, timeout=-1)).error == "FlowTimeoutException"
    assert world.failed(world.alloc(client, "x", timeout=-1)).error == "FlowTimeoutException"


def test_a_timeout_that_is_no_number_is_refused_and_stops_nobody_elses_clock(world: World) -> None:
    server, client = world.server("y"), world.program("client")
    world.manage(CreateName("x", "spillover"))
    asked = world.alloc(client, "x", timeout=1.0)
    assert world.failed(world.alloc(client, "x", timeout=float("nan"))).error == "ProtocolError"
    assert world.failed(world.accept(server, timeout=float("nan"))).error == "ProtocolError"
    assert server.waiting == set()
    world.advance(1.0)
    assert world.failed(asked).error == "FlowTimeoutException"


def test_requests_time_out_in_the_order_of_their_deadlines(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    late, early = world.alloc(client, "x", timeout=9), world.alloc(client, "x", timeout=3)
    other = world.accept(world.server("y"), timeout=6)
    assert world.irm.deadline() == 3
    world.advance(3)
    assert world.failed(early).error == "FlowTimeoutException"
    assert world.irm.deadline() == 6
    world.advance(3)
    assert world.failed(other).error == "FlowTimeoutException"
    assert world.irm.deadline() == 9
    assert world.connected(late, world.accept(server))
    assert world.irm.deadline() is None


def test_deadlines_of_requests_that_were_answered_are_forgotten(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    for _ in range(500):
        taken = world.accept(server, timeout=5)
        asked = world.alloc(client, "x", timeout=5)
        assert world.connected(asked, taken)
        world.dealloc(client, asked)
        world.dealloc(server, taken)
    assert world.irm.deadline() is None
    last = world.alloc(client, "x", timeout=7)
    assert world.irm.deadline() == 7
    world.cancel(last)
    assert world.irm.deadline() is None


@pytest.mark.parametrize(
    ("servers", "reason"), [(True, "its programs are busy"), (False, "no program accepts flows for it")]
)
def test_the_timeout_says_why_nobody_accepted(world: World, servers: bool, reason: str) -> None:
    server, client = world.server("x"), world.program("client")
    if servers:
        world.accept(server, timeout=0)
    asked = world.alloc(client, "x", timeout=1)
    world.advance(1)
    assert world.failed(asked).text == f"nobody accepted a flow to 'x' in time: {reason}"


# --- cancelling


def test_a_client_that_hung_up_gets_no_flow_and_takes_none(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    gone, stays = world.alloc(client, "x"), world.alloc(client, "x")
    world.cancel(gone)
    assert world.connected(stays, world.accept(server))
    world.advance(100)
    assert world.answer(gone) is None


def test_an_acceptor_that_hung_up_gets_no_flow(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    gone = world.accept(server, timeout=1)
    world.cancel(gone)
    asked = world.alloc(client, "x")
    world.advance(10)
    assert (world.answer(gone), world.answer(asked)) == (None, None)


def test_cancelling_what_is_answered_or_unknown_does_nothing(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    for token in range(100):
        world.cancel(token)
    assert world.take(Release) == []
    assert list(world.irm.flows.flows) == [flow]


# --- load balancing


def loop_of_servers(world: World, policy: str) -> tuple[dict[str, Process], dict[str, int]]:
    """Servers a, b and c that wait for the same name, in that order; their requests."""
    world.manage(CreateName("x", policy))
    servers = {each: world.server("x", program=each) for each in "abc"}
    return servers, {each: world.accept(server) for each, server in servers.items()}


def serve(world: World, servers: dict[str, Process], waiting: dict[str, int]) -> str:
    """One client; which server got it. That one accepts again."""
    client = world.program("client")
    asked = world.alloc(client, "x")
    (got,) = [each for each, token in waiting.items() if world.connected(asked, token)]
    world.dealloc(client, asked)
    world.dealloc(servers[got], waiting[got])
    waiting[got] = world.accept(servers[got])
    return got


def test_round_robin_serves_in_turn(world: World) -> None:
    servers, waiting = loop_of_servers(world, "round-robin")
    assert "".join(serve(world, servers, waiting) for _ in range(7)) == "abcabca"


def test_spillover_serves_from_the_one_that_accepted_last(world: World) -> None:
    servers, waiting = loop_of_servers(world, "spillover")
    assert "".join(serve(world, servers, waiting) for _ in range(5)) == "ccccc"


def test_spillover_goes_to_the_next_while_the_last_is_busy(world: World) -> None:
    _, waiting = loop_of_servers(world, "spillover")
    client = world.program("client")
    for expected in "cba":
        assert world.connected(world.alloc(client, "x"), waiting[expected])
    assert world.answer(world.alloc(client, "x")) is None


def test_each_accepting_thread_of_a_process_has_its_turn(world: World) -> None:
    world.manage(CreateName("x", "round-robin"))
    a, b = world.server("x"), world.server("x")
    order = [world.accept(a), world.accept(b), world.accept(a)]
    client = world.program("client")
    assert all(world.connected(world.alloc(client, "x"), token) for token in order)


# --- a process with several names


def test_accept_takes_the_client_that_waited_longest_over_all_names(world: World) -> None:
    server, client = world.server("x", "y", "z"), world.program("client")
    asked = [world.alloc(client, name) for name in ("y", "z", "x", "y")]
    taken = [world.accept(server) for _ in asked]
    assert all(world.connected(*pair) for pair in zip(asked, taken, strict=True))


def test_one_accept_is_good_for_one_flow_only_whatever_its_names(world: World) -> None:
    server, client = world.server("x", "y"), world.program("client")
    taken = world.accept(server)
    assert world.connected(world.alloc(client, "y"), taken)
    assert world.answer(world.alloc(client, "x")) is None


def test_a_process_can_allocate_a_flow_to_itself(world: World) -> None:
    both = world.server("x")
    asked = world.alloc(both, "x")
    taken = world.accept(both)
    assert world.connected(asked, taken)
    world.take(Connect)
    world.dealloc(both, asked)
    assert world.take(Release) == []
    world.dealloc(both, taken)
    assert world.take(Release) == [Release(1)]


# --- services that share a process


def test_each_accept_takes_flows_to_its_name_alone(world: World) -> None:
    both, client = world.program("both"), world.program("client")
    taken = {name: world.accept(both, name) for name in ("alpha", "beta")}
    for name in ("beta", "alpha"):
        asked = world.alloc(client, name)
        assert world.connected(asked, taken[name])
        assert world.granted(asked).name == world.granted(taken[name]).name == name


def test_clients_that_wait_are_left_to_the_accept_for_their_name(world: World) -> None:
    both, client = world.server("alpha", "beta"), world.program("client")
    asked = {name: world.alloc(client, name) for name in ("alpha", "beta")}
    assert world.connected(asked["beta"], world.accept(both, "beta", timeout=0))
    assert world.failed(world.accept(both, "beta", timeout=0)).error == "FlowTimeoutException"
    assert world.answer(asked["alpha"]) is None
    assert world.connected(asked["alpha"], world.accept(both, "alpha", timeout=0))


def test_a_client_that_no_accept_of_the_process_is_for_waits_until_its_timeout(world: World) -> None:
    both, client = world.server("alpha"), world.program("client")
    taken = world.accept(both, "beta")
    asked = world.alloc(client, "alpha", timeout=3)
    assert (world.answer(asked), world.answer(taken)) == (None, None)
    world.advance(3)
    assert world.failed(asked).text == "nobody accepted a flow to 'alpha' in time: no program accepts flows for it"


@pytest.mark.parametrize("policy", ["round-robin", "spillover"])
def test_accepts_for_one_name_and_for_any_wait_in_one_queue(world: World, policy: str) -> None:
    world.manage(CreateName("alpha", policy))
    both, client = world.server("alpha", "beta"), world.program("client")
    waiting = [world.accept(both, name) for name in (None, "alpha", None)]
    expected = waiting if policy == "round-robin" else waiting[::-1]
    assert all(world.connected(world.alloc(client, "alpha"), token) for token in expected)


def test_an_accept_for_any_name_takes_what_the_others_leave(world: World) -> None:
    world.manage(CreateName("alpha", "round-robin"))
    both, client = world.program("both"), world.program("client")
    alpha, beta = world.accept(both, "alpha"), world.accept(both, "beta")
    rest = world.accept(both)
    assert world.connected(world.alloc(client, "alpha"), alpha)
    assert world.connected(world.alloc(client, "alpha"), rest)
    assert world.connected(world.alloc(client, "beta"), beta)
    assert world.granted(rest).name == "alpha"


def test_an_accept_for_one_name_waits_on_when_its_process_gets_another(world: World) -> None:
    both, client = world.program("both"), world.program("client")
    taken = world.accept(both, "alpha")
    asked = world.alloc(client, "alpha")
    assert world.connected(asked, taken)
    taken = world.accept(both, "alpha")
    world.manage(BindProcess(both.pid, "beta"))
    assert world.answer(world.alloc(client, "beta")) is None
    assert world.connected(world.alloc(client, "alpha"), taken)


@pytest.mark.parametrize(("how", "why"), [("unbound", "this process was unbound from 'alpha'"), ("gone", "destroyed")])
def test_an_accept_for_a_name_that_its_process_loses_ends(world: World, how: str, why: str) -> None:
    both, client = world.server("beta"), world.program("client")
    alone, any_name, other = world.accept(both, "alpha"), world.accept(both), world.accept(both, "beta")
    world.manage(UnbindProcess(both.pid, "alpha") if how == "unbound" else DestroyName("alpha"))
    failed = world.failed(alone)
    assert failed.error == "FlowNameException"
    assert why in failed.text
    assert (world.answer(any_name), world.answer(other)) == (None, None)
    again = world.accept(both, "alpha")
    # What waits for any name has waited longer.
    assert all(world.connected(world.alloc(client, "alpha"), token) for token in (any_name, again))


def test_an_accept_for_any_name_that_waits_for_a_new_name_is_as_good_as_one_for_it(world: World) -> None:
    world.manage(CreateName("alpha", "round-robin"))
    both, client = world.program("both"), world.program("client")
    taken = world.accept(both)
    asked = world.alloc(client, "alpha")
    assert world.answer(taken) is None
    alone = world.accept(both, "alpha", timeout=0)
    assert world.connected(asked, taken)
    assert world.failed(alone).error == "FlowTimeoutException"


def test_a_process_serves_only_the_names_that_it_accepts_for(world: World) -> None:
    """A program is started for the others."""
    world.manage(BindProgram("/bin/beta", "beta", True, []))
    both, client = world.server("alpha", "beta"), world.program("client")
    world.accept(both, "alpha")
    asked = world.alloc(client, "beta")
    assert len(world.take(StartProgram)) == 1
    assert world.connected(asked, world.accept(world.program("beta"), "beta"))


def test_a_program_that_was_started_for_one_name_and_serves_another_is_not_started_again(auto: World) -> None:
    asked = auto.alloc(auto.program("client"), "x")
    server = auto.program("server")
    taken = auto.accept(server, "y")
    assert auto.connected(auto.alloc(auto.program("client"), "y"), taken)
    auto.take(StartProgram)
    auto.kill(server)
    auto.irm.program_ended("x", "server", "ended", "x" in server.served, 0.0)
    auto.collect()
    assert auto.take(StartProgram) == []
    assert "accepted nothing" in auto.failed(asked).text


# --- bindings while requests wait


def test_an_acceptor_that_waits_is_eligible_as_soon_as_its_process_is_bound(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    server, client = world.program("server"), world.program("client")
    taken = world.accept(server)
    asked = world.alloc(client, "x")
    assert (world.answer(taken), world.answer(asked)) == (None, None)
    world.manage(BindProcess(server.pid, "x"))
    assert world.connected(asked, taken)


def test_acceptors_that_wait_are_eligible_when_their_program_is_bound(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    server, client = world.program("server"), world.program("client")
    asked = [world.alloc(client, "x") for _ in range(3)]
    taken = [world.accept(server) for _ in range(2)]
    world.manage(BindProgram("/bin/server", "x", False, []))
    assert [world.connected(*pair) for pair in zip(asked, taken, strict=False)] == [True, True]
    assert world.answer(asked[2]) is None


def test_a_thread_that_accepts_is_eligible_for_a_name_that_another_thread_takes(world: World) -> None:
    server, client = world.program("server"), world.program("client")
    tokens = {world.accept(server), world.accept(server, name="x")}
    while tokens:
        asked = world.alloc(client, "x")
        tokens.remove(next(token for token in tokens if world.connected(asked, token)))


def test_an_acceptor_is_not_eligible_once_its_process_is_unbound(world: World) -> None:
    server, client = world.server("x", "y"), world.program("client")
    taken = world.accept(server)
    world.manage(UnbindProcess(server.pid, "x"))
    assert "nobody serves 'x' any more" in world.failed(world.alloc(client, "x")).text
    assert world.connected(world.alloc(client, "y"), taken)


def test_destroying_a_name_refuses_the_clients_that_wait_for_it(world: World) -> None:
    server, client = world.server("x", "y"), world.program("client")
    asked = [world.alloc(client, "x"), world.alloc(client, "x"), world.alloc(client, "y")]
    world.manage(DestroyName("x"))
    for token in asked[:2]:
        assert world.failed(token) == Failed("FlowNameException", "the name 'x' was destroyed")
    assert world.connected(asked[2], world.accept(server))


def test_an_acceptor_outlives_a_name_that_is_destroyed(world: World) -> None:
    server, client = world.server("x", "y"), world.program("client")
    taken = world.accept(server)
    world.manage(DestroyName("x"))
    assert world.failed(world.alloc(client, "x")).error == "FlowNameException"
    assert world.connected(world.alloc(client, "y"), taken)


# --- the death of a process


def test_requests_of_a_process_that_died_are_out_of_the_queues(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    gone = world.alloc(client, "x")
    world.kill(client)
    dead_server = world.server("x")
    taken = world.accept(dead_server)
    world.kill(dead_server)
    asked = world.alloc(world.program("client"), "x")
    assert world.connected(asked, world.accept(server))
    world.advance(100)
    assert (world.answer(gone), world.answer(taken)) == (None, None)


@pytest.mark.parametrize("side", [0, 1])
def test_the_other_side_is_told_when_a_process_dies_with_a_flow(world: World, side: int) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    dies, stays = (client, server) if side == 0 else (server, client)
    world.kill(dies)
    assert world.take(object) == [MarkDead(flow, side)]
    world.send(stays, Dealloc(flow, 1 - side))
    assert world.take(object) == [Release(flow)]


def test_a_flow_is_released_when_both_its_processes_are_dead(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.kill(client)
    world.take(object)
    world.kill(server)
    assert world.take(object) == [MarkDead(flow, 1), Release(flow)]
    assert world.irm.flows.flows == {}


def test_a_process_that_let_go_is_not_mourned(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.send(client, Dealloc(flow, 0))
    world.take(object)
    world.kill(client)
    assert world.take(object) == []
    world.kill(server)
    assert world.take(Release) == [Release(flow)]


def test_names_and_bindings_of_programs_outlive_their_processes(world: World) -> None:
    world.manage(BindProgram("/bin/server", "x", False, []))
    server, client = world.program("server"), world.program("client")
    connect(world, client, server, "x")
    world.kill(server)
    asked = world.alloc(client, "x", wait=True)
    assert world.answer(asked) is None
    assert world.connected(asked, world.accept(world.program("server")))


def test_a_name_taken_by_accept_outlives_the_process(world: World) -> None:
    server = world.program("server")
    world.accept(server, name="x")
    world.kill(server)
    asked = world.alloc(world.program("client"), "x", wait=True)
    assert world.answer(asked) is None
    assert world.connected(asked, world.accept(world.program("server"), name="x"))


# --- names that nobody serves, or nobody any more


ENDED = Failed(
    "FlowNameException",
    "nobody serves 'x' any more: the program that accepted flows for it has ended; start it again, or wait for it"
    " (wait=True)",
)


def served_and_ended(world: World, how: str = "killed", *, lasting: bool = False) -> None:
    """The name x has had a server."""
    if lasting:
        world.manage(CreateName("x", "round-robin"))
    server = world.program("server")
    world.accept(server, "x", timeout=0)
    if how == "killed":
        world.kill(server)
    else:
        world.manage(UnbindProcess(server.pid, "x"))


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("how", ["killed", "unbound"])
def test_a_name_whose_server_has_ended_is_refused_at_once(world: World, how: str, lasting: bool) -> None:
    served_and_ended(world, how, lasting=lasting)
    assert world.failed(world.alloc(world.program("client"), "x")) == ENDED


def test_those_who_wait_are_refused_when_the_last_server_ends(world: World) -> None:
    one, other, client = world.server("x"), world.server("x"), world.program("client")
    for server in (one, other):
        world.accept(server, timeout=0)
    asked = world.alloc(client, "x", timeout=0.5), world.alloc(client, "x")
    waits = world.alloc(client, "x", wait=True)
    world.kill(one)
    assert [world.answer(token) for token in asked] == [None, None]
    world.kill(other)
    assert [world.failed(token) for token in asked] == [ENDED, ENDED]
    assert world.connected(waits, world.accept(world.program("server"), "x"))


def test_a_name_that_was_created_and_never_served_is_waited_for(world: World) -> None:
    world.manage(CreateName("x", "round-robin"))
    bystander, client = world.server("x"), world.program("client")
    asked = world.alloc(client, "x")
    world.kill(bystander)
    assert world.answer(asked) is None, "that one never accepted"
    assert world.connected(asked, world.accept(world.server("x")))


def test_a_server_that_is_bound_and_does_not_accept_yet_is_waited_for(world: World) -> None:
    served_and_ended(world)
    again, client = world.program("server"), world.program("client")
    world.manage(BindProcess(again.pid, "x"))
    assert world.connected(world.alloc(client, "x"), world.accept(again, "x"))


def test_a_client_that_is_bound_by_its_program_is_nobody_to_wait_for(world: World) -> None:
    served_and_ended(world)
    world.manage(BindProgram("/bin/client", "x", False, []))
    assert world.failed(world.alloc(world.program("client"), "x")) == ENDED


def test_a_program_that_would_be_started_is_waited_for(world: World) -> None:
    served_and_ended(world)
    world.manage(BindProgram("/bin/server", "x", True, []))
    asked = world.alloc(world.program("client"), "x")
    assert len(world.take(StartProgram)) == 1
    world.manage(UnbindProgram("server", "x"))
    assert world.answer(asked) is None, "it was started, and may come yet"
    assert world.connected(asked, world.accept(world.program("server"), "x"))


def test_those_who_wait_are_refused_when_the_program_is_unbound_that_would_be_started_again(auto: World) -> None:
    first = auto.alloc(auto.program("client"), "x")
    server = auto.program("server")
    assert auto.connected(first, auto.accept(server))
    asked = auto.alloc(auto.program("client"), "x")
    auto.manage(UnbindProgram("server", "x"))
    assert auto.answer(asked) is None
    end_program(auto, process=server, served=True)
    assert auto.failed(asked) == ENDED


def test_a_busy_server_is_waited_for(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    connect(world, client, server, "x")
    assert world.answer(world.alloc(client, "x")) is None


def test_who_waits_for_a_name_gets_the_first_program_that_serves_it(world: World) -> None:
    client = world.program("client")
    asked = [world.alloc(client, "x", wait=True) for _ in range(2)]
    world.advance(10)
    assert world.connected(asked[0], world.accept(world.program("server"), "x"))
    assert world.connected(asked[1], world.accept(world.server("x")))


def test_who_waits_for_a_name_has_its_program_started_when_there_is_one(world: World) -> None:
    asked = world.alloc(world.program("client"), "x", wait=True)
    world.manage(BindProgram("/bin/server", "x", True, []))
    assert len(world.take(StartProgram)) == 1
    assert world.connected(asked, world.accept(world.program("server")))


def test_who_waits_for_a_name_is_told_when_its_program_fails(auto: World) -> None:
    asked = auto.alloc(auto.program("client"), "x", wait=True)
    end_program(auto)
    assert "accepted nothing" in auto.failed(asked).text


def test_who_waits_for_a_name_waits_on_when_it_is_destroyed(world: World) -> None:
    world.manage(CreateName("x", "round-robin"))
    asked = world.alloc(world.program("client"), "x", wait=True)
    world.manage(DestroyName("x"))
    assert world.answer(asked) is None
    assert world.connected(asked, world.accept(world.program("server"), "x"))


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("nothing", "nobody offers it"),
        ("ended", "the program that served it has ended"),
        ("created", "no program accepts"),
    ],
)
def test_who_waits_for_a_name_waits_no_longer_than_it_said(world: World, before: str, why: str) -> None:
    if before == "ended":
        served_and_ended(world)
    elif before == "created":
        world.manage(CreateName("x", "round-robin"))
    client = world.program("client")
    now, later, default = (world.alloc(client, "x", timeout, wait=True) for timeout in (0, 7, None))
    assert world.failed(now).error == "FlowTimeoutException"
    world.advance(6.9)
    assert world.answer(later) is None
    world.advance(0.1)
    failed = world.failed(later)
    assert failed.error == "FlowTimeoutException"
    assert f"nobody accepted a flow to 'x' in time: {why}" in failed.text
    world.advance(13)
    assert world.failed(default).error == "FlowTimeoutException"
    assert world.irm.deadline() is None


def test_who_waits_for_a_name_without_a_limit_waits_on(world: World) -> None:
    asked = world.alloc(world.program("client"), "x", float("inf"), wait=True)
    world.advance(100_000)
    assert world.connected(asked, world.accept(world.program("server"), "x"))
    assert world.irm.deadline() is None


@pytest.mark.parametrize("how", ["hangs up", "dies"])
def test_who_waited_for_a_name_and_is_gone_leaves_nothing_behind(world: World, how: str) -> None:
    client = world.program("client")
    asked = world.alloc(client, "x", wait=True)
    if how == "dies":
        world.kill(client)
    else:
        world.cancel(asked)
    assert world.irm.registry.wanted == {}
    assert world.irm.deadline() is None
    assert world.failed(world.accept(world.program("server"), "x", timeout=0)).error == "FlowTimeoutException"


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb"])
def test_nobody_waits_for_what_cannot_be_a_name(world: World, name: str) -> None:
    assert world.failed(world.alloc(world.program("client"), name, wait=True)).error == "FlowNameException"


def test_a_stranger_can_wait_for_a_name_and_makes_none(world: World) -> None:
    stranger = world.program("stranger", uid=OWNER + 1)
    asked = world.alloc(stranger, "x", wait=True)
    assert world.irm.registry.names == {}
    assert world.connected(asked, world.accept(world.program("server"), "x"))


# --- deallocation


def test_a_flow_is_released_when_both_sides_let_go(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    world.send(server, Dealloc(flow, 1))
    assert world.take(object) == []
    world.send(client, Dealloc(flow, 0))
    assert world.take(object) == [Release(flow)]


def test_only_the_holder_of_an_end_can_let_go_of_it(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    for process, side in ((client, 1), (server, 0), (world.program("stranger"), 0), (client, 2), (client, -1)):
        world.send(process, Dealloc(flow, side))
    world.send(client, Dealloc(flow + 1, 0))
    world.send(client, Dealloc(-1, 0))
    assert world.take(object) == []
    assert client.ends == {(flow, 0)}


def test_letting_go_twice_is_letting_go_once(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    world.send(client, Dealloc(flow, 0))
    world.send(client, Dealloc(flow, 0))
    assert world.take(object) == []
    assert list(world.irm.flows.flows) == [flow]


def test_ids_start_at_one_and_the_lowest_free_one_is_used_next(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    assert [connect(world, client, server, "x") for _ in range(4)] == [1, 2, 3, 4]
    for flow in (3, 1):
        world.send(client, Dealloc(flow, 0))
        world.send(server, Dealloc(flow, 1))
    assert [connect(world, client, server, "x") for _ in range(3)] == [1, 3, 5]


def test_an_id_is_not_used_again_while_one_side_holds_it(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.send(client, Dealloc(flow, 0))
    assert connect(world, client, server, "x") != flow


def test_the_listing_shows_each_flow_with_both_its_processes(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    taken = world.accept(server)
    world.alloc(client, "x", qos=QOS_DATA)
    assert world.answer(taken) is not None
    assert world.manage(ListFlows()) == [FlowEntry(1, "x", (client.pid, server.pid), QOS_DATA)]


# --- ends that never arrived


def test_an_end_that_could_not_be_delivered_counts_as_dead(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    flow = connect(world, client, server, "x")
    world.take(Connect)
    world.irm.flows.abandon(flow, 1, world.now)
    world.collect()
    assert world.take(object) == [MarkDead(flow, 1)]
    assert server.ends == set()
    world.irm.flows.abandon(flow, 1, world.now)
    world.irm.flows.abandon(flow, 0, world.now)
    world.collect()
    assert world.take(object) == [MarkDead(flow, 0), Release(flow)]


def test_abandoning_what_is_not_there_does_nothing(world: World) -> None:
    world.irm.flows.abandon(1, 0, world.now)
    assert world.collect() == []


def test_a_late_abandon_spares_the_flow_that_has_the_id_by_now(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    taken, asked = world.accept(server), world.alloc(client, "x")
    world.dealloc(client, asked)
    world.dealloc(server, taken)
    again = world.accept(server)
    second = world.alloc(client, "x")
    assert world.granted(second).flow_id == world.granted(asked).flow_id == 1
    world.take(object)
    world.irm.abandon(1, 0, asked, world.now)
    world.irm.abandon(1, 1, taken, world.now)
    assert world.collect() == []
    world.irm.abandon(1, 1, again, world.now)
    world.collect()
    assert world.take(object) == [MarkDead(1, 1)]


# --- the limit of flows


def test_at_the_limit_the_client_is_refused_and_the_acceptor_keeps_waiting() -> None:
    world = World(flow_limit=1)
    server, client = world.server("x"), world.program("client")
    first = connect(world, client, server, "x")
    taken = world.accept(server)
    failed = world.failed(world.alloc(client, "x"))
    assert failed.error == "NodeLimitError"
    assert "limit of 1 flows" in failed.text
    assert world.answer(taken) is None
    world.send(client, Dealloc(first, 0))
    world.send(server, Dealloc(first, 1))
    assert world.connected(world.alloc(client, "x"), taken)


def test_at_the_limit_an_acceptor_that_comes_late_keeps_waiting_too() -> None:
    world = World(flow_limit=1)
    server, client = world.server("x", "y"), world.program("client")
    first = connect(world, client, server, "x")
    asked = [world.alloc(client, name) for name in ("x", "y", "x")]
    taken = world.accept(server)
    assert [world.failed(token).error for token in asked] == ["NodeLimitError"] * 3
    assert world.answer(taken) is None
    world.send(client, Dealloc(first, 0))
    world.send(server, Dealloc(first, 1))
    assert world.connected(world.alloc(client, "y"), taken)


def test_at_the_limit_an_acceptor_that_is_bound_keeps_waiting_too() -> None:
    world = World(flow_limit=0)
    world.manage(CreateName("x", "spillover"))
    server, client = world.program("server"), world.program("client")
    taken = world.accept(server)
    asked = [world.alloc(client, "x") for _ in range(2)]
    world.manage(BindProcess(server.pid, "x"))
    assert [world.failed(token).error for token in asked] == ["NodeLimitError"] * 2
    assert world.answer(taken) is None
    assert world.failed(world.alloc(client, "x")).error == "NodeLimitError", "there is an acceptor"


def test_an_acceptor_that_may_not_wait_times_out_at_the_limit() -> None:
    world = World(flow_limit=0)
    server, client = world.server("x"), world.program("client")
    asked = world.alloc(client, "x")
    taken = world.accept(server, timeout=0)
    assert (world.failed(asked).error, world.failed(taken).error) == ("NodeLimitError", "FlowTimeoutException")


# --- programs started on demand


@pytest.fixture
def auto(world: World) -> World:
    """A node that can start /bin/server for x."""
    world.manage(BindProgram("/bin/server", "x", True, ["-l"]))
    return world


def end_program(world: World, *, process: Process | None = None, served: bool = False, name: str = "x") -> None:
    """The program that was started for the name ends, as the node sees it."""
    if process is not None:
        world.kill(process)
    world.irm.program_ended(name, "server", "ended with status 3", served, 0.0)
    world.collect()


def test_a_program_is_started_for_a_client_that_nobody_waits_for(auto: World) -> None:
    asked = auto.alloc(auto.program("client"), "x")
    assert auto.take(StartProgram) == [StartProgram("/bin/server", ["-l"], "x")]
    assert auto.connected(asked, auto.accept(auto.program("server")))


def test_one_program_is_started_for_many_clients(auto: World) -> None:
    asked = [auto.alloc(auto.program("client"), "x") for _ in range(10)]
    assert len(auto.take(StartProgram)) == 1
    server = auto.program("server")
    assert all(auto.connected(token, auto.accept(server)) for token in asked)
    assert auto.take(StartProgram) == []


def test_no_program_is_started_for_a_client_that_does_not_wait(auto: World) -> None:
    assert auto.failed(auto.alloc(auto.program("client"), "x", timeout=0)).error == "FlowTimeoutException"
    assert auto.take(StartProgram) == []


def test_no_program_is_started_while_a_busy_server_is_bound(auto: World) -> None:
    server, client = auto.program("server"), auto.program("client")
    connect(auto, client, server, "x")
    auto.take(StartProgram)
    asked = auto.alloc(client, "x")
    assert auto.take(StartProgram) == []
    assert auto.connected(asked, auto.accept(server))


def test_a_client_of_the_same_program_is_no_server(auto: World) -> None:
    auto.alloc(auto.program("server"), "x")
    assert len(auto.take(StartProgram)) == 1


def test_a_program_bound_without_auto_is_not_started(world: World) -> None:
    world.manage(BindProgram("/bin/server", "x", False, []))
    world.alloc(world.program("client"), "x")
    assert world.take(StartProgram) == []


def test_a_program_that_fails_refuses_all_who_wait_and_says_how(auto: World) -> None:
    auto.manage(CreateName("y", "spillover"))
    asked = [auto.alloc(auto.program("client"), "x") for _ in range(3)]
    other = auto.alloc(auto.program("client"), "y")
    end_program(auto)
    for token in asked:
        failed = auto.failed(token)
        assert failed.error == "FlowRefusedException"
        assert "'server', started for 'x', ended with status 3" in failed.text
    assert auto.answer(other) is None


def test_after_a_failure_the_next_client_makes_the_node_try_again(auto: World) -> None:
    auto.alloc(auto.program("client"), "x")
    end_program(auto)
    auto.take(StartProgram)
    auto.alloc(auto.program("client"), "x")
    assert len(auto.take(StartProgram)) == 1


def test_a_program_that_served_is_started_again_for_those_who_wait(auto: World) -> None:
    first = auto.alloc(auto.program("client"), "x")
    server = auto.program("server")
    assert auto.connected(first, auto.accept(server))
    waits = auto.alloc(auto.program("client"), "x")
    auto.take(StartProgram)
    end_program(auto, process=server, served="x" in server.served)
    assert len(auto.take(StartProgram)) == 1
    assert auto.connected(waits, auto.accept(auto.program("server")))


def test_a_program_that_ends_in_peace_is_not_started_again(auto: World) -> None:
    auto.alloc(auto.program("client"), "x")
    server = auto.program("server")
    auto.accept(server)
    auto.take(StartProgram)
    end_program(auto, process=server, served=True)
    assert auto.take(StartProgram) == []


def test_a_program_that_fails_refuses_nobody_whom_another_server_can_serve(auto: World) -> None:
    asked = auto.alloc(auto.program("client"), "x")
    busy = auto.server("x", program="other")
    assert auto.connected(asked, auto.accept(busy))
    waits = auto.alloc(auto.program("client"), "x")
    end_program(auto)
    assert auto.connected(waits, auto.accept(busy))


def test_the_end_of_a_program_whose_name_was_destroyed_does_no_harm(auto: World) -> None:
    asked = auto.alloc(auto.program("client"), "x")
    auto.manage(DestroyName("x"))
    assert auto.failed(asked).error == "FlowNameException"
    end_program(auto)
    assert auto.take(Release) == []


def test_a_name_that_was_destroyed_and_made_again_has_its_program_started(auto: World) -> None:
    auto.alloc(auto.program("client"), "x")
    auto.manage(DestroyName("x"))
    auto.take(StartProgram)
    auto.manage(BindProgram("/bin/better", "x", True, []))
    auto.alloc(auto.program("client"), "x")
    assert auto.take(StartProgram) == [StartProgram("/bin/better", [], "x")]


def test_clients_that_wait_already_have_a_program_started_when_it_is_bound(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    asked = world.alloc(world.program("client"), "x")
    assert world.take(StartProgram) == []
    world.manage(BindProgram("/bin/server", "x", True, []))
    assert len(world.take(StartProgram)) == 1
    assert world.connected(asked, world.accept(world.program("server")))


@pytest.mark.parametrize("how", ["dies", "is unbound"])
def test_clients_have_a_program_started_when_the_server_they_wait_for_goes(auto: World, how: str) -> None:
    by_hand, client = auto.program("server"), auto.program("client")
    connect(auto, client, by_hand, "x")
    asked = auto.alloc(client, "x")
    assert auto.take(StartProgram) == []
    if how == "dies":
        auto.kill(by_hand)
    else:
        auto.manage(UnbindProcess(by_hand.pid, "x"))
    assert len(auto.take(StartProgram)) == 1
    assert auto.connected(asked, auto.accept(auto.program("server")))


def test_a_program_that_was_unbound_while_it_serves_makes_room_for_another(auto: World) -> None:
    first = auto.alloc(auto.program("client"), "x")
    server = auto.program("server")
    assert auto.connected(first, auto.accept(server))
    auto.manage(UnbindProcess(server.pid, "x"))
    auto.take(StartProgram)
    auto.alloc(auto.program("client"), "x")
    assert len(auto.take(StartProgram)) == 1


def test_no_program_is_started_when_a_busy_server_of_another_name_is_bound(auto: World) -> None:
    server, client = auto.server("y", program="other"), auto.program("client")
    connect(auto, client, server, "y")
    auto.manage(BindProcess(server.pid, "x"))
    asked = auto.alloc(client, "x")
    assert auto.take(StartProgram) == []
    assert auto.connected(asked, auto.accept(server))


# --- in a layer


def in_local_layers(world: World, **names: list[str]) -> None:
    """Layers within the node, each with names that are registered there."""
    for layer, registered in names.items():
        id = world.manage(CreateIpcp(f"{layer}0", "local"))
        assert isinstance(id, int)
        world.manage(BootstrapIpcp(id, layer))
        for name in registered:
            world.manage(CreateName(name, "round-robin"))
            world.manage(RegisterName(name, id))


def test_a_flow_is_in_the_layer_of_its_name_at_both_ends(world: World) -> None:
    in_local_layers(world, lab=[], shop=["x"], yard=["x"])
    server, client = world.server("x", "nowhere"), world.program("client")
    for asked_for, name, found in ((None, "x", "shop"), ("yard", "x", "yard"), (None, "nowhere", "")):
        taken, asked = world.accept(server), world.alloc(client, name, layer=asked_for)
        assert [world.granted(each).layer for each in (asked, taken)] == [found, found]
        flow = world.granted(asked).flow_id
        assert [each.layer for each in world.irm.flows.entries() if each.id == flow] == [found]


def test_a_name_is_looked_for_in_the_layer_only(world: World) -> None:
    in_local_layers(world, lab=["x"], shop=[])
    server, client = world.server("x"), world.program("client")
    taken = world.accept(server)
    failed = world.failed(world.alloc(client, "x", layer="shop"))
    assert failed == Failed(
        "FlowNameException",
        "nobody in layer 'shop' offers 'x': it is not registered there; `irm name register x layer shop` does that",
    )
    assert world.connected(world.alloc(client, "x", layer="lab"), taken)
    waits = world.alloc(client, "x", layer="lab", timeout=5)
    assert world.answer(waits) is None
    assert world.connected(waits, world.accept(server))


def test_a_layer_that_is_not_there_or_has_no_names_says_so(world: World) -> None:
    in_local_layers(world, lab=["x"])
    client = world.program("client")
    text = world.failed(world.alloc(client, "x", layer="net")).text
    assert text.startswith("no flow to 'x' over layer 'net': this node is not in it, but in 'lab'; `irm ipcp enroll`")
    id = world.manage(CreateIpcp("chat0", "broadcast"))
    assert isinstance(id, int)
    world.manage(BootstrapIpcp(id, "chat"))
    text = world.failed(world.alloc(client, "x", layer="chat")).text
    assert text == "no flow to 'x' over layer 'chat': a broadcast layer holds no names; programs join it (`flow_join`)"


def test_a_patient_request_waits_for_the_layer_too(world: World) -> None:
    server, client = world.server("x"), world.program("client")
    taken, asked = world.accept(server), world.alloc(client, "x", layer="lab", wait=True)
    world.advance(3)
    assert world.answer(asked) is None
    in_local_layers(world, lab=["x"])
    world.advance(3)
    assert world.connected(asked, taken)
    late = world.alloc(client, "x", layer="yard", wait=True, timeout=4)
    world.advance(4)
    assert "in time: this node is not in it, but in 'lab'" in world.failed(late).text
