"""Link-state routing under any order of events: whatever happened, all members come to know the same, and their routes are
those of the network as it is.

Meanwhile packets of management are lost, doubled and late. With members of the prototype in the layer the tables are right
where one of ours is at an end of each link that fails: two of the prototype do not notice (`unicast-control.md` 12.4).
"""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from routing_world import BASE, EPOCH, Member, Pair, World, lay, oracle, shape

from ouroboros.layers.unicast.database import Life
from ouroboros.layers.unicast.link_state import MOST_AHEAD
from ouroboros.settings import LinkStatePolicy
from ouroboros.wire.unicast import lsu
from ouroboros.wire.unicast.lsu import Acknowledgement, LinkStateUpdate, Updates

#: Longer than a link that flaps is held down, and than anything takes to be forgotten where the prototype is.
QUIET = 200.0

COUNT = 6
ADDRESSES = [BASE + each for each in range(COUNT)]
PAIRS = [(one, other) for one in ADDRESSES for other in ADDRESSES if one < other]

_verbs = st.sampled_from(["connect", "connect", "cut", "mend", "disconnect", "restart", "wait"])
_waits = st.sampled_from([0.0, 0.001, 0.3, 2.0, 20.0])
_steps = st.lists(st.tuples(_verbs, st.sampled_from(PAIRS), _waits), max_size=25)
_trouble = st.sampled_from([(0.0, 0.0, 0.0), (0.3, 0.2, 0.3), (0.1, 0.0, 0.9)])


def live(member: Member) -> dict[Pair, int]:
    return {(row.source, row.destination): row.number for row in member.link_state.rows(0.0) if row.life is Life.LIVE}


def apply(world: World, verb: str, pair: Pair) -> None:
    """Do that, if it can be done now, and if somebody notices."""
    link = world.links.get(pair)
    noticed = any(world.members[address].ours for address in pair)
    match verb:
        case "connect" if link is None:
            world.connect(*pair)
        case "cut" if link is not None and noticed:
            world.cut(*pair)
        case "mend" if link is not None:
            world.mend(*pair)
        case "disconnect" if link is not None and noticed:
            world.disconnect(*pair)
        case "restart" if world.members[pair[0]].ours:
            for each in [each for each in world.links if pair[0] in each]:
                world.disconnect(*each)
            world.add(pair[0])


def check(world: World) -> None:
    """All members of a piece of the network know the same, and have the routes of the network as it is."""
    policy = LinkStatePolicy(world.config.dt.routing.ls.pol)
    for member in world.ours():
        assert member.table == oracle(world.announced(), member.address, policy), f"{member.address:#x}"
        assert member.table == member.link_state.table()
    for piece in world.pieces():
        known = [live(world.members[address]) for address in piece]
        assert all(each == known[0] for each in known)


@settings(max_examples=150)
@given(_steps, _trouble, st.sampled_from(list(LinkStatePolicy)), st.integers(0, 1000))
def test_members_of_ours_come_to_know_the_same(
    steps: list[tuple[str, Pair, float]], trouble: tuple[float, float, float], policy: LinkStatePolicy, seed: int
) -> None:
    world = World(seed, pol=policy)
    world.loss, world.doubled, world.reordered = trouble
    for address in ADDRESSES:
        world.add(address)
    for verb, pair, wait in steps:
        apply(world, verb, pair)
        world.run(wait)
    world.run(QUIET)
    check(world)


@settings(max_examples=100)
@given(_steps, st.sets(st.sampled_from(ADDRESSES), max_size=3), st.sampled_from([0.0, 0.1]), st.integers(0, 1000))
def test_routes_are_right_with_members_of_the_prototype(
    steps: list[tuple[str, Pair, float]], prototypes: set[int], loss: float, seed: int
) -> None:
    world = World(seed, t_update=5, t_timeo=20, t_recalc=1)
    world.loss = loss
    for address in ADDRESSES:
        world.add(address, ours=address not in prototypes)
    for verb, pair, wait in steps:
        apply(world, verb, pair)
        world.run(wait)
    world.run(QUIET)
    # All is refreshed once more: of single updates some may have been lost.
    world.loss = 0.0
    world.run(30.0)
    for member in world.ours():
        assert member.table == oracle(world.announced(), member.address, LinkStatePolicy.SIMPLE)
        if prototypes:
            assert member.core.counters["lsus_malformed"] == 0
        assert member.collisions == 0


