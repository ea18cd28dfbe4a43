"""Impairments: how they are written, and what the IRM makes of them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from irm_world import World

from ouroboros.errors import IpcpBootstrapError, UnsupportedError
from ouroboros.layers.effects import CloseMember, Connect, Impair, Loop, MarkDead, Release
from ouroboros.layers.impairment import Impairment, parse
from ouroboros.qos import QOS_DATA, QoSSpec
from ouroboros.settings import BroadcastSettings, LocalSettings
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    ImpairIpcp,
    IpcpEntry,
    ListIpcps,
    LocalDetails,
    RegisterName,
    UnregisterName,
)

MS = 10**6
LOSSY = "loss=1%,seed=42"

# --- the words


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("none", Impairment()),
        (" none ", Impairment()),
        ("loss=1%", Impairment(loss=0.01)),
        ("loss=100%", Impairment(loss=1.0)),
        ("reorder=0.5%", Impairment(reorder=0.005)),
        ("duplicate=0%", Impairment()),
        ("delay=10ms", Impairment(delay=10 * MS)),
        ("delay=1.5ms", Impairment(delay=1_500_000)),
        ("delay=1h", None),
        ("jitter=2us", Impairment(jitter=2000)),
        ("jitter=3ns", Impairment(jitter=3)),
        ("delay=3600s", Impairment(delay=3600 * 10**9)),
        ("rate=10M", Impairment(rate=10_000_000)),
        ("rate=1.5k", Impairment(rate=1500)),
        ("rate=2G", Impairment(rate=2 * 10**9)),
        ("rate=9600", Impairment(rate=9600)),
        ("partition", Impairment(partition=True)),
        ("seed=18446744073709551615", Impairment(seed=2**64 - 1)),
        (
            "loss=1%, delay=10ms,jitter=2ms , reorder=0.5%,duplicate=1%,rate=10M,partition,seed=42",
            Impairment(0.01, 0.01, 0.005, 10 * MS, 2 * MS, 10_000_000, True, 42),
        ),
    ],
)
def test_words_mean_what_they_say(text: str, meaning: Impairment | None) -> None:
    if meaning is None:
        with pytest.raises(IpcpBootstrapError, match="delay must look like 10ms"):
            parse(text)
    else:
        assert parse(text) == meaning


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "unknown key ''"),
        ("lose=1%", "unknown key 'lose'.*choose from loss, duplicate"),
        ("none,loss=1%", "unknown key 'none'"),
        ("loss=1%,", "unknown key ''"),
        ("loss", "loss must look like 1%"),
        ("loss=", "loss must look like 1%"),
        ("loss=1", "loss must look like 1%"),
        ("loss=0.01", "loss must look like 1%"),
        ("loss=-1%", "loss must look like 1%"),
        ("loss=nan%", "loss must look like 1%"),
        ("loss=1e1%", "loss must look like 1%"),
        ("loss=\u0661%", "loss must look like 1%"),
        ("duplicate=100.000000001%", "duplicate must be from 0% to 100%"),
        ("reorder=101%", "reorder must be from 0% to 100%"),
        ("delay=10", "delay must look like 10ms"),
        ("delay=10 ms", "delay must look like 10ms"),
        ("jitter=3600.000000001s", "jitter must be at most an hour"),
        ("rate=0", "rate must be from 1 to"),
        ("rate=10Mbit", "rate must look like 10M"),
        ("rate=99999999999G", "rate must be from 1 to"),
        ("partition=yes", "partition stands alone, not with 'yes'"),
        ("seed=-1", "seed must be a whole number"),
        ("seed=18446744073709551616", "seed must be a whole number"),
        ("seed=0x2a", "seed must be a whole number"),
        ("loss=1%,loss=2%", "loss is given twice"),
        ("partition,partition", "partition is given twice"),
    ],
)
def test_errors_name_the_key(text: str, complaint: str) -> None:
    with pytest.raises(IpcpBootstrapError, match=f"impair: {complaint}"):
        parse(text)


CHANCES = st.integers(0, 10**6).map(lambda number: number / 10**6)
IMPAIRMENTS = st.builds(
    Impairment,
    CHANCES,
    CHANCES,
    CHANCES,
    st.integers(0, 3600 * 10**9),
    st.integers(0, 3600 * 10**9),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.integers(0, 2**64 - 1),
)


@given(IMPAIRMENTS)
def test_what_is_written_reads_the_same(impairment: Impairment) -> None:
    assert parse(impairment.text) == impairment


@given(st.text(max_size=40) | st.from_regex(r"(loss|delay|rate|seed)=.{0,12}", fullmatch=True))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        impairment = parse(text)
    except IpcpBootstrapError:
        return
    assert parse(impairment.text) == impairment


def test_nothing_of_it_is_called_none() -> None:
    assert Impairment().text == "none"


# --- the IRM


@pytest.fixture
def world() -> World:
    world = World()
    world.manage(CreateName("clock", "spillover"))
    return world


def layer(world: World, impair: str | None, name: str = "lab", type: str = "local") -> int:
    """A layer in which the name "clock" is."""
    ipcp = world.manage(CreateIpcp(name, type))
    assert isinstance(ipcp, int)
    world.manage(BootstrapIpcp(ipcp, name, LocalSettings(impair=impair)))
    world.manage(RegisterName("clock", ipcp))
    return ipcp


def connect(world: World) -> tuple[int, int]:
    """Tokens of the allocator and the acceptor of a flow to "clock"."""
    acceptor = world.accept(world.server("clock"))
    return world.alloc(world.program("client"), "clock"), acceptor


def connections(world: World) -> list[object]:
    """The flows that were to be made since the last look."""
    return [effect for effect in world.take(object) if isinstance(effect, Loop | Connect)]


def entry(world: World, ipcp: int) -> IpcpEntry:
    entries = world.manage(ListIpcps())
    assert isinstance(entries, list)
    found = next(each for each in entries if each.id == ipcp)
    assert isinstance(found, IpcpEntry)
    return found


def test_flows_to_a_name_in_an_impaired_layer_go_through_its_relay(world: World) -> None:
    lab = layer(world, LOSSY)
    assert world.take(Impair) == [Impair(lab, Impairment(loss=0.01, seed=42))]
    allocator, acceptor = connect(world)
    assert connections(world) == [Loop(1, "clock", QoSSpec(), (allocator, acceptor), lab, layer="lab")]


def test_flows_to_a_name_in_no_impaired_layer_go_directly(world: World) -> None:
    plain = layer(world, None)
    elsewhere = layer(world, LOSSY, "elsewhere")
    world.manage(UnregisterName("clock", elsewhere))
    allocator, acceptor = connect(world)
    assert connections(world) == [Connect(1, "clock", QoSSpec(), allocator, acceptor, layer="lab")]
    assert entry(world, plain).impair == ""


def test_of_two_layers_with_the_name_the_older_one_is_taken(world: World) -> None:
    layer(world, None, "plain")
    bad = layer(world, LOSSY, "bad")
    connect(world)
    assert world.take(Loop) == []
    world.manage(ImpairIpcp(bad, "none"))
    connect(world)
    assert world.take(Loop) == []


def test_an_impairment_of_none_goes_through_the_relay_too(world: World) -> None:
    # So that it can be made worse while the flow is there.
    lab = layer(world, "none")
    connect(world)
    assert len(world.take(Loop)) == 1
    world.manage(ImpairIpcp(lab, "partition"))
    assert world.take(Impair) == [Impair(lab, Impairment(partition=True))]
    assert entry(world, lab).impair == "partition"


def test_a_layer_without_impairment_can_be_given_one(world: World) -> None:
    lab = layer(world, None)
    connect(world)
    assert world.take(Loop) == []
    world.manage(ImpairIpcp(lab, "delay=1ms"))
    connect(world)
    assert [effect.ipcp for effect in world.take(Loop)] == [lab]


@pytest.mark.parametrize("qos", [QOS_DATA, QoSSpec(loss=0), QoSSpec(in_order=1)], ids=["data", "reliable", "in order"])
def test_flows_that_are_promised_something_go_through_it_too(world: World, qos: QoSSpec) -> None:
    lab = layer(world, LOSSY)
    acceptor = world.accept(world.server("clock"))
    world.alloc(world.program("client"), "clock", qos=qos)
    (effect,) = world.take(Loop)
    assert (effect.ipcp, effect.users[1], effect.qos) == (lab, acceptor, qos)


@pytest.mark.parametrize("side", [0, 1])
def test_the_relay_is_told_of_a_death_and_of_the_end(world: World, side: int) -> None:
    lab = layer(world, LOSSY)
    processes = [world.program("client"), world.server("clock")]
    acceptor = world.accept(processes[1])
    tokens = [world.alloc(processes[0], "clock"), acceptor]
    world.take(object)
    world.kill(processes[side])
    assert world.take(object) == [MarkDead(1, side, lab)]
    world.dealloc(processes[1 - side], tokens[1 - side])
    assert world.take(object) == [Release(1, lab)]


def test_a_layer_that_is_destroyed_takes_its_relay_with_it(world: World) -> None:
    lab = layer(world, LOSSY)
    process = world.program("client")
    acceptor = world.accept(world.server("clock"))
    allocator = world.alloc(process, "clock")
    assert world.connected(allocator, acceptor)
    world.manage(DestroyIpcp(lab))
    assert world.take(CloseMember) == [CloseMember(lab)]
    world.dealloc(process, allocator)
    connect(world)
    assert world.take(Loop) == []


def test_a_plain_layer_has_none(world: World) -> None:
    lab = layer(world, None)
    world.manage(DestroyIpcp(lab))
    assert world.take(CloseMember) == []


def test_a_wrong_impairment_leaves_the_layer_as_it_is(world: World) -> None:
    ipcp = world.manage(CreateIpcp("l0", "local"))
    assert isinstance(ipcp, int)
    with pytest.raises(IpcpBootstrapError, match="loss must look like"):
        world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(impair="loss=1")))
    with pytest.raises(IpcpBootstrapError, match="bootstrap it first"):
        world.manage(ImpairIpcp(ipcp, LOSSY))
    assert entry(world, ipcp) == IpcpEntry(ipcp, "l0", "local", "boot", "", "SHA3_256")
    world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(impair=LOSSY)))
    world.take(object)
    with pytest.raises(IpcpBootstrapError, match="unknown key"):
        world.manage(ImpairIpcp(ipcp, "lost"))
    assert entry(world, ipcp).impair == LOSSY
    assert world.take(Impair) == []


def test_other_types_cannot_be_impaired(world: World) -> None:
    ipcp = world.manage(CreateIpcp("b0", "broadcast"))
    assert isinstance(ipcp, int)
    with pytest.raises(UnsupportedError, match="only local and UDP layers can"):
        world.manage(BootstrapIpcp(ipcp, "hall", BroadcastSettings(impair=LOSSY)))
    assert entry(world, ipcp).state == "boot"
    world.manage(BootstrapIpcp(ipcp, "hall"))
    with pytest.raises(UnsupportedError, match="only local and UDP layers can"):
        world.manage(ImpairIpcp(ipcp, LOSSY))


def test_the_listing_has_what_became_of_packets(world: World) -> None:
    lab = layer(world, LOSSY)
    world.irm.counted(lab, {"delivered": 90, "lost": 10, "duplicated": 3, "reordered": 2})
    details = LocalDetails(LOSSY, delivered=90, lost=10, duplicated=3, reordered=2)
    assert entry(world, lab) == IpcpEntry(lab, "lab", "local", "operational", "lab", "SHA3_256", details)
