"""The members of a layer that can be reached, and their places among the digests of names."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping

from ouroboros.layers.base import HASHES
from ouroboros.layers.members.core import Core
from ouroboros.wire.unicast.dht import Contact

#: What the place of a member is a digest of, with its address.
_PLACE = b"member"
_DISTANCE = 8
#: Keys next to which members are known.
_NEAR = 256


class Places:
    """As one member sees them. `k`: how many members keep a name."""

    def __init__(self, core: Core, k: int) -> None:
        self._core = core
        self._k = k
        self._hash = HASHES[core.settings.dir_hash_algo.word]
        self.length = self._hash().digest_size
        #: Whether each is ours. Places are kept with them.
        self._members: Mapping[int, bool] = {}
        self._places: dict[int, bytes] = {}
        #: Members next to keys: that is asked for each flow, and takes a look at each member.
        self._near: dict[tuple[bytes, int, int | None], list[int]] = {}
        #: Ids of members of the prototype.
        self._ids: dict[int, bytes] = {}

    def update(self, members: Mapping[int, bool]) -> tuple[list[int], list[int]]:
        """Those to which paths lead now, without ourselves; and whether they are ours. Returns those that came and went;
        one that changed its kind did both."""
        before, self._members = self._members, dict(members)
        self._near.clear()
        added = [each for each, ours in members.items() if before.get(each) is not ours]
        removed = [each for each, ours in before.items() if members.get(each) is not ours]
        for address in removed:
            self._places.pop(address, None)
            self._ids.pop(address, None)
        for address in added:
            self._places[address] = self.place(address)
        return added, removed

    def __len__(self) -> int:
        """Others that can be reached."""
        return len(self._members)

    def __contains__(self, address: int) -> bool:
        return address in self._members

    def alive(self, address: int) -> bool:
        """Whether that member can be reached, as we can."""
        return address in self._members or address == self._core.address

    def ours(self, address: int) -> bool:
        """Whether that member can be reached and is one of ours."""
        return self._members.get(address, False)

    def foreign(self, address: int) -> bool:
        """Whether that member can be reached and is one of the prototype."""
        return self._members.get(address) is False

    @property
    def mixed(self) -> bool:
        """Members of the prototype can be reached."""
        return not all(self._members.values())

    def candidates(self, key: bytes) -> Iterator[int]:
        """Those that keep a name, and members of the prototype, which keep theirs anywhere."""
        yield from self.nearest(key, self._k, own=False)
        yield from self._by_distance(key, [each for each, ours in self._members.items() if not ours])

    def keepers(self, key: bytes) -> dict[int, None]:
        """Others to whom a name of ours is told: those next to it, and some of the prototype, which ask each other."""
        near = dict.fromkeys(each for each in self.nearest(key, self._k) if each != self._core.address)
        strangers = [each for each, ours in self._members.items() if not ours]
        return near | dict.fromkeys(self._by_distance(key, strangers)[: self._k])

    def nearest(self, key: bytes, count: int, *, own: bool = True) -> list[int]:
        """Members next to a key, ourselves among them (`own`)."""
        kept = key, count, self._core.address if own else None
        if (near := self._near.get(kept)) is None:
            everybody = [*self._members, self._core.address] if own else list(self._members)
            if len(self._near) >= _NEAR:
                del self._near[next(iter(self._near))]
            near = self._near[kept] = self._by_distance(key, everybody, count)
        return near

    def _by_distance(self, key: bytes, addresses: Iterable[int], count: int | None = None) -> list[int]:
        place = int.from_bytes(key[:_DISTANCE])

        def distance(address: int) -> tuple[int, int]:
            own = self._places.get(address) or self.place(address)
            return int.from_bytes(own[:_DISTANCE]) ^ place, address

        return sorted(addresses, key=distance) if count is None else heapq.nsmallest(count, addresses, key=distance)

    def place(self, address: int) -> bytes:
        return self._hash(_PLACE + address.to_bytes(8)).digest()

    def contact(self) -> Contact:
        return Contact(self.place(self._core.address), self._core.address)

    def contacts(self, asker: Contact, key: bytes) -> tuple[Contact, ...]:
        """The asker, as all answers have, and for members of the prototype those next to a key whose ids are known."""
        if self._members.get(asker.address):
            return (asker,)
        near = [each for each in self.nearest(key, self._k, own=False) if each != asker.address]
        ids = ((each, self._places[each] if self._members[each] else self._ids.get(each)) for each in near)
        return (asker, *(Contact(id, each) for each, id in ids if id is not None))[: self._k]

    def learn(self, contacts: Iterable[Contact]) -> None:
        """Ids of members of the prototype, as others say them."""
        for contact in contacts:
            if self.foreign(contact.address):
                self._ids.setdefault(contact.address, contact.id)

    def introduced(self, contact: Contact) -> None:
        """The id of a member, as it says itself."""
        if self.foreign(contact.address):
            self._ids[contact.address] = contact.id
