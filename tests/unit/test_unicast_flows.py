"""Flows between members of a unicast layer: whom they ask, in which order, how often, and what is said in which form."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from ouroboros.errors import FlowException, OuroborosError, ProtocolError
from ouroboros.layers.effects import SendPdu
from ouroboros.layers.face import Host, Size, Task
from ouroboros.layers.flows.core import PATIENCE
from ouroboros.layers.flows.incoming import REQUESTS_OF_FLOW, REQUESTS_OF_ONE, Incoming
from ouroboros.layers.members.connections import Connection
from ouroboros.layers.members.core import ALLOCATOR, Core
from ouroboros.layers.members.upkeep import FIRST_PAUSE, LONGEST_PAUSE, Upkeep, Wish
from ouroboros.layers.unicast.adjacencies import Adjacencies
from ouroboros.layers.unicast.allocator import FlowsCore, Names, cube_of
from ouroboros.oap import Session
from ouroboros.qos import NAMED_SPECS, QOS_RAW, QoSSpec
from ouroboros.settings import DirectoryHashAlgo, UnicastSettings
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import FlowDealloc, FlowReply, FlowRequest
from ouroboros.wire.unicast import flow

OWN = 0x1FD48C8B


@dataclass
class Lookup:
    """A directory that answers at once."""

    known: dict[bytes, tuple[int, ...]] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)

    def query(self, digest: bytes, token: int, answer: Any, now: float) -> None:
        answer(token, self.known.get(digest, ()), now)

    def cancel(self, token: int) -> None:
        self.cancelled.append(token)

    def forget(self, digest: bytes) -> None:
        """It keeps nothing."""


class Routes(dict[int, int]):
    """Distances by address."""

    def distance(self, address: int) -> int | None:
        return self.get(address)

    def ours(self, address: int) -> bool:
        return address == 0xC

    def least(self, address: int) -> Size | None:
        return {0xC: Size(1200, 900), 0xD: Size(9000, 1500)}.get(address)

    def members(self) -> dict[int, bool]:
        return {address: self.ours(address) for address in self if address != OWN}


class World:
    """What a member asks and says."""

    def __init__(self, size: int = 1400) -> None:
        host = Host([], random.Random(1), lambda: 0, *[None] * 3)  # type: ignore[arg-type]
        self.member = Core(1, "m0", host)
        self.member.layer, self.member.address = "campus", OWN
        self.lookup, self.routes = Lookup(), Routes()
        self.names = Names(self.member, lambda: Size(size, size))
        self.names.begin(self.lookup, self.routes)
        self.core = FlowsCore(self.member, self.names)
        self.names.found = lambda token, addresses, now: self.answers.append(addresses)
        self.answers: list[tuple[Any, ...]] = []

    def ask(self, name: str) -> tuple[Any, ...]:
        assert self.names.find(name, 7, 0.0) is None
        return self.answers.pop()


@pytest.fixture
def world() -> World:
    return World()


def test_the_nearest_is_asked_first_and_of_those_as_near_another_each_time(world: World) -> None:
    world.lookup.known[world.core.digest("x")] = (0xA, 0xB, 0xC, 0xD)
    world.routes.update({0xA: 3, 0xB: 1, 0xC: 3, 0xD: 3})
    orders = [world.ask("x") for _ in range(4)]
    assert orders == [
        (0xB, 0xA, 0xC, 0xD),
        (0xB, 0xC, 0xD, 0xA),
        (0xB, 0xD, 0xA, 0xC),
        (0xB, 0xA, 0xC, 0xD),
    ]


def test_the_turns_of_two_names_do_not_disturb_each_other(world: World) -> None:
    for name in ("x", "y"):
        world.lookup.known[world.core.digest(name)] = (0xA, 0xB)
    world.routes.update({0xA: 1, 0xB: 1})
    first = [(world.ask("x")[0], world.ask("y")[0]) for _ in range(4)]
    assert first == [(0xA, 0xA), (0xB, 0xB), (0xA, 0xA), (0xB, 0xB)]


def test_members_to_which_no_way_leads_are_not_asked_and_neither_are_we(world: World) -> None:
    world.lookup.known[world.core.digest("x")] = (OWN, 0xA, 0xB, 0xA)
    world.routes.update({OWN: 0, 0xB: 2})
    assert world.ask("x") == (0xB,)


def test_advice_says_what_is_missing(world: World) -> None:
    assert world.ask("x") == ()
    assert "no member of layer 'campus' has it; `irm name register x layer campus`" in world.names.advice("x", ())
    world.lookup.known[world.core.digest("x")] = (0x0D0C0B0A,)
    assert world.ask("x") == ()
    assert "registered in layer 'campus' at 0a.0b.0c.0d, to which no way leads" in world.names.advice("x", ())
    assert world.names.advice("x", [0x0D0C0B0A]).startswith(
        "it was registered in layer 'campus' at 0a.0b.0c.0d, and nobody"
    )
    alone = World(size=0)
    assert alone.ask("x") == ()
    assert "'m0' has no neighbour in layer 'campus'; `irm ipcp connect name m0 dst" in alone.names.advice("x", ())


@pytest.mark.parametrize("algorithm", DirectoryHashAlgo)
def test_a_request_has_the_room_that_the_hash_of_its_name_leaves(world: World, algorithm: DirectoryHashAlgo) -> None:
    world.member.settings = UnicastSettings(algorithm)
    assert world.core.request_room == 1987 - {0: 28, 1: 32, 2: 48, 3: 64}[algorithm]
    assert world.core.reply_room == 1987


def test_endpoint_ids_are_random_but_for_an_index_that_is_used_once(world: World) -> None:
    eids = [world.core.draw_eid() for _ in range(70_000)]
    assert len(set(eids)) == len(eids)
    assert all(flow.FIRST_EID <= eid < flow.NO_EID for eid in eids)
    assert len({eid % 2**20 for eid in eids[: 2**16]}) == 2**16
    assert len({eid >> 20 for eid in eids}) > 69_000


def test_a_member_is_ours_once_it_has_proven_it(world: World) -> None:
    stranger = world.core.patience(0xA)
    assert (stranger.pause, stranger.most) == (3.0, 3)
    world.core.ours.note(0xA)
    assert world.core.patience(0xA) == PATIENCE
    assert world.core.patience(0xB) == stranger
    assert world.core.patience(0xC) == PATIENCE


@pytest.mark.parametrize("blob", [None, Extension(extension.RETRY, 1400, 4096, bytes(16))], ids=["prototype", "ours"])
def test_no_member_is_a_stranger(world: World, blob: Extension | None) -> None:
    assert world.core.is_proven(0xA, blob)
    # Messages have no room for cookies and checks, so none are said to be there.
    assert not world.core.knows_checks(blob)
    assert not world.core.extension(bytes(16), 0xA, crc=False).has(extension.RETRY)


def test_one_member_has_a_part_of_the_requests_that_are_looked_at(world: World) -> None:
    incoming, (rate, burst) = Incoming(world.core), REQUESTS_OF_ONE
    request = FlowRequest(1 << 20, QOS_RAW, bytes(32), b"no handshake")

    def taken(count: int, address: int, now: float) -> int:
        before = world.core.counters["messages_malformed"]
        for number in range(count):
            incoming.requested(request, number.to_bytes(4), address, now)
        return world.core.counters["messages_malformed"] - before

    assert taken(5000, 0xA, 0.0) == burst
    assert taken(100, 0xB, 0.0) == 100
    assert taken(5000, 0xA, 0.5) == rate * 0.5


def test_a_neighbour_that_invents_senders_leaves_a_part_of_the_requests_to_others(world: World) -> None:
    incoming, (rate, burst) = Incoming(world.core), REQUESTS_OF_FLOW
    request = FlowRequest(1 << 20, QOS_RAW, bytes(32), b"no handshake")

    def taken(count: int, fd: int, now: float) -> int:
        before = world.core.counters["messages_malformed"]
        for number in range(count):
            incoming.requested(request, number.to_bytes(4), 0xA + number % 200, now, via=fd)
        return world.core.counters["messages_malformed"] - before

    assert taken(5000, 7, 0.0) == burst
    assert taken(100, 8, 0.0) == 100
    assert taken(5000, 7, 0.5) == rate * 0.5


def test_of_very_many_members_the_last_are_known(world: World) -> None:
    for address in range(1, 5001):
        world.core.ours.note(address)
    assert 5000 in world.core.ours
    assert 1 not in world.core.ours


def test_messages_go_to_the_allocator_of_a_member_and_say_where_from_as_far_as_the_prototype_does(world: World) -> None:
    world.core.send(0xA, world.core.encode(FlowDealloc(64, 65)))
    (sent,) = world.member.host.effects
    assert sent == SendPdu(1, 0xA, ALLOCATOR, flow.encode(FlowDealloc(64, 65), OWN))
    assert world.core.encode(FlowReply(64, 65, 0, b""))[:8] == bytes(8)


def test_a_message_in_our_own_name_is_refused(world: World) -> None:
    data = flow.encode(FlowDealloc(64, 65), OWN)
    with pytest.raises(ProtocolError, match="our own"):
        world.core.decode(data)


@pytest.mark.parametrize(
    ("delay", "bandwidth", "availability", "max_gap", "cube"),
    [(50, 100_000, 5, 50, 2), (50, 100_001, 5, 50, 1), (51, 0, 5, 50, 1), (100, 0, 3, 101, 0), (0, 0, 0, 0, 0)],
)
def test_packets_travel_in_the_cube_of_their_flow(
    world: World, delay: int, bandwidth: int, availability: int, max_gap: int, cube: int
) -> None:
    qos = QoSSpec(delay=delay, bandwidth=bandwidth, availability=availability, max_gap=max_gap)
    end = world.names.end(
        ipcp=1, qos=qos, session=Session(None, 0, bytearray()), eid=64, peer_eid=65, address=0xA, extension=None
    )
    assert (end.cube, end.destination, end.peer()) == (cube, 0xA, ("0a.00.00.00", "prototype"))


def test_the_named_specs_have_the_cubes_of_the_prototype() -> None:
    cubes = {word: cube_of(qos) for word, qos in NAMED_SPECS.items()}
    assert cubes == {"raw": 0, "best": 0, "video": 1, "voice": 2, "data": 0}


# --- connections that are wanted


class Neighbour:
    """Whom connections are asked of."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.upkeep = Upkeep(self._connect)

    def _connect(self, wish: Wish, qos: QoSSpec, task: Task, now: float) -> None:
        assert (wish, qos) == (WISH, QOS_RAW)
        self.tasks.append(task)

    def attempts(self, until: float) -> list[float]:
        """When it was asked; each attempt fails."""
        times = []
        while (when := self.upkeep.deadline()) is not None and when <= until:
            self.upkeep.timeout(when)
            while self.tasks:
                times.append(when)
                self.tasks.pop().failed(FlowException("nobody is there"))
        return times


