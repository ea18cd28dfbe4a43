"""Connections of members: greetings on both sides, what is refused and bounded, and what is never sent to a member of the C
prototype."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from members_world import Member, Puppet, World

from ouroboros.errors import ProtocolError
from ouroboros.layers.effects import written_address
from ouroboros.layers.face import How
from ouroboros.layers.members.connections import (
    ADDRESS_PATIENCE,
    ATTEMPTS,
    GREETING_PATIENCE,
    MOST_STRANGERS,
    PATIENCE,
)
from ouroboros.layers.members.greeting import DATA_TRANSFER, ENROLLMENT, MANAGEMENT
from ouroboros.layers.members.links import MOST_ALIKE, SILENCE, SILENT_PATIENCE
from ouroboros.qos import QOS_DATA, QOS_RAW_NO_ERRORS, QoSSpec
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import Cep, Ours

#: Of a member of the prototype.
ADDRESS = 0x5DE9D31B
#: Its greetings.
GREETINGS = {
    MANAGEMENT: Cep("Management", "LSP", 1, 0, ADDRESS),
    DATA_TRANSFER: Cep("Data Transfer", "dtp", 1, 2, ADDRESS),
    ENROLLMENT: Cep("Enrollment", "OEP", 1, 0, 0),
}
LSU = bytes(24)
BOTH = pytest.mark.parametrize("component", [MANAGEMENT, DATA_TRANSFER])


def two_members(**more: Any) -> tuple[World, Member, Member]:
    world = World(**more)
    return world, Member(world, "a", layer="net"), Member(world, "b", layer="net")


def prototype(world: World, name: str = "c", **fields: Any) -> Puppet:
    """A member of the prototype: it answers greetings, and nothing else."""

    def answer(data: bytes) -> bytes | None:
        try:
            said = cep.decode(data)
        except ProtocolError:
            return None
        return msgspec.structs.replace(GREETINGS[said.component], **fields).encode()

    return Puppet(world, name, answer)


# --- between ours


@BOTH
def test_both_sides_have_a_connection_after_the_greetings(component: str) -> None:
    world, a, b = two_members()
    outcome = a.connect(component, "b")
    world.run(4.1 * world.delay)
    assert outcome.done
    ((here, there),) = zip(a.connections.rows(), b.connections.rows(), strict=True)
    assert (here.component, here.name, here.side, here.address) == (component, "b", 0, b.core.address)
    assert (there.component, there.side, there.address) == (component, 1, a.core.address)
    assert here.ours
    assert there.ours
    assert (here.peer, there.peer) == ("b", "a")
    assert (here.node, there.node) == (b.core.node, a.core.node)


def test_what_is_said_over_management_is_heard_and_data_transfer_is_handed_over() -> None:
    world, a, b = two_members()
    a.connect(MANAGEMENT, "b")
    a.connect(DATA_TRANSFER, "b")
    world.run(1)
    for member, fd in ((a, next(iter(a.management.connections))), (b, next(iter(b.management.connections)))):
        member.core.message(fd, LSU)
    world.settle()
    world.run(1)
    assert a.management.packets == b.management.packets == [LSU]
    for member in (a, b):
        (fd,) = member.transfer.connections
        assert world.ends[fd].stage == "handed"


@BOTH
def test_a_connected_member_is_connected_without_a_second_flow(component: str) -> None:
    world, a, b = two_members()
    a.connect(component, "b")
    world.run(1)
    for member, name in ((a, "b"), (a, written_address(b.core.address)), (b, "a")):
        outcome = member.connect(component, name)
        assert outcome.done
    world.run(1)
    assert len(world.held(a)) == len(world.held(b)) == 1


def test_another_name_of_a_connected_member_leads_to_no_second_flow_for_long() -> None:
    world, a, b = two_members()
    world.nodes["alias"] = b
    a.connect(MANAGEMENT, "b")
    world.run(1)
    outcome = a.connect(MANAGEMENT, "alias")
    world.run(1)
    assert outcome.done
    assert len(world.held(a)) == len(world.held(b)) == 1
    assert a.connect(MANAGEMENT, "alias").done
    assert len(a.connections.rows()) == len(b.connections.rows()) == 1


def test_requests_for_the_same_connection_share_one_flow() -> None:
    world, a, _ = two_members()
    outcomes = [a.connect(MANAGEMENT, "b") for _ in range(3)]
    world.run(1)
    assert all(each.done for each in outcomes)
    assert len(world.held(a)) == 1


def test_members_that_connect_to_each_other_at_once_are_connected() -> None:
    world, a, b = two_members()
    outcomes = a.connect(MANAGEMENT, "b"), b.connect(MANAGEMENT, "a")
    world.run(1)
    assert all(each.done for each in outcomes)
    assert len(a.management.connections) == len(b.management.connections) >= 1


def test_disconnecting_ends_both_sides_and_the_peer_knows_that_it_was_meant() -> None:
    world, a, b = two_members()
    for component in (MANAGEMENT, DATA_TRANSFER):
        a.connect(component, "b")
    world.run(1)
    outcome = a.disconnect(DATA_TRANSFER, "b")
    world.run(1)
    assert outcome.done
    assert not a.transfer.connections
    assert not b.transfer.connections
    assert b.transfer.events[-1][0] == "disconnected"
    assert b.transfer.events[-1][1].left
    assert len(a.management.connections) == len(b.management.connections) == 1
    # From the side that was asked, by the name of the other.
    assert b.disconnect(MANAGEMENT, "a").done
    world.run(1)
    assert a.management.events[-1][1].left
    assert world.held(a) == world.held(b) == set()


def test_a_lost_flow_was_not_meant() -> None:
    world, a, b = two_members()
    a.connect(MANAGEMENT, "b")
    world.run(1)
    for member in (a, b):
        (fd,) = member.management.connections
        world.cut(fd)
        event, connection = member.management.events[-1]
        assert event == "disconnected"
        assert not connection.left


def test_disconnecting_from_nobody_says_who_there_is() -> None:
    world, a, _ = two_members()
    a.connect(MANAGEMENT, "b")
    world.run(1)
    assert a.disconnect(MANAGEMENT, "x").error.endswith("has no Management connection with 'x'; it has with: b")
    assert a.disconnect(DATA_TRANSFER, "b").error.endswith("it has with: nobody")


def test_a_connection_that_is_asked_for_can_be_disconnected() -> None:
    world, a, b = two_members()
    outcome = a.connect(MANAGEMENT, "b")
    world.run(3 * world.delay)
    assert a.disconnect(MANAGEMENT, "b").done
    world.run(1)
    assert "told to disconnect" in outcome.error
    assert world.held(a) == world.held(b) == set()


def test_closing_lets_go_of_everything_and_management_goes_last() -> None:
    world, a, b = two_members()
    for component in (MANAGEMENT, DATA_TRANSFER):
        a.connect(component, "b")
    world.run(1)
    waiting = a.connect(MANAGEMENT, "nobody")
    a.connections.close(world.now)
    world.settle()
    assert "it is over" in waiting.error
    assert world.held(a) == set()
    assert a.connections.rows() == []
    world.run(1)
    assert b.connections.rows() == []
    assert world.held(b) == set()
    # And again.
    assert a.connect(MANAGEMENT, "b").answers == []
    world.run(1)
    assert len(b.management.connections) == 1


def test_silence_of_a_neighbour_is_told_and_so_is_its_return() -> None:
    world, a, _ = two_members()
    a.connect(MANAGEMENT, "b")
    world.run(1)
    ((fd, connection),) = a.management.connections.items()
    a.connections.lower_state(fd, False, world.now)
    assert a.management.events[-1] == ("down", connection)
    world.run(SILENT_PATIENCE - 0.1)
    a.connections.lower_state(fd, True, world.now)
    assert a.management.events[-1] == ("up", connection)
    world.run(SILENT_PATIENCE)
    assert a.connections.rows() == [connection]
    assert a.connections.deadline() is None


@BOTH
def test_a_neighbour_that_stays_silent_is_gone(component: str) -> None:
    world, a, _ = two_members()
    a.connect(component, "b")
    world.run(1)
    (connection,) = a.connections.rows()
    a.connections.lower_state(connection.fd, False, world.now)
    world.run(SILENT_PATIENCE + 0.1)
    recorder = a.management if component == MANAGEMENT else a.transfer
    assert recorder.events[-1] == ("disconnected", connection)
    assert not connection.left
    assert world.held(a) == set()


@BOTH
def test_a_silent_neighbour_can_be_connected_anew_in_place_of_the_old_flow(component: str) -> None:
    world, a, b = two_members(tells_ends=False)
    a.connect(component, "b")
    world.run(1)
    for member in (a, b):
        (connection,) = member.connections.rows()
        member.connections.lower_state(connection.fd, False, world.now)
    assert a.connect(component, "b").answers == []
    world.run(1)
    for member in (a, b):
        (connection,) = member.connections.rows()
        assert connection.up
        assert len(world.held(member)) == 1
        assert member.connections.deadline() is None


def test_flows_that_are_asked_for_before_there_is_an_address_wait_for_it() -> None:
    world = World()
    a, b = Member(world, "a"), Member(world, "b", layer="net")
    outcome = a.connect(MANAGEMENT, "b")
    world.run(0.5)
    assert len(world.held(a)) == 1
    assert world.ends[1].says == []
    a.core.address = 70_000
    a.connections.opened(world.now)
    world.settle()
    world.run(2 * world.delay)
    assert outcome.done
    assert b.connections.rows()[0].address == 70_000


def test_an_address_that_never_comes_ends_in_an_error() -> None:
    world = World()
    a, _ = Member(world, "a"), Member(world, "b", layer="net")
    outcome = a.connect(MANAGEMENT, "b")
    world.run(ATTEMPTS * (ADDRESS_PATIENCE + 1))
    assert "got no address" in outcome.error
    assert world.held(a) == set()


def test_a_process_that_is_in_no_layer_takes_no_flows() -> None:
    world = World()
    a, b = Member(world, "a", layer="net"), Member(world, "b")
    outcome = a.connect(MANAGEMENT, "b")
    world.run(PATIENCE)
    assert "ended before it answered" in outcome.error
    assert world.held(b) == set()


# --- what goes wrong


def test_an_unknown_component_is_none_of_ours() -> None:
    world, a, _ = two_members()
    assert "there are Enrollment, Management, Data Transfer" in a.connect("Marketing", "b").error
    assert world.held(a) == set()


def test_an_error_of_the_layers_below_is_that_of_the_connection() -> None:
    world, a, _ = two_members()
    outcome = a.connect(MANAGEMENT, "nobody")
    world.run(1)
    assert "nobody offers" in outcome.error


def test_a_name_that_does_not_answer_is_tried_again_and_given_up() -> None:
    world, a, _ = two_members()
    world.deaf.add("deaf")
    outcome = a.connect(MANAGEMENT, "deaf")
    world.run(PATIENCE - 3)
    assert outcome.answers == []
    world.run(3)
    assert "no answer" in outcome.error


def test_a_peer_that_does_not_greet_is_tried_three_times() -> None:
    world, a, _ = two_members()
    mute = Puppet(world, "mute")
    outcome = a.connect(MANAGEMENT, "mute")
    world.run(ATTEMPTS * (GREETING_PATIENCE + 2 * world.delay) - 0.001)
    assert outcome.answers == []
    world.run(0.002)
    assert "did not answer our greeting" in outcome.error
    assert len(mute.heard) == ATTEMPTS
    assert len({fd for _, fd, _ in mute.heard}) == ATTEMPTS
    assert world.held(a) == set()


def test_packets_that_overtake_the_answer_are_heard_behind_it() -> None:
    world, a, _ = two_members()

    def answer(data: bytes) -> bytes:
        world.send(c.flows[0].fd, b"\0" * 23 + b"\1")
        world.send(c.flows[0].fd, b"\0" * 23 + b"\2")
        return GREETINGS[MANAGEMENT].encode()

    c = Puppet(world, "c", answer)
    outcome = a.connect(MANAGEMENT, "c")
    world.run(1)
    assert outcome.done
    assert [packet[-1] for packet in a.management.packets] == [1, 2]


def test_packets_that_overtake_the_answer_of_data_transfer_are_counted() -> None:
    world, a, _ = two_members()

    def answer(data: bytes) -> bytes:
        world.send(c.flows[0].fd, bytes(64))
        return GREETINGS[DATA_TRANSFER].encode()

    c = Puppet(world, "c", answer)
    assert a.connect(DATA_TRANSFER, "c").answers == []
    world.run(1)
    assert len(a.transfer.connections) == 1
    assert a.core.counters["overtook_greeting"] == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"protocol": "XSP"}, "it speaks 'XSP' 1 for 'Management' with syntax 0, and we 'LSP' 1"),
        ({"version": 2}, "it speaks 'LSP' 2"),
        ({"syntax": 2}, "with syntax 2, and we"),
        ({"component": "Enrollment"}, "for 'Enrollment'"),
        ({"address": 0}, "members have addresses from 65536 on"),
        ({"address": 65_535}, "members have addresses from 65536 on"),
        ({"component": "", "protocol": "", "version": 0, "address": 0}, "has no component 'Management'"),
        ({"ours": Ours(0, 9, 1)}, "more than 8 layers over one another"),
        ({"ours": Ours(cep.DEEP, 1, 1), "component": ""}, "more than 8 layers over one another"),
        ({"ours": Ours(cep.TAKEN, 1, 1), "component": ""}, "our address is that of another member"),
    ],
)
def test_an_answer_that_does_not_fit_is_no_connection(fields: dict[str, Any], why: str) -> None:
    world, a, _ = two_members()
    prototype(world, **fields)
    outcome = a.connect(MANAGEMENT, "c")
    world.run(1)
    assert why in outcome.error
    assert world.held(a) == set()
    assert a.management.events == []
    assert a.collisions == (ATTEMPTS if "another member" in why else 0)


def test_a_member_with_the_address_of_one_of_the_prototype_takes_another() -> None:
    world, a, _ = two_members()
    prototype(world)
    a.core.address = ADDRESS
    outcome = a.connect(MANAGEMENT, "c")
    world.run(1)
    assert outcome.done
    assert a.collisions == 1
    assert a.core.address != ADDRESS
    assert len(a.management.connections) == 1


def test_a_member_whose_address_one_of_the_prototype_has_takes_another() -> None:
    world, a, b = two_members()
    a.core.address = ADDRESS
    a.connect(MANAGEMENT, "b")
    world.run(1)
    c = Puppet(world, "c")
    world.send(c.flow_to("a"), GREETINGS[MANAGEMENT].encode())
    world.run(1)
    assert a.collisions == 1
    assert a.management.events[-1][0] == b.management.events[-1][0] == "disconnected"
    assert not a.management.events[-1][1].left


@pytest.mark.parametrize(
    "said",
    [
        Cep("Marketing", "LSP", 1, 0, ADDRESS),
        Cep("", "", 0, 0, 0),
        Cep("Management", "LSP", 2, 0, ADDRESS),
        Cep("Management", "dtp", 1, 0, ADDRESS),
        Cep("Management", "LSP", 1, 0, 0),
        Cep("Management", "LSP", 1, 0, 1000),
        Cep("Data Transfer", "", 0, 0, 0),
        Cep("Management", "LSP", 1, 0, ADDRESS, Ours(0, 9, 1)),
    ],
)
def test_a_greeting_that_does_not_fit_is_refused_in_the_words_of_the_prototype(said: Cep) -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    world.send(c.flow_to("a"), said.encode())
    world.run(1)
    ((_, _, answer),) = c.heard
    assert answer.startswith(bytes.fromhex("0a001200180028004000"))
    assert a.management.events == a.transfer.events == []
    assert world.held(a) == set()
    assert a.core.counters["greetings_refused"] == 1


def test_bytes_that_are_no_greeting_end_the_flow_without_a_word() -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    world.send(c.flow_to("a"), b"hello")
    world.run(1)
    assert c.heard == []
    assert world.held(a) == set()
    assert a.core.counters["greetings_bad"] == 1


def test_a_silent_stranger_is_let_go_and_delays_nobody() -> None:
    world, a, b = two_members()
    Puppet(world, "c").flow_to("b")
    outcome = a.connect(MANAGEMENT, "b")
    world.run(4.1 * world.delay)
    assert outcome.done
    world.run(GREETING_PATIENCE)
    assert len(world.held(b)) == 1
    assert b.core.counters["greetings_missed"] == 1


def test_a_flood_of_silent_strangers_is_bounded_and_keeps_nobody_out() -> None:
    world, a, b = two_members()
    c = Puppet(world, "c")
    for number in range(3 * MOST_STRANGERS):
        world.ask(c, number, "b", QoSSpec(), 10)
    world.run(2 * world.delay)
    assert len(world.held(b)) == MOST_STRANGERS
    outcome = a.connect(MANAGEMENT, "b")
    world.run(4.1 * world.delay)
    assert outcome.done
    assert b.core.counters["greetings_evicted"] == 2 * MOST_STRANGERS + 1


def test_a_name_that_leads_to_ourselves_says_so() -> None:
    world, a, _ = two_members()
    outcome = a.connect(MANAGEMENT, "a")
    world.run(1)
    assert "leads to this IPC process itself" in outcome.error
    assert world.held(a) == set()


@pytest.mark.parametrize("whose", ["b", "a"])
def test_a_newcomer_with_the_address_of_a_member_or_of_its_neighbour_takes_another(whose: str) -> None:
    world, a, b = two_members()
    c = Member(world, "c", layer="net")
    a.connect(MANAGEMENT, "b")
    world.run(1)
    c.core.address = a.core.address if whose == "a" else b.core.address
    outcomes = [c.connect(component, "b") for component in (MANAGEMENT, DATA_TRANSFER)]
    world.run(1)
    assert all(each.done for each in outcomes)
    assert c.collisions == 1
    assert a.collisions == b.collisions == 0
    assert len({a.core.address, b.core.address, c.core.address}) == 3
    assert {each.address for each in b.management.connections.values()} == {a.core.address, c.core.address}


def test_one_that_is_asked_and_has_the_address_of_a_neighbour_is_told_and_takes_another() -> None:
    world, a, b = two_members()
    c = Member(world, "c", layer="net")
    a.connect(MANAGEMENT, "b")
    world.run(1)
    c.core.address = b.core.address
    outcomes = [a.connect(component, "c") for component in (MANAGEMENT, DATA_TRANSFER)]
    world.run(1)
    assert all("is that of a neighbour" in each.error for each in outcomes)
    assert (a.collisions, b.collisions, c.collisions) == (0, 0, 1)
    assert a.connect(MANAGEMENT, "c").answers == []
    world.run(1)
    assert {each.address for each in a.management.connections.values()} == {b.core.address, c.core.address}


def test_one_that_is_told_and_keeps_the_address_all_the_same_has_it_and_the_other_takes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member takes another address once an hour only: two of one address would be so for an hour."""
    world, a, b = two_members()
    monkeypatch.setattr(a.connections, "_collided", lambda now: None)
    a.core.address = b.core.address
    for _ in range(2):
        for component in (MANAGEMENT, DATA_TRANSFER):
            a.connect(component, "b")
        world.run(0.4)
    # It may not know yet.
    assert b.collisions == 0
    world.run(1)
    outcome = a.connect(MANAGEMENT, "b")
    world.run(1)
    assert "our address is that of another member" in outcome.error
    assert b.collisions == 1
    outcome = a.connect(MANAGEMENT, "b")
    world.run(1)
    assert outcome.done


