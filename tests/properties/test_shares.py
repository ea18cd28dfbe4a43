"""The shares of a node under any order of taking and giving back: nobody has more than his share, and the owner waits for
nobody."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ouroboros.control.shares import Kind, Rates, Share, Shares, default_shares
from ouroboros.errors import NodeLimitError
from ouroboros.layers.bucket import MOST_RATES

OWNER = 1000
ROOT = 0
OTHERS = (1, 2, 3)

KINDS = st.sampled_from(list(Kind))
USERS = st.sampled_from([OWNER, ROOT, *OTHERS])
AMOUNTS = st.integers(1, 4)


def trusts(user: int) -> bool:
    return user in (ROOT, OWNER)


class SharesMachine(RuleBasedStateMachine):
    """Keeps an account of its own: what each user has of each kind."""

    @initialize(user=st.integers(1, 6), users=st.integers(1, 10))
    def start(self, user: int, users: int) -> None:
        self.share = dict.fromkeys(Kind, Share(user, users))
        self.shares = Shares(self.share, trusts)
        self.had: dict[Kind, Counter[int]] = {kind: Counter() for kind in Kind}

    def together(self, kind: Kind) -> int:
        return sum(self.had[kind][user] for user in OTHERS)

    @rule(kind=KINDS, user=USERS, amount=AMOUNTS)
    def take(self, kind: Kind, user: int, amount: int) -> None:
        share = self.share[kind]
        over = self.had[kind][user] + amount > share.user or self.together(kind) + amount > share.users
        if over and not trusts(user):
            with pytest.raises(NodeLimitError, match=rf"user {user} has {self.had[kind][user]} .*\[share.{kind}\]"):
                self.shares.take(kind, user, amount)
        else:
            self.shares.take(kind, user, amount)
            self.had[kind][user] += 0 if trusts(user) else amount

    @rule(kind=KINDS, user=USERS, amount=AMOUNTS)
    def give_back(self, kind: Kind, user: int, amount: int) -> None:
        if trusts(user):
            self.shares.give_back(kind, user, amount)
        elif amount > self.had[kind][user]:
            with pytest.raises(AssertionError):
                self.shares.give_back(kind, user, amount)
        else:
            self.shares.give_back(kind, user, amount)
            self.had[kind][user] -= amount

    @rule(kind=KINDS, user=st.integers(1, 6), users=st.integers(1, 10))
    def change(self, kind: Kind, user: int, users: int) -> None:
        """Whoever has more keeps it, and gets nothing more."""
        self.share[kind] = Share(user, users)
        self.shares.change(kind, user, users)

    @invariant()
    def all_is_as_it_was_taken(self) -> None:
        for kind in Kind:
            for user in (OWNER, ROOT, *OTHERS):
                assert self.shares.held(kind, user) == self.had[kind][user]

    @invariant()
    def the_owner_sees_all_users_and_others_see_themselves(self) -> None:
        having = {user for kind in Kind for user in OTHERS if self.had[kind][user]}
        assert {entry.user for entry in self.shares.entries(OWNER)} == having
        for user in OTHERS:
            own = {entry.kind: entry.held for entry in self.shares.entries(user)}
            assert own == ({kind: self.had[kind][user] for kind in Kind} if user in having else {})


TestShares = SharesMachine.TestCase


@given(st.integers(32, 2_000_000))
def test_the_owner_has_a_reserve_of_every_default(descriptors: int) -> None:
    flows = max(descriptors - 4096, descriptors // 2)
    shares = default_shares(descriptors, flows)
    for share in shares.values():
        assert 0 < share.user <= share.users
    # An end takes a descriptor of the node at most for each that is counted, and so do connections and processes.
    assert shares[Kind.FLOWS].users <= flows // 4
    rest = descriptors - flows
    assert shares[Kind.CONNECTIONS].users + shares[Kind.PROCESSES].users <= rest - rest // 4


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 3)), max_size=300))
def test_rates_keep_to_their_bounds_however_many_users_there_are(events: list[tuple[int, float]]) -> None:
    rates = Rates(trusts, user=(1.0, 3.0), users=(2.0, 5.0), owner=None)
    now, allowed = 0.0, Counter[int]()
    for user, pause in events:
        now += pause
        allowed[user] += rates.take(user, now)
        assert rates.take(OWNER, now), "others have nothing to do with the owner"
    assert allowed.total() <= 5 + 2 * now
    assert all(count <= 3 + now for count in allowed.values())


def test_rates_of_thousands_of_users_take_no_more_room_than_those_of_some() -> None:
    rates = Rates(trusts, user=(1.0, 3.0), users=(1e6, 1e6), owner=None)
    for user in range(1, 10 * MOST_RATES):
        rates.take(user, 0.0)
    assert len(rates._each._buckets) <= MOST_RATES + 1
    # Those that have been silent for long make room.
    assert rates.take(7, 100.0)
    assert len(rates._each._buckets) <= MOST_RATES + 1
