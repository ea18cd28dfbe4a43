"""What a member keeps of the directory for others: names by digest, and the members that have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Values in all, of one name, and of one member. Anybody can send them.
MOST = 1 << 16
MOST_OF_NAME = 32
MOST_OF_MEMBER = 4096


@dataclass(slots=True, eq=False)
class Value:
    """`expiry`: seconds since 1970. `replica`: it came from another member than the one that has the name."""

    expiry: int
    replica: bool


class Values:
    """By digest of the name, and by address of the member that has it."""

    def __init__(self) -> None:
        self._values: dict[bytes, dict[int, Value]] = {}
        self._of: Counter[int] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, int, Value]]:
        for key, values in self._values.items():
            for address, value in values.items():
                yield key, address, value

    @property
    def full(self) -> bool:
        return self._count >= MOST

    def has(self, address: int) -> bool:
        """Whether there is something of that member."""
        return address in self._of

    def get(self, key: bytes, address: int) -> Value | None:
        return self._values.get(key, {}).get(address)

    def keys_of(self, address: int) -> list[bytes]:
        """The names that are kept of a member."""
        return [key for key, values in self._values.items() if address in values]

    def of(self, key: bytes, wall: float) -> tuple[list[int], list[int]]:
        """The members that have that name, as they say themselves, and as others say of them."""
        values = [item for item in self._values.get(key, {}).items() if item[1].expiry >= wall]
        said = [address for address, value in values if not value.replica]
        return said, [address for address, value in values if value.replica]

    def put(self, key: bytes, address: int, expiry: int, *, replica: bool) -> bool:
        """Keep a value, for longer if it is known. Whether there is room.

        What a member says of itself is worth more than what another one says, and takes its place.
        """
        values = self._values.get(key, {})
        known = values.get(address)
        if known is not None:
            known.expiry = max(known.expiry, expiry)
            known.replica = known.replica and replica
            return True
        if self._of[address] >= MOST_OF_MEMBER:
            return False
        if len(values) >= MOST_OF_NAME and not (not replica and self._drop_replica(key)):
            return False
        if self.full:
            return False
        self._values.setdefault(key, {})[address] = Value(expiry, replica)
        self._of[address] += 1
        self._count += 1
        return True

    def remove(self, key: bytes, address: int) -> None:
        """No error when it is not there."""
        values = self._values.get(key, {})
        if values.pop(address, None) is None:
            return
        if not values:
            del self._values[key]
        self._count -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]

    def drop(self, unwanted: Callable[[int, Value], bool]) -> None:
        """Forget values, by the member and what is known of it."""
        for key, address, value in list(self):
            if unwanted(address, value):
                self.remove(key, address)

    def _drop_replica(self, key: bytes) -> bool:
        """Make room in a name. Whether there was such a value."""
        found = next((address for address, value in self._values[key].items() if value.replica), None)
        if found is not None:
            self.remove(key, found)
        return found is not None
