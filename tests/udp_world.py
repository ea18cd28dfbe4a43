"""Nodes without sockets, joined by a network that loses, repeats, delays and invents management datagrams in no time.

Each `Node` does for its IRM what the runtime and the engine do, and objects when an effect does not fit what it knows: an
endpoint id that is not free, a flow that nobody reserved, an end that is told twice.
"""

from __future__ import annotations

import heapq
import itertools
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from irm_world import World

from ouroboros.control.effects import (
    Address,
    Attach,
    Effect,
    MarkDead,
    OpenLayer,
    PeerGone,
    Release,
    Reserve,
    Resolve,
    SendManagement,
    StopLayer,
    Unreserve,
)
from ouroboros.control.messages import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Granted,
    RegisterName,
    UdpOptions,
)
from ouroboros.control.security import shown
from ouroboros.layers.udp import UdpIpcp
from ouroboros.wire.udp import MANAGEMENT_LENGTH

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


class Network:
    """Virtual time, and the way of datagrams from node to node."""

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
                self.deliver(source, target, data, 0.001 + draw() * faults.jitter)
        if draw() < faults.garbage:
            self.deliver(STRANGER, target, self.garbled(data), draw() * faults.jitter)

    def deliver(self, source: Address, target: Address, data: bytes, delay: float = 0.0) -> None:
        def arrive() -> None:
            if (node := self.nodes.get(target)) is not None:
                node.irm.management_arrived(node.layer_id, data, source, self.now)
                node.collect()

        self.later(delay, arrive)

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
                    ended = self.nodes[flow.address].ended.get(flow.peer_eid, "closed")
                    assert node.told[flow.eid].died == (ended != "closed")

    def _check_accepted(self, node: Node, flow: Attach) -> None:
        """A flow of a client is one of a server, and they agree about it."""
        (there,) = (each for each in self.nodes[flow.address].history if each.eid == flow.peer_eid)
        assert (there.peer_eid, there.address, there.side) == (flow.eid, node.address, 1)
        assert there.qos == flow.qos
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
                node.end(eid, "peer")
        self.run(150.0)
        for node in self.nodes.values():
            node.assert_idle()

    def _next(self) -> float:
        deadlines = [node.irm.deadline() for node in self.nodes.values()]
        times = [when for when in deadlines if when is not None]
        if self._events:
            times.append(self._events[0][0])
        return min(times, default=float("inf"))


