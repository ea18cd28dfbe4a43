"""Any sequence of enrollments, connections, ends, silences and lies: members answer each task once, forget nothing that they
hold, hold nothing that they forgot, and what they know of each other agrees in the end."""

from __future__ import annotations

from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from members_world import Member, Outcome, Puppet, World

from ouroboros.layers.face import How
from ouroboros.layers.members.connections import GREETING_PATIENCE, PATIENCE
from ouroboros.layers.members.enrollment import PATIENCE as ENROLLMENT_PATIENCE
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT, MANAGEMENT
from ouroboros.layers.members.links import SILENT_PATIENCE
from ouroboros.qos import QOS_DATA, QOS_RAW
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import Cep, Ours
from ouroboros.wire.unicast.enrollment import Ack, Request

NAMES = ["a", "b", "n", "lies", "deaf", "nobody"]
MEMBERS = st.sampled_from(["a", "b", "n"])
COMPONENTS = st.sampled_from([MANAGEMENT, DATA_TRANSFER])
PLAIN = [
    Cep("Management", "LSP", 1, 0, 0x5DE9D31B),
    Cep("Data Transfer", "dtp", 1, 2, 0x5DE9D31B),
    Cep("Enrollment", "OEP", 1, 0, 0),
]
LIES = st.sampled_from(
    [
        *(each.encode() for each in PLAIN),
        *(Cep(each.component, each.protocol, 1, each.syntax, each.address, Ours(0, 1, 5)).encode() for each in PLAIN),
        Cep("Management", "LSP", 1, 0, 0x5DE9D31B, Ours(cep.LEAVING, 1, 5)).encode(),
        cep.UNKNOWN.encode(),
        Cep("", "", 0, 0, 0, Ours(cep.TAKEN, 1, 5)).encode(),
        Request(b"12345678").encode(),
        Ack(b"12345678").encode(),
        bytes(24),
    ]
) | st.binary(max_size=140)


