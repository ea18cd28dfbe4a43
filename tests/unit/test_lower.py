"""IPC processes that ask for flows, accept them and hold them: of each other, of programs, and through layers below."""

from __future__ import annotations

import functools

import pytest
from lower_world import LowerWorld, ToyIpcp

from ouroboros.control.parties import HIGHEST_RANK, MOST_ACCEPTED
from ouroboros.errors import (
    BindError,
    FlowDownException,
    FlowNameException,
    FlowRefusedException,
    FlowTimeoutException,
    IpcpConnectError,
    IpcpEnrollError,
    NodeError,
    OuroborosError,
    UnsupportedError,
)
from ouroboros.layers.base import Ipcp
from ouroboros.layers.effects import Attach, CloseMember, Connect, EndFlow, Loop, Member, Release, StartProgram
from ouroboros.layers.face import How, Task
from ouroboros.qos import QoSSpec
from ouroboros.settings import LocalSettings
from ouroboros.wire.control import (
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    DestroyName,
    DisconnectIpcp,
    EnrollIpcp,
    FlowEntry,
    ListFlows,
    ListNames,
    NameEntry,
    UnbindProcess,
)


@pytest.fixture
def world() -> LowerWorld:
    return LowerWorld()


def failure(toy: ToyIpcp, number: int, kind: type[OuroborosError]) -> str:
    """What the toy was told last: that there is no flow."""
    what, got, error = toy.log[-1]
    assert (what, got) == ("failed", number), toy.log
    assert type(error) is kind, error
    return str(error)


def shelf(world: LowerWorld, height: int) -> list[ToyIpcp]:
    """Toys each of which has a flow that the one before carries; the last has rank `height`."""
    toys: list[ToyIpcp] = []
    for rank in range(height + 1):
        carrier, far = world.toy(f"near{rank}", f"layer{rank}"), world.toy(f"far{rank}", f"layer{rank}")
        if toys:
            world.connect(carrier, 0, f"server{rank - 1}")
        world.accept(world.server(f"server{rank}"))
        world.register(f"server{rank}", far.id)
        toys.append(carrier)
    return toys


def two_ways(world: LowerWorld) -> list[ToyIpcp]:
    """A toy that asks over one layer and may ask over another: the toy, the near members of both and the far ones."""
    toy = world.toy("m", "upper")
    near, again = world.toy("near", "first"), world.toy("again", "second")
    far, there = world.toy("far", "first"), world.toy("there", "second")
    world.manage(CreateName("x", "round-robin"))
    for each in (far, there):
        each.register("x", 0.0)
    world.ask(toy, 0, "x", over=frozenset({"first", "second"}))
    return [toy, near, again, far, there]


# --- flows within the node


