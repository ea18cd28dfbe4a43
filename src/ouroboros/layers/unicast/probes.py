"""Who is on the way: the component that sends probes, and answers those of others (`wire/unicast/probe.py`).

::

    ping, trace ─▶ probe ─▶ TTL 1, 2, ... ─▶ ours answer; members of the prototype drop what has no TTL left
    a probe with steps ─▶ Lower.probe ─▶ the same in the layer below ─▶ answer with what came of it

A probe crosses members of the prototype like any packet, and is never sent so far that one of them would be its end. An
answer goes to a member that is known to be ours, and to no other. It is as long as the probe, and one probe makes one packet
in each layer at the most; so nobody gains by a forged source. How many are answered is bounded, for each source by the lower
flow that brought it, and in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import Agenda
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.effects import written_address
from ouroboros.layers.face import Seen, Step, Task, nobody
from ouroboros.layers.members.core import PROBES, Core
from ouroboros.wire.control import HopEntry
from ouroboros.wire.unicast import probe as wire
from ouroboros.wire.unicast.probe import Answer, Probe

#: Probes that are answered a second, and at once: of one source, and of all.
OF_SOURCE = (20.0, 128.0)
OF_ALL = (200.0, 512.0)
#: Sources whose turn is remembered.
MOST_SOURCES = 1024
#: Probes of ours that wait for their answers, and those among them that others asked for.
MOST_WAITING = 1024
MOST_RELAYED = 256
#: The part of the time of who asks that a probe in the layer below has: the answer has a way to go.
SHARE_BELOW = 0.75

COUNTERS = (
    "probes_received",
    "probes_limited",
    "probes_malformed",
    "probes_refused",
    "probes_unasked",
)


class Routes(Protocol):
    """What is needed of routing."""

    def distance(self, address: int) -> int | None: ...

    def ours(self, address: int) -> bool: ...

    def next_flow(self, target: int, via: int) -> int | None:
        """The lower flow to the neighbour `via`, or, for 0, to the one that leads to a member."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A probe of ours. `number`: in the agenda. `hop`: how far it was sent. `below`: it has to find out something there."""

    task: Task
    number: int
    hop: int
    below: bool
    sent: float


