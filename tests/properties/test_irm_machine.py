"""The IRM under any order of events: programs come and die, ask, accept, hang up and let go, while time passes.

The machine keeps an account of its own of what is owed to whom and compares after each step.
"""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from irm_world import OWNER, World

from ouroboros.control.flows import ALLOC_TIMEOUT
from ouroboros.control.names import POLICIES
from ouroboros.control.parties import Process
from ouroboros.control.shares import Kind, Share, default_shares
from ouroboros.control.waiting import LONGEST_PAUSE
from ouroboros.errors import NodeLimitError
from ouroboros.layers.effects import Connect, Effect, Join, MarkDead, Release, Reply, StartProgram
from ouroboros.qos import QOS_DATA, QoSSpec
from ouroboros.wire.control import (
    Accept,
    Alloc,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyName,
    Failed,
    ListFlows,
    ListIpcps,
    ListNames,
    Request,
    UnbindProcess,
    UnbindProgram,
)
from ouroboros.wire.control import Join as JoinRequest

FLOW_LIMIT = 5
LAYER = "lab"
#: Of users other than the owner; small enough to be reached.
SHARES = default_shares(100, 50) | {
    Kind.PROCESSES: Share(2, 2),
    Kind.REQUESTS: Share(1, 1),
    Kind.FLOWS: Share(2, 2),
}

NAMES = st.sampled_from(["a", "b", "a", "b", "c"])
PROGRAMS = st.sampled_from(["a", "p"])
TIMEOUTS = st.sampled_from([None, None, 2.5, 30.0, 1.0, 0.0, -1.0])
USERS = st.sampled_from([OWNER, OWNER, OWNER, OWNER + 1])
QOS = st.sampled_from([QoSSpec(), QOS_DATA, QoSSpec(), QOS_DATA, QoSSpec(cypher_s=1)])
MANAGEMENT: st.SearchStrategy[Request] = st.one_of(
    st.builds(CreateName, NAMES, st.sampled_from(POLICIES)),
    st.builds(DestroyName, NAMES),
    st.builds(BindProgram, PROGRAMS.map("/bin/{}".format), NAMES, st.booleans(), st.just([])),
    st.builds(UnbindProgram, PROGRAMS, NAMES),
    st.sampled_from([ListNames(), ListFlows(), ListIpcps()]),
)
#: Which one of those that there are.
PICK = st.integers(0, 20)


