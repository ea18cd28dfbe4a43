"""Who is on the way: the component of one member; networks in virtual time, of one layer, and of four over each other."""

from __future__ import annotations

import random
from typing import Any

import pytest
from unicast_world import COMPONENTS, Layer, line, ring

from ouroboros.errors import FlowNameException
from ouroboros.layers.effects import SendPdu, written_address
from ouroboros.layers.face import ALL_THE_WAY, Host, Posts, Seen, Step, Task
from ouroboros.layers.members.core import PROBES, Core
from ouroboros.layers.unicast.probes import MOST_RELAYED, MOST_WAITING, OF_ALL, OF_SOURCE, Probes
from ouroboros.wire.control import CreateIpcp, DestroyIpcp, EnrollIpcp, HopEntry, ProbeName
from ouroboros.wire.unicast import probe as wire
from ouroboros.wire.unicast.probe import Answer, Probe

OWN, OURS, FAR, PROTOTYPE, NOWHERE = 0x10001, 0x20002, 0x30003, 0x40004, 0x50005
#: For what is told behind something.
SETTLED = 1.0


class Ways:
    """Routing, and the layer below. `below`: what was asked there, and who is to be told."""

    def __init__(self) -> None:
        self.distances = {OWN: 0, OURS: 1, FAR: 3, PROTOTYPE: 2}
        self.below: list[tuple[int, tuple[Step, ...], float, Any]] = []

    def distance(self, address: int) -> int | None:
        return self.distances.get(address)

    def ours(self, address: int) -> bool:
        return address != PROTOTYPE

    def next_flow(self, target: int, via: int) -> int | None:
        return {0: 11, OURS: 12}.get(via)

    def probe(self, ipcp: int, fd: int, steps: tuple[Step, ...], wait: float, answer: Any, now: float) -> None:
        self.below.append((fd, steps, wait, answer))


class World:
    """A member."""

    def __init__(self) -> None:
        self.ways = Ways()
        self.host = Host([], random.Random(1), lambda: 0, *[None] * 3)  # type: ignore[arg-type]
        self.host.lower = self.ways  # type: ignore[assignment]
        self.core = Core(1, "m0", self.host)
        self.core.layer, self.core.address = "campus", OWN
        self.probes = Probes(self.core, self.ways)
        self.posts = Posts()
        self.seen: list[Seen] = []

    def ask(self, target: int, *steps: Step, now: float = 0.0) -> None:
        self.probes.probe(target, steps, 1.0, Task(self.posts, self._told), now)
        self.posts.settle()

    def _told(self, outcome: object) -> None:
        assert isinstance(outcome, Seen)
        self.seen.append(outcome)

    def hear(self, message: Probe | Answer | bytes, now: float = 0.0, *, fd: int = 7) -> None:
        self.probes.heard(message if isinstance(message, bytes) else message.encode(), fd, now)
        self.posts.settle()

    def said(self) -> list[SendPdu]:
        effects, self.host.effects[:] = [*self.host.effects], []
        assert all(isinstance(each, SendPdu) and each.eid == PROBES for each in effects)
        return effects  # type: ignore[return-value]

    def count(self, name: str) -> int:
        return self.core.counters[f"probes_{name}"]


@pytest.fixture
def world() -> World:
    return World()


# --- one member


def test_a_probe_is_sent_so_far_and_its_answer_measured(world: World) -> None:
    world.ask(FAR, Step(2), now=5.0)
    (sent,) = world.said()
    assert (sent.destination, sent.ttl) == (FAR, 2)
    asked = wire.decode(sent.data)
    assert isinstance(asked, Probe)
    assert (asked.source, asked.target, asked.steps) == (OWN, FAR, ())
    world.hear(Answer(asked.id, False, True, 1, OURS, True, layer="campus", type="unicast", member="m1"), 5.25)
    (seen,) = world.seen
    assert seen == Seen(HopEntry(2, "campus", "unicast", 1, "m1", round_trip=0.25), 5.25, False, OURS, True)
    # Nobody waits for it any more.
    world.hear(Answer(asked.id, False, True), 5.5)
    assert (len(world.seen), world.count("unasked"), world.probes.deadline()) == (1, 1, None)


