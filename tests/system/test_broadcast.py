"""Broadcast layers: every packet of a member reaches all other members."""

from __future__ import annotations

import itertools

import pytest
from support import Background, NodeProcess, Programs, Shell, descriptors, node_info, until

from ouroboros.dev import (
    FlowDownException,
    FlowNameException,
    FlowProperties,
    FlowQosException,
    QoSSpec,
    flow_alloc,
    flow_join,
)
from ouroboros.runtime import client
from ouroboros.wire.control import BootstrapIpcp, CreateIpcp, DestroyIpcp, IpcpEntry, ListIpcps


@pytest.fixture
def layer(node: NodeProcess) -> int:
    """The IPC process of the broadcast layer "hall"."""
    ipcp = client.request(CreateIpcp("b0", "broadcast"))
    client.request(BootstrapIpcp(ipcp, "hall"))
    assert isinstance(ipcp, int)
    return ipcp


@pytest.fixture
def members(layer: int, programs: Programs) -> list[Shell]:
    """Three programs that joined, each with its flow in `f`."""
    shells = [programs.shell(f"member{number}") for number in range(3)]
    for shell in shells:
        shell.do("f = flow_join('hall')")
    return shells


def entry(layer: int) -> IpcpEntry:
    found = [each for each in client.request(ListIpcps()) if each.id == layer]
    assert len(found) == 1
    assert isinstance(found[0], IpcpEntry)
    return found[0]


def test_each_member_sees_every_packet_of_the_others_once_and_none_of_its_own(members: list[Shell]) -> None:
    for number, member in enumerate(members):
        member.begin(f"for packet in range(300): f.write(b'{number} %d' % packet)")
    for member in members:
        member.answer()
    for number, member in enumerate(members):
        member.do("got = [f.read() for _ in range(600)]")
        for sender in {0, 1, 2} - {number}:
            sent = [b"%d %d" % (sender, packet) for packet in range(300)]
            assert member.do(f"[packet for packet in got if packet.startswith(b'{sender} ')]") == sent
    # What comes next is new: nothing came twice, and nothing of its own.
    for number, member in enumerate(members):
        member.do(f"f.write(b'end of {number}')")
        for other in members:
            if other is not member:
                assert other.do("f.read()") == b"end of %d" % number


@pytest.mark.parametrize("size", [1, 1400, 1401, 65536, 1 << 20])
def test_packets_of_all_sizes_arrive_whole(members: list[Shell], size: int) -> None:
    members[0].do(f"f.write(b'x' * {size}); f.write(b'next')")
    for member in members[1:]:
        assert member.do(f"f.read() == b'x' * {size}")
        assert member.do("f.read()") == b"next"


def test_a_late_joiner_sees_what_is_written_from_then_on(members: list[Shell], programs: Programs) -> None:
    members[0].do("f.write(b'early')")
    for member in members[1:]:
        assert member.do("f.read()") == b"early"
    late = programs.shell("late")
    late.do("f = flow_join('hall')")
    members[0].do("f.write(b'later')")
    for member in [*members[1:], late]:
        assert member.do("f.read()") == b"later"
    late.do("f.write(b'hello')")
    for member in members:
        assert member.do("f.read()") == b"hello"


def test_the_others_go_on_when_one_leaves(members: list[Shell], layer: int) -> None:
    members[2].do("f.write(b'last words'); f.dealloc()")
    members[0].do("f.write(b'still here')")
    assert members[0].do("f.read()") == b"last words"
    assert members[1].do("[f.read(), f.read()]") == [b"last words", b"still here"]
    until(lambda: entry(layer).members == 2)
    members[2].do("f.join('hall')")
    members[0].do("f.write(b'welcome back')")
    assert members[2].do("f.read()") == b"welcome back"
    assert entry(layer).members == 3


def test_a_member_that_is_killed_disturbs_nobody(members: list[Shell], layer: int, node: NodeProcess) -> None:
    members[2].begin("while True: f.write(b'chatter')")
    assert members[0].do("f.read()") == b"chatter"
    members[2].kill()
    until(lambda: entry(layer).members == 2)
    for member in members[:2]:
        member.do(
            """
            f.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingRead)
            packets = set()
            try:
                while True: packets.add(f.read())
            except FlowWouldBlockException: pass
            f.set_flags(FlowProperties.ReadWrite)
            """
        )
        assert member.do("packets") <= {b"chatter"}
    members[0].do("f.write(b'after')")
    packet = b"chatter"
    while packet == b"chatter":
        packet = members[1].do("f.read()")
    assert packet == b"after"
    assert node_info().flows == 2


def test_a_member_that_does_not_read_blocks_nobody_and_its_losses_are_counted(members: list[Shell], layer: int) -> None:
    writer, reader, sleeper = members
    assert entry(layer).lost == 0
    rounds, batch = 80, 64
    for number in range(rounds):
        writer.do(f"for packet in range({batch}): f.write(b'%05d' % ({number * batch} + packet) * 200)")
        # In step with the reader, so that only the sleeper can lose anything.
        got = reader.do(f"[int(f.read()[:5]) for _ in range({batch})]")
        assert got == list(range(number * batch, (number + 1) * batch))
    kept = sleeper.do(
        """
        f.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingRead)
        kept = []
        try:
            while True: kept.append(int(f.read()[:5]))
        except FlowWouldBlockException: pass
        kept
        """
    )
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < rounds * batch
    assert entry(layer).lost == rounds * batch - len(kept)
    writer.do("f.write(b'awake')")
    assert sleeper.do("f.set_flags(FlowProperties.ReadWrite); f.read()") == b"awake"


