"""Strangers in virtual time: they send what they like, in the name of any address, and see what comes back there."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from ouroboros.layers.effects import Address, Where
from ouroboros.oap import ClientHandshake, Settings
from ouroboros.qos import QoSSpec
from ouroboros.runtime.held import News
from ouroboros.testing.sim import Network
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import EID_LENGTH, FlowRequest, digest_of

#: Kinds of nodes that a request can come from, by what their extension says.
OURS, OLDER, PROTOTYPE = "ours", "older", "prototype"
FLAGS = {OURS: extension.DEALLOC | extension.RETRY, OLDER: extension.DEALLOC}


def forged(
    kind: str,
    number: int,
    wall: int,
    *,
    name: str = "clock",
    qos: QoSSpec | None = None,
    settings: Settings | None = None,
    cookie: int = 0,
) -> bytes:
    """A request that is in order, but for the proof of its address. `number`: no two have the same."""
    chance = random.Random(number)
    blob = b"" if kind == PROTOTYPE else Extension(FLAGS[kind], 8976, 4096, chance.randbytes(16)).encode()
    handshake = ClientHandshake(name, settings or Settings(), random=chance, wall=wall, data=blob)
    return FlowRequest(
        64 + number % 4000, qos or QoSSpec(timeout=0), digest_of(name), handshake.request, cookie
    ).encode()


class Strangers:
    """`got`: what came to each address."""

    def __init__(self, network: Network, addresses: Sequence[Address]) -> None:
        self._network = network
        self._engine = network._simulation.add_node()
        network.nodes.append(self)  # type: ignore[arg-type]
        members = {self._engine.open_port(ip, port, network.delay): (ip, port) for ip, port in addresses}
        self._members = {address: member for member, address in members.items()}
        self._addresses = members
        self.got: dict[Address, list[bytes]] = {address: [] for address in addresses}

    def say(self, source: Address, to: Address, data: bytes) -> None:
        self._engine.say(self._members[source], to, data)

    def packet(self, source: Address, to: Address, eid: int, payload: bytes) -> None:
        """A packet of a flow."""
        self.say(source, to, struct.pack(">I", eid) + payload)

    def flood(self, to: Address, each: Callable[[int], tuple[Address, bytes]], count: int, seconds: float) -> None:
        """So many datagrams in so much time, from now on."""
        for number in range(count):
            source, data = each(number)
            self._network.later(seconds * number / count, lambda s=source, d=data: self.say(s, to, d))  # type: ignore[misc]

    def hear(self, news: News) -> None:
        datagrams: list[tuple[int, Where, bytes]] = news[0]
        for member, _, data in datagrams:
            assert data[:EID_LENGTH] == bytes(EID_LENGTH)
            self.got[self._addresses[member]].append(data)