WISH = Wish("Management", "m1")


def test_a_lost_connection_is_asked_for_with_growing_pauses() -> None:
    neighbour = Neighbour()
    neighbour.upkeep.want(WISH, QOS_RAW)
    neighbour.upkeep.lost(WISH, 10.0)
    times = neighbour.attempts(200.0)
    pauses = [later - earlier for earlier, later in zip([10.0, *times], times, strict=False)]
    assert pauses[:6] == [FIRST_PAUSE * 2**i for i in range(6)]
    assert set(pauses[6:]) == {LONGEST_PAUSE}
    assert neighbour.upkeep.missing == [WISH]


def test_one_that_is_there_again_is_asked_for_no_more() -> None:
    neighbour = Neighbour()
    neighbour.upkeep.want(WISH, QOS_RAW)
    neighbour.upkeep.lost(WISH, 0.0)
    neighbour.upkeep.timeout(FIRST_PAUSE)
    neighbour.tasks.pop().done()
    assert neighbour.upkeep.missing == []
    assert neighbour.attempts(1000.0) == []


def test_one_that_is_there_by_another_way_when_it_is_asked_for_is_asked_for_no_more() -> None:
    upkeep = Upkeep(lambda wish, qos, task, now: task.done())
    upkeep.want(WISH, QOS_RAW)
    upkeep.lost(WISH, 0.0)
    upkeep.timeout(FIRST_PAUSE)
    assert (upkeep.missing, upkeep.deadline()) == ([], None)


