"""What strangers can bring about at a node over UDP: real control and the real engine, in virtual time."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from security_world import issued
from strangers import OLDER, OURS, PROTOTYPE, Strangers, forged

from ouroboros.control.names import ROUND_ROBIN
from ouroboros.errors import FlowPeerException
from ouroboros.layers.effects import Address
from ouroboros.oap import Encryption, Settings
from ouroboros.oap.certificates import Credentials
from ouroboros.qos import QoSSpec
from ouroboros.settings import Strangers as Share
from ouroboros.testing.sim import Asked, Network, Node, Program
from ouroboros.wire.control import Granted
from ouroboros.wire.udp import Code, FlowReply, decode

HOSTS = [(f"192.0.2.{host}", port) for host in range(1, 9) for port in (3435, 4000)]
SHARES = Share(flows=20, unproven=6, unproven_of_one=2, grace=5)


def world(shares: Share | None = None, *, flow_limit: int = 100) -> tuple[Network, Node, Node, Strangers, int]:
    """A node with the name "clock", one that knows where it is, and strangers."""
    network = Network(1)
    far = network.add_node("far", flow_limit=flow_limit)
    near = network.add_node("near")
    ipcp = far.over_udp()
    near.over_udp(peers=[f"clock@{far.address}"])
    far.offer("clock", ipcp)
    if shares is not None:
        far.irm.bound_strangers(shares)
    return network, far, near, Strangers(network, HOSTS), ipcp


def held(node: Node, ipcp: int) -> int:
    """What those who have proven nothing have of a node."""
    taken = node.irm.ipcps[ipcp]._incoming._unproven.taken  # type: ignore[attr-defined]
    assert isinstance(taken, int)
    return taken


def there(node: Node) -> Address:
    return (node.address, 3435)


class Round(NamedTuple):
    """So many acceptors, so many requests in the name of those hosts, and then some time."""

    accepting: int
    kind: str
    timeout: int
    hosts: list[int]
    seconds: float


ROUNDS = st.builds(
    Round,
    st.integers(0, 10),
    st.sampled_from([OURS, OLDER, PROTOTYPE]),
    st.sampled_from([0, 1, 120_000, 2**32 - 1]),
    st.lists(st.integers(0, len(HOSTS) - 1), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.5, 3.0, 20.0]),
)


@settings(max_examples=30)
@given(st.lists(ROUNDS, min_size=1, max_size=6))
@example([Round(6, PROTOTYPE, 0, [0, 0, 2, 2, 4, 4], 20.0)] * 3 + [Round(2, PROTOTYPE, 0, [0, 0], 0.01)])
def test_whatever_strangers_send_they_hold_no_more_than_their_share(rounds: list[Round]) -> None:
    network, far, near, strangers, ipcp = world(SHARES)
    server = far.program("server")
    asked: dict[Address, int] = defaultdict(int)
    served: list[Asked] = []
    for at, each in enumerate(rounds):
        accepting = [server.accept("clock", timeout=1.0) for _ in range(each.accepting)]
        for number, host in enumerate(each.hosts):
            number, source = 1000 * at + number, HOSTS[host]
            # Who guesses a cookie, guesses it.
            request = forged(each.kind, number, network.wall, qos=QoSSpec(timeout=each.timeout), cookie=number)
            strangers.say(source, there(far), request)
            asked[source] += (1 if each.kind == OURS else 3) * len(request)
        for _ in range(4):
            network.run(each.seconds / 4)
            assert held(far, ipcp) <= SHARES.unproven
            # A program keeps its end when the flow is over.
            assert len(far.irm.flows.flows) <= SHARES.flows
        for request_of_server in accepting:
            request_of_server.cancel()
        served += (each for each in accepting if isinstance(each.answer, Granted))
    for source, got in strangers.got.items():
        assert sum(map(len, got)) <= asked[source]
    network.run(30.0)
    for over in served:
        over.flow.dealloc()
    network.run(1.0)
    # Whoever is there gets its flow at once, and so does everybody within the node.
    accepted = server.accept("clock")
    near.program("watch").alloc("clock", timeout=2.0).wait(2.0).flow.write(b"hello")
    assert accepted.wait().flow.read() == b"hello"
    far.irm.registry.create("here", ROUND_ROBIN)
    accepted = server.accept("here")
    far.program("local").alloc("here", timeout=1.0).wait(1.0).flow.write(b"hello")
    assert accepted.wait().flow.read() == b"hello"


def test_flows_of_strangers_are_gone_when_nothing_was_heard_of_them() -> None:
    network, far, _, strangers, ipcp = world(SHARES)
    server = far.program("server")
    accepting = [server.accept("clock") for _ in range(SHARES.unproven)]
    for number, source in enumerate(HOSTS):
        strangers.say(source, there(far), forged(PROTOTYPE, number, network.wall))
    network.run(0.1)
    flows = [each.flow for each in accepting]
    assert held(far, ipcp) == len(far.irm.flows.flows) == SHARES.unproven
    # The longest that any of them may be silent is told to its program.
    assert {flow.qos.timeout for flow in flows} == {SHARES.timeout}
    network.run(SHARES.grace)
    assert held(far, ipcp) == 0
    for flow in flows:
        with pytest.raises(FlowPeerException):
            flow.read()


def test_a_peer_that_has_sent_a_packet_is_no_stranger_any_more() -> None:
    network, far, _, strangers, ipcp = world(SHARES)
    accepting = far.program("server").accept("clock")
    source = HOSTS[0]
    strangers.say(source, there(far), forged(PROTOTYPE, 1, network.wall))
    network.run(0.1)
    (reply,) = (decode(data) for data in strangers.got[source])
    assert isinstance(reply, FlowReply)
    assert held(far, ipcp) == 1
    strangers.packet(HOSTS[1], there(far), reply.peer_eid, b"not from there")
    strangers.packet(source, there(far), reply.peer_eid ^ 1, b"not to it")
    network.run(0.1)
    assert held(far, ipcp) == 1
    strangers.packet(source, there(far), reply.peer_eid, b"hello")
    network.run(0.1)
    assert held(far, ipcp) == 0
    assert accepting.flow.read() == b"hello"
    network.run(2 * SHARES.grace)
    assert len(far.irm.flows.flows) == 1


def test_one_host_has_no_more_than_its_part_and_the_next_one_finds_room() -> None:
    network, far, _, strangers, ipcp = world(SHARES)
    for number in range(20):
        strangers.say(HOSTS[number % 2], there(far), forged(PROTOTYPE, number, network.wall))
    network.run(0.1)
    assert HOSTS[0][0] == HOSTS[1][0]
    assert held(far, ipcp) == SHARES.unproven_of_one
    strangers.say(HOSTS[2], there(far), forged(PROTOTYPE, 100, network.wall))
    network.run(0.1)
    assert held(far, ipcp) == SHARES.unproven_of_one + 1


def serve(network: Network, server: Program) -> None:
    """Take a flow each millisecond, if there is one, and let go of it."""
    accepting = server.accept("clock")

    def take() -> None:
        nonlocal accepting
        if accepting.answer is not None:
            accepting.flow.dealloc()
            accepting = server.accept("clock")
        network.later(0.001, take)

    take()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OURS, OLDER, PROTOTYPE])
def test_honest_allocations_cross_a_flood(kind: str) -> None:
    """40 000 forged requests a second: 41 Mbit/s."""
    network, far, near, strangers, ipcp = world()
    chance = random.Random(1)
    requests = [forged(kind, number, network.wall) for number in range(4000)]
    # The server never has a moment without them.
    strangers.flood(there(far), lambda number: (chance.choice(HOSTS), requests[number % 4000]), 40_000, 1.0)
    serve(network, far.program("server"))
    watch = near.program("watch")
    for _ in range(50):
        network.run(0.01)
        watch.alloc("clock", timeout=2.0).wait(2.0).flow.dealloc()
    assert held(far, ipcp) <= Share().unproven
    assert len(far.warnings) <= 10


# --- how long answers are


def security(kex: str | None, *, certified: bool = False) -> Settings:
    made = issued("clock")
    return Settings(
        None if kex is None else Encryption(kex=kex),
        credentials=Credentials(made.certificate, made.key) if certified else None,
    )


@pytest.mark.parametrize(
    "kex", [None, "X25519", "prime256v1", "secp521r1", "ffdhe2048", "ML-KEM-768", "X25519MLKEM768"]
)
@pytest.mark.parametrize("certified", [False, True], ids=["bare", "certified"])
@pytest.mark.parametrize("kind", [OURS, OLDER, PROTOTYPE])
def test_an_answer_to_somebody_unproven_is_hardly_longer_than_the_request(
    kind: str, certified: bool, kex: str | None
) -> None:
    network, far, _, strangers, ipcp = world()
    far.irm.security.settings = lambda name, side: security(kex, certified=certified)  # type: ignore[method-assign]
    accepting = far.program("server").accept("clock")
    request = forged(kind, 1, network.wall, qos=QoSSpec(), settings=security(kex))
    for _ in range(3):
        strangers.say(HOSTS[0], there(far), request)
        network.run(0.1)
    got = strangers.got[HOSTS[0]]
    assert len(got) == 3
    assert max(map(len, got)) <= (1 if kind == OURS else 3) * len(request)
    if kind == OURS:
        assert {data[44] for data in got} == {Code.FLOW_RETRY}
        assert accepting.answer is None
    else:
        # Answered it is, with a flow, or with a refusal where that would be too long.
        refused = isinstance(decode(got[0]), FlowReply) and decode(got[0]).response < 0  # type: ignore[union-attr]
        assert refused == (accepting.answer is None) == bool(far.warnings)
        assert not refused or certified
    assert ipcp
