"""The engine does with a packet what its slow twin does."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from transfer_twin import UPDATE, Outcome, Pci, Twin, told

from ouroboros.dataplane import Setup, SimulatedEngine, Simulation

DELAY = 1_000
SELF, MOST, FLOW = 10, 600, 2**44 + 64
#: Addresses of neighbours, of members behind them, and of nobody.
NEIGHBOURS, ALL = (11, 12, 13), (10, 11, 12, 13, 20, 21, 2**32 - 1)

headers = st.builds(
    Pci,
    destination=st.sampled_from(ALL),
    cube=st.integers(0, 255),
    ttl=st.one_of(st.integers(0, 3), st.integers(0, 255)),
    ecn=st.integers(0, 255),
    eid=st.one_of(st.integers(0, 70), st.just(FLOW), st.integers(0, 2**64 - 1)),
)
# A word of a receiver to us is not among them: the member takes it, and tells nobody.
payloads = st.binary(max_size=40) | st.integers(560, 600).map(bytes)
packets = st.one_of(
    st.binary(min_size=1, max_size=20), st.tuples(headers, payloads).map(lambda it: it[0].pack() + it[1])
)
tables = st.dictionaries(st.sampled_from(ALL[1:]), st.lists(st.sampled_from((*NEIGHBOURS, 20)), max_size=4).map(tuple))


class Node:
    """One of the nodes: a port, and flows over it."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self.engine: SimulatedEngine = simulation.add_node()
        self.address = (f"10.0.0.{number}", 3435)
        self.port = self.engine.open_port(*self.address, DELAY)

    def lower(self, peer: Node, eids: tuple[int, int]) -> int:
        """A flow that control has."""
        return self._add(member=self.port, peer=peer.address, eid=eids[0], peer_eid=eids[1], control=2**32 - 1)

    def _add(self, **told: Any) -> int:
        flow = self.engine.name()
        self.engine.add([Setup(flow=flow, side=0, **told)])
        return flow


class World:
    """A member, and neighbours that show what comes to them."""

    def __init__(self, max_ttl: int, ecn: bool = False) -> None:
        self.simulation = Simulation()
        self.node = Node(self.simulation, 1)
        self.engine = self.node.engine
        self.member = self.engine.open_unicast(SELF, max_ttl, ecn)
        self.neighbours = {address: Node(self.simulation, address) for address in NEIGHBOURS}
        self.near = {address: self.node.lower(node, (address, 90)) for address, node in self.neighbours.items()}
        self.far = {address: node.lower(self.node, (90, address)) for address, node in self.neighbours.items()}
        for address, flow in self.near.items():
            self.engine.hand_over(self.member, flow, address, MOST, True)
        self.flow = self.node._add(member=self.member, destination=20, eid=FLOW, peer_eid=77)

    def counters(self) -> dict[str, int]:
        layer, _ = self.engine.snapshot(self.member)
        return layer

    def take(self, came_from: int, packet: bytes) -> Outcome:
        """What becomes of a packet from a neighbour."""
        before = self.counters()
        self.neighbours[came_from].engine.send_message(self.far[came_from], packet)
        outcome = None
        until = self.simulation.now + 10 * DELAY
        while self.simulation.now < until:
            for place, (_, messages, _, _, heard) in self.simulation.run(until)[1]:
                for _, data in messages:
                    outcome = Outcome("forwarded", NEIGHBOURS[place - 1], data)
                for _, eid, data, brought in heard:
                    assert brought == self.near[came_from]
                    outcome = Outcome("heard", eid, data)
        after = self.counters()
        changed = {name for name, value in after.items() if value != before[name]} - {"received"}
        if (got := self.engine.read(self.flow)) is not None:
            assert not changed
            return Outcome("delivered", FLOW, got)
        (why,) = changed
        assert (outcome is not None) == (why in ("forwarded", "heard"))
        return Outcome(why) if outcome is None else outcome


@given(
    st.sampled_from((0, 1, 2, 60, 255)), tables, st.sampled_from(NEIGHBOURS), st.lists(packets, min_size=1, max_size=8)
)
def test_the_engine_does_with_a_packet_what_its_twin_does(
    max_ttl: int, table: dict[int, tuple[int, ...]], came_from: int, some: list[bytes]
) -> None:
    world = World(max_ttl)
    world.engine.route(world.member, table, False)
    # One of them is no neighbour any more.
    world.engine.take_back(world.member, world.near[13])
    twin = Twin(SELF, max_ttl, table, frozenset((11, 12)), MOST, frozenset((FLOW,)))
    # From there, nothing can return.
    source = 0 if came_from == 13 else came_from
    for packet in some:
        expected = twin.take(source, packet)
        if expected.what == "delivered" and not expected.packet:
            # A keepalive.
            continue
        got = world.take(came_from, packet)
        if expected.what == "unknown":
            expected = Outcome("unknown")
        assert got == expected


@given(st.lists(st.integers(0, 63) | st.just(0), max_size=60))
def test_the_receiver_of_marks_tells_what_its_twin_does(marks: list[int]) -> None:
    world = World(60, ecn=True)
    world.engine.route(world.member, {20: (11,)}, False)
    words = []
    for mark in marks:
        world.neighbours[12].engine.send_message(world.far[12], Pci(SELF, 0, 60, mark, FLOW).pack() + b"data")
        until = world.simulation.now + 10 * DELAY
        while world.simulation.now < until:
            for _, (_, messages, _, _, _) in world.simulation.run(until)[1]:
                words += [data for _, data in messages]
    header = Pci(20, 0, 60, 0, 0).pack()
    assert words == [header + UPDATE.pack(77, ece, 2) for ece in told(marks)]