def test_an_ipc_process_gets_a_flow_to_a_program_when_the_engine_has_it(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    taken = world.accept(world.server("x"))
    world.ask(toy, 7, "x")
    assert world.take(Loop) == [Loop(1, "x", QoSSpec(), (Member(toy.id, 1), taken), None)]
    assert toy.log == []
    world.engine()
    assert toy.log == [("up", 7, 1)]
    assert (toy.holds[1].name, toy.holds[1].side, toy.holds[1].ipcp) == ("x", 0, None)
    assert world.granted(taken).side == 1


def test_a_program_gets_a_flow_to_an_ipc_process(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    asked = world.alloc(world.program("client"), "m")
    assert world.take(Loop) == [Loop(1, "m", QoSSpec(), (asked, Member(toy.id, 1)), None)]
    world.engine()
    assert toy.log == [("up", None, 1)]
    assert toy.holds[1].side == 1


def test_two_ipc_processes_get_the_two_ends_of_a_flow(world: LowerWorld) -> None:
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.ask(one, 0, "other")
    world.engine()
    assert (one.log, other.log) == ([("up", 0, 1)], [("up", None, 2)])
    assert world.manage(ListFlows()) == [FlowEntry(1, "other", (one.id, other.id), QoSSpec())]


def test_two_programs_still_share_a_ring(world: LowerWorld) -> None:
    world.toy("m", "upper")
    taken = world.accept(world.server("x"))
    asked = world.alloc(world.program("client"), "x")
    assert world.take(Connect) == [Connect(1, "x", QoSSpec(), asked, taken)]


def test_a_flow_of_an_impaired_layer_goes_through_it_and_counts_as_carried_by_it(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    lab = world.manage(CreateIpcp("lab", "local"))
    assert isinstance(lab, int)
    world.manage(BootstrapIpcp(lab, "lab", LocalSettings(impair="loss=1%")))
    world.register("x", lab)
    world.accept(world.server("x"))
    fd = world.connect(toy, 0, "x")
    assert world.take(Loop)[0].ipcp == lab
    assert toy.holds[fd].ipcp == lab


def test_what_is_let_go_is_told_nothing_more_and_its_flow_stays_until_the_engine_is_done(world: LowerWorld) -> None:
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    fd = world.connect(one, 0, "other")
    world.take(object)
    world.release(one, fd)
    assert world.take(object) == [EndFlow(1, 0)]
    assert list(world.irm.flows.flows) == [1]
    world.engine()
    assert one.log == [("up", 0, 1)]
    assert other.log[1:] == [("down", 2, How.GONE)]
    assert world.take(object) == [Release(1)]
    assert world.irm.flows.flows == {}


def test_an_end_is_let_go_once(world: LowerWorld) -> None:
    one = world.toy("one", "upper")
    world.toy("other", "upper")
    fd = world.connect(one, 0, "other")
    for _ in range(2):
        world.release(one, fd)
    world.engine()
    world.release(one, fd)
    world.release(one, 99)
    assert len(world.take(EndFlow)) == 1


def test_the_death_of_a_program_ends_the_flow_of_an_ipc_process(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    server = world.server("x")
    world.accept(server)
    world.connect(toy, 0, "x")
    world.kill(server)
    world.engine()
    assert toy.log[1:] == [("down", 1, How.GONE)]
    assert world.irm.flows.flows == {}


def test_what_is_let_go_while_its_end_is_told_hears_nothing(world: LowerWorld) -> None:
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.connect(one, 0, "other")
    second = world.connect(one, 1, "other")
    one.reaction = lambda toy: toy.release(second, world.now)
    world.destroy(other)
    world.engine()
    assert [what for what, *_ in one.log].count("down") == 1
    assert one.holds == {}
    assert world.irm.flows.flows == {}


# --- questions


def test_a_name_that_nobody_offers_is_told_as_to_a_program(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.ask(toy, 3, "nix")
    assert failure(toy, 3, FlowNameException).startswith("nobody offers 'nix' on this node: start the program")


def test_nothing_is_told_before_the_call_returns(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    toy.ask(3, "nix", 0.0)
    assert toy.log == []
    world.settle()
    assert len(toy.log) == 1


def test_a_question_has_a_deadline(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(CreateName("x", "round-robin"))
    world.ask(toy, 3, "x", wait=5.0)
    world.advance(4.9)
    assert toy.log == []
    world.advance(0.2)
    assert "nobody accepted a flow to 'x' in time" in failure(toy, 3, FlowTimeoutException)
    world.ask(toy, 3, "x", wait=0.0)
    failure(toy, 3, FlowTimeoutException)


def test_a_question_that_is_withdrawn_has_no_answer(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(CreateName("x", "round-robin"))
    world.ask(toy, 3, "x")
    world.withdraw(toy, 3)
    world.advance(30.0)
    assert toy.log == []
    world.withdraw(toy, 3)
    taken = world.accept(world.server("x"))
    assert world.answer(taken) is None


def test_a_question_that_is_withdrawn_while_its_end_is_made_lets_go_of_it(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.accept(world.server("x"))
    world.ask(toy, 3, "x")
    world.withdraw(toy, 3)
    assert world.take(EndFlow) == [EndFlow(1, 0)]
    world.engine()
    assert toy.log == []


@pytest.mark.parametrize("withdraws_in_a_call", [False, True])
def test_a_number_can_be_used_again_at_once(world: LowerWorld, withdraws_in_a_call: bool) -> None:
    toy = world.toy("m", "upper")
    world.accept(world.server("x"))
    toy.ask(3, "x", 0.0)
    if not withdraws_in_a_call:
        world.settle()
    toy.withdraw(3, 0.0)
    toy.ask(3, "nix", 0.0)
    world.settle()
    world.engine()
    failure(toy, 3, FlowNameException)
    assert len(toy.log) == 1
    assert toy.holds == {}


def test_a_flow_that_comes_while_its_question_is_withdrawn_is_nobodys(world: LowerWorld) -> None:
    """It is granted after the question was withdrawn, and before the flow manager comes to hear of that."""
    toy = world.toy("m", "upper")
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    world.register("x", far.id)
    server = world.server("x")
    world.ask(toy, 3, "x", over=frozenset({"lower"}))
    assert len(near.asked) == 1
    world.irm._posts.add(lambda: toy.withdraw(3, world.now))
    world.accept(server)
    assert len(world.take(Attach)) == 2
    world.engine()
    assert toy.log == []
    assert toy.holds == {}
    assert near.ends == set()


def test_a_flow_that_is_let_go_while_it_is_told_of_is_not_told(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.accept(world.server("x"))
    world.ask(toy, 3, "x")
    world.irm._posts.add(lambda: toy.withdraw(3, world.now))
    world.engine()
    assert toy.log == []
    assert world.ends == {}


def test_a_second_question_under_a_number_is_a_bug(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(CreateName("x", "round-robin"))
    world.ask(toy, 3, "x")
    with pytest.raises(ValueError, match="IPC process 'm' asks twice under the number 3"):
        toy.ask(3, "x", 0.0)


def test_an_end_that_cannot_be_made_fails_the_question(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    taken = world.accept(world.server("x"))
    world.ask(toy, 3, "x")
    world.fail_end(1, 0)
    assert failure(toy, 3, NodeError) == "the node could not make the flow to 'x': no memory"
    world.engine()
    assert world.granted(taken).flow_id == 1
    world.ask(toy, 4, "nix")
    assert toy.holds == {}


def test_an_end_that_fails_after_it_was_told_is_down(world: LowerWorld) -> None:
    """The engine met a bug half way."""
    toy = world.toy("m", "upper")
    world.accept(world.server("x"))
    fd = world.connect(toy, 3, "x")
    world.irm.end_failed(1, 0, "a bug", world.now)
    assert toy.log[1:] == [("down", fd, How.BROKEN)]


def test_an_end_that_is_over_before_it_is_told_fails_the_question(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    server = world.server("x")
    world.accept(server)
    world.ask(toy, 3, "x")
    world.kill(server)
    opened, *_ = world.due
    world.due.remove(opened)
    world.engine()
    assert "ended before it could be used" in failure(toy, 3, FlowDownException)
    opened()
    assert len(toy.log) == 1


def test_a_flow_limit_is_told(world: LowerWorld) -> None:
    world = LowerWorld(flow_limit=1)
    toy = world.toy("m", "upper")
    for number in range(2):
        world.accept(world.server("x"))
        world.ask(toy, number, "x")
    assert "limit of 1 flows" in failure(toy, 1, NodeError.__subclasses__()[0])


# --- standing acceptors


def test_an_ipc_process_that_accepts_takes_one_flow_after_the_other(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    client = world.program("client")
    for _ in range(3):
        world.alloc(client, "m")
    assert len(world.take(Loop)) == 3
    world.engine()
    assert toy.log == [("up", None, fd) for fd in (1, 2, 3)]


def test_an_ipc_process_holds_a_bounded_number_of_flows_that_it_accepted(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    client = world.program("client")
    tokens = [world.alloc(client, "m") for _ in range(MOST_ACCEPTED + 3)]
    assert len(world.take(Loop)) == MOST_ACCEPTED
    # There is room again only when the engine is done with one.
    world.fail_end(1, 1)
    assert len(world.take(Loop)) == 1
    world.engine()
    assert len(toy.log) == MOST_ACCEPTED
    assert world.take(Loop) == []
    world.release(toy, toy.log[0][2])
    assert world.take(Loop) == []
    world.engine()
    assert len(world.take(Loop)) == 1
    world.engine()
    assert len(toy.holds) == MOST_ACCEPTED
    assert world.answer(tokens[-1]) is None


def test_flows_that_an_ipc_process_asked_for_are_no_accepted_ones(world: LowerWorld) -> None:
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.connect(one, 0, "other")
    members = world.irm.registry.members
    assert (members[one.id].accepted, members[other.id].accepted) == (0, 1)


@pytest.mark.parametrize("asks", ["a program", "an IPC process", "a peer"])
def test_one_that_is_in_no_layer_yet_takes_no_flow_and_its_carrier_goes_on(world: LowerWorld, asks: str) -> None:
    world.toy("m")
    text = "IPC process 'm', which is to take the flow, is in no layer yet: bootstrap it first"
    if asks == "an IPC process":
        other = world.toy("other", "upper")
        world.ask(other, 1, "m")
        assert failure(other, 1, FlowDownException) == text
        return
    if asks == "a peer":
        world.toy("near", "lower")
        world.register("m", world.toy("far", "lower").id)
    assert world.failed(world.alloc(world.program("client"), "m")).text == text
    assert world.take(Attach) == []


def test_one_that_failed_gets_nothing_that_it_asked_for_before(world: LowerWorld) -> None:
    """Neither from this node nor through a layer, which takes back what it has."""
    toy = world.toy("m", "upper")
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    servers = world.server("x"), world.server("y")
    world.register("x", far.id)
    world.ask(toy, 1, "x", over=frozenset({"lower"}))
    world.manage(CreateName("y", "round-robin"))
    world.ask(toy, 2, "y")
    toy.gave_up("out of luck", world.now)
    for server in servers:
        world.accept(server)
    world.engine()
    assert [(what, number) for what, number, _ in toy.log] == [("failed", 1), ("failed", 2)]
    assert all("has failed (out of luck)" in str(error) for _, _, error in toy.log)
    assert near.ends == set()


def test_what_gave_up_does_not_go_on_in_the_engine(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    toy.gave_up("out of luck", world.now)
    world.settle()
    assert world.take(CloseMember) == [CloseMember(toy.id)]
    bare = world.toy("bare")
    bare.gave_up("out of luck", world.now)
    world.settle()
    assert world.take(CloseMember) == []


def test_a_message_over_a_flow_that_means_nothing_any_more_is_not_told(world: LowerWorld) -> None:
    toy, other = world.toy("m", "upper"), world.toy("other", "upper")
    told: list[bytes] = []
    for each in (toy, other):
        each.received = lambda data, source, now: told.append(data)  # type: ignore[method-assign]
    fd = world.connect(toy, 0, "other")
    world.irm.management_arrived(toy.id, b"held", fd, world.now)
    # Of another IPC process, and of nobody.
    world.irm.management_arrived(other.id, b"foreign", fd, world.now)
    world.irm.management_arrived(toy.id, b"unknown", 99, world.now)
    world.release(toy, fd)
    world.irm.management_arrived(toy.id, b"let go", fd, world.now)
    assert told == [b"held"]


def test_one_that_meets_a_bug_does_not_keep_the_others_from_what_they_are_told(world: LowerWorld) -> None:
    posts = world.irm._posts
    told: list[str] = []

    def bug(text: str) -> None:
        told.append(text)
        posts.add(lambda: told.append(f"after {text}"))
        raise ZeroDivisionError(text)

    for text in ("first", "second"):
        posts.add(lambda text=text: bug(text))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError, match="first"):
        posts.settle()
    assert told == ["first", "second", "after first", "after second"]
    posts.settle()


def test_those_that_wait_for_a_name_get_it_when_an_ipc_process_is_bound_to_it(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(CreateName("x", "round-robin"))
    asked = world.alloc(world.program("client"), "x")
    assert world.answer(asked) is None
    world.manage(BindProcess(toy.id, "x"))
    world.engine()
    assert world.granted(asked).name == "x"
    assert len(toy.log) == 1
    world.manage(UnbindProcess(toy.id, "x"))
    assert "nobody serves 'x' any more" in world.failed(world.alloc(world.program("client"), "x")).text
    with pytest.raises(BindError, match="IPC process 'm' is not bound to 'x'"):
        world.manage(UnbindProcess(toy.id, "x"))
    assert world.manage(ListNames()) == [
        NameEntry("m", "round-robin", [], [toy.id], []),
        NameEntry("x", "round-robin", [], [], []),
    ]


def test_acceptors_of_both_kinds_take_turns(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    server = world.server("m")
    taken = world.accept(server)
    client = world.program("client")
    for _ in range(3):
        world.alloc(client, "m")
    world.engine()
    assert world.granted(taken).side == 1
    assert len(toy.log) == 2


def test_an_ipc_process_that_serves_a_name_keeps_its_program_from_being_started(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(BindProgram("/bin/p", "x", True, []))
    world.manage(BindProcess(toy.id, "x"))
    world.alloc(world.program("client"), "x")
    assert world.take(StartProgram) == []
    world.destroy(toy)
    world.alloc(world.program("client"), "x")
    assert len(world.take(StartProgram)) == 1


def test_one_that_failed_says_so_to_those_that_ask(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    toy.gave_up("out of luck", 0.0)
    assert "has failed (out of luck)" in world.failed(world.alloc(world.program("client"), "m")).text


def test_a_type_that_accepts_no_flows_is_bound_to_names_and_serves_none(world: LowerWorld) -> None:
    lab = world.manage(CreateIpcp("lab", "local"))
    assert isinstance(lab, int)
    world.manage(BindProcess(lab, "x"))
    asked = world.alloc(world.program("client"), "x", 1.0)
    world.advance(2.0)
    assert "no program accepts flows for it" in world.failed(asked).text
    assert world.manage(ListNames()) == [NameEntry("x", "round-robin", [], [], [])]
    server = world.server("x")
    world.accept(server)
    world.kill(server)
    assert "nobody serves 'x' any more" in world.failed(world.alloc(world.program("client"), "x")).text


def test_a_type_that_has_no_use_for_flows_lets_go_of_them(world: LowerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = world.toy("m", "upper")
    monkeypatch.setattr(toy, "lower_up", functools.partial(Ipcp.lower_up, toy))
    world.alloc(world.program("client"), "m")
    world.engine()
    assert world.take(EndFlow) == [EndFlow(1, 1)]
    assert world.ends == {}


def test_an_ipc_process_finds_others_by_a_name_that_it_is_bound_to_itself(world: LowerWorld) -> None:
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    for toy in (one, other):
        world.manage(BindProcess(toy.id, "upper"))
    world.connect(one, 0, "upper")
    world.connect(one, 1, "upper")
    assert len(other.holds) == 2
    world.manage(UnbindProcess(other.id, "upper"))
    world.ask(one, 2, "upper")
    text = failure(one, 2, FlowNameException)
    assert "nobody else offers 'upper' on this node" in text
    assert text.endswith("; no layer carries itself, so 'upper' was not asked")


# --- through a layer


def test_a_name_in_a_layer_with_two_members_here_is_reached_through_it(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    taken = world.accept(world.server("x"))
    world.register("x", far.id)
    asked = world.alloc(world.program("client"), "x")
    attached = world.take(Attach)
    assert [(each.ipcp, each.user, each.side) for each in attached] == [(far.id, taken, 1), (near.id, asked, 0)]


def test_an_ipc_process_gets_both_ends_of_flows_through_a_layer(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.register("other", far.id)
    fd = world.connect(one, 0, "other")
    assert one.holds[fd].ipcp == near.id
    (accepted,) = other.holds.values()
    assert accepted.ipcp == far.id
    world.release(one, fd)
    world.engine()
    assert other.log[-1] == ("down", accepted.fd, How.GONE)
    assert world.irm.flows.flows == {}
    assert (near.ends, far.ends) == (set(), set())


def test_a_busy_server_is_waited_for_here_and_reached_through_the_layer(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    server = world.server("x")
    world.register("x", far.id)
    asked = world.alloc(world.program("client"), "x")
    assert world.take(Attach) == []
    taken = world.accept(server)
    assert [(each.ipcp, each.user) for each in world.take(Attach)] == [(far.id, taken), (near.id, asked)]


def test_a_local_layer_comes_first(world: LowerWorld) -> None:
    world.toy("near", "lower")
    far = world.toy("far", "lower")
    lab = world.manage(CreateIpcp("lab", "local"))
    assert isinstance(lab, int)
    world.manage(BootstrapIpcp(lab, "lab", LocalSettings(impair="none")))
    for ipcp in (far.id, lab):
        world.register("x", ipcp)
    taken = world.accept(world.server("x"))
    asked = world.alloc(world.program("client"), "x")
    assert [(each.users, each.ipcp) for each in world.take(Loop)] == [((asked, taken), lab)]


def test_a_layer_that_does_not_lead_there_after_all_is_told(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    world.register("x", far.id)
    taken = world.accept(world.server("x"))
    type(near).allocate = lambda self, token, *_: self.host.upper.unreachable(token, "no way", 0.0)  # type: ignore[method-assign]
    text = world.failed(world.alloc(world.program("client"), "x")).text
    assert text == "'x' is to be reached through its layer, and that does not know where it is: no way"
    assert world.answer(taken) is None


def test_a_patient_client_asks_the_layer_again(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    world.register("x", far.id)
    server = world.server("x")
    asked = world.alloc(world.program("client"), "x", 60.0, wait=True)
    first = world.accept(server)
    assert [each.ipcp for each in world.take(Attach)] == [far.id, near.id]
    assert (world.granted(first).side, world.granted(asked).side) == (1, 0)


def test_what_asks_can_choose_the_layers(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    toy = world.toy("m", "upper")
    world.register("x", far.id)
    server = world.server("x")
    for layers in ("upper", "lower"):
        world.accept(server)
        world.ask(toy, 1, "x", over=frozenset({layers}))
        world.engine()
        if layers == "upper":
            assert "no flow to 'x' over layer 'upper': no layer carries itself" in failure(toy, 1, FlowNameException)
    (flow,) = toy.holds.values()
    assert flow.ipcp == near.id


def test_an_acceptor_in_a_local_layer_will_do_for_what_is_to_be_over_that(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    lab = world.manage(CreateIpcp("lab", "local"))
    assert isinstance(lab, int)
    world.manage(BootstrapIpcp(lab, "lab"))
    world.register("x", lab)
    server = world.server("x")
    world.accept(server)
    world.ask(toy, 1, "x", over=frozenset({"field"}))
    failure(toy, 1, FlowNameException)
    world.ask(toy, 1, "x", over=frozenset({"lab", "field"}))
    world.engine()
    assert len(toy.holds) == 1


# --- cycles and ranks


def test_a_layer_is_not_put_over_itself(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    upper = world.toy("m", "upper")
    world.register("x", far.id)
    server = world.server("x")
    world.accept(server)
    world.connect(upper, 0, "x")
    assert upper.holds[1].ipcp == near.id
    # Those above are not even asked.
    beside = world.toy("beside", "upper")
    world.manage(CreateName("y", "round-robin"))
    beside.register("y", 0.0)
    world.irm.registry.names["y"].lasting = True
    world.ask(near, 1, "y", wait=1.0)
    assert beside.asked == {}
    world.advance(2.0)
    failure(near, 1, FlowTimeoutException)


def test_a_layer_does_not_carry_itself_by_another_member_either(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.register("x", far.id)
    world.accept(world.server("x"))
    world.connect(one, 0, "x")
    assert one.holds[1].ipcp == near.id
    # Neither their own layer nor, for one that is below, the one above.
    for number, (toy, layers) in enumerate(
        [(one, "upper"), (other, "upper"), (near, "upper"), (far, "upper")], start=1
    ):
        world.ask(toy, number, "y", over=frozenset({layers}))
        assert "no layer carries itself, so 'upper' was not asked" in failure(toy, number, FlowNameException)
    assert (one.asked, other.asked) == ({}, {})
    # Nor does it take what comes over itself.
    world.register("one", other.id)
    world.manage(BindProcess(one.id, "one"))
    asked = world.alloc(world.program("client"), "one")
    world.engine()
    assert "which is in the same layer or lies over it: no layer carries itself" in world.failed(asked).text


def test_two_questions_that_cross_make_no_cycle(world: LowerWorld) -> None:
    """Each was legal when it was asked."""
    one, one_far = world.toy("one", "first"), world.toy("one_far", "first")
    two, two_far = world.toy("two", "second"), world.toy("two_far", "second")
    world.register("x", one_far.id)
    world.register("y", two_far.id)
    # "one" asks over "two" and waits; then "two" asks over "one" and has its flow.
    servers = world.server("x"), world.server("y")
    world.ask(one, 0, "y", over=frozenset({"second"}))
    assert two.asked
    world.ask(two, 0, "x", over=frozenset({"first"}))
    for server in servers:
        world.accept(server)
    world.engine()
    logs = [*one.log, *two.log]
    assert sorted(what for what, *_ in logs) == ["failed", "up"]
    (error,) = (entry[2] for entry in logs if entry[0] == "failed")
    assert "no layer carries itself" in str(error)
    # What came of the one that was refused is over on the far side, too.
    world.advance(1.0)
    world.engine()
    flows = world.irm.flows.flows
    assert sorted(flows[end.flow_id].name for end in world.ends.values()) in (["x", "x"], ["y", "y"])


def test_an_accepted_flow_makes_no_cycle_either(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    upper = world.toy("m", "upper")
    world.register("x", far.id)
    world.accept(world.server("x"))
    world.connect(upper, 0, "x")
    # A peer of "upper" asks for "near", which carries it.
    world.toy("beside", "upper")
    world.register("near", upper.id)
    asked = world.alloc(world.program("client"), "near")
    world.engine()
    assert "no layer carries itself" in world.failed(asked).text
    assert near.log == []


def test_so_many_layers_lie_over_each_other_and_no_more(world: LowerWorld) -> None:
    toys = shelf(world, HIGHEST_RANK)
    assert [world.irm.flows.rank(toy.id) for toy in toys] == list(range(HIGHEST_RANK + 1))
    top = world.toy("top", "roof")
    world.ask(top, 0, f"server{HIGHEST_RANK}")
    world.engine()
    assert f"more than {HIGHEST_RANK} layers would lie over each other" in failure(top, 0, FlowRefusedException)
    # Neither does anything slip in below: a flow with nothing between makes the lowest one no lowest one any more.
    world.accept(world.server("plain"))
    world.ask(toys[0], 0, "plain")
    world.engine()
    assert "cannot have a flow over this node: more than 8 layers" in failure(toys[0], 0, FlowRefusedException)
    asked = world.alloc(world.program("client"), "near0")
    assert "cannot have a flow over this node: more than 8 layers" in world.failed(asked).text


def test_a_rank_falls_when_a_flow_ends(world: LowerWorld) -> None:
    *_, top = shelf(world, 2)
    assert world.irm.flows.rank(top.id) == 2
    world.release(top, next(iter(top.holds)))
    assert world.irm.flows.rank(top.id) == 2
    world.engine()
    assert world.irm.flows.rank(top.id) == 0


# --- destruction


def test_a_layer_that_is_destroyed_under_another_tells_it_once_and_first(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.register("other", far.id)
    fd = world.connect(one, 0, "other")
    world.take(object)
    one.reaction = lambda toy: toy.host.effects.append(StartProgram("routes are withdrawn", [], "now"))
    world.destroy(near)
    order = [type(effect) for effect in world.take(object)]
    assert order.index(StartProgram) < order.index(EndFlow) < order.index(CloseMember)
    assert one.log[1:] == [("down", fd, How.GONE)]
    world.engine()
    assert one.log[1:] == [("down", fd, How.GONE)]
    assert other.log[1:] == [("down", 2, How.GONE)] or other.log[1:] == [("down", 1, How.GONE)]
    assert world.irm.flows.flows == {}


def test_what_a_destroyed_one_holds_ends_last(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.register("other", far.id)
    world.connect(one, 0, "other")
    world.take(object)
    world.destroy(one)
    order = [type(effect) for effect in world.take(object)]
    assert order.index(CloseMember) < order.index(EndFlow)
    world.engine()
    assert len(one.log) == 1
    assert other.holds == {}
    assert world.irm.flows.flows == {}
    assert (near.ends, far.ends) == (set(), set())


def test_a_question_to_a_destroyed_layer_goes_to_the_next(world: LowerWorld) -> None:
    toy, near, again, *others = two_ways(world)
    assert (len(near.asked), len(again.asked)) == (1, 0)
    world.destroy(near)
    assert len(again.asked) == 1
    world.destroy(again)
    assert "the layer 'second' was destroyed" in failure(toy, 0, FlowDownException)
    for other in others:
        world.destroy(other)


def test_what_a_layer_said_before_it_was_left_is_nobodys(world: LowerWorld) -> None:
    toy, near, again, *_ = two_ways(world)
    (token,) = near.asked
    near.host.upper.refused(token, FlowRefusedException("no"), 0.0)
    near.host.upper.unreachable(token, "no", 0.0)
    world.destroy(near)
    assert toy.log == []
    assert list(again.asked) == [token]


def test_a_flow_that_is_being_made_fails_when_its_layer_is_destroyed(world: LowerWorld) -> None:
    near, far = world.toy("near", "lower"), world.toy("far", "lower")
    one, other = world.toy("one", "upper"), world.toy("other", "upper")
    world.register("other", far.id)
    world.ask(one, 0, "other")
    world.destroy(near)
    assert "ended before it could be used" in failure(one, 0, FlowDownException)
    world.engine()
    assert len(one.log) == 1
    assert one.holds == other.holds == {}
    assert world.irm.flows.flows == {}


def test_a_destroyed_one_serves_no_name_and_asks_for_nothing(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    world.manage(CreateName("x", "round-robin"))
    world.ask(toy, 0, "x")
    world.destroy(toy)
    world.advance(30.0)
    assert toy.log == []
    assert "nobody serves 'm' any more" in world.failed(world.alloc(world.program("client"), "m")).text
    toy.ask(1, "x", 0.0)
    world.settle()
    assert world.irm.deadline() is None
    world.manage(DestroyName("m"))


def test_a_node_that_ends_destroys_the_highest_first(world: LowerWorld) -> None:
    toys = shelf(world, 3)
    world.take(object)
    world.irm.shut_down(world.now)
    stopped = [effect.ipcp for effect in world.irm.take_effects() if isinstance(effect, CloseMember)]
    ranked = [ipcp for ipcp in stopped if ipcp in {toy.id for toy in toys}]
    assert ranked == [toy.id for toy in reversed(toys)]
    assert world.irm.ipcps == {}
    assert [toy.log[-1] for toy in toys if toy.log and toy.log[-1][0] == "down"] == []


# --- requests of the control socket


def test_types_that_cannot_enroll_or_connect_say_so(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    for request, text in (
        (EnrollIpcp(toy.id, "campus"), "'m' cannot enroll with 'campus': its type has no enrollment"),
        (ConnectIpcp(toy.id, "Management", "b", QoSSpec()), "'m' cannot be connected to 'b'"),
        (DisconnectIpcp(toy.id, "Management", "b"), "'m' cannot be disconnected from 'b'"),
    ):
        with pytest.raises(UnsupportedError, match=text):
            world.manage(request)
    assert world.irm._processes._tasks == {}


def test_a_destroyed_one_fails_what_it_has_not_answered(world: LowerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = world.toy("m", "upper")
    tasks: list[Task] = []
    monkeypatch.setattr(toy, "enroll", lambda member, task, now, **how: tasks.append(task))
    monkeypatch.setattr(toy, "connect", lambda component, name, qos, task, now, **how: tasks.append(task))
    monkeypatch.setattr(toy, "disconnect", lambda component, name, task, now: tasks.append(task))
    enrolling = world.send(world.manager, EnrollIpcp(toy.id, "campus"))
    connecting = world.send(world.manager, ConnectIpcp(toy.id, "Management", "b", QoSSpec()))
    gone = world.send(world.manager, DisconnectIpcp(toy.id, "Management", "b"))
    done = world.send(world.manager, EnrollIpcp(toy.id, "campus"))
    world.cancel(gone)
    tasks[3].done(toy.id)
    world.settle()
    assert world.answer(done) is not None
    assert world.answer(enrolling) is None
    world.manage(DestroyIpcp(toy.id))
    for token, kind in ((enrolling, IpcpEnrollError), (connecting, IpcpConnectError)):
        assert (world.failed(token).error, world.failed(token).text) == (kind.__name__, "IPC process 'm' was destroyed")
    assert world.answer(gone) is None


def test_the_names_of_neighbours_are_checked(world: LowerWorld) -> None:
    toy = world.toy("m", "upper")
    for request in (
        EnrollIpcp(toy.id, ""),
        ConnectIpcp(toy.id, "Management", "", QoSSpec()),
        DisconnectIpcp(toy.id, "Management", ""),
    ):
        with pytest.raises(OuroborosError, match="is empty"):
            world.manage(request)


def test_one_type_may_have_several_members_of_a_layer_and_others_not(world: LowerWorld) -> None:
    world.toy("near", "lower")
    world.toy("far", "lower")
    for name in ("a", "b"):
        ipcp = world.manage(CreateIpcp(name, "local"))
        assert isinstance(ipcp, int)
        if name == "a":
            world.manage(BootstrapIpcp(ipcp, "lab"))
        else:
            with pytest.raises(OuroborosError, match="is in local layer 'lab' already"):
                world.manage(BootstrapIpcp(ipcp, "lab"))


def test_what_comes_by_a_lower_flow_is_heard_before_there_is_a_layer(world: LowerWorld) -> None:
    toy = world.toy("m")
    world.toy("other", "upper")
    fd = world.connect(toy, 0, "other")
    heard: list[object] = []
    toy.received = lambda *what: heard.append(what)  # type: ignore[method-assign]
    world.irm.management_arrived(toy.id, b"hi", fd, 0.0)
    world.irm.management_arrived(toy.id, b"hi", ("192.0.2.1", 1), 0.0)
    world.irm.management_arrived(toy.id + 1, b"hi", fd, 0.0)
    assert heard == [(b"hi", fd, 0.0)]
