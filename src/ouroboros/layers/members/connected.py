"""An IPC process with other members in its layer: it enrolls with one, and is connected to some by flows of layers below.
What unicast and broadcast layers have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

import msgspec

from ouroboros.errors import IpcpBootstrapError, IpcpEnrollError, OuroborosError
from ouroboros.layers.agenda import earliest, soonest
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.effects import CloseMember, written_address
from ouroboros.layers.face import Connected, How, LowerFlow, Size, Task
from ouroboros.layers.members.addresses import Address
from ouroboros.layers.members.connections import Component, Connection, Connections
from ouroboros.layers.members.core import KEEPALIVE, MISSED, Core, Then
from ouroboros.layers.members.enrollment import ENROLL_PATIENCE, Enrollment
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT
from ouroboros.layers.members.upkeep import FIRST_PAUSE, SECOND_PAUSE, SILENT_PAUSE, Upkeep, Wish
from ouroboros.qos import DEFAULT_PEER_TIMEOUT, QOS_RAW, QoSSpec
from ouroboros.settings import NOBODY
from ouroboros.wire.control import ConnectionEntry
from ouroboros.wire.unicast.enrollment import Configuration

#: New addresses a second, and at once: another member can always say that it has ours.
MOVES = (1 / 3600, 1.0)


class _Timed(Protocol):
    def deadline(self) -> float | None: ...

    def timeout(self, now: float) -> None: ...


class ConnectedIpcp(Ipcp):
    """See the module. A type calls `_begin_connections` when it is made, and says what it is to be in a layer."""

    accepts_flows = True
    #: What it connects with a neighbour, in this order.
    components: ClassVar[tuple[str, ...]] = ()

    core: Core

    def _begin_connections(self, core: Core) -> None:
        self.core = core
        self._address = Address(self.host, self.name)
        core.node = self._address.node
        self.enrollment = Enrollment(core, self._enrolled, prepare=self._prepare)
        self._components: dict[str, Component] = {ENROLLMENT: self.enrollment}
        self.connections = Connections(core, self._components, collided=self._move)
        self.enrollment.connections = self.connections
        self.upkeep = Upkeep(self._connect)
        self._parts: list[_Timed] = [self.connections, self.enrollment, self.upkeep]
        #: The enrollment that goes on.
        self._enrolling: Task | None = None
        #: It is to be connected to the member that it enrolls with.
        self._connects = False
        #: Over these layers, each of them; empty: over any.
        self._over: tuple[str, ...] = ()
        self._is_closed = False
        self._moves = Bucket(*MOVES)

    @property
    def takes_newcomers(self) -> bool:
        return self.state == State.OPERATIONAL and self.core.config.enroll != (NOBODY,)

    # --- for the types

    def _open(self) -> None:
        """Ask the engine for its part in the layer."""
        raise NotImplementedError

    def _become(self, told: Configuration, now: float) -> None:
        """A member has said what the layer is: be in it, with an address."""
        raise NotImplementedError

    def _move(self, now: float) -> None:
        """Another member has our address: take another one."""
        raise NotImplementedError

    def _may_move(self, now: float) -> bool:
        if self._moves.take(now):
            return True
        self.core.counters["moves_refused"] += 1
        return False

    def _connected(self, connection: Connection) -> None:
        """There is a connection of a component that was added."""

    def _add_component(self, name: str, component: Component) -> None:
        self._components[name] = _Watched(component, self)

    def _close_connections(self, now: float) -> None:
        """It leaves the layer."""
        if self._enrolling is not None:
            self._enrolling.failed(IpcpEnrollError(f"IPC process {self.name!r} was destroyed"))
            self._enrolling = None
        self._is_closed = True
        self.connections.close(now)

    @property
    def _is_member(self) -> bool:
        return bool(self.core.address)

    # --- enrollment

    def enroll(
        self,
        member: str,
        task: Task,
        now: float,
        *,
        connect: bool = False,
        timeout: float | None = None,
        over: tuple[str, ...] = (),
    ) -> None:
        self._check_new()
        self.state, self._enrolling, self.enrolled_with = State.OPENING, task, member
        self._connects, self._over = connect, over
        # Lower flows have to lead to something in the engine.
        self._open()
        patience = ENROLL_PATIENCE if timeout is None else timeout
        layers = frozenset(over) if over else None
        self.enrollment.enroll(member, Then(self._enrollment_over), now, over=layers, patience=patience)

    def abandoned(self, task: Task, now: float) -> None:
        if task is self._enrolling:
            self.enrollment.cancel(now)

    def _prepare(self, member: str, now: float) -> None:
        for over in (self._over or ("",)) if self._connects else ():
            for component in self.components:
                self._connect_and_keep(Wish(component, member, over), QOS_RAW, Then(lambda outcome: None), now)

    def _check_new(self) -> None:
        if self._enrolling is not None:
            raise IpcpBootstrapError(f"IPC process {self.name!r} is being enrolled: wait for the end of that")
        super()._check_new()

    def _enrolled(self, told: Configuration, now: float) -> None:
        task, self._enrolling = self._enrolling, None
        assert task is not None
        self._become(told, now)
        self.state = State.OPERATIONAL
        self.connections.opened(now)
        task.done(self.id)

    def _enrollment_over(self, outcome: object) -> None:
        if isinstance(outcome, OuroborosError) and self._enrolling is not None:
            task, self._enrolling = self._enrolling, None
            self.state, self.enrolled_with = State.BOOT, ""
            self.host.effects.append(CloseMember(self.id))
            task.failed(outcome)

    # --- connections

    def connect(self, component: str, name: str, qos: QoSSpec, task: Task, now: float, *, over: str = "") -> None:
        self._check_operational()
        self._connect_and_keep(Wish(component, name, over), qos, task, now)

    def _connect_and_keep(self, wish: Wish, qos: QoSSpec, task: Task, now: float) -> None:
        def answer(outcome: object) -> None:
            if isinstance(outcome, OuroborosError):
                task.failed(outcome)
            else:
                self.upkeep.want(wish, qos)
                task.done(outcome)

        self._connect(wish, qos, Then(answer), now)

    def connected(self) -> list[Connected]:
        return [Connected(wish.component, wish.name, qos, wish.over) for wish, qos in self.upkeep.wishes.items()]

    def _connect(self, wish: Wish, qos: QoSSpec, task: Task, now: float) -> None:
        over = frozenset([wish.over]) if wish.over else None
        self.connections.connect(wish.component, wish.name, self._timed(wish.component, qos), task, now, over=over)

    def _timed(self, component: str, qos: QoSSpec) -> QoSSpec:
        """The quality of a flow for packets. What a person said counts; else its timeout is that of so many keepalives, and
        as often as long as there are layers: one below has time to go another way before. Both ends take that from the
        request, and send one after a quarter of it."""
        if component != DATA_TRANSFER or qos.timeout != DEFAULT_PEER_TIMEOUT:
            return qos
        return msgspec.structs.replace(qos, timeout=round(MISSED * self.core.keepalive * self.core.rank * 1000))

    def keep_alive(self, seconds: float) -> None:
        self.core.keepalive = seconds

    @property
    def keepalive(self) -> float | None:
        return None if self.core.keepalive == KEEPALIVE else self.core.keepalive

    def _missing(self) -> list[Wish]:
        """Connections that are wanted and not there, not even with a neighbour that is silent."""
        there = {wish for each in self.connections.rows() for wish in self._wished(each)}
        return [wish for wish in self.upkeep.missing if wish not in there]

    def disconnect(self, component: str, name: str, task: Task, now: float) -> None:
        self._check_operational()
        alike = [wish for wish in self.upkeep.wishes if (wish.component, wish.name) == (component, name)]
        was_missing = not set(alike).isdisjoint(self._missing())
        for wish in alike:
            self.upkeep.drop(wish)
        # One that is not there is not asked for any more, which is what was wanted.
        answered = Then(lambda outcome: task.done()) if was_missing else task
        self.connections.disconnect(component, name, answered, now)

    def _disconnected(self, connection: Connection, now: float) -> None:
        for wish in self._wished(connection):
            if connection.left:
                self.upkeep.drop(wish)
            else:
                # If the neighbour had asked for it, it is the first to ask again.
                self.upkeep.lost(wish, now, FIRST_PAUSE if connection.side == 0 else SECOND_PAUSE)

    def _wished(self, connection: Connection) -> list[Wish]:
        """What was asked for from this side, and is there with that connection, whoever asked for it first."""
        return [
            wish
            for wish in self.upkeep.wishes
            if wish.component == connection.component
            and wish.over in ("", connection.layer)
            and self.connections.leads_to(wish.name, connection)
        ]

    def _told_state(self, connection: Connection, up: bool, now: float) -> None:
        """A neighbour that is silent may be there by another layer below, or soon by the same one, in another life."""
        for wish in self._wished(connection):
            if up:
                self.upkeep.found(wish)
            else:
                self.upkeep.lost(wish, now, SILENT_PAUSE)

    def _connection_entries(self) -> Iterator[ConnectionEntry]:
        for each in sorted(self.connections.rows(), key=lambda each: each.fd):
            state = "up" if each.up else "silent"
            address = written_address(each.address) if each.address else ""
            peer = kind_of(ours=each.ours)
            name = each.peer or each.name
            yield ConnectionEntry(each.component, name, address, peer, state, each.since, each.layer)
        for wish in self._missing():
            yield ConnectionEntry(wish.component, wish.name, "", "", "missing", 0.0, wish.over)

    # --- lower flows

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        self.core.rank = max(1, self.host.lower.rank(self.id))
        self.connections.lower_up(number, flow, now)

    def lower_failed(self, number: int, error: OuroborosError, now: float) -> None:
        self.connections.lower_failed(number, error, now)

    def lower_down(self, fd: int, how: How, now: float) -> None:
        self.connections.lower_down(fd, how, now)

    def lower_state(self, fd: int, up: bool, now: float) -> None:
        self.connections.lower_state(fd, up, now)

    def lower_resized(self, fd: int, size: Size, now: float) -> None:
        self.connections.lower_resized(fd, size)

    def message(self, fd: int, data: bytes, now: float) -> None:
        self.connections.message(fd, data, now)

    # --- time

    def deadline(self) -> float | None:
        return earliest(super().deadline(), soonest(self._parts))

    def timeout(self, now: float) -> None:
        super().timeout(now)
        for part in self._parts:
            part.timeout(now)


class _Watched:
    """A component, of whose connections the member hears as well."""

    def __init__(self, component: Component, member: ConnectedIpcp) -> None:
        self._component = component
        self._member = member
        self.heard = component.heard

    def connected(self, connection: Connection, now: float) -> None:
        self._member._connected(connection)
        self._component.connected(connection, now)

    def disconnected(self, connection: Connection, now: float) -> None:
        if not self._member._is_closed:
            self._component.disconnected(connection, now)
            self._member._disconnected(connection, now)

    def state(self, connection: Connection, up: bool, now: float) -> None:
        self._component.state(connection, up, now)
        self._member._told_state(connection, up, now)


def kind_of(*, ours: bool) -> str:
    """What a peer is, in listings."""
    return "node" if ours else "prototype"
