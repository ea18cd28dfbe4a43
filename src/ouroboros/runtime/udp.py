"""UDP layers in the world: their sockets, the engine's thread behind each, and name resolution."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable

from ouroboros.control.effects import Address, Attach, OpenLayer, PeerGone, Reserve, Resolve, SendManagement, Unreserve
from ouroboros.control.irm import Irm
from ouroboros.dataplane import MAX_PACKET, Frcp, UdpWorker
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.suites import CIPHER_BY_NUMBER
from ouroboros.wire.udp import EID_LENGTH, PACKET_LENGTH

#: The longest time that a packet may live in a layer over UDP, nanoseconds (`frcp.md` 3). Both ends must assume the same.
MPL = 5_000_000_000
#: Bytes that FRCP and the checksum add to a packet (`flows.md` 9); those of encryption depend on the cipher.
FRCP_LENGTH = 12
CRC_LENGTH = 4

_FAMILIES = {"udp4": socket.AF_INET, "udp6": socket.AF_INET6}
#: Headers of IP and UDP, bytes.
_HEADERS = {"udp4": 28, "udp6": 48}
#: From the kernel's headers; the socket module has no names for them.
_IP_MTU_DISCOVER, _IP_PMTUDISC_WANT, _IP_MTU = 10, 1, 14
_IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _IPV6_MTU = 23, 62, 24


class UdpRuntime:
    """The UDP layers of one node. `carry_out` is called after the IRM was told something."""

    def __init__(self, irm: Irm, carry_out: Callable[[], None]) -> None:
        self._irm = irm
        self._carry_out = carry_out
        self._random = random.SystemRandom()
        self._families: dict[int, str] = {}
        #: Ids of flows by layer and endpoint id.
        self._flows: dict[tuple[int, int], int] = {}
        self._resolving: set[asyncio.Task[None]] = set()
        self.workers: dict[int, UdpWorker] = {}

    def open(self, effect: OpenLayer) -> None:
        try:
            worker = _start(effect)
        except OSError as error:
            where = f"{effect.address} port {effect.port}"
            self._irm.layer_failed(effect.ipcp, f"cannot use {where} for a UDP layer: {error.strerror or error}")
            return
        self.workers[effect.ipcp], self._families[effect.ipcp] = worker, effect.family
        asyncio.get_running_loop().add_reader(worker.fileno(), self._read, effect.ipcp)
        self._irm.layer_opened(effect.ipcp)

    def stop(self, ipcp: int) -> None:
        """No error when there is no such layer."""
        if (worker := self.workers.pop(ipcp, None)) is not None:
            asyncio.get_running_loop().remove_reader(worker.fileno())
            worker.stop()
            self._flows = {key: flow_id for key, flow_id in self._flows.items() if key[0] != ipcp}

    def attach(self, effect: Attach, memory: int, bell: int) -> int:
        """Carry a flow, whose descriptors are taken over; returns the longest message that it takes."""
        worker = self.workers.get(effect.ipcp)
        if worker is None:
            os.close(memory)
            os.close(bell)
            raise OSError(0, "its layer ended")
        self._flows[effect.ipcp, effect.eid] = effect.flow_id
        family, qos = self._families[effect.ipcp], effect.qos
        mtu = _path_mtu(family, effect.address) - _HEADERS[family]
        session = effect.session
        overhead = 0 if session is None else CIPHER_BY_NUMBER[session.cipher].overhead
        packet, longest = _sizes(family, mtu, qos, effect.extension, overhead)
        worker.add(
            memory=memory,
            bell=bell,
            side=1 - effect.side,
            eid=effect.eid,
            peer_eid=effect.peer_eid,
            peer=effect.address,
            mtu=mtu,
            crc=qos.ber == 0,
            timeout=qos.timeout,
            seed=self._random.getrandbits(64),
            credit=_has(effect.extension, extension.CREDIT),
            frcp=_frcp(qos, effect.extension, packet) if qos.ordered else None,
            suite=0 if session is None else session.cipher,
            key=None if session is None else session.key,
            reject_replays=_has(effect.extension, extension.REPLAY),
        )
        return longest

    def send(self, effect: SendManagement) -> None:
        if (worker := self.workers.get(effect.ipcp)) is not None:
            worker.send(effect.data, effect.address)

    def reserve(self, effect: Reserve) -> None:
        if (worker := self.workers.get(effect.ipcp)) is not None:
            worker.reserve(effect.eid, effect.address)

    def unreserve(self, effect: Unreserve) -> None:
        if (worker := self.workers.get(effect.ipcp)) is not None:
            worker.unreserve(effect.eid)

    def peer_gone(self, effect: PeerGone) -> None:
        if (worker := self.workers.get(effect.ipcp)) is not None:
            worker.peer_gone(effect.eid, effect.died)

    def resolve(self, effect: Resolve) -> None:
        task = asyncio.get_running_loop().create_task(self._resolve(effect), name=f"resolve {effect.host}")
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _resolve(self, effect: Resolve) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                effect.host, None, family=_FAMILIES[effect.family], type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
            )
        except OSError:
            found = []
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        self._irm.resolved(effect.ipcp, effect.token, addresses, loop.time())
        self._carry_out()

    def _read(self, ipcp: int) -> None:
        now = asyncio.get_running_loop().time()
        datagrams, ends = self.workers[ipcp].take_events()
        for data, address in datagrams:
            self._irm.management_arrived(ipcp, data, address, now)
        for eid, how, counters in ends:
            flow = self._irm.flows.flows.get(self._flows.pop((ipcp, eid), 0))
            # The id may belong to another flow by now.
            if flow is not None and flow.remote is not None and (flow.remote.ipcp, flow.remote.eid) == (ipcp, eid):
                flow.counters = counters
            self._irm.flow_ended(ipcp, eid, how, now)
        self._carry_out()

    def shut_down(self) -> None:
        for task in self._resolving:
            task.cancel()


def _start(effect: OpenLayer) -> UdpWorker:
    """Raises `OSError` when the address or the port cannot be had."""
    with socket.socket(_FAMILIES[effect.family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        if effect.family == "udp6":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((effect.address, effect.port))
        worker = UdpWorker(os.dup(sock.fileno()))
        # The engine's socket forbids fragments, but a datagram of the C prototype may be longer than a path carries whole.
        if effect.family == "udp6":
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_WANT)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_WANT)
    return worker


def _path_mtu(family: str, address: Address) -> int:
    """What the kernel knows of the path: the MTU of the route, or less when a router said so."""
    with socket.socket(_FAMILIES[family], socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        if family == "udp6":
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)


def _sizes(family: str, mtu: int, qos: QoSSpec, peer: Extension | None, overhead: int = 0) -> tuple[int, int]:
    """The longest packet above encryption, checksum and endpoint id, and the longest message.

    `overhead`: bytes that encryption adds. What a peer receives whole includes it.
    """
    packet = PACKET_LENGTH[family] if peer is None else min(PACKET_LENGTH[family], peer.max_packet)
    if _has(peer, extension.FRAGMENTS) and qos.ordered:
        # What is longer is carried in several packets, none of which IP has to cut.
        packet = min(packet, mtu - EID_LENGTH)
    if qos.ber == 0:
        packet -= CRC_LENGTH
    packet -= overhead
    if not qos.ordered:
        return packet, packet
    return packet, MAX_PACKET if _has(peer, extension.FRAGMENTS) else packet - FRCP_LENGTH


def _frcp(qos: QoSSpec, peer: Extension | None, packet: int) -> Frcp:
    return Frcp(
        reliable=qos.reliable,
        own=peer is not None,
        sack=_has(peer, extension.SACK),
        fragments=_has(peer, extension.FRAGMENTS),
        window=0 if peer is None else peer.window,
        max_packet=packet,
        mpl=MPL,
    )


def _has(peer: Extension | None, flag: int) -> bool:
    return peer is not None and peer.has(flag)
