"""What two of our nodes tell each other about a flow, beyond what version 0.23 of the C prototype can say.

The blob rides in the `data` field of the OAP request and response, which the prototype ignores. A response carries one only
if its request did. Both sides then use what both can do.

======= ============ ==========================================================================================
bytes   field        meaning
======= ============ ==========================================================================================
0–3     magic        `pyO7`
4       version      1; 2 with `whole`
5       flags        what the sender of the blob can do: `DEALLOC`, `FRAGMENTS`, `SACK`, `CREDIT`, `CRC`,
                      `REPLAY`, `RETRY`
6–7     max_packet   the largest packet of the flow, without the endpoint id, that the sender receives whole; from
                      `LEAST_PACKET` on
8–11    window       the most FRCP packets beyond the last one read that the sender takes
12–27   request      a random number of the allocation, the same in all repetitions of its request
28–29   whole        the largest packet that crosses the way between the two in one piece, as far as its sender knows
======= ============ ==========================================================================================

Numbers are big-endian. Later versions append fields, so longer blobs are read as far as they are known.
"""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"pyO7"
VERSION = 2
#: Of one that does not say what the way carries in one piece.
_FIRST_VERSION = 1

#: The peer is told of a deallocation.
DEALLOC = 1
#: Messages longer than a packet arrive whole.
FRAGMENTS = 2
#: Acknowledgements say which packets arrived out of order.
SACK = 4
#: Senders of flows without FRCP are held back when the receiver is slow.
CREDIT = 8
#: `ber` is 0, although the request says 1: a node of the C prototype has no CRC on flows with FRCP that works.
CRC = 16
#: The IVs of an encrypted flow tell epoch, sender and number, so that the receiver rejects packets that came before.
REPLAY = 32
#: A request is sent again with a cookie when it is asked for one. So it comes from where it says, if the engine lets it in.
RETRY = 64

#: The largest `max_packet` that can be said, and the smallest that is believed: header, checksum, what a cipher adds, and a
#: bit of a message fit in.
LONGEST_PACKET = 0xFFFF
LEAST_PACKET = 128

_LAYOUT = struct.Struct(">4sBBHI16s")
_WHOLE = struct.Struct(">H")

#: Bytes of a blob of the first version.
LENGTH = _LAYOUT.size


class Extension(msgspec.Struct, frozen=True):
    """One side's blob, or what both sides agree on. `whole`: 0 if it does not say."""

    flags: int
    max_packet: int
    window: int
    request: bytes
    whole: int = 0

    def encode(self) -> bytes:
        version = VERSION if self.whole else _FIRST_VERSION
        data = _LAYOUT.pack(MAGIC, version, self.flags, self.max_packet, self.window, self.request)
        return data + _WHOLE.pack(self.whole) if self.whole else data

    def agree(self, own: Extension) -> Extension:
        """What is in force when the peer said this and we said `own`: lengths are those that both carry."""
        whole = min(filter(None, (self.whole, own.whole)), default=0)
        longest = min(self.max_packet, own.max_packet)
        return Extension(self.flags & own.flags, longest, self.window, self.request, whole)

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)


def decode(data: bytes) -> Extension | None:
    """The blob in that data; None when it is not one of ours, which includes versions we do not know how to read."""
    if len(data) < LENGTH or data[:4] != MAGIC:
        return None
    _, version, flags, max_packet, window, request = _LAYOUT.unpack_from(data)
    if version < _FIRST_VERSION or max_packet < LEAST_PACKET:
        return None
    has_whole = version > _FIRST_VERSION and len(data) >= LENGTH + _WHOLE.size
    (whole,) = _WHOLE.unpack_from(data, LENGTH) if has_whole else (0,)
    return Extension(flags, max_packet, window, request, whole if whole >= LEAST_PACKET else 0)