@pytest.mark.parametrize("wanted", [True, False])
def test_one_that_is_not_wanted_is_not_asked_for(wanted: bool) -> None:
    neighbour = Neighbour()
    if wanted:
        neighbour.upkeep.want(WISH, QOS_RAW)
        neighbour.upkeep.lost(WISH, 0.0)
    assert neighbour.upkeep.drop(WISH) is wanted
    neighbour.upkeep.lost(WISH, 0.0)
    assert neighbour.attempts(1000.0) == []


def test_one_that_was_dropped_while_it_was_asked_for_stays_dropped() -> None:
    neighbour = Neighbour()
    neighbour.upkeep.want(WISH, QOS_RAW)
    neighbour.upkeep.lost(WISH, 0.0)
    neighbour.upkeep.timeout(FIRST_PAUSE)
    neighbour.upkeep.drop(WISH)
    neighbour.tasks.pop().failed(OuroborosError("late"))
    assert neighbour.attempts(1000.0) == []
    assert neighbour.upkeep.missing == []


# --- neighbours


def connection(fd: int, address: int, size: int = 1400) -> Connection:
    return Connection(
        fd=fd,
        component="Data Transfer",
        name="m1",
        side=0,
        address=address,
        ours=True,
        rank=1,
        size=Size(size, size - 100),
        since=0.0,
    )


