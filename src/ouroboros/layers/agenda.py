"""Times at which things are due."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Protocol


class Timed(Protocol):
    """Whatever has something to do at a time."""

    def deadline(self) -> float | None: ...


def earliest(*times: float | None) -> float | None:
    """The earliest of the times that there are."""
    first = None
    for when in times:
        if when is not None and (first is None or when < first):
            first = when
    return first


def soonest(parts: Iterable[Timed]) -> float | None:
    """The earliest of their deadlines. It is asked for after whatever happens to a node."""
    first = None
    for part in parts:
        when = part.deadline()
        if when is not None and (first is None or when < first):
            first = when
    return first


class Alarm:
    """The time at which the first of many has something to do, or an earlier one: it does not hear of what was given up."""

    def __init__(self) -> None:
        self.at = math.inf

    def sooner(self, when: float | None) -> None:
        """Somebody has something to do then."""
        if when is not None and when < self.at:
            self.at = when


class Agenda:
    """Keys by the time at which each is due. A key has one time; setting it again moves it."""

    def __init__(self, alarm: Alarm | None = None) -> None:
        """`alarm`: hears of each time, so that nobody has to ask for the next one."""
        self._alarm = alarm
        self._times: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __contains__(self, key: int) -> bool:
        return key in self._times

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: int, when: float) -> None:
        self._times[key] = when
        if self._alarm is not None and when < self._alarm.at:
            self._alarm.at = when
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 64 + 4 * len(self._times):
            # Most entries are of things that were over before their time.
            self._heap = [(when, key) for key, when in self._times.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: int) -> None:
        self._times.pop(key, None)

    def next(self) -> float | None:
        """The earliest time."""
        heap = self._heap
        if not heap:
            return None
        times = self._times
        while heap:
            when, key = heap[0]
            if times.get(key) == when:
                return when
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> Iterator[int]:
        """Take the keys whose time has come, the earliest first."""
        while (when := self.next()) is not None and when <= now:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            yield key