def test_a_name_leads_to_a_member_and_not_to_whoever_has_its_address_now() -> None:
    world, a, b = two_members()
    c = Member(world, "c", layer="net")
    a.connect(MANAGEMENT, "b")
    world.run(1)
    for each in a.connections.rows():
        a.connections.release(each, world.now)
    c.core.address, b.core.address = b.core.address, c.core.address
    c.connect(MANAGEMENT, "a")
    world.run(1)
    outcome = a.connect(MANAGEMENT, "b")
    world.run(1)
    assert outcome.done
    assert [each.peer for each in a.connections.rows()] == ["c", "b"]


@pytest.mark.parametrize("ends", [False, True])
def test_management_is_as_silent_as_data_transfer_until_that_is_back(ends: bool) -> None:
    world, a, _ = two_members()
    for component in (MANAGEMENT, DATA_TRANSFER):
        a.connect(component, "b")
    world.run(1)
    (management,), (transfer,) = a.connections.of(MANAGEMENT), a.connections.of(DATA_TRANSFER)
    a.connections.lower_state(transfer.fd, False, world.now)
    assert (management.up, a.management.events[1:]) == (False, [("down", management)])
    if ends:
        world.run(SILENT_PATIENCE + 1)
        assert a.connections.rows() == []
    else:
        a.connections.lower_state(transfer.fd, True, world.now)
        assert (management.up, a.management.events[2:]) == (True, [("up", management)])


