"""Broadcast layers of our members and the prototype's, over UDP: who began the layer, who came later, who speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.conftest import MakeWorld, World
from interop.hosts import Command, OurHost, PrototypeHost
from support import until

from ouroboros.lab.prototype import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: Names of the two members, which their UDP layers lead to.
OURS, THEIRS = "ours", "theirs"
LAYER = "hall"
CHAT = Path(__file__).parents[2] / "examples/chat.py"


def begin(host: OurHost | PrototypeHost, name: str) -> None:
    """Make the first member of the layer."""
    host.irm("ipcp", "bootstrap", "type", "broadcast", "name", name, "layer", LAYER, "autobind")


def come_in(host: OurHost | PrototypeHost, name: str, neighbour: str) -> None:
    """Make another member, by one that is there."""
    words = "ipcp", "enroll", "type", "broadcast", "name", name, "layer", LAYER, "dst", neighbour, "autobind"
    if isinstance(host, PrototypeHost):
        # Its UDP layer loses one request in some, without an answer.
        host.try_irm(*words)
        connect(host, name, neighbour)
    else:
        # Which connects it as well.
        host.irm(*words)


def connect(host: PrototypeHost, name: str, neighbour: str) -> None:
    host.try_irm("ipcp", "connect", "name", name, "dst", neighbour, "component", "dt")


@pytest.fixture
def world(make_world: MakeWorld, stock_installation: Installation) -> Iterator[World]:
    world = make_world(stock_installation, "udp4", our_names=(OURS,), their_names=(THEIRS,))
    yield world
    # A member holds flows of the layer below for good, and a node is asked at the end what it holds.
    world.ours.end_programs()
    world.ours.run("irm", "ipcp", "destroy", "name", OURS).finish()
    world.ours.end_programs()


def join_layer(world: World, first: str) -> None:
    """Both are members; `first` made the layer."""
    if first == "ours":
        begin(world.ours, OURS)
        come_in(world.theirs, THEIRS, OURS)
    else:
        begin(world.theirs, THEIRS)
        come_in(world.ours, OURS, THEIRS)


def say(host: OurHost | PrototypeHost, message: str) -> None:
    command = host.run("obc", "-n", LAYER, "-m", message)
    command.finish()
    assert command.status == 0, command.said


def listen(host: OurHost | PrototypeHost) -> Command:
    command = host.run("obc", "-n", LAYER, "-l")
    command.until("New flow")
    return command


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_obc_speaks_both_ways(world: World, first: str) -> None:
    join_layer(world, first)
    near, far = listen(world.ours), listen(world.theirs)
    for number in range(3):
        say(world.ours, f"ours says {number}")
        say(world.theirs, f"theirs says {number}")
        for listener in (near, far):
            listener.until(f"ours says {number}|theirs says {number}")
            listener.until(f"ours says {number}|theirs says {number}")
    for listener in (near, far):
        said = [line for line in listener.said if " says " in line]
        assert len(said) == len(set(said)) == 6


def test_a_program_of_ours_joins_a_layer_of_the_prototype_by_its_name(
    make_world: MakeWorld, stock_installation: Installation
) -> None:
    world = make_world(stock_installation, "udp4", our_names=(), their_names=(LAYER,))
    begin(world.theirs, THEIRS)

    def is_in() -> bool:
        # The prototype loses one request in some, without an answer; the member stays for a while.
        command = world.ours.run("obc", "-n", LAYER, "-m", "hello")
        command.finish()
        return command.status == 0

    until(is_in)
    near, far = listen(world.ours), listen(world.theirs)
    say(world.ours, "ours says 1")
    far.until("ours says 1")
    say(world.theirs, "theirs says 1")
    near.until("theirs says 1")
    world.ours.end_programs()
    world.ours.irm("ipcp", "destroy", "name", f"{LAYER}.joined")


def test_a_second_connection_makes_no_storm_and_nothing_comes_twice_to_ours(world: World) -> None:
    join_layer(world, "ours")
    connect(world.theirs, THEIRS, OURS)
    near, far = listen(world.ours), listen(world.theirs)
    for number in range(5):
        say(world.theirs, f"theirs says {number}")
        near.until(f"theirs says {number}")
        say(world.ours, f"ours says {number}")
        near.until(f"ours says {number}")
        far.until(f"ours says {number}")
    said = [line for line in near.said if " says " in line]
    assert len(said) == len(set(said)) == 10
    # To the prototype each connection brings each packet, and back it brings none.
    assert len([line for line in far.said if "ours says" in line]) <= 10


def test_chat_between_hosts_of_both(world: World) -> None:
    join_layer(world, "theirs")
    native = os.environ | world.theirs.installation.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    native["PATH"] = f"{Path(sys.executable).parent}:{native['PATH']}"
    own = os.environ | {"OUROBOROS_RUNTIME_DIR": str(world.ours.node.directory)}
    chat = [sys.executable, str(CHAT), "--layer", LAYER]
    within = world.theirs.namespace.within()
    ada = world.ours.keep(Command([*chat, "ada"], own))
    grace = world.theirs.keep(Command([*within, *chat, "grace"], native))
    for member in (ada, grace):
        member.until("joined")
    ada.tell("hello")
    grace.until("ada: hello")
    grace.tell("hello")
    ada.until("grace: hello")


def test_a_member_of_ours_that_was_disconnected_comes_back(world: World) -> None:
    join_layer(world, "theirs")
    near = listen(world.ours)
    say(world.theirs, "first")
    near.until("first")
    world.ours.irm("ipcp", "disconnect", "name", OURS, "dst", THEIRS)
    say(world.theirs, "lost")
    world.ours.irm("ipcp", "connect", "name", OURS, "dst", THEIRS)

    def is_heard() -> bool:
        # Nothing is taken from a new connection before the prototype has finished with the greeting, and what it writes
        # meanwhile may hang.
        world.theirs.run("timeout", "4", "obc", "-n", LAYER, "-m", "again").finish()
        say(world.ours, "over")
        near.until("over")
        return any("again" in line for line in near.said)

    until(is_heard)
    assert not any("lost" in line for line in near.said)
