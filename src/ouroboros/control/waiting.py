"""Requests for flows that wait, and until when. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ouroboros.control.messages import Accept, Alloc
from ouroboros.control.names import Process, Registry
from ouroboros.errors import ProtocolError
from ouroboros.layers.udp import Arrival, UdpIpcp


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits: for an acceptor (`Alloc`, `Arrival`), for a client (`Accept`), for another node (`Alloc`).

    `token`: of a program's request, chosen by the runtime, or a negative one for what came from another node.
    """

    token: int
    process: Process | None
    request: Alloc | Accept | Arrival
    #: The place in the order of arrival.
    order: int
    #: The layer that an `Arrival` came from, or that is being asked for an `Alloc`; then those to ask after it.
    layer: UdpIpcp | None = None
    more_layers: list[UdpIpcp] = field(default_factory=list)

    @property
    def asked_elsewhere(self) -> bool:
        """It is a program's request that a layer works on."""
        return self.layer is not None and isinstance(self.request, Alloc)


class WaitingRoom:
    """All requests that wait, with their deadlines, and their places in the queues of names."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiting: dict[int, Waiting] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._arrivals: dict[Arrival, int] = {}
        self._order = 0

    def __getitem__(self, token: int) -> Waiting:
        return self._waiting[token]

    def __contains__(self, token: int) -> bool:
        return token in self._waiting

    def get(self, token: int) -> Waiting | None:
        return self._waiting.get(token)

    def find(self, arrival: Arrival) -> Waiting | None:
        token = self._arrivals.get(arrival)
        return None if token is None else self._waiting[token]

    def add(
        self, token: int | None, process: Process | None, request: Alloc | Accept | Arrival, until: float | None
    ) -> Waiting:
        """Let a request wait. `token` None: of another node. `until` None: without end."""
        if until is not None and math.isnan(until):
            # It would never be over, and neither would what lies behind it in the heap.
            raise ProtocolError("a timeout is a number of seconds, not nan")
        self._order += 1
        waiting = Waiting(-self._order if token is None else token, process, request, self._order)
        self._waiting[waiting.token] = waiting
        if process is not None:
            process.waiting.add(waiting.token)
        if isinstance(request, Arrival):
            self._arrivals[request] = waiting.token
        if until is not None:
            self._set_deadline(until, waiting.token)
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """It waits no more, in no queue either."""
        del self._waiting[waiting.token]
        if waiting.process is not None:
            waiting.process.waiting.discard(waiting.token)
        if isinstance(waiting.request, Arrival):
            del self._arrivals[waiting.request]
        if isinstance(waiting.request, Accept):
            for text in waiting.process.names if waiting.process is not None else ():
                self._registry.names[text].acceptors.pop(waiting.token, None)
        else:
            self.leave_queue(waiting)

    def leave_queue(self, waiting: Waiting) -> None:
        """It does not wait for an acceptor here any more."""
        assert not isinstance(waiting.request, Accept)
        name = self._registry.names.get(waiting.request.name)
        if name is not None:
            name.allocators.pop(waiting.token, None)

    def deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now: float) -> Iterator[Waiting]:
        """Those whose time is over, the earliest first. Whoever takes one has to remove it."""
        while (deadline := self.deadline()) is not None and deadline <= now:
            yield self._waiting[heapq.heappop(self._deadlines)[1]]

    def _set_deadline(self, until: float, token: int) -> None:
        heapq.heappush(self._deadlines, (until, token))
        if len(self._deadlines) > 64 + 4 * len(self._waiting):
            # Most entries belong to requests that were answered long before their time was up.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._waiting]
            heapq.heapify(self._deadlines)
