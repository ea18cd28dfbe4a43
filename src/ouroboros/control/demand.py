"""Programs that are started because somebody wants a flow to a name. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ouroboros.control.names import Name
from ouroboros.control.shares import Rates
from ouroboros.errors import NodeLimitError
from ouroboros.layers.effects import Effect, StartProgram


class OnDemand:
    """Which programs are under way. `rates`: how often users may have some started."""

    def __init__(self, effects: list[Effect], rates: Rates) -> None:
        self._effects = effects
        self._rates = rates
        #: Names for which a program was started that did not accept anything yet.
        self._starting: set[str] = set()
        #: How many programs that were started for a name did not end yet.
        self._started: Counter[str] = Counter()

    def start(self, name: Name, user: int | None, now: float) -> None:
        """Start the program of a name, if it has one that is neither there nor under way. Raises `NodeLimitError` when the
        user for whom it is has had too many started. `user` None: the owner of the node."""
        binding = name.autostart()
        if binding is None or name.servers or name.text in self._starting:
            return
        if user is not None and not self._rates.take(user, now):
            whose = "other nodes have" if user < 0 else f"user {user} has"
            raise NodeLimitError(
                f"{whose} had this node start programs too often, and now one is wanted for {name.text!r}: try again"
                " later, or have the owner of the node start it"
            )
        self._starting.add(name.text)
        self._started[name.text] += 1
        self._effects.append(StartProgram(binding.path, binding.args, name.text))

    def runs(self, text: str) -> bool:
        """Whether a program that was started for the name did not end yet."""
        return text in self._started

    def arrived(self, texts: Iterable[str]) -> None:
        """Somebody accepts for these names, or they are gone: the next flow may start a program again."""
        self._starting.difference_update(texts)

    def ended(self, text: str) -> None:
        """A program that was started for the name is gone."""
        self._starting.discard(text)
        self._started[text] -= 1
        if self._started[text] <= 0:
            del self._started[text]
