"""The engine of a node: members of layers and the flows that they carry, by the effects of control. One engine has them all;
it begins with the first member.

This is the one translation between effects and what the engine is told. The machine under it is that of the system
(`runtime.machine`), or one in virtual time (`testing.sim`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypedDict

import msgspec

from ouroboros.control.irm import Irm
from ouroboros.control.shares import Kind
from ouroboros.dataplane import MAX_PACKET, Engine, Frcp, LinkSettings, Setup, SimulatedEngine
from ouroboros.layers.effects import (
    Address,
    Attach,
    CloseMember,
    Effect,
    EndFlow,
    HandOver,
    Impair,
    Listen,
    Loop,
    Member,
    OpenBroadcast,
    OpenMember,
    OpenPort,
    OpenTransfer,
    PeerGone,
    RemoteEnd,
    Reserve,
    Resolve,
    Route,
    SendManagement,
    SendMessage,
    SendPdu,
    SetAddress,
    TakeBack,
    UnicastEnd,
    Unreserve,
    Where,
)
from ouroboros.layers.face import End, How, Random, Size
from ouroboros.layers.flows.sizes import (
    MPL,
    UNICAST_MPL,
    FrcpSettings,
    below_checksum,
    frcp_of,
    size_for_members,
    sizes_over,
)
from ouroboros.layers.udp.sizes import path_of
from ouroboros.runtime.ports import why_not
from ouroboros.wire import extension
from ouroboros.wire.counters import Counters
from ouroboros.wire.extension import Extension
from ouroboros.wire.listing import Place
from ouroboros.wire.udp import EID_LENGTH, PACKET_LENGTH

_P = ParamSpec("_P")

#: What each end of a flow within the node knows of the other, if the engine has FRCP there: the longest packet, and a window
#: of the largest that fit into a few MiB.
_NEAR = Extension(extension.SACK | extension.FRAGMENTS, PACKET_LENGTH["udp4"], window=4096, request=bytes(16))
#: What a flow within the node carries for a layer above, if the engine has nothing to do with it.
_WITHIN = Size(MAX_PACKET, 65_000)

#: A program as the user of an end: memory, doorbell and side of the engine in its channel.
Program = tuple[int, int, int]
#: Bytes in front of each packet of a unicast layer.
_PCI_LENGTH = 15
#: What an engine has to say: datagrams of management by member and source, messages, flows that ended, how and what they
#: counted, flows whose peers are silent or (True) back, packets for components by member and endpoint id, with the flow that
#: brought them.
News = tuple[
    list[tuple[int, Where, bytes]],
    list[tuple[int, bytes]],
    list[tuple[int, str, dict[str, int]]],
    list[tuple[int, bool]],
    list[tuple[int, int, bytes, int | None]],
]


class Machine(Protocol):
    """What a node runs on. Times are seconds."""

    random: Random
    #: Tells its engine from those before it, in the file of counters.
    instance: int

    def now(self) -> float: ...

    def start(self, heard: Callable[[News, str | None], None]) -> Engine | SimulatedEngine:
        """An engine. `heard`: is told its news, and why it failed if it did."""

    def stop(self) -> None:
        """End the engine, if there is one."""

    def counters(self) -> Counters | None:
        """What the engine shows without being asked; None: nothing."""

    def open_port(self, effect: OpenPort) -> int:
        """The number of a new member of the engine. Raises `OSError` when the address or the port cannot be had."""

    def path_mtu(self, family: str, address: Address) -> int: ...

    def resolve(self, effect: Resolve, found: Callable[[list[str]], None], *, apart: bool) -> None:
        """`found`: is told the addresses, later. `apart`: it must not keep others waiting that are not."""

    def copied(self, program: Program) -> Program | None:
        """The same program, for a `Setup`, which takes it over. Raises `OSError`."""

    def met_bug(self, what: str, error: Exception) -> None:
        """Something could not be told to the IRM, because of that error, which is being handled."""

    def shut_down(self) -> None: ...


class _Way(TypedDict, total=False):
    """What carries a flow to another node, in the words of `Setup`: one of `peer`, `lower` and `destination`."""

    peer: Address
    lower: int
    destination: int
    cube: int


class _Holder(TypedDict, total=False):
    """What has an end beside programs, in the words of `Setup`: one of them, or none."""

    transfer: int
    control: int


@dataclass(slots=True)
class _Carried:
    """A flow of the engine: an end of a flow of the node.

    `ipcp`: carries it; None: nothing but the node. `eid`: there. `user`: an IPC process that has it; None for a program.
    `size`: what it carries for that one.
    """

    flow_id: int
    side: int
    ipcp: int | None
    eid: int | None
    user: Member | None
    size: Size
    #: Its other end is in this node.
    looped: bool = False


class EngineRuntime:
    """What a node has in its engine. `carry_out` is called after the IRM was told something."""

    def __init__(self, irm: Irm, carry_out: Callable[[], None], machine: Machine) -> None:
        self._irm = irm
        self._carry_out = carry_out
        self._machine = machine
        self.now = machine.now
        self._engine: Engine | SimulatedEngine | None = None
        #: Numbers of members by IPC process, and the other way round; None: of flows with nothing between their ends.
        self._members: dict[int | None, int] = {}
        self._ipcps: dict[int, int | None] = {}
        #: Of layers over UDP.
        self._families: dict[int | None, str] = {}
        #: IPC processes whose members are of broadcast layers.
        self._broadcast: set[int | None] = set()
        #: IPC processes whose members are of unicast layers, and the numbers of their flows to neighbours.
        self._adjacent: dict[int | None, set[int]] = {}
        #: Flows by number, and the number of each end.
        self._flows: dict[int, _Carried] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        #: Flows that IPC processes use, by their number for it.
        self._lower: dict[int, int] = {}
        self.handlers: dict[type[Effect], Callable[[Any], None]] = {
            OpenPort: self.open_port,
            OpenMember: lambda effect: self._open_member(effect.ipcp, "transfer"),
            OpenTransfer: self.open_transfer,
            SetAddress: self.set_address,
            HandOver: self.hand_over,
            TakeBack: self.take_back,
            Route: self.route,
            Listen: self.listen,
            SendMessage: self.send_message,
            SendPdu: self.send_pdu,
            OpenBroadcast: lambda effect: self._open_member(effect.ipcp, "broadcast"),
            CloseMember: lambda effect: self.stop(effect.ipcp),
            Impair: self.impair,
            Resolve: self.resolve,
            SendManagement: self.send,
            Reserve: self.reserve,
            Unreserve: self.unreserve,
            PeerGone: self.peer_gone,
            EndFlow: self.end_flow,
        }

    # --- members

    def open_port(self, effect: OpenPort) -> None:
        # One that failed has the port.
        self.stop(effect.ipcp)
        try:
            self._running()
            member = self._machine.open_port(effect)
            self._running().guard(member, self._machine.random.randbytes(32))
        except OSError as error:
            self._irm.member_failed(effect.ipcp, why_not(effect, error), self.now())
            return
        self._families[effect.ipcp] = effect.family
        self._note_member(effect.ipcp, member)
        self._irm.member_opened(effect.ipcp, self.now())

    def _open_member(self, ipcp: int | None, kind: str) -> None:
        if ipcp in self._members:
            self.stop(ipcp)
        self._note_member(ipcp, self._running().open_member(kind))
        if kind == "broadcast":
            self._broadcast.add(ipcp)

    def _note_member(self, ipcp: int | None, member: int) -> None:
        self._members[ipcp], self._ipcps[member] = member, ipcp
        if ipcp is not None:
            self._irm.touch(ipcp)

    def stop(self, ipcp: int | None) -> None:
        """No error when there is no such member. Its programs see a death of their peers; those of a broadcast layer, which
        has no peers from which more could have come, its end."""
        member = self._members.pop(ipcp, None)
        if member is None or self._engine is None:
            return
        del self._ipcps[member]
        if ipcp is not None:
            self._irm.touch(ipcp)
        self._engine.close(member, ipcp not in self._broadcast)
        self._families.pop(ipcp, None)
        self._broadcast.discard(ipcp)
        self._adjacent.pop(ipcp, None)

    def impair(self, effect: Impair) -> None:
        if effect.ipcp not in self._members:
            self._open_member(effect.ipcp, "local")
        link = LinkSettings(**msgspec.structs.asdict(effect.impairment))
        self._running().impair(self._members[effect.ipcp], link)

    def send(self, effect: SendManagement) -> None:
        if (at := self._place(effect.ipcp, effect.where)) is not None:
            engine, member, where = at
            engine.say(member, where, effect.data)

    def reserve(self, effect: Reserve) -> None:
        if effect.ipcp in self._adjacent:
            self._running().reserve(self._members[effect.ipcp], effect.eid, None)
        elif (at := self._place(effect.ipcp, effect.where)) is not None:
            engine, member, where = at
            engine.reserve(member, effect.eid, where)

    def unreserve(self, effect: Unreserve) -> None:
        if self._engine is not None and (member := self._members.get(effect.ipcp)) is not None:
            self._engine.unreserve(member, effect.eid)

    def peer_gone(self, effect: PeerGone) -> None:
        if self._engine is not None and (member := self._members.get(effect.ipcp)) is not None:
            self._engine.peer_gone(member, effect.eid, effect.died)

    # --- unicast layers

    def open_transfer(self, effect: OpenTransfer) -> None:
        self.stop(effect.ipcp)
        self._note_member(effect.ipcp, self._running().open_unicast(effect.address, effect.max_ttl, effect.ecn))
        self._adjacent[effect.ipcp] = set()

    def set_address(self, effect: SetAddress) -> None:
        if (member := self._unicast(effect.ipcp)) is not None:
            self._running().change_unicast(member, effect.address, effect.max_ttl, effect.ecn)

    def hand_over(self, effect: HandOver) -> None:
        member, number = self._unicast(effect.ipcp), self._lower.get(effect.fd)
        if member is not None and number is not None:
            self._adjacent[effect.ipcp].add(number)
            most = self._flows[number].size.most
            self._running().hand_over(member, number, effect.neighbour, most, effect.ours)

    def take_back(self, effect: TakeBack) -> None:
        member, number = self._unicast(effect.ipcp), self._lower.get(effect.fd)
        if member is not None and number is not None:
            self._adjacent[effect.ipcp].discard(number)
            self._running().take_back(member, number)

    def route(self, effect: Route) -> None:
        if (member := self._unicast(effect.ipcp)) is not None:
            self._running().route(member, effect.table, effect.spread)

    def listen(self, effect: Listen) -> None:
        if self._unicast(effect.ipcp) is not None and (number := self._lower.get(effect.fd)) is not None:
            self._running().listen(number)

    def send_message(self, effect: SendMessage) -> None:
        if self._unicast(effect.ipcp) is not None and (number := self._lower.get(effect.fd)) is not None:
            self._running().send_message(number, effect.data)

    def send_pdu(self, effect: SendPdu) -> None:
        if (member := self._unicast(effect.ipcp)) is not None:
            self._running().send_pdu(member, effect.destination, effect.eid, effect.data)

    def _unicast(self, ipcp: int) -> int | None:
        """The member of an IPC process in a unicast layer; None: it has none any more."""
        return self._members.get(ipcp) if ipcp in self._adjacent else None

    def _place(self, ipcp: int, where: Where) -> tuple[Engine | SimulatedEngine, int, Where] | None:
        """A peer of an IPC process in the words of the engine; None: one of them is gone."""
        member = self._members.get(ipcp)
        if self._engine is None or member is None:
            return None
        if isinstance(where, int):
            number = self._lower.get(where)
            return None if number is None else (self._engine, member, number)
        return self._engine, member, where

    # --- flows

    def attach(self, effect: Attach, program: Program | None) -> Size:
        """Carry a flow to a peer for a program, or for the IPC process that `effect` names; returns what it carries. Raises
        `OSError` when it cannot be. The descriptors stay the caller's."""
        end = effect.end
        assert isinstance(end, RemoteEnd), end
        if (member := self._members.get(end.ipcp)) is None:
            raise OSError(0, "its layer ended")
        path, way = self._path(end)
        qos, session = end.qos, end.session
        sizes = sizes_over(path, qos, end.extension, cipher=session.cipher, max_message=MAX_PACKET)
        if not sizes.usable:
            raise OSError(0, "its path carries no packets")
        mpl = UNICAST_MPL if isinstance(end, UnicastEnd) else MPL
        frcp = _frcp(frcp_of(qos, end.extension, sizes.packet, mpl=mpl))
        user = effect.user if isinstance(effect.user, Member) else None
        holder = self._holder(user)
        size = size_for_members(sizes, qos, cipher=session.cipher)
        number = self._note_flow(_Carried(effect.flow_id, effect.side, end.ipcp, end.eid, user, size))
        try:
            with self._copied(program) as copied:
                setup = Setup(
                    flow=number,
                    member=member,
                    side=effect.side,
                    program=copied,
                    **holder,
                    **way,
                    eid=end.eid,
                    peer_eid=end.peer_eid,
                    mtu=sizes.datagram,
                    crc=qos.ber == 0,
                    timeout=qos.timeout,
                    grace=end.grace,
                    seed=self._machine.random.getrandbits(64),
                    lot=(end.eid, 0),
                    credit=end.can(extension.CREDIT),
                    frcp=frcp,
                    suite=session.cipher,
                    key=session.key if session.cipher else None,
                    reject_replays=end.can(extension.REPLAY),
                    accounts=effect.accounts,
                )
        except BaseException:  # a panic of the engine is no `Exception`
            self._unname(number)
            raise
        self._running().add([setup])
        return size

    def loop(self, effect: Loop, programs: tuple[Program | None, Program | None]) -> None:
        """Carry a flow within the node. Raises `OSError` when it cannot be. The descriptors stay the caller's."""
        if effect.ipcp not in self._members:
            self._open_member(effect.ipcp, "local")
        users = [user if isinstance(user, Member) else None for user in effect.users]
        flows = [
            _Carried(effect.flow_id, side, effect.ipcp, None, user, size_within(effect), looped=True)
            for side, user in enumerate(users)
        ]
        holders = [self._holder(user) for user in users]
        numbers = [self._note_flow(flow) for flow in flows]
        try:
            ends = [self._end_of_loop(effect, side, numbers, programs[side], holders[side]) for side in (0, 1)]
        except BaseException:
            self._unname(*numbers)
            raise
        self._running().add(ends)

    def _end_of_loop(
        self, effect: Loop, side: int, numbers: list[int], program: Program | None, holder: _Holder
    ) -> Setup:
        qos = effect.qos
        frcp = _frcp(frcp_of(qos, _NEAR, below_checksum(_NEAR.max_packet, qos)))
        session = None if effect.sessions is None or not holder else effect.sessions[side]
        with self._copied(program) as copied:
            return Setup(
                flow=numbers[side],
                member=self._members[effect.ipcp],
                side=side,
                program=copied,
                **holder,
                other=numbers[1 - side],
                crc=frcp is not None and qos.ber == 0,
                # Nobody is silent within a node; but FRCP gives up what is never acknowledged.
                timeout=0 if frcp is None else qos.timeout,
                seed=self._machine.random.getrandbits(64),
                lot=(effect.flow_id, side),
                frcp=frcp,
                suite=0 if session is None else session.cipher,
                key=None if session is None else session.key,
                reject_replays=True,
                accounts=effect.accounts[side],
            )

    def join(self, flow_id: int, ipcp: int, program: Program) -> None:
        """Carry a flow of a broadcast layer. Raises `OSError` when it cannot be. The descriptors stay the caller's."""
        if (member := self._members.get(ipcp)) is None:
            raise OSError(0, "its layer ended")
        number = self._note_flow(_Carried(flow_id, 0, ipcp, None, None, _WITHIN))
        try:
            with self._copied(program) as copied:
                setup = Setup(flow=number, member=member, side=0, program=copied)
        except BaseException:
            self._unname(number)
            raise
        self._running().join(setup)

    def end_flow(self, effect: EndFlow) -> None:
        number = self._numbers.get((effect.flow_id, effect.side))
        if number is not None and self._engine is not None:
            self._engine.end(number)

    def doom(self, flow_id: int, side: int) -> None:
        """The process of an end died. No error when the engine does not have it."""
        number = self._numbers.get((flow_id, side))
        if number is not None and self._engine is not None:
            self._engine.doom(number)

    def number(self, flow_id: int, side: int) -> int | None:
        """The flow of the engine that is an end of a flow; None: there is none."""
        return self._numbers.get((flow_id, side))

    def ports(self) -> list[int]:
        """Members that have a port."""
        return [self._members[ipcp] for ipcp in self._families]

    def release(self, flow_id: int) -> None:
        """Nobody uses a flow any more. One between two users of this node is over then; from others, what was written before
        still leaves."""
        for side in (0, 1):
            # The id may be that of another flow before the engine is done with this one.
            number = self._numbers.pop((flow_id, side), None)
            if number is not None and self._engine is not None and self._flows[number].looped:
                self._engine.drop(number)

    def opened(self, flow_id: int, side: int) -> None:
        """Say that an IPC process has its end."""
        flow = self._flows[self._numbers[flow_id, side]]
        self._irm.end_opened(flow_id, side, flow.size, self.now())

    def withdraw(self, end: End) -> None:
        """The engine does not get a flow after all, so nothing else would say that it is over. The peer thinks that it is
        there."""
        assert isinstance(end, RemoteEnd), end
        self.unreserve(Unreserve(end.ipcp, end.eid))
        self._irm.flow_ended(end.ipcp, end.eid, How.CLOSED, self.now())

    def _path(self, end: RemoteEnd) -> tuple[Size, _Way]:
        """What the way to a peer carries, and the way. Raises `OSError` when there is none."""
        if isinstance(end, UnicastEnd):
            # Packets may take another way at any time.
            below = [self._flows[number].size for number in self._adjacent.get(end.ipcp, ())]
            if not below:
                raise OSError(0, "its member of the layer has no neighbours")
            size = Size(min(each.most for each in below), min(each.whole for each in below))
            return _less(size, _PCI_LENGTH), {"destination": end.destination, "cube": end.cube}
        if isinstance(end.address, int):
            if (lower := self._lower.get(end.address)) is None:
                raise OSError(0, "the flow below it ended")
            return _less(self._flows[lower].size, EID_LENGTH), {"lower": lower}
        family = self._families[end.ipcp]
        return path_of(family, self._machine.path_mtu(family, end.address)), {"peer": end.address}

    def discard(self, flow_id: int, side: int) -> None:
        """Whatever there is of an end is over at once, and nothing is told of that. No error when there is nothing."""
        number = self._numbers.get((flow_id, side))
        if number is not None:
            self._forget(number)
            if self._engine is not None:
                self._engine.drop(number)

    def _holder(self, user: Member | None) -> _Holder:
        """The user of an end that is no program: the member of an IPC process, or its control side until it knows what the
        flow is for, and then for the first packet. Raises `OSError` when it has none, or not yet again."""
        if user is None:
            return {}
        if (member := self._members.get(user.ipcp)) is None:
            raise OSError(0, f"the IPC process {user.ipcp} that is to have it is in no layer")
        return {"control": 1} if user.ipcp in self._adjacent else {"transfer": member}

    @contextlib.contextmanager
    def _copied(self, program: Program | None) -> Iterator[Program | None]:
        """The same program, for a `Setup`, which takes it over. Raises `OSError`."""
        copied = None if program is None else self._machine.copied(program)
        try:
            yield copied
        except (OverflowError, TypeError):
            # A bug of ours: something else cannot be told to the engine, and nothing was taken over.
            if copied is not None:
                os.close(copied[0])
                os.close(copied[1])
            raise

    def _note_flow(self, flow: _Carried) -> int:
        number = self._running().name()
        self._irm.flows.touch(flow.flow_id)
        self._flows[number] = flow
        self._numbers[flow.flow_id, flow.side] = number
        if flow.user is not None:
            self._lower[flow.user.fd] = number
        return number

    def _unname(self, *numbers: int) -> None:
        """Flows that have them will not be carried, and the engine never heard of them."""
        for number in numbers:
            self._forget(number)
            self._running().unname(number)

    def _forget(self, number: int) -> _Carried | None:
        flow = self._flows.pop(number, None)
        if flow is not None:
            self._irm.flows.touch(flow.flow_id)
            if self._numbers.get((flow.flow_id, flow.side)) == number:
                del self._numbers[flow.flow_id, flow.side]
            if flow.user is not None:
                self._lower.pop(flow.user.fd, None)
                if flow.user.ipcp in self._adjacent:
                    self._adjacent[flow.user.ipcp].discard(number)
        return flow

    # --- the engine

    def _running(self) -> Engine | SimulatedEngine:
        if self._engine is None:
            self._engine = self._machine.start(self.heard)
        return self._engine

    def heard(self, news: News, failure: str | None = None) -> None:
        """The engine has news. `failure`: why it is gone, if it is."""
        now = self.now()
        datagrams, messages, ends, states, heard = news
        # What came over a flow came before its end.
        for number, data in messages:
            self._tell("a message", self._message, number, data, now)
        for member, eid, data, brought in heard:
            self._tell("a packet for a component", self._heard, member, eid, data, brought, now)
        for member, where, data in datagrams:
            self._tell("a message", self._arrived, member, where, data, now)
        for number, how, counters in ends:
            self._tell("the end of a flow", self._ended, number, how, counters, now)
        for number, up in states:
            self._tell("the state of a flow", self._changed, number, up, now)
        if failure is not None:
            self._broke(failure, now)
        self._carry_out()

    def _tell(self, what: str, call: Callable[_P, None], *args: _P.args, **named: _P.kwargs) -> None:
        """Nothing else waits for what meets a bug of ours: it is lost, as a message on the way, and the layer goes on."""
        try:
            call(*args, **named)
        except Exception as error:  # noqa: BLE001 - the machine says it
            self._machine.met_bug(what, error)

    def _changed(self, number: int, up: bool, now: float) -> None:
        if (flow := self._flows.get(number)) is None:
            return
        if up and flow.eid is not None and flow.ipcp is not None:
            self._irm.flow_heard(flow.ipcp, flow.eid)
        if flow.user is not None:
            self._irm.end_state(flow.flow_id, flow.side, up, now)

    def _ended(self, number: int, name: str, counters: dict[str, int], now: float) -> None:
        how = How(name)
        self._count_flow(number, counters)
        flow = self._forget(number)
        if flow is None:
            return
        if flow.user is not None:
            self._tell("the end of a flow", self._irm.end_over, flow.flow_id, flow.side, how, now)
        if flow.eid is not None and flow.ipcp is not None:
            self._irm.flow_ended(flow.ipcp, flow.eid, how, now)

    def _arrived(self, member: int, where: Where, data: bytes, now: float) -> None:
        ipcp = self._ipcps.get(member)
        if ipcp is None:
            return
        if isinstance(where, int):
            below = self._flows.get(where)
            if below is None or below.user is None:
                return
            where = below.user.fd
        self._irm.management_arrived(ipcp, data, where, now)

    def _message(self, number: int, data: bytes, now: float) -> None:
        if (flow := self._flows.get(number)) is not None and flow.user is not None:
            self._irm.message(flow.user.ipcp, flow.user.fd, data, now)

    def _heard(self, member: int, eid: int, data: bytes, brought: int | None, now: float) -> None:
        ipcp = self._ipcps.get(member)
        if ipcp is None:
            return
        if brought is None:
            self._irm.heard(ipcp, eid, data, 0, now)
        elif (flow := self._flows.get(brought)) is not None and flow.user is not None:
            self._irm.heard(ipcp, eid, data, flow.user.fd, now)

    def _broke(self, reason: str, now: float) -> None:
        """All that was there has died with it. The IPC processes begin again, or not."""
        ipcps = [ipcp for ipcp in self._members if ipcp is not None]
        flows = list(self._flows.values())
        self.count()
        self._stop_engine()
        for flow in flows:
            self._irm.flows.touch(flow.flow_id)
        for ipcp in ipcps:
            self._tell("the end of a layer", self._irm.member_broke, ipcp, reason, now)
        for flow in flows:
            if flow.user is not None:
                self._tell("the end of a flow", self._irm.end_over, flow.flow_id, flow.side, How.DIED, now)

    def _stop_engine(self) -> None:
        self._engine = None
        self._machine.stop()
        for kept in (
            self._members,
            self._ipcps,
            self._families,
            self._broadcast,
            self._adjacent,
            self._flows,
            self._numbers,
            self._lower,
        ):
            kept.clear()

    def resolve(self, effect: Resolve) -> None:
        user, shares = self._irm.flows.user(effect.asked), self._irm.shares
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
        if self._engine is None:
            return
        shown = self._machine.counters()
        for ipcp, member in self._members.items():
            if ipcp is not None and shown is not None:
                self._irm.counted(ipcp, shown.of("layer", member) or {})
            elif ipcp is not None:
                of_layer, of_flows = self._engine.snapshot(member)
                self._irm.counted(ipcp, of_layer)
                for number, counters in of_flows.items():
                    self._count_flow(number, counters)
        if shown is not None and flows:
            for number in list(self._flows):
                if (of_flow := shown.of("flow", number)) is not None:
                    self._count_flow(number, of_flow)

    def held(self) -> dict[int, int]:
        """Bytes of FRCP that each account has."""
        return {} if self._engine is None else self._engine.held()

    def place_of_layer(self, ipcp: int) -> Place | None:
        """Where the engine counts for an IPC process; None: nowhere."""
        member = self._members.get(ipcp)
        return None if member is None else (self._machine.instance, member)

    def place_of_flow(self, flow_id: int) -> Place | None:
        """Likewise for a flow to another node, which has one end here."""
        number = self._numbers.get((flow_id, 0), self._numbers.get((flow_id, 1)))
        return None if number is None else (self._machine.instance, number)

    def _count_flow(self, number: int, counters: dict[str, int]) -> None:
        flow = self._flows.get(number)
        # Within the node, the counters of a flow are those of its allocator.
        if flow is None or flow.ipcp is None or (flow.eid is None and flow.side == 1):
            return
        if self._numbers.get((flow.flow_id, flow.side)) == number:
            self._irm.flow_counted(flow.flow_id, flow.ipcp, counters)

    def shut_down(self) -> None:
        for ipcp in list(self._members):
            self.stop(ipcp)
        self._stop_engine()
        self._machine.shut_down()


def _less(size: Size, header: int) -> Size:
    return Size(size.most - header, size.whole - header)


def _frcp(settings: FrcpSettings | None) -> Frcp | None:
    return None if settings is None else Frcp(**settings._asdict())


def size_within(effect: Loop) -> Size:
    """What a flow within the node carries for a layer above."""
    cipher = effect.sessions[0].cipher if effect.sessions else 0
    if not effect.qos.ordered:
        return size_for_members(
            sizes_over(_WITHIN, effect.qos, None, cipher=cipher, max_message=MAX_PACKET), effect.qos
        )
    path = Size(_NEAR.max_packet, _NEAR.max_packet)
    sizes = sizes_over(path, effect.qos, _NEAR, cipher=cipher, max_message=MAX_PACKET)
    return size_for_members(sizes, effect.qos, cipher=cipher)
