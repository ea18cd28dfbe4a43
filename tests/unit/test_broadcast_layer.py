"""Broadcast layers of several nodes: what their members say to one another, and whole nodes in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from members_world import Member, Puppet, World
from unicast_world import Layer

from ouroboros.errors import FlowNameException, IpcpConnectError
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.members.connections import MOST_NAMELESS
from ouroboros.layers.members.core import Core
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT, MANAGEMENT
from ouroboros.layers.members.links import SILENCE
from ouroboros.settings import BroadcastSettings
from ouroboros.testing.sim import Flow
from ouroboros.wire.control import DestroyIpcp, DisconnectIpcp
from ouroboros.wire.unicast import cep, enrollment
from ouroboros.wire.unicast.cep import Cep
from ouroboros.wire.unicast.enrollment import Configuration, Request

#: Of members of the prototype (`unicast-control.md` 13).
GREETING = bytes.fromhex("0a0d44617461205472616e73666572 1200 1800 2800 4000")
UNKNOWN = bytes.fromhex("0a00 1200 1800 2800 4000")
CONFIGURATION = bytes.fromhex("2a0a 0a06 0a026263 1001 1002")


# --- what members say


def hall(world: World, name: str) -> Member:
    """A member of the broadcast layer `bc`."""
    member = Member(world, name, layer="bc", broadcast=True)
    del member.components[MANAGEMENT]
    return member


def test_the_greeting_of_the_prototype_is_answered_in_its_words() -> None:
    world = World()
    member = hall(world, "a")
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, GREETING)
    world.run(SILENCE + 1)
    said = cep.decode(c.heard[0][2])
    assert (said.component, said.protocol, said.version, said.syntax) == (DATA_TRANSFER, "", 0, 0)
    (connection,) = member.transfer.connections.values()
    assert (connection.address, connection.ours) == (0, False)


def test_a_member_of_the_prototype_that_is_asked_is_connected() -> None:
    world = World()
    member = hall(world, "a")
    Puppet(world, "c", lambda data: GREETING)
    outcome = member.connect(DATA_TRANSFER, "c")
    world.run(1)
    assert outcome.done
    assert [each.name for each in member.transfer.connections.values()] == ["c"]
    # Once more is not one more.
    assert member.connect(DATA_TRANSFER, "c").done
    member.disconnect(DATA_TRANSFER, "c")
    assert not member.transfer.connections


def test_connections_with_members_that_do_not_say_who_they_are_are_bounded() -> None:
    """Those of the prototype: each may be the same one again."""
    world = World()
    member = hall(world, "a")
    c = Puppet(world, "c")
    for _ in range(MOST_NAMELESS + 20):
        world.send(c.flow_to("a"), GREETING)
    world.run(SILENCE + 1)
    assert len(member.transfer.connections) == MOST_NAMELESS
    assert member.core.counters["greetings_refused"] == 20
    assert cep.decode(c.heard[-1][2]).component == ""


def test_there_is_no_management() -> None:
    world = World()
    hall(world, "a")
    c = Puppet(world, "c")
    world.send(c.flow_to("a"), Cep("Management", "LSP", 1, 0, 0x10000000).encode())
    world.run(1)
    answer = c.heard[0][2]
    assert answer.startswith(UNKNOWN)
    assert cep.decode(answer).component == ""


def test_the_configuration_is_that_of_the_prototype() -> None:
    world = World()
    hall(world, "a")
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, Cep("Enrollment", "OEP", 1, 0, 0).encode())
    world.run(1)
    world.send(fd, Request(b"12345678").encode())
    world.run(1)
    answer = c.heard[1][2]
    assert answer.endswith(CONFIGURATION)
    assert enrollment.decode_response(answer).configuration == Configuration("bc", BroadcastSettings(), None)


def test_a_newcomer_is_told_of_the_layer_and_connected() -> None:
    world = World()
    member, newcomer = hall(world, "a"), Member(world, "b", broadcast=True)
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done
    assert newcomer.configurations == [Configuration("bc", BroadcastSettings(), None)]
    assert newcomer.connect(DATA_TRANSFER, "a").answers == []
    world.run(1)
    assert len(member.transfer.connections) == len(newcomer.transfer.connections) == 1


@pytest.mark.parametrize("broadcast", [True, False])
def test_a_newcomer_of_another_type_is_told_which(broadcast: bool) -> None:
    world = World()
    Member(world, "a", layer="bc", broadcast=broadcast)
    outcome = Member(world, "b", broadcast=not broadcast).enroll("a")
    world.run(1)
    assert f"its layer 'bc' is a {'broadcast' if broadcast else 'unicast'} layer" in outcome.error


def test_who_is_disconnected_does_not_ask_again() -> None:
    world = World()
    one, two = hall(world, "a"), hall(world, "b")
    one.connect(DATA_TRANSFER, "b")
    world.run(1)
    (there,) = two.transfer.connections.values()
    (here,) = one.transfer.connections.values()
    two.disconnect(DATA_TRANSFER, "a")
    # As the engine hands it on, without the first byte.
    word = world.ends[there.fd].says[-1][1]
    assert word[:1] == b"\x04"
    one.connections.word(here.fd, word[1:], world.now)
    assert here.left
    assert there.left


def test_a_word_that_makes_no_sense_changes_nothing() -> None:
    world = World()
    one, _ = hall(world, "a"), hall(world, "b")
    one.connect(DATA_TRANSFER, "b")
    world.run(1)
    (here,) = one.transfer.connections.values()
    for data in (b"", b"\x00", b"\x0a", GREETING, Cep(ENROLLMENT, "OEP", 1, 0, 0).encode()):
        one.connections.word(here.fd, data, world.now)
        one.connections.word(here.fd + 100, data, world.now)
    assert list(one.transfer.connections.values()) == [here]


def test_core_knows_of_what_type_it_is() -> None:
    world = World()
    core: Core = hall(world, "a").core
    assert core.broadcast
    assert not Member(world, "u").core.broadcast


# --- whole nodes


class Hall(Layer):
    """The broadcast layer `campus`, as a unicast one of that world. Each node has a program that joined."""

    kind = "broadcast"
    components = (DATA_TRANSFER,)

    def join(self) -> list[Flow]:
        return [node.program("program").join("campus").wait().flow for node in self.nodes]

    def broadcast(self, number: int) -> BroadcastIpcp:
        ipcp = self.nodes[number].irm.ipcps[self.ids[number]]
        assert isinstance(ipcp, BroadcastIpcp)
        return ipcp

    def exchange(self, flows: dict[int, Flow], round: int, seconds: float = 1.0) -> None:
        """Each says something, which all others get once, and nothing else."""
        for number, flow in flows.items():
            flow.write(b"%d says %d" % (number, round))
        self.network.run(seconds)
        for number, flow in flows.items():
            got = sorted(iter(flow.poll, None))
            assert got == sorted(b"%d says %d" % (other, round) for other in flows if other != number)


def edges(count: int, more: int, seed: int) -> list[tuple[int, int]]:
    """A tree, and so many connections more."""
    drawn = random.Random(seed)
    found = {(drawn.randrange(each), each) for each in range(1, count)}
    while len(found) < count - 1 + more:
        one, other = sorted(drawn.sample(range(count), 2))
        found.add((one, other))
    return sorted(found)


@pytest.mark.parametrize("seed", range(2))
def test_members_die_and_come_back_and_nobody_gets_anything_twice(seed: int) -> None:
    layer = Hall(edges(10, 6, seed), seed=seed, keepalive=1.0)
    flows = dict(enumerate(layer.join()))
    layer.exchange(flows, 0)
    # A member that enrolled with nobody that goes is asked by those that wish to be connected to it.
    gone = 9
    layer.nodes[gone].crash()
    del flows[gone]
    # Whoever is left is connected by others, or by nothing but the one that is gone.
    neighbours = {one for one, other in layer.edges if other == gone}
    assert neighbours
    layer.exchange(flows, 1)
    layer.network.run(60)
    states = [each.state for number in neighbours for each in layer.broadcast(number).details().connections]
    assert "silent" not in states
    number = layer.come(sorted(neighbours))
    flows[number] = layer.nodes[number].program("program").join("campus").wait().flow
    for round in range(2, 5):
        layer.exchange(flows, round)


def spoil(layer: Hall, drawn: random.Random) -> list[Callable[[], None]]:
    """Cut a connection, stop a node, or make what it sends lossy, while others go on; what takes that back."""
    one, other = drawn.sample(layer.nodes, 2)
    match drawn.choice(["cut", "pause", "impair"]):
        case "cut":
            layer.network.cut(one, other)
            return [lambda: layer.network.mend(one, other)]
        case "pause":
            one.pause()
            return [one.resume]
        case _:
            one.impair("loss=30%")
            return [lambda: one.impair(None)]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_cut_stopped_or_lossy_for_a_while_all_get_everything_once_afterwards(seed: int) -> None:
    drawn = random.Random(seed)
    layer = Hall(edges(6, drawn.randrange(4), seed), seed=seed, keepalive=1.0, delay=drawn.choice([0.001, 0.02]))
    flows = dict(enumerate(layer.join()))
    for round in range(3):
        back: list[Callable[[], None]] = []
        for _ in range(3):
            back += spoil(layer, drawn)
            # Some are missed meanwhile, and some not for long enough.
            layer.network.run(drawn.choice([0.05, 0.5, 2.0, 5.0, 40.0]))
            for number, flow in flows.items():
                if drawn.random() < 0.5:
                    flow.write(b"%d meanwhile %d %d" % (number, round, len(back)))
        for each in back:
            each()
        layer.network.run(60)
        for flow in flows.values():
            got = list(iter(flow.poll, None))
            assert len(set(got)) == len(got)
        layer.exchange(flows, round)


def test_a_layer_that_is_left_is_left_by_its_neighbours() -> None:
    layer = Hall([(0, 1), (1, 2), (0, 2)])
    flows = layer.join()
    layer.exchange(dict(enumerate(flows)), 0)
    layer.nodes[1].manage(DisconnectIpcp(layer.ids[1], DATA_TRANSFER, "m0")).wait()
    layer.network.run(5)
    assert [each.component for each in layer.broadcast(0).details().connections] == [DATA_TRANSFER]
    layer.exchange(dict(enumerate(flows)), 1)
    layer.nodes[2].manage(DestroyIpcp(layer.ids[2])).wait()
    layer.network.run(5)
    layer.exchange({0: flows[0]}, 2)
    with pytest.raises(FlowNameException):
        layer.nodes[2].program("program").join("campus").wait().value  # noqa: B018
    with pytest.raises(IpcpConnectError):
        layer.nodes[1].manage(DisconnectIpcp(layer.ids[1], DATA_TRANSFER, "m0")).wait().value  # noqa: B018


def test_a_layer_on_one_node_keeps_no_address() -> None:
    layer = Hall([])
    assert layer.broadcast(0).details().address == ""
    other = Hall([(0, 1)])
    assert other.broadcast(0).details().address != other.broadcast(1).details().address != ""
