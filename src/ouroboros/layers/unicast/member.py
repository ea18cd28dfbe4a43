"""A member of a unicast layer: its parts, and what each has to know of the others.

::

    Upper ◀──▶ FlowIpcp ── messages, component 0 ──▶ engine ◀── handed over ── Connections ◀──▶ Lower
                 └─ Names ──▶ Directory, component 1 ──▶ engine                     │
                                  └── LinkState ◀── Management, Data Transfer ──────┴── Enrollment
                                         └──▶ Route ──▶ engine
"""

from __future__ import annotations

from collections.abc import Iterator

from ouroboros.errors import (
    FlowDownException,
    FlowNameException,
    ProtocolError,
)
from ouroboros.layers.agenda import earliest
from ouroboros.layers.base import State
from ouroboros.layers.effects import (
    OpenTransfer,
    PeerGone,
    RemoteEnd,
    ResizeWay,
    Route,
    SetAddress,
    Where,
    written_address,
)
from ouroboros.layers.face import Arrival, End, Host, Located, Size, Step, Task
from ouroboros.layers.flows.incoming import Request
from ouroboros.layers.flows.ipcp import FlowIpcp
from ouroboros.layers.members.connected import ConnectedIpcp, kind_of
from ouroboros.layers.members.connections import Connection
from ouroboros.layers.members.core import ALLOCATOR, PROBES, Core
from ouroboros.layers.members.greeting import DATA_TRANSFER, MANAGEMENT
from ouroboros.layers.unicast.adjacencies import Adjacencies
from ouroboros.layers.unicast.allocator import FlowsCore, Names
from ouroboros.layers.unicast.directory import Directory
from ouroboros.layers.unicast.link_state import LinkState
from ouroboros.layers.unicast.probes import Probes
from ouroboros.qos import QoSSpec
from ouroboros.settings import CongestionAvoidPolicy, TypeSettings, UnicastSettings
from ouroboros.wire.control import RouteEntry, UnicastDetails
from ouroboros.wire.udp import FlowReply, FlowRequest
from ouroboros.wire.unicast import protobuf
from ouroboros.wire.unicast.enrollment import EID_SIZE, Configuration