_addresses = st.one_of(st.sampled_from(ADDRESSES), st.integers(lsu.LEAST_ADDRESS, lsu.MOST_ADDRESS))
#: The greatest numbers that are believed, about.
_LAST = EPOCH + MOST_AHEAD << 16
_numbers = st.one_of(st.integers(0, 5), st.integers(EPOCH << 16, _LAST), st.integers(0, lsu.MOST_NUMBER))
_updates = st.builds(LinkStateUpdate, _addresses, _addresses, _numbers, st.booleans()).filter(
    lambda each: each.source != each.destination
)
_messages = st.one_of(
    st.binary(max_size=100),
    _updates.filter(lambda each: not each.withdrawn).map(LinkStateUpdate.encode),
    st.builds(Updates, st.integers(0, 9), st.lists(_updates, min_size=1, max_size=8).map(tuple)).map(Updates.encode),
    st.builds(Acknowledgement, st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(tuple)).map(
        Acknowledgement.encode
    ),
)


def _forged(number: int) -> bytes:
    """An update in the name of the one in the middle, of a link that it has."""
    return Updates(0, (LinkStateUpdate(ADDRESSES[0], ADDRESSES[1], number),)).encode()


@given(st.lists(st.tuples(_messages, st.booleans(), st.floats(0, 30)), max_size=30))
@example([(_forged(lsu.MOST_NUMBER), True, 0.0)])
@example([(_forged(lsu.MOST_NUMBER - 2), True, 0.0)])
@example([(_forged(_LAST), True, 0.0)])
@example([(_forged(_LAST + number), True, 0.3) for number in range(10)])
# What others were told soon, it was not while it was the prototype.
@example([(LinkStateUpdate(0x20000, 0x10000, 0).encode(), False, 14.0)])
def test_whatever_a_neighbour_sends_raises_nothing_and_the_truth_prevails(
    packets: list[tuple[bytes, bool, float]],
) -> None:
    """A line of three of ours; at its end somebody sends what they like, who may be the prototype."""
    world = World(1)
    lay(world, [(ADDRESSES[0], ADDRESSES[1]), (ADDRESSES[1], ADDRESSES[2])])
    world.add(ADDRESSES[3])
    link = world.connect(ADDRESSES[3], ADDRESSES[2])
    world.run(1.0)
    victim = world.members[ADDRESSES[2]]
    flow, _ = victim.flows[link.fds[1]]
    for data, ours, wait in packets:
        flow.ours = ours
        world.do(victim, lambda part, data=data: part.heard(flow, data, world.now))  # type: ignore[misc]
        world.run(wait)
    flow.ours = True
    world.run(QUIET)
    for one, other in pairwise(ADDRESSES[:3]):
        assert world.members[one].link_state.distance(other) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["line", "ring", "grid", "tree", "star"])
def test_small_layers(kind: str, seed: int) -> None:
    survive(World(seed, pol=LinkStatePolicy(seed % 3)), kind, 10, partitions=6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["line", "ring", "grid", "tree"])
def test_layers_of_a_hundred(kind: str) -> None:
    survive(World(1), kind, 100, partitions=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_layer_of_three_hundred() -> None:
    survive(World(1, pol=LinkStatePolicy.LFA), "tree", 300, partitions=1)


def survive(world: World, kind: str, size: int, partitions: int) -> None:
    """Build a layer; tear it apart and mend it; lose, double and delay all the while."""
    world.loss, world.doubled, world.reordered = 0.1, 0.05, 0.1
    lay(world, shape(kind, size))
    world.run(30.0)
    check(world)
    links = list(world.links)
    for number in range(partitions):
        torn = world.random.sample(links, 1 + number % 3)
        for pair in torn:
            world.cut(*pair)
        world.run(10.0)
        check(world)
        for pair in torn:
            world.mend(*pair)
        world.run(30.0)
        check(world)