def test_management_that_is_silent_itself_stays_so() -> None:
    world, a, _ = two_members()
    for component in (MANAGEMENT, DATA_TRANSFER):
        a.connect(component, "b")
    world.run(1)
    (management,), (transfer,) = a.connections.of(MANAGEMENT), a.connections.of(DATA_TRANSFER)
    a.connections.lower_state(management.fd, False, world.now)
    for up in (False, True):
        a.connections.lower_state(transfer.fd, up, world.now)
    assert (management.up, transfer.up) == (False, True)


def test_one_of_two_data_connections_is_enough_for_management() -> None:
    world, a, b = two_members()
    a.connect(MANAGEMENT, "b")
    for one, other in ((a, "b"), (b, "a")):
        one.connect(DATA_TRANSFER, other)
    world.run(1)
    (management,), transfer = a.connections.of(MANAGEMENT), a.connections.of(DATA_TRANSFER)
    assert len(transfer) == 2
    a.connections.lower_state(transfer[0].fd, False, world.now)
    assert management.up
    a.connections.lower_state(transfer[1].fd, False, world.now)
    assert not management.up


@pytest.mark.parametrize("component", [MANAGEMENT, DATA_TRANSFER])
@pytest.mark.parametrize("ours", [None, Ours(0, 1, 0xBAD, "b")], ids=["prototype", "node"])
def test_nobody_else_has_the_address_of_a_neighbour_of_ours(component: str, ours: Ours | None) -> None:
    """Packets for that neighbour would go there."""
    world, a, b = two_members()
    for each in (MANAGEMENT, DATA_TRANSFER):
        a.connect(each, "b")
    world.run(1)
    before = [each.fd for each in a.connections.rows()]
    c = Puppet(world, "c")
    said = msgspec.structs.replace(GREETINGS[component], address=b.core.address, ours=ours)
    for _ in range(2 * MOST_ALIKE):
        world.send(c.flow_to("a"), said.encode())
        world.run(0.1)
    assert [each.fd for each in a.connections.rows()] == before
    assert a.core.counters["greetings_refused"] == 2 * MOST_ALIKE


