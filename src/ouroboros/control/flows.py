"""The flow manager: who asks for flows, who accepts them, which flows there are. Pure.

::

    alloc ──▶ acceptor waits? ── yes ──▶ Connect
                   │ no
                   ▼
              queue of the name ──▶ acceptor comes ──▶ Connect
                   ├──▶ time runs out, or the asker hangs up
                   └──▶ the program started for it failed ──▶ Failed

A request is known by its token, which the runtime chooses. There is no other wait than this queue.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from ouroboros.control.effects import Connect, Effect, Join, MarkDead, Release, Reply, StartProgram
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
    deadline: float | None


@dataclass(slots=True)
class Flow:
    """A flow between two ends; the owner of an end is None when it let go, or when it is the node itself."""

    id: int
    name: str
    qos: QoSSpec
    pids: tuple[int, int]
    owners: list[Process | None]
    ipcp: Ipcp | None = None


class FlowManager:
    """Matches allocations with acceptors and keeps the table of flows."""

    def __init__(self, registry: Registry, effects: list[Effect], limit: int) -> None:
        self._registry = registry
        self._effects = effects
        self._limit = limit
        self._waiting: dict[int, Waiting] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._free_ids: list[int] = []
        self._next_id = 1
        #: Names for which a program was started that did not accept anything yet.
        self._starting: set[str] = set()
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
        timeout = ALLOC_TIMEOUT if request.timeout is None else request.timeout
        self._wait(Waiting(token, process, request, now + timeout))
        acceptor = name.next_acceptor()
        if acceptor is not None:
            self._connect(token, acceptor, name)
        elif timeout <= 0:
            self._expire(self._waiting[token])
        else:
            name.allocators[token] = None
            self._start_program(name)

    def accept(self, token: int, process: Process, request: Accept, now: float) -> None:
        deadline = None if request.timeout is None else now + request.timeout
        process.accepts = True
        self._starting -= process.names
        self._wait(Waiting(token, process, request, deadline))
        # Whoever asked first is served first, over all names of the process.
        asked = [name for text in process.names if (name := self._registry.names[text]).allocators]
        if asked:
            oldest = min(asked, key=lambda name: next(iter(name.allocators)))
            self._connect(next(iter(oldest.allocators)), token, oldest)
        elif deadline is not None and deadline <= now:
            self._expire(self._waiting[token])
        else:
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
        flow = self._new_flow(request.layer, request.qos, process, None)
        flow.ipcp = ipcp
        ipcp.join(flow.id)
        self._effects.append(Join(flow.id, request.qos, ipcp.id, token))

    def bound(self, process: Process, name: Name) -> None:
        """A process was bound to a name: acceptors of it that wait are eligible at once."""
        for token in sorted(process.waiting):
            if token in self._waiting and isinstance(self._waiting[token].request, Accept):
                name.acceptors[token] = None
                if name.allocators:
                    self._connect(next(iter(name.allocators)), token, name)

    def unbound(self, process: Process, name: Name) -> None:
        """A process was unbound from a name: it is not eligible any more."""
        for token in process.waiting:
            name.acceptors.pop(token, None)

    def name_destroyed(self, name: Name) -> None:
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

    def abandon(self, flow_id: int, side: int) -> None:
        """An end whose owner never got it: the descriptors could not be made or delivered."""
        flow = self.flows.get(flow_id)
        owner = flow.owners[side] if flow else None
        if flow is not None and owner is not None:
            owner.ends.discard((flow_id, side))
            self._effects.append(MarkDead(flow_id, side))
            self._let_go(flow, side)

    def process_died(self, process: Process) -> None:
        for token in list(process.waiting):
            self.cancel(token)
        for flow_id, side in sorted(process.ends):
            self._effects.append(MarkDead(flow_id, side))
            self._let_go(self.flows[flow_id], side)
        process.ends.clear()

    # --- programs started on demand

    def program_ended(self, name: str, program: str, how: str, served: bool) -> None:
        """A program we started is gone. When it served somebody, the next request starts it again."""
        self._starting.discard(name)
        entry = self._registry.names.get(name)
        if entry is None or not entry.allocators or self._has_server(entry):
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

    def _wait(self, waiting: Waiting) -> None:
        self._waiting[waiting.token] = waiting
        waiting.process.waiting.add(waiting.token)
        if waiting.deadline is None:
            return
        heapq.heappush(self._deadlines, (waiting.deadline, waiting.token))
        if len(self._deadlines) > 64 + 4 * len(self._waiting):
            # Most entries belong to requests that were answered long before their time was up.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._waiting]
            heapq.heapify(self._deadlines)

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
                busy = self._has_server(self._registry.names[text])
                why = "its programs are busy" if busy else "no program accepts flows for it"
                error = FlowTimeoutException(f"nobody accepted a flow to {text!r} in time: {why}")
            case _:
                error = FlowTimeoutException("nobody asked for a flow in time")
        self._fail(waiting, error)

    def _connect(self, allocator: int, acceptor: int, name: Name) -> None:
        asks, takes = self._waiting[allocator], self._waiting[acceptor]
        assert isinstance(asks.request, Alloc)
        try:
            flow = self._new_flow(name.text, asks.request.qos, asks.process, takes.process)
        except NodeLimitError as error:
            # The acceptor keeps waiting: it has done nothing wrong.
            self._fail(asks, error)
            return
        self._forget(asks)
        self._forget(takes)
        takes.process.served = True
        self._effects.append(Connect(flow.id, flow.qos, allocator, acceptor))

    def _new_flow(self, name: str, qos: QoSSpec, zero: Process, one: Process | None) -> Flow:
        if len(self.flows) >= self._limit:
            raise NodeLimitError(f"the node has its limit of {self._limit} flows; deallocate some, or raise its limit")
        if self._free_ids:
            flow_id = heapq.heappop(self._free_ids)
        else:
            flow_id = self._next_id
            self._next_id += 1
        flow = Flow(flow_id, name, qos, (zero.pid, one.pid if one else 0), [zero, one])
        self.flows[flow_id] = flow
        for side, owner in enumerate(flow.owners):
            if owner is not None:
                owner.ends.add((flow_id, side))
        return flow

    def _let_go(self, flow: Flow, side: int) -> None:
        flow.owners[side] = None
        if any(owner is not None for owner in flow.owners):
            return
        del self.flows[flow.id]
        heapq.heappush(self._free_ids, flow.id)
        if flow.ipcp is not None:
            flow.ipcp.leave(flow.id)
        self._effects.append(Release(flow.id, flow.ipcp.id if flow.ipcp else None))

    def _has_server(self, name: Name) -> bool:
        """Whether a process that accepts flows is bound to the name. Clients may be bound, too: by their program's name."""
        return any(self._registry.processes[pid].accepts for pid in name.processes)

    def _start_program(self, name: Name) -> None:
        binding = name.autostart()
        if binding is None or self._has_server(name) or name.text in self._starting:
            return
        self._starting.add(name.text)
        self._effects.append(StartProgram(binding.path, binding.args, name.text))
