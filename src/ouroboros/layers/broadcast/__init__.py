"""The broadcast layer: every packet of a member goes to all other members. The copying is done by the engine."""

from __future__ import annotations

from ouroboros.control.messages import IpcpEntry
from ouroboros.layers.base import Ipcp


class BroadcastIpcp(Ipcp):
    """A broadcast layer with its members on this node."""

    type = "broadcast"
    preference = 2

    def __init__(self, id: int, name: str) -> None:
        super().__init__(id, name)
        self._members: set[int] = set()
        #: Packets that members lost because they read too slowly, as the engine counts them.
        self.lost = 0

    def join(self, flow_id: int) -> None:
        self._members.add(flow_id)

    def leave(self, flow_id: int) -> None:
        self._members.discard(flow_id)

    @property
    def members(self) -> frozenset[int]:
        """Ids of the member flows."""
        return frozenset(self._members)

    def entry(self) -> IpcpEntry:
        members = len(self._members)
        return IpcpEntry(self.id, self.name, self.type, self.state, self.layer, self.hash, members, self.lost)
