"""Nodes with layers over layers in virtual time (`ouroboros.testing.sim`), by tokens: a request is its own token.

What crosses the air is lost, repeated and delayed as `Air.faults` has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sim_world import TYPES
from toy import ToyIpcp
from udp_world import Faults

from ouroboros.control.parties import Process
from ouroboros.errors import FlowException, FlowPeerException
from ouroboros.layers.base import Ipcp
from ouroboros.layers.effects import Attach, Loop, Member
from ouroboros.layers.face import How, Size
from ouroboros.layers.flows.ipcp import FlowIpcp
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime.held import News, Program
from ouroboros.settings import AnySettings, LocalSettings
from ouroboros.testing import sim
from ouroboros.wire.control import (
    Accept,
    Alloc,
    Answer,
    BindProcess,
    ConnectIpcp,
    CreateName,
    DestroyIpcp,
    DisconnectIpcp,
    Done,
    Failed,
    Granted,
    RegisterName,
    Request,
)


class Air(sim.Network):
    """The time, and the way of datagrams from node to node."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed, types=TYPES)
        self.hosts_here: list[Host] = []
        self._faults = Faults()

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        jitter = round(faults.jitter * 1e6)
        words = f"loss={faults.loss:.0%},duplicate={faults.duplicate:.0%},delay=1ms,jitter={jitter}us"
        for host in self.hosts_here:
            host.node.impair(words if faults != Faults() else None)


class Host:
    """A node with any layers."""

    def __init__(self, air: Air, *, flow_limit: int = 10_239) -> None:
        self.air = air
        self.node = air.add_node(flow_limit=flow_limit)
        self.irm = self.node.irm
        self.address = self.node.address
        self.udp = 0
        #: What programs got, and how their flows ended, by request.
        self.heard: defaultdict[sim.Asked, list[bytes]] = defaultdict(list)
        self.peer_died: set[sim.Asked] = set()
        self._ended: dict[sim.Asked, How] = {}
        #: Why the engine has no room for the ends of IPC processes, if so.
        self.full = ""
        self._asked: list[sim.Asked] = []
        self._released: set[sim.Asked] = set()
        self.manager = self.program("manager")
        runtime = self.node._runtime
        flows = runtime.flows
        attach, loop, heard = flows.attach, flows.loop, runtime.heard

        def attach_if_room(effect: Attach, program: Program | None) -> Size:
            if self.full and isinstance(effect.user, Member):
                raise OSError(0, self.full)
            return attach(effect, program)

        def loop_if_room(effect: Loop, programs: tuple[Program | None, Program | None]) -> None:
            if self.full:
                raise OSError(0, self.full)
            loop(effect, programs)

        def note_ends(news: News, failure: str | None = None) -> None:
            for number, how, _ in news[2]:
                self._note_end(number, How(how))
            heard(news, failure)

        flows.attach, flows.loop = attach_if_room, loop_if_room  # type: ignore[method-assign]
        runtime.heard = note_ends  # type: ignore[method-assign]
        air.hosts_here.append(self)

    @property
    def now(self) -> float:
        return self.air.now

    # --- layers

    def over_udp(self, *peers: str) -> None:
        """It has a layer over UDP."""
        self.udp = self.node.over_udp(peers=peers)

    def over_local(self) -> int:
        """It has an impaired local layer."""
        return self.node.add_ipcp("local", "local", LocalSettings(impair="none"))

    def toy(self, name: str, layer: str, below: int = 0, settings: AnySettings | None = None) -> ToyIpcp:
        """A member of a toy layer, to which flows can be had by its name. `below`: where the name is registered."""
        ipcp = self.irm.ipcps[self.node.add_ipcp("toy", layer, settings, name=name)]
        self.manage(BindProcess(ipcp.id, name))
        if below:
            self.manage(RegisterName(name, below))
        assert isinstance(ipcp, ToyIpcp)
        return ipcp

    def connect(self, toy: ToyIpcp, name: str, qos: QoSSpec = QOS_RAW) -> sim.Asked:
        return self.send(self.manager, ConnectIpcp(toy.id, "Data Transfer", name, qos))

    def disconnect(self, toy: ToyIpcp, name: str) -> sim.Asked:
        return self.send(self.manager, DisconnectIpcp(toy.id, "Data Transfer", name))

    def done(self, asked: sim.Asked) -> bool:
        """Whether a request of management was carried out."""
        return isinstance(asked.answer, Done)

    def offer(self, name: str, layer: int) -> None:
        """The name is there, and can be reached through a layer."""
        self.manage(CreateName(name, "spillover"))
        self.manage(RegisterName(name, layer))

    def destroy(self, ipcp: Ipcp | int) -> None:
        self.manage(DestroyIpcp(ipcp if isinstance(ipcp, int) else ipcp.id))

    # --- programs

    def program(self, name: str) -> Process:
        return self.node.program(name).process

    def server(self, name: str) -> Process:
        process = self.program("server")
        self.irm.registry.bind_process(process, name)
        return process

    def manage(self, request: Request) -> object:
        return self.send(self.manager, request).value

    def send(self, process: Process, request: Request) -> sim.Asked:
        asked = self.node.ask(process, request)
        self._asked.append(asked)
        return asked

    def alloc(
        self,
        process: Process,
        name: str,
        timeout: float | None = None,
        qos: QoSSpec | None = None,
        *,
        wait: bool = False,
    ) -> sim.Asked:
        return self.send(process, Alloc(name, QoSSpec() if qos is None else qos, timeout, wait))

    def accept(self, process: Process, name: str | None = None, timeout: float | None = None) -> sim.Asked:
        return self.send(process, Accept(name, timeout))

    def cancel(self, asked: sim.Asked) -> None:
        asked.cancel()

    def answer(self, asked: sim.Asked) -> Answer | None:
        return asked.answer

    def granted(self, asked: sim.Asked) -> Granted:
        assert isinstance(asked.answer, Granted), asked.answer
        return asked.answer

    def failed(self, asked: sim.Asked) -> Failed:
        assert isinstance(asked.answer, Failed), asked.answer
        return asked.answer

    def kill(self, process: Process) -> None:
        for asked in self._asked:
            if asked.process is process and isinstance(asked.answer, Granted):
                self._released.add(asked)
                asked.flow.abandon()
        self.node.died(process)

    def release(self, asked: sim.Asked) -> None:
        """The program lets go of the flow that it got, whether it has ended or not."""
        self.listen()
        self._released.add(asked)
        asked.flow.dealloc()

    def write(self, asked: sim.Asked, packet: bytes) -> None:
        """The program sends a packet over the flow that it got for the request."""
        asked.flow.write(packet)

    def listen(self) -> None:
        """All programs read what is there."""
        for asked in self._asked:
            if isinstance(asked.answer, Granted) and asked not in self._released:
                try:
                    while (packet := asked.flow.poll()) is not None:
                        self.heard[asked].append(packet)
                except FlowPeerException:
                    self.peer_died.add(asked)
                except FlowException:
                    pass

    @property
    def told(self) -> dict[sim.Asked, How]:
        """How the flows of programs ended that did not let go first."""
        return dict(self._ended)

    def _note_end(self, number: int, how: How) -> None:
        for asked in self._asked:
            if asked.number == number and asked not in self._released:
                assert asked not in self._ended
                self._ended[asked] = how

    # --- ends

    def size(self, asked: sim.Asked) -> Size:
        return self.node._runtime._held.flows[asked.number].size

    def lower(self, toy: ToyIpcp) -> dict[int, Size]:
        """The ends that a member holds, by their numbers for it."""
        carried = self.node._runtime._held.flows.values()
        return {flow.user.fd: flow.size for flow in carried if flow.user is not None and flow.user.ipcp == toy.id}

    @property
    def held(self) -> set[int]:
        """The ends that members hold."""
        return set(self.node._runtime._held.lower)

    def eids_of(self, id: int) -> set[int]:
        """Endpoint ids that mean something to a layer."""
        ipcp = self.irm.ipcps[id]
        assert isinstance(ipcp, FlowIpcp)
        return ipcp._core.eids

    def assert_idle(self, *, lower: int = 0) -> None:
        """Nothing is left of what was, but that many ends of lower flows."""
        carried = self.node._runtime._held.flows.values()
        assert len(self.held) == lower
        assert all(flow.user is not None for flow in carried)
        assert len(self.irm.flows.flows) == len({flow.flow_id for flow in carried})
        for ipcp in self.irm.ipcps.values():
            if isinstance(ipcp, FlowIpcp):
                assert self.eids_of(ipcp.id) == {flow.eid for flow in carried if flow.ipcp == ipcp.id}
                assert len(ipcp._outgoing) == 0
                assert ipcp._incoming.waiting == []
                assert ipcp._incoming._known == {}


