"""An IPC process whose layer has other members, which ask one another for flows by messages."""

from __future__ import annotations

from typing import ClassVar

from ouroboros.errors import FlowDownException, IpcpBootstrapError, OuroborosError, ProtocolError
from ouroboros.layers.agenda import earliest
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.effects import OpenPort, PeerGone, RemoteEnd, Unreserve, Where
from ouroboros.layers.face import Arrival, End, Host, How, Seen, Step, Task
from ouroboros.layers.flows.core import Core, Directory
from ouroboros.layers.flows.incoming import Incoming, Request
from ouroboros.layers.flows.notices import Notices, RepeatedAnswers
from ouroboros.layers.flows.outgoing import Outgoing
from ouroboros.layers.flows.refusals import Refusal, code_of
from ouroboros.oap import Settings
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.control import HopEntry
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck, FlowReply, FlowRequest, FlowRetry, Message, decode

#: Acknowledgements a second that go out for flows that we do not know any more, and at once.
_ACKNOWLEDGEMENTS = (200.0, 200.0)


class FlowIpcp(Ipcp):
    """Flows to and from other members. A type adds how it comes to be in a layer, and its directory."""

    registers = True
    elsewhere = True
    frequent: ClassVar[tuple[str, ...]] = (
        *("allocate", "cancel", "accept", "confirm", "refuse", "give_back"),
        *("received", "begun", "over"),
    )

    def __init__(self, id: int, name: str, host: Host, directory: Directory, core: Core | None = None) -> None:
        """`core`: of a type that writes messages in its own way."""
        super().__init__(id, name, host)
        self.hash = "MD5"
        self._core = core or Core(id, host, directory)
        self._notices = Notices(self._core)
        self._outgoing = Outgoing(self._core, self._notices, self._hold)
        self._incoming = Incoming(self._core)
        self._repeated = RepeatedAnswers(self._core)
        #: Our ends of flows, by endpoint id, until the engine is done with them.
        self._ends: dict[int, RemoteEnd] = {}
        #: Those whose peer let go.
        self._gone: set[int] = set()
        self._acknowledgements = Bucket(*_ACKNOWLEDGEMENTS)

    @property
    def busy(self) -> bool:
        return self.state in (State.OPENING, State.OPERATIONAL)

    def _open(self) -> None:
        """Ask the engine for its part in the layer."""
        raise NotImplementedError

    def _close(self, now: float) -> None:
        """The layer ends, and all has been said: let go of what it was said by."""

    # --- management

    def digest(self, name: str) -> bytes:
        return self._core.digest(name)

    def register(self, name: str, now: float) -> None:
        """From now on, peers can ask for flows to the name."""
        self._check_operational()
        self._incoming.register(name)

    def unregister(self, name: str, now: float) -> None:
        self._incoming.unregister(name)

    def query(self, digest: bytes) -> bool:
        return digest in self._incoming.names

    def broke(self, reason: str, now: float) -> bool:
        """Peers are told that the programs of their flows died. Requests that wait go on if it begins again."""
        begins_again = super().broke(reason, now)
        if begins_again:
            # Before the notices, which go out by what is new.
            self._open()
            self._outgoing.reserve_again()
        for eid in list(self._ends):
            self.over(eid, How.DIED, now)
        return begins_again

    def _given_up(self, now: float) -> None:
        self._turn_away(FlowDownException(self.trouble), now)
        for eid in list(self._ends):
            self.over(eid, How.DIED, now)

    def destroy(self, now: float) -> None:
        """The layer ends: whatever waits is told, and peers once, as far as they understand."""
        self._turn_away(FlowDownException(f"the layer {self.layer!r} was destroyed"), now)
        for eid, end in self._ends.items():
            if end.can(extension.DEALLOC) and eid not in self._gone:
                self._core.send(end.address, self._core.encode(FlowDealloc(eid, end.peer_eid, died=True)))
        self._close(now)
        super().destroy(now)

    def _turn_away(self, error: OuroborosError, now: float) -> None:
        for request in self._incoming.waiting:
            self.host.upper.withdrawn(request)
            self._incoming.refuse(request, Refusal.EIPCP, now)
        self._outgoing.fail_all(error, now)

    def _counters(self) -> dict[str, int]:
        return {**self._core.counters, **self.engine_counters, **super()._counters()}

    def probe(self, target: Where, steps: tuple[Step, ...], wait: float, task: Task, now: float) -> None:
        """The next hop is the last one, and nobody there answers."""
        entry = HopEntry(1, self.layer, self.type, address=self._core.directory.written(target), state="unasked")
        task.done(Seen(entry, now, end=True))

    # --- flows

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        self._outgoing.allocate(token, name, qos, settings, now)

    def cancel(self, token: int, now: float) -> None:
        self._outgoing.cancel(token, now)

    def why(self, token: int) -> str:
        return self._outgoing.why(token)

    def accept(self, arrival: Arrival, now: float) -> End | None:
        assert isinstance(arrival, Request)
        end = self._incoming.accept(arrival, now)
        if end is not None:
            self._ends[end.eid] = end
        return end

    def confirm(self, arrival: Arrival, now: float) -> None:
        assert isinstance(arrival, Request)
        self._incoming.confirm(arrival)
        if self._core.repeats_answers and arrival.extension is None:
            self._repeated.add(arrival, now)

    def refuse(self, arrival: Arrival, error: OuroborosError, now: float, end: End | None = None) -> None:
        assert isinstance(arrival, Request)
        if isinstance(end, RemoteEnd):
            del self._ends[end.eid]
            self._incoming.heard(end.eid)
            self._core.eids.discard(end.eid)
        self._incoming.refuse(arrival, code_of(error), now)

    def give_back(self, end: End, now: float) -> None:
        assert isinstance(end, RemoteEnd)
        self._core.effects.append(Unreserve(self.id, end.eid))
        self.over(end.eid, How.CLOSED, now)

    def _hold(self, token: int, end: RemoteEnd, now: float) -> None:
        """A peer accepted. The end is ours until the engine is done with it, or the flow manager gives it back."""
        self._ends[end.eid] = end
        self.host.upper.answered(token, end, now)

    # --- what the engine tells

    def received(self, data: bytes, source: Where, now: float) -> None:
        try:
            message = decode(data)
        except ProtocolError:
            self._core.counters["messages_malformed"] += 1
        else:
            self._heard(message, data, source, now)

    def _heard(
        self, message: Message | FlowRetry, data: bytes, source: Where, now: float, *, via: int | None = None
    ) -> None:
        """A peer says something; `data` is how. `via`: the lower flow that brought it, if the layer has some."""
        match message:
            case FlowRequest():
                self._incoming.requested(message, data, source, now, via=via)
            case FlowReply():
                self._outgoing.replied(message, source, now)
            case FlowDealloc():
                self._peer_let_go(message, source, now)
            case FlowDeallocAck():
                self._notices.acknowledged(message, source)
            case FlowRetry():
                self._outgoing.retried(message, source, now)

    def begun(self, eid: int) -> None:
        self._incoming.heard(eid)
        self._repeated.stop(eid)

    def over(self, eid: int, how: How, now: float) -> None:
        """Unless the peer said so itself, it is told, if it is one of ours: that the program deallocated, and everything was
        delivered, or that it died."""
        end = self._ends.pop(eid, None)
        if end is None:
            return
        stranger = self._incoming.heard(eid)
        self._repeated.stop(eid)
        if end.can(extension.DEALLOC) and eid not in self._gone:
            # Whoever is at the address of a stranger may never have asked for anything.
            message = FlowDealloc(eid, end.peer_eid, how is not How.CLOSED)
            self._notices.tell(message, end.address, now, repeat=not stranger)
        else:
            self._core.eids.discard(eid)
        self._gone.discard(eid)

    def deadline(self) -> float | None:
        ours = earliest(self._outgoing.deadline(), self._incoming.deadline())
        return earliest(ours, self._notices.deadline(), self._repeated.deadline())

    def timeout(self, now: float) -> None:
        self._outgoing.timeout(now)
        self._incoming.timeout(now)
        self._notices.timeout(now)
        self._repeated.timeout(now)

    def _lost(self, address: Where, now: float) -> None:
        """There is no way to that address any more. What was to go there ends; to programs, their peers have died."""
        self._notices.lost(address)
        self._incoming.lost(address, now)
        self._outgoing.lost(address, now)
        for eid, end in self._ends.items():
            if end.address == address and eid not in self._gone:
                self._gone.add(eid)
                self._core.effects.append(PeerGone(self.id, eid, died=True))

    @property
    def _engine_has_it(self) -> bool:
        return self.state != State.BOOT

    def _peer_let_go(self, message: FlowDealloc, address: Where, now: float) -> None:
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
        self._core.send(address, self._core.encode(FlowDeallocAck(message.peer_eid, message.eid)))


