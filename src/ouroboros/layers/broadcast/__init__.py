"""The broadcast layer: every packet of a member goes to all other members. The copying is done by the engine."""

from __future__ import annotations

from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import OpenBroadcast
from ouroboros.layers.face import Host, Task
from ouroboros.settings import BroadcastSettings, TypeSettings
from ouroboros.wire.control import BroadcastDetails


class BroadcastIpcp(Ipcp):
    """A broadcast layer with its members on this node."""

    type = "broadcast"
    settings = BroadcastSettings
    preference = 2
    joinable = True

    def __init__(self, id: int, name: str, host: Host) -> None:
        super().__init__(id, name, host)
        self._members: set[int] = set()

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        super().bootstrap(layer, settings, task, now)
        self.host.effects.append(OpenBroadcast(self.id))

    def broke(self, reason: str, now: float) -> bool:
        begins_again = super().broke(reason, now)
        if begins_again:
            self.host.effects.append(OpenBroadcast(self.id))
        return begins_again

    def join(self, flow_id: int, now: float) -> None:
        self._members.add(flow_id)

    def leave(self, flow_id: int, now: float) -> None:
        self._members.discard(flow_id)

    @property
    def members(self) -> frozenset[int]:
        """Ids of the member flows."""
        return frozenset(self._members)

    def details(self) -> BroadcastDetails:
        # Packets that members lost because they read too slowly.
        return BroadcastDetails(len(self._members), self.engine_counters.get("lost", 0))

    @property
    def _engine_has_it(self) -> bool:
        return self.state in (State.OPERATIONAL, State.FAILED)