class Account(World):
    """A world that books each request, answer and flow, and objects when an effect does not fit."""

    def __init__(self, *, embedded: bool) -> None:
        #: Requests without an answer: process, request, deadline.
        self.owed: dict[int, tuple[Process, Request, float | None]] = {}
        #: The ends of each flow that somebody holds.
        self.held: dict[int, dict[int, Process]] = {}
        #: Names for which a program was started that did not end.
        self.children: list[str] = []
        self.now = 0.0
        super().__init__(embedded=embedded, flow_limit=FLOW_LIMIT, shares=SHARES)

    def send(self, process: Process, request: Request, uid: int | None = None) -> int:
        timeout: float | None = 0.0
        if isinstance(request, Alloc | Accept):
            timeout = request.timeout
            if timeout is None and isinstance(request, Alloc):
                timeout = ALLOC_TIMEOUT
        if isinstance(request, Dealloc):
            self.let_go(process, request.flow_id, request.side)
        else:
            self.owed[self._last_token + 1] = (process, request, None if timeout is None else self.now + timeout)
        return super().send(process, request, uid)

    def let_go(self, process: Process, flow_id: int, side: int) -> None:
        if self.held.get(flow_id, {}).get(side) is process:
            del self.held[flow_id][side]

    def kill(self, process: Process) -> None:
        for flow_id, side in self.held_by(process):
            self.let_go(process, flow_id, side)
        self.cancel_all(process)
        super().kill(process)

    def cancel_all(self, process: Process) -> None:
        """Its requests are owed no answer."""
        for token in [token for token, (asker, _, _) in self.owed.items() if asker is process]:
            del self.owed[token]

    def held_by(self, process: Process) -> list[tuple[int, int]]:
        return [(flow, side) for flow, ends in self.held.items() for side, each in ends.items() if each is process]

    def collect(self) -> list[Effect]:
        effects = super().collect()
        for effect in effects:
            self.book(effect)
        return effects

    def book(self, effect: Effect) -> None:
        match effect:
            case Reply(token=token, message=message):
                _, _, deadline = self.owed.pop(token)
                if isinstance(message, Failed) and message.error == "FlowTimeoutException":
                    assert deadline is not None
                    assert deadline <= self.now, "too early"
                if isinstance(message, Failed) and message.error == "NodeLimitError":
                    assert f"user {OWNER}" not in message.text, "the owner has no share"
            case Connect():
                self.book_connection(effect)
            case Join(flow_id=flow_id, token=token):
                asker, request, _ = self.owed.pop(token)
                assert isinstance(request, JoinRequest)
                self.book_flow(flow_id, {0: asker})
            case MarkDead(flow_id=flow_id, side=side):
                assert side not in self.held[flow_id], "it is alive"
            case Release(flow_id=flow_id):
                # A flow that is not there, because it was never made or is released already, is a KeyError.
                assert self.held.pop(flow_id) == {}, "somebody holds an end"
            case StartProgram(name=name):
                self.children.append(name)

    def book_connection(self, effect: Connect) -> None:
        client, asked, _ = self.owed.pop(effect.allocator)
        server, took, _ = self.owed.pop(effect.acceptor)
        assert isinstance(asked, Alloc)
        assert isinstance(took, Accept)
        assert asked.name in server.names
        assert took.name in (None, asked.name), "the server did not accept for that name"
        assert effect.name == asked.name
        # The least cipher has a key of 128 bits.
        strength = 128 if asked.qos.cypher_s else 0
        assert msgspec.structs.replace(asked.qos, cypher_s=strength) == effect.qos
        assert (effect.sessions is not None) == bool(strength)
        self.book_flow(effect.flow_id, {0: client, 1: server})

    def book_flow(self, flow_id: int, ends: dict[int, Process]) -> None:
        assert flow_id == next(each for each in range(1, FLOW_LIMIT + 1) if each not in self.held), (
            "not the lowest free"
        )
        self.held[flow_id] = ends


def takes(request: Request, name: str) -> bool:
    return isinstance(request, Accept) and request.name in (None, name)