def test_a_collision_that_nobody_heeds_is_an_error() -> None:
    world, a, b = two_members()
    a.connections._collided = None
    a.core.address = b.core.address
    outcome = a.connect(MANAGEMENT, "b")
    world.run(1)
    assert "our address is that of another member" in outcome.error
    assert a.connections.rows() == []


def test_a_member_that_comes_back_with_its_address_is_the_same() -> None:
    world, a, b = two_members(tells_ends=False)
    a.connect(MANAGEMENT, "b")
    world.run(1)
    again = Member(world, "a", layer="net")
    again.core.address, again.core.node = a.core.address, a.core.node
    outcome = again.connect(MANAGEMENT, "b")
    world.run(1)
    assert outcome.done
    assert len(b.management.connections) == 2


def test_connections_with_one_member_are_bounded_and_the_oldest_go_first() -> None:
    world, a, _ = two_members(tells_ends=False)
    c = Puppet(world, "c")
    for _ in range(MOST_ALIKE + 1):
        world.send(c.flow_to("a"), GREETINGS[MANAGEMENT].encode())
        world.run(1)
    assert len(a.management.connections) == MOST_ALIKE
    assert a.management.events[-2] == ("disconnected", a.management.events[0][1])


def test_layers_over_layers_end_at_the_eighth() -> None:
    world, a, b = two_members()
    a.core.rank = 8
    assert a.connect(MANAGEMENT, "b").answers == []
    world.run(1)
    assert b.connections.rank == 8
    a.core.rank = 9
    outcome = b.connect(DATA_TRANSFER, "a")
    world.run(1)
    assert "more than 8 layers over one another" in outcome.error


