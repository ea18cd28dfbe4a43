"""The directory of a unicast layer: names are found at once, in layers of any size, also where the prototype is."""

from __future__ import annotations

import pytest
from directory_world import BASE, Member, World, digest

from ouroboros.layers.effects import SendPdu
from ouroboros.layers.members.core import DIRECTORY
from ouroboros.layers.unicast import lookups, values
from ouroboros.layers.unicast.directory import Entry
from ouroboros.layers.unicast.places import Places
from ouroboros.layers.unicast.publisher import RETURNS
from ouroboros.wire.unicast import dht
from ouroboros.wire.unicast.dht import Contact, FindNode, FindValue, NodeFound, Store, ValueFound

#: `unicast-control.md` 13.4.
B_ID = "bad1da12d86246e78ef521a8f1ecbac08408edc5f977b88c6bcc436f3885d28a"
JOIN = bytes.fromhex(f"0801 1228 0a20 {B_ID} 10 e5ecb38508 222d 08 b6c383ded7f4e7e8b901 1220 {B_ID}")
STORE = bytes.fromhex(
    "0800 1227 0a20 a4656d167c3d0ae5d0b4f78272ea8ca795037d10c9f76d8e26c82fb3951db913 10 acf7833e"
    "1a32 0a20 42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54"
    "1208 0000000007c0fbac 18 f79aafd806"
)
#: When it expires, less than a day from the beginning of worlds.
STORED_AT = 1_795_935_607 - 86_400
B, C = 0x80ACF665, 0x07C0FBAC


class Wire:
    """What members say to each other."""

    def __init__(self, world: World) -> None:
        self.messages: list[tuple[float, int, int, dht.Message]] = []
        world.watch = lambda sender, receiver, data: self.messages.append(
            (world.now, sender, receiver, dht.decode(data, 32))
        )

    def of(self, kind: type) -> list[tuple[int, int]]:
        return [(sender, receiver) for _, sender, receiver, message in self.messages if isinstance(message, kind)]


def hear(world: World, member: Member, message: dht.Message | bytes, fd: int = 1) -> None:
    data = message if isinstance(message, bytes) else message.encode()
    world.do(member, lambda part: part.heard(data, fd, world.now))


def answer_to(member: Member, message: bytes) -> list[dht.Message]:
    """What one member alone says to that."""
    member.part.heard(message, 1, 0.0)
    effects, member.core.host.effects[:] = list(member.core.host.effects), []
    return [dht.decode(effect.data, 32) for effect in effects if isinstance(effect, SendPdu)]


def begun_anew() -> tuple[World, list[Member], Member]:
    """Four members, the first of which had the name x in an earlier life."""
    world = World()
    members = world.fill(4)
    world.register(members[0], "x")
    world.run(1.0)
    return world, members, world.add(0, peer=BASE + 1)


class TestGoldenVectors:
    def test_join_is_answered_with_the_asker(self) -> None:
        member = World().add(0)
        (answer,) = answer_to(member, JOIN)
        assert isinstance(answer, NodeFound)
        assert answer.contacts == (Contact(bytes.fromhex(B_ID), B),)
        assert answer.key == bytes.fromhex(B_ID)
        assert bytes.fromhex("08 b6c383ded7f4e7e8b901") in answer.encode()
        assert answer.source.address == member.address
        assert answer.encode()[:2] == bytes.fromhex("0802")

    def test_name_of_the_prototype_is_kept_and_told(self) -> None:
        world = World()
        world.now = STORED_AT - 1_795_000_000
        member = world.add(0)
        assert answer_to(member, STORE) == []
        world.do(member, lambda part: part.members({C: False}, world.now))
        assert world.find(member, "oping") == [C]
        question = FindValue(Contact(bytes.fromhex(B_ID), B), 7, digest("oping"))
        (answer,) = answer_to(member, question.encode())
        assert isinstance(answer, ValueFound)
        assert answer.addresses == (C,)
        assert bytes.fromhex("320a 0a08 0000000007c0fbac") in answer.encode()

    def test_answer_without_values_says_so(self) -> None:
        """`3200`: present, and empty."""
        member = World().add(0)
        (answer,) = answer_to(member, FindValue(Contact(bytes.fromhex(B_ID), B), 7, digest("x")).encode())
        assert answer.encode().endswith(bytes.fromhex("3200"))
        assert isinstance(answer, ValueFound)
        assert answer.contacts


