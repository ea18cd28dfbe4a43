"""What two of our nodes tell each other about a flow, beyond what version 0.23 of the C prototype can say.

The blob rides in the `data` field of the OAP request and response, which the prototype ignores. A response carries one only
if its request did. Both sides then use what both can do.

======= ============ ==========================================================================================
bytes   field        meaning
======= ============ ==========================================================================================
0–3     magic        `pyO7`
4       version      1
5       flags        what the sender of the blob can do: `DEALLOC`, `FRAGMENTS`, `SACK`, `CREDIT`, `CRC`,
                      `REPLAY`, `RETRY`
6–7     max_packet   the largest packet of the flow, without the endpoint id, that the sender receives whole; from
                      `LEAST_PACKET` on
8–11    window       the most FRCP packets beyond the last one read that the sender takes
12–27   request      a random number of the allocation, the same in all repetitions of its request
======= ============ ==========================================================================================

Numbers are big-endian. Later versions append fields, so longer blobs are read as far as they are known.
"""

from __future__ import annotations

import struct

import msgspec

MAGIC = b"pyO7"
VERSION = 1

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

#: Bytes of a blob of this version.
LENGTH = _LAYOUT.size


class Extension(msgspec.Struct, frozen=True):
    """One side's blob, or what both sides agree on."""

    flags: int
    max_packet: int
    window: int
    request: bytes

    def encode(self) -> bytes:
        return _LAYOUT.pack(MAGIC, VERSION, self.flags, self.max_packet, self.window, self.request)

    def agree(self, own: Extension) -> Extension:
        """What is in force when the peer said this and we said `own`; sizes stay those that the peer receives."""
        return Extension(self.flags & own.flags, self.max_packet, self.window, self.request)

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)


def decode(data: bytes) -> Extension | None:
    """The blob in that data; None when it is not one of ours, which includes versions we do not know how to read."""
    if len(data) < LENGTH or data[:4] != MAGIC:
        return None
    _, version, flags, max_packet, window, request = _LAYOUT.unpack_from(data)
    if version < VERSION or max_packet < LEAST_PACKET:
        return None
    return Extension(flags, max_packet, window, request)
