"""Link-state updates of a unicast layer: what goes over management flows. Source: `unicast-control.md` 6.1.

An update says that its source has a data-transfer adjacency to its destination. It is 24 bytes long, numbers big-endian::

    destination | source | number
    0             8        16

A member of the C prototype drops whatever has another length. So members of ours can say more to each other: several updates
at once, which are acknowledged, and which can be withdrawn. No message of theirs is 24 bytes long.

======= ================= ==================================================
bytes   field             meaning
======= ================= ==================================================
0       kind              1 updates, 2 acknowledgement
1       version           0
updates
2–5     id                of the message, for its acknowledgement
6–      updates           31 bytes each: flags (1: withdrawn), three times 2 bytes: seconds since its source said it, the
                          longest packet that the source sends there, and the longest that goes in one piece (without
                          headers of the layer, 0 if that is not known), then as above
acknowledgement
2–      ids               4 bytes each, of the messages that arrived
======= ================= ==================================================
"""

from __future__ import annotations

import struct

import msgspec

from ouroboros.errors import ProtocolError

#: No member has a lower address: a member of the C prototype stops routing when it hears of one (`unicast-control.md` N43).
LEAST_ADDRESS = 1 << 16
#: Addresses have four bytes in front of packets.
MOST_ADDRESS = 0xFFFFFFFF
#: Of updates.
MOST_NUMBER = 0xFFFFFFFFFFFFFFFF

_UPDATE = struct.Struct(">QQQ")
_MARKED = struct.Struct(">BHHHQQQ")
_UPDATES = struct.Struct(">BBI")
_KIND = struct.Struct(">BB")
_ID = struct.Struct(">I")

#: The greatest age that can be said, seconds, and the greatest length, bytes.
MOST_AGE = 0xFFFF
MOST_LENGTH = 0xFFFF

#: Bytes of an update.
LENGTH = _UPDATE.size

#: Updates and ids in a message.
MOST_UPDATES = 48
MOST_IDS = 256

_UPDATES_KIND = 1
_IDS_KIND = 2
_VERSION = 0
_WITHDRAWN = 1


class LinkStateUpdate(msgspec.Struct, frozen=True):
    """`source` has an adjacency to `destination`, or (`withdrawn`) none any more. The greatest `number` counts.

    `age`: seconds since the source said so, or since a member of the prototype told it on, which knows no ages.
    `most`, `whole`: bytes of the longest packet that the source sends there, without headers of the layer, and of the
    longest that goes in one piece; 0: not known, as when a member of the prototype told it on.
    """

    destination: int
    source: int
    number: int
    withdrawn: bool = False
    age: int = 0
    most: int = 0
    whole: int = 0

    def encode(self) -> bytes:
        """The update alone, as every member reads it: a withdrawal cannot be said so."""
        if self.withdrawn:
            raise ValueError("a withdrawal fits only into a message between members of ours")
        return _UPDATE.pack(self.destination, self.source, self.number)


class Updates(msgspec.Struct, frozen=True):
    """Several at once, between members of ours."""

    id: int
    updates: tuple[LinkStateUpdate, ...]

    def encode(self) -> bytes:
        if len(self.updates) > MOST_UPDATES:
            raise ValueError(f"{len(self.updates)} updates; a message takes {MOST_UPDATES}")
        parts = [_UPDATES.pack(_UPDATES_KIND, _VERSION, self.id)]
        for each in self.updates:
            flags = _WITHDRAWN if each.withdrawn else 0
            parts.append(
                _MARKED.pack(flags, each.age, each.most, each.whole, each.destination, each.source, each.number)
            )
        return b"".join(parts)


class Acknowledgement(msgspec.Struct, frozen=True):
    """The `Updates` with these ids arrived."""

    ids: tuple[int, ...]

    def encode(self) -> bytes:
        if len(self.ids) > MOST_IDS:
            raise ValueError(f"{len(self.ids)} ids; a message takes {MOST_IDS}")
        return _KIND.pack(_IDS_KIND, _VERSION) + struct.pack(f">{len(self.ids)}I", *self.ids)


Message = LinkStateUpdate | Updates | Acknowledgement


def fitting(room: int) -> int:
    """How many updates a message of so many bytes takes, at least one."""
    return max(1, min(MOST_UPDATES, (room - _UPDATES.size) // _MARKED.size))


def decode(data: bytes, *, ours: bool = False) -> Message:
    """The message in a packet of a management flow. `ours`: the neighbour is a member of ours. Raises `ProtocolError`."""
    if len(data) == LENGTH:
        return _checked(*_UPDATE.unpack(data))
    if not ours:
        raise ProtocolError(f"length: {len(data)} bytes; a link-state update has {LENGTH}")
    kind, rest = data[:1], len(data)
    if kind == bytes((_UPDATES_KIND,)) and _fits(rest, _UPDATES.size, _MARKED.size, MOST_UPDATES):
        return _decode_updates(data)
    if kind == bytes((_IDS_KIND,)) and _fits(rest, _KIND.size, _ID.size, MOST_IDS):
        return Acknowledgement(tuple(each for (each,) in _ID.iter_unpack(data[_KIND.size :])))
    raise ProtocolError(f"kind: {kind.hex() or 'none'} with {len(data)} bytes is no message of management flows")


def _fits(length: int, head: int, item: int, most: int) -> bool:
    count, left = divmod(length - head, item)
    return left == 0 and 1 <= count <= most


def _decode_updates(data: bytes) -> Updates:
    _, _, id = _UPDATES.unpack_from(data)
    marked = _MARKED.iter_unpack(data[_UPDATES.size :])
    return Updates(
        id,
        tuple(
            _checked(destination, source, number, bool(flags & _WITHDRAWN), age, most, whole)
            for flags, age, most, whole, destination, source, number in marked
        ),
    )


def _checked(
    destination: int,
    source: int,
    number: int,
    withdrawn: bool = False,
    age: int = 0,
    most: int = 0,
    whole: int = 0,
) -> LinkStateUpdate:
    for field, address in (("destination", destination), ("source", source)):
        if not LEAST_ADDRESS <= address <= MOST_ADDRESS:
            raise ProtocolError(f"{field}: {address:#x} is no address of a member")
    if source == destination:
        raise ProtocolError(f"source: {source:#x} has itself as neighbour")
    return LinkStateUpdate(destination, source, number, withdrawn, age, most, whole)
