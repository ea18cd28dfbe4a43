"""Real control over the real engine, in virtual time: layers over layers under any commands and any weather. All is answered
in time, a flow that both ends have carries packets, every packet is accounted for, and nothing is left when all is over.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sim_world import ENCRYPTED, RELIABLE, Way, build, toy

from ouroboros.control.flows import ALLOC_TIMEOUT
from ouroboros.control.parties import Process
from ouroboros.errors import FlowException
from ouroboros.layers.effects import RemoteEnd
from ouroboros.layers.flows.ipcp import FlowIpcp
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.testing.sim import Asked, Node, Program
from ouroboros.wire.control import (
    ConnectIpcp,
    CreateName,
    DestroyIpcp,
    DisconnectIpcp,
    Granted,
    ImpairIpcp,
    RegisterName,
)

PICK = st.integers(0, 20)
LEVEL = st.integers(0, 2)
SIDE = st.sampled_from(["near", "far"])
#: Of the highest layer, registered at the far member, at the near one, and nowhere.
NAMES = st.sampled_from(["far", "near", "nowhere"])
QOS = st.sampled_from([QOS_RAW, QOS_DATA, RELIABLE, ENCRYPTED, QoSSpec(timeout=2000)])
WEATHER = [
    None,
    "jitter=200ms",
    "loss=30%,duplicate=20%,jitter=2s",
    "loss=70%,duplicate=50%,reorder=10%,jitter=100ms,rate=1M",
    "partition",
]


class SimMachine(RuleBasedStateMachine):
    """Clients and servers at the two ends of up to three layers."""

    way: Way

    @initialize(
        seed=st.integers(0, 1000), depth=st.integers(1, 3), below=st.sampled_from(["udp", "local", ""]), lower=QOS
    )
    def start(self, seed: int, depth: int, below: str, lower: QoSSpec) -> None:
        self.way = build(depth, udp=below == "udp", local=below == "local", lower=lower, seed=seed)
        #: Requests, and when they must have been answered.
        self.asked: list[tuple[Asked, float]] = []
        self.granted: list[Asked] = []
        #: Those whose flows the engine's programs read.
        self.busy: set[Asked] = set()
        self.nodes = {"near": self.way.near, "far": self.way.far}
        self.servers: dict[str, Program] = {}
        self.clients: dict[str, Program] = {}
        for (name, node), member in zip(self.nodes.items(), self.way.toys[-1], strict=True):
            self.offer(node, name, member)
            self.clients[name] = node.program("watch")
            self.servers[name] = node.program("server")

    def offer(self, node: Node, name: str, ipcp: int) -> None:
        node.manage(CreateName(name, "spillover"))
        node.manage(RegisterName(name, ipcp))

    @property
    def now(self) -> float:
        return self.way.network.now

    def note(self) -> None:
        """Move requests that were answered to where they belong."""
        waiting = []
        for asked, until in self.asked:
            if asked.answer is None:
                assert self.now <= until + 1e-6, "nobody told it in time"
                waiting.append((asked, until))
            elif isinstance(asked.answer, Granted):
                self.granted.append(asked)
        self.asked = waiting

    # --- programs

    @rule(side=SIDE, name=NAMES, timeout=st.sampled_from([None, 0.0, 0.5, 2.0, 10.0]), qos=QOS, wait=st.booleans())
    def alloc(self, side: str, name: str, timeout: float | None, qos: QoSSpec, wait: bool) -> None:
        asked = self.clients[side].alloc(name, qos, timeout, wait=wait)
        self.asked.append((asked, self.now + (ALLOC_TIMEOUT if timeout is None else timeout)))
        self.note()

    @rule(name=SIDE, timeout=st.sampled_from([0.0, 0.5, 10.0, 60.0]))
    def accept(self, name: str, timeout: float) -> None:
        self.asked.append((self.servers[name].accept(name, timeout), self.now + timeout))
        self.note()

    @precondition(lambda self: self.asked)
    @rule(number=PICK)
    def hang_up(self, number: int) -> None:
        asked, _ = self.asked.pop(number % len(self.asked))
        asked.cancel()

    @precondition(lambda self: self.granted)
    @rule(number=PICK, length=st.sampled_from([1, 500, 1400, 5000]), count=st.integers(1, 300))
    def a_program_writes(self, number: int, length: int, count: int) -> None:
        self.busy.add(asked := self.granted[number % len(self.granted)])
        flow = asked.flow
        flow.source(count, min(length, flow.granted.max_packet))

    @precondition(lambda self: self.granted)
    @rule(number=PICK)
    def a_program_answers(self, number: int) -> None:
        self.busy.add(asked := self.granted[number % len(self.granted)])
        asked.flow.echo()

    @precondition(lambda self: self.granted)
    @rule(number=PICK)
    def dealloc(self, number: int) -> None:
        self.granted.pop(number % len(self.granted)).flow.dealloc()

    @rule(name=SIDE)
    def a_server_dies_and_another_comes(self, name: str) -> None:
        self.note()
        server = self.servers[name]
        self.granted = [each for each in self.granted if each.process is not server.process]
        self.asked = [each for each in self.asked if each[0].process is not server.process]
        server.die()
        self.servers[name] = self.nodes[name].program("server")

    # --- layers and the network

    @rule(level=LEVEL)
    def a_member_loses_its_neighbour(self, level: int) -> None:
        level %= len(self.way.toys)
        self.way.near.manage(DisconnectIpcp(self.way.toys[level][0], "Data Transfer", f"far{level + 1}"))

    @rule(level=LEVEL, qos=QOS)
    def a_member_looks_for_its_neighbour(self, level: int, qos: QoSSpec) -> None:
        level %= len(self.way.toys)
        self.way.near.manage(ConnectIpcp(self.way.toys[level][0], "Data Transfer", f"far{level + 1}", qos))

    @rule(level=LEVEL, side=SIDE)
    def a_member_is_destroyed_and_another_comes(self, level: int, side: str) -> None:
        level %= len(self.way.toys)
        node, pair = self.nodes[side], list(self.way.toys[level])
        node.manage(DestroyIpcp(pair[side == "far"]))
        below = self.way.toys[level - 1][1] if level else self.way.below
        new = toy(node, f"{side}{level + 1}", f"toys{level + 1}", below if side == "far" else 0)
        pair[side == "far"] = new
        self.way.toys[level] = pair[0], pair[1]
        if level + 1 == len(self.way.toys):
            self.offer(node, side, new)
        elif side == "far":
            self.offer(node, f"far{level + 2}", new)

    @rule(seconds=st.sampled_from([0.0, 0.0015, 0.01, 0.5, 1.6, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.way.network.run(seconds)
        self.note()

    @rule(side=SIDE, weather=st.sampled_from(WEATHER))
    def weather_changes(self, side: str, weather: str | None) -> None:
        self.nodes[side].impair(weather)

    @precondition(lambda self: self.way.below)
    @rule(weather=st.sampled_from(["none", "loss=20%,jitter=5ms", "rate=10M"]))
    def a_layer_is_impaired(self, weather: str) -> None:
        self.way.far.manage(ImpairIpcp(self.way.below, weather))

    # --- what always holds

    @invariant()
    def the_engine_has_no_fault(self) -> None:
        if hasattr(self, "way"):
            assert self.way.network.counted()["stuck"] == 0
            assert self.way.network.balance().missing == 0
            assert not [text for node in self.nodes.values() for text in node.warnings if "bug" in text]

    def teardown(self) -> None:
        if not hasattr(self, "servers"):
            return
        network = self.way.network
        for node in self.nodes.values():
            node.impair(None)
        if self.way.below:
            self.way.far.manage(ImpairIpcp(self.way.below, "none"))
        network.run(30)
        self.check_flows_in_use()
        for program in (*self.clients.values(), *self.servers.values()):
            program.die()
        for asked, _ in self.asked:
            asked.cancel()
        # Flows whose other end is gone are missed after two minutes; those above them when that is told.
        network.run(150.0 * (len(self.way.toys) + 1))
        self.the_engine_has_no_fault()
        for node in self.nodes.values():
            for flow in node.irm.flows.flows.values():
                assert not any(isinstance(owner, Process) for owner in flow.owners), flow
                assert any(flow.owners), flow
            for ipcp in node.irm.ipcps.values():
                if isinstance(ipcp, FlowIpcp):
                    assert (len(ipcp._outgoing), ipcp._incoming.waiting, ipcp._incoming._known) == (0, [], {})
                    carried = {flow.eid for flow in node._runtime._held.flows.values() if flow.ipcp == ipcp.id}
                    assert ipcp._core.eids == carried

    def check_flows_in_use(self) -> None:
        """One that has both of its ends, and no program that reads it, carries a packet."""
        self.note()
        ends = {self.place(asked): asked for asked in self.granted if asked not in self.busy and alive(asked)}
        for (node, eids), asked in ends.items():
            peer = ends.get((self.nodes["far"] if node is self.nodes["near"] else self.nodes["near"], eids[::-1]))
            if peer is not None:
                asked.flow.write(b"are you there?")
                assert peer.flow.read(10.0) == b"are you there?"

    def place(self, asked: Asked) -> tuple[Node, tuple[int, int]]:
        """The node of an end, and the endpoint ids of the flow; of one within a node, its number and side."""
        granted = asked.flow.granted
        remote = asked.node.irm.flows.flows[granted.flow_id].remote
        if isinstance(remote, RemoteEnd):
            return asked.node, (remote.eid, remote.peer_eid)
        return asked.node, (-granted.flow_id, granted.side)


def alive(asked: Asked) -> bool:
    """It is no flow that has ended. What waits in it is taken out."""
    try:
        while asked.flow.poll() is not None:
            pass
    except FlowException:
        return False
    return True


SimMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSim = SimMachine.TestCase
