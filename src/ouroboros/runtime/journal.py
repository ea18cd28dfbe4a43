"""What clients have a node write into its log: so much of each user, and a count of the rest."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from ouroboros.control.shares import LINES, LINES_OF_OWNER, LINES_TOGETHER, PEERS, Rates
from ouroboros.layers.bucket import MOST_RATES

log = logging.getLogger("ouroboros.irmd")

#: Seconds after which it is told how many lines were left out.
_COUNT_TIME = 10.0
#: Characters of a line; it may quote what a client or a peer sent.
_LONGEST = 1000


class Journal:
    """`trusts`: whether a user is the owner of the node."""

    def __init__(self, trusts: Callable[[int], bool]) -> None:
        self._rates = Rates(trusts, user=LINES, users=LINES_TOGETHER, owner=LINES_OF_OWNER)
        self._left_out: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, user: int, text: str, *, level: int = logging.WARNING, bug: BaseException | None = None) -> None:
        """A line that a user caused; `PEERS`: one of whom that cannot be told. `bug`: of the node, to be shown as well."""
        loop = asyncio.get_running_loop()
        if not self._rates.take(user, loop.time()):
            known = user in self._left_out or len(self._left_out) < MOST_RATES
            self._left_out[user if known else PEERS] += 1
            if self._timer is None:
                self._timer = loop.call_later(_COUNT_TIME, self.count)
            return
        self.tell(level, text, bug=bug)

    def tell(self, level: int, text: str, *, bug: BaseException | None = None) -> None:
        """A line whose cause bounds how many there are. It may quote a peer or a client."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}..."
        log.log(level, "%s", text if text.isprintable() else repr(text), exc_info=bug)

    def count(self) -> None:
        """Say how much was left out."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left_out:
            most = self._left_out.most_common(3)
            whose = ", ".join(f"{count} of {_named(user)}" for user, count in most)
            more = self._left_out.total() - sum(count for _, count in most)
            log.warning("lines that were left out: %s%s", whose, f", {more} of others" if more else "")
            self._left_out.clear()


def _named(user: int) -> str:
    return "others" if user == PEERS else f"user {user}"
