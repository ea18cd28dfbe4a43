"""Members of a unicast layer in virtual time, without routing: connections, enrollment and addresses, over lower flows that
are pairs of queues.

A packet takes `delay`; what is not `lossless` loses, doubles and delays packets by chance. The lower flows are as those of a
node: their first packet is told, and those that follow wait for `Listen` or `HandOver`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ouroboros.errors import FlowNameException, FlowTimeoutException
from ouroboros.layers.effects import Effect, HandOver, Listen, SendMessage, TakeBack, Warn
from ouroboros.layers.face import Host, How, LowerFlow, Posts, Size, Task
from ouroboros.layers.members.addresses import Address
from ouroboros.layers.members.connections import Component, Connection, Connections
from ouroboros.layers.members.core import Core
from ouroboros.layers.members.enrollment import Enrollment
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT, MANAGEMENT
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.wire.unicast.enrollment import Configuration

#: Wall clock at the time 0, nanoseconds.
WALL = 1_795_849_163 * 10**9
#: Packets that the engine keeps for a flow.
KEPT = 32


@dataclass(eq=False)
class End:
    """One end of a lower flow. `says`: packets that were sent by it, with their times."""

    owner: Node
    flow: LowerFlow
    peer: End | None = None
    stage: str = "first"
    kept: deque[bytes] = field(default_factory=deque)
    says: list[tuple[float, bytes]] = field(default_factory=list)
    held: bool = True


class Node:
    """Whatever has lower flows."""

    name: str

    def up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        raise NotImplementedError

    def failed(self, number: int, error: Any, now: float) -> None:
        raise NotImplementedError

    def down(self, fd: int, how: How, now: float) -> None:
        """A flow ended."""

    def message(self, fd: int, data: bytes, now: float) -> None:
        raise NotImplementedError

    def run(self, now: float) -> None:
        """Carry out what it wants done."""

    def deadline(self) -> float | None:
        return None

    def timeout(self, now: float) -> None:
        """Do what is due."""


class World:
    """Time, lower flows, and all nodes."""

    def __init__(self, seed: int = 1, *, delay: float = 0.01, lossless: bool = True, tells_ends: bool = True) -> None:
        self.random = random.Random(seed)
        self.delay = delay
        self.lossless = lossless
        self.tells_ends = tells_ends
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.ends: dict[int, End] = {}
        #: Names that lead to nobody who answers.
        self.deaf: set[str] = set()
        #: Who nodes prove to be.
        self.certified: dict[str, str] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._fds = itertools.count(1)
        self._asked: dict[tuple[str, int], bool] = {}

    # --- time

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            due = [(when, node) for node in self.nodes.values() if (when := node.deadline()) is not None]
            when, node = min(due, key=lambda each: each[0], default=(float("inf"), None))
            if self._heap and self._heap[0][0] <= min(when, until):
                self.now, _, call = heapq.heappop(self._heap)
                call()
            elif node is not None and when <= until:
                assert when >= self.now - 1e-9, f"{node.name} wants to be called in the past"
                self.now = max(self.now, when)
                node.timeout(self.now)
            else:
                break
            self.settle()
        self.now = until

    def settle(self) -> None:
        for node in list(self.nodes.values()):
            node.run(self.now)

    # --- lower flows

    def ask(self, asker: Node, number: int, name: str, qos: QoSSpec, until: float) -> None:
        self._asked[asker.name, number] = True

        def answer(call: Callable[[], None]) -> Callable[[], None]:
            def unless_withdrawn() -> None:
                if self._asked.pop((asker.name, number), False):
                    call()

            return unless_withdrawn

        if name in self.deaf:
            error = FlowTimeoutException(f"no answer about {name!r}")
            self.at(until, answer(lambda: asker.failed(number, error, self.now)))
        elif (target := self.nodes.get(name)) is None:
            unknown = FlowNameException(f"nobody offers {name!r}")
            self.at(self.now + 2 * self.delay, answer(lambda: asker.failed(number, unknown, self.now)))
        else:
            self.at(self.now + self.delay, lambda: self._accept(asker, number, target, name, qos, answer))

    def _accept(self, asker: Node, number: int, target: Node, name: str, qos: QoSSpec, answer: Any) -> None:
        proven = self.certified.get(asker.name, "")
        here, there = self._end(asker, target, name, qos, 0), self._end(target, asker, name, qos, 1, proven)
        here.peer, there.peer = there, here
        here.held = False

        def answered() -> None:
            here.held = True
            if self._asked.pop((asker.name, number), False):
                asker.up(number, here.flow, self.now)
            else:
                self.release(here.flow.fd)

        target.up(None, there.flow, self.now)
        self.at(self.now + self.delay, answered)

    def _end(self, owner: Node, other: Node, name: str, qos: QoSSpec, side: int, peer: str = "") -> End:
        fd, ours, size = next(self._fds), isinstance(other, Member), Size(1400, 1400)
        flow = LowerFlow(fd=fd, name=name, qos=qos, side=side, size=size, ipcp=1, ours=ours, peer=peer)
        end = self.ends[fd] = End(owner, flow)
        return end

    def withdraw(self, asker: Node, number: int) -> None:
        self._asked.pop((asker.name, number), None)

    def release(self, fd: int) -> None:
        end = self.ends[fd]
        assert end.held, "released twice"
        assert end.stage != "handed", "the engine still forwards by it"
        end.held = False
        if self.tells_ends and end.peer is not None:
            peer = end.peer
            # Behind all that was sent before.
            self.at(self.now + 4 * self.delay, lambda: self.cut(peer.flow.fd, How.GONE))

    def cut(self, fd: int, how: How = How.BROKEN) -> None:
        """The flow ends at this side."""
        end = self.ends[fd]
        if end.held:
            end.held = False
            end.owner.down(fd, how, self.now)

    def send(self, fd: int, data: bytes) -> None:
        end = self.ends[fd]
        assert end.held, "sent by a flow that was released"
        end.says.append((self.now, data))
        if end.peer is None:
            return
        if not self.lossless and self.random.random() < 0.1:
            return
        copies = 2 if not self.lossless and self.random.random() < 0.1 else 1
        for _ in range(copies):
            extra = self.random.random() * 3 * self.delay if not self.lossless else 0.0
            self.at(self.now + self.delay + extra, lambda peer=end.peer: self.arrive(peer, data))  # type: ignore[misc]

    def arrive(self, end: End, data: bytes) -> None:
        """A packet is there."""
        if not end.held:
            return
        if end.stage == "first":
            end.stage = "keep"
        elif end.stage == "keep":
            if len(end.kept) < KEPT:
                end.kept.append(data)
            return
        elif end.stage in ("handed", "taken"):
            return
        end.owner.message(end.flow.fd, data, self.now)

    def listen(self, fd: int) -> None:
        end = self.ends[fd]
        assert end.held
        assert end.stage != "handed"
        end.stage = "listen"
        while end.kept and end.held:
            data = end.kept.popleft()
            self.at(self.now, lambda data=data: self.arrive(end, data))  # type: ignore[misc]

    def hand_over(self, fd: int) -> None:
        assert self.ends[fd].held
        self.ends[fd].stage = "handed"

    def held(self, node: Node) -> set[int]:
        """Flows that a node has to let go."""
        return {fd for fd, end in self.ends.items() if end.owner is node and end.held}


class Recorder:
    """A component that only says what it was told."""

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.events: list[tuple[str, Connection]] = []
        self.packets: list[bytes] = []

    def connected(self, connection: Connection, now: float) -> None:
        assert connection.fd not in self.connections
        self.connections[connection.fd] = connection
        self.events.append(("connected", connection))

    def disconnected(self, connection: Connection, now: float) -> None:
        assert self.connections.pop(connection.fd) is connection
        self.events.append(("disconnected", connection))

    def heard(self, connection: Connection, data: bytes, now: float) -> None:
        assert self.connections[connection.fd] is connection
        self.packets.append(data)

    def state(self, connection: Connection, up: bool, now: float) -> None:
        assert connection.up is up
        self.events.append(("up" if up else "down", connection))


class Outcome:
    """Of a task."""

    def __init__(self, posts: Posts) -> None:
        self.answers: list[object] = []
        self.task = Task(posts, self.answers.append)

    @property
    def done(self) -> bool:
        return self.answers == [None]

    @property
    def error(self) -> str:
        (answer,) = self.answers
        assert isinstance(answer, Exception), answer
        return str(answer)


class Member(Node):
    """A member, or one to be."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        layer: str = "",
        seed: int | None = None,
        clock: float = 0.0,
        memory: dict[str, bytes] | None = None,
        broadcast: bool = False,
    ) -> None:
        """`layer`: of which it is the first member. `clock`: how much its clock is ahead, seconds. `broadcast`: its layer is
        of that type."""
        self.world, self.name = world, name
        self.effects: list[Effect] = []
        self.posts = Posts()
        host = Host(
            effects=self.effects,
            random=random.Random(name if seed is None else seed),
            wall=lambda: WALL + round((world.now + clock) * 10**9),
            oap=None,  # type: ignore[arg-type]
            upper=None,  # type: ignore[arg-type]
            lower=self,
            memory={} if memory is None else memory,
        )
        self.core = Core(1, name, host, broadcast=broadcast)
        self.address = Address(host, name)
        self.core.node = self.address.node
        self.collisions = 0
        #: What is connected with the member that it enrolls with, and early.
        self.early = False
        self.configurations: list[Configuration] = []
        self.enroll_task: Outcome | None = None
        self.enrolled_at = 0.0
        self.early_tasks: list[Outcome] = []
        self.management, self.transfer = Recorder(), Recorder()
        self.enrollment = Enrollment(self.core, self._enrolled, prepare=self._prepare)
        self.components: dict[str, Component] = {
            ENROLLMENT: self.enrollment,
            MANAGEMENT: self.management,
            DATA_TRANSFER: self.transfer,
        }
        self.connections = Connections(self.core, self.components, collided=self._collided)
        self.enrollment.connections = self.connections
        self.warnings: list[str] = []
        if layer:
            self.core.layer = layer
            self.core.address = self.address.choose(layer)
        world.nodes[name] = self

    # --- what people want

    def connect(self, component: str, name: str, qos: QoSSpec = QOS_RAW) -> Outcome:
        outcome = Outcome(self.posts)
        self.connections.connect(component, name, qos, outcome.task, self.world.now)
        self.world.settle()
        return outcome

    def disconnect(self, component: str, name: str) -> Outcome:
        outcome = Outcome(self.posts)
        self.connections.disconnect(component, name, outcome.task, self.world.now)
        self.world.settle()
        return outcome

    def enroll(self, member: str) -> Outcome:
        outcome = self.enroll_task = Outcome(self.posts)
        self.enrollment.enroll(member, outcome.task, self.world.now)
        self.world.settle()
        return outcome

    def _prepare(self, member: str, now: float) -> None:
        if self.early:
            for component in (MANAGEMENT, DATA_TRANSFER):
                outcome = Outcome(self.posts)
                self.early_tasks.append(outcome)
                self.connections.connect(component, member, QOS_RAW, outcome.task, now)

    def _enrolled(self, configuration: Configuration, now: float) -> None:
        self.configurations.append(configuration)
        self.core.layer = configuration.layer
        self.core.address = self.address.choose(configuration.layer)
        self.enrolled_at = now
        self.connections.opened(now)
        assert self.enroll_task is not None
        self.enroll_task.task.done()

    def _collided(self, now: float) -> None:
        self.collisions += 1
        self.core.address = self.address.renew()
        self.connections.moved(now)

    # --- Lower

    def ask(
        self, ipcp: int, number: int, name: str, qos: QoSSpec, now: float, *, until: float, over: object = None
    ) -> None:
        self.world.ask(self, number, name, qos, until)

    def withdraw(self, ipcp: int, number: int, now: float) -> None:
        self.world.withdraw(self, number)

    def rank(self, ipcp: int) -> int:
        return self.core.rank

    def probe(self, ipcp: int, fd: int, steps: Any, wait: float, answer: Any, now: float) -> None:
        raise AssertionError("no part of these members asks for that")

    def release(self, fd: int, now: float) -> None:
        # What it said before leaves before.
        self.run(now)
        self.world.release(fd)

    # --- Node

    def up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        self.connections.lower_up(number, flow, now)

    def failed(self, number: int, error: Any, now: float) -> None:
        self.connections.lower_failed(number, error, now)

    def down(self, fd: int, how: How, now: float) -> None:
        self.connections.lower_down(fd, how, now)

    def message(self, fd: int, data: bytes, now: float) -> None:
        self.connections.message(fd, data, now)

    def run(self, now: float) -> None:
        effects, self.effects[:] = list(self.effects), []
        for effect in effects:
            match effect:
                case SendMessage(fd=fd, data=data):
                    self.world.send(fd, data)
                case Listen(fd=fd):
                    self.world.listen(fd)
                case HandOver(fd=fd):
                    self.world.hand_over(fd)
                case TakeBack(fd=fd):
                    assert self.world.ends[fd].stage == "handed"
                    self.world.ends[fd].stage = "taken"
                case Warn(text=text):
                    self.warnings.append(text)
        self.posts.settle()

    def deadline(self) -> float | None:
        return min(
            (each for each in (self.connections.deadline(), self.enrollment.deadline()) if each is not None),
            default=None,
        )

    def timeout(self, now: float) -> None:
        self.connections.timeout(now)
        self.enrollment.timeout(now)