class Node(World):
    """A node with one UDP layer."""

    def __init__(
        self,
        network: Network,
        address: Address,
        *,
        type: str = "udp4",
        peers: list[str] | None = None,
        flow_limit: int = 10_239,
    ) -> None:
        self.network = network
        self.address = address
        self.reserved: dict[int, Address] = {}
        self.attached: dict[int, Attach] = {}
        #: Every flow that the engine ever had.
        self.history: list[Attach] = []
        #: Endpoint ids whose peer is gone.
        self.gone: set[int] = set()
        #: How each flow ended, and how its peer is said to have ended, by endpoint id.
        self.ended: dict[int, str] = {}
        self.told: dict[int, PeerGone] = {}
        #: Flows whose program died.
        self._orphans: set[int] = set()
        self.lookups: list[Resolve] = []
        self.answers_lookups = True
        #: Seconds that the engine needs to deliver what a program wrote before it let go.
        self.linger = 0.01
        self.layer_id = 0
        # Nodes that draw the same numbers would agree too often.
        super().__init__(flow_limit=flow_limit, seed=zlib.crc32(repr(address).encode()))
        network.nodes[address] = self
        ipcp = self.manage(CreateIpcp("u0", type))
        assert isinstance(ipcp, int)
        self.layer_id = ipcp
        options = UdpOptions(*address, "", peers or [])
        self.manage(BootstrapIpcp(ipcp, "net", "SHA3_256", None, options))

    @property
    def now(self) -> float:
        return self.network.now

    @now.setter
    def now(self, value: float) -> None:
        """The time is that of the network."""

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

    def collect(self) -> list[Effect]:
        effects = super().collect()
        for effect in effects:
            self._carry_out(effect)
        return effects

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case OpenLayer(ipcp=ipcp):
                self.irm.layer_opened(ipcp)
                self.collect()
            case StopLayer(ipcp=ipcp) if ipcp == self.layer_id:
                self.reserved.clear()
                self.attached.clear()
            case Resolve():
                self.lookups.append(effect)
                if self.answers_lookups:
                    self.network.later(0.005, lambda: self.answer_lookup(effect))
            case SendManagement(address=address, data=data):
                assert data[:4] == bytes(4)
                assert 47 <= len(data) <= MANAGEMENT_LENGTH
                self.network.send(self.address, address, data)
            case Reserve(eid=eid, address=address):
                assert eid not in (0, 0xFFFFFFFF)
                assert eid not in self.reserved
                assert eid not in self.attached
                self.reserved[eid] = address
            case Unreserve(eid=eid):
                del self.reserved[eid]
            case Attach():
                self._attach(effect)
            case PeerGone(eid=eid):
                assert eid in self.attached
                assert eid not in self.gone
                self.gone.add(eid)
                self.told[eid] = effect
                self.network.later(0.001, lambda: self.end(eid, "gone"))
            case MarkDead(flow_id=flow_id, ipcp=ipcp) if ipcp == self.layer_id:
                self._orphans.add(flow_id)
            case Release(flow_id=flow_id, ipcp=ipcp) if ipcp == self.layer_id:
                how = "died" if flow_id in self._orphans else "closed"
                self._orphans.discard(flow_id)
                for eid in [eid for eid, flow in self.attached.items() if flow.flow_id == flow_id]:
                    self.attached[eid] = _without_flow(self.attached[eid])
                    self.network.later(self.linger, lambda eid=eid, how=how: self.end(eid, how))  # type: ignore[misc]

    def answer_lookup(self, lookup: Resolve) -> None:
        hosts = self.network.hosts.get(lookup.host, [])
        self.irm.resolved(lookup.ipcp, lookup.token, hosts, self.network.now)
        self.collect()

    def end(self, eid: int, how: str) -> None:
        """The engine is done with a flow; told once for each."""
        if self.attached.pop(eid, None) is not None:
            self.gone.discard(eid)
            self.ended[eid] = how
            self.irm.flow_ended(self.layer_id, eid, how, self.network.now)
            self.collect()

    def _attach(self, effect: Attach) -> None:
        assert effect.eid not in self.attached
        assert effect.eid not in (0, 0xFFFFFFFF)
        if effect.side == 0:
            assert self.reserved.pop(effect.eid) == effect.address
        else:
            assert effect.eid not in self.reserved
        self.attached[effect.eid] = effect
        self.history.append(effect)
        self._settle(effect.token, Granted(effect.flow_id, effect.qos, effect.side, 8976, shown(effect.session)))

    def assert_idle(self) -> None:
        """Nothing is left of what was."""
        layer = self.layer
        assert self.reserved == {}
        assert self.attached == {}
        assert layer._core.eids == set()
        assert len(layer._outgoing) == 0
        assert layer._incoming.waiting == []
        assert layer._incoming._known == {}
        assert layer._incoming._waiting_of == {}
        assert layer._outgoing._tries == {}
        assert layer.deadline() is None
        assert self.irm.flows._waiting._waiting == {}
        assert self.irm.deadline() is None


def _without_flow(attach: Attach) -> Attach:
    """The engine lingers, and the id of the flow may belong to another."""
    return Attach(
        -1,
        attach.qos,
        attach.token,
        attach.side,
        attach.ipcp,
        attach.eid,
        attach.peer_eid,
        attach.address,
        attach.extension,
        attach.session,
    )


def two_nodes(seed: int = 0, *, name: str = "clock", type: str = "udp4") -> tuple[Network, Node, Node]:
    """A client's node that knows where `name` is, and a server's node that offers it."""
    network = Network(seed)
    hosts = {"udp4": ("192.0.2.1", "192.0.2.2"), "udp6": ("2001:db8::1", "2001:db8::2")}[type]
    client = Node(network, (hosts[0], 3435), type=type, peers=[f"{name}@{hosts[1]}"])
    server = Node(network, (hosts[1], 3435), type=type)
    server.offer(name)
    network.sent.clear()
    return network, client, server