class TestSmallLayers:
    def test_a_layer_of_one_finds_its_own_names_and_no_others(self) -> None:
        world = World()
        member = world.add(0)
        world.register(member, "here")
        assert world.query(member, "here") == [((member.address,), 0.0)]
        assert world.query(member, "nowhere") == [((), 0.0)]

    @pytest.mark.parametrize("size", [2, 3])
    def test_names_are_found_at_once_in_layers_of_two_and_three(self, size: int) -> None:
        world = World()
        members = world.fill(size)
        world.register(members[0], "x")
        for member in members[1:]:
            answers = world.query(member, "x")
            world.run(2.5 * world.delay)
            assert [addresses for addresses, _ in answers] == [(members[0].address,)]

    def test_miss_is_clear_after_one_round_trip(self) -> None:
        world = World()
        members = world.fill(3)
        world.run(1.0)
        answers = world.query(members[0], "nowhere")
        world.run(1.0)
        assert [addresses for addresses, _ in answers] == [()]
        assert answers[0][1] == pytest.approx(2 * world.delay)

    def test_name_that_was_registered_before_anybody_came_is_found(self) -> None:
        """`unicast-control.md` N31."""
        world = World()
        first = world.add(0)
        world.register(first, "x")
        second = world.add(1, peer=BASE)
        assert world.find(second, "x") == [first.address]

    def test_newcomer_waits_for_the_first_member_that_it_can_ask(self) -> None:
        world = World()
        first = world.add(0)
        world.register(first, "x")
        second = world.add(1, peer=BASE, told=False)
        answers = world.query(second, "x")
        world.run(0.5)
        assert answers == []
        world.tell()
        world.run(0.5)
        assert [addresses for addresses, _ in answers] == [(first.address,)]

    def test_newcomer_that_meets_nobody_is_told_so(self) -> None:
        world = World()
        member = world.add(1, peer=BASE)
        answers = world.query(member, "x")
        world.run(3.0)
        assert answers == [((), lookups.PATIENCE)]
        # From then on, nobody is expected.
        answers = world.query(member, "x")
        assert answers == [((), 0.0)]

    def test_member_that_is_not_being_connected_expects_nobody(self) -> None:
        world = World()
        member = world.add(1)
        answers = world.query(member, "x")
        assert answers == [((), 0.0)]

    def test_several_members_that_have_a_name_are_all_found(self) -> None:
        world = World()
        members = world.fill(5)
        for member in members[:3]:
            world.register(member, "x")
        world.run(1.0)
        everybody = [member.address for member in members[:3]]
        for member in members:
            assert world.find(member, "x") == everybody

    def test_name_that_was_taken_back_is_not_found(self) -> None:
        world = World()
        members = world.fill(3)
        world.register(members[0], "x")
        world.run(1.0)
        world.unregister(members[0], "x")
        world.run(0.1)
        assert world.find(members[1], "x") == []
        assert [member.part.entries() for member in members] == [[], [], []]

    def test_query_that_is_cancelled_is_not_answered(self) -> None:
        world = World()
        members = world.fill(2)
        answers = world.query(members[0], "x")
        members[0].part.cancel(1)
        world.run(3.0)
        assert answers == []

    def test_same_question_twice_is_asked_once(self) -> None:
        world = World()
        members = world.fill(2)
        wire = Wire(world)
        first, second = world.query(members[0], "x"), world.query(members[0], "x")
        world.run(1.0)
        assert len(first) == len(second) == 1
        assert len(wire.of(FindValue)) == 1

    def test_what_was_found_is_known_for_ten_seconds(self) -> None:
        world = World(k=1)
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(1.0)
        asker = next(each for each in members[1:] if not each.part.entries())
        assert world.find(asker, "x") == [BASE]
        wire = Wire(world)
        assert world.find(asker, "x") == [BASE]
        assert not wire.of(FindValue)
        asker.part.forget(digest("x"))
        assert world.find(asker, "x") == [BASE]
        assert len(wire.of(FindValue)) == 1
        world.run(10.0)
        world.find(asker, "x")
        assert len(wire.of(FindValue)) == 2


