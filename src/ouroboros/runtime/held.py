"""Members and flows of a node in its engine, and the machine below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ouroboros.control.irm import Irm
from ouroboros.dataplane import Engine, SimulatedEngine
from ouroboros.layers.effects import Address, Member, OpenPort, RemoteEnd, Resolve, Where
from ouroboros.layers.face import Random, Size
from ouroboros.runtime.devices import Device
from ouroboros.wire.counters import Counters

#: A program as the user of an end: memory, doorbell and side of the engine in its channel.
Program = tuple[int, int, int]
#: News of an engine: datagrams of management by member and source, messages, flows that ended, how and what they
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
    """The machine on which a node runs. Times are seconds."""

    random: Random
    #: Tells its engine from those before it, in the file of counters.
    instance: int

    def now(self) -> float: ...

    def wall(self) -> int:
        """Nanoseconds since 1970."""

    def start(self, heard: Callable[[News, str | None], None]) -> Engine | SimulatedEngine:
        """An engine. `heard`: is told its news, and why it failed if it did."""

    def stop(self) -> None:
        """End the engine, if there is one."""

    def counters(self) -> Counters | None:
        """The counters that the engine shows without being asked; None: it shows none."""

    def open_port(self, effect: OpenPort) -> tuple[int, int]:
        """The number of a new member of the engine, and the bytes that its device carries in a frame, 0 where that depends
        on the path. Raises `OSError` when the address or the port cannot be had."""

    def watch(self, who: object, device: str, told: Callable[[Device | None], None]) -> None:
        """`told`: is called when the device is not on and carrying, and at each change; None: it is gone. Raises
        `OSError`."""

    def unwatch(self, who: object) -> None:
        """No error when nothing is watched for it."""

    def path_mtu(self, family: str, address: Address) -> int: ...

    def resolve(self, effect: Resolve, found: Callable[[list[str]], None], *, apart: bool) -> None:
        """`found`: is told the addresses, later. `apart`: it must not keep others waiting that are not."""

    def copied(self, program: Program) -> Program | None:
        """The same program, for a `Setup`, which takes it over. Raises `OSError`."""

    def met_bug(self, what: str, error: Exception) -> None:
        """Something could not be told to the IRM, because of that error, which is being handled."""

    def shut_down(self) -> None: ...


@dataclass(slots=True)
class Carried:
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
    #: Its peer, from which its way follows; None: within the node.
    end: RemoteEnd | None = None
    #: Its other end is in this node.
    looped: bool = False


class Held:
    """Members of layers and flows, by the numbers of the engine and of the node. One engine has them all; it begins with the
    first member."""

    def __init__(self, irm: Irm, machine: Machine, heard: Callable[[News, str | None], None]) -> None:
        """`heard`: as in `Machine.start`."""
        self._irm = irm
        self._machine = machine
        self._heard = heard
        self.engine: Engine | SimulatedEngine | None = None
        #: Numbers of members by IPC process, and the other way round; None: of flows with nothing between their ends.
        self.members: dict[int | None, int] = {}
        self.ipcps: dict[int, int | None] = {}
        #: Types of layers with ports, and what their devices carry in a frame; 0: that depends on the path.
        self.ports: dict[int | None, tuple[str, int]] = {}
        #: IPC processes whose members are of broadcast layers.
        self.broadcast: set[int | None] = set()
        #: IPC processes whose members are of unicast layers, and the numbers of their flows to neighbours.
        self.adjacent: dict[int | None, set[int]] = {}
        #: Flows by number, and the number of each end.
        self.flows: dict[int, Carried] = {}
        self.numbers: dict[tuple[int, int], int] = {}
        #: Flows that IPC processes use, by their number for it.
        self.lower: dict[int, int] = {}
        #: Is told of each flow that an IPC process of a unicast layer has not any more.
        self.lost: Callable[[Carried], None] = lambda flow: None

    def running(self) -> Engine | SimulatedEngine:
        """The engine, which is started if it is not there."""
        if self.engine is None:
            self.engine = self._machine.start(self._heard)
        return self.engine

    def stop(self) -> None:
        """End the engine, with all that it has. No error when there is none."""
        self.engine = None
        self._machine.stop()
        for kept in (
            self.members,
            self.ipcps,
            self.ports,
            self.broadcast,
            self.adjacent,
            self.flows,
            self.numbers,
            self.lower,
        ):
            kept.clear()

    # --- members

    def open_member(self, ipcp: int | None, kind: str) -> None:
        """Of a kind of the engine: "transfer", "local" or "broadcast"."""
        if ipcp in self.members:
            self.close_member(ipcp)
        self.note_member(ipcp, self.running().open_member(kind))
        if kind == "broadcast":
            self.broadcast.add(ipcp)

    def note_member(self, ipcp: int | None, member: int) -> None:
        self.members[ipcp], self.ipcps[member] = member, ipcp
        if ipcp is not None:
            self._irm.touch(ipcp)

    def close_member(self, ipcp: int | None) -> None:
        """No error when there is no such member. Its programs see a death of their peers; those of a broadcast layer, which
        has no peers from which more could have come, its end."""
        member = self.members.pop(ipcp, None)
        if member is None or self.engine is None:
            return
        del self.ipcps[member]
        if ipcp is not None:
            self._irm.touch(ipcp)
        self.engine.close(member, ipcp not in self.broadcast)
        if self.ports.pop(ipcp, None) is not None:
            self._machine.unwatch(ipcp)
        self.broadcast.discard(ipcp)
        self.adjacent.pop(ipcp, None)

    def unicast(self, ipcp: int) -> int | None:
        """The member of an IPC process in a unicast layer; None: it has none any more."""
        return self.members.get(ipcp) if ipcp in self.adjacent else None

    # --- flows

    def note_flow(self, flow: Carried) -> int:
        number = self.running().name()
        self._irm.flow_touched(flow.flow_id)
        self.flows[number] = flow
        self.numbers[flow.flow_id, flow.side] = number
        if flow.user is not None:
            self.lower[flow.user.fd] = number
        return number

    def unname(self, *numbers: int) -> None:
        """Flows that have them will not be carried, and the engine never heard of them."""
        for number in numbers:
            self.forget(number)
            self.running().unname(number)

    def forget(self, number: int) -> Carried | None:
        flow = self.flows.pop(number, None)
        if flow is not None:
            self._irm.flow_touched(flow.flow_id)
            if self.numbers.get((flow.flow_id, flow.side)) == number:
                del self.numbers[flow.flow_id, flow.side]
            if flow.user is not None:
                self.lower.pop(flow.user.fd, None)
                if flow.user.ipcp in self.adjacent:
                    self.adjacent[flow.user.ipcp].discard(number)
                    self.lost(flow)
        return flow