class UnicastIpcp(ConnectedIpcp, FlowIpcp):
    """A member of a unicast layer."""

    type = "unicast"
    settings = UnicastSettings
    preference = 1
    several = True
    components = (MANAGEMENT, DATA_TRANSFER)
    frequent = (*FlowIpcp.frequent, "heard")

    #: From bootstrap or enrollment on.
    link_state: LinkState
    directory: Directory
    probes: Probes

    def __init__(self, id: int, name: str, host: Host) -> None:
        protobuf.load()
        self.core = Core(id, name, host)
        self.adjacencies = Adjacencies(
            lambda address, now: self.link_state.adjacency_up(address, now),
            lambda address, now: self.link_state.adjacency_down(address, now),
            lambda address, size, now: self.link_state.adjacency_resized(address, size, now),
        )
        self._places = Names(self.core, lambda: self.adjacencies.size)
        self._flows_core = FlowsCore(self.core, self._places)
        super().__init__(id, name, host, self._places, self._flows_core)
        self.hash = self.core.settings.dir_hash_algo.word
        self._places.found = self._outgoing.found
        self._begin_connections(self.core)
        self._places.called = self._called
        #: When it is to have another address.
        self._move_at: float | None = None
        #: Of packets to members that flows lead to, as the engine was told last.
        self._sizes: dict[int, Size | None] = {}
        #: Names that are to be found for nobody's flow, by number.
        self._locating: dict[int, Task] = {}
        self._last_located = 0

    # --- a member

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        assert isinstance(settings, UnicastSettings)
        self._check_new()
        self._address.choose(layer)
        self._begin(layer, settings)
        self._open()
        self.state = State.OPERATIONAL
        task.done(self.id)

    def _become(self, told: Configuration, now: float) -> None:
        assert isinstance(told.settings, UnicastSettings)
        self._address.choose(told.layer)
        self._begin(told.layer, told.settings)
        opened = self._transfer()
        self.host.effects.append(SetAddress(self.id, opened.address, opened.max_ttl, opened.ecn))
        if self._connects:
            self.directory.expect(now)

    def _begin(self, layer: str, settings: UnicastSettings) -> None:
        """It is in a layer, and has an address there."""
        core = self.core
        self.layer = core.layer = layer
        core.settings, core.address = settings, self._address.value
        self.hash = settings.dir_hash_algo.word
        if settings.unicast.dt.eid_size != EID_SIZE:
            core.warn(f"layer {layer!r}: eid is {EID_SIZE}, as no member has other endpoint ids")
        self.link_state = LinkState(core, self._routes_changed, self._collided, self._ways_resized)
        self.directory = Directory(core, returns=self._address.is_kept)
        self._places.begin(self.directory, self.link_state)
        self.probes = Probes(core, _Ways(self))
        self._parts += [self.link_state, self.directory, self.probes]
        for name, component in ((MANAGEMENT, self.link_state), (DATA_TRANSFER, self.adjacencies)):
            self._add_component(name, component)

    def _transfer(self) -> OpenTransfer:
        config = self.core.config
        ecn = config.cong_avoid is CongestionAvoidPolicy.MB_ECN
        return OpenTransfer(self.id, self.core.address, config.dt.max_ttl, ecn)

    def _open(self) -> None:
        self.host.effects.append(self._transfer())

    def _close(self, now: float) -> None:
        if self._is_member:
            self.directory.close(now)
            for task in self._locating.values():
                task.failed(FlowDownException(f"the layer {self.layer!r} was destroyed"))
            self._locating.clear()
            self.probes.close(now)
            self.link_state.close(now)
        self._close_connections(now)

    @property
    def rows(self) -> int:
        if not self._is_member:
            return 1
        return 1 + self.link_state.routes + len(self._incoming.names) + len(self.connections.rows())

    def details(self) -> UnicastDetails:
        if not self._is_member:
            return UnicastDetails()
        return UnicastDetails(
            address=written_address(self.core.address),
            connections=tuple(self._connection_entries()),
            routes=tuple(self._route_entries()),
            registered=tuple(sorted(self._incoming.names.values())),
            kept=len(self.directory.entries()),
            enroll=self.core.config.enroll,
        )

    def _route_entries(self) -> Iterator[RouteEntry]:
        table = self.link_state.table()
        for address in sorted(table, key=lambda each: (self.link_state.distance(each) or 0, each)):
            ours = self.ours(address)
            hops, via = self.link_state.distance(address), tuple(map(written_address, filter(None, table[address])))
            if hops:
                yield RouteEntry(written_address(address), hops, via, kind_of(ours=ours))

    def _called(self, address: int) -> str:
        """What people call a member: a neighbour by its name, others by their address."""
        names = (
            each.peer or each.name for each in self.connections.rows() if each.address == address and each.side == 0
        )
        peers = (each.peer for each in self.connections.rows() if each.address == address and each.peer)
        return next(peers, "") or next(names, "") or written_address(address)

    # --- connections

    def connect(self, component: str, name: str, qos: QoSSpec, task: Task, now: float, *, over: str = "") -> None:
        self._check_operational()
        self.directory.expect(now)
        super().connect(component, name, qos, task, now, over=over)

    def _connected(self, connection: Connection) -> None:
        if connection.ours:
            self._flows_core.ours.note(connection.address)

    def _routes_changed(self, table: dict[int, tuple[int, ...]], spread: bool, now: float) -> None:
        self.host.effects.append(Route(self.id, table, spread))
        self.directory.members(self.link_state.members(), now)

    def _ways_resized(self, now: float) -> None:
        """Flows follow what their ways carry. With members of the prototype nobody knows it."""
        ends = dict.fromkeys(_address(end.address) for end in self._ends.values() if end.extension is not None)
        sizes = {address: self.link_state.least(address) for address in ends}
        for address in {**self._sizes, **sizes}:
            if self._sizes.get(address) != sizes.get(address):
                self.host.effects.append(ResizeWay(self.id, address, sizes.get(address)))
        self._sizes = sizes

    def _collided(self, now: float) -> None:
        """Routing found that another member has our address: soon we have another one. It is in the middle of something."""
        self._move_at = now

    def _move(self, now: float) -> None:
        """Begin again with another address, unless it is a new one: neighbours are connected anew, names are known to be
        there, and flows end, whose peers send to the one before."""
        self._move_at = None
        core = self.core
        if not self._may_move(now):
            return
        core.warn(f"address {written_address(core.address)} of IPC process {core.name!r} is that of another member")
        core.address = self._address.renew(self.link_state.members())
        core.warn(f"{core.name!r} has the address {written_address(core.address)} in layer {core.layer!r} from now on")
        opened = self._transfer()
        self.host.effects.append(SetAddress(self.id, opened.address, opened.max_ttl, opened.ecn))
        self.link_state.moved(now)
        self.directory.moved(now)
        self.connections.moved(now)
        for eid in self._ends:
            if eid not in self._gone:
                self._gone.add(eid)
                self.host.effects.append(PeerGone(self.id, eid, died=True))

    def lower_resized(self, fd: int, size: Size, now: float) -> None:
        super().lower_resized(fd, size, now)
        self.adjacencies.measure(now)

    # --- names

    def register(self, name: str, now: float) -> None:
        super().register(name, now)
        self.directory.register(self.digest(name), now)

    def unregister(self, name: str, now: float) -> None:
        if self.query(self.digest(name)):
            self.directory.unregister(self.digest(name), now)
        super().unregister(name, now)

    # --- who is on the way

    def locate(self, name: str, task: Task, now: float) -> None:
        self._check_operational()
        self._last_located += 1
        # Of the same kind as tokens of flows, and none of them.
        number = -(1 << 64) - self._last_located
        self._locating[number] = task

        def answer(address: int | None, now: float) -> None:
            del self._locating[number]
            if address is None:
                task.failed(FlowNameException(self._places.advice(name, ())))
            else:
                task.done(Located(address, now))

        self._places.locate(name, number, answer, now)

    def probe(self, target: Where, steps: tuple[Step, ...], wait: float, task: Task, now: float) -> None:
        self.probes.probe(_address(target), steps, wait, task, now)

    def ours(self, address: int) -> bool:
        """Whether that member is one of ours, as far as is known."""
        return address in self._flows_core.ours or self.link_state.ours(address)

    # --- flows

    def accept(self, arrival: Arrival, now: float) -> End | None:
        assert isinstance(arrival, Request)
        end = super().accept(arrival, now)
        if arrival.extension is not None:
            self._flows_core.ours.note(_address(arrival.address))
        return end

    def _hold(self, token: int, end: RemoteEnd, now: float) -> None:
        if end.extension is not None:
            self._flows_core.ours.note(_address(end.address))
        super()._hold(token, end, now)

    # --- what the engine tells

    def heard(self, eid: int, data: bytes, fd: int, now: float) -> None:
        if eid != ALLOCATOR:
            self._stir()
            component = self.probes if eid == PROBES else self.directory
            component.heard(data, fd, now)
            return
        try:
            message, address = self._flows_core.decode(data)
        except ProtocolError:
            self._core.counters["messages_malformed"] += 1
            return
        source: Where = address
        if isinstance(message, FlowRequest) and not self.query(message.digest):
            # It was here once, and is still said to be.
            self._stir()
            self.directory.disown(message.digest, now)
        if isinstance(message, FlowReply):
            # It does not say where it comes from. Who knows the endpoint id was asked, or is on the way there.
            source = self._outgoing.asked(message.eid)
        self._heard(message, data, source, now, via=fd)

    def _stir(self) -> None:
        """It is no message of those that are frequent."""
        self.host.unsure.add(self.id)
        self.host.touched.add(self.id)

    # --- time

    def deadline(self) -> float | None:
        return earliest(super().deadline(), self._move_at)

    def timeout(self, now: float) -> None:
        super().timeout(now)
        if self._move_at is not None and self._move_at <= now:
            self._move(now)


class _Ways:
    """What probes have to know of routing."""

    def __init__(self, member: UnicastIpcp) -> None:
        self._member = member
        self.ours = member.ours

    def distance(self, address: int) -> int | None:
        return self._member.link_state.distance(address)

    def next_flow(self, target: int, via: int) -> int | None:
        hops = (via,) if via else filter(None, self._member.link_state.table().get(target, ()))
        flows = map(self._member.adjacencies.flow_to, hops)
        return next((fd for fd in flows if fd is not None), None)


def _address(where: Where) -> int:
    assert isinstance(where, int), "members of a unicast layer are at addresses of the layer"
    return where