class PortIpcp(FlowIpcp):
    """A member whose packets leave by a port of its own, which its bootstrap opens."""

    def __init__(self, id: int, name: str, host: Host, directory: Directory, core: Core | None = None) -> None:
        super().__init__(id, name, host, directory, core)
        self._port: OpenPort | None = None
        #: The bootstrap that waits for the port.
        self._bootstrap: Task | None = None

    def _begin(self, layer: str, port: OpenPort, task: Task) -> None:
        """Ask for the port; `opened` or `failed` follows."""
        self.layer, self._port, self._bootstrap = layer, port, task
        self._open()

    def _open(self) -> None:
        assert self._port is not None
        self.state = State.OPENING
        self.host.effects.append(self._port)

    def opened(self, now: float) -> None:
        self.state = State.OPERATIONAL
        if self.impairment is not None:
            # The engine has begun again, and knows nothing of it.
            self.impair(self.impairment)
        if self._bootstrap is not None:
            task, self._bootstrap = self._bootstrap, None
            task.done(self.id)

    def failed(self, text: str, now: float) -> None:
        """There is no port: back to the beginning, or the end of one that was to begin again."""
        if self._bootstrap is None:
            self.gave_up(text, now)
            self._core.warn(self.trouble, error=True)
            return
        task, self._bootstrap = self._bootstrap, None
        self.layer, self.state, self._port = "", State.BOOT, None
        task.failed(IpcpBootstrapError(text))

    def destroy(self, now: float) -> None:
        super().destroy(now)
        if self._bootstrap is not None:
            self._bootstrap.failed(IpcpBootstrapError(f"IPC process {self.name!r} was destroyed"))
