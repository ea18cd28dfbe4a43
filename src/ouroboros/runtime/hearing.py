"""News of the engine, told to the IRM."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from ouroboros.control.irm import Irm
from ouroboros.layers.effects import Where
from ouroboros.layers.face import How
from ouroboros.runtime.held import Held, Machine, News

_P = ParamSpec("_P")


class Hearing:
    """Translates the numbers of the engine. News of members and flows that are gone are ignored."""

    def __init__(self, irm: Irm, held: Held, machine: Machine) -> None:
        self._irm = irm
        self._held = held
        self._machine = machine

    def hear(self, news: News, now: float) -> None:
        datagrams, messages, ends, states, heard = news
        # What came over a flow came before its end.
        for number, data in messages:
            self.tell("a message", self._message, number, data, now)
        for member, eid, data, brought in heard:
            self.tell("a packet for a component", self._heard, member, eid, data, brought, now)
        for member, where, data in datagrams:
            self.tell("a message", self._arrived, member, where, data, now)
        for number, how, counters in ends:
            self.tell("the end of a flow", self._ended, number, how, counters, now)
        for number, up in states:
            self.tell("the state of a flow", self._changed, number, up, now)

    def tell(self, what: str, call: Callable[_P, None], *args: _P.args, **named: _P.kwargs) -> None:
        """Nothing else waits for what meets a bug of ours: it is lost, as a message on the way, and the layer goes on."""
        try:
            call(*args, **named)
        except Exception as error:  # noqa: BLE001 - the machine says it
            self._machine.met_bug(what, error)

    def _changed(self, number: int, up: bool, now: float) -> None:
        if (flow := self._held.flows.get(number)) is None:
            return
        if up and flow.eid is not None and flow.ipcp is not None:
            self._irm.flow_heard(flow.ipcp, flow.eid)
        if flow.user is not None:
            self._irm.end_state(flow.flow_id, flow.side, up, now)

    def _ended(self, number: int, name: str, counters: dict[str, int], now: float) -> None:
        how = How(name)
        self.count_flow(number, counters)
        flow = self._held.forget(number)
        if flow is None:
            return
        if flow.user is not None:
            self.tell("the end of a flow", self._irm.end_over, flow.flow_id, flow.side, how, now)
        if flow.eid is not None and flow.ipcp is not None:
            self._irm.flow_ended(flow.ipcp, flow.eid, how, now)

    def _arrived(self, member: int, where: Where, data: bytes, now: float) -> None:
        ipcp = self._held.ipcps.get(member)
        if ipcp is None:
            return
        if isinstance(where, int):
            below = self._held.flows.get(where)
            if below is None or below.user is None:
                return
            where = below.user.fd
        self._irm.management_arrived(ipcp, data, where, now)

    def _message(self, number: int, data: bytes, now: float) -> None:
        if (flow := self._held.flows.get(number)) is not None and flow.user is not None:
            self._irm.message(flow.user.ipcp, flow.user.fd, data, now)

    def _heard(self, member: int, eid: int, data: bytes, brought: int | None, now: float) -> None:
        ipcp = self._held.ipcps.get(member)
        if ipcp is None:
            return
        if brought is None:
            self._irm.heard(ipcp, eid, data, 0, now)
        elif (flow := self._held.flows.get(brought)) is not None and flow.user is not None:
            self._irm.heard(ipcp, eid, data, flow.user.fd, now)

    def count_flow(self, number: int, counters: dict[str, int]) -> None:
        flow = self._held.flows.get(number)
        # Within the node, the counters of a flow are those of its allocator.
        if flow is None or flow.ipcp is None or (flow.eid is None and flow.side == 1):
            return
        if self._held.numbers.get((flow.flow_id, flow.side)) == number:
            self._irm.flow_counted(flow.flow_id, flow.ipcp, counters)