class Puppet(Node):
    """A node that says what the test says: a member of the prototype, or a stranger.

    `answers`: what it sends when its flow is accepted or the first packet comes.
    """

    def __init__(self, world: World, name: str, answer: Callable[[bytes], bytes | None] = lambda data: None) -> None:
        self.world, self.name, self.answer = world, name, answer
        self.flows: list[LowerFlow] = []
        self.heard: list[tuple[float, int, bytes]] = []
        self.gone: list[int] = []
        world.nodes[name] = self

    def up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        self.flows.append(flow)
        self.world.listen(flow.fd)

    def failed(self, number: int, error: Any, now: float) -> None:
        raise AssertionError(error)

    def down(self, fd: int, how: How, now: float) -> None:
        self.gone.append(fd)

    def message(self, fd: int, data: bytes, now: float) -> None:
        self.heard.append((now, fd, data))
        answer = self.answer(data)
        if answer is not None:
            self.world.send(fd, answer)

    def flow_to(self, name: str, qos: QoSSpec = QOS_RAW) -> int:
        """Ask for a flow, and wait for it. Returns its number."""
        before = len(self.flows)
        self.world.ask(self, before + 1_000_000, name, qos, self.world.now + 10)
        self.world.run(2.1 * self.world.delay)
        return self.flows[before].fd
