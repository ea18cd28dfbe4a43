"""Places that hosts take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Places:
    """Those that are taken, of all hosts and of each."""

    def __init__(self) -> None:
        self.taken = 0
        self._of: Counter[Hashable] = Counter()

    def has_room(self, host: Hashable, most: int, most_of_one: int) -> bool:
        return self.taken < most and self._of[host] < most_of_one

    def take(self, host: Hashable) -> None:
        self.taken += 1
        self._of[host] += 1

    def give_back(self, host: Hashable) -> None:
        self.taken -= 1
        self._of[host] -= 1
        if not self._of[host]:
            del self._of[host]
