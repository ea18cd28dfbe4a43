"""Ordered flows of an impaired local layer: the bad link loses packets, so they need FRCP between their two programs.

The engine has that for flows over UDP. So it talks to itself here: both ends of such a flow are in one worker, whose socket
sends to its own address on loopback, through the bad link.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping

from ouroboros.dataplane import Frcp, UdpWorker
from ouroboros.qos import QoSSpec
from ouroboros.runtime.udp import MPL
from ouroboros.wire.udp import PACKET_LENGTH

#: The whole packet, and a window of the largest that fit into a few MiB.
_PACKET = PACKET_LENGTH["udp4"]
_WINDOW = 4096
#: Bytes that cross loopback in one piece.
_MTU = 65_000


class LoopedFlows:
    """The ordered flows of one impaired local layer. `settings`: of its link. `told`: gets the last counters of a flow."""

    def __init__(self, settings: Mapping[str, float], told: Callable[[int, dict[str, int]], None]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.bind(("127.0.0.1", 0))
            self._address: tuple[str, int] = sock.getsockname()
            self.worker = UdpWorker(sock.detach())
        self.worker.set_impairment(**settings)  # type: ignore[arg-type]
        self._told = told
        self._random = random.SystemRandom()
        self._next_eid = 1
        #: The flow and the other end, by endpoint id.
        self._ends: dict[int, tuple[int, int]] = {}
        asyncio.get_running_loop().add_reader(self.worker.fileno(), self._read)

    def add(self, flow_id: int, qos: QoSSpec, ends: list[tuple[int, int, int]]) -> None:
        """Join the channels of two programs; `ends`: memory, bell and side of the engine in each, which are taken over."""
        # Never used again, so that no packet that is late reaches another flow.
        eids = self._next_eid, self._next_eid + 1
        self._next_eid += 2
        for (memory, bell, side), eid, peer_eid in zip(ends, eids, reversed(eids), strict=True):
            self._ends[eid] = flow_id, peer_eid
            self.worker.add(
                memory=memory,
                bell=bell,
                side=side,
                eid=eid,
                peer_eid=peer_eid,
                peer=self._address,
                mtu=_MTU,
                crc=qos.ber == 0,
                timeout=qos.timeout,
                seed=self._random.getrandbits(64),
                credit=False,
                frcp=Frcp(
                    reliable=qos.reliable,
                    own=True,
                    sack=True,
                    fragments=True,
                    window=_WINDOW,
                    max_packet=_PACKET - (4 if qos.ber == 0 else 0),
                    mpl=MPL,
                ),
            )

    def counters(self) -> tuple[tuple[int, int, int, int], dict[int, dict[str, int]]]:
        """Packets delivered, lost, duplicated and reordered; and what the engine counts for each flow's allocator."""
        layer, of_ends = self.worker.snapshot()
        ours = {
            self._ends[eid][0]: counters for eid, counters in sorted(of_ends.items(), reverse=True) if eid in self._ends
        }
        return (layer["received"], layer["lost"], layer["duplicated"], layer["reordered"]), ours

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self.worker.fileno())
        self.worker.stop()

    def _read(self) -> None:
        _, ends = self.worker.take_events()
        for eid, how, counters in ends:
            flow_id, peer_eid = self._ends.pop(eid)
            if eid < peer_eid:
                self._told(flow_id, counters)
            self.worker.peer_gone(peer_eid, how != "closed")