class Probes:
    """The component of one member."""

    def __init__(self, core: Core, routes: Routes) -> None:
        self._core = core
        self._routes = routes
        self._waiting: dict[int, _Waiting] = {}
        #: Ids of probes are random; times are kept by numbers.
        self._numbers: dict[int, int] = {}
        self._last = 0
        self._times = Agenda()
        self._relayed = 0
        self._closed = False
        self._of_all = Bucket(*OF_ALL)
        self._of_sources: dict[tuple[int, int], Bucket] = {}
        core.counters.update(dict.fromkeys(COUNTERS, 0))

    # --- asking

    def probe(self, target: int, steps: tuple[Step, ...], wait: float, task: Task, now: float) -> None:
        """As `Ipcp.probe`."""
        (ttl, via), below = steps[0], steps[1:]
        distance = self._routes.distance(target)
        if self._closed:
            task.done(nobody(now))
        elif ttl == 0 and below:
            self._look_below(target, via, below, wait, task.done, now)
        elif ttl == 0 or distance == 0:
            task.done(self._here(now, end=distance == 0))
        elif distance is None or len(self._waiting) >= MOST_WAITING:
            task.done(self._silent(ttl, now, end=distance is None))
        elif ttl >= distance and not self._routes.ours(target):
            task.done(self._silent(distance, now, end=True, at=target))
        else:
            self._send(target, steps, min(ttl, distance), wait, task, now)

    def _send(self, target: int, steps: tuple[Step, ...], hop: int, wait: float, task: Task, now: float) -> None:
        id = self._core.host.random.getrandbits(64)
        (ttl, via), below = steps[0], steps[1:]
        self._last += 1
        self._waiting[id] = _Waiting(task, self._last, hop, bool(below), now)
        self._numbers[self._last] = id
        self._times.set(self._last, now + wait)
        message = Probe(id, self._core.address, target, wait, via, below)
        self._core.send(target, PROBES, message.encode(), ttl=ttl)

    def _look_below(
        self,
        target: int,
        via: int,
        steps: tuple[Step, ...],
        wait: float,
        answer: Callable[[object], None],
        now: float,
    ) -> None:
        fd = self._routes.next_flow(target, via)
        if fd is None:
            answer(nobody(now))
        else:
            self._core.host.lower.probe(self._core.id, fd, steps, wait, answer, now)

    # --- hearing

    def heard(self, data: bytes, fd: int, now: float) -> None:
        """A packet came by that lower flow. It is hostile, as all are."""
        counters = self._core.counters
        try:
            message = wire.decode(data)
        except ProtocolError:
            counters["probes_malformed"] += 1
            return
        if isinstance(message, Answer):
            self._answered(message, now)
            return
        counters["probes_received"] += 1
        source = message.source
        if not self._routes.distance(source) or not self._routes.ours(source):
            # Ourselves, nobody, or a member that would not know what to do with an answer.
            counters["probes_refused"] += 1
        elif not (self._bucket(fd, source).take(now) and self._of_all.take(now)):
            counters["probes_limited"] += 1
        elif message.steps:
            self._relay(message, now)
        else:
            self._tell(message, self._here(now, end=message.target == self._core.address))

    def _relay(self, message: Probe, now: float) -> None:
        if self._relayed >= MOST_RELAYED:
            self._core.counters["probes_limited"] += 1
            return
        self._relayed += 1

        def answer(outcome: object) -> None:
            self._relayed -= 1
            assert isinstance(outcome, Seen), outcome
            self._tell(message, outcome)

        steps = tuple(Step(*each) for each in message.steps)
        self._look_below(message.target, message.via, steps, SHARE_BELOW * message.wait, answer, now)

    def _tell(self, message: Probe, seen: Seen) -> None:
        entry = seen.entry
        answer = Answer(
            message.id,
            end=seen.end,
            answered=entry.state == "answered",
            rank=entry.rank,
            at=seen.at,
            deeper=seen.deeper,
            asked=entry.state != "unasked",
            round_trip=entry.round_trip,
            layer=entry.layer,
            type=entry.type,
            member=entry.member,
            address=entry.address,
        )
        self._core.send(message.source, PROBES, answer.encode())

    def _answered(self, answer: Answer, now: float) -> None:
        waiting = self._waiting.pop(answer.id, None)
        if waiting is None:
            self._core.counters["probes_unasked"] += 1
            return
        del self._numbers[waiting.number]
        self._times.cancel(waiting.number)
        # What is measured below begins at the member that asked there.
        round_trip = answer.round_trip if waiting.below else now - waiting.sent
        state = "answered" if answer.answered else "silent" if answer.asked else "unasked"
        entry = HopEntry(
            waiting.hop, answer.layer, answer.type, answer.rank, answer.member, answer.address, state, round_trip
        )
        waiting.task.done(Seen(entry, now, answer.end, answer.at, answer.deeper))

    # --- time

    def deadline(self) -> float | None:
        return self._times.next()

    def timeout(self, now: float) -> None:
        for number in self._times.due(now):
            waiting = self._waiting.pop(self._numbers.pop(number))
            waiting.task.done(nobody(now) if waiting.below else self._silent(waiting.hop, now, end=False))

    def close(self, now: float) -> None:
        """The member leaves: nothing is waited for any more, and nobody will be found."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.task.done(nobody(now))
        self._waiting.clear()

    # --- what is said

    def _here(self, now: float, *, end: bool) -> Seen:
        core = self._core
        entry = HopEntry(0, core.layer, "unicast", core.rank, core.name, written_address(core.address))
        return Seen(entry, now, end, core.address, deeper=True)

    def _silent(self, hop: int, now: float, *, end: bool, at: int = 0) -> Seen:
        core = self._core
        address = written_address(at) if at else ""
        entry = HopEntry(hop, core.layer, "unicast", core.rank, address=address, state="silent")
        return Seen(entry, now, end, at, deeper=True)

    def _bucket(self, fd: int, source: int) -> Bucket:
        key = fd, source
        if key not in self._of_sources:
            if len(self._of_sources) >= MOST_SOURCES:
                del self._of_sources[next(iter(self._of_sources))]
            self._of_sources[key] = Bucket(*OF_SOURCE)
        return self._of_sources[key]