class MembersMachine(RuleBasedStateMachine):
    """Two members, a process that is to become one, and a node that lies."""

    lossless: ClassVar[bool] = True

    @initialize(seed=st.integers(0, 2**32), tells_ends=st.booleans())
    def begin(self, seed: int, tells_ends: bool) -> None:
        self.world = World(seed, lossless=self.lossless, tells_ends=tells_ends)
        self.world.deaf.add("deaf")
        self.members = {
            "a": Member(self.world, "a", layer="net"),
            "b": Member(self.world, "b", layer="net"),
            "n": Member(self.world, "n"),
        }
        self.liar = Puppet(self.world, "lies")
        self.outcomes: list[tuple[float, Outcome]] = []
        self.lied = False

    def _expect(self, outcome: Outcome) -> None:
        self.outcomes.append((self.world.now, outcome))

    # --- what people do

    @rule(member=MEMBERS, component=COMPONENTS, name=st.sampled_from(NAMES), ordered=st.booleans())
    def connect(self, member: str, component: str, name: str, ordered: bool) -> None:
        self._expect(self.members[member].connect(component, name, QOS_DATA if ordered else QOS_RAW))

    @rule(member=MEMBERS, component=COMPONENTS, name=st.sampled_from(NAMES))
    def disconnect(self, member: str, component: str, name: str) -> None:
        outcome = self.members[member].disconnect(component, name)
        assert len(outcome.answers) == 1

    @precondition(lambda self: not self.members["n"].core.address)
    @rule(name=st.sampled_from(NAMES), early=st.booleans())
    def enroll(self, name: str, early: bool) -> None:
        newcomer = self.members["n"]
        if newcomer.enroll_task is None or newcomer.enroll_task.answers:
            newcomer.early = early
            self._expect(newcomer.enroll(name))

    @rule(member=MEMBERS)
    def close(self, member: str) -> None:
        self.members[member].enrollment.cancel(self.world.now)
        self.members[member].connections.close(self.world.now)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.03, 0.3, 1.0, 7.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    # --- what the layers below do

    @rule(member=MEMBERS, which=st.integers(0, 30), how=st.sampled_from(How))
    def cut(self, member: str, which: int, how: How) -> None:
        held = sorted(self.world.held(self.members[member]))
        if held:
            fd = held[which % len(held)]
            peer = self.world.ends[fd].peer
            self.world.cut(fd, how)
            if peer is not None:
                self.world.cut(peer.flow.fd, how)
            self.world.settle()

    @rule(member=MEMBERS, which=st.integers(0, 30), up=st.booleans())
    def silence(self, member: str, which: int, up: bool) -> None:
        connections = self.members[member].connections.rows()
        if connections:
            connection = connections[which % len(connections)]
            if connection.up is not up:
                self.members[member].connections.lower_state(connection.fd, up, self.world.now)
                self.world.settle()

    # --- lies

    @rule(name=MEMBERS, ordered=st.booleans())
    def liar_asks(self, name: str, ordered: bool) -> None:
        number = 2_000_000 + len(self.liar.flows)
        self.world.ask(self.liar, number, name, QOS_DATA if ordered else QOS_RAW, self.world.now + 1)
        self.world.run(2.1 * self.world.delay)

    @rule(which=st.integers(0, 30), data=LIES)
    def lie(self, which: int, data: bytes) -> None:
        held = sorted(self.world.held(self.liar))
        if held:
            self.lied = True
            self.world.send(held[which % len(held)], data)

    @rule(data=LIES)
    def liar_answers(self, data: bytes) -> None:
        self.liar.answer = lambda heard: data

    # --- what always holds

    @invariant()
    def nothing_is_lost_or_kept(self) -> None:
        for member in self.members.values():
            connections = member.connections
            known = {*connections._greetings, *connections._links._settling, *connections._links._connections}
            assert known == self.world.held(member), "held and not known, or known and not held"
            for component, recorder in ((MANAGEMENT, member.management), (DATA_TRANSFER, member.transfer)):
                assert list(recorder.connections.values()) == connections.of(component)
            handed = {fd for fd in known if self.world.ends[fd].stage == "handed"}
            assert handed == set(member.transfer.connections)

    @invariant()
    def tasks_are_answered_once_and_in_time(self) -> None:
        for begun, outcome in self.outcomes:
            assert len(outcome.answers) <= 1
            # An enrollment connects, and then asks.
            if self.world.now > begun + PATIENCE + 3 * GREETING_PATIENCE + ENROLLMENT_PATIENCE + 1:
                assert len(outcome.answers) == 1
        self.outcomes = [each for each in self.outcomes if not each[1].answers]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.run(2 * PATIENCE + SILENT_PATIENCE)
        self.tasks_are_answered_once_and_in_time()
        assert self.outcomes == []
        self.nothing_is_lost_or_kept()
        for member in self.members.values():
            assert not member.connections._asked
            assert not member.connections.of(ENROLLMENT)
            assert member.connections.deadline() is None
            assert member.enrollment.deadline() is None
        if self.world.tells_ends and self.lossless:
            self._ends_agree()

    def _ends_agree(self) -> None:
        """Both ends of each flow belong to the same component, and each knows whose the other is."""
        for member in self.members.values():
            for connection in member.connections.rows():
                end = self.world.ends[connection.fd].peer
                assert end is not None
                if not isinstance(end.owner, Member):
                    continue
                other = end.owner.connections._links.at(end.flow.fd)
                assert other is not None
                assert other.component == connection.component
                assert (other.side, other.peer) == (1 - connection.side, member.name)
                assert connection.ours
                assert connection.node == end.owner.core.node


class LossyMembersMachine(MembersMachine):
    """Packets are lost, doubled and reordered."""

    lossless = False


TestMembers = MembersMachine.TestCase
TestLossyMembers = LossyMembersMachine.TestCase
TestMembers.settings = TestLossyMembers.settings = settings(max_examples=60, stateful_step_count=40)
