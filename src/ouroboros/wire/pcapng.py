"""Files of captured packets, pcapng, block by block. Source: draft-ietf-opsawg-pcapng 1.0, sections 3 and 4.

A file is a `section`, then an `interface` for each place of capture, then a `packet` for each packet, and `statistics` at
the end. All numbers are little-endian, times are nanoseconds since 1970.
"""

from __future__ import annotations

import struct

#: Link types: packets of IP, the version in the first four bits; packets of whoever writes the file.
RAW_IP, USER0 = 101, 147

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_COMMENT, _APPLICATION = 1, 4
_NAME, _DESCRIPTION, _RESOLUTION = 2, 3, 9
_FLAGS, _DROPPED = 2, 4
_RECEIVED, _LOST = 4, 5
#: The longest value of an option, bytes.
_LONGEST = 0xFFFF


def section(application: str) -> bytes:
    """The beginning of a file, which `application` writes. How long it becomes is not said, so it can go into a pipe."""
    return _block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1), [(_APPLICATION, application.encode())])


def interface(link: int, snap: int, name: str, description: str) -> bytes:
    """A place of capture; the first has number 0. `snap`: the most bytes of a packet."""
    options = [(_NAME, name.encode()), (_DESCRIPTION, description.encode()), (_RESOLUTION, b"\x09")]
    return _block(_INTERFACE, struct.pack("<HHI", link, 0, snap), options)


def packet(
    interface: int, time: int, data: bytes, length: int, *, outward: bool, comment: str = "", dropped: int = 0
) -> bytes:
    """A packet, of whose `length` bytes `data` is the beginning. `dropped`: packets lost since the one before."""
    fixed = struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    options = [(_COMMENT, comment.encode())] if comment else []
    options.append((_FLAGS, struct.pack("<I", 2 if outward else 1)))
    if dropped:
        options.append((_DROPPED, struct.pack("<Q", dropped)))
    return _block(_PACKET, fixed + _padded(data), options)


def statistics(interface: int, time: int, received: int, lost: int) -> bytes:
    """Packets of an interface up to that time: all of them, and those of them that are not in the file."""
    fixed = struct.pack("<III", interface, time >> 32, time & 0xFFFFFFFF)
    return _block(_STATISTICS, fixed, [(_RECEIVED, struct.pack("<Q", received)), (_LOST, struct.pack("<Q", lost))])


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]]) -> bytes:
    for code, value in options:
        cut = value[:_LONGEST]
        body += struct.pack("<HH", code, len(cut)) + _padded(cut)
    body += bytes(4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
