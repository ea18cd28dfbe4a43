"""Files of captures, taken apart by an independent reader."""

from __future__ import annotations

import struct

import dpkt


def blocks(file: bytes) -> list[tuple[int, bytes]]:
    """Kinds and bodies, by the lengths at both ends of each block."""
    found = []
    while file:
        kind, length = struct.unpack_from("<II", file)
        assert length % 4 == 0
        assert struct.unpack_from("<I", file, length - 4) == (length,)
        found.append((kind, file[8 : length - 4]))
        file = file[length:]
    return found


def opened(body: bytes) -> dpkt.pcapng.EnhancedPacketBlockLE:
    """A packet of the file, by the body of its block."""
    length = struct.pack("<I", len(body) + 12)
    return dpkt.pcapng.EnhancedPacketBlockLE(struct.pack("<I", 6) + length + body + length)
