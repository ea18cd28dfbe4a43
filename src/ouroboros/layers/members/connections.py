"""Connections of a member: lower flows that began with a greeting of both sides (CEP). Source: `unicast-control.md` 2, 4.

::

    connect ─▶ Lower.ask ─▶ lower_up ─▶ greeting ─▶ answer ──┐ ours: at once       ┌─▶ component.connected
    a peer  ───────────────▶ lower_up ─▶ greeting ◀─ answered ┘ prototype: 20 ms ──┘   Listen or HandOver

Any number of lower flows is greeted at once; a peer that says nothing delays nobody. Two members may have several
connections of one component, when both asked at the same time: each is as good as the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from ouroboros.errors import FlowTimeoutException, IpcpConnectError, OuroborosError, ProtocolError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.bucket import WARNINGS, Lines
from ouroboros.layers.effects import Listen, written_address
from ouroboros.layers.face import How, LowerFlow, Size, Task
from ouroboros.layers.members.core import NOWHERE, Core
from ouroboros.layers.members.greeting import (
    DATA_TRANSFER,
    RAW_ONLY,
    Objection,
    components,
    greet,
    is_placed,
    is_raw,
    objection,
    refuse,
)
from ouroboros.layers.members.links import MOST_EARLY, Links
from ouroboros.layers.members.links import Component as Component
from ouroboros.layers.members.links import Connection as Connection
from ouroboros.qos import QoSSpec
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import Cep

#: For how long a person waits for a connection, seconds, and one lower flow is waited for. A member of the prototype now and
#: then never answers a request (`unicast-control.md` 12.4), but the next.
PATIENCE = 20.0
FLOW_PATIENCE = 6.0
#: Flows that are tried for one connection: a greeting may be lost, and cannot be repeated (`unicast-control.md` 10, N45).
ATTEMPTS = 3
#: For how long a greeting is waited for, as members of the prototype do.
GREETING_PATIENCE = 1.0
#: For how long a flow that was asked for waits for our own address.
ADDRESS_PATIENCE = 5.0
#: Lower flows whose peer has not greeted yet. One more, and the oldest is let go: a greeting comes within a round trip.
MOST_STRANGERS = 256
#: Connections of a component with members that tell no address, as those of the prototype in a broadcast layer: nothing says
#: which of them lead to the same one.
MOST_NAMELESS = 64
#: A node of ours with our address that asks again, so many seconds after it was told and no later than that, keeps it; of so
#: many it is remembered that they were told.
TWIN_KEEPS = 1.0, 60.0
MOST_TWINS = 16


@dataclass(slots=True, eq=False, kw_only=True)
class _Asked:
    """A connection that is asked for. `number`: of the question to the layers below; None when it was answered. `until`:
    when it fails. `opened`: as of `connect`."""

    component: str
    name: str
    qos: QoSSpec
    over: frozenset[str] | None
    since: float
    until: float
    tasks: list[Task]
    opened: Callable[[LowerFlow, float], bytes]
    number: int | None = None
    attempts: int = 0


@dataclass(slots=True, eq=False)
class _Greeting:
    """A lower flow whose peer has not greeted yet. `asked`: None for one that we accepted. `held`: we have not greeted
    either, for want of an address. `heard`: the greeting of the peer. `early`: what overtook it."""

    flow: LowerFlow
    asked: _Asked | None
    held: bool = False
    heard: bytes = b""
    early: list[bytes] = field(default_factory=list)


class Connections:
    """All lower flows of a member."""

    def __init__(
        self, core: Core, components: Mapping[str, Component], *, collided: Callable[[float], None] | None = None
    ) -> None:
        """`collided`: our address is that of another member, as that one says, and it is for us to take another and to call
        `moved`."""
        self._core = core
        self._components = components
        self._collided = collided
        self._asked: list[_Asked] = []
        self._greetings: dict[int, _Greeting] = {}
        #: Nodes of ours with our address that were told, and when.
        self._twins: dict[int, float] = {}
        self._times = Agenda()
        self._links = Links(core, components, self._times, self._moves)
        self._warnings = Lines(*WARNINGS, core.warn)
        self._last_number = 0

    # --- what people and the other parts ask

    @property
    def rank(self) -> int:
        """Layers below the layer, itself counted, as far as its neighbours know."""
        return self._links.rank

    def rows(self) -> list[Connection]:
        return list(self._links)

    def leads_to(self, name: str, connection: Connection) -> bool:
        """Whether a connection is with the member of that name."""
        return self._links.leads_to(name, connection)

    def of(self, component: str) -> list[Connection]:
        """Those of a component that it was told of and that are not over."""
        return self._links.of(component)

    def connect(
        self,
        component: str,
        name: str,
        qos: QoSSpec,
        task: Task,
        now: float,
        *,
        over: frozenset[str] | None = None,
        patience: float = PATIENCE,
        opened: Callable[[LowerFlow, float], bytes] = lambda flow, now: b"",
    ) -> None:
        """Connect a component with that of the member to which the name leads, unless it is. `over`: layers that may carry
        it, None for all. `patience`: seconds. `opened`: called with each lower flow that is about to be greeted; returns the
        id of a request to enroll, or nothing.

        Before the member has an address, the flow is asked for, and the greeting waits for `opened`.
        """
        if component not in (known := components(self._core)):
            task.failed(self._failure(name, f"there is no component {component!r}; there are {', '.join(known)}"))
        elif self._links.is_connected(component, name, over):
            task.done()
        elif (asked := next(iter(self._pending(component, name, {over})), None)) is not None:
            asked.tasks.append(task)
        elif component == DATA_TRANSFER and not is_raw(qos) and not self._links.is_ours(name):
            task.failed(self._failure(name, RAW_ONLY))
        else:
            asked = _Asked(
                component=component,
                name=name,
                qos=qos,
                over=over,
                since=now,
                until=now + patience,
                tasks=[task],
                opened=opened,
            )
            self._asked.append(asked)
            self._ask(asked, now)

    def disconnect(self, component: str, name: str, task: Task, now: float) -> None:
        """End the connections of a component with a neighbour, whoever asked for them. `name`: what was asked for, the name
        of the neighbour if it is ours, or its address as it is written. A neighbour of ours is told that it was meant."""
        found = [each for each in self._links if each.component == component and self._links.leads_to(name, each)]
        pending = self._pending(component, name)
        for each in found:
            self._links.say_leaving(each)
            each.left = True
            self._links.end(each, now)
        for asked in pending:
            self._withdraw(asked, f"{self._core.name!r} was told to disconnect from it", now)
        if found or pending:
            task.done()
        else:
            others = ", ".join(sorted({each.peer or each.name for each in self._links if each.component == component}))
            task.failed(
                IpcpConnectError(
                    f"IPC process {self._core.name!r} has no {component} connection with {name!r}; it has with: "
                    f"{others or 'nobody'}"
                )
            )

    def opened(self, now: float) -> None:
        """The member has an address: greet where that waited for it."""
        for greeting in [each for each in self._greetings.values() if each.held]:
            assert greeting.asked is not None
            self._greet(greeting, greeting.asked, now)

    def moved(self, now: float) -> None:
        """The member has another address: its connections are over, and what is asked for is asked for once more."""
        for fd, greeting in list(self._greetings.items()):
            asked = greeting.asked
            if asked is not None and is_placed(asked.component):
                self._drop(fd, now)
                self._ask(asked, now)
        self._links.end_all([each for each in self._links if is_placed(each.component)], now)

    def close(self, now: float) -> None:
        """Let go of all flows. It can begin again."""
        while self._asked:
            # Whoever hears of one may give up the others.
            self._withdraw(self._asked[0], "it is over", now)
        for fd in list(self._greetings):
            self._drop(fd, now)
        self._links.end_all(list(self._links), now)

    def release(self, connection: Connection, now: float) -> None:
        """A component has no use for a connection any more. It is not told of its end."""
        self._links.end(connection, now, tell=False)

    # --- what the layers below tell

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        asked = next((each for each in self._asked if each.number == number), None) if number is not None else None
        if (number is not None and asked is None) or (number is None and self._core.address == NOWHERE):
            self._core.host.lower.release(flow.fd, now)
            return
        greeting = self._greetings[flow.fd] = _Greeting(flow, asked)
        if asked is None:
            self._times.set(flow.fd, now + GREETING_PATIENCE)
            self._bound_strangers(now)
            return
        asked.number = None
        if is_placed(asked.component) and self._core.address == NOWHERE:
            greeting.held = True
            self._times.set(flow.fd, now + ADDRESS_PATIENCE)
        else:
            self._greet(greeting, asked, now)

    def lower_failed(self, number: int, error: OuroborosError, now: float) -> None:
        if (asked := next((each for each in self._asked if each.number == number), None)) is not None:
            asked.number = None
            if isinstance(error, FlowTimeoutException) and now < asked.until:
                self._ask(asked, now)
            else:
                self._fail(asked, error)

    def lower_down(self, fd: int, how: How, now: float) -> None:
        if (greeting := self._greetings.pop(fd, None)) is not None:
            self._times.cancel(fd)
            if greeting.asked is not None:
                self._again(greeting, greeting.asked, "the flow ended before it answered our greeting", now)
        elif (connection := self._links.at(fd)) is not None:
            self._links.end(connection, now, release=False)

    def lower_state(self, fd: int, up: bool, now: float) -> None:
        self._links.state(fd, up, now)

    def lower_resized(self, fd: int, size: Size) -> None:
        """Who wants to know the size of a connection looks at it after that."""
        if (connection := self._links.at(fd)) is not None:
            connection.size = size
        elif (greeting := self._greetings.get(fd)) is not None:
            greeting.flow = msgspec.structs.replace(greeting.flow, size=size)

    def message(self, fd: int, data: bytes, now: float) -> None:
        """A packet of a lower flow. Bytes of a stranger."""
        if (greeting := self._greetings.get(fd)) is not None:
            self._greeted(greeting, data, now)
        else:
            self._links.message(fd, data, now)

    def word(self, fd: int, data: bytes, now: float) -> None:
        """A message that came among the packets of a lower flow in a broadcast layer. Bytes of a stranger."""
        self._links.word(fd, data, now)

    # --- time

    def deadline(self) -> float | None:
        return earliest(self._times.next(), self._warnings.deadline())

    def timeout(self, now: float) -> None:
        for fd in self._times.due(now):
            if not self._links.timeout(fd, now):
                self._missed(self._greetings[fd], now)
        self._warnings.timeout(now)

    def _missed(self, greeting: _Greeting, now: float) -> None:
        self._core.counters["greetings_missed"] += 1
        self._drop(greeting.flow.fd, now)
        if greeting.asked is not None:
            self._again(greeting, greeting.asked, "it did not answer our greeting", now)

    # --- asking

    def _ask(self, asked: _Asked, now: float) -> None:
        self._last_number += 1
        asked.number = self._last_number
        asked.attempts += 1
        until = min(now + FLOW_PATIENCE, asked.until)
        self._core.host.lower.ask(self._core.id, asked.number, asked.name, asked.qos, now, until=until, over=asked.over)

    def _again(self, greeting: _Greeting, asked: _Asked, why: str, now: float) -> None:
        """A flow led to nothing."""
        error = self._failure(asked.name, "this IPC process got no address" if greeting.held else why)
        self._try_again(asked, error, now)

    def _try_again(self, asked: _Asked, error: OuroborosError, now: float) -> None:
        if asked.attempts < ATTEMPTS and now < asked.until:
            self._ask(asked, now)
        else:
            self._fail(asked, error)

    def _fail(self, asked: _Asked, error: OuroborosError) -> None:
        self._asked.remove(asked)
        for task in asked.tasks:
            task.failed(error)

    def _withdraw(self, asked: _Asked, why: str, now: float) -> None:
        if asked.number is not None:
            self._core.host.lower.withdraw(self._core.id, asked.number, now)
        for fd in [fd for fd, each in self._greetings.items() if each.asked is asked]:
            self._drop(fd, now)
        self._fail(asked, self._failure(asked.name, why))

    def _failure(self, name: str, why: str) -> IpcpConnectError:
        return IpcpConnectError(f"IPC process {self._core.name!r} cannot be connected to {name!r}: {why}")

    # --- greeting

    def _greet(self, greeting: _Greeting, asked: _Asked, now: float) -> None:
        greeting.held = False
        self._times.set(greeting.flow.fd, now + GREETING_PATIENCE)
        said = greet(self._core, asked.component, self.rank, request=asked.opened(greeting.flow, now))
        self._core.message(greeting.flow.fd, said.encode())

    def _greeted(self, greeting: _Greeting, data: bytes, now: float) -> None:
        try:
            said = cep.decode(data)
        except ProtocolError:
            if greeting.asked is None:
                self._core.counters["greetings_bad"] += 1
                self._drop(greeting.flow.fd, now)
            else:
                self._overtaken(greeting, data)
            return
        greeting.heard = data
        if greeting.asked is None:
            self._asked_for(greeting, said, now)
        else:
            self._answered(greeting, greeting.asked, said, now)

    def _overtaken(self, greeting: _Greeting, data: bytes) -> None:
        """What a neighbour sent behind its greeting may come before it."""
        if len(greeting.early) < MOST_EARLY:
            greeting.early.append(data)
        # Only the first packet is told unasked.
        self._core.host.effects.append(Listen(self._core.id, greeting.flow.fd))

    def _answered(self, greeting: _Greeting, asked: _Asked, said: Cep, now: float) -> None:
        fd = greeting.flow.fd
        found = objection(self._core, asked.component, said, self.rank)
        if found is not None:
            self._drop(fd, now)
            if found.flag & cep.TAKEN and self._moves(now):
                self._try_again(asked, self._failure(asked.name, found.why), now)
            else:
                self._fail(asked, self._failure(asked.name, found.why))
            return
        if (twin := self._twin_of_neighbour(said)) is not None:
            # It has greeted, and does not know yet; one of the prototype never does.
            if twin.flag:
                self._core.message(fd, refuse(self._core, self.rank, twin.flag).encode())
            self._drop(fd, now)
            self._fail(asked, self._failure(asked.name, twin.why))
            return
        self._asked.remove(asked)
        if said.address != NOWHERE:
            self._links.learn(asked.name, said.address, 0 if said.ours is None else said.ours.node)
        if said.ours is not None and self._links.is_old(asked.component, said.address, asked.since, asked.over):
            # Connected under another name. The other side can say the same only of flows that are older still, so that
            # never both let go.
            self._drop(fd, now)
        else:
            self._take(greeting, asked.component, said, now)
        for task in asked.tasks:
            task.done()

    def _asked_for(self, greeting: _Greeting, said: Cep, now: float) -> None:
        fd = greeting.flow.fd
        if said.component not in self._components:
            self._refuse(greeting, Objection(f"it wants an unknown component {said.component!r}"), now)
            return
        found = objection(self._core, said.component, said, self.rank) or self._own_objection(greeting.flow, said)
        if found is not None:
            self._refuse(greeting, found, now)
            if found.flag & cep.TAKEN and said.address == self._core.address and self._keeps(said, now):
                self._moves(now)
            return
        self._core.message(fd, greet(self._core, said.component, self.rank).encode())
        self._take(greeting, said.component, said, now)
        self._links.bound_alike(said.component, said.address, now)

    def _own_objection(self, flow: LowerFlow, said: Cep) -> Objection | None:
        """What only we find, that have the other connections."""
        if said.component == DATA_TRANSFER and said.ours is None and not is_raw(flow.qos):
            return Objection(RAW_ONLY)
        if is_placed(said.component) and (why := self._core.may_connect(flow.peer)):
            return Objection(why, cep.STRANGE)
        return self._too_many_nameless(said) or self._twin_of_neighbour(said)

    def _too_many_nameless(self, said: Cep) -> Objection | None:
        if said.address != NOWHERE or not is_placed(said.component):
            return None
        alike = [each for each in self._links if each.component == said.component and each.address == NOWHERE]
        if len(alike) < MOST_NAMELESS:
            return None
        return Objection(f"there are {MOST_NAMELESS} connections with members that do not say who they are")

    def _twin_of_neighbour(self, said: Cep) -> Objection | None:
        """What is to be said to one that has the address of another neighbour."""
        if said.address == NOWHERE:
            return None
        # One of the prototype tells nothing of itself, so it may be there twice.
        node = None if said.ours is None else said.ours.node
        neighbours = (each for each in self._links.told() if each.ours and each.up)
        if any(each.address == said.address and each.node != node for each in neighbours):
            why = f"its address {written_address(said.address)} is that of a neighbour"
            return Objection(why, 0 if node is None else cep.TAKEN)
        return None

    def _refuse(self, greeting: _Greeting, found: Objection, now: float) -> None:
        self._core.counters["greetings_refused"] += 1
        text = f"IPC process {self._core.name!r} refused a connection on {greeting.flow.name!r}: {found.why}"
        # A neighbour can come on any number of flows: what it cannot choose is the layer below.
        self._warnings.add(text, now, greeting.flow.ipcp)
        self._core.message(greeting.flow.fd, refuse(self._core, self.rank, found.flag).encode())
        self._drop(greeting.flow.fd, now)

    def _keeps(self, said: Cep, now: float) -> bool:
        """Whether another one has our address and is not going to take another: it is of the prototype, or has just been
        told and asks again, as when it has moved too often."""
        if said.ours is None:
            return True
        least, most = TWIN_KEEPS
        told = self._twins.get(said.ours.node, float("-inf"))
        if now - told <= most:
            return now - told >= least
        self._twins.pop(said.ours.node, None)
        if len(self._twins) >= MOST_TWINS:
            del self._twins[next(iter(self._twins))]
        self._twins[said.ours.node] = now
        return False

    def _moves(self, now: float) -> bool:
        """Our address is that of another member. Whether we have another one now."""
        before = self._core.address
        if self._collided is not None:
            self._collided(now)
        return self._core.address != before

    # --- connections

    def _take(self, greeting: _Greeting, component: str, said: Cep, now: float) -> None:
        """Both sides have greeted."""
        flow, ours = greeting.flow, said.ours
        del self._greetings[flow.fd]
        self._times.cancel(flow.fd)
        connection = Connection(
            fd=flow.fd,
            component=component,
            name=flow.name if greeting.asked is None else greeting.asked.name,
            side=flow.side,
            address=said.address,
            ours=ours is not None,
            rank=0 if ours is None else ours.rank,
            size=flow.size,
            since=now,
            peer="" if ours is None else ours.name,
            node=0 if ours is None else ours.node,
            greeting=greeting.heard,
            request=b"" if ours is None else ours.request,
            proven=flow.peer,
            layer=flow.layer,
        )
        self._links.add(connection, greeting.early, now)

    def _drop(self, fd: int, now: float) -> None:
        """Let go of a flow that is no connection."""
        del self._greetings[fd]
        self._times.cancel(fd)
        self._core.host.lower.release(fd, now)

    # --- finding

    def _pending(
        self, component: str, name: str, over: Collection[frozenset[str] | None] | None = None
    ) -> list[_Asked]:
        """What is asked for. `over`: and just over these layers."""
        alike = (each for each in self._asked if each.component == component and each.name == name)
        return [each for each in alike if over is None or each.over in over]

    # --- bounds

    def _bound_strangers(self, now: float) -> None:
        strangers = [each.flow for each in self._greetings.values() if each.asked is None]
        if len(strangers) > MOST_STRANGERS:
            # Of the layer that brought most, so that a flood in one is none in the others.
            (carrier, _), *_ = Counter(each.ipcp for each in strangers).most_common(1)
            oldest = next(each.fd for each in strangers if each.ipcp == carrier)
            self._core.counters["greetings_evicted"] += 1
            self._drop(oldest, now)
