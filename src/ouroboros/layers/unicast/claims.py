"""What other members say of the links of this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ouroboros.layers.agenda import earliest
from ouroboros.layers.members.core import Core
from ouroboros.layers.unicast.database import OURS, Database, Life, Pair
from ouroboros.wire.unicast.lsu import MOST_NUMBER, LinkStateUpdate

#: Somebody else speaks for our links: so many seconds later it is contradicted, however often it was said meanwhile. If it
#: goes on, a member has our address.
PAUSE = 1.0
OF_ANOTHER = 3
MOST = 256
#: Above it there are too few numbers left to contradict and to refresh: the address is given up.
LAST_NUMBER = MOST_NUMBER - (1 << 16)


@dataclass(slots=True, eq=False)
class _Claim:
    """What somebody else said of a link of ours: the greatest number, and how often it grew. `answer_at`: None when it was
    answered."""

    number: int
    since: float
    answer_at: float | None
    count: int = 0


class Claims:
    """Numbers of others for links of ours. `collided`: another member has our address, or has spoken for it
    with a number that cannot be beaten."""

    def __init__(self, core: Core, database: Database, collided: Callable[[float], None]) -> None:
        self._core = core
        self._database = database
        self._collided = collided
        self._claims: dict[Pair, _Claim] = {}

    def number(self, pair: Pair) -> int:
        """The greatest that was claimed for a link; -1: none."""
        claim = self._claims.get(pair)
        return -1 if claim is None else claim.number

    def heard(self, update: LinkStateUpdate, now: float) -> None:
        """Our own updates come back, also from an earlier life. What is above them, or numbered by the prototype, is said by
        somebody else, or was in a life in which the clock was ahead."""
        pair = update.source, update.destination
        entry = self._database.get(pair)
        known = -1 if entry is None else entry.number
        # With the same number in an earlier life, it may have been the opposite.
        same = entry is not None and update.withdrawn == (entry.life is Life.WITHDRAWN)
        if OURS <= update.number < known or (OURS <= update.number == known and same):
            return
        claim = self._claims.get(pair)
        if claim is None:
            is_link = entry is not None and entry.life is Life.LIVE
            if len(self._claims) >= MOST and not (is_link and self._forget_one()):
                self._core.counters["lsus_refused"] += 1
                return
            claim = self._claims[pair] = _Claim(update.number, now, now + PAUSE)
        elif update.number <= claim.number:
            return
        elif claim.answer_at is None:
            claim.answer_at = now + PAUSE
        claim.number, claim.count = update.number, claim.count + 1
        self._core.counters["lsus_of_own_address"] += 1
        if claim.count >= OF_ANOTHER or update.number > LAST_NUMBER:
            claim.count = 0
            self._collided(now)

    def _forget_one(self) -> bool:
        """Of those for links that we do not have: they can be invented, and hide no link of ours. Whether there was one."""
        for pair in self._claims:
            entry = self._database.get(pair)
            if entry is None or entry.life is not Life.LIVE:
                del self._claims[pair]
                return True
        return False

    def deadline(self) -> float | None:
        """When claims are answered: not at once, as we may be about to have the link, and another may answer as well."""
        return earliest(*[each.answer_at for each in self._claims.values()])

    def to_answer(self, now: float) -> list[int]:
        """The neighbours at the other ends of links for which the truth has to be said now."""
        claims = self._claims.items()
        due = [(pair, claim) for pair, claim in claims if claim.answer_at is not None and claim.answer_at <= now]
        for _, claim in due:
            claim.answer_at = None
        return [pair[1] for pair, claim in due if claim.number >= self._database.number(pair)]

    def forget(self, before: float) -> None:
        """Those that began before that time."""
        self._claims = {pair: claim for pair, claim in self._claims.items() if claim.since >= before}

    def clear(self) -> None:
        self._claims.clear()