def test_no_answer_is_silence(world: World) -> None:
    world.ask(FAR, Step(2))
    assert world.probes.deadline() == 1.0
    world.probes.timeout(1.0)
    world.posts.settle()
    (seen,) = world.seen
    assert (seen.entry.state, seen.entry.hop, seen.end, seen.when) == ("silent", 2, False, 1.0)


def test_a_member_of_the_prototype_is_passed_and_never_reached(world: World) -> None:
    world.ask(PROTOTYPE, Step(1))
    assert [each.ttl for each in world.said()] == [1]
    for ttl in (2, 3, ALL_THE_WAY):
        world.ask(PROTOTYPE, Step(ttl))
        assert world.said() == []
        seen = world.seen.pop()
        assert (seen.end, seen.entry.hop, seen.entry.state) == (True, 2, "silent")
        assert seen.entry.address == written_address(PROTOTYPE)


def test_what_no_way_leads_to_is_not_asked(world: World) -> None:
    world.ask(NOWHERE, Step(1))
    world.ask(OWN, Step(1))
    assert world.said() == []
    assert [(seen.end, seen.entry.state, seen.entry.member) for seen in world.seen] == [
        (True, "silent", ""),
        (True, "answered", "m0"),
    ]


def test_an_answer_is_as_long_as_its_probe_and_goes_to_who_asked(world: World) -> None:
    for target in (OWN, FAR):
        probe = Probe(9, OURS, target, 1.0).encode()
        world.hear(probe)
        (sent,) = world.said()
        assert (sent.destination, len(sent.data), sent.ttl) == (OURS, len(probe), 0)
        answer = wire.decode(sent.data)
        assert isinstance(answer, Answer)
        assert (answer.id, answer.end, answer.member, answer.at) == (9, target == OWN, "m0", OWN)


@pytest.mark.parametrize("source", [PROTOTYPE, NOWHERE, OWN])
def test_nobody_is_answered_who_may_not_be_ours(world: World, source: int) -> None:
    for steps in ((), ((1, 0),)):
        world.hear(Probe(9, source, OWN, 1.0, steps=steps))
    assert (world.said(), world.ways.below, world.count("refused")) == ([], [], 2)


def test_garbage_is_counted(world: World) -> None:
    for data in (b"", b"\1" * 14, bytes(wire.LENGTH), Probe(1, OURS, OWN, 1.0).encode() + b"x"):
        world.hear(data)
    assert (world.said(), world.count("malformed")) == ([], 4)


def test_a_source_is_answered_so_often_by_each_way_and_all_so_often(world: World) -> None:
    def flood(source: int, fd: int, count: int) -> int:
        for _ in range(count):
            world.hear(Probe(9, source, OWN, 1.0), fd=fd)
        return len(world.said())

    burst, all_of_them = int(OF_SOURCE[1]), int(OF_ALL[1])
    assert flood(OURS, 1, 2 * burst) == burst
    # Somebody who says that he is that source comes by another way, and takes nothing from it.
    assert flood(OURS, 2, 2 * burst) == burst
    assert flood(FAR, 1, 2 * burst) == burst
    rest = sum(flood(OURS, fd, burst) for fd in range(3, 20))
    assert rest == all_of_them - 3 * burst
    assert world.count("limited") == 3 * burst + 17 * burst - rest
    world.hear(Probe(9, OURS, OWN, 1.0), 100.0, fd=1)
    assert len(world.said()) == 1


def test_with_steps_the_layer_below_is_asked_and_its_answer_passed_on(world: World) -> None:
    world.hear(Probe(9, OURS, FAR, 1.0, OURS, ((2, 5), (1, 0))))
    (fd, steps, wait, answer), world.ways.below[:] = world.ways.below[0], []
    assert (fd, steps, wait, world.said()) == (12, (Step(2, 5), Step(1)), 0.75, [])
    answer(Seen(HopEntry(2, "net", "unicast", 1, "x", "a.b", round_trip=0.125), 3.0, True, 77, True))
    (sent,) = world.said()
    told = wire.decode(sent.data)
    assert told == Answer(9, True, True, 1, 77, True, True, 0.125, "net", "unicast", "x", "a.b")
    # And who asked takes the time from there.
    world.ask(FAR, Step(1), Step(2))
    (sent,) = world.said()
    asked = wire.decode(sent.data)
    assert isinstance(told, Answer)
    world.hear(Answer(asked.id, True, True, 1, 77, True, True, 0.125, "net", "unicast", "x", "a.b"), 0.5)
    assert world.seen[-1].entry.round_trip == 0.125


