"""Requests for flows that wait, and until when. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ouroboros.control.names import Registry
from ouroboros.control.parties import IpcProcess, Party, Process, Question
from ouroboros.control.shares import Kind, Shares
from ouroboros.errors import OuroborosError, ProtocolError
from ouroboros.layers.agenda import Agenda, Alarm, earliest
from ouroboros.layers.base import Ipcp
from ouroboros.layers.face import Arrival
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Join

#: Seconds until the layers are asked again for a name that nobody serves: the pauses double, up to the second number.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


@dataclass(slots=True, eq=False, kw_only=True)
class _Request:
    """`token`: of a program's request, chosen by the runtime; of others a negative number."""

    token: int
    #: The place in the order of arrival.
    order: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Asking(_Request):
    """A party wants a flow to a name: it waits for an acceptor here, for another node, or for both."""

    party: Party
    name: str
    qos: QoSSpec
    #: Tells the party that there will be no flow.
    refuse: Callable[[OuroborosError, float], None]
    #: The user of the connection that it came over; None for the owner of the node, and for an IPC process.
    user: int | None = None
    #: Of an IPC process; None for a program, which is known by the token.
    question: Question | None = None
    #: Names of the layers that may carry it, None for any.
    over: frozenset[str] | None = None
    #: It waits for its name, also while nobody serves it.
    patient: bool = False
    #: The IPC process that is being asked; then those to ask after it.
    ipcp: Ipcp | None = None
    more_ipcps: list[Ipcp] = field(default_factory=list)
    #: An acceptor was there, but the way to it is through a layer, by another IPC process of this node.
    through: bool = False
    #: Advice of the layers that do not know the name.
    advice: dict[str, str] = field(default_factory=dict)
    #: Of a patient one: seconds until layers are asked again, and what the last of them said.
    pause: float = FIRST_PAUSE
    last_refusal: str = ""
    stranger = False

    def fail(self, error: OuroborosError, now: float) -> None:
        self.stop(now)
        self.refuse(error, now)

    def stop(self, now: float) -> None:
        """No layer needs to go on for it."""
        if self.ipcp is not None:
            ipcp, self.ipcp = self.ipcp, None
            ipcp.cancel(self.token, now)

    def leave(self, registry: Registry) -> None:
        registry.dequeue(self.name, self.token)


@dataclass(slots=True, eq=False, kw_only=True)
class Accepting(_Request):
    """A party takes a flow to a name, None: to any of its names.

    That of an IPC process is standing: it takes one flow after the other, is never removed, and is in the queues of its
    names as long as the IPC process is free.
    """

    party: Party
    name: str | None
    refuse: Callable[[OuroborosError, float], None]
    #: As of `Asking`.
    user: int | None = None

    @property
    def names(self) -> list[str]:
        """Its names: it takes flows for these."""
        return [text for text in self.party.names if self.name in (None, text)]

    @property
    def standing(self) -> IpcProcess | None:
        """The IPC process that takes all flows, None for a program that takes one."""
        return self.party if isinstance(self.party, IpcProcess) else None

    @property
    def free(self) -> bool:
        """Whether it takes a flow."""
        return self.standing is None or self.standing.free

    def fail(self, error: OuroborosError, now: float) -> None:
        self.refuse(error, now)

    def leave(self, registry: Registry) -> None:
        for text in self.names:
            registry.names[text].acceptors.pop(self.token, None)


@dataclass(slots=True, eq=False, kw_only=True)
class Arrived(_Request):
    """A peer wants a flow to a name: it waits for an acceptor. `ipcp`: the IPC process that it asked."""

    arrival: Arrival
    ipcp: Ipcp

    @property
    def name(self) -> str:
        return self.arrival.name

    @property
    def stranger(self) -> bool:
        return not self.arrival.proven

    def fail(self, error: OuroborosError, now: float) -> None:
        self.ipcp.refuse(self.arrival, error, now)

    def leave(self, registry: Registry) -> None:
        registry.dequeue(self.name, self.token)


@dataclass(slots=True, eq=False, kw_only=True)
class Joining(_Request):
    """A program wants a flow of a broadcast layer that the node is about to be in. `left`: is told that it waits no more."""

    party: Process
    request: Join
    refuse: Callable[[OuroborosError, float], None]
    left: Callable[[Joining, float], None]
    #: As of `Asking`.
    user: int | None = None

    def fail(self, error: OuroborosError, now: float) -> None:
        self.stop(now)
        self.refuse(error, now)

    def stop(self, now: float) -> None:
        self.left(self, now)

    def leave(self, registry: Registry) -> None:
        """It is in no queue of a name."""


#: A request that waits. `fail` says why it does not any more; `leave` takes it out of the queues of names.
Waiting = Asking | Accepting | Arrived | Joining


