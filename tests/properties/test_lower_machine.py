"""IPC processes over each other under any order of events: they ask, withdraw, let go, fail and are destroyed.

Meanwhile programs come and die, and the engine is late, or cannot make what it is asked for.

The toys object when they are told what cannot be, the engine when it is asked what cannot be (`lower_world.py`). The machine
compares the tables of the flow manager with what they know after each step.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lower_world import LowerWorld, ToyIpcp

from ouroboros.control.parties import HIGHEST_RANK, Process, Stage
from ouroboros.layers.effects import Member
from ouroboros.wire.control import BindProcess, CreateName, Dealloc, UnbindProcess

LAYERS = ("low", "middle", "high")
#: Names of toys and of programs.
NAMES = [f"{layer}{side}" for layer in LAYERS for side in "ab"] + ["program"]
NAME = st.sampled_from(NAMES)
#: Which one of those that there are.
PICK = st.integers(0, 30)
OVER = st.sampled_from([None, None, *(frozenset({layer}) for layer in LAYERS), frozenset(LAYERS[:2])])
WAIT = st.sampled_from([0.0, 1.0, 5.0, 20.0])
#: What a toy does when it is told something: nothing, mostly.
REACTION = st.sampled_from(["nothing", "nothing", "release", "ask", "withdraw"])


class LowerMachine(RuleBasedStateMachine):
    """Three layers of two toys each, all on one node and registered with each other, so that everything meets."""

    @initialize(limit=st.sampled_from([6, 100]))
    def start(self, limit: int) -> None:
        self.world = LowerWorld(flow_limit=limit)
        self.programs: list[Process] = []
        #: Requests of programs.
        self.tokens: list[int] = []
        self.last_number = 0
        for name in NAMES:
            self.world.manage(CreateName(name, "round-robin"))
        for layer in LAYERS:
            for side in "ab":
                self.found(layer, side)
        self.programs.append(self.world.server("program"))

    def found(self, layer: str, side: str) -> ToyIpcp:
        toy = self.world.toy(f"{layer}{side}", layer)
        # Flows to the one above go through this layer, in at the other one.
        above = dict(zip(LAYERS, (*LAYERS[1:], "program"), strict=True))[layer]
        toy.register(above if above == "program" else f"{above}{side}", 0.0)
        return toy

    @property
    def toys(self) -> list[ToyIpcp]:
        return [each for each in self.world.irm.ipcps.values() if isinstance(each, ToyIpcp)]

    def toy(self, number: int) -> ToyIpcp:
        return self.toys[number % len(self.toys)]

    def some_toys(self) -> bool:
        return bool(self.toys)

    # --- IPC processes

    @precondition(some_toys)
    @rule(number=PICK, name=NAME, wait=WAIT, over=OVER)
    def ask(self, number: int, name: str, wait: float, over: frozenset[str] | None) -> None:
        self.last_number += 1
        self.world.ask(self.toy(number), self.last_number, name, wait=wait, over=over)

    @precondition(some_toys)
    @rule(number=PICK, names=st.lists(NAME, min_size=2, max_size=4))
    def ask_at_once(self, number: int, names: list[str]) -> None:
        """Several, and the last one is withdrawn, before the flow manager does anything."""
        toy = self.toy(number)
        for name in names:
            self.last_number += 1
            toy.ask(self.last_number, name, self.world.now)
        self.world.withdraw(toy, self.last_number)

    @precondition(some_toys)
    @rule(number=PICK, which=PICK)
    def withdraw(self, number: int, which: int) -> None:
        toy = self.toy(number)
        if toy.waits:
            self.world.withdraw(toy, sorted(toy.waits)[which % len(toy.waits)])

    @precondition(some_toys)
    @rule(number=PICK, which=PICK)
    def release(self, number: int, which: int) -> None:
        toy = self.toy(number)
        if toy.holds:
            self.world.release(toy, sorted(toy.holds)[which % len(toy.holds)])

    @precondition(some_toys)
    @rule(number=PICK, reaction=REACTION, name=NAME)
    def will_react(self, number: int, reaction: str, name: str) -> None:
        """In the middle of what it is told."""

        def react(toy: ToyIpcp) -> None:
            toy.reaction = lambda _: None
            if reaction == "release" and toy.holds:
                toy.release(min(toy.holds), self.world.now)
            elif reaction == "withdraw" and toy.waits:
                toy.withdraw(min(toy.waits), self.world.now)
            elif reaction == "ask":
                self.last_number += 1
                toy.ask(self.last_number, name, self.world.now)

        self.toy(number).reaction = react

    @precondition(some_toys)
    @rule(number=PICK, name=NAME, bind=st.booleans())
    def bind(self, number: int, name: str, bind: bool) -> None:
        request = BindProcess if bind else UnbindProcess
        self.world.send(self.world.manager, request(self.toy(number).id, name))

    @precondition(some_toys)
    @rule(number=PICK)
    def destroy(self, number: int) -> None:
        self.world.destroy(self.toy(number))

    @precondition(some_toys)
    @rule(number=PICK)
    def give_up(self, number: int) -> None:
        self.toy(number).gave_up("out of luck", self.world.now)

    @rule(layer=st.sampled_from(LAYERS), side=st.sampled_from("ab"))
    def make(self, layer: str, side: str) -> None:
        if all(toy.name != f"{layer}{side}" for toy in self.toys):
            self.found(layer, side)

    # --- programs

    @precondition(lambda self: len(self.programs) < 4)
    @rule()
    def arrive(self) -> None:
        self.programs.append(self.world.server("program"))

    @precondition(lambda self: self.programs)
    @rule(number=PICK, name=NAME)
    def alloc(self, number: int, name: str) -> None:
        self.tokens.append(self.world.alloc(self.programs[number % len(self.programs)], name, 5.0))

    @precondition(lambda self: self.programs)
    @rule(number=PICK)
    def accept(self, number: int) -> None:
        self.tokens.append(self.world.accept(self.programs[number % len(self.programs)], timeout=5.0))

    @precondition(lambda self: self.programs)
    @rule(number=PICK)
    def dealloc(self, number: int) -> None:
        program = self.programs[number % len(self.programs)]
        if program.ends:
            self.world.send(program, Dealloc(*min(program.ends)))

    @precondition(lambda self: self.programs)
    @rule(number=PICK)
    def die(self, number: int) -> None:
        self.world.kill(self.programs.pop(number % len(self.programs)))

    # --- the engine, and time

    @precondition(lambda self: self.world.due)
    @rule(which=PICK)
    def engine_tells(self, which: int) -> None:
        self.world.due.pop(which % len(self.world.due))()

    @rule()
    def engine_tells_all(self) -> None:
        self.world.engine()

    @rule(which=PICK)
    def engine_fails(self, which: int) -> None:
        ends = [end for end in self.world.ends.values() if isinstance(end.user, Member) and not end.open]
        if ends:
            end = ends[which % len(ends)]
            self.world.fail_end(end.flow_id, end.side)

    @rule(seconds=st.sampled_from([0.0, 1.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    # --- what always holds

    @invariant()
    def each_end_has_one_owner(self) -> None:
        lower, registry = self.world.irm.flows.lower, self.world.irm.registry
        toys = {toy.id: toy for toy in self.world.kind.yard.members.values()}
        held = {fd: end.holder.pid for fd, end in lower._held.items()}
        assert held == {fd: toy.id for toy in toys.values() for fd in toy.holds}
        # What the flow manager has of IPC processes, the engine has, too, and the table.
        known = {key: Member(end.holder.pid, end.fd) for key, end in lower._ends.items()}
        assert known == {key: end.user for key, end in self.world.ends.items() if isinstance(end.user, Member)}
        owners = {
            (flow.id, side): owner
            for flow in self.world.irm.flows.flows.values()
            for side, owner in enumerate(flow.owners)
            if owner is not None
        }
        for key, end in lower._ends.items():
            assert owners.pop(key) is end.holder
        for (flow_id, side), owner in owners.items():
            assert isinstance(owner, Process)
            assert (flow_id, side) in owner.ends
        for fd, end in lower._held.items():
            assert end.fd == fd
            assert end.stage is Stage.OPEN
        assert all(party.pid in toys for party in registry.members.values())

    @invariant()
    def questions_without_an_answer_are_those_that_toys_wait_for(self) -> None:
        for member in self.world.irm.registry.members.values():
            toy = self.world.irm.ipcps[member.pid]
            assert isinstance(toy, ToyIpcp)
            assert set(member.questions) == toy.waits
            for question in member.questions.values():
                assert not question.over
                # It waits for an acceptor or a layer, or for the engine.
                waiting = self.world.irm.flows._waiting.asking(question.token)
                assert (waiting is None) == (question.end is not None)

    @invariant()
    def no_layer_lies_over_itself(self) -> None:
        below = dict[int, set[int]]()
        plain = set[int]()
        for end in self.world.ends.values():
            # The engine has nothing any more of one that is destroyed, although its ends may not be over.
            if isinstance(end.user, Member) and end.user.ipcp in self.world.irm.ipcps:
                below.setdefault(end.user.ipcp, set())
                if end.carrier is None:
                    plain.add(end.user.ipcp)
                else:
                    below[end.user.ipcp].add(end.carrier)

        def rank(ipcp: int, path: tuple[int, ...]) -> int:
            assert ipcp not in path, "a cycle"
            ranks = [1 + rank(each, (*path, ipcp)) for each in below.get(ipcp, ())]
            return max([*ranks, 1 if ipcp in plain else 0])

        for ipcp in below:
            height = rank(ipcp, ())
            assert height <= HIGHEST_RANK
            assert height == self.world.irm.flows.rank(ipcp)

    @invariant()
    def what_is_accepted_is_counted(self) -> None:
        lower = self.world.irm.flows.lower
        for member in self.world.irm.registry.members.values():
            held = [end for end in lower._ends.values() if end.holder is member]
            assert member.accepted == sum(end.question is None for end in held)

    @invariant()
    def nobody_waits_for_one_that_is_free(self) -> None:
        for name in self.world.irm.registry.names.values():
            assert not (name.allocators and name.acceptors), name.text

    def teardown(self) -> None:
        """When all is said, nothing is left: no question, no request, no flow."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.engine()
        world.advance(60.0)
        world.engine()
        assert [toy.waits for toy in self.toys if toy.waits] == []
        assert [token for token in self.tokens if world.answer(token) is None and self.waits(token)] == []
        for program in self.programs:
            world.kill(program)
        world.irm.shut_down(world.now)
        world.collect()
        world.engine()
        assert world.irm.flows.flows == {}
        assert world.irm.flows.lower._ends == {}
        assert world.irm.flows.lower._held == {}
        assert world.ends == {}
        assert world.irm.flows._waiting._waiting == {}
        assert world.irm.deadline() is None
        assert world.irm.registry.members == {}

    def waits(self, token: int) -> bool:
        return self.world.irm.flows._waiting.get(token) is not None


LowerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestLower = LowerMachine.TestCase