# --- towards the prototype


@BOTH
def test_a_member_of_the_prototype_is_left_in_silence_behind_the_greetings(component: str) -> None:
    world, a, _ = two_members()
    c = prototype(world)
    outcome = a.connect(component, "c")
    world.run(4 * world.delay + SILENCE - 0.001)
    recorder = a.management if component == MANAGEMENT else a.transfer
    assert recorder.connections == {}
    assert [each.address for each in a.connections.rows()] == [ADDRESS]
    world.run(0.002)
    ((_, connection),) = recorder.connections.items()
    assert outcome.done
    assert not connection.ours
    assert connection.peer == ""
    assert len(c.heard) == 1


def test_a_member_of_the_prototype_that_asks_is_left_in_silence_as_well() -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, GREETINGS[MANAGEMENT].encode())
    world.send(fd, LSU)
    world.run(world.delay + SILENCE - 0.001)
    assert a.management.connections == {}
    world.run(1)
    assert len(a.management.connections) == 1
    assert a.management.packets == [LSU]
    assert len(c.heard) == 1


@BOTH
@pytest.mark.parametrize("end", ["cut", "disconnect", "close"])
def test_a_connection_can_end_in_the_silence(component: str, end: str) -> None:
    world, a, _ = two_members()
    prototype(world)
    a.connect(component, "c")
    world.run(4.1 * world.delay)
    (connection,) = a.connections.rows()
    if end == "cut":
        world.cut(connection.fd)
    elif end == "disconnect":
        assert a.disconnect(component, "c").done
    else:
        a.connections.close(world.now)
    world.settle()
    assert world.held(a) == set()
    world.run(1)
    assert a.connections.rows() == []
    assert a.management.events == a.transfer.events == []


