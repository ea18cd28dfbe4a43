"""Unicast layers of our members and the prototype's, over UDP: who began the layer, who came later, who serves."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from interop.conftest import MakePrototype, MakeWorld, World
from interop.hosts import ADDRESSES, OurHost, PrototypeHost, join
from support import until

from ouroboros.lab import Description, Event, Expectation, Here, Lab, LabError, LabNode, UnavailableError, describe
from ouroboros.lab.commands import EVENTS
from ouroboros.lab.doing import play
from ouroboros.lab.prototype import Installation
from ouroboros.qos import QOS_DATA
from ouroboros.testing import link
from ouroboros.testing.link import lacks_devices

#: Names of the two members, which their UDP layers lead to.
OURS, THEIRS = "ours", "theirs"
LAYER = "inet"


def begin(host: OurHost | PrototypeHost, name: str, *options: str) -> None:
    """Make the first member of the layer."""
    host.irm("ipcp", "bootstrap", "type", "unicast", "name", name, "layer", LAYER, *options, "autobind")


def come_in(host: OurHost | PrototypeHost, name: str, neighbour: str) -> None:
    """Make another member, by one that is there."""
    words = "ipcp", "enroll", "name", name, "layer", LAYER, "dst", neighbour, "autobind"
    if isinstance(host, PrototypeHost):
        # Its UDP layer loses one request in some, without an answer.
        host.try_irm(*words)
        connect(host, name, neighbour)
    else:
        # Which connects it as well.
        host.irm(*words)


def connect(host: OurHost | PrototypeHost, name: str, neighbour: str) -> None:
    words = "ipcp", "connect", "name", name, "dst", neighbour
    if isinstance(host, PrototypeHost):
        for component in ("mgmt", "dt"):
            host.try_irm(*words, "component", component)
    else:
        host.irm(*words)


def serve(host: OurHost | PrototypeHost) -> None:
    host.serve("oping", layer=LAYER)


def ping(host: OurHost | PrototypeHost, *options: str) -> int:
    """How many of five came back."""
    said = host.run("oping", "-n", "oping", "-c", "5", "-i", "100", *options).finish()
    found = re.search(r"(\d+) received", "\n".join(said))
    return 0 if found is None else int(found[1])


@pytest.mark.slow
def test_two_members_of_the_prototype(stock_installation: Installation, make_prototype: MakePrototype) -> None:
    """What the other tests take for granted."""
    addresses = ADDRESSES["udp4"]
    one = make_prototype(stock_installation, "one", {"nb": addresses.ours})
    other = make_prototype(stock_installation, "other", {"na": addresses.theirs})
    try:
        join(other.namespace, one.namespace)
    except UnavailableError as why:
        pytest.skip(str(why))
    one.start("udp4", addresses.theirs)
    other.start("udp4", addresses.ours)
    begin(one, "na")
    serve(one)
    come_in(other, "nb", "na")
    other.irm("name", "create", "oping")
    until(lambda: ping(other) == 5)


@pytest.fixture
def world(make_world: MakeWorld, stock_installation: Installation) -> Iterator[World]:
    world = make_world(stock_installation, "udp4", our_names=(OURS,), their_names=(THEIRS,))
    yield world
    leave(world.ours, OURS)


def leave(host: OurHost, name: str) -> None:
    """A member holds flows of the layer below for good, and a node is asked at the end what it holds."""
    host.end_programs()
    # It may not be there, if the test did not come so far.
    host.run("irm", "ipcp", "destroy", "name", name).finish()
    host.end_programs()


def join_layer(world: World, first: str) -> None:
    """Both are members; `first` made the layer."""
    if first == "ours":
        begin(world.ours, OURS)
        come_in(world.theirs, THEIRS, OURS)
    else:
        begin(world.theirs, THEIRS)
        come_in(world.ours, OURS, THEIRS)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("server", ["ours", "theirs"])
def test_flows_between_a_member_of_ours_and_one_of_the_prototype(world: World, first: str, server: str) -> None:
    join_layer(world, first)
    host, client = (world.ours, world.theirs) if server == "ours" else (world.theirs, world.ours)
    serve(host)
    if client is world.theirs:
        client.irm("name", "create", "oping")
    until(lambda: ping(client) == 5)


@pytest.mark.slow
def test_a_newcomer_of_the_prototype_without_a_certificate_is_let_in_by_default_only(world: World) -> None:
    begin(world.ours, OURS, "enroll", "certified")
    words = "ipcp", "enroll", "name", THEIRS, "layer", LAYER, "dst", OURS
    refused = f"enrollment in layer {LAYER!r}: a newcomer may not enroll: layer {LAYER!r} takes only members that prove"

    def is_refused() -> bool:
        command = world.theirs.run("timeout", "6", "irm", *words)
        command.finish()
        assert command.status != 0
        return refused in world.ours.node.log()

    until(is_refused)
    # It is none the worse for that.
    world.ours.irm("ipcp", "destroy", "name", OURS)
    begin(world.ours, OURS)
    come_in(world.theirs, THEIRS, OURS)
    serve(world.theirs)
    until(lambda: ping(world.ours) == 5)


# --- laboratories

#: Seconds. Where a member of the prototype comes last, it tells nobody of a name before it is in the directory.
WITHIN = 60.0


def scenario(shape: str, kinds: str, *steps: str, top: str = "") -> Description:
    """Nodes n0, n1 ..., "o" for one of ours, "p" for one of the prototype. `steps`: events, and what is to come about.
    `top`: a network over that one."""
    foreign = [f"n{number}(stack=c)" for number, kind in enumerate(kinds) if kind == "p"]
    lines = ", ".join([f"{shape} {len(kinds)}", *foreign])
    events = tuple(Event(at, step) for at, step in enumerate(steps) if step.split()[0] in EVENTS)
    expected = tuple(Expectation(at, step, WITHIN) for at, step in enumerate(steps) if step.split()[0] not in EVENTS)
    network = describe(top, lines) if top else describe(lines)
    return replace(network, events=events, expectations=expected)


MakeLab = Callable[[Description], Lab]


@pytest.fixture
def make_lab(stock_installation: Installation, prototype_logs: list[Callable[[], str]]) -> Iterator[MakeLab]:
    """Makes laboratories in namespaces. What the prototype is told there it has to know."""
    with ExitStack() as stack:

        def make(description: Description) -> Lab:
            lab = stack.enter_context(Lab(description, clock="namespaces"))
            for node in lab.description.nodes:
                if node.stack == "c":
                    watch(lab[node.name])
            return lab

        def watch(node: LabNode) -> None:
            def log() -> str:
                return node.log

            def leave() -> None:
                prototype_logs.remove(log)
                print(log())
                assert "Unknown message" not in log()

            prototype_logs.append(log)
            stack.callback(leave)

        yield make


def assert_all_met(lab: Lab) -> None:
    verdict = play(lab)
    assert verdict, str(verdict)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["ppp", "pop", "opo", "oop", "poo"])
def test_a_line_of_three(make_lab: MakeLab, kinds: str) -> None:
    """From one end to the other and back, through a member that has neither."""
    assert_all_met(make_lab(scenario("line", kinds, "ping n0 n2", "ping n2 n0")))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["opp", "pop", "ppo"])
def test_a_ring_of_three(make_lab: MakeLab, kinds: str) -> None:
    """Each place is taken once by ours; everybody reaches the first one."""
    assert_all_met(make_lab(scenario("ring", kinds, "ping n1 n0", "ping n2 n0")))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["oppp", "popp", "pppo", "oopp", "opop"])
def test_a_square(make_lab: MakeLab, kinds: str) -> None:
    """From one corner to the other, by one of two ways."""
    assert_all_met(make_lab(scenario("ring", kinds, "ping n0 n2", "ping n2 n0")))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("kinds", "near", "far"), [("opp", 0, 2), ("pop", 1, 0), ("ppo", 2, 0), ("ppo", 2, 1)])
def test_a_ring_is_whole_again_where_a_member_of_ours_is_at_an_end_of_the_link_that_is_cut(
    make_lab: MakeLab, kinds: str, near: int, far: int
) -> None:
    """Two members of the prototype would not do it (`unicast-control.md` 12.4)."""
    one, other = f"n{near}", f"n{far}"
    steps = [f"hops {one} {other} = 1", f"ping {one} {other}", f"cut {one}-{other}", f"hops {one} {other} = 2"]
    assert_all_met(make_lab(scenario("ring", kinds, *steps, f"ping {one} {other}")))


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_node_of_the_prototype_is_killed_and_comes_back(make_lab: MakeLab) -> None:
    steps = "ping n0 n2", "kill n1", "no runs n1", "no ping n0 n2", "restart n1", "converged", "ping n0 n2"
    assert_all_met(make_lab(scenario("line", "opo", *steps)))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("kinds", "path", "hops"),
    [
        ("opo", ("n0", "?", "n2"), [(1, "silent", ""), (2, "answered", "net1.n2")]),
        ("oop", ("n0", "n1", "n2"), [(1, "answered", "net1.n1"), (2, "silent", "")]),
    ],
)
def test_a_member_of_the_prototype_on_the_way_is_silent_and_none_the_worse_for_it(
    make_lab: MakeLab, kinds: str, path: tuple[str, ...], hops: list[tuple[int, str, str]]
) -> None:
    lab = make_lab(scenario("line", kinds, "hops n0 n2 = 2", "ping n0 n2"))
    assert_all_met(lab)
    for _ in range(3):
        found = lab.n0.trace("n2").hops
        assert [(hop.path[-1], hop.state, hop.member) for hop in found if hop.layer == "net1"] == hops
    # It goes on as before, and has been told nothing that it does not know (`make_lab`, at the end).
    assert lab.n0.ping("n2").path == path


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["opo", "pop", "opp", "ppo", "oop", "poo"])
def test_a_layer_over_a_layer(make_lab: MakeLab, kinds: str) -> None:
    """Both ends are members of a layer over that of all three: two of ours with one of the prototype on the way below, the
    other way round, and one of each, with either on the way."""
    assert_all_met(make_lab(scenario("line", kinds, "ping n2 n0", top="a@n0 - c@n2")))


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("links", ["udp4", "eth-dix"])
def test_a_link_of_the_prototype_is_as_bad_as_any(make_lab: MakeLab, links: str) -> None:
    if reason := lacks_devices():
        pytest.skip(reason)
    # It does not take flows over an Ethernet that is slow from the start: it has no room for them, as it says.
    lab = make_lab(describe("n0 - n1(stack=c)", links=links))
    wire = lab.link("n0", "n1")
    wire.change(forth="delay=20ms")
    assert lab.n0.ping("n1").time >= 0.02  # type: ignore[operator]
    wire.change(back="delay=30ms")
    assert lab.n0.ping("n1").time >= 0.05  # type: ignore[operator]
    assert lab.n1.ping("n0").time >= 0.05  # type: ignore[operator]
    wire.cut()
    with pytest.raises(LabError, match="n0 has no flow to n1"):
        lab.n0.ping("n1")
    wire.heal()


def test_a_machine_without_devices_says_why_a_link_of_the_prototype_is_not_bad(
    stock_installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(link, "_DEVICES", tmp_path / "tun")
    with pytest.raises(
        LabError, match=r"link a-b: it can be cut, and nothing else: there is no .*/tun that can be opened"
    ):
        Lab("a -(loss=1%)- b(stack=c)", clock="namespaces").start()


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_node_of_the_prototype_stands_still_and_goes_on(make_lab: MakeLab) -> None:
    # It is no longer silent than neighbours bear.
    lab = make_lab(replace(describe("n0 - n1(stack=c)"), silence=5.0))
    lab.n1.pause()
    assert not lab.n1.runs
    with pytest.raises(LabError):
        lab.n0.ping("n1")
    lab.n1.resume()
    assert lab.n0.ping("n1")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_what_a_node_of_the_prototype_can_do_and_what_not(make_lab: MakeLab) -> None:
    async def nothing(here: Here) -> None:
        await here.accept("nothing")

    lab = make_lab(scenario("line", "op", "ping n1 n0", "hops n0 n1 = 1"))
    assert_all_met(lab)
    assert "net1.n1" in lab.n1.execute("irm", "ipcp", "list")
    left = lab.n1.start("sleep", "1000", stdout=subprocess.PIPE)
    assert set(lab.n0.routes()) == {"n1"}
    for refused, said in (
        (lab.n1.routes, "cannot be asked that"),
        (lambda: lab.n1.trace("n0"), "cannot be asked that"),
        (lambda: lab.n1.path("n0"), "whose tables cannot be read"),
        (lambda: lab.n1.ping("n0", qos=QOS_DATA), "over raw flows only"),
        (lambda: lab.n1.run(nothing), "no coroutine runs"),
    ):
        with pytest.raises(LabError, match=said):
            refused()
    assert lab.n1.runs
    # It ends with its node.
    lab.n1.kill()
    assert left.wait(60) != 0
