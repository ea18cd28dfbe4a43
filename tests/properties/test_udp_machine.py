"""Two nodes over a network that loses, repeats, reorders and invents: flows are there at both ends or not at all, requests
are answered in time, and nothing is left when all is over.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from udp_world import STRANGER, Faults, Network, Node

from ouroboros.control.flows import ALLOC_TIMEOUT
from ouroboros.control.parties import Process
from ouroboros.qos import QOS_DATA, QOS_RAW, QOS_VOICE, QoSSpec
from ouroboros.wire.control import (
    BindProgram,
    CreateName,
    DestroyName,
    Failed,
    Granted,
    RegisterName,
    UnregisterName,
)

A, B = ("192.0.2.1", 3435), ("192.0.2.2", 3435)

PICK = st.integers(0, 20)
#: On both nodes, on the other one only, here only, nowhere.
NAMES = st.sampled_from(["both", "far", "near", "nowhere"])
QOS = st.sampled_from([QOS_RAW, QOS_DATA, QOS_VOICE, QoSSpec(loss=0), QoSSpec(cypher_s=128)])
TIMEOUTS = st.sampled_from([None, 0.0, 0.5, 2.0, 10.0, 40.0])
FAULTS = [
    Faults(),
    Faults(jitter=0.2),
    Faults(loss=0.3, duplicate=0.2, garbage=0.3, jitter=2.0),
    Faults(loss=0.7, duplicate=0.5, jitter=0.1),
    Faults(loss=1.0),
]
ERRORS = {
    "FlowAuthException",
    "FlowCryptException",
    "FlowNameException",
    "FlowRefusedException",
    "FlowTimeoutException",
    "NodeLimitError",
}


class UdpMachine(RuleBasedStateMachine):
    """Clients and servers on two nodes that know each other by peer tables and by the resolver."""

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.network = Network(seed)
        self.network.hosts = {}
        self.nodes = [
            Node(self.network, A, peers=["both@192.0.2.2", "far@192.0.2.2"], flow_limit=6),
            Node(self.network, B, peers=["both@192.0.2.1", "near@192.0.2.1"], flow_limit=6),
        ]
        for node, name in zip(self.nodes, ("near", "far"), strict=True):
            node.offer(name)
            node.offer("both")
        self.nodes[1].manage(BindProgram("/bin/p", "far", True, []))
        self.processes: list[tuple[Node, Process]] = []
        #: Requests: node, process, token, when it must have been answered.
        self.asked: list[tuple[Node, Process, int, float | None]] = []
        self.granted: list[tuple[Node, Process, int]] = []
        for number in (0, 1, 0, 1):
            self.arrive(number, "p")

    def pick(self, number: int) -> tuple[Node, Process]:
        return self.processes[number % len(self.processes)]

    def some(self) -> bool:
        return bool(self.processes)

    def note(self) -> None:
        """Move requests that were answered to where they belong."""
        waiting = []
        for node, process, token, until in self.asked:
            match node.answer(token):
                case None:
                    assert until is None or self.network.now <= until, "nobody told it in time"
                    waiting.append((node, process, token, until))
                case Granted():
                    self.granted.append((node, process, token))
                case Failed(error=error):
                    assert error in ERRORS
        self.asked = waiting

    # --- programs

    @precondition(lambda self: len(self.processes) < 6)
    @rule(number=st.integers(0, 1), program=st.sampled_from(["p", "client"]))
    def arrive(self, number: int, program: str) -> None:
        node = self.nodes[number]
        self.processes.append((node, node.program(program)))

    @precondition(some)
    @rule(number=PICK)
    def die(self, number: int) -> None:
        node, process = entry = self.pick(number)
        self.processes.remove(entry)
        self.note()
        self.asked = [each for each in self.asked if each[1] is not process]
        self.granted = [each for each in self.granted if each[1] is not process]
        node.kill(process)

    # --- flows

    @precondition(some)
    @rule(number=PICK, name=NAMES, timeout=TIMEOUTS, qos=QOS, wait=st.booleans())
    def alloc(self, number: int, name: str, timeout: float | None, qos: QoSSpec, wait: bool) -> None:
        node, process = self.pick(number)
        token = node.alloc(process, name, timeout, qos, wait=wait)
        until = self.network.now + (ALLOC_TIMEOUT if timeout is None else timeout)
        self.asked.append((node, process, token, until))
        self.note()

    @precondition(some)
    @rule(number=PICK, name=NAMES, timeout=TIMEOUTS)
    def accept(self, number: int, name: str, timeout: float | None) -> None:
        node, process = self.pick(number)
        token = node.accept(process, name, timeout)
        until = None if timeout is None else self.network.now + timeout
        self.asked.append((node, process, token, until))
        self.note()

    @precondition(lambda self: self.asked)
    @rule(number=PICK)
    def hang_up(self, number: int) -> None:
        node, _, token, _ = self.asked.pop(number % len(self.asked))
        node.cancel(token)

    @precondition(lambda self: self.granted)
    @rule(number=PICK)
    def dealloc(self, number: int) -> None:
        node, process, token = self.granted.pop(number % len(self.granted))
        node.dealloc(process, token)

    # --- the network and management

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 1.6, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.network.run(seconds)
        self.note()

    @rule(faults=st.sampled_from(FAULTS))
    def weather_changes(self, faults: Faults) -> None:
        self.network.faults = faults

    @precondition(lambda self: self.network.sent)
    @rule(number=st.integers(0, 10_000), stranger=st.booleans())
    def somebody_repeats_what_was_sent(self, number: int, stranger: bool) -> None:
        source, target, data = self.network.sent[number % len(self.network.sent)]
        self.network.deliver(STRANGER if stranger else source, target, data)

    @rule(number=st.integers(0, 1), register=st.booleans())
    def registration_changes(self, number: int, register: bool) -> None:
        node = self.nodes[number]
        if register:
            node.manage(CreateName("both", "round-robin"))
            node.manage(RegisterName("both", node.layer_id))
        else:
            node.manage(UnregisterName("both", node.layer_id))

    @rule(number=st.integers(0, 1))
    def name_is_destroyed(self, number: int) -> None:
        node = self.nodes[number]
        if "both" in node.irm.registry.names:
            node.manage(DestroyName("both"))
            self.note()

    @rule(number=st.integers(0, 1))
    def names_come_to_the_resolver(self, number: int) -> None:
        self.network.hosts = {
            digest: [self.nodes[number].address[0]] for digest in {each.host for each in self.nodes[0].lookups}
        }

    # --- what always holds

    @invariant()
    def both_ends_agree(self) -> None:
        self.network.check()

    @invariant()
    def requests_of_peers_wait_only_where_nobody_accepts(self) -> None:
        for node in self.nodes:
            for name in node.irm.registry.names.values():
                assert not (name.allocators and name.acceptors)

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for node, process in self.processes:
            node.kill(process)
        self.network.settle()


UdpMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestUdp = UdpMachine.TestCase


@given(st.integers(0, 2**32), st.sampled_from(FAULTS[:-1]))
@settings(max_examples=40, deadline=None)
def test_busy_nodes_in_bad_weather_agree_about_their_flows(seed: int, faults: Faults) -> None:
    network = Network(seed)
    client = Node(network, A, peers=["far@192.0.2.2"])
    server = Node(network, B)
    server.offer("far")
    program, daemon = client.program("watch"), server.server("far")
    network.faults = faults
    random = network.random
    asked: list[int] = []
    accepting: list[int] = []
    for _ in range(60):
        for _ in range(random.randrange(3)):
            asked.append(
                client.alloc(program, "far", random.choice([1.0, 3.0, None]), random.choice([QOS_RAW, QOS_DATA]))
            )
            accepting.append(server.accept(daemon, timeout=random.choice([0.5, 10.0])))
        network.run(random.random())
        for node, process, tokens in ((client, program, asked), (server, daemon, accepting)):
            for token in [token for token in tokens if random.random() < 0.1]:
                tokens.remove(token)
                if isinstance(node.answer(token), Granted):
                    node.dealloc(process, token)
                elif node.answer(token) is None:
                    node.cancel(token)
        network.check()
    if not faults.garbage:
        # Nobody else repeated a request, so none may be taken for a repetition by somebody else.
        assert not any("EAUTH" in answer.text for answer in client._answers.values() if isinstance(answer, Failed))
    assert faults.loss or all(node.history for node in (client, server))
    client.kill(program)
    server.kill(daemon)
    network.settle()
