"""The shares of the users of a node, and of its owner. Pure.

The owner is the user of the node, and root. Everybody else has a share of each kind, and all of them together have one; what
is left of the whole is the owner's. Nothing is taken that is not given back, in the same amount and for the same user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

import msgspec

from ouroboros.errors import NodeLimitError
from ouroboros.layers.bucket import Bucket, Buckets
from ouroboros.wire.control import ShareEntry

#: The user in whose name peers on other nodes do something here, all of them together.
PEERS = -1
#: All users together, but for the owner.
EVERYBODY = -2
#: Starts of programs a second that one user causes, and at once; then all users together, peers on other nodes among them. A
#: program costs more than all else that a request does, and has the rights of the node.
STARTS, STARTS_TOGETHER = (0.1, 5.0), (0.5, 20.0)
#: Entries of lists a second that one user gets, and at once; then all users together. To make one takes some 10 us, in which
#: the node does nothing else, so that is a hundredth of its time.
LISTED, LISTED_TOGETHER = (500.0, 20_000.0), (1000.0, 40_000.0)
#: Lines of the log a second that one user causes, and at once; then all users together, and the owner, beside them.
LINES, LINES_TOGETHER, LINES_OF_OWNER = (1.0, 10.0), (5.0, 50.0), (20.0, 100.0)


class Kind(StrEnum):
    """The things that are shared. `docs/security.md` has the reason of each default."""

    #: To the control socket.
    CONNECTIONS = "connections"
    #: That said hello, until they end.
    PROCESSES = "processes"
    #: For flows, that wait.
    REQUESTS = "requests"
    #: Ends of flows that programs hold: one each, and two where the engine has the other side.
    FLOWS = "flows"
    #: Bytes of answers that a program has not read.
    ANSWERS = "answers"
    #: Of host names, that are under way.
    LOOKUPS = "lookups"
    #: Bytes in the engine for flows with FRCP, beside those that each has in any case. It counts them, and slows flows down.
    MEMORY = "memory"


class Share(msgspec.Struct, frozen=True):
    """`user`: the most that one user has. `users`: all of them together, but for the owner."""

    user: int
    users: int


#: Advice when a share is used up.
_REMEDIES = {
    Kind.CONNECTIONS: "end calls that wait, or programs",
    Kind.PROCESSES: "end programs",
    Kind.REQUESTS: "wait for those that are under way",
    Kind.FLOWS: "deallocate some",
    Kind.ANSWERS: "have programs read their answers",
    Kind.LOOKUPS: "wait for those that are under way",
    Kind.MEMORY: "deallocate flows, or read and write less at once",
}
#: Names of the things that are counted, for people.
_COUNTED = {
    Kind.PROCESSES: "processes that use this node",
    Kind.REQUESTS: "requests for flows that wait",
    Kind.FLOWS: "ends of flows",
    Kind.ANSWERS: "bytes of answers that were not read",
    Kind.LOOKUPS: "look-ups of names under way",
    Kind.MEMORY: "bytes in the engine for its flows",
}


def default_shares(descriptors: int, flows: int) -> dict[Kind, Share]:
    """Of a node with so many descriptors, so many of them for flows."""
    rest = descriptors - flows
    return {
        Kind.CONNECTIONS: Share(min(512, _part(rest, 8)), min(2048, _part(rest, 2))),
        Kind.PROCESSES: Share(min(512, _part(rest, 8)), min(1024, _part(rest, 4))),
        Kind.REQUESTS: Share(256, 1024),
        Kind.FLOWS: Share(min(2048, max(2, flows // 8)), min(8192, max(2, flows // 4))),
        Kind.ANSWERS: Share(8 << 20, 16 << 20),
        Kind.LOOKUPS: Share(16, 64),
        Kind.MEMORY: Share(128 << 20, 512 << 20),
    }


def _part(whole: int, divisor: int) -> int:
    return max(1, whole // divisor)


class Shares:
    """The things that each user has. `trusts`: whether a user is the owner, whose things are not counted here."""

    def __init__(self, shares: Mapping[Kind, Share], trusts: Callable[[int], bool]) -> None:
        self._shares = dict(shares)
        self._trusts = trusts
        #: What `change` was told, which is none of it as long as nobody says otherwise.
        self.changed: dict[Kind, tuple[int | None, int | None]] = {}
        self._held: dict[Kind, Counter[int]] = {kind: Counter() for kind in Kind}
        #: Of all users but the owner.
        self._together: Counter[Kind] = Counter()
        #: How often something more was refused to those that have some.
        self._refused: Counter[tuple[Kind, int]] = Counter()
        #: Bytes in the engine that peers may have for the flows that they asked for, and those that they have.
        self.memory_of_peers = self._held_by_peers = 0
        #: Starts of programs for names.
        self.starts = Rates(trusts, user=STARTS, users=STARTS_TOGETHER, owner=None)
        #: Entries of lists.
        self._listed = Rates(trusts, user=LISTED, users=LISTED_TOGETHER, owner=None)

    def change(self, kind: Kind, user: int | None, users: int | None) -> None:
        """From now on, as far as it is given. Those that have more keep it."""
        before = self.changed.get(kind, (None, None))
        told = tuple(new if new is not None else was for new, was in zip((user, users), before, strict=True))
        self.changed[kind] = (told[0], told[1])
        old = self._shares[kind]
        self._shares[kind] = Share(old.user if user is None else user, old.users if users is None else users)

    def held(self, kind: Kind, user: int) -> int:
        """0 for the owner."""
        return self._held[kind][user]

    def memory(self, user: int | None, *, of_peer: bool) -> dict[int, int]:
        """The accounts of the engine that pay for an end, and the bytes of each: of its user, None for the owner, and of
        peers, if one asked for the flow."""
        share = self._shares[Kind.MEMORY]
        accounts = {} if user is None else {user: share.user, EVERYBODY: share.users}
        return accounts | {PEERS: self.memory_of_peers} if of_peer else accounts

    def note_memory(self, held: Mapping[int, int]) -> None:
        """So much has each account, as the engine counts it."""
        self._held[Kind.MEMORY] = Counter({user: bytes for user, bytes in held.items() if user >= 0 and bytes})
        self._held_by_peers = held.get(PEERS, 0)

    def check(self, kind: Kind, user: int, amount: int = 1) -> None:
        """Raises `NodeLimitError` when a user must not take so much more, and says whose limit it is and what to do."""
        if self._trusts(user):
            return
        share, held = self._shares[kind], self._held[kind][user]
        what, remedy = _COUNTED.get(kind, kind), _REMEDIES[kind]
        together = self._together[kind]
        if held and max(held + amount - share.user, together + amount - share.users) > 0:
            self._refused[kind, user] += 1
        if held + amount > share.user:
            raise NodeLimitError(
                f"user {user} has {held} {what}, and its share of this node is {share.user}: {remedy}, or have the owner of"
                f" the node raise `user` in [share.{kind}] of its configuration"
            )
        if together + amount > share.users:
            raise NodeLimitError(
                f"all users of this node have {together} {what}, and their share is {share.users}, beside that of its owner"
                f" (user {user} has {held} of them): {remedy}, try again later, or have the owner raise `users` in"
                f" [share.{kind}] of its configuration"
            )

    def take(self, kind: Kind, user: int, amount: int = 1) -> None:
        """Raises `NodeLimitError` as `check` does; then nothing was taken."""
        if not self._trusts(user):
            self.check(kind, user, amount)
            self._held[kind][user] += amount
            self._together[kind] += amount

    def give_back(self, kind: Kind, user: int, amount: int = 1) -> None:
        if self._trusts(user):
            return
        held = self._held[kind]
        assert held[user] >= amount, f"user {user} gives back more {kind} than it has"
        held[user] -= amount
        self._together[kind] -= amount
        if not held[user]:
            # No table is longer than what is held, however many users there were.
            del held[user]
            self._refused.pop((kind, user), None)

    def check_list(self, user: int, length: int, now: float) -> None:
        """Raises `NodeLimitError` when a user has had too much listed to get a list of that length."""
        if not self._listed.take(user, now, length):
            rate, burst = LISTED
            raise NodeLimitError(
                f"user {user} has had this node list too much, or all its users have: {burst:g} entries at once, and"
                f" {rate:g} a second in the long run; this list has {length}: try again later"
            )

    def entries(self, user: int) -> list[ShareEntry]:
        """The shares that a user may see: its own; the owner, all, and those of peers."""
        return sorted(self._entries(None if self._trusts(user) else user), key=lambda each: (each.user, each.kind))

    def _entries(self, only: int | None) -> Iterator[ShareEntry]:
        if only is None and self._held_by_peers:
            yield ShareEntry(PEERS, Kind.MEMORY, self._held_by_peers, self.memory_of_peers, 0)
        users = {user for held in self._held.values() for user in held}
        for kind, share in self._shares.items():
            for user in users & {only} if only is not None else users:
                yield ShareEntry(user, kind, self._held[kind][user], share.user, self._refused[kind, user])


class Rates:
    """How often each user may cause something: `rate` a second in the long run, `burst` at once. `users`: the same for all
    of them together, but for the owner, who has a rate of its own."""

    def __init__(
        self,
        trusts: Callable[[int], bool],
        *,
        user: tuple[float, float],
        users: tuple[float, float],
        owner: tuple[float, float] | None,
    ) -> None:
        """`owner` None: as often as it likes."""
        self._trusts = trusts
        self._each = Buckets(*user)
        self._together = Bucket(*users)
        self._owner = None if owner is None else Bucket(*owner)

    def take(self, user: int, now: float, amount: float = 1.0) -> bool:
        """Whether it may, once more or as often as that."""
        if self._trusts(user):
            return self._owner is None or self._owner.take(now, amount)
        return self._each.take(user, now, amount) and self._together.take(now, amount)
