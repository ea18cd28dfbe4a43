"""Repetitions: of notices to nodes of ours that our side of a flow is gone, until they are acknowledged; and of answers to
nodes of the C prototype, which may drop one that comes fast.

A node of the C prototype is never told of an end: it has no such message, and its own timer finds out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ouroboros.layers.agenda import Agenda
from ouroboros.layers.effects import Where
from ouroboros.layers.flows.core import Core
from ouroboros.layers.flows.incoming import Request
from ouroboros.wire.udp import FlowDealloc, FlowDeallocAck

#: Seconds until the first repetition; the pauses then double.
FIRST_PAUSE = 0.2
TIMES = 5
#: When an accepting answer to a node of the prototype is repeated, seconds. It drops one that comes before it has noted its
#: own request.
_REPEATED = (0.01, 0.1)
#: So many notices wait for an answer at most; others are sent once.
SIZE = 4096


@dataclass(slots=True)
class Notice:
    message: FlowDealloc
    address: Where
    sent: int = 1


class Notices:
    """The notices of one layer. An endpoint id is free when its notice is over."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: dict[int, Notice] = {}
        self._agenda = Agenda(core.host.alarm)

    def tell(self, message: FlowDealloc, address: Where, now: float, *, repeat: bool = True) -> None:
        """Send, and go on until it is acknowledged. The caller does not hold the endpoint id any longer."""
        self._core.send(address, self._core.encode(message))
        if not repeat or len(self._waiting) >= SIZE:
            self._core.eids.discard(message.eid)
            return
        self._waiting[message.eid] = Notice(message, address)
        self._agenda.set(message.eid, now + FIRST_PAUSE)

    def acknowledged(self, message: FlowDeallocAck, address: Where) -> None:
        notice = self._waiting.get(message.peer_eid)
        if notice is None or notice.message.peer_eid != message.eid:
            self._core.counters["messages_unknown"] += 1
        elif notice.address != address:
            self._core.counters["messages_wrong_source"] += 1
        else:
            self._forget(message.peer_eid)

    def lost(self, address: Where) -> None:
        """Nobody is there any more."""
        for eid in [eid for eid, notice in self._waiting.items() if notice.address == address]:
            self._forget(eid)

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for eid in self._agenda.due(now):
            notice = self._waiting[eid]
            if notice.sent == TIMES:
                self._core.counters["notices_unanswered"] += 1
                self._forget(eid)
                continue
            self._core.send(notice.address, self._core.encode(notice.message))
            self._agenda.set(eid, now + FIRST_PAUSE * 2**notice.sent)
            notice.sent += 1

    def _forget(self, eid: int) -> None:
        del self._waiting[eid]
        self._agenda.cancel(eid)
        self._core.eids.discard(eid)


class RepeatedAnswers:
    """Accepting answers to nodes of the prototype, said again a few times, unless a packet shows that they came: a node that
    gets one again while it ends the flow, as a member does that has enrolled, can allocate none any more
    (`unicast-data.md` 4.7)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._left: dict[int, tuple[Request, list[float]]] = {}
        self._agenda = Agenda(core.host.alarm)

    def add(self, arrival: Request, now: float) -> None:
        """It was said just now."""
        self._left[arrival.own] = arrival, [now + later for later in _REPEATED]
        self._agenda.set(arrival.own, now + _REPEATED[0])

    def stop(self, eid: int) -> None:
        """It came, or the flow is over. No error when it is not said again anyway. `eid`: ours."""
        if self._left.pop(eid, None) is not None:
            self._agenda.cancel(eid)

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for eid in self._agenda.due(now):
            arrival, times = self._left[eid]
            assert arrival.reply is not None, "it was accepted"
            self._core.send(arrival.address, arrival.reply)
            del times[0]
            if times:
                self._agenda.set(eid, times[0])
            else:
                del self._left[eid]
