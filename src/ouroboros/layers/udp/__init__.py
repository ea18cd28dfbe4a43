"""Layers over UDP: flows with other nodes, ours or of the C prototype. Control side; packets are the engine's.

::

    flow manager ── allocate ──▶ Directory ─▶ Outgoing ──▶ requests, again and again ──▶ peer
                 ◀─ answered ──────────────────────────◀── reply
                 ◀─ requested ── Incoming ◀────────────◀── request
                 ── accept ────────────────────────────▶── reply
    the engine   ── ended ─────▶ Notices ──────────────▶── notice, until acknowledged (nodes of ours only)

Source: `shims.md` 3. What two of our nodes say beyond it: `wire.extension`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ouroboros.control.effects import Address, OpenLayer, PeerGone, Unreserve
from ouroboros.control.messages import IpcpEntry, UdpOptions
from ouroboros.control.oap import Settings
from ouroboros.errors import FlowDownException, IpcpBootstrapError, ProtocolError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.udp.core import Bucket, Core, Environment, RemoteEnd
from ouroboros.layers.udp.directory import Directory
from ouroboros.layers.udp.incoming import Arrival, Incoming
from ouroboros.layers.udp.notices import Notices
from ouroboros.layers.udp.options import Options, read_options, read_peer, written
from ouroboros.layers.udp.outgoing import Outgoing
from ouroboros.layers.udp.refusals import NOBODY
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, decode, digest_of

__all__ = ["Arrival", "Environment", "RemoteEnd", "Udp4Ipcp", "Udp6Ipcp", "UdpIpcp"]

#: Acknowledgements a second that go out for flows that we do not know any more, and at once.
_ACKNOWLEDGEMENTS = (200.0, 200.0)


class UdpIpcp(Ipcp):
    """A member of a layer over UDP, with one socket."""

    def __init__(self, id: int, name: str, environment: Environment) -> None:
        super().__init__(id, name)
        self.hash = "MD5"
        self.options: Options | None = None
        #: What the engine counts for the layer.
        self.engine_counters: Mapping[str, int] = {}
        self._core = Core(id, self.type, environment)
        self._directory = Directory(self._core)
        self._notices = Notices(self._core)
        self._outgoing = Outgoing(self._core, self._directory, self._notices)
        self._incoming = Incoming(self._core)
        #: Our ends of flows, by endpoint id, until the engine is done with them.
        self._ends: dict[int, RemoteEnd] = {}
        #: Those whose peer let go.
        self._gone: set[int] = set()
        self._acknowledgements = Bucket(*_ACKNOWLEDGEMENTS)

    # --- management

    def configure(self, options: UdpOptions | None) -> None:
        """Take the options of the bootstrap that follows. Raises `IpcpBootstrapError` naming what is wrong."""
        if options is None:
            raise IpcpBootstrapError(f"ip: give the address of this host to an IPC process of type {self.type}")
        self.options = read_options(self.type, options)

    def bootstrap(self, layer: str, hash: str) -> None:
        """Ask for the socket; `opened` or `failed` follows. `hash` means nothing here: names are known by their MD5."""
        if self.state != "boot":
            raise IpcpBootstrapError(f"IPC process {self.name!r} is in layer {self.layer!r} already")
        if self.options is None:
            raise IpcpBootstrapError(f"IPC process {self.name!r} has no address yet: give it one with ip")
        self._directory.change(self.options.peers, self._directory.peers)
        self.layer, self.state = layer, "opening"
        self._core.port = self.options.port
        self._core.effects.append(OpenLayer(self.id, self.type, self.options.ip, self.options.port))

    def opened(self) -> None:
        self.state = "operational"

    def failed(self) -> None:
        """There is no socket: back to the beginning."""
        self.layer, self.state, self.options = "", "boot", None

    def digest(self, name: str) -> bytes:
        return digest_of(name)

    def register(self, name: str) -> None:
        """From now on, peers can ask for flows to the name."""
        self._check_operational()
        self._incoming.register(name)

    def unregister(self, name: str) -> None:
        self._incoming.unregister(name)

    def query(self, digest: bytes) -> bool:
        return digest in self._incoming.names

    def change_peers(self, add: Iterable[str], remove: Iterable[str]) -> None:
        """Change the peer table. Raises `IpcpBootstrapError` naming the entry that is wrong; then nothing changed."""
        self._check_operational()
        adds, removes = ([read_peer(self.type, text) for text in texts] for texts in (add, remove))
        self._directory.change(adds, removes)

    def check_impairable(self) -> None:
        pass

    def destroyed(self) -> None:
        """The layer ends: whoever waits is told, and peers once, as far as they understand."""
        self.state = "destroyed"
        for arrival in self._incoming.waiting:
            self._core.environment.upper.withdrawn(arrival)
            self._incoming.refuse(arrival, NOBODY)
        self._outgoing.fail_all(FlowDownException(f"the layer {self.layer!r} was destroyed"))
        for eid, end in self._ends.items():
            if end.can(extension.DEALLOC) and eid not in self._gone:
                self._core.send(end.address, FlowDealloc(eid, end.peer_eid, died=True).encode())

    def entry(self) -> IpcpEntry:
        options = self.options
        return IpcpEntry(
            self.id,
            self.name,
            self.type,
            self.state,
            self.layer,
            self.hash,
            impair="" if self.impairment is None else self.impairment.text,
            address="" if options is None else written((options.ip, options.port)),
            peers=[peer.text for peer in self._directory.peers],
            counters={**self._core.counters, **self.engine_counters},
        )

    # --- flows

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        """Ask for a flow to a name elsewhere; what comes of it is told to the flow manager."""
        self._core.now = now
        self._outgoing.allocate(token, name, qos, settings, now)

    def cancel(self, token: int) -> None:
        """Nobody waits for that flow any more."""
        self._outgoing.cancel(token)

    def why(self, token: int) -> str:
        """What the allocation waits for."""
        return self._outgoing.why(token)

    def hold(self, end: RemoteEnd) -> None:
        """The flow manager takes the end of a flow that it asked for. `flow_ended` or `give_back` must follow."""
        self._ends[end.eid] = end

    def give_back(self, end: RemoteEnd) -> None:
        """The flow manager cannot take it after all, and the engine never heard of it."""
        self._core.effects.append(Unreserve(self.id, end.eid))
        self.flow_ended(end.eid, True, self._core.now)

    def accept(self, arrival: Arrival) -> RemoteEnd:
        """Our end of the flow that a peer asked for; see `Incoming.accept`. `confirm` or `refuse` must follow."""
        end = self._incoming.accept(arrival)
        self._ends[end.eid] = end
        return end

    def confirm(self, arrival: Arrival) -> None:
        """The engine has the flow: the peer can be told."""
        self._incoming.confirm(arrival)

    def refuse(self, arrival: Arrival, code: int, end: RemoteEnd | None = None) -> None:
        """There will be no flow. `end`: what `accept` gave."""
        if end is not None:
            del self._ends[end.eid]
            self._core.eids.discard(end.eid)
        self._incoming.refuse(arrival, code)

    # --- what the runtime feeds

    def resolved(self, number: int, hosts: list[str], now: float) -> None:
        self._core.now = now
        self._outgoing.resolved(number, hosts, now)

    def arrived(self, data: bytes, address: Address, now: float) -> None:
        """A management datagram came in, from anybody."""
        self._core.now = now
        try:
            message = decode(data)
        except ProtocolError:
            self._core.counters["messages_malformed"] += 1
            return
        match message:
            case FlowRequest():
                self._incoming.requested(message, data, address, now)
            case FlowReply():
                self._outgoing.replied(message, address, now)
            case FlowDealloc():
                self._peer_let_go(message, address, now)
            case FlowDeallocAck():
                self._notices.acknowledged(message, address)

    def flow_ended(self, eid: int, in_order: bool, now: float) -> None:
        """The engine is done with a flow. Unless the peer said so itself, it is told, if it is one of ours.

        `in_order`: the program deallocated, and the peer has everything; else it is told that the program died.
        """
        self._core.now = now
        end = self._ends.pop(eid, None)
        if end is None:
            return
        if end.can(extension.DEALLOC) and eid not in self._gone:
            self._notices.tell(FlowDealloc(eid, end.peer_eid, not in_order), end.address, now)
        else:
            self._core.eids.discard(eid)
        self._gone.discard(eid)

    def deadline(self) -> float | None:
        times = (self._outgoing.deadline(), self._incoming.deadline(), self._notices.deadline())
        return min((when for when in times if when is not None), default=None)

    def timeout(self, now: float) -> None:
        self._core.now = now
        self._outgoing.timeout(now)
        self._incoming.timeout(now)
        self._notices.timeout(now)

    def _peer_let_go(self, message: FlowDealloc, address: Address, now: float) -> None:
        end = self._ends.get(message.peer_eid)
        if end is not None:
            if end.address != address or end.peer_eid != message.eid:
                self._core.counters["messages_wrong_source"] += 1
                return
            if message.peer_eid not in self._gone:
                self._gone.add(message.peer_eid)
                self._core.effects.append(PeerGone(self.id, message.peer_eid, message.died))
        elif self._outgoing.expects(message.peer_eid, address):
            # It overtook the reply. When it is repeated, the flow is there.
            return
        elif not self._acknowledgements.take(now):
            self._core.counters["messages_dropped"] += 1
            return
        self._core.send(address, FlowDeallocAck(message.peer_eid, message.eid).encode())


class Udp4Ipcp(UdpIpcp):
    """A layer over UDP and IPv4."""

    type = "udp4"
    preference = 5


class Udp6Ipcp(UdpIpcp):
    """A layer over UDP and IPv6."""

    type = "udp6"
    preference = 6
