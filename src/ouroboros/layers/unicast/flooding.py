"""The part of the link-state database that a neighbour has still to be told, over its management flows.

All that is told is an entry, as it is when the packet leaves: what changes twice meanwhile is told once. A neighbour of ours
acknowledges, and is told again until it does. One of the prototype gets single updates, not too many at once, and relies on
refreshments (`unicast-control.md` 6.2, 11).

What somebody else says of the links of a neighbour of ours is told to that neighbour alone, and believed only when it does
not answer. It contradicts what it did not say; and what it did say, it tells us as everybody, until we acknowledge it. So
when it acknowledges the question, it has the word. If it is not reached any more before it said something as new, others are
believed after all: they were told the same, and acknowledged, and nobody would say it again. One that has left two
repetitions in a row without an acknowledgement, of whatever, is not waited for: others are believed at once until it
acknowledges something. It is told all the same, and contradicts what is not so.

One of the prototype cannot be asked. What others say of its links waits until it says something as new, or is not heard any
more: then they are believed after all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

import msgspec

from ouroboros.layers.agenda import earliest
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.face import Size
from ouroboros.layers.members.core import Core
from ouroboros.layers.unicast.database import Database, Life, Pair
from ouroboros.wire.unicast.lsu import MOST_AGE, MOST_IDS, Acknowledgement, LinkStateUpdate, Updates, fitting

#: A member of the prototype reads a new flow late for ever if it gets several packets before (`unicast-control.md` N45); and
#: if that happened all the same, another copy pushes the others through.
QUIET = 0.02
AGAIN = 2.0
#: Packets at once, and the pause after them, seconds.
BURST = 16
BURST_PAUSE = 0.01
#: Of ours: messages at once, those without an acknowledgement, the pause between, in which there is one acknowledgement; and
#: how many more may be sent within it when there are news, so that news cross many members soon. In a mesh, what is sent
#: later need often not be sent at all.
OURS_BURST = 8
WINDOW = 32
PAUSE = 0.01
QUICK = 4
#: So many of those messages a second, and before that applies.
TOLD = (160.0, 256.0)
#: A message that is not acknowledged within so many round trips is sent again; within so many seconds, before one was
#: measured. The pause doubles, and stays between these.
ROUNDS = 3.0
FIRST_REPETITION = 0.5
LEAST_REPETITION = 0.05
LAST_REPETITION = 8.0
MOST_DOUBLINGS = 8
#: What is said of a neighbour is believed when it has acknowledged nothing and was told all again so often: after nine round
#: trips, or 0.15 s when those are shorter, or 1.5 s before one was measured. So much is asked at a time.
QUESTIONS = 2
MOST_ASKED = 64
#: Messages a second that are taken from a neighbour, and at once: single updates, and messages of ours. More than one sends
#: that keeps to the above, acknowledgements included, whose packets were held up for a second and come together.
SINGLE = (2000.0, 4096.0)
SEVERAL = (300.0, 512.0)


class Flow(Protocol):
    """The part of a management connection that is needed."""

    @property
    def fd(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def ours(self) -> bool: ...
    @property
    def size(self) -> Size: ...


class Neighbour:
    """The other end of management flows."""

    def __init__(
        self,
        core: Core,
        address: int,
        database: Database,
        draw: Callable[[], int],
        exists: Callable[[Pair], bool],
        unanswered: Callable[[LinkStateUpdate, float], None],
    ) -> None:
        """`draw`: gives ids of messages. `exists`: whether both ends of a link announce it. `unanswered`: is told what was
        asked, when there is no answer."""
        self._core = core
        self.address = address
        self._database = database
        self._draw = draw
        self._exists = exists
        #: Oldest first; the newest that is up is used.
        self._flows: dict[int, Flow] = {}
        self._down: dict[int, None] = {}
        self._used: Flow | None = None
        #: Pairs to be told; and whether as part of a copy.
        self._queue: dict[Pair, bool] = {}
        #: Messages without an acknowledgement, when they were sent, and the last one that told a pair.
        self._waiting: dict[int, tuple[float, tuple[Pair, ...]]] = {}
        self._told: dict[Pair, int] = {}
        #: What others say of its links, and since when: about which it has been asked; and what it has acknowledged, the
        #: oldest first, until it says something as new.
        self._unanswered = unanswered
        self._asked: dict[Pair, tuple[LinkStateUpdate, float]] = {}
        self._answered: dict[Pair, tuple[LinkStateUpdate, float]] = {}
        self._arrived: list[int] = []
        #: Those of the queue that need not wait until the pause is over; what was told since it began; when it is over; and
        #: how many messages may be sent before.
        self._quick: dict[Pair, None] = {}
        self._said: set[Pair] = set()
        self._next, self._left = 0.0, 0
        self._repeat_at: float | None = None
        #: How often in a row all was told again.
        self._repeated = 0
        self._round_trip: float | None = None
        self._copy_at: float | None = None
        self._single, self._several = Bucket(*SINGLE), Bucket(*SEVERAL)
        self._tells = Bucket(*TOLD)

    # --- flows

    @property
    def flows(self) -> Iterable[Flow]:
        return self._flows.values()

    @property
    def ours(self) -> bool:
        """Whether it is a member of ours, as it said on its newest flow."""
        return next(reversed(self._flows.values())).ours

    @property
    def is_reached(self) -> bool:
        """Whether one of its flows is up."""
        return self._used is not None

    def add(self, flow: Flow, now: float) -> None:
        self._flows[flow.fd] = flow
        self._choose(now)

    def remove(self, flow: Flow, now: float) -> bool:
        """Whether it was the last one."""
        self._flows.pop(flow.fd, None)
        self._down.pop(flow.fd, None)
        self._choose(now)
        return not self._flows

    def state(self, flow: Flow, up: bool, now: float) -> None:
        if up:
            self._down.pop(flow.fd, None)
        else:
            self._down[flow.fd] = None
        self._choose(now)

    def _choose(self, now: float) -> None:
        """Use the newest flow that is up. On another one all begins anew, by a copy of the database."""
        used = next((flow for fd, flow in reversed(self._flows.items()) if fd not in self._down), None)
        if used is self._used:
            return
        self._used = used
        if used is not None:
            self._answered.clear()
        self.is_silent(now)
        self._queue.clear()
        self._quick.clear()
        self._waiting.clear()
        self._told.clear()
        self._arrived.clear()
        self._repeat_at = self._copy_at = self._round_trip = None
        self._repeated = 0
        if used is not None:
            self._next = now if used.ours else now + QUIET
            self._copy()
            if not used.ours:
                self._copy_at = now + AGAIN

    def _copy(self) -> None:
        assert self._used is not None
        self._queue.update(dict.fromkeys(self._database.pairs(withdrawn=self._used.ours), True))

    # --- what comes in

    def takes(self, *, single: bool, now: float) -> bool:
        """Whether it has not sent too much already."""
        return (self._single if single else self._several).take(now)

    def arrived(self, flow: Flow, id: int) -> None:
        """It sent a message, which is to be acknowledged."""
        if flow is self._used and len(self._arrived) < MOST_IDS:
            self._arrived.append(id)

    def acknowledged(self, ids: Iterable[int], now: float) -> None:
        for id in ids:
            if id not in self._waiting:
                continue
            sent, pairs = self._waiting.pop(id)
            for pair in pairs:
                if self._told.get(pair) == id:
                    del self._told[pair]
                    self._answer(pair)
            smooth = now - sent if self._round_trip is None else 0.875 * self._round_trip + 0.125 * (now - sent)
            self._round_trip, self._repeated = smooth, 0
            self._repeat_at = now + self._repetition() if self._waiting else None

    def knows(self, pair: Pair) -> None:
        """It told that itself, as it is now."""
        self._forget(pair)
        self._told.pop(pair, None)
        self._answer(pair)
        entry = self._database.get(pair)
        if pair in self._answered and entry is not None and not entry.yields_to(self._answered[pair][0]):
            del self._answered[pair]

    def _answer(self, pair: Pair) -> None:
        """It has been heard, or said something itself, perhaps before it was asked."""
        asked = self._asked.pop(pair, None)
        if asked is None:
            return
        self._answered.pop(pair, None)
        if len(self._answered) >= MOST_ASKED:
            del self._answered[next(iter(self._answered))]
        self._answered[pair] = asked

    # --- what goes out

    def tell(self, pair: Pair) -> None:
        """An entry is another one now, or was asked for."""
        if self._used is not None:
            self._queue.setdefault(pair, False)

    def tell_soon(self, pair: Pair) -> None:
        """The same, for what has just become so. It waits for the end of a pause only if the neighbour was told of that pair
        within it, or is the one that is to have said it: so lies are told no more often than with a pause after each
        message, and questions as often as that."""
        self.tell(pair)
        if self._used is not None and pair[0] != self.address and pair not in self._said:
            self._quick[pair] = None

    def ask(self, update: LinkStateUpdate, now: float) -> None:
        """Somebody else says that of a link of it. One of the prototype is not asked, and not told."""
        if self._repeated >= QUESTIONS:
            self._unanswered(update, now)
            return
        pair = update.source, update.destination
        known = self._asked.get(pair)
        if known is not None and known[0].number >= update.number:
            return
        if known is None and len(self._asked) >= MOST_ASKED:
            self._core.counters["lsus_refused"] += 1
            return
        self._asked[pair] = update, now
        if self.ours:
            self.tell(pair)

    def is_silent(self, now: float) -> None:
        """It says nothing any more."""
        self._asked = self._answered | self._asked
        self._answered.clear()
        self._ask_no_more(now)

    def _ask_no_more(self, now: float) -> None:
        asked, self._asked = self._asked, {}
        for update, since in asked.values():
            age = min(update.age + int(now - since), MOST_AGE)
            self._unanswered(msgspec.structs.replace(update, age=age), now)

    def deadline(self) -> float | None:
        """When `send` has something to do."""
        if self._used is None:
            return None
        return earliest(self._due(self._used), self._repeat_at, self._copy_at)

    def _due(self, flow: Flow) -> float | None:
        """When it is to be told something, or that what it told has come."""
        if not flow.ours:
            return self._next if self._queue else None
        if len(self._waiting) >= WINDOW or not self._queue:
            return self._next if self._arrived else None
        return 0.0 if self._quick and self._left else self._next

    def send(self, now: float, *, at_once: bool = False) -> None:
        """Send what is due. `at_once`: do not wait for the next time."""
        if self._used is None:
            return
        if at_once:
            self._next = now
        if self._copy_at is not None and self._copy_at <= now:
            self._copy_at = None
            self._copy()
        if self._repeat_at is not None and self._repeat_at <= now:
            self._repeat(now)
        if self._used.ours:
            self._send_several(self._used, now)
        elif self._queue and self._next <= now:
            self._send_single(self._used, now)

    def _repetition(self) -> float:
        """Seconds until what is not acknowledged is told again."""
        first = FIRST_REPETITION if self._round_trip is None else max(ROUNDS * self._round_trip, LEAST_REPETITION)
        return min(first * 2.0 ** min(self._repeated, MOST_DOUBLINGS), LAST_REPETITION)

    def _repeat(self, now: float) -> None:
        """Tell the pairs that were not acknowledged once more. There is none when it told all of them itself meanwhile."""
        self._repeated = self._repeated + 1 if self._told else 0
        if self._repeated >= QUESTIONS:
            self._ask_no_more(now)
        self._queue.update((pair, False) for pair in self._told if pair not in self._queue)
        self._waiting.clear()
        self._told.clear()
        self._repeat_at = None

    def _send_several(self, flow: Flow, now: float) -> None:
        if self._next > now:
            self._left -= self._send_updates(flow, self._quick, self._left, now)
            if self._quick:
                # No more of them, or no more for now.
                self._left = 0
        elif self._queue or self._arrived:
            self._next, self._left = now + PAUSE, QUICK
            self._said.clear()
            if self._arrived:
                self._core.message(flow.fd, Acknowledgement(tuple(self._arrived)).encode())
                self._arrived.clear()
            self._send_updates(flow, self._queue, OURS_BURST, now)
        if self._waiting and self._repeat_at is None:
            self._repeat_at = now + self._repetition()

    def _send_updates(self, flow: Flow, which: dict[Pair, bool] | dict[Pair, None], messages: int, now: float) -> int:
        """Those of the queue, in so many messages at the most. How many there were."""
        most, sent = fitting(flow.size.whole), 0
        while sent < messages and len(self._waiting) < WINDOW and which and self._tells.take(now):
            pairs = tuple(islice(which, most))
            updates = tuple(update for pair in pairs if (update := self._update(pair, now)) is not None)
            for pair in pairs:
                self._forget(pair)
            if updates:
                id, told = self._draw(), tuple((each.source, each.destination) for each in updates)
                self._waiting[id] = now, told
                self._told.update(dict.fromkeys(told, id))
                self._said.update(told)
                self._core.message(flow.fd, Updates(id, updates).encode())
                sent += 1
        return sent

    def _forget(self, pair: Pair) -> None:
        """It is not to be told any more."""
        self._queue.pop(pair, None)
        self._quick.pop(pair, None)

    def _send_single(self, flow: Flow, now: float) -> None:
        self._next = now + BURST_PAUSE
        left = BURST
        while self._queue and left:
            pair, copied = next(iter(self._queue.items()))
            self._forget(pair)
            update = self._update(pair, now)
            if update is not None and not update.withdrawn and self._may_hear(pair, copied=copied):
                self._core.message(flow.fd, update.encode())
                left -= 1

    def _may_hear(self, pair: Pair, *, copied: bool) -> bool:
        """A member of the prototype takes up what it hears of itself, and repeats it for ever (`unicast-control.md` 6.6):
        only a copy tells it its own links, which goes on with their numbers so."""
        source, destination = pair
        if source != self.address:
            return True
        return copied and (destination == self._core.address or self._exists(pair))

    def _update(self, pair: Pair, now: float) -> LinkStateUpdate | None:
        if self.ours and (asked := self._asked.get(pair)) is not None:
            return asked[0]
        entry = self._database.get(pair)
        if entry is None or entry.life is Life.AGED:
            return None
        source, destination = pair
        age = min(max(0, int(now - entry.stamp)), MOST_AGE)
        withdrawn = entry.life is Life.WITHDRAWN
        return LinkStateUpdate(destination, source, entry.number, withdrawn, age, entry.most, entry.whole)
