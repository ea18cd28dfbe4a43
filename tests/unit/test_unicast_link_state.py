"""Link-state routing of one member or a few: what it announces, to whom, with what numbers, and what it believes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from routing_world import EPOCH, Flow, Link, Member, World, lay, oracle, shape

from ouroboros.layers.face import Size
from ouroboros.layers.unicast.claims import LAST_NUMBER, MOST
from ouroboros.layers.unicast.database import MOST_OF_ONE, OURS, Life
from ouroboros.layers.unicast.flooding import MOST_ASKED, PAUSE, SEVERAL
from ouroboros.layers.unicast.link_state import MOST_AHEAD, Row
from ouroboros.layers.unicast.own_links import REFRESHMENT
from ouroboros.settings import MTU, DtConfig, LinkStatePolicy, UnicastConfig
from ouroboros.wire.unicast import lsu
from ouroboros.wire.unicast.lsu import MOST_NUMBER, LinkStateUpdate, Updates

A, B, C, D, E = 0x5DE9D31B, 0x80ACF665, 0x07C0FBAC, 0x12345678, 0x23456789
CLOCK = EPOCH << 16


class Wire:
    """What goes over the management flows of a world, by sender and receiver."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.packets: list[tuple[float, int, int, bytes]] = []
        world.watch = lambda sender, receiver, data: self.packets.append(
            (world.now, sender.address, receiver.address, data)
        )

    def updates(self, sender: int, receiver: int) -> list[LinkStateUpdate]:
        found: list[LinkStateUpdate] = []
        for _, *ends, data in self.packets:
            if ends == [sender, receiver]:
                message = lsu.decode(data, ours=True)
                if isinstance(message, LinkStateUpdate):
                    found.append(message)
                elif isinstance(message, Updates):
                    found += message.updates
        return found

    def said(self, sender: int, receiver: int) -> list[tuple[int, int]]:
        """Source and destination of what was told."""
        return [(each.source, each.destination) for each in self.updates(sender, receiver)]

    def times(self, sender: int, receiver: int) -> list[float]:
        return [when for when, *ends, _ in self.packets if ends == [sender, receiver]]


def world_of(*members: int, prototypes: tuple[int, ...] = ()) -> World:
    world = World()
    for address in members:
        world.add(address, ours=address not in prototypes)
    return world


def rows(member: Member) -> dict[tuple[int, int], Row]:
    return {(row.source, row.destination): row for row in member.link_state.rows(0.0)}


def hear(world: World, member: Member, link: Link, *updates: LinkStateUpdate | Updates) -> None:
    """The other end of a link says that."""
    fd = link.fds[link.ends.index(member)]
    flow, _ = member.flows[fd]
    for update in updates:
        world.do(member, lambda part, update=update: part.heard(flow, update.encode(), world.now))  # type: ignore[misc]


