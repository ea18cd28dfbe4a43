"""The directory of a unicast layer under any order of events: members come, die and part, names come and go.

Meanwhile packets are lost, doubled and late. When it is quiet for a while, everybody finds every name at those members that
have it and can be reached, and nothing else.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from directory_world import BASE, Member, World, digest
from hypothesis import given, settings

from ouroboros.errors import ProtocolError
from ouroboros.layers.members.core import DIRECTORY
from ouroboros.wire.unicast import dht
from ouroboros.wire.unicast.dht import Contact, FindNode, FindValue, NodeFound, Store, ValueFound

NAMES = [f"name{number}" for number in range(5)]

#: Longer than anything is repeated.
QUIET = 60.0

_verbs = st.sampled_from(
    ["add", "kill", "leave", "split", "heal", "register", "register", "register", "unregister", "wait"]
)
_steps = st.lists(
    st.tuples(_verbs, st.integers(0, 11), st.sampled_from(NAMES), st.sampled_from([0.0, 0.003, 0.2, 5.0])), max_size=30
)


class Truth:
    """What happens in a world, and who has what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.has: dict[str, dict[int, None]] = {name: {} for name in NAMES}

    def apply(self, verb: str, number: int, name: str) -> None:
        world, member = self.world, self.world.members.get(BASE + number)
        match verb:
            case "add" if member is None:
                # If it was there before, all have heard that it was gone.
                world.tell()
                world.add(number, peer=BASE)
                self._lost(BASE + number)
            case "kill" if member is not None and len(world.members) > 1:
                world.kill(member)
                world.later(1.0, world.tell)
                self._lost(member.address)
            case "leave" if member is not None and len(world.members) > 1:
                world.do(member, lambda part: part.close(world.now))
                world.kill(member)
                world.tell()
                self._lost(member.address)
            case "split":
                world.split(2 + number % 2)
            case "heal":
                world.pieces = dict.fromkeys(world.members, 0)
                world.tell()
            case "register" if member is not None:
                world.register(member, name)
                self.has[name][member.address] = None
            case "unregister" if member is not None:
                world.unregister(member, name)
                self.has[name].pop(member.address, None)

    def _lost(self, address: int) -> None:
        for members in self.has.values():
            members.pop(address, None)

    def reachable(self, asker: Member, name: str) -> list[int]:
        pieces = self.world.pieces
        return sorted(each for each in self.has[name] if pieces[each] == pieces[asker.address])

    def check(self) -> None:
        world = self.world
        for asker in list(world.members.values()):
            for name in NAMES:
                found = [each for each in world.find(asker, name) if asker.part.alive(each)]
                assert found == self.reachable(asker, name), f"{name} at {asker.address:#x}"


@settings(max_examples=80)
@given(_steps, st.sampled_from([(0.0, 0.0, 0.0), (0.2, 0.2, 0.3)]), st.sampled_from([1, 3, 8]), st.integers(0, 1000))
def test_names_are_found_where_they_are(
    steps: list[tuple[str, int, str, float]], trouble: tuple[float, float, float], k: int, seed: int
) -> None:
    world = World(seed, k=k)
    truth = Truth(world)
    world.fill(4)
    world.loss, world.doubled, world.reordered = trouble
    for verb, number, name, wait in steps:
        truth.apply(verb, number, name)
        world.run(wait)
    world.run(QUIET)
    # What is lost now is asked for again, but not for ever.
    world.loss = 0.0
    truth.check()


