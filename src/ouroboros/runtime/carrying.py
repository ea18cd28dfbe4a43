"""Flows in the engine of a node: of programs and of IPC processes, to other nodes and within it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TypedDict

from ouroboros.control.irm import Irm
from ouroboros.dataplane import MAX_PACKET, Frcp, Setup
from ouroboros.layers.effects import Address, Attach, EndFlow, Join, Loop, Member, RemoteEnd, UnicastEnd
from ouroboros.layers.ethernet.sizes import path_of as path_on_segment
from ouroboros.layers.face import Size
from ouroboros.layers.flows.sizes import (
    FrcpSettings,
    Sizes,
    below_checksum,
    frcp_of,
    size_for_members,
    sizes_over,
)
from ouroboros.layers.udp.sizes import path_of
from ouroboros.runtime.held import Carried, Held, Machine, Program
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import EID_LENGTH, PACKET_LENGTH

#: The abilities of an end of a flow within the node, for the other one, if the engine has FRCP there: the longest packet,
#: and a window of the largest packets that fit into a few MiB.
_NEAR = Extension(extension.SACK | extension.FRAGMENTS, PACKET_LENGTH["udp4"], window=4096, request=bytes(16))
#: The longest packets of a flow within the node for a layer above, if the engine has nothing to do with it.
_WITHIN = Size(MAX_PACKET, 65_000)
#: Bytes in front of each packet of a unicast layer.
_PCI_LENGTH = 15


class _Way(TypedDict, total=False):
    """The carrier of a flow to another node, in the words of `Setup`: one of `peer`, `lower` and `destination`."""

    peer: Address
    lower: int
    destination: int
    cube: int


class _Holder(TypedDict, total=False):
    """The user of an end that is no program, in the words of `Setup`: a member, or the control side of one; or nothing."""

    transfer: int
    control: int


class Carrying:
    """Makes flows in the engine, and ends them."""

    def __init__(self, irm: Irm, held: Held, machine: Machine) -> None:
        self._irm = irm
        self._held = held
        self._machine = machine
        #: The longest packets of members of unicast layers when flows over them were looked at last.
        self._sizes_of: dict[int, Size] = {}
        #: Of the ways to members of unicast layers, as those know it of others on the way.
        self._least: dict[tuple[int, int], Size] = {}
        held.lost = self.resize_above

    def attach(self, effect: Attach, program: Program | None) -> Size:
        """Carry a flow to a peer for a program, or for the IPC process that `effect` names; returns what it carries. Raises
        `OSError` when it cannot be. The descriptors stay the caller's."""
        end = effect.end
        assert isinstance(end, RemoteEnd), end
        if (member := self._held.members.get(end.ipcp)) is None:
            raise OSError(0, "its layer ended")
        sizes, way = self._sizes(end)
        qos, session = end.qos, end.session
        if not sizes.usable:
            raise OSError(0, "its path carries no packets")
        frcp = _frcp(frcp_of(qos, end.extension, sizes.packet, mpl=end.mpl))
        user = effect.user if isinstance(effect.user, Member) else None
        holder = self._holder(user)
        size = size_for_members(sizes, qos, cipher=session.cipher)
        number = self._held.note_flow(Carried(effect.flow_id, effect.side, end.ipcp, end.eid, user, size, end))
        try:
            with self._copied(program) as copied:
                setup = Setup(
                    flow=number,
                    member=member,
                    side=effect.side,
                    label=effect.flow_id,
                    program=copied,
                    **holder,
                    **way,
                    eid=end.eid,
                    peer_eid=end.place[1],
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
            self._held.unname(number)
            raise
        self._held.running().add([setup])
        return size

    def loop(self, effect: Loop, programs: tuple[Program | None, Program | None]) -> None:
        """Carry a flow within the node. Raises `OSError` when it cannot be. The descriptors stay the caller's."""
        if effect.ipcp not in self._held.members:
            self._held.open_member(effect.ipcp, "local")
        users = [user if isinstance(user, Member) else None for user in effect.users]
        flows = [
            Carried(effect.flow_id, side, effect.ipcp, None, user, size_within(effect), looped=True)
            for side, user in enumerate(users)
        ]
        holders = [self._holder(user) for user in users]
        numbers = [self._held.note_flow(flow) for flow in flows]
        try:
            ends = [self._end_of_loop(effect, side, numbers, programs[side], holders[side]) for side in (0, 1)]
        except BaseException:
            self._held.unname(*numbers)
            raise
        self._held.running().add(ends)

    def _end_of_loop(
        self, effect: Loop, side: int, numbers: list[int], program: Program | None, holder: _Holder
    ) -> Setup:
        qos = effect.qos
        frcp = _frcp(frcp_of(qos, _NEAR, below_checksum(_NEAR.max_packet, qos)))
        session = None if effect.sessions is None or not holder else effect.sessions[side]
        with self._copied(program) as copied:
            return Setup(
                flow=numbers[side],
                member=self._held.members[effect.ipcp],
                side=side,
                label=effect.flow_id,
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

    def join(self, effect: Join, program: Program) -> None:
        """Carry a flow of a broadcast layer, or a capture. Raises `OSError` when it cannot be. The descriptors stay the
        caller's."""
        tap = None if effect.snap is None else (effect.snap, self._machine.wall() - self._held.running().now)
        if tap is not None and effect.ipcp not in self._held.members:
            # Nothing has come through the engine in this local layer so far.
            self._held.open_member(effect.ipcp, "local")
        if (member := self._held.members.get(effect.ipcp)) is None:
            raise OSError(0, "its layer ended")
        number = self._held.note_flow(Carried(effect.flow_id, 0, effect.ipcp, None, None, _WITHIN))
        try:
            with self._copied(program) as copied:
                setup = Setup(flow=number, member=member, side=0, label=effect.flow_id, tap=tap, program=copied)
        except BaseException:
            self._held.unname(number)
            raise
        self._held.running().join(setup)

    def opened(self, flow_id: int, side: int) -> None:
        """Say that an IPC process has its end."""
        flow = self._held.flows[self._held.numbers[flow_id, side]]
        self._irm.end_opened(flow_id, side, flow.size, self._machine.now())

    def number(self, flow_id: int, side: int) -> int | None:
        """The flow of the engine that is an end of a flow; None: there is none."""
        return self._held.numbers.get((flow_id, side))

    def end_flow(self, effect: EndFlow) -> None:
        number = self._held.numbers.get((effect.flow_id, effect.side))
        if number is not None and self._held.engine is not None:
            self._held.engine.end(number)

    def doom(self, flow_id: int, side: int) -> None:
        """The process of an end died. No error when the engine does not have it."""
        number = self._held.numbers.get((flow_id, side))
        if number is not None and self._held.engine is not None:
            self._held.engine.doom(number)

    def release(self, flow_id: int) -> None:
        """Nobody uses a flow any more. One between two users of this node is over then; from others, what was written before
        still leaves."""
        for side in (0, 1):
            # The id may be that of another flow before the engine is done with this one.
            number = self._held.numbers.pop((flow_id, side), None)
            if number is not None and self._held.engine is not None and self._held.flows[number].looped:
                self._held.engine.drop(number)

    def discard(self, flow_id: int, side: int) -> None:
        """Whatever there is of an end is over at once, and nothing is told of that. No error when there is nothing."""
        number = self._held.numbers.get((flow_id, side))
        if number is not None:
            self._held.forget(number)
            if self._held.engine is not None:
                self._held.engine.drop(number)

    # --- sizes

    def _size_of(self, ipcp: int) -> Size | None:
        """The longest packets on all ways of a member of a unicast layer: one may take another way at any time. None: it has
        none."""
        below = [self._held.flows[number].size for number in self._held.adjacent.get(ipcp, ())]
        return Size(min(each.most for each in below), min(each.whole for each in below)) if below else None

    def resize_way(self, ipcp: int, destination: int, size: Size | None) -> None:
        """What is carried on the way to a member of a unicast layer is something else now; None: nobody knows."""
        if size is None:
            self._least.pop((ipcp, destination), None)
        else:
            self._least[ipcp, destination] = size
        if self._held.engine is None:
            return
        for number, flow in list(self._held.flows.items()):
            end = flow.end
            if isinstance(end, UnicastEnd) and (end.ipcp, end.destination) == (ipcp, destination):
                self._resize(number, flow, end)

    def _least_to(self, end: RemoteEnd) -> Size | None:
        """What members of ours know of the way to a peer. With one of the prototype, nobody does."""
        if isinstance(end, UnicastEnd) and end.extension is not None:
            return self._least.get((end.ipcp, end.destination))
        return None

    def _sizes(self, end: RemoteEnd, least: Size | None = None) -> tuple[Sizes, _Way]:
        """Of a flow to a peer, as the way to it is now, and that way. `least`: no more than that. Raises `OSError` when
        there is none."""
        path, way = self._path(end)
        path = path if least is None else path.less(least)
        cipher = end.session.cipher
        return sizes_over(path, end.qos, end.extension, cipher=cipher, max_message=MAX_PACKET), way

    def resize_above(self, lower: Carried) -> None:
        """The size of a flow of an IPC process has changed, or whether it is in use: so may those of the flows over it."""
        if lower.user is None or self._held.engine is None:
            return
        ipcp, fd = lower.user.ipcp, lower.user.fd
        if ipcp in self._held.adjacent:
            size = self._size_of(ipcp)
            if size is None or size == self._sizes_of.get(ipcp):
                return
            self._sizes_of[ipcp] = size
        for number, flow in list(self._held.flows.items()):
            end = flow.end
            if end is not None and end.ipcp == ipcp and (isinstance(end, UnicastEnd) or end.address == fd):
                self._resize(number, flow, end)

    def _resize(self, number: int, flow: Carried, end: RemoteEnd) -> None:
        try:
            sizes, _ = self._sizes(end, self._least_to(end))
        except OSError:
            # No way is left, or none yet: packets wait for one.
            return
        size = size_for_members(sizes, end.qos, cipher=end.session.cipher)
        if not sizes.usable or size == flow.size:
            return
        flow.size = size
        self._held.running().resize(number, sizes.packet, sizes.datagram, size.most)
        if flow.user is not None:
            self._irm.end_resized(flow.flow_id, flow.side, size, self._machine.now())
            self.resize_above(flow)

    # --- of what setups are made

    def _path(self, end: RemoteEnd) -> tuple[Size, _Way]:
        """The way to a peer, and the longest packets on it. Raises `OSError` when there is none."""
        if isinstance(end, UnicastEnd):
            if (size := self._size_of(end.ipcp)) is None:
                raise OSError(0, "its member of the layer has no neighbours")
            return _less(size, _PCI_LENGTH), {"destination": end.destination, "cube": end.cube}
        if isinstance(end.address, int):
            if (lower := self._held.lower.get(end.address)) is None:
                raise OSError(0, "the flow below it ended")
            return _less(self._held.flows[lower].size, EID_LENGTH), {"lower": lower}
        (family, mtu), (place, _) = self._held.ports[end.ipcp], end.place
        assert not isinstance(place, int), end
        path = path_on_segment(family, mtu) if mtu else path_of(family, self._machine.path_mtu(family, place))
        return path, {"peer": place}

    def _holder(self, user: Member | None) -> _Holder:
        """The user of an end that is no program: the member of an IPC process, or its control side until it knows what the
        flow is for, and then for the first packet. Raises `OSError` when it has none, or not yet again."""
        if user is None:
            return {}
        if (member := self._held.members.get(user.ipcp)) is None:
            raise OSError(0, f"the IPC process {user.ipcp} that is to have it is in no layer")
        holder: _Holder = {"transfer": member}
        if user.ipcp in self._held.adjacent:
            holder["control"] = 1
        return holder

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


def _less(size: Size, header: int) -> Size:
    return Size(size.most - header, size.whole - header)


def _frcp(settings: FrcpSettings | None) -> Frcp | None:
    return None if settings is None else Frcp(**settings._asdict())


def size_within(effect: Loop) -> Size:
    """The longest packets of a flow within the node for a layer above."""
    cipher = effect.sessions[0].cipher if effect.sessions else 0
    if not effect.qos.ordered:
        return size_for_members(
            sizes_over(_WITHIN, effect.qos, None, cipher=cipher, max_message=MAX_PACKET), effect.qos
        )
    path = Size(_NEAR.max_packet, _NEAR.max_packet)
    sizes = sizes_over(path, effect.qos, _NEAR, cipher=cipher, max_message=MAX_PACKET)
    return size_for_members(sizes, effect.qos, cipher=cipher)
