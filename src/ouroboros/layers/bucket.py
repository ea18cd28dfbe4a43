"""How often something may be done."""

from __future__ import annotations

from collections.abc import Callable, Hashable

#: Reasons of refusals that the operator is told: so many a second, and at once.
WARNINGS = (1.0, 20.0)
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

    def next(self) -> float:
        """When there is one more, or a bit later, for rounding."""
        return self._last + max(0.0, 1 - self._level) / self._rate + 1e-6


class Buckets:
    """A bucket for each of many, as of `Bucket`, of which a few are kept: those that somebody has taken from."""

    def __init__(self, rate: float, burst: float) -> None:
        self._each = rate, burst
        self._buckets: dict[Hashable, Bucket] = {}

    def take(self, whose: Hashable, now: float, amount: float = 1.0) -> bool:
        """Whether there is so much of that one's."""
        bucket = self._buckets.get(whose)
        if bucket is None:
            if len(self._buckets) >= MOST_RATES:
                # Those that are as if nothing had been.
                self._buckets = {each: known for each, known in self._buckets.items() if not known.is_full(now)}
            # Never more of them, however many there are.
            whose = whose if len(self._buckets) < MOST_RATES else None
            bucket = self._buckets.setdefault(whose, Bucket(*self._each))
        return bucket.take(now, amount)


class Lines:
    """Lines of a log that others can cause: so many a second, and then how many were left out."""

    def __init__(self, rate: float, burst: float, say: Callable[[str], None]) -> None:
        self._bucket = Bucket(rate, burst)
        self._say = say
        self._left_out = 0

    def add(self, text: str, now: float) -> None:
        # What was left out is told first, by `timeout`.
        if not self._left_out and self._bucket.take(now):
            self._say(text)
        else:
            self._left_out += 1

    def deadline(self) -> float | None:
        return self._bucket.next() if self._left_out else None

    def timeout(self, now: float) -> None:
        if self._left_out and self._bucket.take(now):
            left_out, self._left_out = self._left_out, 0
            self._say(f"{left_out} more like that were not logged")
