"""The flow manager: who asks for flows, who accepts them, which flows there are. Pure.

::

    alloc ──▶ acceptor waits? ── yes ──▶ Connect
                   │ no
                   ▼
              queue of the name ──▶ acceptor comes ──▶ Connect
                   ├──▶ time runs out, or the asker hangs up
                   └──▶ the program started for it failed ──▶ Failed

A request is known by its token, which the runtime chooses: each one larger than those before. There is no other wait than
this queue.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

from ouroboros.control.effects import Connect, Effect, Join, MarkDead, Relay, Release, Reply, StartProgram
from ouroboros.control.messages import Accept, Alloc, Failed, FlowEntry
from ouroboros.control.messages import Join as JoinRequest
from ouroboros.control.names import Name, Process, Registry
from ouroboros.errors import (
    FlowNameException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    NodeLimitError,
    OuroborosError,
    ProtocolError,
    UnsupportedError,
)
from ouroboros.layers.base import Ipcp
from ouroboros.qos import QoSSpec

#: How long an allocation or a join waits when the caller gives no limit, seconds (`flows.md` 1).
ALLOC_TIMEOUT = 20.0


@dataclass(slots=True)
class Waiting:
    """A request that waits in a queue."""

    token: int
    process: Process
    request: Alloc | Accept


@dataclass(slots=True)
class Flow:
    """A flow between two ends; the owner of an end is None when it let go, or when it is the node itself."""

    id: int
    name: str
    qos: QoSSpec
    pids: tuple[int, int]
    owners: list[Process | None]
    #: Of the requests that got the ends.
    tokens: tuple[int, int | None]
    ipcp: Ipcp | None = None
    #: Of the impaired layer whose relay it goes through.
    relay: Ipcp | None = None


class FlowManager:
    """Matches allocations with acceptors and keeps the table of flows.

    `impaired`: the impaired layer through which flows to a name go, None when they go directly.
    """

    def __init__(
        self, registry: Registry, effects: list[Effect], limit: int, impaired: Callable[[str], Ipcp | None]
    ) -> None:
        self._registry = registry
        self._impaired = impaired
        self._effects = effects
        self._limit = limit
        self._waiting: dict[int, Waiting] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._free_ids: list[int] = []
        self._next_id = 1
        #: Names for which a program was started that did not accept anything yet.
        self._starting: set[str] = set()
        #: How many programs that were started for a name did not end yet.
        self._started: dict[str, int] = {}
        self.flows: dict[int, Flow] = {}

    # --- requests

    def alloc(self, token: int, process: Process, request: Alloc, now: float) -> None:
        if request.qos.cypher_s:
            raise UnsupportedError(
                f"cypher_s={request.qos.cypher_s}: local flows are not encrypted yet; ask for cypher_s=0"
            )
        name = self._registry.names.get(request.name)
        if name is None:
            raise FlowNameException(
                f"nobody offers {request.name!r} on this node: start the program that accepts flows for it, "
                "or create the name with `irm name create`"
            )
        self._check_promises(request, self._impaired(request.name))
        timeout = ALLOC_TIMEOUT if request.timeout is None else request.timeout
        self._wait(token, process, request, timeout, now)
        acceptor = name.next_acceptor()
        if acceptor is not None:
            self._connect(token, acceptor, name)
        elif timeout <= 0:
            self._expire(self._waiting[token])
        else:
            name.allocators[token] = None
            self._start_program(name)

    def accept(self, token: int, process: Process, request: Accept, now: float) -> None:
        self._wait(token, process, request, request.timeout, now)
        self._registry.mark_server(process)
        self._starting -= process.names
        # Whoever asked first is served first, over all names of the process.
        while (name := self._asked_first(process)) is not None:
            if self._connect(next(iter(name.allocators)), token, name):
                return
        if request.timeout is not None and request.timeout <= 0:
            self._expire(self._waiting[token])
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
        flow = self._new_flow(request.layer, request.qos, (process, None), (token, None))
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
            self._fail(self._waiting[token], FlowNameException(f"the name {name.text!r} was destroyed"))

    def cancel(self, token: int) -> None:
        """The asker hung up. No error when the request is answered already."""
        waiting = self._waiting.get(token)
        if waiting is not None:
            self._forget(waiting)

    # --- ends of flows

    def dealloc(self, process: Process, flow_id: int, side: int) -> None:
        """One end lets go. Ends that the process does not hold are ignored: it may have raced with its own death."""
        if (flow_id, side) in process.ends:
            process.ends.discard((flow_id, side))
            self._let_go(self.flows[flow_id], side)

    def abandon(self, flow_id: int, side: int, token: int | None = None) -> None:
        """An end whose owner never got it: the descriptors could not be made or delivered.

        With the `token` of the request, nothing happens when the id belongs to another flow by now.
        """
        flow = self.flows.get(flow_id)
        owner = flow.owners[side] if flow else None
        if flow is not None and owner is not None and token in (None, flow.tokens[side]):
            owner.ends.discard((flow_id, side))
            self._lose(flow, side)

    def process_died(self, process: Process) -> None:
        for token in list(process.waiting):
            self.cancel(token)
        for flow_id, side in sorted(process.ends):
            self._lose(self.flows[flow_id], side)
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

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def timeout(self, now: float) -> None:
        while (deadline := self.deadline()) is not None and deadline <= now:
            self._expire(self._waiting[heapq.heappop(self._deadlines)[1]])

    # --- helpers

    def entries(self) -> list[FlowEntry]:
        return [FlowEntry(flow.id, flow.name, flow.pids, flow.qos) for flow in self.flows.values()]

    def _wait(self, token: int, process: Process, request: Alloc | Accept, timeout: float | None, now: float) -> None:
        if timeout is not None and math.isnan(timeout):
            # It would never be over, and neither would what lies behind it in the heap.
            raise ProtocolError("a timeout is a number of seconds, not nan")
        self._waiting[token] = Waiting(token, process, request)
        process.waiting.add(token)
        if timeout is None:
            return
        heapq.heappush(self._deadlines, (now + timeout, token))
        if len(self._deadlines) > 64 + 4 * len(self._waiting):
            # Most entries belong to requests that were answered long before their time was up.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._waiting]
            heapq.heapify(self._deadlines)

    def _asked_first(self, process: Process) -> Name | None:
        """Of the names of the process, the one whose client has waited longest."""
        asked = [name for text in process.names if (name := self._registry.names[text]).allocators]
        return min(asked, key=lambda name: next(iter(name.allocators)), default=None)

    def _forget(self, waiting: Waiting) -> None:
        del self._waiting[waiting.token]
        waiting.process.waiting.discard(waiting.token)
        if isinstance(waiting.request, Alloc):
            name = self._registry.names.get(waiting.request.name)
            if name is not None:
                name.allocators.pop(waiting.token, None)
            return
        for text in waiting.process.names:
            self._registry.names[text].acceptors.pop(waiting.token, None)

    def _fail(self, waiting: Waiting, error: OuroborosError) -> None:
        self._forget(waiting)
        self._effects.append(Reply(waiting.token, Failed(type(error).__name__, str(error))))

    def _expire(self, waiting: Waiting) -> None:
        match waiting.request:
            case Alloc(name=text):
                busy = self._registry.names[text].servers
                why = "its programs are busy" if busy else "no program accepts flows for it"
                error = FlowTimeoutException(f"nobody accepted a flow to {text!r} in time: {why}")
            case _:
                error = FlowTimeoutException("nobody asked for a flow in time")
        self._fail(waiting, error)

    def _connect(self, allocator: int, acceptor: int, name: Name) -> bool:
        """Whether the flow could be made; if not, the allocator is told."""
        asks, takes = self._waiting[allocator], self._waiting[acceptor]
        assert isinstance(asks.request, Alloc)
        layer = self._impaired(name.text)
        try:
            # Again: the layer may be impaired only since.
            self._check_promises(asks.request, layer)
            owners = (asks.process, takes.process)
            flow = self._new_flow(name.text, asks.request.qos, owners, (allocator, acceptor))
        except (FlowQosException, NodeLimitError) as error:
            # The acceptor keeps waiting: it has done nothing wrong.
            self._fail(asks, error)
            return False
        self._forget(asks)
        self._forget(takes)
        takes.process.served = True
        if layer is None:
            self._effects.append(Connect(flow.id, flow.qos, allocator, acceptor))
        else:
            flow.relay = layer
            self._effects.append(Relay(flow.id, flow.qos, allocator, acceptor, layer.id))
        return True

    def _check_promises(self, request: Alloc, layer: Ipcp | None) -> None:
        """Whether the flow can be given what it asks for. A relay waits for nobody, so it can lose packets of its own."""
        if layer is not None and request.qos.ordered:
            raise FlowQosException(
                f"flows to {request.name!r} go through the impaired layer {layer.layer!r}, where packets can be lost; "
                "what repairs that (FRCP) is not built yet, so ask neither for loss=0 nor for in_order=1"
            )

    def _new_flow(
        self, name: str, qos: QoSSpec, owners: tuple[Process, Process | None], tokens: tuple[int, int | None]
    ) -> Flow:
        if len(self.flows) >= self._limit:
            raise NodeLimitError(f"the node has its limit of {self._limit} flows; deallocate some, or raise its limit")
        if self._free_ids:
            flow_id = heapq.heappop(self._free_ids)
        else:
            flow_id = self._next_id
            self._next_id += 1
        zero, one = owners
        flow = Flow(flow_id, name, qos, (zero.pid, one.pid if one else 0), [zero, one], tokens)
        self.flows[flow_id] = flow
        for side, owner in enumerate(flow.owners):
            if owner is not None:
                owner.ends.add((flow_id, side))
        return flow

    def _lose(self, flow: Flow, side: int) -> None:
        """The end of a process that is gone."""
        self._effects.append(MarkDead(flow.id, side, flow.relay.id if flow.relay else None))
        self._let_go(flow, side)

    def _let_go(self, flow: Flow, side: int) -> None:
        flow.owners[side] = None
        if any(owner is not None for owner in flow.owners):
            return
        del self.flows[flow.id]
        heapq.heappush(self._free_ids, flow.id)
        if flow.ipcp is not None:
            flow.ipcp.leave(flow.id)
        layer = flow.ipcp or flow.relay
        self._effects.append(Release(flow.id, layer.id if layer else None))

    def _start_program(self, name: Name) -> None:
        binding = name.autostart()
        if binding is None or name.servers or name.text in self._starting:
            return
        self._starting.add(name.text)
        self._started[name.text] = self._started.get(name.text, 0) + 1
        self._effects.append(StartProgram(binding.path, binding.args, name.text))
