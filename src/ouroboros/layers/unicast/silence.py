"""Neighbours of the prototype, which say something every `t_update`."""

from __future__ import annotations

#: One that is silent for so many times `t_update` is gone.
SILENCE = 3
#: Later than that, this node stood still: nobody is judged by what could not be read meanwhile.
STALL = 1.0


class Silence:
    """Neighbours by their addresses. `t_update`: seconds."""

    def __init__(self, t_update: float) -> None:
        self._t_update = t_update
        #: When they were heard last; and those that have been silent for too long since.
        self._heard: dict[int, float] = {}
        self._silent: set[int] = set()

    def __contains__(self, address: int) -> bool:
        """Whether that one has been silent for too long."""
        return address in self._silent

    def awaits(self, address: int) -> bool:
        """Whether it has to say something, and has not been silent for too long."""
        return address in self._heard

    def heard(self, address: int, now: float) -> bool:
        """Whether it had been silent."""
        self._heard[address] = now
        return self._speaks(address)

    def ignore(self, address: int) -> bool:
        """It need not say anything any more. Whether it had been silent."""
        self._heard.pop(address, None)
        return self._speaks(address)

    def _speaks(self, address: int) -> bool:
        silent = address in self._silent
        self._silent.discard(address)
        return silent

    def deadline(self) -> float | None:
        return min(map(self._patience, self._heard), default=None)

    def judge(self, now: float) -> list[int]:
        """Those that have been silent for too long now, and had not before."""
        found = []
        for address in list(self._heard):
            late = now - self._patience(address)
            if late > STALL:
                self._heard[address] += late + self._t_update
            elif late >= 0:
                del self._heard[address]
                self._silent.add(address)
                found.append(address)
        return found

    def _patience(self, address: int) -> float:
        return self._heard[address] + SILENCE * self._t_update
