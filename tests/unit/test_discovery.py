"""Layers that stations of an Ethernet segment offer to those who know nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from security_world import certified, trusting

from ouroboros import cli, irm
from ouroboros.control.configuration import ConfigurationError, Steps, parse
from ouroboros.errors import IpcpEnrollError, OuroborosError, ProtocolError
from ouroboros.irm import IpcpType, LayerOffer
from ouroboros.layers.ethernet.discovery import FIRST_PAUSE, QUESTIONS
from ouroboros.qos import QOS_RAW
from ouroboros.settings import EthConfig, EthDixSettings, UnicastConfig, UnicastSettings
from ouroboros.testing.sim import Network, Node
from ouroboros.wire import offers
from ouroboros.wire.control import (
    BindProcess,
    ConnectIpcp,
    CreateIpcp,
    DestroyIpcp,
    DiscoverLayers,
    EnrollIpcp,
    OfferEntry,
    RegisterName,
    Request,
)
from ouroboros.wire.ethernet import DIX, LLC, NameQuery, NameReply
from ouroboros.wire.offers import Offer

FORGED = ("02:66:6f:72:67:65", 0)


def station(network: Network, name: str, security: dict[str, bytes] | None = None) -> tuple[Node, int]:
    node = network.add_node(name, security=security)
    return node, node.add_ipcp("eth-dix", "segment", EthDixSettings(eth=EthConfig("eth0")))


def offering(
    network: Network,
    name: str,
    kind: str,
    layer: str,
    settings: UnicastSettings | None = None,
    security: dict[str, bytes] | None = None,
) -> tuple[Node, int]:
    """A station with the first member of a layer, made as with `autobind`."""
    node, below = station(network, name, security)
    id = node.add_ipcp(kind, layer, settings, name=f"{name}0")
    for each in (f"{name}0", layer):
        node.manage(BindProcess(id, each)).value  # noqa: B018 - or its error
        node.manage(RegisterName(each, below)).value  # noqa: B018
    return node, id


def discovered(node: Node, *over: str) -> list[OfferEntry]:
    found = node.manage(DiscoverLayers(over)).wait().value
    assert isinstance(found, list)
    return found


def enroll(node: Node, offer: OfferEntry) -> int:
    id = node.manage(CreateIpcp("new", offer.type)).value
    assert isinstance(id, int)
    node.manage(EnrollIpcp(id, offer.member, True, over=(offer.over,))).wait().value  # noqa: B018 - or its error
    connecting = ConnectIpcp(id, "Data Transfer", offer.member, QOS_RAW, offer.over)
    node.manage(connecting).wait().value  # noqa: B018 - or its error
    return id


# --- in virtual time


@pytest.mark.parametrize("kind", ["unicast", "broadcast"])
def test_a_node_enrolls_in_a_layer_of_which_it_knew_nothing(kind: str) -> None:
    network = Network(1)
    far, _ = offering(network, "far", kind, "campus")
    near, _ = station(network, "near")
    start = network.now
    (offer,) = discovered(near)
    assert network.now - start == pytest.approx(FIRST_PAUSE * (2**QUESTIONS - 1))
    assert (offer.type, offer.layer, offer.member, offer.over) == (kind, "campus", "campus", "segment")
    id = enroll(near, offer)
    assert near.irm.ipcps[id].layer == "campus"
    if kind == "broadcast":
        flows = [node.program().join("campus").wait().flow for node in (near, far)]
        flows[0].write(b"hello")
        assert flows[1].read() == b"hello"


def enter(node: Node, text: str) -> None:
    """Carry out what a configuration file says of its only IPC process; raises what a step of it raises."""
    (table,) = parse(text).ipcps

    def ask(request: Request) -> Any:
        return node.manage(request).wait().value

    def later(title: str, begin: Callable[[], Steps]) -> None:
        steps = begin()
        go_on: Callable[[], Request] = partial(steps.send, None)
        with suppress(StopIteration):
            while True:
                request = go_on()
                try:
                    go_on = partial(steps.send, ask(request))
                except OuroborosError as error:
                    go_on = partial(steps.throw, error)

    table.apply(ask, lambda name: None, later)


@pytest.mark.parametrize("kind", ["unicast", "broadcast"])
def test_a_file_says_that_a_node_enters_whatever_layer_there_is(kind: str) -> None:
    network = Network(1)
    offering(network, "far", kind, "campus")
    near, _ = station(network, "near")
    enter(near, f"[{kind}.new]\nany = true\nautobind = true")
    new = next(ipcp for ipcp in near.irm.ipcps.values() if ipcp.name == "new")
    assert (new.layer, sorted(new.names)) == ("campus", ["campus", "new"])
    # It is connected, and offers the layer itself.
    third, _ = station(network, "third")
    assert {each.layer for each in discovered(third)} == {"campus"}
    assert len({each.station for each in discovered(third)}) == 2
    # A second time, as at a reload, there is nothing to be done.
    enter(near, f"[{kind}.new]\nany = true\nautobind = true")


def test_a_file_has_to_say_which_of_several_layers() -> None:
    network = Network(1)
    offering(network, "a", "broadcast", "hall")
    offering(network, "b", "broadcast", "yard")
    near, _ = station(network, "near")
    with pytest.raises(
        ConfigurationError, match=r"any: several layers answer: broadcast layer 'hall' by .* Say the name"
    ):
        enter(near, "[broadcast.new]\nany = true")
    with pytest.raises(ConfigurationError, match="any: no node offers a broadcast layer 'attic', by a member with"):
        enter(near, '[broadcast.new]\nany = "attic"')
    with pytest.raises(IpcpEnrollError, match="no layer in which it can ask for others of these: 'lan'"):
        enter(near, '[broadcast.new]\nany = true\nany_over = ["lan"]')
    enter(near, '[broadcast.new]\nany = "yard"')
    assert next(ipcp for ipcp in near.irm.ipcps.values() if ipcp.name == "new").layer == "yard"


def test_all_layers_of_all_stations_are_found_and_no_others() -> None:
    network = Network(1)
    offering(network, "a", "unicast", "campus")
    b, hall = offering(network, "b", "broadcast", "hall")
    # A member that nobody can reach by a name here, one that takes nobody in, and one that is gone.
    a, _ = station(network, "c")
    a.add_ipcp("broadcast", "secret")
    offering(network, "d", "unicast", "closed", UnicastSettings(unicast=UnicastConfig(enroll=("nobody",))))
    near, _ = station(network, "near")
    assert [(each.type, each.layer) for each in discovered(near)] == [("broadcast", "hall"), ("unicast", "campus")]
    assert len({each.station for each in discovered(near)}) == 2
    b.manage(DestroyIpcp(hall)).wait().value  # noqa: B018 - or its error
    assert [each.layer for each in discovered(near, "segment")] == ["campus"]


def test_a_lossy_segment_is_asked_more_than_once_and_all_askers_hear_the_same() -> None:
    network = Network(3)
    far, _ = offering(network, "far", "broadcast", "hall")
    near, below = station(network, "near")
    far.impair("loss=30%")
    near.impair("loss=30%")
    asked = [near.manage(DiscoverLayers()) for _ in range(3)]
    assert [[each.layer for each in one.wait().value] for one in asked] == [["hall"]] * 3  # type: ignore[attr-defined]
    assert near.counters(below)["queries_sent"] == QUESTIONS


def test_nobody_answers_where_nobody_is_and_a_node_on_no_segment_is_told() -> None:
    network = Network(1)
    near, below = station(network, "near")
    assert discovered(near) == []
    asked = near.manage(DiscoverLayers())
    near.manage(DestroyIpcp(below)).wait().value  # noqa: B018 - or its error
    assert asked.wait().value == []
    with pytest.raises(IpcpEnrollError, match=r"no layer in which it can ask.*those on an Ethernet segment"):
        near.manage(DiscoverLayers()).value  # noqa: B018
    with pytest.raises(IpcpEnrollError, match="of these: 'other'"):
        station(network, "third")[0].manage(DiscoverLayers(("other",))).value  # noqa: B018


def test_certificates_hold_for_those_who_found_the_layer_by_asking() -> None:
    network = Network(1)
    settings = UnicastSettings(unicast=UnicastConfig(enroll=("alice",)))
    far = trusting() | certified("server/campus", "campus")
    offering(network, "far", "unicast", "campus", settings, security=far)
    wants = trusting() | {"client/campus/policy.conf": b"require=certificate\n"}
    alice, _ = station(network, "alice", security=wants | certified("client/campus", "alice"))
    nobody, _ = station(network, "nobody", security=trusting())
    for node in (alice, nobody):
        (offer,) = discovered(node)
        if node is alice:
            enroll(node, offer)
        else:
            with pytest.raises(IpcpEnrollError, match="takes only members that prove who they are"):
                enroll(node, offer)
    # Who pretends to be the layer is found out by whoever asks for a certificate.
    other = Network(2)
    offering(other, "fake", "unicast", "campus")
    careful, _ = station(other, "careful", security=wants | certified("client/campus", "alice"))
    (offer,) = discovered(careful)
    with pytest.raises(IpcpEnrollError):
        enroll(careful, offer)


# --- hostile


def test_answers_that_nobody_asked_for_and_those_that_make_no_sense_change_nothing() -> None:
    network = Network(1)
    offering(network, "far", "broadcast", "hall")
    near, below = station(network, "near")
    ipcp = near.irm.ipcps[below]
    question = ipcp.digest(offers.QUESTION)
    good = DIX.encode(NameReply(question, offers.encode([Offer("unicast", "forged", "x")], 100)))
    bad = [
        DIX.encode(NameReply(question, data))
        for data in (b"\x01", b"\x01\x00\x00", b"\x01\x05ab", b"\x01\x01\xff\x01a")
    ]
    ipcp.received(good, FORGED, network.now)
    assert ipcp.entry().counters["messages_unknown"] == 1
    asked = near.manage(DiscoverLayers())
    for each in bad:
        ipcp.received(each, FORGED, network.now)
    assert ipcp.entry().counters["messages_malformed"] == len(bad)
    assert [each.layer for each in asked.wait().value] == ["hall"]  # type: ignore[attr-defined]


def test_a_flood_of_questions_is_bounded_and_a_station_without_layers_is_silent() -> None:
    network = Network(1)
    far, _ = offering(network, "far", "broadcast", "hall")
    near, quiet = station(network, "near")
    for node, answered in ((far, 40), (near, 0)):
        ipcp = next(each for each in node.irm.ipcps.values() if each.type == "eth-dix")
        for _ in range(500):
            ipcp.received(DIX.encode(NameQuery(ipcp.digest(offers.QUESTION))), FORGED, network.now)
        assert ipcp.entry().counters["queries_answered"] == answered
    assert near.irm.ipcps[quiet].entry().counters["messages_dropped"] == 460


def test_a_name_reply_of_the_prototype_is_what_it_was() -> None:
    for layout in (DIX, LLC):
        reply = layout.encode(NameReply(bytes(32)))
        assert layout.decode(reply, 32) == NameReply(bytes(32))
        assert layout.decode(reply + b"more", 32) == NameReply(bytes(32), b"more")


# --- bytes

NAMES = st.text("aé☃", min_size=1, max_size=60)
OFFERS = st.lists(st.builds(Offer, st.sampled_from(["unicast", "broadcast"]), NAMES, NAMES), max_size=8)


@given(OFFERS)
def test_offers_come_back_as_they_were(said: list[Offer]) -> None:
    assert offers.decode(offers.encode(said, 10_000)) == said


@given(OFFERS, st.integers(0, 600))
def test_no_more_is_said_than_fits(said: list[Offer], room: int) -> None:
    data = offers.encode(said, room)
    assert len(data) <= room
    assert set(offers.decode(data)) <= set(said)


@given(st.binary(max_size=80))
def test_bytes_of_strangers_are_offers_or_refused(data: bytes) -> None:
    try:
        found = offers.decode(data)
    except ProtocolError:
        return
    assert all(each.layer and each.member for each in found)


# --- which is taken


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[LayerOffer]:
    """What stations say. Nothing is enrolled in earnest: the names that are asked come into `asked` of the test."""
    said: list[LayerOffer] = []
    monkeypatch.setattr(
        irm, "discover_layers", lambda *, over=(): [each for each in said if not over or each.over in over]
    )
    monkeypatch.setattr(cli, "list_ipcps", lambda **_: [])
    return said


def enrolling(monkeypatch: pytest.MonkeyPatch, *dead: str) -> list[tuple[str, IpcpType]]:
    asked: list[tuple[str, IpcpType]] = []

    def enroll(name: str, dst: str, autobind: bool, *, ipcp_type: IpcpType, **_: object) -> None:
        asked.append((dst, ipcp_type))
        if dst in dead:
            raise IpcpEnrollError(f"{dst} is dead")

    monkeypatch.setattr(cli, "enroll_ipcp", enroll)
    return asked


CAMPUS_A = LayerOffer(IpcpType.UNICAST, "campus", "a", "lan", "02:00:00:00:00:0a")
CAMPUS_B = LayerOffer(IpcpType.UNICAST, "campus", "b", "lan", "02:00:00:00:00:0b")
HALL = LayerOffer(IpcpType.BROADCAST, "hall", "hall", "lan", "02:00:00:00:00:0b")


def test_of_members_of_one_layer_the_first_that_lives_is_asked(
    answers: list[LayerOffer], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [CAMPUS_A, CAMPUS_B]
    asked = enrolling(monkeypatch, "a")
    assert cli.enroll_any("n") == CAMPUS_B
    assert asked == [("a", IpcpType.UNICAST), ("b", IpcpType.UNICAST)]
    enrolling(monkeypatch, "a", "b")
    with pytest.raises(IpcpEnrollError, match="a is dead; b is dead"):
        cli.enroll_any("n")


def test_several_layers_are_listed_and_one_of_them_can_be_said(
    answers: list[LayerOffer], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [CAMPUS_A, HALL]
    asked = enrolling(monkeypatch)
    with pytest.raises(
        IpcpEnrollError, match=r"unicast layer 'campus' by 'a' at 02:.*broadcast layer 'hall'.*Say which"
    ):
        cli.enroll_any("n")
    assert asked == []
    assert cli.enroll_any("n", layer="hall") == HALL
    assert cli.enroll_any("n", ipcp_type=IpcpType.UNICAST) == CAMPUS_A
    with pytest.raises(IpcpEnrollError, match="no node offers a broadcast layer 'campus' to newcomers"):
        cli.enroll_any("n", layer="campus", ipcp_type=IpcpType.BROADCAST)
