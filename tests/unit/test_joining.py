"""Programs that join a broadcast layer in which their node has no member: nodes in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from joining_world import make_hall, members, over_ethernet, over_unicast, talk, world
from security_world import CACERT, certified, trusting
from unicast_world import Layer

from ouroboros.control.joining import LINGER
from ouroboros.errors import (
    FlowAuthException,
    FlowDownException,
    FlowNameException,
    FlowPermissionException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    IpcpEnrollError,
    NodeLimitError,
    OuroborosError,
)
from ouroboros.qos import QoSSpec
from ouroboros.settings import Users
from ouroboros.testing.sim import Asked, Network, Node
from ouroboros.wire.control import (
    BindProcess,
    CreateIpcp,
    DestroyIpcp,
    EnrollIpcp,
    Join,
    Save,
)

#: Not that of the nodes.
USER = 60001


def error_of(asked: Asked, kind: type[OuroborosError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        asked.wait().value  # noqa: B018
    assert type(caught.value) is kind


@pytest.mark.parametrize("make", [world, over_ethernet, over_unicast])
def test_a_program_joins_a_layer_that_is_elsewhere(make: Callable[[], tuple[Network, Node, Node]]) -> None:
    network, hub, near = make()
    there = hub.program().join("chat").wait().flow
    here = near.program().join("chat").wait().flow
    talk(network, there, here)
    (member,) = members(near)
    assert (member.name, member.layer, member.state, member.members) == ("chat.joined", "chat", "operational", 1)
    assert [each.component for each in member.connections] == ["Data Transfer"]
    # From now on, the layer is here.
    talk(network, there, here, near.program("another").join("chat").wait(0).flow)
    assert network.balance().missing == 0


def test_all_that_join_at_once_wait_for_one_enrollment() -> None:
    network, hub, near = world()
    asked = [near.program(f"p{number}").join("chat") for number in range(5)]
    assert all(each.answer is None for each in asked)
    flows = [each.wait().flow for each in asked]
    talk(network, hub.program().join("chat").wait().flow, *flows)
    assert [each.name for each in members(near)] == ["chat.joined"]
    (there,) = members(hub)
    assert (there.counters["enrollments"], len(there.connections)) == (1, 1)


def test_the_member_goes_some_time_after_its_last_flow_and_what_was_written_last_gets_out() -> None:
    network, hub, near = world()
    there = hub.program().join("chat").wait().flow
    first, second = (near.program().join("chat").wait().flow for _ in range(2))
    first.dealloc()
    network.run(2 * LINGER)
    assert members(near)
    second.write(b"bye")
    second.dealloc()
    assert there.read() == b"bye"
    network.run(LINGER - 5)
    # Whoever comes back meanwhile finds it.
    near.program().join("chat").wait(0).flow.dealloc()
    network.run(LINGER - 1)
    assert members(near)
    network.run(2)
    assert members(near) == []
    network.run(2)
    assert members(hub)[0].connections == ()
    talk(network, there, near.program().join("chat").wait().flow)


def test_a_program_that_dies_lets_go_as_well() -> None:
    network, _, near = world()
    program = near.program()
    program.join("chat").wait()
    program.die()
    network.run(LINGER + 1)
    assert members(near) == []


def test_a_member_that_was_bound_to_a_name_stays() -> None:
    network, _, near = world()
    near.program().join("chat").wait().flow.dealloc()
    near.manage(BindProcess(members(near)[0].id, "b1")).value  # noqa: B018 - or its error
    assert not any(ipcp.busy for ipcp in near.irm.ipcps.values() if ipcp.on_demand and not ipcp.names)
    network.run(2 * LINGER)
    assert [each.name for each in members(near)] == ["chat.joined"]


def test_a_member_for_programs_keeps_no_node_alive_and_is_in_no_file() -> None:
    _, hub, near = world()
    near.program().join("chat").wait()
    assert [ipcp.busy for ipcp in near.irm.ipcps.values() if ipcp.type == "broadcast"] == [False]
    assert "broadcast" not in str(near.manage(Save()).value)
    assert "[broadcast.b0]" in str(hub.manage(Save()).value)


def test_a_layer_to_which_nothing_leads_is_told_at_once() -> None:
    network = Network(1)
    node = network.add_node()
    for kind in ("local", "broadcast"):
        node.add_ipcp(kind, kind)
    for layer in ("chat", "local"):
        with pytest.raises(FlowNameException, match=f"there is no broadcast layer '{layer}' on this node"):
            node.program().join(layer).value  # noqa: B018
    assert network.now == 0


def test_what_a_program_serves_is_no_layer_and_the_program_hears_nothing() -> None:
    _, _, near = world()
    accepting = near.program("server").accept("clock")
    with pytest.raises(FlowNameException, match="there is no broadcast layer 'clock'"):
        near.program().join("clock").value  # noqa: B018
    assert accepting.answer is None


def test_a_layer_of_which_nobody_knows_is_no_name() -> None:
    network, _, near = over_ethernet()
    error_of(near.program().join("hall"), FlowNameException, "this node cannot become a member .*'hall'.*no station")
    assert network.now < 5
    assert members(near) == []


def test_the_name_of_a_member_is_not_that_of_its_layer() -> None:
    network, hub, near = world()
    error_of(near.program().join("b0"), FlowNameException, "'b0' is a member of broadcast layer 'chat'.*join 'chat'")
    network.run(2)
    assert members(near) == []
    assert members(hub)[0].connections == ()


def test_a_layer_of_another_type_refuses() -> None:
    campus = Layer([(0, 1)])
    near = campus.network.add_node("near")
    near.over_udp(peers=[f"m0@{campus.nodes[0].address}"])
    error_of(near.program().join("m0"), FlowRefusedException, "its layer 'campus' is a unicast layer")
    assert members(near) == []


def test_a_host_that_is_down_is_waited_for_as_long_as_the_program_says() -> None:
    network, hub, near = world()
    network.cut(hub, near)
    short, long, endless = (near.program().join("chat", timeout) for timeout in (1.5, None, float("inf")))
    start = network.now
    error_of(short, FlowTimeoutException, "'chat'.*is the host of one up")
    assert network.now - start == pytest.approx(1.5)
    error_of(long, FlowTimeoutException, "in time")
    assert network.now - start == pytest.approx(20)
    network.run(60)
    assert len(members(near)) == 1
    network.mend(hub, near)
    here = endless.wait().flow
    talk(network, hub.program().join("chat").wait().flow, here)


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_way_costs_time_and_no_more(seed: int) -> None:
    network, hub, near = world(seed)
    for node in (hub, near):
        node.impair("loss=30%,jitter=3ms")
    asked = [near.program().join("chat", 60) for _ in range(2)]
    flows = [each.wait().flow for each in asked]
    for node in (hub, near):
        node.impair(None)
    talk(network, hub.program().join("chat").wait().flow, *flows)


def test_nothing_is_left_of_what_nobody_waits_for() -> None:
    network, hub, near = world()
    network.cut(hub, near)
    first, second = near.program("first"), near.program("second")
    asked = first.join("chat")
    second.join("chat")
    network.run(1)
    asked.cancel()
    network.run(1)
    assert len(members(near)) == 1
    second.die()
    assert members(near) == []
    with pytest.raises(FlowTimeoutException, match="no time"):
        near.program().join("chat", 0).value  # noqa: B018
    network.mend(hub, near)
    near.program().join("chat").wait().flow  # noqa: B018 - or its error


@pytest.mark.parametrize("delay", [0.0, 0.0015, 0.0035, 0.0055, 0.0075, 0.0095])
def test_a_member_that_is_destroyed_while_it_enters_is_told_to_whoever_waits(delay: float) -> None:
    network, hub, near = world()
    asked = near.program().join("chat")
    network.run(delay)
    if asked.answer is None:
        near.manage(DestroyIpcp(members(near)[0].id)).wait().value  # noqa: B018 - or its error
        error_of(asked, FlowRefusedException, "this node cannot become a member of broadcast layer 'chat'")
    assert near.program().join("chat").wait().flow.granted.layer == "chat"
    network.run(2)
    assert len(members(hub)[0].connections) == 1


def test_a_member_that_is_destroyed_later_ends_its_flows_and_the_next_program_has_another() -> None:
    network, hub, near = world()
    here = near.program().join("chat").wait().flow
    near.manage(DestroyIpcp(members(near)[0].id)).wait().value  # noqa: B018 - or its error
    network.run(1)
    with pytest.raises(FlowDownException):
        here.read(1)
    again = near.program().join("chat").wait().flow
    here.dealloc()
    network.run(2 * LINGER)
    talk(network, hub.program().join("chat").wait().flow, again)


def test_a_member_finds_the_layer_again_after_the_one_that_it_asked_was_started_anew() -> None:
    network, hub, near = world()
    here = near.program().join("chat").wait().flow
    hub.crash()
    network.run(60)
    hub = network.add_node("hub")
    make_hall(hub, hub.over_udp())
    there = hub.program().join("chat").wait().flow
    network.run(60)
    talk(network, there, here)


def test_the_name_of_an_ipc_process_that_is_there_is_not_taken() -> None:
    _, _, near = world()
    near.manage(CreateIpcp("chat.joined", "local")).value  # noqa: B018 - or its error
    near.program().join("chat").wait().flow  # noqa: B018
    assert [each.name for each in members(near)] == ["chat.joined1"]
    with pytest.raises(FlowNameException, match="name of the IPC process for it has 257 bytes"):
        near.program().join("x" * 250).value  # noqa: B018


def test_a_quality_that_no_layer_has_is_refused_before_anything_is_asked() -> None:
    _, _, near = world()
    program = near.program()
    with pytest.raises(FlowQosException):
        near.ask(program.process, Join("chat", QoSSpec(loss=0), None)).value  # noqa: B018
    assert members(near) == []


# --- who may


def test_programs_of_other_users_have_the_node_enroll_only_where_its_owner_says_so() -> None:
    _, _, near = world()
    error_of(near.program(user=USER).join("chat"), FlowPermissionException, r"`join` in \[users\]")
    assert members(near) == []
    near.irm.bound_users(Users(join=("hall", "chat")))
    near.program(user=USER).join("chat").wait().flow  # noqa: B018 - or its error
    # And in what is here, as ever.
    near.irm.bound_users(Users())
    near.program(user=USER).join("chat").wait(0).flow  # noqa: B018


def test_requests_of_other_users_that_wait_are_of_their_share() -> None:
    network, hub, near = world()
    network.cut(hub, near)
    near.irm.bound_users(Users(join=("chat",)))
    program = near.program(user=USER)
    asked = [program.join("chat", 5) for _ in range(257)]
    with pytest.raises(NodeLimitError):
        asked[-1].value  # noqa: B018
    near.program().join("chat", 5)
    network.run(6)
    assert all(each.answer is not None for each in asked)
    assert members(near) == []
    program.join("chat", 5).cancel()
    assert members(near) == []


def test_hosts_prove_who_they_are_where_the_name_of_the_layer_wants_it() -> None:
    """Whether a person enrolls or a program that joins."""
    network = Network(1)
    policy = {"server/chat/policy.conf": b"allow=alice\n"}
    hub = network.add_node("hub", security=trusting() | certified("server/chat", "chat") | policy)
    make_hall(hub, hub.over_udp())
    wants = {"client/chat/policy.conf": b"require=certificate\n"}
    hosts = {
        "alice": trusting() | wants | certified("client/chat", "alice"),
        "bob": trusting() | wants | certified("client/chat", "bob"),
        "nobody": trusting() | wants,
        "careful": {CACERT: trusting("another")[CACERT]} | wants | certified("client/chat", "alice"),
    }
    flows = [hub.program().join("chat").wait().flow]
    for name, files in hosts.items():
        node = network.add_node(name, security=files)
        node.over_udp(peers=[f"chat@{hub.address}"])
        joining = node.program().join("chat").wait()
        id = node.manage(CreateIpcp("b", "broadcast")).value
        assert isinstance(id, int)
        by_hand = node.manage(EnrollIpcp(id, "chat")).wait()
        if name == "alice":
            flows.append(joining.flow)
            assert by_hand.value == id
        else:
            error_of(joining, FlowAuthException, "this node cannot become a member of broadcast layer 'chat'")
            with pytest.raises(IpcpEnrollError):
                by_hand.value  # noqa: B018
    talk(network, *flows)