def settle(hosts: Iterable[Host]) -> None:
    """After some time, nothing is left of what ended."""
    hosts = list(hosts)
    hosts[0].air.faults = Faults()
    hosts[0].air.run(150.0)


@dataclass
class Way:
    """Two programs, with toy layers on top of each other between them. `toys`: near and far members, the lowest first.
    `below`: what carries the lowest on the far side, 0 for nothing."""

    near: Host
    far: Host
    below: int
    toys: list[tuple[ToyIpcp, ToyIpcp]]

    @property
    def air(self) -> Air:
        return self.near.air

    @property
    def hosts(self) -> list[Host]:
        return list(dict.fromkeys([self.near, self.far]))

    def run(self, seconds: float = 1.0) -> None:
        self.air.run(seconds)
        for host in self.hosts:
            host.listen()

    def offer(self, name: str) -> None:
        self.far.offer(name, self.toys[-1][1].id)

    def flow(self, qos: QoSSpec = QOS_RAW, name: str = "clock") -> tuple[sim.Asked, sim.Asked]:
        """The requests of client and server, which have a flow."""
        if name not in self.far.irm.registry.names:
            self.offer(name)
        server = self.far.accept(self.far.server(name), name)
        client = self.near.alloc(self.near.program("watch"), name, qos=qos)
        self.run(30.0 if self.air.faults.loss else 1.0)
        return client, server

    def assert_idle(self) -> None:
        """Nothing is left but the lower flows of the members."""
        settle(self.hosts)
        # Within one node it has both ends.
        of_pair = 2 if self.near is self.far else 1
        for host in self.hosts:
            host.assert_idle(lower=of_pair * len(self.toys))


def build(depth: int, *, udp: bool, lower: QoSSpec = QOS_RAW, local: bool = False) -> Way:
    """`udp`: between two nodes. `lower`: of the flows of members to their neighbours. `local`: over an impaired layer."""
    air = Air()
    near = Host(air)
    far = Host(air) if udp else near
    if udp:
        near.over_udp(f"far1@{far.address}")
        far.over_udp()
    lowest = near.over_local() if local else far.udp
    toys: list[tuple[ToyIpcp, ToyIpcp]] = []
    for level in range(1, depth + 1):
        below = toys[-1][1].id if toys else lowest
        pair = near.toy(f"near{level}", f"toys{level}"), far.toy(f"far{level}", f"toys{level}", below)
        toys.append(pair)
        connecting = near.connect(pair[0], f"far{level}", lower)
        air.run(5.0)
        assert near.done(connecting)
    return Way(near, far, lowest, toys)