class TestChanges:
    def test_member_that_died_is_not_found_any_more(self) -> None:
        world = World()
        members = world.fill(4)
        for member in members[:2]:
            world.register(member, "x")
        world.run(1.0)
        world.kill(members[0])
        world.tell()
        for member in members[1:]:
            assert world.find(member, "x") == [members[1].address]

    def test_dead_member_that_routing_still_has_delays_a_lookup_only(self) -> None:
        """`unicast-control.md` N29."""
        world = World(k=2)
        members = world.fill(12)
        world.register(members[0], "x")
        world.run(1.0)
        keepers = [member for member in members if member.part.entries()]
        world.kill(next(each for each in keepers if each is not members[0]))
        for member in world.members.values():
            assert world.find(member, "x") == [members[0].address]

    @pytest.mark.parametrize("told", [False, True], ids=["before routing knows", "once routing knows"])
    def test_a_directory_that_has_lost_any_one_member_has_all_names_of_the_others(self, *, told: bool) -> None:
        """Each keeps some of them, and dies once."""
        size = 9
        for victim in range(size):
            world = World(k=2)
            members = world.fill(size)
            for number, member in enumerate(members):
                world.register(member, f"name{number}")
            world.run(1.0)
            assert len(members[victim].part.entries()) > 0
            world.kill(members[victim])
            if told:
                world.tell()
            for number, member in enumerate(members):
                for asker in world.members.values():
                    if number != victim:
                        assert world.find(asker, f"name{number}") == [member.address]

    def test_member_that_only_unreachable_ones_have_is_named(self) -> None:
        """So that people can be told where it was."""
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(1.0)
        world.kill(members[0])
        world.tell()
        assert world.find(members[1], "x") == [members[0].address]
        world.run(310.0)
        assert world.find(members[1], "x") == []
        assert members[1].part.deadline() is None

    def test_names_move_to_members_that_come(self) -> None:
        world = World(k=3)
        first = world.fill(5)
        for number in range(40):
            world.register(first[number % 5], f"name{number}")
        world.run(1.0)
        for number in range(5, 40):
            world.add(number, peer=BASE)
        world.run(2.0)
        for member in first:
            world.register(member, f"late{member.address}")
        world.run(1.0)
        for number in range(40):
            assert world.find(world.members[BASE + 30], f"name{number}") == [BASE + number % 5]

    def test_names_survive_those_that_keep_them(self) -> None:
        world = World(k=3)
        members = world.fill(30)
        world.register(members[0], "x")
        world.run(1.0)
        for _ in range(6):
            keeper = next(each for each in world.members.values() if each is not members[0] and each.part.entries())
            world.kill(keeper)
            world.tell()
            world.run(1.0)
            asker = next(each for each in world.members.values() if not each.part.entries())
            assert world.find(asker, "x") == [members[0].address]

    def test_member_that_leaves_hands_over_what_it_keeps(self) -> None:
        world = World(k=2)
        members = world.fill(12)
        world.register(members[0], "x")
        world.run(1.0)
        keepers = [each for each in members if each.part.entries() and each is not members[0]]
        wire = Wire(world)
        world.do(keepers[0], lambda part: part.close(world.now))
        assert len(wire.of(Store)) == 1
        (_, heir), *_ = wire.of(Store)
        world.run(0.1)
        assert world.members[heir].part.entries()

    def test_member_that_leaves_takes_its_names_back(self) -> None:
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(1.0)
        world.do(members[0], lambda part: part.close(world.now))
        world.run(0.1)
        assert all(not member.part.entries() for member in members[1:])

    def test_names_of_both_pieces_are_found_after_a_partition(self) -> None:
        world = World(k=2)
        members = world.fill(20)
        world.run(1.0)
        world.split(2)
        for member in members:
            world.register(member, f"of{member.address}")
        world.run(1.0)
        world.pieces = dict.fromkeys(world.members, 0)
        world.tell()
        world.run(2.0)
        for member in members:
            for asker in members[:4]:
                assert world.find(asker, f"of{member.address}") == [member.address]

    def test_name_that_was_taken_back_in_a_partition_is_not_found_behind_it(self) -> None:
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(1.0)
        world.split(2)
        world.unregister(members[0], "x")
        world.run(10.0)
        world.pieces = dict.fromkeys(world.members, 0)
        world.tell()
        world.run(1.0)
        for member in members:
            assert world.find(member, "x") == []

    def test_member_that_comes_back_is_asked_what_it_still_has(self) -> None:
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.register(members[1], "y")
        world.run(1.0)
        world.kill(members[0])
        world.split(1)
        world.kill(members[1])
        world.tell()
        for number in (0, 1):
            again = world.add(number, peer=BASE + 2)
            world.register(again, "y")
        world.loss = 0.3
        world.run(20.0)
        world.loss = 0.0
        for asker in world.members.values():
            assert world.find(asker, "x") == []
            assert world.find(asker, "y") == [BASE, BASE + 1]

    @pytest.mark.parametrize("loss", [0.0, 0.5])
    def test_member_that_begins_anew_unnoticed_is_told_what_it_is_to_keep(self, loss: float) -> None:
        world = World(k=1)
        members = world.fill(5)
        names = [f"name{number}" for number in range(20)]
        for name in names:
            world.register(members[0], name)
        world.run(1.0)
        for number in range(1, 5):
            world.add(number, peer=BASE, returns=True)
        world.loss = loss
        world.run(20.0)
        world.loss = 0.0
        for name in names:
            assert world.find(world.members[BASE + 4], name) == [BASE]
        assert all(
            each.part.deadline() is None or each.part.deadline() > world.now + 1 for each in world.members.values()
        )

    def test_one_that_always_begins_anew_does_not_have_all_told_for_ever(self) -> None:
        world = World()
        member, other = world.fill(2)
        world.register(member, "x")
        world.run(1.0)
        told = []
        world.watch = lambda sender, receiver, data: told.append(data) if sender == member.address else None
        joins = FindNode(other.part._places.contact(), 1, other.part._places.place(other.address)).encode()
        for _ in range(1000):
            world.do(member, lambda part: part.heard(joins, 1, world.now))
            world.run(0.01)
        stores = [data for data in told if isinstance(dht.decode(data, 32), Store)]
        assert len(stores) <= RETURNS[1] + 10 * RETURNS[0] + 1

    def test_names_of_an_earlier_life_are_disowned(self) -> None:
        world, members, again = begun_anew()
        assert world.find(members[1], "x") == [again.address]
        # A flow was asked for, and refused.
        world.do(again, lambda part: part.disown(digest("x"), world.now))
        world.run(1.0)
        assert world.find(members[1], "x") == []

    def test_a_member_does_not_find_itself_by_names_of_an_earlier_life(self) -> None:
        world, members, again = begun_anew()
        assert world.find(again, "x") == []
        world.run(1.0)
        assert world.find(members[1], "x") == []

    def test_names_go_with_another_address(self) -> None:
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(1.0)
        moving = members[0]
        moving.address = moving.core.address = BASE + 99
        world.members = {member.address: member for member in members}
        world.pieces[moving.address] = 0
        world.do(moving, lambda part: part.moved(world.now))
        world.tell()
        world.run(1.0)
        for member in members:
            assert world.find(member, "x") == [moving.address]

    @pytest.mark.parametrize("ahead", [-40_000.0, 40_000.0])
    def test_clocks_that_differ_by_hours_do_no_harm(self, ahead: float) -> None:
        """`unicast-control.md` N35."""
        world = World()
        world.ahead[BASE] = ahead
        members = world.fill(4)
        for member in members:
            world.register(member, f"of{member.address}")
        world.run(1.0)
        for asker in members:
            for member in members:
                assert world.find(asker, f"of{member.address}") == [member.address]

    def test_rest_is_rest(self) -> None:
        """Names are told anew every quarter of an hour, and nothing else is."""
        world = World()
        members = world.fill(4)
        world.register(members[0], "x")
        world.run(10.0)
        packets = world.packets
        world.run(400.0)
        assert world.packets == packets
        world.run(10_000.0)
        assert world.packets - packets <= 24 * 6
        assert world.find(members[1], "x") == [members[0].address]


