"""The listing of a node, as the node writes it: what it has, for whoever reads it without asking (`runtime.figures`)."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

import msgspec

from ouroboros import __version__
from ouroboros.control.irm import Irm
from ouroboros.runtime import figures
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.wire import listing
from ouroboros.wire.control import FlowEntry, IpcpEntry
from ouroboros.wire.listing import FlowGone, FlowRecord, IpcpGone, IpcpRecord, NodeRecord, Record

log = logging.getLogger("ouroboros.irmd")

#: The listing is written anew when it is longer than that, bytes, and half of it is out of date.
_LEAST = 64 << 10


#: Rows of an IPC process that cost little.
_SHORT = 32


class Publisher:
    """Writes the listing of a node. One that cannot be written is removed: whoever wants to know something asks."""

    def __init__(self, directory: Path, irm: Irm, engine: EngineRuntime) -> None:
        self._path = directory / figures.LISTING
        self._irm = irm
        self._engine = engine
        #: The file, once the node is ready, until it ends.
        self._file: int | None = None
        self._node = listing.encode(NodeRecord(__version__, os.getpid()))
        #: The last record of all that there is.
        self._records: dict[tuple[type[Record], int], bytes] = {}
        self._new: list[bytes] = []
        #: Bytes of those, and of the file.
        self._live = self._length = 0

    def begin(self) -> None:
        """The node is ready."""
        self._irm.flows.take_changes()
        self._irm.take_touched()
        for ipcp in self._irm.ipcps.values():
            self._put_ipcp(ipcp.entry())
        for entry in self._irm.flows.entries():
            self._put_flow(entry)
        self._write_anew()

    def flows(self) -> None:
        """Flows may have changed."""
        changes = self._irm.flows.take_changes()
        if self._file is None:
            return
        for flow_id, entry in changes.items():
            if entry is None:
                self._drop(FlowRecord, FlowGone(flow_id))
            else:
                self._put_flow(entry)
        self._write()

    def ipcps(self, most: int | None = None) -> None:
        """IPC processes may have changed. `most`: what has more rows is shown later, and so are counters; None: all is shown
        now."""
        touched = self._irm.take_touched(counted=most is None)
        if self._file is None:
            return
        for id in sorted(touched):
            if (ipcp := self._irm.ipcps.get(id)) is None:
                self._drop(IpcpRecord, IpcpGone(id))
            elif most is None or ipcp.rows <= most:
                self._put_ipcp(ipcp.entry())
            else:
                self._irm.touch(id)
        self._write()

    def answered(self) -> None:
        """A request is answered by what may be shown now. What requests for flows change of counters, and of IPC processes
        with many rows, is shown a bit later: it takes time, and anybody can ask."""
        self.flows()
        self.ipcps(None if self._irm.take_managed() else _SHORT)

    def end(self) -> None:
        """The node has ended in order, and nothing is left of it."""
        self._close()
        figures.remove(self._path.parent)

    def _put_ipcp(self, entry: IpcpEntry) -> None:
        self._put(entry.id, IpcpRecord(entry, self._engine.place_of_layer(entry.id)))

    def _put_flow(self, entry: FlowEntry) -> None:
        place = self._engine.place_of_flow(entry.id) if entry.layer or entry.address else None
        if place is not None and entry.counters:
            # They are in the file of the engine.
            entry = msgspec.structs.replace(entry, counters={})
        self._put(entry.id, FlowRecord(entry, place))

    def _put(self, id: int, record: Record) -> None:
        data = listing.encode(record)
        before = self._records.get((type(record), id), b"")
        if before != data:
            self._records[type(record), id] = data
            self._live += len(data) - len(before)
            self._new.append(data)

    def _drop(self, kind: type[Record], gone: FlowGone | IpcpGone) -> None:
        if (before := self._records.pop((kind, gone.id), None)) is not None:
            self._live -= len(before)
            self._new.append(listing.encode(gone))

    def _write(self) -> None:
        if not self._new or self._file is None:
            return
        data = b"".join(self._new)
        self._new.clear()
        self._length += len(data)
        if self._length > _LEAST and self._length > 2 * self._live:
            self._write_anew()
            return
        try:
            _write_all(self._file, data)
        except OSError as error:
            self._give_up(error)

    def _write_anew(self) -> None:
        self._new.clear()
        data = b"".join([listing.MAGIC, self._node, *self._records.values()])
        before, self._file, self._length = self._file, None, len(data)
        try:
            self._file = figures.create(self._path)
            # As long as it is held, the node is there.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(self._file, data)
            figures.put(self._path)
        except OSError as error:
            self._give_up(error)
        if before is not None:
            os.close(before)

    def _give_up(self, error: OSError) -> None:
        log.warning("%s cannot be written, so irm asks the node: %s", self._path, error.strerror or error)
        self._close()
        with contextlib.suppress(OSError):
            figures.remove(self._path.parent)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
