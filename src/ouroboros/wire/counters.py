"""The file in which the engine of a node counts, byte by byte. Pure. `rust/shm/src/board.rs` writes it.

It changes while it is read, so it is read twice, one after the other: a slot that is the same in both copies, with an even
sequence number, was not being written. It says itself what its counters are called, and may have more than are known here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ouroboros.errors import ProtocolError

#: The first bytes.
MAGIC = b"OUROCNTS"
#: Of this layout.
VERSION = 1

_HEADER = struct.Struct("<8s9Q")
_SLOT = struct.Struct("<3Q")
#: The place of an id, of which one that comes later is greater.
_PLACE = 0xFFFF_FFFF
#: Not all flows have these counters.
_FRCP = "frcp_"
#: Bytes of a header, and of a slot, at the most.
_LONGEST = 1 << 20


class Header(NamedTuple):
    """`slots`: how many are in use, and `slot`: bytes of each. `instance`: tells the engine from those before it. `pid`: its
    process. `updated`: nanoseconds since 1970. `missing`: flows and members without room. `kinds`: for each the names of
    its counters."""

    start: int
    slot: int
    slots: int
    instance: int
    pid: int
    updated: int
    missing: int
    kinds: dict[str, tuple[str, ...]]


def parse_header(data: bytes) -> Header:
    """Raises `ProtocolError` when it is none."""
    if data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("it is no file of counters")
    if len(data) < _HEADER.size:
        raise ProtocolError("it is cut short")
    _, version, start, slot, count, instance, pid, updated, missing, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ProtocolError(
            f"its layout has version {version}, and this program knows {VERSION}: update the older of the two"
        )
    if not _HEADER.size <= start <= _LONGEST or not _SLOT.size <= slot <= _LONGEST or slot % 8:
        raise ProtocolError(f"its header of {start} bytes or its slots of {slot} bytes make no sense")
    if start + count * slot > len(data) or _HEADER.size + length > start:
        raise ProtocolError(f"it is cut short: {count} slots of {slot} bytes do not fit into {len(data)} bytes")
    try:
        text = data[_HEADER.size : _HEADER.size + length].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the names of its counters are no text: {error}") from error
    kinds = {kind: tuple(names) for kind, *names in (line.split() or [""] for line in text.split("\n"))}
    return Header(start, slot, count, instance, pid, updated, missing, kinds)


class Counters:
    """What is in two copies of a file. `torn`: offsets of slots that were being written. Raises `ProtocolError`."""

    def __init__(self, one: bytes, other: bytes) -> None:
        self.header = parse_header(one)
        self.torn: list[int] = []
        self._kinds = list(self.header.kinds)
        #: By kind and id.
        self._slots: dict[tuple[str, int], bytes] = {}
        #: The id that has each place.
        self._latest: dict[tuple[str, int], int] = {}
        for number in range(self.header.slots):
            at = self.header.start + number * self.header.slot
            if not self.mend(one[at : at + self.header.slot], other[at : at + self.header.slot]):
                self.torn.append(at)

    def mend(self, one: bytes, other: bytes) -> bool:
        """Take two copies of a slot. False: it was being written."""
        if one != other or len(one) < _SLOT.size or one[0] & 1:
            return False
        _, id, about = _SLOT.unpack_from(one)
        kind, count = about & 0xFF, about >> 16
        if _SLOT.size + 8 * count > len(one):
            raise ProtocolError(f"a slot has {count} counters, for which it has no room")
        # A kind that is not known here is none of ours.
        if kind < len(self._kinds):
            self._slots[self._kinds[kind], id] = one
            self._latest[self._kinds[kind], id & _PLACE] = id
        return True

    def of(self, kind: str, id: int) -> dict[str, int] | None:
        """The counters of a "layer" or a "flow", by name; None: there are none any more. One that has no slot yet has
        counted nothing."""
        slot = self._slots.get((kind, id))
        if slot is None:
            is_new = not self.torn and not self.header.missing and self._latest.get((kind, id & _PLACE), -1) < id
            names = self.header.kinds.get(kind, ())
            return dict.fromkeys((name for name in names if not name.startswith(_FRCP)), 0) if is_new else None
        count = _SLOT.unpack_from(slot)[2] >> 16
        return dict(zip(self.header.kinds[kind], struct.unpack_from(f"<{count}Q", slot, _SLOT.size), strict=False))
