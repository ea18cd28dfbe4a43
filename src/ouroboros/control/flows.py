"""The flow manager: who asks for flows, who accepts them, which flows there are. Pure.

::

    alloc ──▶ acceptor waits? ── yes ──▶ Connect
                   │ no
                   ├──▶ queue of the name ──▶ acceptor comes ──▶ Connect
                   │         ├──▶ time runs out, or the asker hangs up
                   │         └──▶ the program started for it failed ──▶ Failed
                   └──▶ not served here: layers, one after the other ──▶ a peer accepts ──▶ Attach
    request of a peer ──▶ queue of the name ──▶ acceptor comes ──▶ Attach

A request is known by its token, which the runtime chooses, each one larger than those before; requests of peers have
negative ones. Nothing waits anywhere but in `waiting`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ouroboros.control.effects import Attach, Connect, Effect, Join, Relay, Reply, StartProgram
from ouroboros.control.messages import Accept, Alloc, Failed
from ouroboros.control.messages import Join as JoinRequest
from ouroboros.control.names import Name, Process, Registry
from ouroboros.control.oap import Settings
from ouroboros.control.security import Security
from ouroboros.control.table import Flow, FlowTable
from ouroboros.control.waiting import Waiting, WaitingRoom
from ouroboros.errors import (
    FlowNameException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    NodeLimitError,
    OuroborosError,
)
from ouroboros.layers.base import Ipcp
from ouroboros.layers.udp import Arrival, RemoteEnd, UdpIpcp
from ouroboros.layers.udp.refusals import NO_ROOM, code_of
from ouroboros.wire.udp import digest_of

#: How long an allocation or a join waits when the caller gives no limit, seconds (`flows.md` 1).
ALLOC_TIMEOUT = 20.0
#: How long a request of a peer waits for an acceptor: a bit shorter, so that the peer still hears why it failed.
ARRIVAL_TIMEOUT = 19.5


class FlowManager:
    """Matches allocations with acceptors, here and elsewhere, and keeps the table of flows.

    `impaired`: the impaired layer through which flows to a name go, None when they go directly.
    """

    def __init__(
        self,
        registry: Registry,
        security: Security,
        effects: list[Effect],
        limit: int,
        ipcps: Mapping[int, Ipcp],
        impaired: Callable[[str], Ipcp | None],
    ) -> None:
        self._registry = registry
        self._security = security
        self._ipcps = ipcps
        self._impaired = impaired
        self._effects = effects
        self._waiting = WaitingRoom(registry)
        self._table = FlowTable(effects, limit, ipcps)
        self.flows = self._table.flows
        self.entries = self._table.entries
        #: Names for which a program was started that did not accept anything yet.
        self._starting: set[str] = set()
        #: How many programs that were started for a name did not end yet.
        self._started: dict[str, int] = {}

    # --- requests

    def alloc(self, token: int, process: Process, request: Alloc, now: float) -> None:
        name = self._registry.names.get(request.name)
        layers = self._layers_to_ask(request.name, name)
        if name is None and not layers:
            raise FlowNameException(
                f"nobody offers {request.name!r} on this node: start the program that accepts flows for it, "
                "or create the name with `irm name create`"
            )
        timeout = ALLOC_TIMEOUT if request.timeout is None else request.timeout
        waiting = self._waiting.add(token, process, request, now + timeout)
        acceptor = name.next_acceptor() if name is not None else None
        if name is not None and acceptor is not None:
            self._connect(token, acceptor, name)
            return
        if timeout <= 0:
            self._expire(waiting)
            return
        if name is not None:
            name.allocators[token] = None
            self._start_program(name)
        if layers:
            waiting.more_layers = layers
            self._ask_next_layer(waiting, now)

    def accept(self, token: int, process: Process, request: Accept, now: float) -> None:
        until = None if request.timeout is None else now + request.timeout
        waiting = self._waiting.add(token, process, request, until)
        self._registry.mark_server(process)
        self._starting -= process.names
        # Whoever asked first is served first, over all names of the process.
        while (name := self._asked_first(process)) is not None:
            if self._connect(next(iter(name.allocators)), token, name):
                return
        if request.timeout is not None and request.timeout <= 0:
            self._expire(waiting)
            return
        for text in process.names:
            self._registry.names[text].acceptors[token] = None

    def join(self, token: int, process: Process, request: JoinRequest, ipcp: Ipcp | None) -> None:
        if ipcp is None:
            raise FlowNameException(
                f"there is no broadcast layer {request.layer!r} on this node; "
                f"`irm ipcp bootstrap type broadcast name {request.layer} layer {request.layer}` makes one"
            )
        if request.qos.ordered or request.qos.cypher_s:
            raise FlowQosException(
                f"broadcast layer {request.layer!r} can neither promise delivery (loss=0, in_order=1) nor encrypt "
                "(cypher_s); join it with the default QoS"
            )
        flow = self._table.add(request.layer, request.qos, (process, None), (token, None))
        flow.ipcp = ipcp
        ipcp.join(flow.id)
        self._effects.append(Join(flow.id, request.qos, ipcp.id, token))

    def bound(self, process: Process, name: Name) -> None:
        """A process was bound to a name: acceptors of it that wait are eligible at once."""
        for token in sorted(process.waiting):
            if token in self._waiting and isinstance(self._waiting[token].request, Accept):
                name.acceptors[token] = None
                while name.allocators:
                    if self._connect(next(iter(name.allocators)), token, name):
                        break

    def unbound(self, process: Process, name: Name) -> None:
        """A process was unbound from a name: it is not eligible any more."""
        for token in process.waiting:
            name.acceptors.pop(token, None)
        self.wanted(name)

    def wanted(self, name: Name) -> None:
        """The bindings of a name changed, or a process of it died: start its program if clients wait and nobody else can.

        When a program that was started for it still runs, its end will tell what to do: see `program_ended`.
        """
        if name.allocators and name.text not in self._started:
            self._start_program(name)

    def name_destroyed(self, name: Name) -> None:
        self._starting.discard(name.text)
        for token in list(name.allocators):
            if not self._waiting[token].asked_elsewhere:
                self._fail(self._waiting[token], FlowNameException(f"the name {name.text!r} was destroyed"))

    def cancel(self, token: int) -> None:
        """The asker hung up. No error when the request is answered already."""
        waiting = self._waiting.get(token)
        if waiting is not None:
            self._waiting.remove(waiting)
            self._stop_asking(waiting)

    # --- ends of flows

    def dealloc(self, process: Process, flow_id: int, side: int) -> None:
        """One end lets go. Ends that the process does not hold are ignored: it may have raced with its own death."""
        if (flow_id, side) in process.ends:
            process.ends.discard((flow_id, side))
            self._table.let_go(self.flows[flow_id], side)

    def abandon(self, flow_id: int, side: int, token: int | None = None) -> None:
        """An end whose owner never got it: the descriptors could not be made or delivered.

        With the `token` of the request, nothing happens when the id belongs to another flow by now.
        """
        flow = self.flows.get(flow_id)
        owner = flow.owners[side] if flow else None
        if flow is not None and owner is not None and token in (None, flow.tokens[side]):
            owner.ends.discard((flow_id, side))
            self._table.lose(flow, side)

    def process_died(self, process: Process) -> None:
        for token in list(process.waiting):
            self.cancel(token)
        for flow_id, side in sorted(process.ends):
            self._table.lose(self.flows[flow_id], side)
        process.ends.clear()

    # --- programs started on demand

    def program_ended(self, name: str, program: str, how: str, served: bool) -> None:
        """A program we started is gone. When it served somebody, the next request starts it again."""
        self._starting.discard(name)
        self._started[name] = self._started.get(name, 1) - 1
        if not self._started[name]:
            del self._started[name]
        entry = self._registry.names.get(name)
        if entry is None or not entry.allocators or entry.servers:
            return
        if served:
            self._start_program(entry)
            return
        for token in list(entry.allocators):
            self._fail(
                self._waiting[token],
                FlowRefusedException(f"{program!r}, started for {name!r}, {how} and accepted nothing"),
            )

    # --- what layers tell: `layers.udp.core.Upper`

    def settings(self, name: str) -> Settings:
        """What we want of a peer that asks for a flow to our `name`. Raises `OapError`."""
        return self._security.settings(name, "server")

    def reachable(self, token: int) -> None:
        """Another node is asked: a program here that would accept now comes too late."""
        self._waiting.leave_queue(self._waiting[token])

    def unreachable(self, token: int, now: float) -> None:
        waiting = self._waiting[token]
        waiting.layer = None
        self._ask_next_layer(waiting, now)

    def answered(self, token: int, end: RemoteEnd, now: float) -> None:
        waiting = self._waiting[token]
        layer, process = waiting.layer, waiting.process
        assert layer is not None
        assert process is not None
        assert isinstance(waiting.request, Alloc)
        layer.hold(end)
        try:
            flow = self._table.add(waiting.request.name, end.qos, (process, None), (token, None))
        except NodeLimitError as error:
            end.session.wipe()
            layer.give_back(end)
            self._fail(waiting, error)
            return
        self._waiting.remove(waiting)
        self._attach(flow, end, token, 0)

    def refused(self, token: int, error: OuroborosError) -> None:
        self._fail(self._waiting[token], error)

    def requested(self, layer: int, arrival: Arrival, now: float) -> None:
        """A peer wants a flow: it waits like a program of this node."""
        waiting = self._waiting.add(None, None, arrival, now + ARRIVAL_TIMEOUT)
        waiting.layer = self._udp(layer)
        name = self._registry.names.get(arrival.name)
        if name is None:
            self._fail(waiting, FlowNameException(f"there is no name {arrival.name!r}"))
        elif (acceptor := name.next_acceptor()) is not None:
            self._connect(waiting.token, acceptor, name)
        else:
            name.allocators[waiting.token] = None
            self._start_program(name)

    def withdrawn(self, arrival: Arrival) -> None:
        waiting = self._waiting.find(arrival)
        if waiting is not None:
            self._waiting.remove(waiting)

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        return self._waiting.deadline()

    def timeout(self, now: float) -> None:
        for waiting in self._waiting.expired(now):
            self._expire(waiting)

    # --- helpers

    def _layers_to_ask(self, text: str, name: Name | None) -> list[UdpIpcp]:
        """The layers that may lead to a name: none for one that is served here or can be found here."""
        if name is not None and name.served:
            return []
        ipcps = [ipcp for ipcp in self._ipcps.values() if ipcp.state == "operational"]
        if any(ipcp.query(ipcp.digest(text)) for ipcp in ipcps):
            return []
        return sorted(
            (ipcp for ipcp in ipcps if isinstance(ipcp, UdpIpcp)), key=lambda ipcp: (ipcp.preference, ipcp.id)
        )

    def _ask_next_layer(self, waiting: Waiting, now: float) -> None:
        request = waiting.request
        assert isinstance(request, Alloc)
        while waiting.more_layers:
            layer = waiting.layer = waiting.more_layers.pop(0)
            if layer.state != "operational":
                continue
            try:
                settings = self._security.asked(request.name, request.qos.cypher_s)
                layer.allocate(waiting.token, request.name, request.qos, settings, now)
            except FlowRefusedException as error:
                self._fail(waiting, error)
            return
        waiting.layer = None
        if request.name not in self._registry.names:
            text = (
                f"nobody offers {request.name!r} on this node, and no layer knows where it is: add it to the peers of one "
                f"with `irm ipcp peer`, or its MD5 {digest_of(request.name).hex()} to /etc/hosts or the DNS"
            )
            self._fail(waiting, FlowNameException(text))

    def _udp(self, ipcp: int) -> UdpIpcp:
        layer = self._ipcps[ipcp]
        assert isinstance(layer, UdpIpcp)
        return layer

    def _asked_first(self, process: Process) -> Name | None:
        """Of the names of the process, the one whose client has waited longest."""
        asked = [name for text in process.names if (name := self._registry.names[text]).allocators]
        return min(asked, key=lambda name: self._waiting[next(iter(name.allocators))].order, default=None)

    def _fail(self, waiting: Waiting, error: OuroborosError) -> None:
        self._waiting.remove(waiting)
        if isinstance(waiting.request, Arrival):
            assert waiting.layer is not None
            waiting.layer.refuse(waiting.request, code_of(error))
            return
        self._stop_asking(waiting)
        self._effects.append(Reply(waiting.token, Failed(type(error).__name__, str(error))))

    def _stop_asking(self, waiting: Waiting) -> None:
        if waiting.asked_elsewhere:
            assert waiting.layer is not None
            waiting.layer.cancel(waiting.token)

    def _expire(self, waiting: Waiting) -> None:
        if isinstance(waiting.request, Accept):
            self._fail(waiting, FlowTimeoutException("nobody asked for a flow in time"))
            return
        text = waiting.request.name
        name = self._registry.names.get(text)
        if waiting.asked_elsewhere:
            assert waiting.layer is not None
            why = f"{waiting.layer.why(waiting.token)} (layer {waiting.layer.layer!r})"
        elif name is None:
            why = "it is not on this node, and there was no time to ask others"
        else:
            why = "its programs are busy" if name.servers else "no program accepts flows for it"
        self._fail(waiting, FlowTimeoutException(f"nobody accepted a flow to {text!r} in time: {why}"))

    def _connect(self, allocator: int, acceptor: int, name: Name) -> bool:
        """Whether the flow could be made; if not, the allocator is told."""
        asks, takes = self._waiting[allocator], self._waiting[acceptor]
        assert takes.process is not None
        if isinstance(asks.request, Arrival):
            return self._connect_peer(asks, asks.request, takes, takes.process)
        assert isinstance(asks.request, Alloc)
        assert asks.process is not None
        layer = self._impaired(name.text)
        try:
            sessions = self._security.agree(name.text, asks.request.qos.cypher_s)
            qos = msgspec.structs.replace(asks.request.qos, cypher_s=sessions[0].strength if sessions else 0)
            owners = (asks.process, takes.process)
            flow = self._table.add(name.text, qos, owners, (allocator, acceptor))
        except (FlowRefusedException, NodeLimitError) as error:
            self._fail(asks, error)
            return False
        self._stop_asking(asks)
        self._waiting.remove(asks)
        self._waiting.remove(takes)
        takes.process.served = True
        if layer is None:
            self._effects.append(Connect(flow.id, flow.qos, allocator, acceptor, sessions))
        else:
            flow.relay = layer
            self._effects.append(Relay(flow.id, flow.qos, allocator, acceptor, layer.id, sessions))
        return True

    def _connect_peer(self, asks: Waiting, arrival: Arrival, takes: Waiting, process: Process) -> bool:
        """The same for a request of a peer. Its handshake can fail, which is nothing to the acceptor."""
        layer = asks.layer
        assert layer is not None
        self._waiting.remove(asks)
        try:
            end = layer.accept(arrival)
        except FlowRefusedException:
            return False
        try:
            flow = self._table.add(arrival.name, end.qos, (None, process), (None, takes.token))
        except NodeLimitError:
            end.session.wipe()
            layer.refuse(arrival, NO_ROOM, end)
            return False
        self._waiting.remove(takes)
        process.served = True
        self._attach(flow, end, takes.token, 1)
        layer.confirm(arrival)
        return True

    def _attach(self, flow: Flow, end: RemoteEnd, token: int, side: int) -> None:
        flow.remote = end
        session = end.session if end.session.cipher else None
        self._effects.append(
            Attach(
                flow.id,
                end.qos,
                token,
                side,
                end.ipcp,
                end.eid,
                end.peer_eid,
                end.address,
                end.extension,
                session,
            )
        )

    def _start_program(self, name: Name) -> None:
        binding = name.autostart()
        if binding is None or name.servers or name.text in self._starting:
            return
        self._starting.add(name.text)
        self._started[name.text] = self._started.get(name.text, 0) + 1
        self._effects.append(StartProgram(binding.path, binding.args, name.text))
