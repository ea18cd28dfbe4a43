"""Nodes without sockets, joined by a network that loses, repeats, delays and invents management datagrams in no time.

Each `Node` objects when an effect does not fit what it knows: an endpoint id that is not free, a flow that nobody reserved.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from irm_world import EngineEnd, World
from support import udp_settings

from ouroboros.errors import ProtocolError
from ouroboros.layers.effects import (
    Address,
    Attach,
    CloseMember,
    OpenPort,
    PeerGone,
    Reserve,
    Resolve,
    SendManagement,
    Unreserve,
)
from ouroboros.layers.face import How
from ouroboros.layers.udp import UdpIpcp
from ouroboros.layers.udp.directory import UdpEnd
from ouroboros.oap import Session
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    RegisterName,
)
from ouroboros.wire.extension import Extension
from ouroboros.wire.oap import decode as decode_oap
from ouroboros.wire.udp import MANAGEMENT_LENGTH, FlowRequest, FlowRetry, decode

#: Somebody on the network who is no node.
STRANGER: Address = ("192.0.2.66", 666)


@dataclass
class Faults:
    """What the network does to datagrams; probabilities."""

    loss: float = 0.0
    duplicate: float = 0.0
    garbage: float = 0.0
    #: Seconds, at most; more than the time between two datagrams reorders them.
    jitter: float = 0.0
    #: A bit is another one.
    damage: float = 0.0


@dataclass
class Carried:
    """A flow that the engine of a node has, or had."""

    flow_id: int
    name: str
    side: int
    end: UdpEnd

    @property
    def eid(self) -> int:
        return self.end.eid

    @property
    def peer_eid(self) -> int:
        return self.end.peer_eid

    @property
    def address(self) -> Address:
        return self.end.address

    @property
    def qos(self) -> QoSSpec:
        return self.end.qos

    @property
    def extension(self) -> Extension | None:
        return self.end.extension

    @property
    def session(self) -> Session | None:
        """None for plaintext."""
        return self.end.session if self.end.session.cipher else None


class Network:
    """Virtual time, the way of datagrams from node to node, and what nodes with a UDP layer each make of it."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.faults = Faults()
        self.nodes: dict[Address, Node] = {}
        #: Addresses of names, for the resolver: by the hexadecimal digits of their MD5.
        self.hosts: dict[str, list[str]] = {}
        #: All that was sent: from, to, bytes.
        self.sent: list[tuple[Address, Address, bytes]] = []
        self.random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._serial), what))

    def send(self, source: Address, target: Address, data: bytes) -> None:
        self.sent.append((source, target, data))
        faults, draw = self.faults, self.random.random
        copies = 2 if draw() < faults.duplicate else 1
        for _ in range(copies):
            if draw() >= faults.loss:
                self.deliver(source, target, self.damaged(data), 0.001 + draw() * faults.jitter)
        if draw() < faults.garbage:
            self.deliver(STRANGER, target, self.garbled(data), draw() * faults.jitter)

    def deliver(self, source: Address, target: Address, data: bytes, delay: float = 0.0) -> None:
        def arrive() -> None:
            if (node := self.nodes.get(target)) is not None:
                node.arrived(data, source)

        self.later(delay, arrive)

    def damaged(self, data: bytes) -> bytes:
        if not self.faults.damage or self.random.random() >= self.faults.damage:
            return data
        changed, at = bytearray(data), self.random.randrange(8 * len(data))
        changed[at // 8] ^= 1 << at % 8
        return bytes(changed)

    def garbled(self, data: bytes) -> bytes:
        """Something that is nearly a datagram."""
        what = self.random.randrange(4)
        if what == 0:
            return self.random.randbytes(self.random.randrange(0, 2 * MANAGEMENT_LENGTH))
        if what == 1:
            return data[: self.random.randrange(len(data))]
        if what == 2:
            return data
        changed = bytearray(data)
        for _ in range(self.random.randrange(1, 4)):
            changed[self.random.randrange(4, len(changed))] = self.random.randrange(256)
        return bytes(changed)

    def run(self, seconds: float) -> None:
        """Let time pass for everybody, from event to event."""
        end = self.now + seconds
        while (when := self._next()) <= end:
            self.now = max(self.now, when)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for node in list(self.nodes.values()):
                if (deadline := node.irm.deadline()) is not None and deadline <= self.now:
                    node.irm.timeout(self.now)
                    node.collect()
        self.now = end

    def _next(self) -> float:
        deadlines = [node.irm.deadline() for node in self.nodes.values()]
        times = [when for when in deadlines if when is not None]
        if self._events:
            times.append(self._events[0][0])
        return min(times, default=float("inf"))

    def check(self) -> None:
        """What holds at any time."""
        for node in self.nodes.values():
            assert set(node.reserved) | set(node.attached) <= node.layer._core.eids
            eids = [flow.eid for flow in node.history]
            assert len(set(eids)) == len(eids)
            # An allocation makes one flow. What a stranger repeats is another one.
            blobs = [(flow.extension, flow.address) for flow in node.history if flow.side == 1]
            requests = [(blob.request, address) for blob, address in blobs if blob is not None]
            assert len(set(requests)) == len(requests)
            for flow in node.history:
                if flow.side == 0 and flow.address != STRANGER:
                    self._check_accepted(node, flow)
                if flow.eid in node.told:
                    # Who never had the flow, because it came too late, was no program that died.
                    ended = self.nodes[flow.address].ended.get(flow.peer_eid, How.CLOSED)
                    assert node.told[flow.eid].died == (ended is not How.CLOSED)

    def _check_accepted(self, node: Node, flow: Carried) -> None:
        """A flow of a client is one of a server, and they agree about it."""
        (there,) = (each for each in self.nodes[flow.address].history if each.eid == flow.peer_eid)
        assert (there.peer_eid, there.address, there.side) == (flow.eid, node.address, 1)
        assert (there.name, there.qos) == (flow.name, flow.qos)
        keys = [end.session.key if end.session else None for end in (there, flow)]
        assert keys[0] == keys[1]
        assert (keys[0] is not None) == bool(flow.qos.cypher_s)
        assert there.extension is not None
        assert flow.extension is not None
        assert there.extension.flags == flow.extension.flags
        assert there.extension.request == flow.extension.request

    def settle(self) -> None:
        """All programs are gone: after some time, nothing is left anywhere."""
        self.faults = Faults()
        # Requests of peers, notices, late answers.
        self.run(150.0)
        for node in self.nodes.values():
            for eid, flow in list(node.attached.items()):
                # Who was never told is found by the engine, when its peer is silent.
                assert flow.address == STRANGER or flow.peer_eid not in self.nodes[flow.address].attached
                node.end(eid, How.SILENT)
        self.run(150.0)
        for node in self.nodes.values():
            node.assert_idle()


class Node(World):
    """A node with one UDP layer. Its engine has the time of the network."""

    def __init__(
        self,
        network: Network,
        address: Address,
        *,
        type: str = "udp4",
        peers: list[str] | None = None,
        flow_limit: int = 10_239,
        guarded: bool = False,
    ) -> None:
        """`guarded`: requests of nodes of ours have to prove their address, which the engine sees to."""
        self._guarded = guarded
        self.network = network
        self.address = address
        self.reserved: dict[int, Address] = {}
        #: Every flow that the engine ever had.
        self.history: list[Carried] = []
        #: Endpoint ids whose peer is gone.
        self.gone: set[int] = set()
        #: How each flow ended, and how its peer is said to have ended, by endpoint id.
        self.ended: dict[int, How] = {}
        self.told: dict[int, PeerGone] = {}
        self.lookups: list[Resolve] = []
        self.answers_lookups = True
        # Nodes that draw the same numbers would agree too often.
        super().__init__(flow_limit=flow_limit, seed=zlib.crc32(repr(address).encode()))
        self.handlers |= {
            OpenPort: self._open_port,
            Resolve: self._resolve,
            SendManagement: self._send,
            Reserve: self._reserve,
            Unreserve: self._unreserve,
        }
        network.nodes[address] = self
        ipcp = self.manage(CreateIpcp("u0", type))
        assert isinstance(ipcp, int)
        self.layer_id = ipcp
        options = udp_settings(*address, peers or [])
        self.manage(BootstrapIpcp(ipcp, "net", options))

    @property
    def now(self) -> float:
        return self.network.now

    @now.setter
    def now(self, value: float) -> None:
        """The time is that of the network."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.network.later(seconds, call)

    @property
    def layer(self) -> UdpIpcp:
        layer = self.irm.ipcps[self.layer_id]
        assert isinstance(layer, UdpIpcp)
        return layer

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.layer.entry().counters)

    def offer(self, name: str) -> None:
        """The name is there, and can be reached from outside."""
        self.manage(CreateName(name, "spillover"))
        self.manage(RegisterName(name, self.layer_id))

    def sent(self) -> list[bytes]:
        """What it sent, since the last call."""
        mine = [data for source, _, data in self.network.sent if source == self.address]
        self.network.sent = [entry for entry in self.network.sent if entry[0] != self.address]
        return mine

    # --- the engine

    @property
    def attached(self) -> dict[int, Carried]:
        """The flows that the engine has, by endpoint id."""
        return {flow.eid: flow for flow in self.history if (self.layer_id, flow.eid) in self.carried}

    def arrived(self, data: bytes, source: Address) -> None:
        """A datagram came in."""
        if data[:4] != bytes(4):
            # The packet of a flow, by an endpoint id that nobody has.
            return
        if self._guarded and (retry := _challenge(data, source)) is not None:
            self.network.send(self.address, source, retry.encode())
            return
        self.irm.management_arrived(self.layer_id, data, source, self.now)
        self.collect()

    def _open_port(self, effect: OpenPort) -> None:
        # Also of an engine that begins again.
        self.reserved.clear()
        self.irm.member_opened(effect.ipcp, self.now)
        self.collect()

    def close_member(self, effect: CloseMember) -> None:
        self.reserved.clear()
        super().close_member(effect)

    def _resolve(self, effect: Resolve) -> None:
        self.lookups.append(effect)
        if self.answers_lookups:
            self.later(0.005, lambda: self.answer_lookup(effect))

    def answer_lookup(self, lookup: Resolve) -> None:
        hosts = self.network.hosts.get(lookup.host, [])
        self.irm.resolved(lookup.ipcp, lookup.token, hosts, self.now)
        self.collect()

    def _send(self, effect: SendManagement) -> None:
        assert effect.data[:4] == bytes(4)
        assert 47 <= len(effect.data) <= MANAGEMENT_LENGTH
        assert isinstance(effect.where, tuple)
        self.network.send(self.address, effect.where, effect.data)

    def _reserve(self, effect: Reserve) -> None:
        assert effect.eid not in (0, 0xFFFFFFFF)
        assert effect.eid not in self.reserved
        assert effect.eid not in self.attached
        assert isinstance(effect.where, tuple)
        self.reserved[effect.eid] = effect.where

    def _unreserve(self, effect: Unreserve) -> None:
        del self.reserved[effect.eid]

    def attach(self, effect: Attach) -> None:
        end = effect.end
        assert isinstance(end, UdpEnd)
        assert end.eid not in (0, 0xFFFFFFFF)
        if effect.side == 0:
            assert self.reserved.pop(end.eid) == end.address
        else:
            assert end.eid not in self.reserved
        self.history.append(Carried(effect.flow_id, effect.name, effect.side, end))
        super().attach(effect)

    def peer_gone(self, effect: PeerGone) -> None:
        assert effect.eid in self.attached
        assert effect.eid not in self.gone
        self.gone.add(effect.eid)
        self.told[effect.eid] = effect
        super().peer_gone(effect)

    def end(self, eid: int, how: How) -> None:
        """The engine is done with a flow."""
        self.over(self.carried[self.layer_id, eid], how)

    def over(self, end: EngineEnd, how: How) -> None:
        if end.eid in self.attached:
            self.gone.discard(end.eid)
            self.ended[end.eid] = how
        super().over(end, how)

    def assert_idle(self) -> None:
        """Nothing is left of what was."""
        layer = self.layer
        assert self.reserved == {}
        assert self.carried == {}
        assert layer._core.eids == set()
        assert len(layer._outgoing) == 0
        assert layer._incoming.waiting == []
        assert layer._incoming._known == {}
        assert layer._incoming._places._of == {}
        assert layer._incoming._unproven._of == {}
        assert layer._incoming._unheard == {}
        assert layer._outgoing._tries == {}
        assert layer.deadline() is None
        assert self.irm.flows._waiting._waiting == {}
        assert self.irm.deadline() is None


def _challenge(data: bytes, source: Address) -> FlowRetry | None:
    """What the engine makes of a datagram at the door of a port: a twin of `rust/stack/src/door.rs`, without its rates."""
    cookie = int.from_bytes(hashlib.sha256(repr(source).encode()).digest()[:8])
    try:
        message = decode(data)
        blob = extension.decode(decode_oap(message.oap).data) if isinstance(message, FlowRequest) else None
    except ProtocolError:
        return None
    if not isinstance(message, FlowRequest) or blob is None or not blob.has(extension.RETRY):
        return None
    return None if message.cookie == cookie else FlowRetry(message.eid, cookie)


def two_nodes(seed: int = 0, *, name: str = "clock", type: str = "udp4") -> tuple[Network, Node, Node]:
    """A client's node that knows where `name` is, and a server's node that offers it."""
    network = Network(seed)
    hosts = {"udp4": ("192.0.2.1", "192.0.2.2"), "udp6": ("2001:db8::1", "2001:db8::2")}[type]
    client = Node(network, (hosts[0], 3435), type=type, peers=[f"{name}@{hosts[1]}"])
    server = Node(network, (hosts[1], 3435), type=type)
    server.offer(name)
    network.sent.clear()
    return network, client, server
