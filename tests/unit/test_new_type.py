"""A type of IPC process that the rest of the node has never heard of: one class, in one file."""

from __future__ import annotations

import pytest
from irm_world import World

from ouroboros.errors import FlowNameException, OuroborosError
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Attach
from ouroboros.layers.face import Arrival, End, How, Posts, Task
from ouroboros.oap import Session, Settings
from ouroboros.qos import QoSSpec
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.settings import TypeSettings
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    FlowEntry,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    ListNames,
    NameEntry,
    RegisterName,
)


class Tin(End, frozen=True, kw_only=True):
    """One end of a string."""

    string: int

    def peer(self) -> tuple[str, str]:
        return f"tin {self.string}", "node"


class StringIpcp(Ipcp):
    """Two tins and a string: whoever is asked says yes at once, but for "nobody"."""

    type = "string"
    preference = 7
    registers = True
    elsewhere = True

    def __init__(self, id: int, name: str, host: object) -> None:
        super().__init__(id, name, host)  # type: ignore[arg-type]
        self.names_here: set[str] = set()
        self.task: Task | None = None
        self.log: list[object] = []
        self.due: float | None = None

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        self._check_new()
        self.layer, self.state, self.task = layer, State.OPENING, task

    def opened(self, now: float) -> None:
        assert self.task is not None
        self.state = State.OPERATIONAL
        self.task.done(self.id)

    def register(self, name: str, now: float) -> None:
        self.names_here.add(name)

    def unregister(self, name: str, now: float) -> None:
        self.names_here.discard(name)

    def query(self, digest: bytes) -> bool:
        return any(self.digest(name) == digest for name in self.names_here)

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        upper = self.host.upper
        if name == "nobody":
            upper.unreachable(token, "pull the string", now)
            return
        upper.reachable(token)
        upper.answered(token, self.tin(token, qos), now)

    def cancel(self, token: int, now: float) -> None:
        self.log.append(("cancel", token))

    def why(self, token: int) -> str:
        return "the string is long"

    def give_back(self, end: End, now: float) -> None:
        self.log.append(("back", end))

    def accept(self, arrival: Arrival, now: float) -> End | None:
        return None if arrival.name == "shy" else self.tin(0, arrival.qos)

    def confirm(self, arrival: Arrival, now: float) -> None:
        self.log.append(("confirm", arrival))

    def refuse(self, arrival: Arrival, error: OuroborosError, now: float, end: End | None = None) -> None:
        self.log.append(("refuse", arrival, type(error)))

    def over(self, eid: int, how: How, now: float) -> None:
        self.log.append(("over", eid, how))

    def deadline(self) -> float | None:
        return self.due

    def timeout(self, now: float) -> None:
        self.log.append(("timeout", now))
        self.due = None

    def tin(self, string: int, qos: QoSSpec) -> Tin:
        return Tin(ipcp=self.id, qos=qos, session=Session(None, 0, bytearray()), string=string)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(IPCP_TYPES, "string", StringIpcp)
    return World()


@pytest.fixture
def string(world: World) -> StringIpcp:
    id = world.manage(CreateIpcp("s0", "string"))
    assert isinstance(id, int)
    booting = world.send(world.manager, BootstrapIpcp(id, "yard"))
    assert world.answer(booting) is None
    world.irm.member_opened(id, 0.0)
    world.collect()
    ipcp = world.irm.ipcps[id]
    assert isinstance(ipcp, StringIpcp)
    assert world.answer(booting) is not None
    return ipcp


def arrival(string: StringIpcp, name: str) -> Arrival:
    return Arrival(ipcp=string.id, name=name, qos=QoSSpec())


def come(world: World, string: StringIpcp, asked: Arrival) -> None:
    """A peer asks."""
    string.host.upper.requested(asked, world.now)
    world.irm.timeout(world.now)
    world.collect()


def test_it_is_listed_with_its_names(world: World, string: StringIpcp) -> None:
    world.manage(CreateName("x", "spillover"))
    world.manage(RegisterName("x", string.id))
    assert world.manage(ListIpcps()) == [IpcpEntry(string.id, "s0", "string", "operational", "yard", "SHA3_256")]
    assert world.manage(ListNames()) == [NameEntry("x", "spillover", [], [], ["yard"])]


def test_it_is_called_when_something_is_due_and_then_published_anew(world: World, string: StringIpcp) -> None:
    world.irm.take_touched()
    world.irm.timeout(1.0)
    string.due = 3.0
    # A verb would have said so.
    string.host.stirred.add(string.id)
    world.irm.timeout(2.5)
    assert (string.log, world.irm.take_touched(), world.irm.deadline()) == ([], set(), 3.0)
    world.irm.timeout(3.0)
    assert (string.log, world.irm.take_touched(), world.irm.deadline()) == ([("timeout", 3.0)], {string.id}, None)