class TestWithThePrototype:
    def everywhere(self, world: World) -> None:
        """Every name is found by everybody."""
        for member in world.members.values():
            world.register(member, f"of{member.address}")
        world.run(5.0)
        for asker in world.members.values():
            for member in world.members.values():
                if asker is member and not asker.ours:
                    continue
                assert world.find(asker, f"of{member.address}") == [member.address], (asker.ours, member.ours)
        for member in world.members.values():
            assert member.ours or member.part.harmed == []

    @pytest.mark.parametrize(("size", "prototypes"), [(2, 1), (3, 1), (3, 2), (5, 2), (8, 4)])
    def test_all_names_are_found_by_all(self, size: int, prototypes: int) -> None:
        world = World()
        world.fill(size, prototypes=prototypes)
        world.run(3.0)
        self.everywhere(world)

    def test_members_of_the_prototype_get_us_as_contacts(self) -> None:
        world = World()
        members = world.fill(5, prototypes=2)
        world.run(2.0)
        for prototype in members[3:]:
            assert {each.address for each in members[:3]} <= set(prototype.part.contacts)

    def test_in_a_larger_layer_we_ask_for_members_of_the_prototype(self) -> None:
        """It asks three that it has known for long, and no others (N27)."""
        world = World(k=4)
        members = world.fill(30, prototypes=3)
        world.run(3.0)
        for member in members[:5]:
            world.register(member, f"of{member.address}")
        world.run(3.0)
        for prototype in members[27:]:
            for member in members[:5]:
                assert world.find(prototype, f"of{member.address}") == [member.address]

    def test_they_forget_us_some_minutes_after_we_took_a_name_back(self) -> None:
        world = World()
        members = world.fill(3, prototypes=1)
        world.run(3.0)
        world.register(members[0], "x")
        world.run(500.0)
        assert world.find(members[2], "x") == [members[0].address]
        world.unregister(members[0], "x")
        world.run(500.0)
        members[2].part._expire(world.now)
        assert not members[2].part.values.get(digest("x"))

    def test_times_are_never_longer_than_the_layer_allows(self) -> None:
        world = World(t_expire=10)
        members = world.fill(3, prototypes=1)
        world.run(3.0)
        wire = Wire(world)
        world.register(members[0], "x")
        world.run(60.0)
        for when, _, _, message in wire.messages:
            if isinstance(message, Store) and message.expiry:
                assert message.expiry <= 1_795_000_000 + when + 10
        assert world.find(members[1], "x") == [members[0].address]


