"""Which layers there are on an Ethernet segment: all stations are asked, and ours answer (docs/protocol/ethernet.md)."""

from __future__ import annotations

from collections.abc import Callable

from ouroboros.layers.agenda import Agenda
from ouroboros.layers.effects import Where
from ouroboros.layers.face import Found, Task
from ouroboros.wire.offers import Offer

#: Seconds until the question is repeated; then the pauses double. After so many, what was heard is all.
FIRST_PAUSE = 0.1
QUESTIONS = 3
#: Stations that are heard in one round, at the most.
MOST_STATIONS = 1024

_ROUND = 0


class Discovery:
    """One round at a time, for whoever asks meanwhile."""

    def __init__(self, ask: Callable[[], None]) -> None:
        """`ask`: asks all stations."""
        self._ask = ask
        self._tasks: list[Task] = []
        self._found: dict[str, list[Offer]] = {}
        self._asked = 0
        self._agenda = Agenda()

    def begin(self, task: Task, now: float) -> None:
        """`task` is answered by a list of `Found`."""
        self._tasks.append(task)
        if len(self._tasks) == 1:
            self._found, self._asked = {}, 0
            self._go_on(now)

    def heard(self, station: Where, offers: list[Offer]) -> bool:
        """A station answers. False: nobody asked, so it is not believed."""
        if not self._tasks or isinstance(station, int):
            return False
        if station[0] in self._found or len(self._found) < MOST_STATIONS:
            self._found[station[0]] = offers
        return True

    def close(self) -> None:
        """What was heard is all."""
        self._agenda.cancel(_ROUND)
        found = [Found(offer, station) for station, offers in self._found.items() for offer in offers]
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.done(found)

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for _ in self._agenda.due(now):
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self._asked == QUESTIONS:
            self.close()
            return
        self._agenda.set(_ROUND, now + FIRST_PAUSE * 2**self._asked)
        self._asked += 1
        self._ask()