class TestTwoMembers:
    def test_two_of_ours_have_routes_after_one_exchange(self) -> None:
        world = world_of(A, B)
        world.connect(A, B)
        world.run(4 * world.delay)
        assert world.members[A].table == {B: (B,)}
        assert world.members[B].table == {A: (A,)}
        assert world.members[A].spread is False

    def test_nothing_is_sent_any_more_when_all_is_known(self) -> None:
        world = world_of(A, B)
        world.connect(A, B)
        world.run(1.0)
        packets = world.packets
        world.run(300.0)
        assert world.packets == packets

    def test_numbers_come_from_the_clock(self) -> None:
        world = world_of(A, B)
        world.connect(A, B)
        world.run(1.0)
        assert rows(world.members[B])[A, B].number == CLOCK
        assert CLOCK > OURS

    def test_a_clock_that_is_not_set_gives_numbers_of_ours_all_the_same(self) -> None:
        world = world_of(A, B)
        object.__setattr__(world.members[A].core.host, "wall", lambda: 0)
        world.connect(A, B)
        world.run(1.0)
        assert rows(world.members[B])[A, B].number == OURS
        assert world.members[B].link_state.ours(A)

    def test_cut_is_told_and_the_table_is_emptied(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(1.0)
        assert world.members[A].table == {B: (B,), C: (B,)}
        world.cut(B, C)
        world.run(1.0)
        assert world.members[A].table == {B: (B,)}
        assert rows(world.members[A])[B, C].life is Life.WITHDRAWN
        world.cut(A, B)
        world.run(1.0)
        assert world.members[A].table == {}

    def test_member_that_leaves_says_so(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(1.0)
        world.do(world.members[C], lambda part: part.close(world.now))
        world.run(2 * world.delay)
        assert rows(world.members[B])[C, B].life is Life.WITHDRAWN
        assert world.members[A].table == {B: (B,)}

    @pytest.mark.parametrize("policy", list(LinkStatePolicy))
    def test_policy_of_the_layer(self, policy: LinkStatePolicy) -> None:
        world = World(pol=policy)
        lay(world, shape("ring", 6))
        world.run(2.0)
        for member in world.ours():
            assert member.table == oracle(world.announced(), member.address, policy)
            assert member.spread is (policy is LinkStatePolicy.ECMP)


class TestPace:
    def test_news_of_all_cross_many_members_without_a_pause_at_each(self) -> None:
        world = World()
        lay(world, shape("line", 40))
        world.run(40 * (world.delay + PAUSE / 3))
        assert all(len(rows(member)) == 2 * 39 for member in world.members.values())

    @pytest.mark.parametrize("source", [B, D], ids=["question", "news"])
    def test_what_is_said_again_and_again_is_passed_on_once_a_pause(self, source: int) -> None:
        """Of the one that hears it, as it is to answer; and of any other member."""
        world = world_of(A, B, C)
        wire = Wire(world)
        world.connect(A, B)
        lies = world.connect(C, A)
        world.run(3.0)
        begun, step = world.now, PAUSE / 9
        for number in range(100):
            said = LinkStateUpdate(E, source, CLOCK + (1 << 20) + number)
            hear(world, world.members[A], lies, Updates(number, (said,)))
            # What else there is to tell makes the lie no quicker.
            other = LinkStateUpdate(E, C, CLOCK + (1 << 20) + number)
            hear(world, world.members[A], lies, Updates(1000 + number, (other,)))
            world.run(step)
        told = [
            when
            for when, *ends, data in wire.packets
            if ends == [A, B]
            and when > begun
            and isinstance(message := lsu.decode(data, ours=True), Updates)
            and any((each.source, each.destination) == (source, E) for each in message.updates)
        ]
        assert 5 < len(told) < 15
        # News begin a pause or come within it, once each; a question only begins one.
        apart = 1 if source == B else 2
        assert all(after - before > 0.999 * PAUSE for before, after in zip(told, told[apart:], strict=False))

    def test_neighbour_that_is_of_the_prototype_after_all_is_told_at_its_pace(self) -> None:
        """Found as a time that stood still."""
        world = world_of(A, B, C, D)
        link = world.connect(A, B)
        world.run(3.0)
        flow, _ = world.members[A].flows[link.fds[link.ends.index(world.members[A])]]
        world.connect(A, C)
        world.run(PAUSE / 2)
        flow.ours = False
        world.connect(A, D)
        world.run(3.0)
        assert world.members[A].table.keys() >= {C, D}


class TestWithThePrototype:
    def test_golden_updates(self) -> None:
        """`unicast-control.md` 13.3, but for our numbers: link, then the other one's, which is not sent back to it."""
        world = world_of(A, B, prototypes=(A,))
        wire = Wire(world)
        world.connect(A, B)
        world.run(0.1)
        sent = [data.hex() for _, sender, _, data in wire.packets if sender == B]
        assert sent == [f"000000005de9d31b0000000080acf665{CLOCK:016x}", *sent[1:]]
        assert [data.hex() for _, sender, _, data in wire.packets if sender == A] == [
            "0000000080acf665000000005de9d31b0000000000000000"
        ]
        assert world.members[B].table == {A: (A,)}

    def test_nothing_is_sent_for_20_ms(self) -> None:
        """`unicast-control.md` N45."""
        world = world_of(A, B, prototypes=(A,))
        wire = Wire(world)
        world.connect(A, B)
        world.run(1.0)
        assert min(wire.times(B, A)) == pytest.approx(0.02)

    def test_copy_is_in_the_order_of_the_prototype_and_paced(self) -> None:
        world = world_of(A, B, C, *range(1 << 17, (1 << 17) + 40), prototypes=(A,))
        for each in range(1 << 17, (1 << 17) + 40):
            world.connect(C, each)
        world.connect(B, C)
        world.run(5.0)
        wire = Wire(world)
        start = world.now
        world.connect(B, A)
        world.run(1.0)
        said = wire.said(B, A)
        copy = [pair for pair in said if A not in pair][:82]
        assert copy == sorted(copy, key=lambda pair: pair[::-1])
        assert len(dict.fromkeys(copy)) == 82
        times = [when - start for when in wire.times(B, A)]
        for when in times:
            assert sum(when <= other < when + 0.0049 for other in times) <= 16

    def test_copy_comes_once_more_for_those_that_read_late(self) -> None:
        world = world_of(A, B, C, prototypes=(A,))
        world.connect(B, C)
        world.run(1.0)
        wire = Wire(world)
        world.connect(B, A)
        world.run(5.0)
        assert wire.said(B, A).count((B, C)) == 2

    def test_links_are_refreshed_as_the_prototype_expects(self) -> None:
        world = world_of(A, B, prototypes=(A,))
        wire = Wire(world)
        world.connect(A, B)
        world.run(200.0)
        numbers = [each.number for each in wire.updates(B, A) if each.destination == A]
        assert 200 / 15 <= len(numbers) <= 200 / 10
        assert all(before < after for before, after in pairwise(numbers[2:]))

    def test_one_prototype_far_away_makes_all_refresh(self) -> None:
        world = world_of(A, B, C, D, prototypes=(D,))
        for pair in ((A, B), (B, C), (C, D)):
            world.connect(*pair)
        world.run(2.0)
        assert world.members[A].link_state.mixed
        assert world.members[A].link_state.members() == {B: True, C: True, D: False}
        wire = Wire(world)
        world.run(30.0)
        assert (A, B) in wire.said(A, B)

    def test_a_prototype_that_comes_makes_all_refresh_until_it_was_gone_for_long(self) -> None:
        world = world_of(A, B, C, D, prototypes=(D,))
        for pair in ((A, B), (B, C)):
            world.connect(*pair)
        world.run(100.0)
        wire = Wire(world)
        world.run(REFRESHMENT / 2)
        assert not world.members[A].link_state.mixed
        assert wire.said(A, B) == []
        world.connect(C, D)
        world.run(5.0)
        assert all(world.members[each].link_state.mixed for each in (A, B, C))
        world.run(40.0)
        assert wire.said(A, B).count((A, B)) >= 2, "each `t_update`"
        world.disconnect(C, D)
        # It is forgotten, and those who may hear of it later have forgotten it as well.
        world.run(5 * 60.0)
        assert not any(world.members[each].link_state.mixed for each in (A, B, C))
        before = len(wire.said(A, B))
        world.run(REFRESHMENT / 2)
        assert len(wire.said(A, B)) <= before + 1

    def test_members_of_ours_know_each_other_through_the_prototype(self) -> None:
        world = world_of(A, B, C, prototypes=(B,))
        world.connect(A, B)
        world.connect(B, C)
        world.run(1.0)
        assert world.members[A].link_state.members() == {B: False, C: True}

    def test_messages_of_ours_never_reach_the_prototype(self) -> None:
        world = world_of(A, B, C, D, prototypes=(A, D))
        for pair in ((A, B), (B, C), (C, D), (D, A)):
            world.connect(*pair)
        world.run(20.0)
        world.cut(B, C)
        world.run(20.0)
        for each in (A, D):
            part = world.members[each].part
            assert part.refused == 0  # type: ignore[attr-defined]

    def test_its_own_links_are_not_told_to_it_but_in_a_copy_of_those_that_exist(self) -> None:
        """`unicast-control.md` 10.1, item 3: it would repeat them for ever."""
        world = world_of(A, B, C, prototypes=(A,))
        world.connect(B, C)
        link = world.connect(B, A)
        world.run(5.0)
        wire = Wire(world)
        hear(world, world.members[B], link, LinkStateUpdate(D, A, 3))
        hear(world, world.members[C], world.links[min(B, C), max(B, C)], LinkStateUpdate(D, A, 4))
        world.run(5.0)
        assert (A, D) not in wire.said(B, A)
        world.disconnect(A, B)
        world.connect(A, B)
        world.run(5.0)
        assert (A, D) not in wire.said(B, A)
        # So a member that forgot its number goes on where it was.
        assert (A, B) in wire.said(B, A)

    def test_neighbour_that_says_nothing_is_gone_and_comes_back(self) -> None:
        """`unicast-control.md` N5: nobody else notices."""
        world = world_of(A, B, C, prototypes=(A,))
        link = world.connect(A, B)
        world.connect(B, C)
        world.run(20.0)
        assert world.members[C].table == {B: (B,), A: (B,)}
        link.up = False
        world.run(46.0)
        assert world.members[B].table == {C: (C,)}
        assert world.members[C].table == {B: (B,)}
        assert world.members[B].core.counters["neighbours_silent"] == 1
        link.up = True
        world.run(20.0)
        assert world.members[C].table == {B: (B,), A: (B,)}

    def test_neighbour_of_the_prototype_that_was_never_heard_matters_to_nobody(self) -> None:
        """Those that do not know of it refresh their links seldom, which must be seldom enough for the others."""
        world = world_of(A, B, C, prototypes=(C,))
        world.connect(A, B)
        world.connect(A, C)
        world.cut(A, C)
        world.run(700.0)
        assert world.members[A].table == {B: (B,)}
        assert world.members[B].table == {A: (A,)}

    def test_nobody_is_judged_after_this_node_stood_still(self) -> None:
        world = world_of(A, B, prototypes=(A,))
        world.connect(A, B)
        world.run(20.0)
        part = world.members[B].part
        world.members.pop(A)
        world.now += 500.0
        part.timeout(world.now)
        assert world.members[B].table == {A: (A,)}
        assert world.members[B].core.counters["neighbours_silent"] == 0
        world.run(60.0)
        assert world.members[B].table == {}

    def test_entries_that_nobody_refreshes_are_forgotten(self) -> None:
        """`unicast-control.md` N17: and routes are computed anew."""
        world = world_of(A, B, C, D, prototypes=(B,))
        world.connect(A, B)
        world.connect(B, C)
        world.run(5.0)
        assert world.members[A].table == {B: (B,), C: (B,)}
        gone = world.members.pop(C)
        assert gone.address == C
        world.run(80.0)
        assert world.members[A].table == {B: (B,)}
        assert rows(world.members[A])[C, B].life is Life.AGED

    def test_prototype_is_made_to_compute_after_a_new_flow(self) -> None:
        """`unicast-data.md` 8.3."""
        world = world_of(A, B, prototypes=(A,))
        wire = Wire(world)
        world.connect(A, B)
        world.run(5.0)
        said = wire.said(B, A)
        strangers = [pair for pair in said if pair[0] == B and pair[1] != A]
        assert len(dict.fromkeys(strangers)) == 1
        assert strangers[0][1] >= lsu.LEAST_ADDRESS
        world.disconnect(A, B)
        world.run(30.0)
        world.connect(A, B)
        world.run(5.0)
        strangers = [pair for pair in wire.said(B, A) if pair[0] == B and pair[1] != A]
        assert len(dict.fromkeys(strangers)) == 2
        assert world.members[B].table == {A: (A,)}

    def test_prototype_forgets_a_lost_link_of_ours(self) -> None:
        """It computes when it hears a pair that is new, and not when one is gone (N17)."""
        world = world_of(A, B, C, D, prototypes=(A,))
        for pair in ((A, B), (B, C), (B, D)):
            world.connect(*pair)
        world.run(20.0)
        part = world.members[A].part
        assert (min(B, C), max(B, C)) in part.links()  # type: ignore[attr-defined]
        world.cut(B, C)
        world.run(130.0)
        assert (min(B, C), max(B, C)) not in part.links()  # type: ignore[attr-defined]


class TestFlapping:
    def test_link_comes_up_once_a_second(self) -> None:
        world = world_of(A, B)
        world.connect(A, B)
        world.run(2.0)
        member = world.members[A]
        for _ in range(2):
            world.do(member, lambda part: part.adjacency_down(B, world.now))
            world.do(member, lambda part: part.adjacency_up(B, world.now))
        assert member.table == {}
        world.run(0.9)
        assert member.table == {}
        world.run(0.2)
        assert member.table == {B: (B,)}

    def test_link_that_flaps_is_held_down(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(2.0)
        member = world.members[A]
        for _ in range(3):
            world.do(member, lambda part: part.adjacency_down(B, world.now))
            world.do(member, lambda part: part.adjacency_up(B, world.now))
            world.run(2.0)
        assert member.core.counters["links_held_down"] == 1
        assert world.members[C].table == {B: (B,)}
        world.run(50.0)
        assert member.table == {}
        world.run(10.0)
        assert member.table == {B: (B,), C: (B,)}
        assert world.members[C].table == {B: (B,), A: (B,)}

    def test_silence_of_a_management_flow_is_followed_by_a_copy(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(2.0)
        world.cut(A, B)
        world.run(2.0)
        world.cut(B, C)
        world.run(2.0)
        world.mend(A, B)
        world.run(2.0)
        assert rows(world.members[A])[B, C].life is Life.WITHDRAWN
        assert world.members[A].table == {B: (B,)}

    def test_second_flow_to_a_neighbour_changes_nothing(self) -> None:
        """`unicast-control.md` N20."""
        world = world_of(A, B)
        world.connect(A, B)
        world.run(1.0)
        member = world.members[A]
        second = Flow(99, B, ours=True)
        member.part.connected(second, world.now)
        member.part.disconnected(second, world.now)
        world.run(1.0)
        assert member.table == {B: (B,)}
        assert member.tables == 1

    def test_small_packets_below_carry_fewer_updates(self) -> None:
        world = world_of(A, B, C)
        for each in range(1 << 17, (1 << 17) + 10):
            world.add(each)
            world.connect(C, each)
        world.run(1.0)
        wire = Wire(world)
        link = world.connect(B, C)
        for member, fd in zip(link.ends, link.fds, strict=True):
            member.flows[fd][0].size = Size(100, 100)
        world.run(2.0)
        assert max(len(data) for *_, data in wire.packets[4:]) <= 100
        assert len(world.members[B].table) == 11


class TestOwnAddress:
    def test_old_numbers_of_an_earlier_life_are_beaten(self) -> None:
        """`unicast-control.md` N21, if the clock was ahead then."""
        world = world_of(A, B)
        link = world.connect(A, B)
        world.run(1.0)
        ahead = CLOCK + (1 << 40)
        hear(world, world.members[A], link, LinkStateUpdate(B, A, ahead))
        world.run(3.0)
        assert rows(world.members[B])[A, B].number == ahead + 1
        assert world.members[B].table == {A: (A,)}
        assert world.members[A].collisions == 0

    def test_a_number_that_cannot_be_beaten_for_long_takes_the_address(self) -> None:
        """Refreshed a few times, the link would be out of numbers, and forgotten by all others. As long as no clock is set:
        else nobody believes such a number."""
        for number, given_up in ((LAST_NUMBER, 0), (LAST_NUMBER + 1, 1), (MOST_NUMBER, 1)):
            world = world_of(A, B, C)
            for member in world.members.values():
                object.__setattr__(member.core.host, "wall", lambda world=world: int(world.now * 10**9))
            link = world.connect(A, B)
            world.connect(A, C)
            world.run(1.0)
            hear(world, world.members[A], link, LinkStateUpdate(B, A, number))
            world.run(100.0)
            assert world.members[A].collisions == given_up
            if given_up:
                world.move(A, D)
            world.run(3 * 3600.0)
            assert world.members[C].table == ({D: (D,), B: (D,)} if given_up else {A: (A,), B: (A,)})

    def test_the_opposite_that_was_said_with_the_same_number_is_corrected(self) -> None:
        """The clock stood still while this member began anew."""
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(2.0)
        world.do(world.members[A], lambda part: part.close(world.now))
        world.run(1.0)
        number = rows(world.members[C])[A, B].number
        world.disconnect(A, B)
        world.add(A)
        host = world.members[A].core.host
        object.__setattr__(host, "wall", lambda: -(-number * 10**9 >> 16))
        world.connect(A, B)
        world.run(0.5)
        assert rows(world.members[A])[A, B].number == number
        assert rows(world.members[C])[A, B].life is Life.WITHDRAWN
        world.run(3.0)
        assert rows(world.members[C])[A, B].life is Life.LIVE
        assert world.members[C].table == {B: (B,), A: (B,)}

    @pytest.mark.parametrize("first", [False, True])
    def test_two_things_that_were_said_with_one_number_come_to_rest(self, first: bool) -> None:
        """In the name of somebody who is not there to correct it."""
        world = world_of(A, B, C)
        link = world.connect(A, B)
        for pair in ((B, C), (C, A)):
            world.connect(*pair)
        world.run(10.0)
        before = world.packets
        for member, fd, withdrawn in zip(link.ends, link.fds, (first, not first), strict=True):
            packet = Updates(7, (LinkStateUpdate(C, D, CLOCK, withdrawn),)).encode()
            flow, _ = member.flows[fd]
            world.do(member, lambda part, flow=flow, packet=packet: part.heard(flow, packet, world.now))  # type: ignore[misc]
        world.run(60.0)
        assert world.packets - before < 20
        for address in (A, B, C):
            assert rows(world.members[address])[D, C].life is Life.WITHDRAWN

    def test_a_link_that_the_prototype_told_on_gets_the_lengths_that_ours_know(self) -> None:
        """The same announcement comes by a way of ours, and by one that loses what is not of the prototype."""
        world = world_of(A, B, C)
        link = world.connect(A, B)
        world.connect(B, C)
        world.run(10.0)
        for most in (0, 1400, 0, 1300):
            packet = Updates(7, (LinkStateUpdate(C, D, CLOCK, most=most, whole=most),)).encode()
            flow, _ = link.ends[1].flows[link.fds[1]]
            world.do(link.ends[1], lambda part, flow=flow, packet=packet: part.heard(flow, packet, world.now))  # type: ignore[misc]
            world.run(1.0)
        before = world.packets
        world.run(60.0)
        assert world.packets - before < 20
        for address in (A, B, C):
            (entry,) = (entry for pair, entry in world.members[address].link_state._database if pair == (D, C))
            assert (entry.number, entry.most, entry.whole) == (CLOCK, 1400, 1400)

    def test_links_that_we_do_not_have_are_not_adopted(self) -> None:
        """`unicast-control.md` N19."""
        world = world_of(A, B, C, D)
        link = world.connect(D, B)
        world.connect(A, B)
        world.connect(B, C)
        world.run(1.0)
        hear(world, world.members[B], link, LinkStateUpdate(C, A, CLOCK + 5), LinkStateUpdate(A, C, CLOCK + 5))
        world.run(3.0)
        for address in (A, B, C):
            assert rows(world.members[address])[A, C].life is Life.WITHDRAWN
        assert world.members[A].table == {B: (B,), C: (B,), D: (B,)}

    def test_member_with_our_address_is_found_out(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        link = world.connect(B, C)
        world.run(1.0)
        for number in range(3):
            # The other one refreshes its link, as ours would.
            hear(world, world.members[B], link, LinkStateUpdate(D, A, CLOCK + (number << 30)))
            world.run(4.0)
        assert world.members[A].collisions == 1

    def test_prototype_with_our_address_is_found_out(self) -> None:
        world = world_of(A, B, prototypes=(B,))
        link = world.connect(A, B)
        world.run(1.0)
        for number in range(4):
            hear(world, world.members[A], link, LinkStateUpdate(D, A, number))
            world.run(15.0)
        assert world.members[A].collisions == 1

    def test_own_updates_that_come_back_are_nothing(self) -> None:
        world = world_of(A, B, C, prototypes=(B, C))
        for pair in ((A, B), (B, C), (C, A)):
            world.connect(*pair)
        world.run(200.0)
        assert world.members[A].core.counters["lsus_of_own_address"] == 0

    def test_another_address(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        world.connect(B, C)
        world.run(1.0)
        member = world.members[A]
        member.core.address = D
        world.do(member, lambda part: part.moved(world.now))
        world.run(2.0)
        assert rows(world.members[C])[A, B].life is Life.WITHDRAWN
        assert rows(world.members[C])[D, B].life is Life.LIVE
        assert member.link_state.distance(D) == 0


class TestHostileNeighbours:
    def test_bytes_that_mean_nothing_are_counted(self) -> None:
        world = world_of(A, B)
        link = world.connect(A, B)
        world.run(1.0)
        member = world.members[A]
        flow, _ = member.flows[link.fds[0]]
        for data in (b"", b"x" * 24, b"x" * 25, LinkStateUpdate(A, A, 1).encode(), LinkStateUpdate(1, B, 1).encode()):
            member.part.heard(flow, data, world.now)
        assert member.core.counters["lsus_malformed"] == 5
        assert member.table == {B: (B,)}

    def test_a_member_announces_so_many_links_and_no_more(self) -> None:
        world = world_of(A, B)
        link = world.connect(A, B)
        world.run(1.0)
        member = world.members[A]
        hear(world, member, link, *(LinkStateUpdate(each, C, 1) for each in range(1 << 17, (1 << 17) + 1500)))
        assert len(rows(member)) == MOST_OF_ONE + 2
        assert member.core.counters["lsus_refused"] == 1500 - MOST_OF_ONE

    def test_invented_members_make_room_for_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ouroboros.layers.unicast.database.MOST", 500)
        world = world_of(A, B, C)
        link = world.connect(A, B)
        world.run(1.0)
        hear(
            world,
            world.members[A],
            link,
            *(LinkStateUpdate(each, each + 1, 1) for each in range(1 << 17, (1 << 17) + 800)),
        )
        assert len(rows(world.members[A])) <= 500
        world.run(5.0)
        world.connect(B, C)
        world.run(5.0)
        assert world.members[A].table == {B: (B,), C: (B,)}

    def test_a_flood_is_not_read_to_its_end(self) -> None:
        world = world_of(A, B)
        link = world.connect(A, B)
        world.run(1.0)
        member = world.members[A]
        hear(world, member, link, *[LinkStateUpdate(C, D, 1)] * 10_000)
        assert 5_000 < member.core.counters["lsus_dropped"] < 6_000

    @pytest.mark.parametrize(("delay", "late"), [(0.001, 0.0), (0.03, 0.0), (0.001, 1.0)])
    def test_all_that_an_honest_neighbour_knows_is_taken(self, delay: float, late: float) -> None:
        """More than is taken at once and in a second, of a neighbour that says it as fast as it may; and if every other
        message is late."""
        world = world_of(A, B)
        world.delay, world.late, world.reordered = delay, late, 0.5 if late else 0.0
        whole = world.members[B].link_state
        known = [
            (source, destination)
            for source in range(1 << 17, (1 << 17) + 20)
            for destination in range(1 << 18, (1 << 18) + 300)
        ]
        for source, destination in known:
            whole._store(LinkStateUpdate(destination, source, CLOCK), world.now)
        link = world.connect(A, B)
        for member, fd in zip(link.ends, link.fds, strict=True):
            # As the narrowest lower flows: so many messages.
            member.flows[fd][0].size = Size(128, 128)
        world.run(100.0 if late else 20.0)
        member = world.members[A]
        received = member.core.counters["lsus_received"]
        assert received > SEVERAL[1] + 2 * SEVERAL[0]
        assert set(rows(member)) == {*known, (A, B), (B, A)}
        for each in world.members.values():
            assert each.core.counters["lsus_dropped"] == 0

    def test_invented_pairs_cost_no_computation(self) -> None:
        """`unicast-control.md` N16: only links that both ends announce."""
        world = world_of(A, B)
        link = world.connect(A, B)
        world.run(1.0)
        member = world.members[A]
        computed = member.core.counters["routes_computed"]
        hear(world, member, link, *(LinkStateUpdate(each, each + 1, 1) for each in range(1 << 17, (1 << 17) + 500)))
        world.run(1.0)
        assert member.core.counters["routes_computed"] == computed

    @pytest.mark.parametrize("number", [CLOCK + (MOST_AHEAD << 16) + (2 << 16), 1 << 63, lsu.MOST_NUMBER])
    @pytest.mark.parametrize("source", [A, B, C, D])
    def test_a_number_that_is_years_ahead_is_refused(self, source: int, number: int) -> None:
        """Its source could hardly say anything greater."""
        world = world_of(A, B, C)
        link = world.connect(A, B)
        world.connect(A, C)
        world.run(1.0)
        before = {each: rows(world.members[each]) for each in (A, B, C)}
        hear(world, world.members[A], link, LinkStateUpdate(source + 1, source, number))
        world.run(5.0)
        assert {each: rows(world.members[each]) for each in (A, B, C)} == before
        assert world.members[A].core.counters["lsus_refused"] == 1
        assert world.members[A].collisions == 0

    def test_claims_for_links_that_we_never_had_do_not_hide_one_for_a_link_of_ours(self) -> None:
        """So many are remembered; D is at the other end of a liar."""
        world = world_of(A, B, C, D)
        near = world.connect(A, B)
        world.connect(B, C)
        link = world.connect(C, D)
        world.run(3.0)
        number = CLOCK + (1 << 30)
        hear(world, world.members[A], near, *(LinkStateUpdate(1 << 17 | each, A, number) for each in range(1000)))
        assert world.members[A].core.counters["lsus_refused"] >= 1000 - MOST
        world.run(3.0)
        hear(world, world.members[C], link, Updates(1, (LinkStateUpdate(B, A, number, withdrawn=True),)))
        assert rows(world.members[C])[A, B].life is Life.WITHDRAWN
        world.run(5.0)
        assert rows(world.members[C])[A, B].life is Life.LIVE
        assert rows(world.members[C])[A, B].number > number
        assert world.members[D].table == {A: (C,), B: (C,), C: (C,)}

    def test_what_others_say_of_a_neighbour_is_asked_of_it_and_not_believed(self) -> None:
        """C is at the other end of a liar; B, between A and C, is asked before A's neighbours hear a lie of it."""
        world = world_of(A, B, C, D)
        for pair in ((A, B), (B, C), (A, D)):
            world.connect(*pair)
        world.run(3.0)
        lies: list[tuple[float, LinkStateUpdate]] = []
        wire = Wire(world)
        fd = world.links[min(A, D), max(A, D)].fds[world.links[min(A, D), max(A, D)].ends.index(world.members[A])]
        flow, _ = world.members[A].flows[fd]
        for number in range(10):
            lie = LinkStateUpdate(C, B, CLOCK + (1 << 30) + number, withdrawn=True)
            lies.append((world.now, lie))
            packet = Updates(number, (lie,)).encode()
            world.do(world.members[A], lambda part, packet=packet: part.heard(flow, packet, world.now))  # type: ignore[misc]
            world.run(0.05)
            assert world.members[A].table == {B: (B,), C: (B,), D: (D,)}
            assert rows(world.members[A])[B, C].life is Life.LIVE
        assert world.members[A].core.counters["lsus_of_neighbours"] == 10
        # B was told, and says that it is not so; nobody else heard the lie from A.
        assert any(each.withdrawn for each in wire.updates(A, B))
        assert not any(each.withdrawn for each in wire.updates(A, D))
        world.run(2.0)
        assert rows(world.members[C])[B, C].life is Life.LIVE
        assert rows(world.members[A])[B, C].number > lies[-1][1].number

    def test_what_others_say_of_a_neighbour_that_does_not_answer_is_believed(self) -> None:
        """It cannot be asked, as our end of the flow to it does not notice yet that it is gone."""
        world = world_of(A, B, C)
        world.notice = 10.0
        for pair in ((A, B), (B, C), (C, A)):
            world.connect(*pair)
        world.run(3.0)
        link = world.links[min(A, B), max(A, B)]
        link.up = False
        world.do(world.members[B], lambda part: part.adjacency_down(A, world.now))
        world.run(0.3)
        assert rows(world.members[A])[B, A].life is Life.WITHDRAWN
        assert world.members[A].table == {B: (C,), C: (C,)}

    def test_a_neighbour_that_has_not_answered_is_not_waited_for_when_others_say_more_of_it(self) -> None:
        """The pauses after which it is told again have grown: news of its links does not wait for them."""
        world = world_of(A, B, C, D)
        world.notice = 10.0
        for pair in ((A, B), (B, C), (C, A)):
            world.connect(*pair)
        world.run(3.0)
        link = world.links[min(A, B), max(A, B)]
        link.up = False
        world.do(world.members[B], lambda part: part.adjacency_down(A, world.now))
        world.run(2.0)
        world.connect(B, D)
        lies = [LinkStateUpdate(E + number, B, CLOCK + (1 << 30)) for number in range(2)]
        hear(world, world.members[A], world.links[min(A, C), max(A, C)], lies[0])
        world.run(0.1)
        assert rows(world.members[A])[B, D].life is Life.LIVE
        assert rows(world.members[A])[B, E].life is Life.LIVE
        # When it answers, it says what is not so, and is asked again.
        link.up = True
        world.run(5.0)
        hear(world, world.members[A], world.links[min(A, C), max(A, C)], lies[1])
        assert rows(world.members[A])[B, E].life is Life.WITHDRAWN
        assert (B, E + 1) not in rows(world.members[A])

    def test_a_neighbour_that_goes_before_it_has_said_what_it_was_asked_leaves_the_word_to_others(self) -> None:
        """It may have been another one with its address. The others will not say it again: that was acknowledged."""
        world = world_of(A, B, C)
        world.notice = 0.1
        world.connect(A, B)
        link = world.connect(A, C)
        world.run(3.0)
        wire = Wire(world)
        hear(world, world.members[A], link, LinkStateUpdate(D, B, CLOCK + (1 << 30)))
        world.run(0.05)
        assert wire.said(A, B) == [(B, D)]
        assert len(wire.times(B, A)) == 1
        assert (B, D) not in rows(world.members[A])
        world.cut(A, B)
        world.run(0.2)
        assert rows(world.members[A])[B, D].life is Life.LIVE
        assert (B, D) in wire.said(A, C)

    def test_what_others_say_of_a_neighbour_of_the_prototype_is_not_believed_while_it_speaks(self) -> None:
        world = world_of(A, B, C, prototypes=(B,))
        world.connect(A, B)
        link = world.connect(A, C)
        world.run(20.0)
        known = rows(world.members[A])[B, A].number
        lies = (LinkStateUpdate(A, B, known + 1000), LinkStateUpdate(C, B, 0))
        hear(world, world.members[A], link, *lies)
        assert rows(world.members[A])[B, A].number == known
        assert (B, C) not in rows(world.members[A])
        # Silent for as long as three refreshments, it can say no more what it has.
        world.links[min(A, B), max(A, B)].up = False
        world.run(46.0)
        assert rows(world.members[A])[B, A].number == known + 1000
        assert (B, C) in rows(world.members[A])

    def test_what_others_said_of_a_neighbour_of_the_prototype_counts_as_soon_as_its_packets_are_missed(self) -> None:
        world = world_of(A, B, C, prototypes=(B,))
        world.notice = 0.3
        world.connect(A, B)
        link = world.connect(A, C)
        world.run(20.0)
        wire = Wire(world)
        hear(world, world.members[A], link, LinkStateUpdate(C, B, 7))
        world.run(10.0)
        assert (B, C) not in rows(world.members[A])
        assert (B, C) not in wire.said(A, B), "it would take that up"
        world.cut(A, B)
        world.run(0.2)
        assert (B, C) not in rows(world.members[A])
        world.run(0.2)
        assert rows(world.members[A])[B, C].number == 7

    def test_so_much_is_asked_of_a_neighbour_and_the_rest_is_refused(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        link = world.connect(A, C)
        world.run(3.0)
        hear(
            world,
            world.members[A],
            link,
            *(LinkStateUpdate(each, B, CLOCK) for each in range(1 << 17, (1 << 17) + 500)),
        )
        counters = world.members[A].core.counters
        assert counters["lsus_of_neighbours"] == 500
        assert counters["lsus_refused"] == 500 - MOST_ASKED
        world.run(3.0)
        assert len([pair for pair in rows(world.members[A]) if pair[0] == B]) <= 1 + MOST_ASKED
        assert world.members[A].table == {B: (B,), C: (C,)}

    def test_a_lie_that_is_said_again_and_again_is_contradicted_once_a_second(self) -> None:
        world = world_of(A, B, C)
        world.connect(A, B)
        link = world.connect(B, C)
        world.run(3.0)
        wire = Wire(world)
        # C lies of A, which is no neighbour of its own; B hears it, and is one of A.
        for number in range(100):
            hear(
                world,
                world.members[A],
                world.links[min(A, B), max(A, B)],
                LinkStateUpdate(B, A, CLOCK + (1 << 30) + number),
            )
            world.run(0.1)
        said = wire.said(A, B).count((A, B))
        assert 8 <= said <= 12
        assert link.up


def test_listing() -> None:
    world = world_of(A, B)
    world.connect(A, B)
    world.run(3.0)
    link_state = world.members[A].link_state
    assert [(row.source, row.destination, row.used) for row in link_state.rows(world.now)] == [
        (A, B, True),
        (B, A, True),
    ]
    assert all(2.9 < row.age <= 3.0 for row in link_state.rows(world.now))
    assert {each: round(age) for each, age in link_state.addresses(world.now).items()} == {A: 3, B: 3}
    assert link_state.distance(B) == 1
    assert link_state.distance(C) is None
    assert link_state.ours(A)
    assert not link_state.ours(C)


class TestLengths:
    def sized(self, world: World, one: int, other: int, size: Size) -> None:
        for near, far in ((one, other), (other, one)):
            if world.members[near].ours:
                world.do(
                    world.members[near],
                    lambda part, far=far: part.adjacency_resized(far, size, world.now),  # type: ignore[misc]
                )

    def test_the_least_of_a_way_is_that_of_all_its_links(self) -> None:
        world = world_of(A, B, C, D)
        for one, other in ((A, B), (B, C), (C, D)):
            world.connect(one, other)
        for one, other, most, whole in ((A, B, 9000, 1400), (B, C, 1300, 1300), (C, D, 8000, 1200)):
            self.sized(world, one, other, Size(most, whole))
        world.run(10.0)

        def least(near: int, far: int) -> Size | None:
            return world.members[near].link_state.least(far)

        assert (least(A, B), least(A, C)) == (Size(9000, 1400), Size(1300, 1300))
        assert least(A, D) == least(D, A) == Size(1300, 1200)
        assert least(A, A) is None
        self.sized(world, B, C, Size(7000, 1500))
        world.run(10.0)
        assert least(A, D) == least(D, A) == Size(7000, 1200)

    @pytest.mark.parametrize("policy", list(LinkStatePolicy))
    def test_all_shortest_ways_count_and_no_others(self, policy: LinkStatePolicy) -> None:
        world = World(config=None, pol=policy)
        for address in (A, B, C, D, E):
            world.add(address)
        edges = {(A, B): 1400, (B, D): 1350, (A, C): 1390, (C, D): 1290, (A, E): 900, (E, C): 900}
        for (one, other), most in edges.items():
            world.connect(one, other)
            self.sized(world, one, other, Size(most, most))
        world.run(10.0)
        assert world.members[A].link_state.least(D) == Size(1290, 1290)
        world.disconnect(C, D)
        world.run(10.0)
        assert world.members[A].link_state.least(D) == Size(1350, 1350)

    def test_between_two_members_of_the_prototype_it_is_the_mtu_of_the_layer(self) -> None:
        world = World(config=UnicastConfig(DtConfig(mtu=600)))
        for address in (A, B, C, D):
            world.add(address, ours=address in (A, D))
        for one, other in ((A, B), (B, C), (C, D)):
            world.connect(one, other)
        self.sized(world, A, B, Size(9000, 1400))
        self.sized(world, C, D, Size(8000, 1300))
        world.run(10.0)
        least = world.members[A].link_state.least
        # An announcement of D would be told on without its lengths. But D tells them with a flow.
        assert (least(B), least(C), least(D)) == (Size(9000, 1400), Size(9000, 1400), Size(9000, 600))

    def test_absurd_lengths_are_not_believed(self) -> None:
        world = world_of(A, B, C, D)
        for one, other, most in ((A, B, 9000), (B, C, 100), (C, D, 9000)):
            world.connect(one, other)
            self.sized(world, one, other, Size(most, most))
        world.run(10.0)
        least = world.members[A].link_state.least
        assert (least(B), least(C), least(D)) == (Size(9000, 9000), Size(9000, 9000), Size(9000, MTU))

    def test_of_members_of_the_prototype_nothing_is_known(self) -> None:
        world = world_of(A, B, C, prototypes=(B,))
        world.connect(A, B)
        world.connect(B, C)
        world.run(10.0)
        assert world.members[A].link_state.least(C) is None