def test_own_lower_flows_are_looked_at_without_a_packet(world: World) -> None:
    world.ask(FAR, Step(0, OURS), Step(1))
    world.ask(FAR, Step(0), Step(0), Step(ALL_THE_WAY))
    world.ask(FAR, Step(0, 99), Step(1))
    assert world.said() == []
    assert [each[:2] for each in world.ways.below] == [(12, (Step(1),)), (11, (Step(0), Step(ALL_THE_WAY)))]
    assert [seen.entry.state for seen in world.seen] == ["silent"]


def test_what_waits_is_bounded(world: World) -> None:
    for each in range(MOST_RELAYED + 5):
        world.hear(Probe(9, OURS, FAR, 1.0, OURS, ((1, 0),)), 100.0 * each)
    assert (len(world.ways.below), world.count("limited")) == (MOST_RELAYED, 5)
    for _ in range(MOST_WAITING + 5):
        world.ask(FAR, Step(1))
    assert len(world.seen) == 5


def test_whoever_leaves_leaves_nobody_waiting(world: World) -> None:
    world.ask(FAR, Step(1))
    world.probes.close(0.5)
    world.posts.settle()
    world.ask(FAR, Step(1), now=0.6)
    assert [(seen.end, seen.entry.state, seen.when) for seen in world.seen] == [
        (True, "silent", 0.5),
        (True, "silent", 0.6),
    ]


# --- networks


def hops(layer: Layer, name: str, *, trace: bool, over: str | None = None, asking: int = 0) -> list[HopEntry]:
    found = layer.nodes[asking].manage(ProbeName(name, over, trace, 1.0)).wait().value
    assert isinstance(found, list)
    return found


def serving(edges: Any, far: int) -> Layer:
    layer = Layer(edges)
    layer.converge()
    layer.offer("web", far)
    layer.network.run(SETTLED)
    return layer


def test_a_trace_shows_each_hop_and_the_flow_that_carries_it() -> None:
    layer = serving(line(6), 5)
    found = hops(layer, "web", trace=True)
    delay = layer.network.delay / 1e9
    expected = []
    for hop in range(1, 6):
        address = written_address(layer.member(hop).core.address)
        expected += [
            ((), hop, "campus", 1, f"m{hop}", address, "answered"),
            ((hop,), 1, "net", 0, "", f"{layer.nodes[hop].address}:3435", "unasked"),
        ]
    shown = [(hop.within, hop.hop, hop.layer, hop.rank, hop.member, hop.address, hop.state) for hop in found]
    assert shown == expected
    times = [hop.round_trip for hop in found if not hop.within]
    assert times == pytest.approx([2 * delay * hop for hop in range(1, 6)], rel=0.01)


def test_a_ping_is_answered_by_the_end_in_each_layer() -> None:
    layer = serving(ring(5), 2)
    end, first = hops(layer, "web", trace=False)
    assert (end.member, end.hop, end.within, end.state) == ("m2", 2, (), "answered")
    assert end.round_trip == pytest.approx(4 * layer.network.delay / 1e9, rel=0.01)
    assert (first.layer, first.within, first.state, first.round_trip) == ("net", (1,), "unasked", None)


def test_a_member_of_the_prototype_on_the_way_is_a_star_and_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = serving(line(4), 3)
    silent = layer.member(2)
    said: list[bytes] = []
    # In its place, members of the prototype drop what has no TTL left, and it is not known as ours.
    monkeypatch.setattr(silent.probes, "heard", lambda data, fd, now: said.append(data))
    stranger = silent.core.address
    for number in (0, 1, 3):
        monkeypatch.setattr(layer.member(number).probes._routes, "ours", lambda address: address != stranger)
    found = [hop for hop in hops(layer, "web", trace=True) if not hop.within]
    assert [(hop.member, hop.state) for hop in found] == [("m1", "answered"), ("", "silent"), ("m3", "answered")]
    assert len(said) == 2, "what had no TTL left"
    said.clear()
    layer.offer("there", 2)
    layer.network.run(SETTLED)
    *_, last = [hop for hop in hops(layer, "there", trace=True) if not hop.within]
    assert (last.state, last.address) == ("silent", written_address(stranger))
    assert said == [], "a probe that would have ended there"


