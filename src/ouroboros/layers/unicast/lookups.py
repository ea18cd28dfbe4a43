"""Questions to other members, who has a name: a few at a time, the nearest first, until one knows, or all have answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ouroboros.layers.agenda import Agenda, Alarm

#: Until the next member is asked beside one that does not answer, and that one again: these pauses, seconds.
PAUSES = (0.2, 0.4, 0.4, 0.5, 0.5)
#: For how long a lookup goes on, seconds; and how long it waits for a first member to ask.
PATIENCE = 2.5
#: Members that are asked, and lookups at a time.
MOST_ASKED = 32
MOST = 256
#: For how long what was found is known, seconds; and for how many names.
KEPT = 10.0
MOST_KEPT = 1024

#: Gets the addresses of members that have the name; those that cannot be reached only when there is no other.
Answer = Callable[[tuple[int, ...], float], None]


class Asker(Protocol):
    """The part of the directory that lookups need."""

    def candidates(self, key: bytes) -> Iterable[int]:
        """Whom to ask, in that order."""

    def ask(self, address: int, key: bytes) -> int:
        """Ask a member. Returns the cookie, which its answer has."""

    def alive(self, address: int) -> bool:
        """Whether that member can be reached."""


@dataclass(slots=True, eq=False)
class _Lookup:
    """`order`: whom to ask. `asked`: how often each was. `waiting`: when each is given up, or asked again. `late`: those of
    them beside whom others are asked. `found`: what was answered."""

    number: int
    key: bytes
    until: float
    answers: dict[int, Answer] = field(default_factory=dict)
    order: dict[int, None] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, float] = field(default_factory=dict)
    late: dict[int, None] = field(default_factory=dict)
    found: dict[int, None] = field(default_factory=dict)
    cookies: list[int] = field(default_factory=list)


class Lookups:
    """Those of one member."""

    def __init__(self, asker: Asker, alpha: int, alarm: Alarm) -> None:
        self._asker = asker
        self._alpha = alpha
        #: Until when a member that knows nobody yet expects to: it is being connected.
        self.expecting = float("-inf")
        self._lookups: dict[bytes, _Lookup] = {}
        self._numbers: dict[int, _Lookup] = {}
        self._cookies: dict[int, tuple[_Lookup, int]] = {}
        self._times = Agenda(alarm)
        self._kept: dict[bytes, tuple[tuple[int, ...], float]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._lookups)

    def begin(self, key: bytes, token: int, answer: Answer, now: float) -> bool:
        """Find out who has a name. `answer` is called once, perhaps at once. False: there are too many at a time."""
        kept, until = self._kept.get(key, ((), now))
        if until > now and (alive := tuple(filter(self._asker.alive, kept))):
            answer(alive, now)
            return True
        lookup = self._lookups.get(key)
        if lookup is None:
            if len(self._lookups) >= MOST:
                return False
            self._last += 1
            lookup = self._lookups[key] = self._numbers[self._last] = _Lookup(self._last, key, now + PATIENCE)
            lookup.answers[token] = answer
            self._go_on(lookup, now)
        else:
            lookup.answers[token] = answer
        return True

    def cancel(self, token: int) -> None:
        """The caller does not wait any more. The answer is kept all the same."""
        for lookup in self._lookups.values():
            lookup.answers.pop(token, None)

    def forget(self, key: bytes) -> None:
        """Do not trust the answer that is kept for a name."""
        self._kept.pop(key, None)

    def answered(
        self, cookie: int, source: int, key: bytes, addresses: Iterable[int], more: Iterable[int], now: float
    ) -> bool:
        """A member answered: `addresses` have the name, `more` may know. Whether it had been asked."""
        lookup, asked = self._cookies.get(cookie, (None, 0))
        if lookup is None or asked != source or lookup.key != key:
            return False
        del self._cookies[cookie]
        lookup.waiting.pop(source, None)
        lookup.late.pop(source, None)
        lookup.found.update(dict.fromkeys(addresses))
        if alive := tuple(each for each in lookup.found if self._asker.alive(each)):
            self._end(lookup, alive, now)
            return True
        for each in more:
            if len(lookup.order) < MOST_ASKED:
                lookup.order.setdefault(each)
        self._go_on(lookup, now)
        return True

    def members_changed(self, now: float) -> None:
        """Others can be reached than before: somebody new may be asked, and of who is gone nothing is expected."""
        for lookup in list(self._lookups.values()):
            for address in [each for each in lookup.waiting if not self._asker.alive(each)]:
                del lookup.waiting[address]
                lookup.late.pop(address, None)
            self._go_on(lookup, now)

    # --- time

    def deadline(self) -> float | None:
        return self._times.next()

    def timeout(self, now: float) -> None:
        for number in list(self._times.due(now)):
            lookup = self._numbers[number]
            for address in [address for address, when in lookup.waiting.items() if when <= now]:
                del lookup.waiting[address]
                lookup.late.pop(address, None)
                if lookup.asked[address] < len(PAUSES):
                    lookup.late[address] = None
                    self._ask(lookup, address, now)
            self._go_on(lookup, now)

    # --- one lookup

    def _go_on(self, lookup: _Lookup, now: float) -> None:
        """Ask further members, so many at a time that are not late; end when all have answered, or it takes too long."""
        for each in self._asker.candidates(lookup.key):
            if len(lookup.order) >= MOST_ASKED:
                break
            lookup.order.setdefault(each)
        for address in lookup.order:
            if len(lookup.waiting) - len(lookup.late) >= self._alpha:
                break
            if address not in lookup.asked and self._asker.alive(address):
                self._ask(lookup, address, now)
        starting = now < self.expecting and not lookup.asked
        if lookup.until <= now or not (lookup.waiting or starting):
            self._end(lookup, tuple(lookup.found), now)
            return
        self._times.set(lookup.number, min((*lookup.waiting.values(), lookup.until)))

    def _ask(self, lookup: _Lookup, address: int, now: float) -> None:
        count = lookup.asked.get(address, 0)
        lookup.asked[address] = count + 1
        lookup.waiting[address] = now + PAUSES[count]
        cookie = self._asker.ask(address, lookup.key)
        lookup.cookies.append(cookie)
        self._cookies[cookie] = lookup, address

    def _end(self, lookup: _Lookup, addresses: tuple[int, ...], now: float) -> None:
        del self._lookups[lookup.key], self._numbers[lookup.number]
        self._times.cancel(lookup.number)
        for cookie in lookup.cookies:
            self._cookies.pop(cookie, None)
        if addresses:
            self._kept.pop(lookup.key, None)
            self._kept[lookup.key] = addresses, now + KEPT
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        for answer in lookup.answers.values():
            answer(addresses, now)
