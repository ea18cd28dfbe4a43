"""Parts of members in virtual time: what they want is carried out, their deadlines are kept, and packets get lost."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from ouroboros.layers.effects import Effect
from ouroboros.layers.members.core import Core


class TimedMember(Protocol):
    """`part`: the part of the member that is tested, with `deadline` and `timeout`."""

    address: int
    core: Core
    part: Any


_M = TypeVar("_M", bound=TimedMember)

#: More calls at one time than any network here has.
_STANDSTILL = 100_000


class TimedWorld(ABC, Generic[_M]):
    """Members by their addresses, and time. `delay`: of packets, seconds."""

    def __init__(self, seed: int, delay: float) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(seed)
        self.members: dict[int, _M] = {}
        #: Of packets: seconds on the way, and parts of all that are lost, doubled, or late by up to `late` seconds.
        self.delay, self.loss, self.doubled, self.reordered, self.late = delay, 0.0, 0.0, 0.0, 0.2
        self.packets = 0
        self._order = count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        #: When members are called next.
        self._timers: dict[int, float] = {}

    def later(self, pause: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + pause, next(self._order), call))

    def run(self, seconds: float) -> None:
        """Let so many seconds pass."""
        end, calls = self.now + seconds, 0
        while self._heap and self._heap[0][0] <= end:
            before = self.now
            self.now, _, call = heapq.heappop(self._heap)
            calls = calls + 1 if self.now == before else 0
            assert calls < _STANDSTILL, "time stands still: a member wants to be called, and does nothing then"
            call()
        self.now = end

    def do(self, member: _M, call: Callable[[Any], None]) -> None:
        """Let a member do something, and carry out what it wants. One that was killed does nothing."""
        if self.members.get(member.address) is not member:
            return
        call(member.part)
        effects, member.core.host.effects[:] = list(member.core.host.effects), []
        for effect in effects:
            self.carry_out(member, effect)
        self._arm(member)

    @abstractmethod
    def carry_out(self, member: _M, effect: Effect) -> None:
        """Fails the test for an effect that the part must not have."""

    def on_the_way(self, deliver: Callable[[], None]) -> None:
        """A packet is sent: it arrives later, or twice, or never."""
        for _ in range(2 if self.random.random() < self.doubled else 1):
            if self.random.random() < self.loss:
                continue
            late = self.random.random() * self.late if self.random.random() < self.reordered else 0.0
            self.later(self.delay + late, deliver)

    def _arm(self, member: _M) -> None:
        when = member.part.deadline()
        known = self._timers.get(member.address)
        if when is not None and (known is None or when < known):
            self._timers[member.address] = when
            self.later(max(0.0, when - self.now), lambda: self._ring(member, when))

    def _ring(self, member: _M, when: float) -> None:
        if self.members.get(member.address) is not member or self._timers.get(member.address) != when:
            return
        del self._timers[member.address]
        due = member.part.deadline()
        if due is not None and due <= self.now:
            self.do(member, lambda part: part.timeout(self.now))
        else:
            self._arm(member)
