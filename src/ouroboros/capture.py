"""Captures: what the members of layers on this node send and get, packet by packet, for programs and for Wireshark.

::

    from ouroboros.capture import capture

    with capture("net") as packets, open("net.pcapng", "wb") as file:
        packets.save(file, count=1000)

Packets of a layer over UDP are written as the datagrams that they are in. Those of other layers are as their members
exchange them, with a comment that says in words what they are. What a flow of the layer encrypts stays encrypted, and keys
are nowhere. `ouroboros capture` is the same as a command; `docs/capture.md` says what is seen where.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO, NamedTuple, Self

from ouroboros import __version__, backend, irm
from ouroboros._arguments import as_whole
from ouroboros._values import time_limit
from ouroboros.dev import Flow
from ouroboros.errors import FlowDownException, FlowNameException, FlowTimeoutException
from ouroboros.wire import pcapng, tap
from ouroboros.wire.control import Capture as CaptureRequest

#: Bytes of each packet that a capture wants by default: all.
SNAP = 65_535
#: The most.
MOST_SNAP = 262_144
#: Records that are read at once.
_AT_ONCE = 256
#: Bytes of headers of IP and UDP in front of a packet.
_HEADERS = 48


class Place(NamedTuple):
    """A member of a layer. `type`: of its IPC process, a word of the command line. `address`: as `irm.IpcpInfo` has it."""

    layer: str
    name: str
    type: str
    address: str

    @property
    def local(self) -> tuple[str, int] | None:
        """Its address and port, over UDP."""
        if not self.type.startswith("udp"):
            return None
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


class Packet(NamedTuple):
    """A packet that a member sent (`outward`) or got. `time`: nanoseconds since 1970. `length`: of all of it, of which
    `data` is the beginning. `comment`: what it is. `lost`: packets of the place that came before and were not captured,
    because nobody read fast enough."""

    place: Place
    time: int
    outward: bool
    data: bytes
    length: int
    comment: str
    lost: int


class CaptureFile:
    """A capture as pcapng, of these places and so many bytes of a packet. `write`: takes it, piece by piece."""

    def __init__(self, write: Callable[[bytes], object], places: Sequence[Place], snap: int) -> None:
        self._write = write
        self._places = {place: number for number, place in enumerate(places)}
        #: Of each place: packets written, packets lost before them, the time of the last one.
        self._counts = [[0, 0, 0] for _ in places]
        write(pcapng.section(f"PyOuroboros {__version__}"))
        for place in places:
            link = pcapng.USER0 if place.local is None else pcapng.RAW_IP
            what = (
                f"layer {place.layer}, IPC process {place.name} of type {place.type} at {place.address or 'no address'}"
            )
            write(pcapng.interface(link, snap + _HEADERS, place.layer, what))

    def add(self, place: Place, record: tap.Record) -> None:
        """One packet more."""
        counts = self._counts[self._places[place]]
        received, lost, _ = counts
        counts[:] = received + 1, record.lost, record.time
        data, length = record.data, record.length
        if place.local is not None:
            data, length = tap.datagram(record, place.local)
        self._write(
            pcapng.packet(
                self._places[place],
                record.time,
                data,
                length,
                outward=record.outward,
                comment=tap.described(record, place.layer, place.type),
                dropped=record.lost - lost,
            )
        )

    def finish(self) -> None:
        """Nothing more comes."""
        for number, (received, lost, time) in enumerate(self._counts):
            self._write(pcapng.statistics(number, time, received + lost, lost))


class Capture:
    """A capture that is under way: an iterator of `Packet`, or to be saved. A context manager. Made by `capture`.

    The packets of each place are in order, those of several places nearly. It ends when all members are gone, or with the
    node; packets that are not read in time are lost for it, and for nobody else. `lost`: how many, as far as is known.
    """

    def __init__(self, places: Sequence[Place], flows: Sequence[Flow], snap: int) -> None:
        self.places = tuple(places)
        self._flows = dict(zip(places, flows, strict=True))
        self._snap = snap
        self._lost = dict.fromkeys(places, 0)
        self._ready: Iterator[tuple[Place, tap.Record]] = iter(())
        for flow in flows:
            flow.set_rcv_timeout(0)

    @property
    def lost(self) -> int:
        return sum(self._lost.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Packet:
        place, record = self._next()
        comment = tap.described(record, place.layer, place.type)
        return Packet(place, record.time, record.outward, record.data, record.length, comment, record.lost)

    def save(self, file: IO[bytes], *, count: int | None = None) -> int:
        """Write what comes to a file or a pipe as pcapng, until the capture ends, or so many packets were written; returns
        how many. What has come is flushed before it waits for more. When it is interrupted (Ctrl-C), the file is complete.

        Raises what the file raises, for instance `BrokenPipeError` when nobody reads the pipe any more.
        """
        written = 0
        out = CaptureFile(file.write, self.places, self._snap)
        try:
            while count is None or written < count:
                if (found := next(self._ready, None)) is None:
                    file.flush()
                    if (found := next(self._wait(), None)) is None:
                        break
                out.add(*found)
                written += 1
        except BrokenPipeError:
            raise
        except BaseException:
            out.finish()
            raise
        out.finish()
        file.flush()
        return written

    def close(self) -> None:
        """Capture nothing more. Nothing the second time."""
        while self._flows:
            _, flow = self._flows.popitem()
            flow.dealloc()

    def _next(self) -> tuple[Place, tap.Record]:
        found = next(self._ready, None)
        if found is None and (found := next(self._wait(), None)) is None:
            raise StopIteration
        return found

    def _wait(self) -> Iterator[tuple[Place, tap.Record]]:
        """Wait for packets; none: there will be no more."""
        found: list[tuple[Place, tap.Record]] = []
        while self._flows and not found:
            poll = select.poll()
            for flow in self._flows.values():
                poll.register(flow.fileno(), select.POLLIN)
            poll.poll()
            for place in list(self._flows):
                found += [(place, record) for record in self._read(place)]
        found.sort(key=lambda each: each[1].time)
        self._ready = iter(found)
        return self._ready

    def _read(self, place: Place) -> list[tap.Record]:
        try:
            records = [tap.decode(record) for record in self._flows[place].read_many(_AT_ONCE)]
        except FlowTimeoutException:
            return []
        except FlowDownException:
            self._flows.pop(place).dealloc()
            return []
        self._lost[place] = records[-1].lost
        return records


def capture(
    layer: str | None = None, *, name: str | None = None, snap: int = SNAP, timeo: float | None = None
) -> Capture:
    """Capture what the members of a layer on this node send and get from now on.

    `layer`: None for all layers. `name`: only that of this IPC process. `snap`: bytes of each packet at the most, without
    headers of IP and UDP. `timeo`: seconds that the node may take, None for no limit.

    A node keeps up to 2 MiB for each member until it is read, and loses what is more.

    Raises `FlowNameException` when no IPC process of this node fits, `FlowPermissionException` for a user other than the
    owner of the node and root, `UnsupportedError` with the C prototype, or `NodeError`. Starts no node.
    """
    snap = as_whole(snap, "snap")
    if not 0 < snap <= MOST_SNAP:
        raise ValueError(f"snap is a number of bytes from 1 to {MOST_SNAP}, not {snap}")
    limit = time_limit(timeo)
    with irm.running_node_only():
        ipcps = [ipcp for ipcp in irm.list_ipcps() if ipcp.layer and layer in (None, ipcp.layer)]
    ipcps = [ipcp for ipcp in ipcps if name in (None, ipcp.name)]
    if not ipcps:
        which = f"the layer {layer!r}" if layer else "any layer"
        who = f"the IPC process {name!r} is not" if name else "this node is not"
        raise FlowNameException(f"{who} in {which}: 'irm ipcp list' shows what there is")
    places = [Place(ipcp.layer, ipcp.name, ipcp.type.word, ipcp.address) for ipcp in ipcps]
    flows: list[Flow] = []
    try:
        for ipcp in ipcps:
            flow = Flow()
            flow._take(backend.request_flow(CaptureRequest(ipcp.pid, snap, limit)))
            flows.append(flow)
    except BaseException:
        for flow in flows:
            flow.dealloc()
        raise
    return Capture(places, flows, snap)


__all__ = ["MOST_SNAP", "SNAP", "Capture", "CaptureFile", "Packet", "Place", "capture"]