def test_a_destroyed_layer_takes_its_flows_down(members: list[Shell], layer: int, node: NodeProcess) -> None:
    members[0].do("f.write(b'queued')")
    assert members[1].do("f.read()") == b"queued"
    members[1].begin_blocked("f.read()", "poll")
    client.request(DestroyIpcp(layer))
    with pytest.raises(FlowDownException):
        members[1].answer()
    assert members[2].do("f.read()") == b"queued"
    for member in members:
        for call in ("f.read()", "f.write(b'x')"):
            with pytest.raises(FlowDownException):
                member.do(call)
        member.do("f.dealloc()")
    with pytest.raises(FlowNameException):
        flow_join("hall")
    until(lambda: node_info().flows == 0)
    assert descriptors(node.pid)["flow memory"] == 0


def test_layers_are_apart(members: list[Shell], programs: Programs) -> None:
    ipcp = client.request(CreateIpcp("b1", "broadcast"))
    client.request(BootstrapIpcp(ipcp, "yard"))
    one, two = programs.shell("one"), programs.shell("two")
    for shell in (one, two):
        shell.do("f = flow_join('yard')")
    one.do("f.write(b'in the yard')")
    members[0].do("f.write(b'in the hall')")
    assert two.do("f.read()") == b"in the yard"
    assert members[1].do("f.read()") == b"in the hall"


def test_a_process_can_join_several_times(layer: int) -> None:
    with flow_join("hall") as one, flow_join("hall") as two:
        one.write(b"to myself")
        assert two.read() == b"to myself"
        two.write(b"and back")
        assert one.read() == b"and back"


def test_a_member_that_refuses_packets_costs_nothing(layer: int) -> None:
    with flow_join("hall") as one, flow_join("hall") as deaf, flow_join("hall") as two:
        deaf.set_flags(FlowProperties.WriteOnly)
        one.write(b"packet")
        assert two.read() == b"packet"
        deaf.write(b"I can speak")
        assert (one.read(), two.read()) == (b"I can speak", b"I can speak")
        assert entry(layer).lost == 0


@pytest.mark.parametrize("qos", [QoSSpec(loss=0), QoSSpec(in_order=1), QoSSpec(cypher_s=128)])
def test_what_a_broadcast_layer_cannot_give_is_refused(layer: int, qos: QoSSpec) -> None:
    with pytest.raises(FlowQosException, match="hall"):
        flow_join("hall", qos)
    assert entry(layer).members == 0


def test_the_qos_of_a_joined_flow_is_what_was_asked_for(layer: int) -> None:
    with flow_join("hall", QoSSpec(delay=5)) as flow:
        assert flow.get_qos() == QoSSpec(delay=5)


@pytest.mark.parametrize("name", ["nowhere", "", "x" * 300])
def test_a_layer_that_is_not_there_cannot_be_joined(layer: int, name: str) -> None:
    with pytest.raises(FlowNameException):
        flow_join(name)


def test_a_layer_that_is_not_a_broadcast_layer_cannot_be_joined(node: NodeProcess) -> None:
    ipcp = client.request(CreateIpcp("l0", "local"))
    client.request(BootstrapIpcp(ipcp, "local"))
    with pytest.raises(FlowNameException):
        flow_join("local")


def test_a_layer_is_no_name_for_an_allocation(layer: int) -> None:
    with pytest.raises(FlowNameException):
        flow_alloc("hall", timeo=0)


def test_members_come_and_go_while_others_talk(layer: int) -> None:
    with flow_join("hall") as talker, flow_join("hall") as listener:
        done = b"done"

        def come_and_go() -> None:
            for _ in range(50):
                flow_join("hall").dealloc()

        guest = Background(come_and_go)
        heard = []
        for number in range(500):
            talker.write(b"%d" % number)
            heard.append(listener.read())
        guest.result()
        talker.write(done)
        assert [*heard, listener.read()] == [*(b"%d" % number for number in range(500)), done]
    until(lambda: entry(layer).members == 0)


def test_joins_of_two_programs_do_not_mix(members: list[Shell]) -> None:
    for one, two in itertools.permutations(members, 2):
        one.do(f"f.write(b'{one.pid}')")
        assert two.do("f.read()") == b"%d" % one.pid
        for other in members:
            if other not in (one, two):
                assert other.do("f.read()") == b"%d" % one.pid


def test_what_is_written_once_join_has_returned_reaches_the_new_member(layer: int) -> None:
    with flow_join("hall") as talker:
        for number in range(500):
            with flow_join("hall") as guest:
                talker.write(b"%d" % number)
                assert guest.read() == b"%d" % number
