"""Connections that are wanted: one that is lost is asked for again, until somebody disconnects it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from ouroboros.errors import OuroborosError
from ouroboros.layers.agenda import Agenda
from ouroboros.layers.face import Task
from ouroboros.layers.members.core import Then
from ouroboros.qos import QoSSpec

#: Seconds until a lost connection is asked for, and until it is asked for again; the pauses double, up to the second number.
FIRST_PAUSE = 0.5
#: The same for one that the neighbour had asked for.
SECOND_PAUSE = 1.5
#: The same for one that is there, but silent: a host that is busy is back by then.
SILENT_PAUSE = 3.0
LONGEST_PAUSE = 30.0


class Wish(NamedTuple):
    """A connection of a component to the member that is asked by that name. `over`: the layer below; "": any."""

    component: str
    name: str
    over: str = ""


class Upkeep:
    """The connections of one member that were asked for from this side, and came about."""

    def __init__(self, connect: Callable[[Wish, QoSSpec, Task, float], None]) -> None:
        """`connect`: asks for a connection; its task is answered when it is there, or not."""
        self._connect = connect
        self._wishes: dict[Wish, QoSSpec] = {}
        #: Wishes by number, which are the keys of the agenda, and their next pauses.
        self._lost: dict[int, Wish] = {}
        self._pauses: dict[Wish, float] = {}
        self._agenda = Agenda()
        self._last = 0

    @property
    def missing(self) -> list[Wish]:
        """Those that are not there."""
        return list(self._pauses)

    @property
    def wishes(self) -> dict[Wish, QoSSpec]:
        """All of them."""
        return dict(self._wishes)

    def want(self, wish: Wish, qos: QoSSpec) -> None:
        """It is there, and is to stay."""
        self._wishes[wish] = qos
        self.found(wish)

    def drop(self, wish: Wish) -> bool:
        """It is not wanted any more. Whether it was."""
        self._pauses.pop(wish, None)
        return self._wishes.pop(wish, None) is not None

    def found(self, wish: Wish) -> None:
        """It is there after all."""
        self._pauses.pop(wish, None)

    def lost(self, wish: Wish, now: float, pause: float = FIRST_PAUSE) -> None:
        """It ended, or nothing comes by it; it is asked for after a pause. No matter if it was not wanted."""
        if wish in self._wishes and wish not in self._pauses:
            self._pauses[wish] = pause
            self._later(wish, now)

    def _later(self, wish: Wish, now: float) -> None:
        pause = self._pauses[wish]
        self._pauses[wish] = min(2 * pause, LONGEST_PAUSE)
        self._last += 1
        self._lost[self._last] = wish
        self._agenda.set(self._last, now + pause)

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for number in self._agenda.due(now):
            wish = self._lost.pop(number)
            if wish in self._pauses:
                self._connect(wish, self._wishes[wish], Then(functools.partial(self._answered, wish)), now)
                if wish in self._pauses:
                    # If this does not come to an end, the next one finds out.
                    self._later(wish, now)

    def _answered(self, wish: Wish, outcome: object) -> None:
        """An attempt is over. If it failed, that is nothing new."""
        if not isinstance(outcome, OuroborosError):
            self.found(wish)
