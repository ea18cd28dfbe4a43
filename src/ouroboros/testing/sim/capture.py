"""Captures in virtual time: those of two runs of one seed are the same, byte for byte, but for what is encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ouroboros.capture import SNAP, CaptureFile, Place
from ouroboros.control.parties import Process
from ouroboros.errors import FlowDownException
from ouroboros.wire import tap
from ouroboros.wire.control import Capture as CaptureRequest

if TYPE_CHECKING:
    from ouroboros.testing.sim.node import Node


class Capture:
    """What a member of a node sends and gets, made by `Node.capture`. `records`: so far."""

    def __init__(self, node: Node, process: Process, ipcp: int, snap: int = SNAP) -> None:
        entry = node.irm.ipcps[ipcp].entry()
        self.place = Place(entry.layer, entry.name, entry.type, entry.address)
        self.records: list[tap.Record] = []
        self._snap = snap
        self._node = node
        self._flow = node.ask(process, CaptureRequest(ipcp, snap)).flow
        self._flow.watch(on=True)
        node.network.captures.append(self)

    @property
    def comments(self) -> list[str]:
        """What each packet was."""
        return [tap.described(record, self.place.layer, self.place.type) for record in self.records]

    def pcapng(self) -> bytes:
        """All that was captured, as a file."""
        self.drain()
        pieces: list[bytes] = []
        file = CaptureFile(pieces.append, [self.place], self._snap)
        for record in self.records:
            file.add(self.place, record)
        file.finish()
        return b"".join(pieces)

    def drain(self) -> bool:
        """Take in what there is. Whether there was something."""
        before = len(self.records)
        try:
            while (record := self._flow.poll()) is not None:
                self.records.append(tap.decode(record))
        except FlowDownException:
            # Its member has ended.
            self.stop()
        return len(self.records) > before

    def stop(self) -> None:
        """Capture nothing more."""
        if self in self._node.network.captures:
            self._node.network.captures.remove(self)
            self._flow.watch(on=False)
            self._flow.dealloc()