def test_it_carries_a_flow_that_a_program_asks_for(world: World, string: StringIpcp) -> None:
    asked = world.alloc(world.program("client"), "moon")
    (attach,) = world.take(Attach)
    assert (attach.user, attach.side, attach.name) == (asked, 0, "moon")
    assert isinstance(attach.end, Tin)
    entry = world.manage(ListFlows())
    assert isinstance(entry, list)
    assert entry == [FlowEntry(1, "moon", entry[0].pids, QoSSpec(), layer="yard", address=f"tin {asked}", peer="node")]
    world.irm.flow_ended(string.id, 5, How.GONE, 0.0)
    assert string.log == [("over", 5, How.GONE)]


def test_what_would_help_is_said_by_the_layer_that_does_not_know_a_name(world: World, string: StringIpcp) -> None:
    failed = world.failed(world.alloc(world.program("client"), "nobody"))
    assert failed.error == FlowNameException.__name__
    assert failed.text.endswith("no layer knows where it is: pull the string")


def test_it_brings_a_flow_that_a_peer_asks_for(world: World, string: StringIpcp) -> None:
    taken = world.accept(world.server("door"))
    asked = arrival(string, "door")
    come(world, string, asked)
    (attach,) = world.take(Attach)
    assert (attach.user, attach.side) == (taken, 1)
    assert string.log == [("confirm", asked)]


def test_an_acceptor_goes_on_when_the_handshake_of_a_peer_fails(world: World, string: StringIpcp) -> None:
    taken = world.accept(world.server("shy"))
    come(world, string, arrival(string, "shy"))
    assert world.answer(taken) is None
    assert string.log == []


def test_a_request_that_is_withdrawn_meanwhile_is_nobodys(world: World, string: StringIpcp) -> None:
    asked = arrival(string, "nowhere")
    come(world, string, asked)
    assert string.log == [("refuse", asked, FlowNameException)]
    string.host.upper.withdrawn(asked)
    world.irm.timeout(world.now)


def test_an_answer_to_whoever_hung_up_is_given_back(world: World, string: StringIpcp) -> None:
    string.host.upper.answered(99, end := string.tin(3, QoSSpec()), 0.0)
    string.host.upper.refused(99, FlowNameException("late"), 0.0)
    string.host.upper.unreachable(99, "", 0.0)
    string.host.upper.reachable(99)
    world.irm.timeout(0.0)
    assert string.log == [("back", end)]


def test_a_bootstrap_that_is_not_waited_for_still_makes_a_member(world: World) -> None:
    id = world.manage(CreateIpcp("s0", "string"))
    assert isinstance(id, int)
    booting = world.send(world.manager, BootstrapIpcp(id, "yard"))
    world.cancel(booting)
    world.irm.member_opened(id, 0.0)
    world.collect()
    assert world.answer(booting) is None
    assert world.irm.ipcps[id].state == State.OPERATIONAL


def test_a_destroyed_one_hears_nothing_more(world: World, string: StringIpcp) -> None:
    world.manage(DestroyIpcp(string.id))
    world.irm.flow_ended(string.id, 5, How.GONE, 0.0)
    world.irm.member_opened(string.id, 0.0)
    assert string.log == []


# --- posted calls


def test_posted_calls_are_made_in_order_with_those_that_they_cause() -> None:
    posts, made = Posts(), list[int]()

    def call(number: int) -> None:
        made.append(number)
        if number < 3:
            posts.add(lambda: call(number + 10))

    for number in range(5):
        posts.add(lambda number=number: call(number))  # type: ignore[misc]
    assert made == []
    posts.settle()
    assert made == [0, 1, 2, 3, 4, 10, 11, 12]


def test_a_circle_of_posted_calls_is_found() -> None:
    posts = Posts()

    def again() -> None:
        posts.add(again)

    again()
    with pytest.raises(RuntimeError, match="did not come to an end"):
        posts.settle()


def test_a_task_is_answered_once_and_not_after_it_was_cancelled() -> None:
    posts, answers = Posts(), list[object]()
    task = Task(posts, answers.append)
    task.done(1)
    assert answers == []
    posts.settle()
    task.failed(FlowNameException("late"))
    cancelled = Task(posts, answers.append)
    cancelled.done(2)
    cancelled.cancel()
    posts.settle()
    assert answers == [1]