class IrmMachine(RuleBasedStateMachine):
    """Random life on a node with few names and a low limit of flows, so that everything meets."""

    @initialize(embedded=st.booleans(), policy=st.sampled_from(POLICIES))
    def start(self, embedded: bool, policy: str) -> None:
        self.world = Account(embedded=embedded)
        self.processes: list[Process] = []
        self.known: set[str] = set()
        #: Names that somebody has accepted for.
        self.served: set[str] = set()
        self.world.manage(CreateName("a", policy))
        ipcp = self.world.manage(CreateIpcp("b0", "broadcast"))
        assert isinstance(ipcp, int)
        self.world.manage(BootstrapIpcp(ipcp, LAYER))
        self.world.manage(BindProgram("/bin/a", "a", False, []))
        self.world.manage(BindProgram("/bin/p", "b", True, []))
        for program in ("a", "p", "client"):
            self.arrive(program, OWNER)

    def pick(self, number: int) -> Process:
        return self.processes[number % len(self.processes)]

    def some(self) -> bool:
        return bool(self.processes)

    # --- programs

    @precondition(lambda self: len(self.processes) < 5)
    @rule(program=PROGRAMS, uid=USERS)
    def arrive(self, program: str, uid: int) -> None:
        try:
            self.processes.append(self.world.program(program, uid))
        except NodeLimitError:
            assert uid != OWNER

    @precondition(some)
    @rule(number=PICK)
    def die(self, number: int) -> None:
        process = self.pick(number)
        self.processes.remove(process)
        self.world.kill(process)

    @precondition(lambda self: self.world.children)
    @rule(number=PICK, served=st.booleans(), took_along=st.none() | PICK)
    def started_program_ends(self, number: int, served: bool, took_along: int | None) -> None:
        if took_along is not None and self.processes:
            self.die(took_along)
        name = self.world.children.pop(number % len(self.world.children))
        self.world.irm.program_ended(name, "p", "ended", served, self.world.now)
        self.world.collect()

    # --- flows

    @precondition(some)
    @rule(number=PICK, name=NAMES, timeout=TIMEOUTS, qos=QOS, wait=st.booleans())
    def alloc(self, number: int, name: str, timeout: float | None, qos: QoSSpec, wait: bool) -> None:
        self.world.alloc(self.pick(number), name, timeout, qos, wait=wait)

    @precondition(some)
    @rule(number=PICK, name=st.none() | NAMES, timeout=TIMEOUTS)
    def accept(self, number: int, name: str | None, timeout: float | None) -> None:
        self.world.accept(self.pick(number), name, timeout)

    @precondition(some)
    @rule(number=PICK, layer=st.sampled_from([LAYER, "nix"]), in_order=st.booleans())
    def join(self, number: int, layer: str, in_order: bool) -> None:
        token = self.world.send(self.pick(number), JoinRequest(layer, QoSSpec(in_order=in_order), None))
        assert self.world.answer(token) is not None

    @precondition(lambda self: self.world.owed)
    @rule(number=PICK)
    def hang_up(self, number: int) -> None:
        token = list(self.world.owed)[number % len(self.world.owed)]
        del self.world.owed[token]
        self.world.cancel(token)

    @precondition(some)
    @rule(number=PICK, flow_id=st.integers(0, FLOW_LIMIT + 1), side=st.integers(-1, 2))
    def dealloc(self, number: int, flow_id: int, side: int) -> None:
        self.world.send(self.pick(number), Dealloc(flow_id, side))

    @precondition(some)
    @rule(number=PICK, which=PICK)
    def dealloc_own(self, number: int, which: int) -> None:
        process = self.pick(number)
        if held := self.world.held_by(process):
            self.world.send(process, Dealloc(*held[which % len(held)]))

    @rule(flow_id=st.integers(1, FLOW_LIMIT), side=st.integers(0, 1))
    def abandon(self, flow_id: int, side: int) -> None:
        self.world.held.get(flow_id, {}).pop(side, None)
        self.world.irm.flows.abandon(flow_id, side, self.world.now)
        self.world.collect()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)
        late = [token for token, (_, _, end) in self.world.owed.items() if end is not None and end <= self.world.now]
        assert late == []

    # --- management

    @rule(request=MANAGEMENT)
    def manage(self, request: Request) -> None:
        """Well-formed or not: it is answered at once."""
        if isinstance(request, DestroyName):
            self.known.discard(request.name)
            self.served.discard(request.name)
        token = self.world.send(self.world.manager, request)
        assert self.world.answer(token) is not None

    @precondition(some)
    @rule(number=PICK, name=NAMES, bind=st.booleans())
    def bind_process(self, number: int, name: str, bind: bool) -> None:
        pid = self.pick(number).pid
        self.manage(BindProcess(pid, name) if bind else UnbindProcess(pid, name))

    # --- what always holds

    def waiting_for(self, name: str) -> tuple[list[int], list[int]]:
        """Tokens of the clients that wait for the name and of those who wait to accept for it."""
        owed = self.world.owed.items()
        return (
            [token for token, (_, request, _) in owed if isinstance(request, Alloc) and request.name == name],
            [token for token, (process, request, _) in owed if takes(request, name) and name in process.names],
        )

    @invariant()
    def only_requests_for_flows_wait(self) -> None:
        assert all(isinstance(request, Alloc | Accept) for _, request, _ in self.world.owed.values())

    @invariant()
    def nobody_waits_for_somebody_who_waits_for_him(self) -> None:
        for name in self.world.irm.registry.names:
            clients, servers = self.waiting_for(name)
            assert not (clients and servers)

    @invariant()
    def whoever_accepts_for_a_name_is_bound_to_it(self) -> None:
        for process, request, _ in self.world.owed.values():
            assert not isinstance(request, Accept) or request.name in (None, *process.names)

    @invariant()
    def nobody_waits_for_a_name_that_is_not_there(self) -> None:
        for _, request, _ in self.world.owed.values():
            if isinstance(request, Alloc):
                assert request.wait or request.name in self.world.irm.registry.names

    @invariant()
    def nobody_who_has_not_said_so_waits_for_a_name_that_is_not_served_any_more(self) -> None:
        registry = self.world.irm.registry
        for text, name in registry.names.items():
            served = any(registry.processes[pid].accepts & {None, text} for pid in name.processes)
            if served:
                self.served.add(text)
            elif text in self.served and not (name.expected or name.autostart() or text in self.world.children):
                waiting = [self.world.owed[token][1] for token in self.waiting_for(text)[0]]
                assert all(isinstance(request, Alloc) and request.wait for request in waiting)

    @invariant()
    def whoever_waits_for_a_program_on_demand_has_a_server_or_a_program_under_way(self) -> None:
        for text, name in self.world.irm.registry.names.items():
            if self.waiting_for(text)[0] and name.autostart() is not None:
                processes = self.world.irm.registry.processes
                serves = any(processes[pid].accepts & {None, text} for pid in name.processes)
                assert serves or text in self.world.children

    @invariant()
    def the_next_deadline_is_the_earliest_of_those_who_wait(self) -> None:
        ends = [end for _, _, end in self.world.owed.values() if end is not None]
        deadline = self.world.irm.deadline()
        if any(isinstance(request, Alloc) and request.wait for _, request, _ in self.world.owed.values()):
            # They ask layers again and again.
            assert deadline is not None
            assert self.world.now < deadline <= min(ends)
            assert deadline <= self.world.now + LONGEST_PAUSE
        else:
            assert deadline == min(ends, default=None)

    @invariant()
    def each_flow_is_held_by_a_live_process_and_listed(self) -> None:
        assert {entry.id for entry in self.world.irm.flows.entries()} == set(self.world.held)
        alive = [self.world.manager, *self.processes]
        for ends in self.world.held.values():
            assert ends
            assert all(process in alive for process in ends.values())
        for process in alive:
            assert process.ends == set(self.world.held_by(process))

    @invariant()
    def what_users_have_is_counted_and_no_more_than_their_share(self) -> None:
        irm, shares = self.world.irm, self.world.irm.shares
        alloc = Counter(process.uid for process, request, _ in self.world.owed.values() if isinstance(request, Alloc))
        ends = Counter[int]()
        for flow_id, sides in self.world.held.items():
            for process in sides.values():
                ends[process.uid] += 1 if irm.flows.flows[flow_id].ipcp is None else 2
        processes = Counter(process.uid for process in irm.registry.processes.values())
        for kind, counted in ((Kind.REQUESTS, alloc), (Kind.FLOWS, ends), (Kind.PROCESSES, processes)):
            assert shares.held(kind, OWNER) == 0
            assert shares.held(kind, OWNER + 1) == counted[OWNER + 1] <= SHARES[kind].user

    @invariant()
    def members_of_the_layer_are_the_joined_flows(self) -> None:
        joined = sum(entry.pids[1] == 0 for entry in self.world.irm.flows.entries())
        assert sum(ipcp.entry().members for ipcp in self.world.irm.ipcps.values()) == joined

    @invariant()
    def bindings_agree_from_both_sides(self) -> None:
        registry = self.world.irm.registry
        for process in registry.processes.values():
            assert process.names == {text for text, name in registry.names.items() if process.pid in name.processes}

    @invariant()
    def names_stay_until_they_are_destroyed(self) -> None:
        names = set(self.world.irm.registry.names)
        assert self.known <= names
        self.known = names

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        names = set(self.world.irm.registry.names)
        while self.processes:
            self.die(0)
        assert self.world.owed == {}
        assert self.world.held == {}
        assert self.world.irm.flows.entries() == []
        assert self.world.irm.deadline() is None
        assert self.world.irm.registry.wanted == {}
        assert set(self.world.irm.registry.names) == names


IrmMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestIrm = IrmMachine.TestCase
