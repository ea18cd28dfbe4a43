"""Somebody on a wire, with a raw socket: sees each frame, and sends what it likes in the name of either end.

`python outsider.py DEVICE SEED` runs where one end of the wire is, and sends to the other. It reads commands, a line
each, and answers with a line of JSON: `ready` is the first.

    capture        how many frames it has kept that went either way
    KIND COUNT     how many it has sent; kinds are in `KINDS`

Where there are no raw sockets it says so, `{"lacks": reason}`, and ends.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
from collections.abc import Callable

#: Frames that are kept: the first ones, as those of a beginning are worth most, and the latest.
FIRST, LATEST = 3000, 3000
#: Ethernet, IPv4 without options, UDP; and the endpoint id of a layer over UDP behind them.
_ETHERNET, _IP, _UDP, _EID = 14, 20, 8, 4
_HEADERS = _ETHERNET + _IP + _UDP
_IP_TYPE, _UDP_TYPE, _ALL, _OUTGOING = b"\x08\0", b"\x11", 3, 4
#: The longest payload in an Ethernet frame.
_LONGEST = 1500 - _IP - _UDP


class Outsider:
    def __init__(self, device: str, seed: int) -> None:
        # What goes out is shown to those that want to see all.
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._sock.bind((device, _ALL))
        self._sock.setblocking(False)
        self._random = random.Random(seed)
        #: The headers of a frame to the other end; what went there, and what went either way.
        self._head = b""
        self._sent: list[bytes] = []
        self._payloads: list[bytes] = []

    def fileno(self) -> int:
        return self._sock.fileno()

    def capture(self) -> None:
        """Keep what has come by."""
        while True:
            try:
                frame, (_, _, kind, *_) = self._sock.recvfrom(65536)
            except BlockingIOError:
                return
            ours = frame[_ETHERNET - 2 : _ETHERNET] == _IP_TYPE and frame[_ETHERNET + 9 : _ETHERNET + 10] == _UDP_TYPE
            # Fragments are none of its business.
            if not ours or len(frame) < _HEADERS + _EID or frame[_ETHERNET + 6] & 0x3F or frame[_ETHERNET + 7]:
                continue
            length = struct.unpack_from(">H", frame, _ETHERNET + _IP + 4)[0] - _UDP
            payload = frame[_HEADERS : _HEADERS + length]
            self._keep(self._payloads, payload)
            if kind == _OUTGOING:
                self._head = frame[:_HEADERS]
                self._keep(self._sent, payload)

    @staticmethod
    def _keep(kept: list[bytes], what: bytes) -> None:
        kept.append(what)
        if len(kept) > FIRST + LATEST:
            del kept[FIRST]

    @property
    def captured(self) -> int:
        return len(self._sent)

    # --- what it sends

    def attack(self, kind: str, count: int) -> int:
        make, sent = KINDS[kind], 0
        while sent < count:
            try:
                self._sock.send(make(self))
                sent += 1
            except (BlockingIOError, OSError):
                # The queue of the device is full.
                select.select([], [self._sock], [], 1)
            if sent % 64 == 0:
                self.capture()
        return sent

    def _frame(self, payload: bytes) -> bytes:
        """A datagram from the end that is here to the other one."""
        head = bytearray(self._head)
        payload = payload[:_LONGEST]
        struct.pack_into(">H", head, _ETHERNET + 2, _IP + _UDP + len(payload))
        struct.pack_into(">H", head, _ETHERNET + 10, 0)
        struct.pack_into(">H", head, _ETHERNET + 10, _checksum(head[_ETHERNET : _ETHERNET + _IP]))
        # No checksum of UDP: the kernel may not have made one for a device that is none.
        struct.pack_into(">HH", head, _ETHERNET + _IP + 4, _UDP + len(payload), 0)
        return bytes(head) + payload

    def replay(self) -> bytes:
        """What the end that is here has said, once more."""
        return self._frame(self._random.choice(self._sent))

    def reflect(self) -> bytes:
        """What either end has said, back to where it came from or to where it went."""
        return self._frame(self._random.choice(self._payloads))

    def stranger(self) -> bytes:
        """From a port and an address that nobody has."""
        frame = bytearray(self._frame(self._random.choice(self._payloads)))
        frame[_ETHERNET + 12 : _ETHERNET + 16] = self._random.randbytes(4)
        frame[_ETHERNET + _IP : _ETHERNET + _IP + 2] = self._random.randbytes(2)
        struct.pack_into(">H", frame, _ETHERNET + 10, 0)
        struct.pack_into(">H", frame, _ETHERNET + 10, _checksum(frame[_ETHERNET : _ETHERNET + _IP]))
        return bytes(frame)

    def blind(self) -> bytes:
        """In the name of the neighbour, for flows that there may be."""
        return self._frame(self._random.randbytes(self._random.choice((4, 5, 12, 19, 64, 1400))))

    def noise(self) -> bytes:
        """In the name of the neighbour, for a flow that there is."""
        eid = self._random.choice(self._payloads)[:_EID]
        return self._frame(eid + self._random.randbytes(self._random.choice((0, 1, 14, 15, 40, 1400))))

    def altered(self) -> bytes:
        """What either end has said, with some of it changed, cut, or with more behind."""
        data = bytearray(self._random.choice(self._payloads))
        for _ in range(self._random.randint(1, 4)):
            data[self._random.randrange(len(data))] = self._random.getrandbits(8)
        length = self._random.choice((len(data), len(data), self._random.randrange(len(data) + 1), len(data) + 9))
        return self._frame(bytes(data[:length].ljust(length, b"\0")))


KINDS: dict[str, Callable[[Outsider], bytes]] = {
    "replay": Outsider.replay,
    "reflect": Outsider.reflect,
    "stranger": Outsider.stranger,
    "blind": Outsider.blind,
    "noise": Outsider.noise,
    "altered": Outsider.altered,
}


def _checksum(head: bytes | bytearray) -> int:
    """Of an IPv4 header (RFC 791)."""
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return int(~(total + (total >> 16)) & 0xFFFF)


def main(device: str, seed: str) -> None:
    try:
        outsider = Outsider(device, int(seed))
    except OSError as error:
        print(json.dumps({"lacks": f"no raw sockets: {error}"}), flush=True)
        return
    print(json.dumps("ready"), flush=True)
    while True:
        readable, _, _ = select.select([outsider, sys.stdin], [], [])
        outsider.capture()
        if sys.stdin not in readable:
            continue
        kind, _, count = sys.stdin.readline().strip().partition(" ")
        if not kind:
            return
        print(json.dumps(outsider.captured if kind == "capture" else outsider.attack(kind, int(count))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
