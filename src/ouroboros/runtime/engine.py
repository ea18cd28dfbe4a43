"""The engine of a node, by the effects of control.

This is the one translation between effects and what the engine is told: of members here, of flows in `carrying`, of news in
`hearing`. The machine under it is that of the system (`runtime.machine`), or one in virtual time (`testing.sim`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ouroboros.control.irm import Irm
from ouroboros.control.shares import Kind
from ouroboros.dataplane import Engine, LinkSettings, SimulatedEngine
from ouroboros.layers.effects import (
    CloseMember,
    Effect,
    EndFlow,
    HandOver,
    Impair,
    Listen,
    OpenBroadcast,
    OpenMember,
    OpenPort,
    OpenTransfer,
    PeerGone,
    RemoteEnd,
    Reserve,
    ResizeWay,
    Resolve,
    Route,
    SendManagement,
    SendMessage,
    SendPdu,
    SetAddress,
    TakeBack,
    Unreserve,
    Where,
)
from ouroboros.layers.face import End, How
from ouroboros.runtime.carrying import Carrying
from ouroboros.runtime.devices import Device, trouble_of
from ouroboros.runtime.hearing import Hearing
from ouroboros.runtime.held import Held, Machine, News
from ouroboros.runtime.ports import why_not
from ouroboros.wire.listing import Place


class EngineRuntime:
    """Carries out effects in the engine of a node. `carry_out` is called after the IRM was told something."""

    def __init__(self, irm: Irm, carry_out: Callable[[], None], machine: Machine) -> None:
        self._irm = irm
        self._carry_out = carry_out
        self._machine = machine
        self.now = machine.now
        self._held = Held(irm, machine, self.heard)
        self._hearing = Hearing(irm, self._held, machine)
        #: Flows, for what makes their channels.
        self.flows = Carrying(irm, self._held, machine)
        self.handlers: dict[type[Effect], Callable[[Any], None]] = {
            OpenPort: self.open_port,
            OpenMember: lambda effect: self._held.open_member(effect.ipcp, "transfer"),
            OpenTransfer: self.open_transfer,
            SetAddress: self.set_address,
            HandOver: self.hand_over,
            TakeBack: self.take_back,
            Route: self.route,
            Listen: self.listen,
            SendMessage: self.send_message,
            SendPdu: self.send_pdu,
            OpenBroadcast: lambda effect: self._held.open_member(effect.ipcp, "broadcast"),
            CloseMember: lambda effect: self._held.close_member(effect.ipcp),
            Impair: self.impair,
            Resolve: self.resolve,
            SendManagement: self.send,
            Reserve: self.reserve,
            Unreserve: self.unreserve,
            PeerGone: self.peer_gone,
            ResizeWay: self.resize_way,
            EndFlow: self.flows.end_flow,
        }

    # --- members

    def open_port(self, effect: OpenPort) -> None:
        # One that failed has the port.
        self._held.close_member(effect.ipcp)
        try:
            self._held.running()
            member, mtu = self._machine.open_port(effect)
            if not mtu:
                self._held.running().guard(member, self._machine.random.randbytes(32))
            else:
                self._watch(effect, member)
        except OSError as error:
            self._irm.member_failed(effect.ipcp, why_not(effect, error), self.now())
            return
        self._held.ports[effect.ipcp] = effect.family, mtu
        self._held.note_member(effect.ipcp, member)
        self._irm.member_opened(effect.ipcp, self.now(), mtu)

    def _watch(self, effect: OpenPort, member: int) -> None:
        """Be told of the device of a port. Raises `OSError`, and nothing is left of the port."""

        def told(device: Device | None) -> None:
            if self._held.members.get(effect.ipcp) != member:
                return
            if device is None:
                self._irm.device_gone(effect.ipcp, f"the device {effect.address} is gone", self.now())
            else:
                self._held.running().note_device(member, device.on, device.carries)
                self._irm.device_changed(effect.ipcp, trouble_of(effect.address, device), self.now())
            self._carry_out()

        try:
            self._machine.watch(effect.ipcp, effect.address, told)
        except OSError:
            self._held.running().close(member, False)
            raise

    def impair(self, effect: Impair) -> None:
        if effect.ipcp not in self._held.members:
            self._held.open_member(effect.ipcp, "local")
        link = LinkSettings(**msgspec.structs.asdict(effect.impairment))
        self._held.running().impair(self._held.members[effect.ipcp], link)

    def send(self, effect: SendManagement) -> None:
        if (at := self._place(effect.ipcp, effect.where)) is not None:
            engine, member, where = at
            engine.say(member, where, effect.data)

    def reserve(self, effect: Reserve) -> None:
        if effect.ipcp in self._held.adjacent:
            self._held.running().reserve(self._held.members[effect.ipcp], effect.eid, None)
        elif (at := self._place(effect.ipcp, effect.where)) is not None:
            engine, member, where = at
            engine.reserve(member, effect.eid, where)

    def unreserve(self, effect: Unreserve) -> None:
        if self._held.engine is not None and (member := self._held.members.get(effect.ipcp)) is not None:
            self._held.engine.unreserve(member, effect.eid)

    def resize_way(self, effect: ResizeWay) -> None:
        self.flows.resize_way(effect.ipcp, effect.destination, effect.size)

    def peer_gone(self, effect: PeerGone) -> None:
        if self._held.engine is not None and (member := self._held.members.get(effect.ipcp)) is not None:
            self._held.engine.peer_gone(member, effect.eid, effect.died)

    # --- unicast layers

    def open_transfer(self, effect: OpenTransfer) -> None:
        self._held.close_member(effect.ipcp)
        self._held.note_member(
            effect.ipcp, self._held.running().open_unicast(effect.address, effect.max_ttl, effect.ecn)
        )
        self._held.adjacent[effect.ipcp] = set()

    def set_address(self, effect: SetAddress) -> None:
        if (member := self._held.unicast(effect.ipcp)) is not None:
            self._held.running().change_unicast(member, effect.address, effect.max_ttl, effect.ecn)

    def hand_over(self, effect: HandOver) -> None:
        member, number = self._held.unicast(effect.ipcp), self._held.lower.get(effect.fd)
        if member is not None and number is not None:
            self._held.adjacent[effect.ipcp].add(number)
            most = self._held.flows[number].size.most
            self._held.running().hand_over(member, number, effect.neighbour, most, effect.ours)
            self.flows.resize_above(self._held.flows[number])

    def take_back(self, effect: TakeBack) -> None:
        member, number = self._held.unicast(effect.ipcp), self._held.lower.get(effect.fd)
        if member is not None and number is not None:
            self._held.adjacent[effect.ipcp].discard(number)
            self._held.running().take_back(member, number)
            self.flows.resize_above(self._held.flows[number])

    def route(self, effect: Route) -> None:
        if (member := self._held.unicast(effect.ipcp)) is not None:
            self._held.running().route(member, effect.table, effect.spread)

    def listen(self, effect: Listen) -> None:
        if self._held.unicast(effect.ipcp) is not None and (number := self._held.lower.get(effect.fd)) is not None:
            self._held.running().listen(number)

    def send_message(self, effect: SendMessage) -> None:
        if self._held.unicast(effect.ipcp) is not None and (number := self._held.lower.get(effect.fd)) is not None:
            self._held.running().send_message(number, effect.data)

    def send_pdu(self, effect: SendPdu) -> None:
        if (member := self._held.unicast(effect.ipcp)) is not None:
            self._held.running().send_pdu(member, effect.destination, effect.eid, effect.ttl, effect.data)

    def _place(self, ipcp: int, where: Where) -> tuple[Engine | SimulatedEngine, int, Where] | None:
        """A peer of an IPC process in the words of the engine; None: one of them is gone."""
        member = self._held.members.get(ipcp)
        if self._held.engine is None or member is None:
            return None
        if isinstance(where, int):
            number = self._held.lower.get(where)
            return None if number is None else (self._held.engine, member, number)
        return self._held.engine, member, where

    def ports(self) -> list[int]:
        """Members that have a port."""
        return [self._held.members[ipcp] for ipcp in self._held.ports]

    def withdraw(self, end: End) -> None:
        """The engine does not get a flow after all, so nothing else would say that it is over. The peer thinks that it is
        there."""
        assert isinstance(end, RemoteEnd), end
        self.unreserve(Unreserve(end.ipcp, end.eid))
        self._irm.flow_ended(end.ipcp, end.eid, How.CLOSED, self.now())

    # --- the engine

    def heard(self, news: News, failure: str | None = None) -> None:
        """The engine has news. `failure`: why it is gone, if it is."""
        now = self.now()
        self._hearing.hear(news, now)
        if failure is not None:
            self._broke(failure, now)
        self._carry_out()

    def _broke(self, reason: str, now: float) -> None:
        """All that was there has died with it. The IPC processes begin again, or not."""
        ipcps = [ipcp for ipcp in self._held.members if ipcp is not None]
        flows = list(self._held.flows.values())
        self.count()
        self._held.stop()
        for flow in flows:
            self._irm.flow_touched(flow.flow_id)
        for ipcp in ipcps:
            self._hearing.tell("the end of a layer", self._irm.member_broke, ipcp, reason, now)
        for flow in flows:
            if flow.user is not None:
                self._hearing.tell("the end of a flow", self._irm.end_over, flow.flow_id, flow.side, How.DIED, now)

    def resolve(self, effect: Resolve) -> None:
        user, shares = self._irm.asker(effect.asked), self._irm.shares
        if user is not None:
            shares.take(Kind.LOOKUPS, user)

        def found(addresses: list[str]) -> None:
            if user is not None:
                shares.give_back(Kind.LOOKUPS, user)
            self._irm.resolved(effect.ipcp, effect.token, addresses, self.now())
            self._carry_out()

        self._machine.resolve(effect, found, apart=user is not None)

    # --- counters

    def count(self, *, flows: bool = True) -> None:
        """Tell the IRM what the engine has counted, as far as it shows that without being asked. Not `flows`: of layers."""
        if self._held.engine is None:
            return
        shown = self._machine.counters()
        for ipcp, member in self._held.members.items():
            if ipcp is not None and shown is not None:
                self._irm.counted(ipcp, shown.of("layer", member) or {})
            elif ipcp is not None:
                of_layer, of_flows = self._held.engine.snapshot(member)
                self._irm.counted(ipcp, of_layer)
                for number, counters in of_flows.items():
                    self._hearing.count_flow(number, counters)
        if shown is not None and flows:
            for number in list(self._held.flows):
                if (of_flow := shown.of("flow", number)) is not None:
                    self._hearing.count_flow(number, of_flow)

    def held(self) -> dict[int, int]:
        """Bytes of FRCP that each account has."""
        return {} if self._held.engine is None else self._held.engine.held()

    def place_of_layer(self, ipcp: int) -> Place | None:
        """Where the engine counts for an IPC process; None: nowhere."""
        member = self._held.members.get(ipcp)
        return None if member is None else (self._machine.instance, member)

    def place_of_flow(self, flow_id: int) -> Place | None:
        """Likewise for a flow to another node, which has one end here."""
        number = self._held.numbers.get((flow_id, 0), self._held.numbers.get((flow_id, 1)))
        return None if number is None else (self._machine.instance, number)

    def shut_down(self) -> None:
        for ipcp in list(self._held.members):
            self._held.close_member(ipcp)
        self._held.stop()
        self._machine.shut_down()
