"""Enrollment: both sides, clocks, and newcomers that are silent, hostile or many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from members_world import WALL, Member, Outcome, Puppet, World

from ouroboros.layers.face import How
from ouroboros.layers.members.enrollment import MOST_NEWCOMERS, PATIENCE
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT, MANAGEMENT
from ouroboros.layers.members.links import SILENCE
from ouroboros.settings import (
    BroadcastSettings,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    TypeSettings,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire.unicast import cep, enrollment
from ouroboros.wire.unicast.cep import Cep
from ouroboros.wire.unicast.enrollment import Ack, Configuration, Request, Response

GREETING = Cep("Enrollment", "OEP", 1, 0, 0).encode()
ID = b"12345678"


def member_and_newcomer(*, delay: float = 0.01, clock: float = 0.0) -> tuple[World, Member, Member]:
    world = World(delay=delay)
    member = Member(world, "a", layer="net")
    member.core.settings = UnicastSettings(DirectoryHashAlgo.SHA3_384, unicast=UnicastConfig(dir=_expiring(60)))
    return world, member, Member(world, "b", clock=clock)


def _expiring(seconds: int) -> DirConfig:
    return DirConfig(dht=DhtConfig(t_expire=seconds))


def test_a_newcomer_gets_the_configuration_of_the_layer() -> None:
    world, member, newcomer = member_and_newcomer()
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done
    assert newcomer.configurations == [Configuration("net", member.core.settings, member.core.address)]
    assert member.core.counters["enrollments"] == 1
    assert world.held(member) == world.held(newcomer) == set()
    assert member.enrollment.deadline() is newcomer.enrollment.deadline() is None
    assert newcomer.warnings == member.warnings == []


def test_a_newcomer_of_ours_is_a_connected_member_after_three_round_trips() -> None:
    world, member, newcomer = member_and_newcomer(delay=0.5)
    newcomer.early = True
    newcomer.enroll("a")
    world.run(2.01)
    assert newcomer.core.layer == "net"
    assert not newcomer.management.connections
    world.run(1)
    assert all(each.done for each in newcomer.early_tasks)
    for each in (member, newcomer):
        assert len(each.management.connections) == len(each.transfer.connections) == 1


def test_the_bytes_are_those_of_the_prototype_but_for_the_field_of_ours() -> None:
    world, member, _ = member_and_newcomer()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, GREETING)
    world.run(1)
    world.send(fd, Request(ID).encode())
    world.run(1)
    answer = c.heard[1][2]
    response = enrollment.decode_response(answer)
    assert response.configuration == Configuration("net", member.core.settings, member.core.address)
    assert abs(response.wall - WALL - 1.031 * 10**9) < 10**6
    world.send(fd, Ack(ID).encode())
    world.run(1)
    assert c.gone == [fd]
    assert member.core.counters["enrollments"] == 1


def test_a_newcomer_enrolls_with_a_member_of_the_prototype_and_repeats_nothing() -> None:
    world = World()
    newcomer = Member(world, "b")

    def answer(data: bytes) -> bytes | None:
        if data.startswith(b"\x0a\x0aEnrollment"):
            return GREETING
        if data.startswith(b"\x0a\x08") and len(data) == 10:
            world.at(world.now + 2, lambda: world.send(c.flows[0].fd, _response(data[2:])))
        return None

    def _response(id: bytes) -> bytes:
        return Response(id, WALL + round(world.now * 10**9), Configuration("u", UnicastSettings(), 70_000)).encode()

    c = Puppet(world, "c", answer)
    outcome = newcomer.enroll("c")
    world.run(PATIENCE)
    assert outcome.done
    assert newcomer.configurations[0].peer == 70_000
    (answered, _, greeting), (asked, _, request), (_, _, ack) = c.heard
    # It answers at once. Then the answer is on its way, and after that nothing is sent for a while.
    assert asked - answered == pytest.approx(2 * world.delay + SILENCE)
    id = enrollment.decode_request(request).id
    assert cep.decode(greeting).component == ENROLLMENT
    assert enrollment.decode_ack(ack) == Ack(id)


# --- who may, and who not


def _lets_in(member: Member, who: str | tuple[str, ...]) -> None:
    member.core.settings = UnicastSettings(unicast=UnicastConfig(enroll=who))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("who", "proven", "why"),
    [
        ("anyone", "", ""),
        ("anyone", "bob", ""),
        ("nobody", "bob", "layer 'net' takes no new members (enroll nobody)"),
        ("certified", "", "layer 'net' takes only members that prove who they are"),
        ("certified", "bob", ""),
        (("alice", "bob"), "bob", ""),
        (("alice", "bob"), "", "layer 'net' takes only members that prove who they are"),
        (("alice", "bob"), "b", "'b' is not one of those who may be members of layer 'net'"),
    ],
)
def test_who_may_enroll_is_a_policy(who: str | tuple[str, ...], proven: str, why: str) -> None:
    world, member, newcomer = member_and_newcomer()
    _lets_in(member, who)
    world.certified["b"] = proven
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done is not bool(why)
    assert member.core.counters["enrollments_refused"] == bool(why)
    if why:
        assert f"IPC process 'b' cannot enroll with 'a': it refused: {why}" in outcome.error.replace('"', "")
        assert newcomer.configurations == []
        assert any(f"b may not enroll: {why}" in each for each in member.warnings)
    else:
        # It lets the next one in by the same rule.
        assert newcomer.configurations == [Configuration("net", member.core.settings, member.core.address)]
    world.run(PATIENCE)
    assert world.held(member) == world.held(newcomer) == set()


def test_many_who_may_not_enroll_do_not_fill_the_log() -> None:
    world, member, newcomer = member_and_newcomer()
    _lets_in(member, "nobody")
    for _ in range(100):
        newcomer.enroll("a")
        world.run(0.1)
    assert member.core.counters["enrollments_refused"] == 100
    world.run(2)
    assert 1 <= len(member.warnings) < 50
    counts = [int(each.split()[-7]) for each in member.warnings if "more like that" in each]
    assert len(member.warnings) - len(counts) + sum(counts) == 100


def test_a_newcomer_of_the_prototype_is_let_in_by_default_and_told_nothing_that_it_does_not_know() -> None:
    for who, admitted in (("anyone", True), ("certified", False), (("the C member",), True)):
        world = World()
        member = Member(world, "a", layer="net")
        _lets_in(member, who)
        world.certified["c"] = "" if who == "certified" else "the C member"
        puppet = Puppet(world, "c")
        fd = puppet.flow_to("a")
        for packet in (GREETING, Request(ID).encode()):
            world.send(fd, packet)
            world.run(0.1)
        told = enrollment.decode_response(puppet.heard[-1][2]).configuration
        assert (told is not None) is admitted
        assert told is None or told.settings == UnicastSettings()


@pytest.mark.parametrize("component", [MANAGEMENT, DATA_TRANSFER])
@pytest.mark.parametrize(
    ("who", "proven", "connects"),
    [
        ("anyone", "", True),
        ("nobody", "", True),
        ("certified", "", False),
        ("certified", "bob", True),
        (("alice",), "bob", False),
        (("alice",), "alice", True),
    ],
)
def test_one_that_leaves_enrollment_out_gets_no_further(
    component: str, who: str | tuple[str, ...], proven: str, connects: bool
) -> None:
    world = World()
    member, other = Member(world, "a", layer="net"), Member(world, "b", layer="net")
    _lets_in(member, who)
    world.certified["b"] = proven
    outcome = other.connect(component, "a")
    world.run(1)
    assert outcome.done is connects
    if not connects:
        assert "the layer takes only members that prove who they are" in outcome.error
        assert member.core.counters["greetings_refused"] == 1
    # Who is in connects to whom it wants.
    outcome = member.connect(component, "b")
    world.run(1)
    assert outcome.done


@pytest.mark.parametrize(
    ("clock", "warns", "refuses"), [(0.0, 0, 0), (-0.05, 1, 0), (29.9, 1, 0), (31, 0, 1), (-31, 0, 1)]
)
def test_clocks_that_are_apart_are_told_of_and_far_apart_are_refused(clock: float, warns: int, refuses: int) -> None:
    world, _, newcomer = member_and_newcomer(clock=clock)
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done is not bool(refuses)
    assert len([each for each in newcomer.warnings if "the clock of 'a'" in each]) == warns
    if refuses:
        assert "its clock is 3" in outcome.error
        assert "set the clocks" in outcome.error


def test_a_slow_answer_is_no_wrong_clock() -> None:
    world, _, newcomer = member_and_newcomer(delay=0.4)
    outcome = newcomer.enroll("a")
    world.run(5)
    assert outcome.done
    assert newcomer.warnings == []


def test_what_is_not_taken_at_its_word_is_told() -> None:
    world, member, newcomer = member_and_newcomer()
    member.core.settings.unicast.dt.eid_size = 4
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done
    assert newcomer.configurations[0].settings == UnicastSettings(
        DirectoryHashAlgo.SHA3_384, unicast=UnicastConfig(dir=_expiring(60))
    )
    assert any("endpoint ids of 4 bytes are taken as 8" in each for each in newcomer.warnings)


# --- what goes wrong


def answering(world: World, response: bytes | None) -> tuple[Puppet, Outcome]:
    """A member that answers a newcomer so."""

    def answer(data: bytes) -> bytes | None:
        if data.startswith(b"\x0a\x0aEnrollment"):
            return GREETING
        return response.replace(ID, data[2:10]) if response is not None and data.startswith(b"\x0a\x08") else None

    c = Puppet(world, "c", answer)
    return c, Member(world, "b").enroll("c")


def _welcome(settings: TypeSettings, peer: int | None) -> bytes:
    return Response(ID, WALL, Configuration("net", settings, peer)).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (_welcome(BroadcastSettings(), None), "'net' is a broadcast layer"),
        (Response(b"87654321", WALL, None).encode(), "the request of another"),
        (Response(ID, WALL, None).encode(), "it refused"),
        (b"hello", "its answer makes no sense"),
        (_welcome(UnicastSettings(), 70_000)[:-10], "its answer makes no sense"),
    ],
)
def test_an_answer_that_makes_no_member_ends_in_an_error(response: bytes, why: str) -> None:
    world = World()
    c, outcome = answering(world, response)
    world.run(1)
    assert why in outcome.error
    newcomer = world.nodes["b"]
    assert isinstance(newcomer, Member)
    assert newcomer.configurations == []
    assert world.held(newcomer) == set()
    # And another attempt begins anew.
    assert c.gone
    assert newcomer.enroll("c").answers == []


def test_a_member_that_does_not_answer_is_given_up() -> None:
    world = World()
    c, outcome = answering(world, None)
    world.run(PATIENCE)
    assert outcome.answers == []
    world.run(1)
    assert "it does not answer" in outcome.error
    assert len(c.heard) == 2


def test_nobody_under_that_name_is_an_error_that_says_so() -> None:
    world, _, newcomer = member_and_newcomer()
    outcome = newcomer.enroll("x")
    world.run(1)
    assert outcome.error == "IPC process 'b' cannot enroll with 'x': nobody offers 'x'"


def test_only_one_enrollment_at_a_time() -> None:
    world, _, newcomer = member_and_newcomer()
    first = newcomer.enroll("a")
    assert "it is being enrolled with 'a'" in newcomer.enroll("x").error
    newcomer.enroll_task = first
    world.run(1)
    assert first.done


@pytest.mark.parametrize("steps", range(8))
def test_an_enrollment_can_be_cancelled_at_any_point(steps: int) -> None:
    world, member, newcomer = member_and_newcomer()
    newcomer.early = True
    outcome = newcomer.enroll("a")
    world.run((steps + 0.5) * world.delay)
    newcomer.enrollment.cancel(world.now)
    if outcome.done:
        newcomer.connections.close(world.now)
    world.settle()
    assert outcome.done or "it was cancelled" in outcome.error
    world.run(PATIENCE)
    assert world.held(newcomer) == world.held(member) == set()
    assert newcomer.connections.deadline() is newcomer.enrollment.deadline() is None
    if not outcome.done:
        again = newcomer.enroll("a")
        world.run(1)
        assert again.done
    assert len(newcomer.configurations) == 1


@pytest.mark.parametrize("how", How)
def test_a_flow_that_ends_in_the_middle_ends_the_enrollment(how: How) -> None:
    world, _, newcomer = member_and_newcomer()
    losing(world, 1)
    outcome = newcomer.enroll("a")
    world.run(4.5 * world.delay)
    (fd,) = world.held(newcomer)
    world.cut(fd, how)
    world.settle()
    assert "the flow to it ended" in outcome.error


# --- the member


def test_newcomers_that_are_silent_delay_nobody() -> None:
    world, member, newcomer = member_and_newcomer()
    c = Puppet(world, "c")
    fds = [c.flow_to("a") for _ in range(3)]
    for fd in fds[1:]:
        world.send(fd, GREETING)
    world.run(2 * world.delay)
    world.send(fds[2], Request(ID).encode())
    outcome = newcomer.enroll("a")
    world.run(6 * world.delay)
    assert outcome.done
    world.run(PATIENCE + 1)
    assert world.held(member) == set()
    assert sorted(c.gone) == fds
    assert member.core.counters["enrollments_unfinished"] == 2


def test_newcomers_at_once_are_bounded() -> None:
    world, member, newcomer = member_and_newcomer(delay=0.001)
    c = Puppet(world, "c")
    for _ in range(MOST_NEWCOMERS + 10):
        world.send(c.flow_to("a"), GREETING)
    world.run(2 * world.delay)
    assert len(world.held(member)) == MOST_NEWCOMERS
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done
    assert member.core.counters["enrollments_evicted"] == 11


@pytest.mark.parametrize("said", [b"hello", Request(ID).encode()[:-1], b"\x0a\x00\x10\x00"])
def test_a_request_that_makes_no_sense_ends_the_flow(said: bytes) -> None:
    world, member, _ = member_and_newcomer()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, GREETING)
    world.run(1)
    world.send(fd, said)
    world.run(1)
    assert c.gone == [fd]
    assert any("makes no sense" in each for each in member.warnings)


@pytest.mark.parametrize("said", [b"hello", Ack(ID, -1).encode(), Ack(b"87654321").encode(), b"\x0a\x00\x10\x00"])
def test_an_ack_that_makes_no_sense_ends_the_flow(said: bytes) -> None:
    world, member, _ = member_and_newcomer()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    for each in (GREETING, Request(ID).encode(), said):
        world.send(fd, each)
        world.run(1)
    assert c.gone == [fd]
    assert member.core.counters["enrollments"] == 0
    assert member.warnings


def test_a_request_that_comes_again_is_answered_again() -> None:
    world, member, _ = member_and_newcomer()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    for each in (GREETING, Request(ID).encode(), Request(ID).encode()):
        world.send(fd, each)
        world.run(1)
    assert c.heard[1][2] == c.heard[2][2]
    world.send(fd, Ack(ID).encode())
    world.run(1)
    assert member.core.counters["enrollments"] == 1


def test_a_lost_answer_of_a_member_of_ours_is_asked_for_again() -> None:
    world, _, newcomer = member_and_newcomer()
    # The answer that comes with the greeting, and the request that is sent because it did not come.
    said = losing(world, 2)
    outcome = newcomer.enroll("a")
    world.run(1)
    assert outcome.done
    assert [len(each) for each in said] == [len(said[0]), 10, 10, len(said[0]), 12]


def losing(world: World, count: int) -> list[bytes]:
    """Lose the first messages of enrollments that are not in greetings. Returns all of them, also those to come."""
    said: list[bytes] = []
    send = world.send

    def lossy(fd: int, data: bytes) -> None:
        if data.startswith(b"\x0a\x08"):
            said.append(data)
        if not data.startswith(b"\x0a\x08") or len(said) > count:
            send(fd, data)

    world.send = lossy  # type: ignore[method-assign]
    return said


@pytest.mark.slow
def test_a_hundred_newcomers_enroll_at_once_and_each_connects() -> None:
    world = World(delay=0.01)
    member = Member(world, "m", layer="net")
    newcomers = [Member(world, f"n{number}") for number in range(100)]
    outcomes = []
    for newcomer in newcomers:
        newcomer.early = True
        outcomes.append(newcomer.enroll("m"))
    world.run(6.1 * world.delay)
    assert all(each.done for each in outcomes)
    for component in (MANAGEMENT, DATA_TRANSFER):
        assert len(member.connections.of(component)) == 100
    assert len({each.core.address for each in newcomers}) == 100


@pytest.mark.slow
@pytest.mark.parametrize("lossless", [True, False])
def test_a_line_of_members_grows_at_its_end(lossless: bool) -> None:
    world = World(seed=7, lossless=lossless, delay=0.005)
    members = [Member(world, "m0", layer="net")]
    for number in range(1, 25):
        member = Member(world, f"m{number}")
        # With a tenth of the packets lost, now and then one has to be told twice.
        while not _succeeds(world, partial(member.enroll, f"m{number - 1}")):
            assert not lossless
        for component in (MANAGEMENT, DATA_TRANSFER):
            while not _succeeds(
                world,
                partial(member.connect, component, f"m{number - 1}"),
            ):
                assert not lossless
        members.append(member)
    world.run(60)
    assert len({each.core.address for each in members}) == len(members)
    for number, member in enumerate(members):
        expected = {each.core.address for each in members[max(0, number - 1) : number + 2]} - {member.core.address}
        for component in (MANAGEMENT, DATA_TRANSFER):
            assert {each.address for each in member.connections.of(component)} == expected
        assert member.configurations == [] or member.configurations[0].peer == members[number - 1].core.address
        assert not member.connections.of(ENROLLMENT)


def _succeeds(world: World, attempt: Callable[[], Outcome]) -> bool:
    outcome = attempt()
    while not outcome.answers:
        world.run(0.1)
    return outcome.done
