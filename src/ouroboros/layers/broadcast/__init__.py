"""The broadcast layer: every packet of a member goes once to all others, here and on other nodes. The copying is done by the
engine (docs/protocol/broadcast.md); how members find one another is that of unicast layers."""

from __future__ import annotations

from ouroboros.errors import UnsupportedError
from ouroboros.layers.base import State
from ouroboros.layers.effects import OpenBroadcast, written_address
from ouroboros.layers.face import Host, LowerFlow, Task
from ouroboros.layers.members.connected import ConnectedIpcp
from ouroboros.layers.members.connections import Connection
from ouroboros.layers.members.core import Core
from ouroboros.layers.members.greeting import DATA_TRANSFER, is_raw
from ouroboros.qos import QoSSpec
from ouroboros.settings import BroadcastSettings, TypeSettings
from ouroboros.wire.control import BroadcastDetails
from ouroboros.wire.unicast import protobuf
from ouroboros.wire.unicast.enrollment import Configuration


class BroadcastIpcp(ConnectedIpcp):
    """A broadcast layer with its members on this node, and its neighbours on others."""

    type = "broadcast"
    settings = BroadcastSettings
    preference = 2
    joinable = True
    components = (DATA_TRANSFER,)

    def __init__(self, id: int, name: str, host: Host) -> None:
        super().__init__(id, name, host)
        self._members: set[int] = set()
        self._begin_connections(Core(id, name, host, broadcast=True))

    @property
    def busy(self) -> bool:
        """A member that others may ask for, or that has neighbours for more than the programs that are here."""
        wishes = not self.on_demand and self.upkeep.wishes
        return self.state in (State.OPENING, State.OPERATIONAL) and bool(self.names or wishes)

    # --- a member

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        super().bootstrap(layer, settings, task, now)
        self._open()

    def _become(self, told: Configuration, now: float) -> None:
        self.layer = told.layer
        self._meet()

    def _meet(self) -> None:
        """From now on there are others. Most layers have all their members on one node, which cost nothing of this."""
        if not self.core.address:
            protobuf.load()
            self.core.layer = self.layer
            self.core.address = self._address.choose(self.layer)
            self._add_component(DATA_TRANSFER, _Packets())

    def _open(self) -> None:
        self.host.effects.append(OpenBroadcast(self.id))

    def _move(self, now: float) -> None:
        if self._may_move(now):
            self.core.address = self._address.renew()
            self.connections.moved(now)

    def broke(self, reason: str, now: float) -> bool:
        begins_again = super().broke(reason, now)
        if begins_again:
            self._open()
        return begins_again

    def destroy(self, now: float) -> None:
        self._close_connections(now)
        super().destroy(now)

    # --- its programs and neighbours

    def join(self, flow_id: int, now: float) -> None:
        self._members.add(flow_id)
        self.idle_since = None

    def leave(self, flow_id: int, now: float) -> None:
        self._members.discard(flow_id)
        if not self._members:
            self.idle_since = now

    @property
    def members(self) -> frozenset[int]:
        """Ids of the member flows."""
        return frozenset(self._members)

    def connect(self, component: str, name: str, qos: QoSSpec, task: Task, now: float, *, over: str = "") -> None:
        if not is_raw(qos):
            raise UnsupportedError(
                f"IPC process {self.name!r} is of a broadcast layer, which promises nothing: connect it to {name!r} by a "
                "raw flow"
            )
        self._check_operational()
        self._meet()
        super().connect(component, name, qos, task, now, over=over)

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        if self.state == State.OPERATIONAL:
            self._meet()
        super().lower_up(number, flow, now)

    @property
    def rows(self) -> int:
        return 1 + len(self.connections.rows())

    def details(self) -> BroadcastDetails:
        return BroadcastDetails(
            len(self._members),
            # Packets that members here lost because they read too slowly.
            self.engine_counters.get("lost", 0),
            written_address(self.core.address) if self.core.address else "",
            tuple(self._connection_entries()),
        )

    def _counters(self) -> dict[str, int]:
        return {**self.core.counters, **self.engine_counters, **super()._counters()}

    def heard(self, eid: int, data: bytes, fd: int, now: float) -> None:
        self.connections.word(fd, data, now)

    @property
    def _engine_has_it(self) -> bool:
        return self.state in (State.OPENING, State.OPERATIONAL, State.FAILED)


class _Packets:
    """The component for packets, which are the engine's."""

    def connected(self, connection: Connection, now: float) -> None:
        """The engine has it."""

    def disconnected(self, connection: Connection, now: float) -> None:
        """The engine has not got it any more."""

    def heard(self, connection: Connection, data: bytes, now: float) -> None:
        """Nothing comes this way."""

    def state(self, connection: Connection, up: bool, now: float) -> None:
        """One that is silent may be back; what it does not take meanwhile is lost."""
