"""How often something may be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

#: Reasons of refusals that the operator is told: so many a second of each who causes them, and at once; and as many times
#: that of all together.
WARNINGS = (1.0, 20.0)
TOGETHER = 5
#: Of whom the rates are told apart; all others have one rate.
MOST_RATES = 256


class Bucket:
    """At most `rate` a second in the long run, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._last = 0.0

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Whether there is so much. What is more than can ever be there is had when all is, and counts as a debt."""
        self._level = min(self._burst, self._level + max(0.0, now - self._last) * self._rate)
        self._last = now
        if self._level < min(amount, self._burst):
            return False
        self._level -= amount
        return True

    def is_full(self, now: float) -> bool:
        """Whether it is as if nothing had been taken."""
        return self._level + max(0.0, now - self._last) * self._rate >= self._burst


class Buckets:
    """A bucket for each of many, as of `Bucket`, of which a few are kept: those that somebody has taken from."""

    def __init__(self, rate: float, burst: float) -> None:
        self._each = rate, burst
        self._buckets: dict[Hashable, Bucket] = {}

    def take(self, whose: Hashable, now: float, amount: float = 1.0) -> bool:
        """Whether there is so much of that one's."""
        return self.find(whose, now)[1].take(now, amount)

    def find(self, whose: Hashable, now: float) -> tuple[Hashable, Bucket]:
        """The bucket of that one, and whose it is: None when there are so many that some share one."""
        bucket = self._buckets.get(whose)
        if bucket is None:
            if len(self._buckets) >= MOST_RATES:
                # Those that are as if nothing had been.
                self._buckets = {each: known for each, known in self._buckets.items() if not known.is_full(now)}
            # Never more of them, however many there are.
            whose = whose if len(self._buckets) < MOST_RATES else None
            bucket = self._buckets.setdefault(whose, Bucket(*self._each))
        return whose, bucket


class Lines:
    """Lines of a log that others can cause: so many a second of each, five times that of all, and then how many were left
    out."""

    def __init__(self, rate: float, burst: float, say: Callable[[str], None]) -> None:
        self._buckets = Buckets(rate, burst)
        self._together = Bucket(TOGETHER * rate, TOGETHER * burst)
        self._pause = 1 / rate
        self._say = say
        self._left_out: Counter[Hashable] = Counter()
        self._count_at: float | None = None

    def add(self, text: str, now: float, whose: Hashable = None) -> None:
        """`whose`: of those that are told apart."""
        whose, bucket = self._buckets.find(whose, now)
        # What was left out is told first, by `timeout`.
        if whose not in self._left_out and bucket.take(now) and self._together.take(now):
            self._say(text)
            return
        self._left_out[whose] += 1
        if self._count_at is None:
            self._count_at = now + self._pause

    def deadline(self) -> float | None:
        return self._count_at

    def timeout(self, now: float) -> None:
        if self._count_at is None or now < self._count_at:
            return
        for whose in self._left_out:
            # Their line is the one that follows.
            self._buckets.take(whose, now)
        self._say(f"{self._left_out.total()} more like that were not logged")
        self._left_out.clear()
        self._count_at = None
