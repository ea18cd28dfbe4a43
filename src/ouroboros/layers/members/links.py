"""Connections of a member with its neighbours, once both sides have greeted. Source: `unicast-control.md` 2, 4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from ouroboros.layers.agenda import Agenda
from ouroboros.layers.effects import HandOver, Listen, TakeBack, written_address
from ouroboros.layers.face import Size
from ouroboros.layers.members.core import NOWHERE, Core
from ouroboros.layers.members.greeting import DATA_TRANSFER, MANAGEMENT, greet, is_placed, parting
from ouroboros.wire.unicast import cep

#: Nothing is sent to a member of the prototype for so long behind its greeting (`unicast-control.md` 10, N45).
SILENCE = 0.02
#: A neighbour that is silent for so long after that was told is gone: its connections end, and can be asked for anew.
SILENT_PATIENCE = 30.0
#: Packets that overtook a greeting and are kept.
MOST_EARLY = 32
#: In front of a message among packets of a broadcast layer (docs/protocol/broadcast.md).
WORD = b"\x04"
#: Connections of one component with one member.
MOST_ALIKE = 4


@dataclass(slots=True, eq=False, kw_only=True)
class Connection:
    """A lower flow that belongs to a component of ours and to the same one of a neighbour.

    `name`: under which we asked for it, or were. `side`: 0 asked for, 1 accepted. `address`: of the neighbour, 0 for those
    that enroll. `ours`: the neighbour is a node of ours; then `peer` is the name of its IPC process, `node` its number and
    `rank` its place among layers over layers. `silent`: the neighbour is, on this flow. `up`: it is not, as far as all flows
    with it tell. `left`: a person ended it, here or there. `greeting`: what the neighbour said first. `request`: the id of
    the request to enroll that was in it. `proven`, `layer`: who is proven to be at the other end, and the layer below, as of
    `LowerFlow`.
    """

    fd: int
    component: str
    name: str
    side: int
    address: int
    ours: bool
    rank: int
    size: Size
    since: float
    peer: str = ""
    node: int = 0
    silent: bool = False
    up: bool = True
    left: bool = False
    greeting: bytes = b""
    request: bytes = b""
    proven: str = ""
    layer: str = ""

    def __str__(self) -> str:
        at = f" at {written_address(self.address)}" if self.address else ""
        return f"{self.component} with {self.peer or self.name!r}{at}"

    def is_with(self, name: str) -> bool:
        """Whether people call the neighbour that: by what they asked for, its own name, or its address."""
        return name in ((self.name,) if self.side == 0 else ()) or name in (self.peer, written_address(self.address))


class Component(Protocol):
    """A user of connections. None of these raises but for bugs."""

    def connected(self, connection: Connection, now: float) -> None:
        """There is one more."""

    def disconnected(self, connection: Connection, now: float) -> None:
        """It is over."""

    def heard(self, connection: Connection, data: bytes, now: float) -> None:
        """A packet. Not called for data transfer, whose flows the engine has."""

    def state(self, connection: Connection, up: bool, now: float) -> None:
        """The neighbour is silent, or back."""


class Links:
    """The connections of a member, by lower flow. `times`: is shared with flows on which nobody has greeted yet. `taken`: is
    told that a neighbour knows another member with our address."""

    def __init__(
        self, core: Core, components: Mapping[str, Component], times: Agenda, taken: Callable[[float], object]
    ) -> None:
        self._core = core
        self._components = components
        self._times = times
        self._taken = taken
        #: Those of the prototype that are to be left in silence, with what they sent.
        self._settling: dict[int, tuple[Connection, list[bytes]]] = {}
        self._connections: dict[int, Connection] = {}
        #: Addresses of members, with their numbers, by the names that led to them. An address may be that of another by now.
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def rank(self) -> int:
        """Layers below the layer, itself counted, as far as its neighbours know."""
        return max((self._core.rank, *(each.rank for each in self._connections.values())))

    def add(self, connection: Connection, early: list[bytes], now: float) -> None:
        """Both sides have greeted. `early`: packets that overtook the greeting."""
        if not connection.ours and is_placed(connection.component):
            self._settling[connection.fd] = connection, early
            self._times.set(connection.fd, now + SILENCE)
        else:
            self._begin(connection, early, now)

    def _begin(self, connection: Connection, early: list[bytes], now: float) -> None:
        core = self._core
        self._connections[connection.fd] = connection
        if connection.component == DATA_TRANSFER:
            core.host.effects.append(HandOver(core.id, connection.fd, connection.address, connection.ours))
            core.counters["overtook_greeting"] += len(early)
            early = []
        else:
            core.host.effects.append(Listen(core.id, connection.fd))
        component = self._components[connection.component]
        component.connected(connection, now)
        if not connection.up:
            self._told_state(connection, now)
        # A neighbour that was gone is back by another flow.
        for each in self.alike(connection.component, connection.address):
            if not each.up and each is not connection:
                self.end(each, now)
        for data in early:
            if connection.fd in self._connections:
                self._heard(connection, data, now)

    def message(self, fd: int, data: bytes, now: float) -> None:
        """A packet of a lower flow, if that is one of these. Bytes of a stranger."""
        if (connection := self._connections.get(fd)) is not None:
            self._heard(connection, data, now)
        elif fd in self._settling and len(self._settling[fd][1]) < MOST_EARLY:
            self._settling[fd][1].append(data)

    def state(self, fd: int, up: bool, now: float) -> None:
        """The neighbour at the end of a lower flow is silent, or back. Keepalives are those of data transfer: when they
        stop, management is not waited for, where nothing is said most of the time."""
        connection = self.at(fd)
        if connection is None:
            return
        connection.silent = not up
        transfer = self.alike(DATA_TRANSFER, connection.address)
        is_gone = bool(transfer) and all(each.silent for each in transfer)
        alike = self.alike(MANAGEMENT, connection.address) if connection.component == DATA_TRANSFER else []
        for each in (connection, *alike):
            heard = not each.silent and not (is_gone and each.component == MANAGEMENT)
            if each.up != heard:
                each.up = heard
                if each.fd in self._connections:
                    self._told_state(each, now)

    def timeout(self, fd: int, now: float) -> bool:
        """The time that was set for a lower flow has come. False: it is none of these."""
        if (settled := self._settling.pop(fd, None)) is not None:
            self._begin(*settled, now)
        elif (silent := self._connections.get(fd)) is not None:
            self.end(silent, now)
        else:
            return False
        return True

    def _told_state(self, connection: Connection, now: float) -> None:
        if connection.up:
            self._times.cancel(connection.fd)
        else:
            self._times.set(connection.fd, now + SILENT_PATIENCE)
        self._components[connection.component].state(connection, connection.up, now)

    def _heard(self, connection: Connection, data: bytes, now: float) -> None:
        if data == connection.greeting:
            # The way repeats packets.
            return
        said = parting(data) if connection.ours and connection.component == MANAGEMENT else None
        if said is None:
            self._components[connection.component].heard(connection, data, now)
        else:
            self._parts(connection, said, now)

    def word(self, fd: int, data: bytes, now: float) -> None:
        """A message that a neighbour of ours sent among packets."""
        connection = self._connections.get(fd)
        if connection is not None and connection.ours and (said := parting(data)) is not None:
            self._parts(connection, said, now)

    def _parts(self, connection: Connection, said: cep.Cep, now: float) -> None:
        if said.ours is not None and said.ours.flags & cep.TAKEN:
            self._taken(now)
            return
        for each in self.alike(said.component, connection.address):
            each.left = True
            self.end(each, now)

    def say_leaving(self, connection: Connection) -> None:
        """Tell a neighbour of ours that a person wanted it. It is told over management: data transfer is the engine's, which
        has a word for it only in a broadcast layer."""
        mark, carrier = (WORD, DATA_TRANSFER) if self._core.broadcast else (b"", MANAGEMENT)
        for each in self.alike(carrier, connection.address):
            if each.ours and each.fd in self._connections:
                message = greet(self._core, connection.component, self.rank, cep.LEAVING)
                self._core.message(each.fd, mark + message.encode())
                return

    def end(self, connection: Connection, now: float, *, release: bool = True, tell: bool = True) -> None:
        """A connection is over. `release`: its lower flow is still there. `tell`: its component."""
        fd = connection.fd
        was_told = self._connections.pop(fd, None) is not None
        if not was_told and self._settling.pop(fd, None) is None:
            return
        self._times.cancel(fd)
        if release and was_told and connection.component == DATA_TRANSFER:
            self._core.host.effects.append(TakeBack(self._core.id, fd))
        if was_told and tell:
            self._components[connection.component].disconnected(connection, now)
        if release:
            self._core.host.lower.release(fd, now)

    def end_all(self, connections: list[Connection], now: float) -> None:
        # Management last: the end of the others can still be told.
        for connection in sorted(connections, key=lambda each: each.component == MANAGEMENT):
            self.end(connection, now)

    # --- finding

    def __iter__(self) -> Iterator[Connection]:
        yield from self._connections.values()
        for connection, _ in self._settling.values():
            yield connection

    def of(self, component: str) -> list[Connection]:
        """Those of a component that it was told of and that are not over."""
        return [each for each in self._connections.values() if each.component == component]

    def told(self) -> list[Connection]:
        """Those of all components."""
        return list(self._connections.values())

    def at(self, fd: int) -> Connection | None:
        """The connection by that lower flow."""
        settling = self._settling.get(fd)
        return self._connections.get(fd) if settling is None else settling[0]

    def alike(self, component: str, address: int) -> list[Connection]:
        """Those of a component with the same neighbour."""
        if address == NOWHERE:
            return []
        return [each for each in self if each.component == component and each.address == address]

    def learn(self, name: str, address: int, node: int) -> None:
        """A name led to the member with that address. `node`: as of `Connection`."""
        self._known[name] = address, node

    def is_old(self, component: str, address: int, since: float, over: frozenset[str] | None) -> bool:
        """Whether two were connected before that time, over one of these layers if some are said."""
        alike = (each for each in self.alike(component, address) if over is None or each.layer in over)
        return any(each.up and each.since < since for each in alike)

    def leads_to(self, name: str, connection: Connection) -> bool:
        """Whether the neighbour is called that, or was found by that name."""
        return connection.is_with(name) or (
            connection.address != NOWHERE and self._known.get(name) == (connection.address, connection.node)
        )

    def is_connected(self, component: str, name: str, over: frozenset[str] | None) -> bool:
        """Whether there is a connection with the member of that name that carries packets, over one of these layers if some
        are said. Each enrollment has its own."""
        alike = (
            each for each in self if each.component == component and each.up and (over is None or each.layer in over)
        )
        return is_placed(component) and any(self.leads_to(name, each) for each in alike)

    def is_ours(self, name: str) -> bool:
        return any(each.ours and self.leads_to(name, each) for each in self if each.component == MANAGEMENT)

    def bound_alike(self, component: str, address: int, now: float) -> None:
        """End the oldest of too many with the same neighbour."""
        alike = self.alike(component, address)
        for each in sorted(alike, key=lambda each: (each.up, each.since))[: max(0, len(alike) - MOST_ALIKE)]:
            self.end(each, now)
