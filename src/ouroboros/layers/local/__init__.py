"""The local layer: names of this node. Its flows are rings between two programs, so it has no packets of its own, unless it
is impaired: then its flows go through a relay of the engine."""

from __future__ import annotations

from ouroboros.layers.base import Ipcp
from ouroboros.layers.face import Host
from ouroboros.settings import LocalSettings
from ouroboros.wire.control import LocalDetails


class LocalIpcp(Ipcp):
    """A layer that spans one node."""

    type = "local"
    settings = LocalSettings
    preference = 0
    registers = True
    within_node = True

    def __init__(self, id: int, name: str, host: Host) -> None:
        super().__init__(id, name, host)
        self._directory: set[bytes] = set()

    def broke(self, reason: str, now: float) -> bool:
        begins_again = super().broke(reason, now)
        if begins_again and self.impairment is not None:
            self.impair(self.impairment)
        return begins_again

    def register(self, name: str, now: float) -> None:
        self._check_operational()
        self._directory.add(self.digest(name))

    def unregister(self, name: str, now: float) -> None:
        self._directory.discard(self.digest(name))

    def query(self, digest: bytes) -> bool:
        return digest in self._directory

    def check_impairable(self) -> None:
        pass

    def details(self) -> LocalDetails | None:
        if self.impairment is None:
            return None
        counted = LocalDetails.__struct_fields__[1:]
        return LocalDetails(self.impairment.text, *(self.engine_counters.get(field, 0) for field in counted))
