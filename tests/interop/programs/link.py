"""A link between two nodes that believe it to be their peer: it loses, repeats, reorders and adds datagrams.

Arguments: address and port of its near face, of its far face, of the near node, of the far node; a seed. Each line of its
input is a JSON object of faults, and is answered with the counters. Probabilities, for each datagram of a flow:

loss, from_near, from_far      it is lost, in both directions or in one
duplicate, reorder             it goes twice; it is overtaken by the next
junk                           something follows it to the near node that has its endpoint id and is no packet

and numbers: `requests` and `replies` of flow allocation that are lost from now on. Other management is never lost, because
the prototype does not repeat it.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
from collections import Counter

MANAGEMENT = bytes(4)
CODE = 44
REQUEST, REPLY = 1, 2
NEAR, FAR = 0, 1
#: Seconds that a datagram waits at most for one to be overtaken by.
HELD = 0.005


class Link:
    def __init__(self, faces: list[tuple[str, int]], nodes: list[tuple[str, int]], seed: int) -> None:
        self.sockets = [self._open(face) for face in faces]
        self._nodes = nodes
        self._random = random.Random(seed)
        self._faults: dict[str, float] = {}
        self._held: list[tuple[int, bytes]] = []
        self.counted: Counter[str] = Counter()

    @staticmethod
    def _open(face: tuple[str, int]) -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if ":" in face[0] else socket.AF_INET, socket.SOCK_DGRAM)
        # SO_RCVBUFFORCE, which has no name in Python: nothing is to be lost but on purpose.
        opened.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
        opened.bind(face)
        opened.setblocking(False)
        return opened

    def set(self, faults: dict[str, float]) -> None:
        self._faults |= faults

    def waiting(self) -> bool:
        return bool(self._held)

    def take(self, side: int) -> None:
        """Carry what waits at one face."""
        while True:
            try:
                datagram, source = self.sockets[side].recvfrom(65536)
            except BlockingIOError:
                return
            if source[:2] == self._nodes[side]:
                self._carry(side, datagram)

    def _carry(self, side: int, datagram: bytes) -> None:
        if self._is_lost(side, datagram):
            self.counted["lost"] += 1
            return
        if datagram[:4] != MANAGEMENT and self._happens("reorder"):
            self.counted["reordered"] += 1
            self._held.append((side, datagram))
            return
        self._send(side, datagram)
        if datagram[:4] != MANAGEMENT and self._happens("duplicate"):
            self.counted["duplicated"] += 1
            self._send(side, datagram)
        if side == FAR and datagram[:4] != MANAGEMENT and self._happens("junk"):
            self.counted["junk"] += 1
            self._send(side, self._broken(datagram))
        self.release()

    def _is_lost(self, side: int, datagram: bytes) -> bool:
        if datagram[:4] == MANAGEMENT:
            fault = {REQUEST: "requests", REPLY: "replies"}.get(datagram[CODE] if len(datagram) > CODE else 0)
            if fault is None or self._faults.get(fault, 0) < 1:
                return False
            self._faults[fault] -= 1
            return True
        return self._happens("loss") or self._happens(("from_near", "from_far")[side])

    def _happens(self, fault: str) -> bool:
        return self._random.random() < self._faults.get(fault, 0)

    def _broken(self, datagram: bytes) -> bytes:
        """Something for the same flow that is no packet of it: too short, or without a known flag."""
        if self._random.random() < 0.5:
            return datagram[: 4 + self._random.randrange(1, 12)]
        return datagram[:4] + bytes([0xE0]) + self._random.randbytes(self._random.randrange(11, 40))

    def release(self) -> None:
        while self._held:
            self._send(*self._held.pop())

    def _send(self, side: int, datagram: bytes) -> None:
        self.counted["carried"] += 1
        if datagram[:4] == MANAGEMENT:
            self.counted["management from " + ("near", "far")[side]] += 1
        try:
            self.sockets[1 - side].sendto(datagram, self._nodes[1 - side])
        except BlockingIOError:
            self.counted["overrun"] += 1


def main() -> None:
    addresses = [(address, int(port)) for address, port in zip(sys.argv[1:9:2], sys.argv[2:9:2], strict=True)]
    link = Link(addresses[:2], addresses[2:], int(sys.argv[9]))
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([sys.stdin, *link.sockets], [], [], HELD if link.waiting() else None)
        if not readable:
            link.release()
        for side in (NEAR, FAR):
            if link.sockets[side] in readable:
                link.take(side)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            link.set(json.loads(line))
            print(json.dumps(link.counted), flush=True)


main()
