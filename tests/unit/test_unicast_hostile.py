"""A member that lies, floods and forges, in a unicast layer of honest ones in virtual time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from random import Random

import pytest
from strangers import OURS, forged
from unicast_attack import messages, spoiled
from unicast_world import Layer, Liar, line, packet

from ouroboros.errors import OuroborosError
from ouroboros.layers.unicast.core import ALLOCATOR, DIRECTORY, PROBES
from ouroboros.layers.unicast.database import MOST_OF_ONE
from ouroboros.qos import QoSSpec
from ouroboros.testing.sim import Asked, Flow
from ouroboros.wire import udp
from ouroboros.wire.unicast import dht, flow
from ouroboros.wire.unicast.dht import Contact
from ouroboros.wire.unicast.lsu import LinkStateUpdate, Updates
from ouroboros.wire.unicast.probe import Probe

EVIL = 0x66666666


def addresses(layer: Layer) -> list[int]:
    return [layer.member(each).core.address for each in range(len(layer.nodes))]


def settled(edges: Iterable[tuple[int, int]]) -> Layer:
    layer = Layer(edges)
    layer.converge()
    layer.network.run(3.0)
    return layer


def exchange(layer: Layer, client: Flow, server: Flow, count: int, every: float = 0.01) -> int:
    """How many of so many packets come back, one after the other."""
    returned = 0
    for number in range(count):
        asked = struct.pack(">Q", number)
        client.offer(asked)
        layer.network.run(every)
        while (heard := server.poll()) is not None:
            server.offer(heard)
        layer.network.run(every)
        while (answer := client.poll()) is not None:
            returned += answer == asked
    return returned


def number_of(layer: Layer, ahead: int = 0) -> int:
    return (layer.network.wall // 10**9 + ahead) << 16


@pytest.mark.parametrize("ours", [True, False], ids=["node", "prototype"])
def test_whoever_says_that_he_has_our_addresses_moves_each_member_once_an_hour(ours: bool) -> None:
    """By announcements of their links, and by greetings with their addresses."""
    layer = settled(line(3))
    before = addresses(layer)
    for attempt in range(8):
        liar = Liar(layer, 1, EVIL, ours=ours)
        liar.join()
        for step in range(5):
            for each in addresses(layer):
                number = number_of(layer) + (1 << 30) + attempt * 100 + step
                liar.say(LinkStateUpdate(EVIL, each, number).encode())
            layer.network.run(1.5)
        taken = liar.flow()
        taken.offer(liar.greeting("Management", address=layer.member(1).core.address, ours=None).encode())
        layer.network.run(1.0)
    after = addresses(layer)
    assert all(one != other for one, other in zip(before, after, strict=True))
    moved = [sum("from now on" in text for text in node.warnings) for node in layer.nodes]
    assert moved == [1, 1, 1]
    assert layer.member(1).core.counters["moves_refused"] > 5
    layer.offer("clock", 0)
    layer.network.run(3.0)
    client, server = layer.flow("clock", 2, 0)
    assert exchange(layer, client, server, 20) == 20


#: The member in the middle is the neighbour of all, the liar's too.
STAR = [(0, 1), (0, 2), (0, 3)]


def held(layer: Layer, number: int) -> dict[str, int]:
    """What a member keeps because others said something."""
    member, node = layer.member(number), layer.nodes[number]
    return {
        "links": len(member.link_state.rows(0.0)),
        "names": len(member.directory.entries()),
        "lookups": len(member.directory._lookups),
        "notices": len(member.directory._publisher._notices),
        "requests": len(member._incoming._requested),
        "greetings": len(member.connections._greetings),
        "newcomers": len(member.enrollment._newcomers),
        "connections": len(member.connections.rows()),
        "probes": len(member.probes._of_sources),
        "flows": len(node.irm.flows.flows),
        "lines": len(node.warnings),
    }


#: The most of that.
BOUNDS = {
    "links": 8 + 2 * MOST_OF_ONE,
    "names": 4096,
    "lookups": 64,
    "notices": 4096,
    "requests": 4096,
    "greetings": 256,
    "newcomers": 256,
    "connections": 32,
    "probes": 1024,
    "flows": 300,
    "lines": 60,
}


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False], ids=["node", "prototype"])
def test_honest_members_go_on_beside_one_that_says_everything_wrong(ours: bool) -> None:
    """Each message with each field wrong, in the liar's own name and in those of all others, once and again."""
    layer = settled(STAR)
    liar = Liar(layer, 0, EVIL, ours=ours)
    liar.join()
    # What is said of the one that the liar talks to makes that one move once: before the others count.
    for step in range(4):
        liar.say(LinkStateUpdate(EVIL, addresses(layer)[0], number_of(layer) + step + (1 << 20)).encode())
    layer.network.run(3.0)
    layer.converge()
    layer.offer("clock", 1)
    layer.offer("late", 3)
    layer.network.run(3.0)
    client, server = layer.flow("clock", 2, 1)
    honest = [*addresses(layer), EVIL]
    said = returned = 0
    for source in (honest[2], EVIL):
        for message in messages(source, honest[1], layer.network.wall // 10**9):
            for number, data in enumerate(spoiled(message)):
                if message.eid < 0:
                    liar.say(data)
                else:
                    for destination in (honest[0], honest[1 + number % 3]):
                        liar.say(
                            packet(destination, message.eid, data[:1300], ttl=60 if number % 7 else 255),
                            "Data Transfer",
                        )
                said += 1
                if said % 32 == 0:
                    # No faster than it is read.
                    returned += exchange(layer, client, server, 1)
    assert returned == said // 32
    assert addresses(layer) == honest[:4]
    for each in range(4):
        kept = held(layer, each)
        assert all(kept[what] <= most for what, most in BOUNDS.items()), (each, kept)
    counters = layer.nodes[0].counters(layer.ids[0])
    told = ("lsus_malformed", "directory_malformed", "messages_malformed", "probes_malformed", "lsus_of_own_address")
    assert all(counters[each] for each in told), counters
    # Names are found and flows are made while nobody has recovered from anything.
    client, server = layer.flow("late", 1, 3)
    assert exchange(layer, client, server, 20) == 20
    layer.network.run(700.0)
    assert layer.network.balance().missing == 0


def test_what_newcomers_say_wrong_costs_one_flow_each() -> None:
    """Greetings and requests to enroll, on flows of their own."""
    layer = settled(line(2))
    layer.offer("clock", 0)
    liar = Liar(layer, 0)
    greetings, requests = [each for each in messages() if "greeting" in each.name], messages()[3]
    for greeting in greetings:
        for data in spoiled(greeting):
            flow = liar.flow()
            flow.offer(data[:1300])
            layer.network.run(0.01)
    for data in spoiled(requests):
        flow = liar.connect("Enrollment")
        flow.offer(data[:1300])
        layer.network.run(0.01)
    assert all(held(layer, 0)[what] <= most for what, most in BOUNDS.items())
    layer.network.run(10.0)
    kept = held(layer, 0)
    assert (kept["greetings"], kept["newcomers"]) == (0, 0)
    counters = layer.nodes[0].counters(layer.ids[0])
    assert counters["greetings_bad"] > 100
    client, server = layer.flow("clock", 1, 0)
    assert exchange(layer, client, server, 20) == 20


def served(layer: Layer, number: int, name: str) -> None:
    """A program there takes flows to that name, and lets go of them."""
    server = layer.nodes[number].program("server")
    accepting = server.accept(name)

    def take() -> None:
        nonlocal accepting
        if accepting.answer is not None:
            accepting.flow.dealloc()
            accepting = server.accept(name)
        layer.network.later(0.001, take)

    take()


def requested(layer: Layer, random: Random, name: str) -> bytes:
    """A request for a flow that is in order, from anybody."""
    asked = udp.decode(forged(OURS, random.getrandbits(40), layer.network.wall, name=name))
    assert isinstance(asked, udp.FlowRequest)
    digest = layer.member(0).digest(name)
    data = flow.encode(udp.FlowRequest(64 + random.getrandbits(40), QoSSpec(timeout=0), digest, asked.oap), 0x70000000)
    return random.getrandbits(31).to_bytes(8) + data[8:]


def flooded(layer: Layer, liar: Liar, kind: str, rate: int, seconds: float) -> None:
    """So many messages a second, in the names of thousands."""
    random = Random(1)
    target, wall = addresses(layer)[0], layer.network.wall // 10**9

    def contact() -> Contact:
        return Contact(random.randbytes(32), random.choice(addresses(layer)[1:]))

    makers: dict[str, Callable[[], tuple[int, bytes]]] = {
        "updates": lambda: (
            -1,
            Updates(
                random.getrandbits(32),
                tuple(
                    LinkStateUpdate(random.getrandbits(31) | 1 << 20, each, (wall << 16) + random.getrandbits(20))
                    for each in [*addresses(layer), EVIL]
                ),
            ).encode(),
        ),
        "single updates": lambda: (-1, LinkStateUpdate(EVIL, 1 << 20 | random.getrandbits(31), wall << 16).encode()),
        "stores": lambda: (
            DIRECTORY,
            dht.Store(it := contact(), random.randbytes(32), it.address, wall + 600).encode(),
        ),
        "disowned names": lambda: (DIRECTORY, dht.Store(contact(), random.randbytes(32), target, wall + 600).encode()),
        "questions": lambda: (
            DIRECTORY,
            dht.FindValue(contact(), random.getrandbits(64), random.randbytes(32)).encode(),
        ),
        "requests": lambda: (ALLOCATOR, requested(layer, random, "clock")),
        "requests that wait": lambda: (ALLOCATOR, requested(layer, random, "slow")),
        "requests for nothing": lambda: (ALLOCATOR, requested(layer, random, "nothing")),
        "notices": lambda: (
            ALLOCATOR,
            flow.encode(udp.FlowDealloc(random.getrandbits(60) | 64, random.getrandbits(60) | 64, died=True), EVIL),
        ),
        "probes": lambda: (
            PROBES,
            Probe(random.getrandbits(64), random.choice(addresses(layer)[1:]), target, 1.0, 0, ()).encode(),
        ),
    }
    made = [makers[kind]() for _ in range(1000)]

    def say(number: int) -> None:
        eid, data = made[number % len(made)]
        if eid < 0:
            liar.connections["Management"].offer(data)
        else:
            liar.connections["Data Transfer"].offer(packet(target, eid, data))
        if number < rate * seconds:
            layer.network.later(1 / rate, lambda: say(number + 1))

    say(0)


FLOODS = ["updates", "single updates", "stores", "disowned names", "questions", "requests", "requests that wait"]
FLOODS += ["requests for nothing", "notices", "probes"]


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_by_one_neighbour_costs_others_at_most_a_fifth_of_their_control_messages(kind: str) -> None:
    """Others ask for flows, register names and look them up meanwhile, each once: what is lost is not said again within the
    time that they have."""
    layer = settled(STAR)
    for name, number in (("clock", 0), ("slow", 0), ("far", 3)):
        layer.offer(name, number)
    layer.network.run(3.0)
    served(layer, 0, "clock")
    served(layer, 3, "far")
    liar = Liar(layer, 0)
    liar.join()
    flooded(layer, liar, kind, 4_000, 2.0)
    layer.network.run(0.7)
    asked: list[Asked] = []
    for number in range(16):
        client = layer.nodes[1 + number % 2].program("client")
        layer.offer(f"new{number}", 1 + number % 2)
        asked.append(client.alloc("clock", timeout=0.5))
        asked.append(client.alloc("far", timeout=0.5))
        layer.network.run(0.05)
    layer.network.run(0.5)
    assert sum(succeeded(each) for each in asked) >= 0.8 * len(asked)
    keeper = layer.member(0)
    known = [keeper.directory._known(keeper.digest(f"new{number}")) for number in range(16)]
    assert sum(bool(each) for each in known) >= 0.8 * len(known)


def succeeded(asked: Asked) -> bool:
    try:
        return asked.flow is not None
    except OuroborosError:
        return False
