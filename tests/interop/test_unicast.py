"""Unicast layers of our members and the prototype's, over UDP: who began the layer, who came later, who serves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from interop.conftest import MakePrototype, MakeWorld, World
from interop.hosts import ADDRESSES, Installation, Namespace, OurHost, PrototypeHost, Unavailable, bridge, join
from support import NodeProcess, until

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
    except Unavailable as why:
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


#: Names of members, and the addresses of their hosts.
PLACES = {"na": "10.9.0.1", "nb": "10.9.0.2", "nc": "10.9.0.3", "nd": "10.9.0.4"}

Hosts = list[OurHost | PrototypeHost]
MakeLine = Callable[..., Hosts]


@pytest.fixture
def make_line(
    hosts: ExitStack,
    stock_installation: Installation,
    make_prototype: MakePrototype,
    make_node: Callable[..., NodeProcess],
    runtime_dir: Path,
) -> Iterator[MakeLine]:
    """Makes hosts whose members stand in a line. Kinds: "o" for one of ours, "p" for one of the prototype. The options are
    those of the first member."""
    lines: list[Hosts] = []

    def host_of(kind: str, name: str, address: str) -> OurHost | PrototypeHost:
        others = {other: at for other, at in PLACES.items() if other != name}
        if kind == "p":
            prototype = make_prototype(stock_installation, name, others)
            spaces.append((prototype.namespace, address))
            return prototype
        space = Namespace(private=False)
        hosts.callback(space.close)
        spaces.append((space, address))
        return OurHost(space, make_node, "udp4", others, runtime_dir / name)

    spaces: list[tuple[Namespace, str]] = []

    def make(kinds: str, *options: str) -> Hosts:
        places = list(PLACES.items())[: len(kinds)]
        made = [host_of(kind, *place) for kind, place in zip(kinds, places, strict=True)]
        lines.append(made)
        try:
            bridge(spaces)
        except Unavailable as why:
            pytest.skip(str(why))
        for host, (_, address) in zip(made, places, strict=True):
            if isinstance(host, PrototypeHost):
                host.start("udp4", address)
            else:
                host.bootstrap(address=address)
        begin(made[0], "na", *options)
        for host, (name, _), (neighbour, _) in zip(made[1:], places[1:], places, strict=False):
            come_in(host, name, neighbour)
        return made

    yield make
    for line in lines:
        for host, name in zip(line, PLACES, strict=False):
            if not isinstance(host, PrototypeHost):
                leave(host, name)


def reaches(client: OurHost | PrototypeHost) -> None:
    """Wait until a host gets all packets back from the server."""
    if isinstance(client, PrototypeHost):
        client.irm("name", "create", "oping")
    until(lambda: ping(client) == 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "server"),
    # A member of the prototype that came last tells nobody of a name before it is in the directory, which takes seconds.
    [("ppp", 0), *((kinds, server) for kinds in ("pop", "opo", "oop", "poo") for server in (0, 2))],
)
def test_a_line_of_three(make_line: MakeLine, kinds: str, server: int) -> None:
    """From one end to the other, through a member that has neither."""
    line = make_line(kinds)
    serve(line[server])
    reaches(line[2 - server])


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["opp", "pop", "ppo"])
def test_a_ring_of_three(make_line: MakeLine, kinds: str) -> None:
    """Each place is taken once by ours; everybody reaches the first one."""
    ring = make_line(kinds)
    connect(ring[2], "nc", "na")
    serve(ring[0])
    for client in ring[1:]:
        reaches(client)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["oppp", "popp", "pppo", "oopp", "opop"])
def test_a_square(make_line: MakeLine, kinds: str) -> None:
    """From one corner to the other, by one of two ways."""
    square = make_line(kinds)
    connect(square[3], "nd", "na")
    serve(square[2])
    reaches(square[0])


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(("kinds", "near", "far"), [("opp", 0, 2), ("pop", 1, 0), ("ppo", 2, 0), ("ppo", 2, 1)])
def test_a_ring_is_whole_again_where_a_member_of_ours_is_at_an_end_of_the_link_that_is_cut(
    make_line: MakeLine, kinds: str, near: int, far: int
) -> None:
    """Two members of the prototype would not do it (`unicast-control.md` 12.4)."""
    ring = make_line(kinds, "ls_t_update", "2", "ls_t_timeo", "8", "ls_t_recalc", "1")
    ours, names = ring[near], list(PLACES)
    assert isinstance(ours, OurHost)
    # Who asked for a link can end it by the name of the other.
    one, other = (0, 2) if near == 0 else (2, 0)
    connect(ring[one], names[one], names[other])
    serve(ring[far])
    reaches(ours)
    ours.irm("ipcp", "disconnect", "name", names[near], "dst", names[far])
    reaches(ours)


def hops_of(host: OurHost, command: str) -> list[tuple[int, str, str]]:
    """What `ouroboros ping` or `trace` tells of the members of the layer on the way to the server: hop, state, name."""
    said = "\n".join(host.run("ouroboros", command, "oping", "--json").finish())
    if not said:
        # No way leads there yet.
        return []
    found = json.loads(said)["hops"]
    return [(each["path"][-1], each["state"], each["member"]) for each in found if each["layer"] == LAYER]


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("kinds", "server", "hops"),
    [
        ("opo", 0, [(1, "silent", ""), (2, "answered", "na")]),
        ("poo", 0, [(1, "answered", "nb"), (2, "silent", "")]),
    ],
)
def test_a_member_of_the_prototype_on_the_way_is_silent_and_none_the_worse_for_it(
    make_line: MakeLine, kinds: str, server: int, hops: list[tuple[int, str, str]]
) -> None:
    line = make_line(kinds)
    client = line[2 - server]
    assert isinstance(client, OurHost)
    serve(line[server])
    reaches(client)
    # What is between them is known when all announcements have come.
    until(lambda: hops_of(client, "trace") == hops)
    shown = client.run("ouroboros", "trace", "oping").finish()
    assert ["*" in row.split() for row in shown if LAYER in row] == [state == "silent" for _, state, _ in hops]
    for _ in range(3):
        assert hops_of(client, "trace") == hops
    assert hops_of(client, "ping") == hops[-1:]
    # It goes on as before, and has been told nothing that it does not know (`PrototypeHost.check`, at the end).
    until(lambda: ping(client) == 5)


# --- over each other

TOP = "top"


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("kinds", ["opo", "pop", "opp", "ppo", "oop", "poo"])
def test_a_layer_over_a_layer(make_line: MakeLine, kinds: str) -> None:
    """Both ends are members of a layer over that of all three: two of ours with one of the prototype on the way below, the
    other way round, and one of each, with either on the way. The last one comes to the first."""
    line = make_line(kinds)
    first, last = line[0], line[2]
    try:
        _be_in_top(first, "ta")
        _be_in_top(last, "tc", "ta")
        first.serve("oping", layer=TOP)
        reaches(last)
    finally:
        for host, name in ((last, "tc"), (first, "ta")):
            if isinstance(host, OurHost):
                leave(host, name)


def _be_in_top(host: OurHost | PrototypeHost, name: str, neighbour: str = "") -> None:
    """A member of the upper layer, known in the lower one."""
    words = "type", "unicast", "name", name, "layer", TOP
    if isinstance(host, PrototypeHost):
        if neighbour:
            host.irm("name", "create", neighbour)
            host.try_irm("ipcp", "enroll", *words[2:], "dst", neighbour, "autobind")
            connect(host, name, neighbour)
        else:
            host.irm("ipcp", "bootstrap", *words, "autobind")
        host.try_irm("name", "register", name, "layer", LAYER)
    elif neighbour:
        host.irm("ipcp", "enroll", *words[2:], "dst", neighbour, "autobind")
    else:
        host.irm("ipcp", "bootstrap", *words, "autobind")
