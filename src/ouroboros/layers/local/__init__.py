"""The local layer: names of this node. Its flows are rings between two programs, so it has no packets of its own."""

from __future__ import annotations

from ouroboros.layers.base import Ipcp


class LocalIpcp(Ipcp):
    """A layer that spans one node."""

    type = "local"
    preference = 0

    def __init__(self, id: int, name: str) -> None:
        super().__init__(id, name)
        self._directory: set[bytes] = set()

    def register(self, name: str) -> None:
        self._check_operational()
        self._directory.add(self.digest(name))

    def unregister(self, name: str) -> None:
        self._directory.discard(self.digest(name))

    def query(self, digest: bytes) -> bool:
        return digest in self._directory
