"""The announcements of the members of a unicast layer: pairs of neighbours, since when, and up to which number.

An entry that was withdrawn, or that nobody refreshed, keeps its number for a while: copies of it that are still about, such
as behind a link that was cut, do not revive it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ouroboros.wire.extension import LEAST_PACKET
from ouroboros.wire.unicast.lsu import LinkStateUpdate

#: The one that announces, and its neighbour.
Pair = tuple[int, int]

#: Members of ours number their updates from here on: with 2^16 times the seconds since 1970. Those of the prototype count
#: from zero. So numbers tell which of the two a member is, also from far away, through members of the prototype.
OURS = 1 << 45

#: Entries in all, and of one member. A member that invents more pairs is not heard.
MOST = 1 << 16
MOST_OF_ONE = 1024


class Life(StrEnum):
    """The state of an entry."""

    LIVE = "live"
    #: Its source said that there is no such adjacency any more.
    WITHDRAWN = "withdrawn"
    #: Nobody has refreshed it for too long.
    AGED = "aged"


@dataclass(slots=True, eq=False)
class Entry:
    """`stamp`: when it became what it is, or was refreshed. `most`, `whole`: as in the update."""

    number: int
    life: Life
    stamp: float
    most: int = 0
    whole: int = 0

    @property
    def has_size(self) -> bool:
        """Whether it is that of a link, with a length of packets that can be believed."""
        return self.life is Life.LIVE and self.most >= LEAST_PACKET

    def yields_to(self, update: LinkStateUpdate) -> bool:
        """Whether that takes its place. Of two things that were said with one number it is the same for all members: they
        would tell each other for ever."""
        if update.number == self.number:
            if update.withdrawn or self.life is not Life.LIVE:
                return update.withdrawn and self.life is not Life.WITHDRAWN
            # A member of the prototype told it on before, without lengths.
            return not self.most and update.most > 0
        return update.number > self.number


class Database:
    """Entries by pair."""

    def __init__(self) -> None:
        self._entries: dict[Pair, Entry] = {}
        self._of: Counter[int] = Counter()
        #: Live entries with numbers of ours, by source; and how many there are with others.
        self._ours: Counter[int] = Counter()
        self._foreign = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[Pair, Entry]]:
        return iter(self._entries.items())

    def get(self, pair: Pair) -> Entry | None:
        return self._entries.get(pair)

    def number(self, pair: Pair) -> int:
        """The greatest number that was heard of it; -1: none."""
        entry = self._entries.get(pair)
        return -1 if entry is None else entry.number

    @property
    def foreign(self) -> bool:
        """A member of the prototype announces something."""
        return self._foreign > 0

    def ours(self, source: int) -> bool:
        """Whether the announcements of that member have numbers of ours."""
        return self._ours[source] > 0

    def pairs(self, *, withdrawn: bool) -> list[Pair]:
        """Those that are live, and perhaps those that were withdrawn, in the order in which a copy is sent
        (`unicast-control.md` 6.2)."""
        wanted = (Life.LIVE, Life.WITHDRAWN) if withdrawn else (Life.LIVE,)
        found = [pair for pair, entry in self._entries.items() if entry.life in wanted]
        return sorted(found, key=lambda pair: pair[::-1])

    def fits(self, pair: Pair) -> bool:
        """Whether there is room for an entry that is new."""
        return len(self._entries) < MOST and self._of[pair[0]] < MOST_OF_ONE

    def put(self, update: LinkStateUpdate, now: float) -> None:
        """The update counts for its pair from now on."""
        pair = update.source, update.destination
        entry = self._entries.get(pair)
        life, stamp = Life.WITHDRAWN if update.withdrawn else Life.LIVE, now - update.age
        if entry is None:
            self._of[update.source] += 1
            self._entries[pair] = Entry(update.number, life, stamp, update.most, update.whole)
        else:
            self._count(pair, entry, -1)
            entry.number, entry.life, entry.stamp = update.number, life, stamp
            entry.most, entry.whole = update.most, update.whole
        self._count(pair, self._entries[pair], 1)

    def age(self, foreign: float, ours: float, since: float, now: float) -> list[Pair]:
        """Forget what is old. Returns the pairs that were live until now.

        Seconds without refreshment until an entry is no longer live, and after those until it is forgotten: `foreign` for
        members of the prototype, `ours` for the others, the latter in force `since` then.
        """
        aged = []
        for pair, entry in list(self._entries.items()):
            if entry.number < OURS:
                if now - entry.stamp <= foreign:
                    continue
            elif now - max(entry.stamp, since) <= ours:
                continue
            if entry.life is Life.LIVE:
                self._count(pair, entry, -1)
                entry.life, entry.stamp = Life.AGED, now
                aged.append(pair)
            else:
                self._remove(pair)
        return aged

    def make_room(self, source: int, wanted: Callable[[int], bool]) -> list[Pair]:
        """Forget what is not live: of that source if only it has too much, else of all, and what is live of sources that are
        not wanted. Returns the pairs that were live until now."""
        live = []
        full = len(self._entries) >= MOST
        for pair, entry in list(self._entries.items()):
            if entry.life is not Life.LIVE:
                if full or pair[0] == source:
                    self._remove(pair)
            elif full and not wanted(pair[0]):
                self._remove(pair)
                live.append(pair)
        return live

    def _remove(self, pair: Pair) -> None:
        entry = self._entries.pop(pair)
        self._count(pair, entry, -1)
        self._of[pair[0]] -= 1
        if not self._of[pair[0]]:
            del self._of[pair[0]]

    def _count(self, pair: Pair, entry: Entry, by: int) -> None:
        if entry.life is not Life.LIVE:
            return
        if entry.number < OURS:
            self._foreign += by
            return
        self._ours[pair[0]] += by
        if not self._ours[pair[0]]:
            del self._ours[pair[0]]