def test_silence_of_the_lower_flow_in_that_time_is_told_behind_it() -> None:
    world, a, _ = two_members()
    prototype(world)
    a.connect(MANAGEMENT, "c")
    world.run(4.1 * world.delay)
    (connection,) = a.connections.rows()
    a.connections.lower_state(connection.fd, False, world.now)
    world.run(1)
    assert a.management.events == [("connected", connection), ("down", connection)]


@pytest.mark.parametrize("qos", [QOS_DATA, QOS_RAW_NO_ERRORS])
def test_data_transfer_is_raw_unless_it_is_known_to_be_with_ours(qos: QoSSpec) -> None:
    world, a, _ = two_members()
    prototype(world)
    assert "raw flows only" in a.connect(DATA_TRANSFER, "b", qos).error
    for name in ("b", "c"):
        a.connect(MANAGEMENT, name)
    world.run(1)
    assert "raw flows only" in a.connect(DATA_TRANSFER, "c", qos).error
    outcome = a.connect(DATA_TRANSFER, "b", qos)
    world.run(1)
    assert outcome.done


def test_a_member_of_the_prototype_that_asks_for_ordered_data_transfer_is_refused() -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    world.send(c.flow_to("a", QOS_DATA), GREETINGS[DATA_TRANSFER].encode())
    world.run(1)
    assert [data[:10].hex() for _, _, data in c.heard] == ["0a001200180028004000"]
    assert a.transfer.events == []
    assert any("raw flows only" in each for each in a.warnings)