def test_a_neighbour_is_up_as_long_as_one_of_its_connections_is() -> None:
    told: list[tuple[str, int]] = []
    adjacencies = Adjacencies(
        lambda address, now: told.append(("up", address)),
        lambda address, now: told.append(("down", address)),
        lambda address, size, now: None,
    )
    one, other, third = connection(1, 0xA), connection(2, 0xA), connection(3, 0xB)
    for each in (one, other, third):
        adjacencies.connected(each, 0.0)
    adjacencies.state(one, False, 1.0)
    adjacencies.disconnected(one, 1.0)
    adjacencies.state(one, True, 1.0)
    assert told == [("up", 0xA), ("up", 0xB)]
    adjacencies.state(other, False, 2.0)
    adjacencies.state(other, False, 2.0)
    adjacencies.state(other, True, 3.0)
    adjacencies.disconnected(other, 4.0)
    assert told[2:] == [("down", 0xA), ("up", 0xA), ("down", 0xA)]
    assert adjacencies.neighbours == [0xB]


def test_packets_are_as_long_as_all_connections_carry() -> None:
    told: list[tuple[int | str, Size | int]] = []
    adjacencies = Adjacencies(
        lambda address, now: told.append(("up", address)),
        lambda address, now: None,
        lambda address, size, now: told.append((address, size)),
    )
    assert adjacencies.size == Size(0, 0)
    wide, narrow = connection(1, 0xA, 9000), connection(2, 0xB, 1400)
    for each in (wide, narrow):
        adjacencies.connected(each, 0.0)
    assert adjacencies.size == Size(1400 - 15, 1300 - 15)
    # A neighbour is up when its size has been told.
    assert told == [(0xA, Size(8985, 8885)), ("up", 0xA), (0xB, Size(1385, 1285)), ("up", 0xB)]
    adjacencies.connected(connection(3, 0xA, 2000), 0.0)
    adjacencies.disconnected(narrow, 0.0)
    assert adjacencies.size == Size(2000 - 15, 1900 - 15)
    wide.size = Size(1000, 500)
    adjacencies.measure(0.0)
    assert told[4:] == [(0xA, Size(1985, 1885)), (0xA, Size(985, 485))]


def test_a_blob_tells_what_the_own_ways_and_all_links_of_the_path_carry(world: World) -> None:
    said = [world.core.extension(bytes(16), address, crc=False) for address in (0xB, 0xC, 0xD)]
    assert [(each.max_packet, each.whole) for each in said] == [(1400, 1400), (1200, 900), (1400, 1400)]
