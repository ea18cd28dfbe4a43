"""The local layer: names of this node. Its flows are rings between two programs, so it has no packets of its own, unless it
is impaired: then its flows go through a relay of the engine."""

from __future__ import annotations

from ouroboros.control.messages import IpcpEntry
from ouroboros.layers.base import Ipcp


class LocalIpcp(Ipcp):
    """A layer that spans one node."""

    type = "local"
    preference = 0

    def __init__(self, id: int, name: str) -> None:
        super().__init__(id, name)
        self._directory: set[bytes] = set()
        #: Packets delivered, lost, duplicated and reordered by the relay, as the engine counts them.
        self.counts = (0, 0, 0, 0)

    def register(self, name: str) -> None:
        self._check_operational()
        self._directory.add(self.digest(name))

    def unregister(self, name: str) -> None:
        self._directory.discard(self.digest(name))

    def query(self, digest: bytes) -> bool:
        return digest in self._directory

    def check_impairable(self) -> None:
        pass

    def entry(self) -> IpcpEntry:
        if self.impairment is None:
            return super().entry()
        delivered, lost, duplicated, reordered = self.counts
        return IpcpEntry(
            self.id,
            self.name,
            self.type,
            self.state,
            self.layer,
            self.hash,
            lost=lost,
            impair=self.impairment.text,
            delivered=delivered,
            duplicated=duplicated,
            reordered=reordered,
        )