_ids = st.one_of(st.just(b"\1" * 32), st.binary(min_size=32, max_size=32))
_addresses = st.one_of(st.sampled_from([BASE, BASE + 1, BASE + 2, BASE + 9]), st.integers(1, 2**32 - 1))
_contacts = st.builds(Contact, _ids, _addresses)
_keys = st.one_of(st.sampled_from([digest(name) for name in NAMES]), _ids)
_cookies = st.integers(0, 2**64 - 1)
_many = st.lists(_contacts, min_size=1, max_size=8).map(tuple)
_some = st.lists(_addresses, max_size=8).map(tuple)
_messages = st.one_of(
    st.builds(Store, _contacts, _keys, _addresses, st.one_of(st.just(0), st.integers(0, 2**32 - 1))),
    st.builds(FindNode, _contacts, _cookies, _keys),
    st.builds(FindValue, _contacts, _cookies, _keys),
    st.builds(NodeFound, _contacts, _cookies, _keys, _many),
    st.builds(ValueFound, _contacts, _cookies, _keys, _many, _some),
).map(lambda message: message.encode())


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(_messages))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.lists(st.tuples(st.one_of(_messages, _damaged(), st.binary(max_size=200)), st.integers(0, 3)), max_size=40))
def test_whatever_arrives_raises_nothing_and_names_are_found(packets: list[tuple[bytes, int]]) -> None:
    """Of a layer of five with one of the prototype, which is never sent what harms it."""
    world = World()
    members = world.fill(5, prototypes=1)
    world.run(2.0)
    for number, member in enumerate(members):
        world.register(member, f"own{number}")
    world.run(1.0)

    def watch(sender: int, receiver: int, data: bytes) -> None:
        assert receiver != sender
        dht.decode(data, 32)

    world.watch = watch
    for data, number in packets:
        world.do(members[number], lambda part, data=data: part.heard(data, 1, world.now))  # type: ignore[misc]
        world.run(0.01)
    world.run(QUIET)
    for number, member in enumerate(members[:4]):
        for asker in members[:4]:
            assert member.address in world.find(asker, f"own{number}")
    assert members[4].part.harmed == []


@given(st.binary(max_size=300))
def test_bytes_of_a_stranger_are_read_or_refused(data: bytes) -> None:
    member = World().add(0)
    member.part.heard(data, 1, 0.0)
    try:
        dht.decode(data, 32)
    except ProtocolError:
        assert member.core.counters["directory_malformed"] == 1
    assert DIRECTORY == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_layers_of_ten(seed: int) -> None:
    survive(World(seed), 10)


@pytest.mark.slow
@pytest.mark.parametrize("prototypes", [0, 10])
def test_layers_of_a_hundred(prototypes: int) -> None:
    survive(World(1), 100, prototypes=prototypes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_layer_of_three_hundred() -> None:
    survive(World(1), 300)


def survive(world: World, size: int, prototypes: int = 0) -> None:
    """Members come one after the other and register a name each. Some die, the layer falls apart and heals; packets are
    lost, doubled and late all the while. Each time everybody of a sample finds every name, of a sample in large layers."""
    world.loss, world.doubled, world.reordered = 0.1, 0.05, 0.1
    for number in range(size):
        ours = number < size - prototypes
        member = world.add(number, ours=ours, peer=BASE if number else None, told=size <= 100 or number % 20 == 0)
        world.run(0.1)
        if ours:
            world.register(member, f"of{member.address}")
    world.tell()
    world.run(20.0)
    find_all(world)
    for member in world.random.sample([each for each in world.members.values() if each.ours], size // 10):
        world.kill(member)
    world.run(1.0)
    world.tell()
    world.run(20.0)
    find_all(world)
    world.split(2)
    world.run(20.0)
    find_all(world)
    world.pieces = dict.fromkeys(world.members, 0)
    world.tell()
    world.run(20.0)
    find_all(world)


def find_all(world: World) -> None:
    owners = [each for each in world.members.values() if each.ours]
    for asker in world.random.sample(owners, min(len(owners), 6)):
        for owner in world.random.sample(owners, min(len(owners), 30)):
            found = [each for each in world.find(asker, f"of{owner.address}") if asker.part.alive(each)]
            assert found == ([owner.address] if world.pieces[owner.address] == world.pieces[asker.address] else [])