def stacked() -> Layer:
    """The layers `net` of nodes 0 to 3, `campus` over it, `top` over that with members on 0, 2 and 3, `sky` over that with
    members on 0 and 3; a name there at the last one."""
    layer = serving(line(4), 3)
    below = dict(enumerate(layer.ids))
    for name, members in (("top", (0, 2, 3)), ("sky", (0, 3))):
        ids: dict[int, int] = {}
        before: int | None = None
        for number in members:
            node = layer.nodes[number]
            if before is None:
                ids[number] = node.add_ipcp("unicast", name, name=f"{name}{number}")
            else:
                ids[number] = int(node.manage(CreateIpcp(f"{name}{number}", "unicast")).value)  # type: ignore[call-overload]
                node.manage(EnrollIpcp(ids[number], f"{name}{before}")).wait().value  # noqa: B018 - or its error
                for component in COMPONENTS:
                    layer.connect_ipcp(node, ids[number], component, f"{name}{before}").wait().value  # noqa: B018
            layer.make_known(node, ids[number], f"{name}{number}", below[number])
            layer.network.run(SETTLED)
            before = number
        below = ids
    layer.nodes[3].offer("high", below[3])
    layer.network.run(5 * SETTLED)
    return layer


def test_all_ranks_are_shown() -> None:
    layer = stacked()
    ends = [(hop.layer, hop.rank, hop.member, hop.hop, hop.within) for hop in hops(layer, "high", trace=False)]
    assert ends == [
        ("sky", 3, "sky3", 1, ()),
        ("top", 2, "top3", 2, (1,)),
        ("campus", 1, "m2", 2, (1, 1)),
        ("net", 0, "", 1, (1, 1, 1)),
    ]
    found = hops(layer, "high", trace=True)
    members = {(*hop.within, hop.hop): hop.member or hop.address for hop in found}
    assert members == {
        (1,): "sky3",
        (1, 1): "top2",
        (1, 1, 1): "m1",
        (1, 1, 1, 1): "10.0.0.2:3435",
        (1, 1, 2): "m2",
        (1, 1, 2, 1): "10.0.0.3:3435",
        (1, 2): "top3",
        (1, 2, 1): "m3",
        (1, 2, 1, 1): "10.0.0.4:3435",
    }
    assert list(members) == sorted(members)
    # From m1 to m2 it is one link, though m1 is not where the trace began.
    times = {(*hop.within, hop.hop): hop.round_trip for hop in found}
    link = 2 * layer.network.delay / 1e9
    assert times[1, 1, 2] == pytest.approx(2 * link, rel=0.01)
    assert times[1, 2, 1] == pytest.approx(link, rel=0.01)


def test_names_of_this_node_and_none_at_all() -> None:
    layer = serving(line(2), 1)
    layer.offer("mine", 0)
    (here,) = hops(layer, "mine", trace=True)
    assert (here.hop, here.address, here.member) == (0, "this node", "m0")
    with pytest.raises(FlowNameException, match="no member of layer 'campus' has it"):
        hops(layer, "absent", trace=False)
    with pytest.raises(FlowNameException, match=r"in no layer 'nowhere'; it is in 'campus', 'net'"):
        hops(layer, "web", trace=False, over="nowhere")
    with pytest.raises(FlowNameException, match="cannot tell where a name is"):
        hops(layer, "web", trace=False, over="net")
    # What a table of peers has is one hop.
    (peer,) = hops(layer, "m0", trace=False, over="net", asking=1)
    assert (peer.address, peer.state, peer.hop) == (f"{layer.nodes[0].address}:3435", "unasked", 1)


def test_nobody_waits_for_a_name_in_a_layer_that_is_destroyed() -> None:
    layer = serving(line(3), 2)
    node = layer.nodes[0]
    asked = node.manage(ProbeName("absent", "campus", False, 1.0))
    assert asked.answer is None
    node.manage(DestroyIpcp(layer.ids[0]))
    with pytest.raises(FlowNameException, match="'absent' was not found: the layer 'campus' was destroyed"):
        _ = asked.wait().value


def test_a_way_that_breaks_is_shown_as_far_as_it_goes() -> None:
    layer = serving(line(5), 4)
    layer.nodes[2].impair("partition")
    found = hops(layer, "web", trace=True)
    members = [(hop.member, hop.state) for hop in found if not hop.within]
    assert members == [("m1", "answered"), ("", "silent")]
