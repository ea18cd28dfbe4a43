"""What a member of a unicast layer does with a packet, as slow and plain as it can be said (`unicast-data.md` 2, 3, 5.3).

The oracle for the engine."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

PCI = struct.Struct("<IBBBQ")
#: The message of the flow allocator that a receiver of marked packets sends: of its fields those that are not 0.
UPDATE = struct.Struct(">8xQ40xHB2x")


#: The component that answers probes, also those that end here.
PROBES = 2


class Pci(NamedTuple):
    """The header of a packet."""

    destination: int
    cube: int
    ttl: int
    ecn: int
    eid: int

    def pack(self) -> bytes:
        return PCI.pack(*self)


class Outcome(NamedTuple):
    """`what`: "forwarded" (to the neighbour at `where`), "heard" (by the component `where`), "delivered" (to the flow
    `where`), or why it was dropped."""

    what: str
    where: int = 0
    packet: bytes = b""


@dataclass
class Twin:
    """A member. `up`: neighbours with a lower flow that is up. `most`: of the longest packet that each carries. `flows`:
    endpoint ids."""

    address: int
    max_ttl: int
    table: Mapping[int, tuple[int, ...]]
    up: frozenset[int]
    most: int
    flows: frozenset[int]

    def take(self, came_from: int, packet: bytes) -> Outcome:
        """`came_from`: a neighbour."""
        if len(packet) < PCI.size:
            return Outcome("malformed")
        pci, payload = Pci(*PCI.unpack_from(packet)), packet[PCI.size :]
        if pci.destination == self.address:
            return self._keep(pci, payload)
        most = self.max_ttl or 255
        ttl = 255 if pci.ttl == self.max_ttl == 0 else pci.ttl
        if min(ttl, most) <= 1:
            return Outcome("heard", PROBES, payload) if pci.eid == PROBES else Outcome("ttl")
        hops = [hop for hop in self.table.get(pci.destination, ()) if hop in self.up]
        if not hops:
            return Outcome("no_route")
        if hops[0] == came_from:
            return Outcome("returned")
        if len(packet) > self.most:
            return Outcome("too_long")
        return Outcome("forwarded", hops[0], pci._replace(ttl=min(ttl, most) - 1).pack() + payload)

    def _keep(self, pci: Pci, payload: bytes) -> Outcome:
        if pci.eid in (0, 1, PROBES):
            return Outcome("heard", pci.eid, payload)
        if pci.eid < 64:
            return Outcome("unknown_eid")
        return Outcome("delivered" if pci.eid in self.flows else "unknown", pci.eid, payload)


def told(marks: Iterable[int]) -> Iterator[int]:
    """What the receiver of packets with those marks tells the sender (`unicast-data.md` 5.3)."""
    ece = count = 0
    for mark in marks:
        before = ece
        if not before:
            ece, count = mark, 0
            if mark:
                yield ece
        elif mark:
            ece += mark - ece // 32
            if count % 8 == 1:
                yield min(ece, 2079)
            count += 1
        else:
            ece //= 4
            if not ece:
                yield 0
