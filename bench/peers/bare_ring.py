"""The limit: a shared-memory ring with nothing around it (`bench/barering`)."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import barering

from bench.peers.face import Channel, Peer


class BareRing(Peer):
    """One ring each way between two programs; there is only ever one connection."""

    def __init__(self, address: str) -> None:
        # Shared memory whatever file system the private directory is on; its random name keeps this one unique too.
        super().__init__("/dev/shm/barering" + address.replace("/", "-"))
        self._ring: barering.Ring | None = None

    @staticmethod
    def version() -> str:
        return version("barering")

    def serve(self) -> None:
        self._ring = barering.Ring(self.address, True)

    def accept(self) -> Channel:
        if self._ring is None:
            raise RuntimeError("the bare ring is one connection, and it is taken")
        ring, self._ring = self._ring, None
        return _channel(ring)

    def connect(self) -> Channel:
        channel = _channel(barering.Ring(self.address, False))
        Path(self.address).unlink()
        return channel

    def shutdown(self) -> None:
        Path(self.address).unlink(missing_ok=True)


def _channel(ring: barering.Ring) -> Channel:
    return Channel(ring.write, ring.read, lambda: None)