class WaitingRoom:
    """All requests that wait, with their deadlines, and their places in the queues of names."""

    def __init__(self, registry: Registry, shares: Shares, alarm: Alarm) -> None:
        """`alarm`: hears of each time of `deadline`."""
        self._alarm = alarm
        self._registry = registry
        self._shares = shares
        self._waiting: dict[int, Waiting] = {}
        #: Those in the queues of names, by token.
        self.clients: dict[int, Asking | Arrived] = {}
        self.acceptors: dict[int, Accepting] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._arrivals: dict[Arrival, Arrived] = {}
        self._rounds = Agenda(alarm)
        self._order = 0
        self._last_token = 0

    def __contains__(self, waiting: Waiting) -> bool:
        return self._waiting.get(waiting.token) is waiting

    def get(self, token: int) -> Waiting | None:
        return self._waiting.get(token)

    def asking(self, token: int) -> Asking | None:
        """The request for a flow under that token, None when it does not wait any more."""
        waiting = self.clients.get(token)
        return waiting if isinstance(waiting, Asking) else None

    def find(self, arrival: Arrival) -> Arrived | None:
        return self._arrivals.get(arrival)

    def asking_of(self, ipcp: Ipcp) -> list[Asking]:
        """The requests that wait for an answer of that IPC process."""
        return [each for each in self.clients.values() if isinstance(each, Asking) and each.ipcp is ipcp]

    def arrived_at(self, ipcp: Ipcp) -> list[Arrived]:
        """The requests of peers that came by that IPC process."""
        return [each for each in self._arrivals.values() if each.ipcp is ipcp]

    def new_token(self) -> int:
        """For what is no request of a program."""
        self._last_token -= 1
        return self._last_token

    def add(self, waiting: Waiting, until: float | None) -> None:
        """Let a request wait. `until` None or infinite: without end. Raises `NodeLimitError` when its user has too many."""
        if until is not None and math.isnan(until):
            # It would never be over, and neither would what lies behind it in the heap.
            raise ProtocolError("a timeout is a number of seconds, not nan")
        if isinstance(waiting, Asking | Joining) and waiting.user is not None:
            self._shares.take(Kind.REQUESTS, waiting.user)
        self._order += 1
        waiting.order = self._order
        self._waiting[waiting.token] = waiting
        if isinstance(waiting, Accepting):
            self.acceptors[waiting.token] = waiting
        elif not isinstance(waiting, Joining):
            self.clients[waiting.token] = waiting
        if isinstance(waiting, Arrived):
            self._arrivals[waiting.arrival] = waiting
        else:
            waiting.party.waiting.add(waiting.token)
        if until is not None and until != math.inf:
            self._set_deadline(until, waiting.token)

    def remove(self, waiting: Waiting) -> None:
        """It waits no more, in no queue either."""
        del self._waiting[waiting.token]
        self._rounds.cancel(waiting.token)
        self.clients.pop(waiting.token, None)
        self.acceptors.pop(waiting.token, None)
        waiting.leave(self._registry)
        if isinstance(waiting, Asking | Joining) and waiting.user is not None:
            self._shares.give_back(Kind.REQUESTS, waiting.user)
        if isinstance(waiting, Arrived):
            del self._arrivals[waiting.arrival]
        else:
            waiting.party.waiting.discard(waiting.token)

    def fail(self, waiting: Waiting, error: OuroborosError, now: float) -> None:
        """It waits no more, and hears why."""
        self.remove(waiting)
        waiting.fail(error, now)

    def ask_again(self, waiting: Asking, now: float) -> None:
        """No layer leads to the name of this one: ask them again after a pause."""
        self._rounds.set(waiting.token, now + waiting.pause)
        waiting.pause = min(2 * waiting.pause, LONGEST_PAUSE)

    def deadline(self) -> float | None:
        """When something is `expired` or `to_ask`."""
        return earliest(self._next_end(), self._rounds.next())

    def to_ask(self, now: float) -> Iterator[Asking]:
        """Those for which layers are to be asked again, and none is being asked, because an acceptor came meanwhile."""
        due = (self.asking(token) for token in self._rounds.due(now))
        return (asking for asking in due if asking is not None and asking.ipcp is None)

    def _next_end(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now: float) -> Iterator[Waiting]:
        """The requests whose time is over, the earliest first. The caller has to remove each."""
        while (deadline := self._next_end()) is not None and deadline <= now:
            yield self._waiting[heapq.heappop(self._deadlines)[1]]

    def _set_deadline(self, until: float, token: int) -> None:
        self._alarm.sooner(until)
        heapq.heappush(self._deadlines, (until, token))
        if len(self._deadlines) > 64 + 4 * len(self._waiting):
            # Most entries belong to requests that were answered long before their time was up.
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._waiting]
            heapq.heapify(self._deadlines)