class TestHostileMembers:
    def test_bytes_that_mean_nothing_are_counted(self) -> None:
        world = World()
        members = world.fill(2)
        for data in (b"", b"\xff" * 40, JOIN[:-1], STORE[:20]):
            hear(world, members[0], data)
        assert members[0].core.counters["directory_malformed"] == 4

    def test_a_storm_is_not_read_to_its_end(self) -> None:
        """`unicast-control.md` N30; other flows are not affected."""
        world = World()
        members = world.fill(2)
        source = Contact(b"\1" * 32, members[1].address)
        message = Store(source, digest("x"), members[1].address, 1_795_001_000).encode()
        for _ in range(10_000):
            members[0].part.heard(message, 1, world.now)
        assert members[0].core.counters["directory_dropped"] >= 6_000
        members[0].part.heard(JOIN, 2, world.now)
        assert members[0].core.counters["directory_dropped"] <= 6_000

    def test_one_member_cannot_fill_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(values, "MOST_OF_MEMBER", 10)
        world = World()
        members = world.fill(3)
        source = Contact(b"\1" * 32, members[1].address)
        for number in range(20):
            hear(world, members[0], Store(source, digest(f"{number}"), members[1].address, 1_795_001_000))
        assert len(members[0].part.entries()) == 10
        assert members[0].core.counters["stores_refused"] == 10

    def test_fakes_do_not_hide_the_true_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`unicast-control.md` N33: what a member says of itself takes the place of what others say, and comes first."""
        monkeypatch.setattr(values, "MOST_OF_NAME", 3)
        world = World()
        members = world.fill(7)
        fake = Contact(b"\1" * 32, members[1].address)
        for member in members[2:6]:
            hear(world, members[0], Store(fake, digest("x"), member.address, 1_795_001_000))
        world.register(members[6], "x")
        world.run(0.05)
        assert [each.address for each in members[0].part.entries()] == [
            *(member.address for member in members[3:5]),
            members[6].address,
        ]
        question = FindValue(Contact(bytes.fromhex(B_ID), B), 7, digest("x"))
        (answer,) = answer_to(members[0], question.encode())
        assert isinstance(answer, ValueFound)
        assert answer.addresses[0] == members[6].address
        world.run(1.0)
        assert [each.address for each in members[0].part.entries()] == [members[6].address]

    def test_what_others_say_of_a_member_is_checked_with_it(self) -> None:
        world = World()
        members = world.fill(3)
        hear(
            world,
            members[0],
            Store(Contact(b"\1" * 32, members[1].address), digest("x"), members[2].address, 1_795_001_000),
        )
        assert members[0].part.entries()
        world.run(1.0)
        assert not members[0].part.entries()

    def test_what_is_said_in_the_name_of_a_member_is_taken_back_by_it(self) -> None:
        """The message says itself whom it is from, so it is no replica."""
        world = World()
        members = world.fill(3)
        true = members[2].address
        hear(world, members[0], Store(Contact(b"\1" * 32, true), digest("x"), true, 1_795_001_000))
        assert [each.address for each in members[0].part.entries()] == [true]
        world.run(1.0)
        assert not members[0].part.entries()

    def test_values_of_nobody_make_room_for_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(values, "MOST", 50)
        world = World()
        members = world.fill(3)
        for number in range(100):
            source = Contact(b"\1" * 32, 1 << 24 | number)
            hear(world, members[0], Store(source, digest(f"{number}"), source.address, 1_795_001_000))
        world.run(2.0)
        world.register(members[1], "x")
        world.run(1.0)
        assert members[1].address in [each.address for each in members[0].part.entries()]

    @pytest.mark.parametrize("expiries", [(1_795_001_000, 0), (1_795_001_000,)])
    def test_members_of_which_nothing_is_kept_are_not_remembered(
        self, monkeypatch: pytest.MonkeyPatch, expiries: tuple[int, ...]
    ) -> None:
        """Names of invented members are registered, and taken back or replaced by others, over and over."""
        monkeypatch.setattr(values, "MOST", 50)
        world = World()
        members = world.fill(2)
        for number in range(500):
            source = Contact(b"\1" * 32, 1 << 24 | number)
            for expiry in expiries:
                hear(world, members[0], Store(source, digest(f"{number}"), source.address, expiry))
            world.run(0.03)
        assert len(members[0].part._gone) <= len(members[0].part.entries()) <= 50

    def test_answers_to_questions_that_were_not_asked_are_nothing(self) -> None:
        world = World()
        members = world.fill(3)
        answers = world.query(members[0], "x")
        source = Contact(b"\1" * 32, members[1].address)
        hear(world, members[0], ValueFound(source, 1234, digest("x"), (source,), (members[2].address,)))
        world.run(1.0)
        assert [addresses for addresses, _ in answers] == [()]
        assert members[0].core.counters["directory_unasked"] == 1

    def test_answer_of_another_member_than_was_asked_is_nothing(self) -> None:
        world = World(k=1)
        members = world.fill(3)
        cookies: dict[int, int] = {}
        world.watch = lambda sender, receiver, data: cookies.update(
            {receiver: message.cookie} if isinstance(message := dht.decode(data, 32), FindValue) else {}
        )
        answers = world.query(members[0], "x")
        ((asked, cookie),) = cookies.items()
        other = next(each.address for each in members[1:] if each.address != asked)
        hear(
            world,
            members[0],
            ValueFound(Contact(b"\1" * 32, other), cookie, digest("x"), (Contact(b"\1" * 32, 9),), (other,)),
        )
        world.run(1.0)
        assert [addresses for addresses, _ in answers] == [()]

    def test_message_from_our_own_address_is_nothing(self) -> None:
        world = World()
        member = world.add(0)
        hear(world, member, Store(Contact(b"\1" * 32, BASE), digest("x"), BASE, 1_795_001_000))
        assert member.core.counters["directory_wrong_source"] == 1
        assert member.part.entries() == []

    def test_expiry_is_no_later_than_the_layer_allows(self) -> None:
        world = World(t_expire=100)
        members = world.fill(2)
        hear(
            world,
            members[0],
            Store(Contact(b"\1" * 32, members[1].address), digest("x"), members[1].address, 2**32 - 1),
        )
        (entry,) = members[0].part.entries()
        assert entry.left is not None
        assert entry.left <= 100

    def test_too_many_lookups_at_a_time_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lookups, "MOST", 3)
        world = World()
        members = world.fill(2)
        world.kill(members[1])
        answers = [world.query(members[0], f"x{number}") for number in range(5)]
        assert [len(each) for each in answers] == [0, 0, 0, 1, 1]
        assert members[0].core.counters["lookups_refused"] == 2

    def test_claims_that_we_have_a_name_do_not_grow_without_bound(self) -> None:
        world = World()
        members = world.fill(2)
        source = Contact(b"\1" * 32, members[1].address)
        for number in range(3000):
            hear(world, members[0], Store(source, digest(f"{number}"), BASE, 1_795_001_000), fd=number % 3)
        world.run(60.0)
        assert members[0].part.deadline() is None


def test_listing() -> None:
    world = World()
    members = world.fill(2)
    world.register(members[0], "x")
    world.run(1.0)
    assert members[0].part.entries() == [Entry(digest("x"), BASE, None)]
    ((key, address, left),) = [(each.digest, each.address, each.left) for each in members[1].part.entries()]
    assert (key, address) == (digest("x"), BASE)
    assert left == pytest.approx(86_399, abs=1.5)


def test_place_of_a_member_follows_from_its_address() -> None:
    """So a member that begins anew is where it was, and others know where without asking."""
    first, second = World(1).add(0), World(2).add(0)
    assert [each.source for each in answer_to(first, JOIN)] == [each.source for each in answer_to(second, JOIN)]


def test_members_next_to_a_name_are_those_that_there_are_now() -> None:
    """They are remembered for some names."""
    places = Places(World().add(0).core, 3)
    others: list[dict[int, bool]] = [dict.fromkeys(range(1, count), True) for count in (10, 200, 5)]
    names = [digest(str(number)) for number in range(300)]
    for members in others:
        places.update(members)
        for key in names + names[:5]:
            near = sorted([*members, BASE], key=lambda each: int.from_bytes(places.place(each)) ^ int.from_bytes(key))
            assert places.nearest(key, 3) == near[:3]
            assert places.nearest(key, 3, own=False) == [each for each in near if each != BASE][:3]


def test_join_of_the_prototype_is_answered_before_routing_knows_it() -> None:
    world = World()
    member = world.add(0)
    answers = answer_to(member, FindNode(Contact(b"\1" * 32, B), 5, b"\1" * 32).encode())
    assert len(answers) == 1
    assert DIRECTORY == 1