def test_many_refused_greetings_do_not_fill_the_log() -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    for _ in range(100):
        world.send(c.flow_to("a", QOS_DATA), GREETINGS[DATA_TRANSFER].encode())
    world.run(3)
    assert a.core.counters["greetings_refused"] == 100
    counts = [int(each.split()[0]) for each in a.warnings if "more like that" in each]
    assert (len(a.warnings) - len(counts), sum(counts)) == (20, 80)


def test_a_member_of_the_prototype_that_is_disconnected_hears_nothing() -> None:
    world, a, _ = two_members()
    c = prototype(world)
    for component in (MANAGEMENT, DATA_TRANSFER):
        a.connect(component, "c")
    world.run(1)
    assert a.disconnect(DATA_TRANSFER, "c").done
    assert a.disconnect(MANAGEMENT, "c").done
    world.run(1)
    assert len(c.heard) == 2


def test_only_neighbours_of_ours_end_connections_by_a_message() -> None:
    world, a, _ = two_members()
    c = Puppet(world, "c")
    fd = c.flow_to("a")
    world.send(fd, GREETINGS[MANAGEMENT].encode())
    world.run(1)
    leaving = msgspec.structs.replace(GREETINGS[MANAGEMENT], ours=Ours(cep.LEAVING, 1, 1)).encode()
    world.send(fd, leaving)
    world.run(1)
    assert a.management.packets == [leaving]
    assert len(a.management.connections) == 1


@pytest.mark.parametrize("how", How)
def test_a_flow_that_ends_before_the_greeting_is_tried_again(how: How) -> None:
    world, a, _ = two_members()
    c = prototype(world)
    outcome = a.connect(MANAGEMENT, "c")
    world.run(2 * world.delay)
    (fd,) = world.held(a)
    world.cut(fd, how)
    world.run(1)
    assert outcome.done
    assert len(c.flows) == 2
