"""Requests that were here before, and requests from another time. Source: `security.md` 3."""

from __future__ import annotations

import heapq

from ouroboros.oap.session import EAUTH, OapError

_MS = 10**6
#: A request is remembered for as long as it could be repeated.
LIFETIME = 20_000 * _MS
#: So far ahead may the clock of a client be.
AHEAD = 100 * _MS


def check_age(timestamp: int, wall: int) -> None:
    """Raise `OapError` when a request is not from the last twenty seconds."""
    # Whole milliseconds towards zero, as the prototype has them.
    age = abs(wall - timestamp) // _MS * _MS
    if timestamp > wall and age > AHEAD:
        raise OapError(
            EAUTH,
            f"the request is from {_seconds(age)} in the future, at most 100 ms are allowed: "
            "the clocks of the two hosts differ, set them (NTP does)",
        )
    if timestamp < wall and age > LIFETIME:
        raise OapError(
            EAUTH,
            f"the request is {_seconds(age)} old, at most 20 s are allowed: it was held up or is a repetition, "
            "or the clocks of the two hosts differ; set them (NTP does)",
        )


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.1f} s"


class ReplayMemory:
    """Which requests of the last twenty seconds were accepted, up to a number of them.

    When it is full, the request with the oldest timestamp is forgotten, and from then on no request as old as that is
    taken. So a flood shortens the time that a request may take to come here, but it never lets one in a second time.
    """

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._capacity = capacity
        self._oldest: list[tuple[int, bytes]] = []
        self._known: set[tuple[int, bytes]] = set()
        self._floor = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, entry: tuple[int, bytes]) -> bool:
        return entry in self._known

    def check(self, timestamp: int, id: bytes, wall: int) -> None:
        """Raise `OapError` when that request was here, or may have been."""
        if self._floor > wall + AHEAD:
            # The clock was set back: what was forgotten is from a time that has yet to come.
            self._floor = 0
        if (timestamp, id) in self._known:
            raise OapError(EAUTH, "the same request was here before: somebody repeats it")
        if timestamp <= self._floor:
            raise OapError(EAUTH, "the request is older than those that are remembered: too many come in at once")

    def add(self, timestamp: int, id: bytes, wall: int) -> None:
        self._forget(wall)
        self._known.add((timestamp, id))
        heapq.heappush(self._oldest, (timestamp, id))

    def _forget(self, wall: int) -> None:
        while self._oldest and wall - self._oldest[0][0] > LIFETIME + _MS:
            self._known.discard(heapq.heappop(self._oldest))
        while len(self._oldest) >= self._capacity:
            entry = heapq.heappop(self._oldest)
            self._known.discard(entry)
            self._floor = max(self._floor, entry[0])
