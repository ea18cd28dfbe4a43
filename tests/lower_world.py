"""A node whose IPC processes hold flows of each other, over the engine of `irm_world.py`.

A `ToyIpcp` finds the names of other members of its layer on this node, and notes what it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from irm_world import EngineEnd, World

from ouroboros.control.parties import Process
from ouroboros.errors import FlowDownException, OuroborosError
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import (
    Member,
    OpenMember,
    PeerGone,
)
from ouroboros.layers.face import Arrival, End, How, LowerFlow, Task
from ouroboros.oap import Session, Settings
from ouroboros.qos import QoSSpec
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.settings import TypeSettings
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    Granted,
    RegisterName,
    Request,
)


class ToyEnd(End, frozen=True, kw_only=True):
    """An end of a flow between two members of one layer on this node."""

    eid: int


@dataclass(slots=True, eq=False, kw_only=True)
class ToyArrival(Arrival):
    """What one member asks another."""

    asker: ToyIpcp
    token: int


@dataclass
class Yard:
    """The toys of a node."""

    members: dict[int, ToyIpcp] = field(default_factory=dict)
    #: Both ends of each flow between two of them: the IPC process and the endpoint id of the other side, by endpoint id.
    pairs: dict[int, tuple[ToyIpcp, int]] = field(default_factory=dict)
    last_eid: int = 0

    def draw_eid(self) -> int:
        self.last_eid += 1
        return self.last_eid


class ToyIpcp(Ipcp):
    """A member of a layer that begins and ends on this node. Objects when it is told what cannot be."""

    type = "toy"
    preference = 1
    registers = True
    elsewhere = True
    several = True
    accepts_flows = True
    yard: Yard

    def __init__(self, id: int, name: str, host: object) -> None:
        super().__init__(id, name, host)  # type: ignore[arg-type]
        self.yard.members[id] = self
        self.registered: dict[str, None] = {}
        #: What was asked of it and is not answered, by token; and its own flows, by endpoint id.
        self.asked: dict[int, ToyArrival] = {}
        self.ends: set[int] = set()
        #: Its own questions without an answer; what it holds; and all that it was told.
        self.waits: set[int] = set()
        self.holds: dict[int, LowerFlow] = {}
        self.log: list[tuple[Any, ...]] = []
        #: What it does when it is told something.
        self.reaction: Callable[[ToyIpcp], None] = lambda _: None

    # --- what it wants

    def ask(
        self, number: int, name: str, now: float, *, wait: float = 20.0, over: frozenset[str] | None = None
    ) -> None:
        self.waits.add(number)
        self.host.lower.ask(self.id, number, name, QoSSpec(), now, until=now + wait, over=over)

    def withdraw(self, number: int, now: float) -> None:
        self.waits.discard(number)
        self.host.lower.withdraw(self.id, number, now)

    def release(self, fd: int, now: float) -> None:
        self.holds.pop(fd, None)
        self.host.lower.release(fd, now)

    # --- what it is told

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        self._check_alive()
        if number is not None:
            self.waits.remove(number)
        assert flow.fd not in self.holds
        assert flow.side == (1 if number is None else 0)
        self.holds[flow.fd] = flow
        self._note("up", number, flow.fd)

    def lower_failed(self, number: int, error: OuroborosError, now: float) -> None:
        self._check_alive()
        self.waits.remove(number)
        self._note("failed", number, error)

    def lower_down(self, fd: int, how: How, now: float) -> None:
        self._check_alive()
        del self.holds[fd]
        self._note("down", fd, how)

    def _check_alive(self) -> None:
        assert self.state is not State.DESTROYED

    def _note(self, *what: Any) -> None:
        self.log.append(what)
        self.reaction(self)

    # --- its layer

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        super().bootstrap(layer, settings, task, now)
        self.host.effects.append(OpenMember(self.id))

    @property
    def _engine_has_it(self) -> bool:
        return self.state == State.OPERATIONAL

    def destroy(self, now: float) -> None:
        assert not self.asked, "the flow manager waits for it still"
        super().destroy(now)
        for eid in sorted(self.ends):
            self.over(eid, How.GONE, now)
        del self.yard.members[self.id]
        for other in self.yard.members.values():
            for token in [token for token, arrival in other.asked.items() if arrival.ipcp == self.id]:
                del other.asked[token]
                other.host.upper.refused(token, FlowDownException("it is destroyed"), now)

    def register(self, name: str, now: float) -> None:
        self._check_operational()
        self.registered[name] = None

    def unregister(self, name: str, now: float) -> None:
        self.registered.pop(name, None)

    def query(self, digest: bytes) -> bool:
        return any(self.digest(name) == digest for name in self.registered)

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        others = (each for each in self.yard.members.values() if each is not self and each.layer == self.layer)
        for other in others:
            if other.state is State.OPERATIONAL and name in other.registered:
                arrival = ToyArrival(ipcp=other.id, name=name, qos=qos, asker=self, token=token)
                self.asked[token] = arrival
                self.host.upper.reachable(token)
                self.host.upper.requested(arrival, now)
                return
        self.host.upper.unreachable(token, "register it", now)

    def cancel(self, token: int, now: float) -> None:
        if (arrival := self.asked.pop(token, None)) is not None:
            self.host.upper.withdrawn(arrival)

    def why(self, token: int) -> str:
        return "another toy is asked"

    def accept(self, arrival: Arrival, now: float) -> End | None:
        assert isinstance(arrival, ToyArrival)
        return self._end(arrival.qos)

    def confirm(self, arrival: Arrival, now: float) -> None:
        assert isinstance(arrival, ToyArrival)
        eid = self.yard.last_eid
        asker = arrival.asker
        if asker.asked.pop(arrival.token, None) is None:
            self.host.effects.append(PeerGone(self.id, eid, False))
            return
        end = asker._end(arrival.qos)
        self.yard.pairs |= {eid: (asker, end.eid), end.eid: (self, eid)}
        self.host.upper.answered(arrival.token, end, now)

    def refuse(self, arrival: Arrival, error: OuroborosError, now: float, end: End | None = None) -> None:
        assert isinstance(arrival, ToyArrival)
        if isinstance(end, ToyEnd):
            self.ends.discard(end.eid)
        if arrival.asker.asked.pop(arrival.token, None) is not None:
            self.host.upper.refused(arrival.token, error, now)

    def give_back(self, end: End, now: float) -> None:
        assert isinstance(end, ToyEnd)
        self.over(end.eid, How.CLOSED, now)

    def _end(self, qos: QoSSpec) -> ToyEnd:
        eid = self.yard.draw_eid()
        self.ends.add(eid)
        return ToyEnd(ipcp=self.id, qos=qos, session=Session(None, 0, bytearray()), eid=eid)

    def over(self, eid: int, how: How, now: float) -> None:
        """The other side is told."""
        self.ends.discard(eid)
        if (pair := self.yard.pairs.pop(eid, None)) is not None:
            other, peer_eid = pair
            if self.yard.pairs.pop(peer_eid, None) is not None:
                self.host.effects.append(PeerGone(other.id, peer_eid, how is not How.CLOSED))


class LowerWorld(World):
    """A node with toys."""

    def __init__(self, *, flow_limit: int = 10_239, embedded: bool = False) -> None:
        self.kind: type[ToyIpcp] = type("ToyIpcp", (ToyIpcp,), {"yard": Yard()})
        self.last_fd = 0
        super().__init__(flow_limit=flow_limit, embedded=embedded, types={**IPCP_TYPES, "toy": self.kind})

    # --- toys

    def toy(self, name: str, layer: str | None = None, *, bind: bool = True) -> ToyIpcp:
        """An IPC process, in a layer of that name if one is given, and bound to its own name."""
        id = self.manage(CreateIpcp(name, "toy"))
        assert isinstance(id, int)
        if layer is not None:
            self.manage(BootstrapIpcp(id, layer))
        if bind:
            self.manage(BindProcess(id, name))
        ipcp = self.irm.ipcps[id]
        assert isinstance(ipcp, ToyIpcp)
        return ipcp

    def register(self, name: str, ipcp: int) -> None:
        self.manage(CreateName(name, "round-robin"))
        self.manage(RegisterName(name, ipcp))

    def ask(
        self, ipcp: ToyIpcp, number: int, name: str, *, wait: float = 20.0, over: frozenset[str] | None = None
    ) -> None:
        ipcp.ask(number, name, self.now, wait=wait, over=over)
        self.settle()

    def withdraw(self, ipcp: ToyIpcp, number: int) -> None:
        ipcp.withdraw(number, self.now)
        self.settle()

    def release(self, ipcp: ToyIpcp, fd: int) -> None:
        ipcp.release(fd, self.now)
        self.settle()

    def destroy(self, ipcp: ToyIpcp) -> None:
        self.manage(DestroyIpcp(ipcp.id))

    def connect(self, asker: ToyIpcp, number: int, name: str) -> int:
        """The fd of a flow that comes to be."""
        self.ask(asker, number, name)
        self.engine()
        what, got, fd = asker.log[-1]
        assert (what, got) == ("up", number), asker.log
        assert isinstance(fd, int)
        return fd

    def settle(self) -> None:
        """What was posted outside of an entry point is told by the next one."""
        self.irm.timeout(self.now)
        self.collect()

    # --- the engine

    def send(self, process: Process, request: Request, uid: int | None = None) -> int:
        # The engine sees that the program lets go.
        if isinstance(request, Dealloc) and (request.flow_id, request.side) in process.ends:
            end = self.ends.get((request.flow_id, request.side))
            if end is not None and end.eid is None:
                self.hang_up(end, How.CLOSED)
        return super().send(process, request, uid)

    def _make(self, end: EngineEnd, granted: Granted) -> None:
        if isinstance(end.user, Member):
            assert end.user.fd == self.last_fd + 1, "not the next number"
            self.last_fd = end.user.fd
        super()._make(end, granted)
