"""Ends of flows on their way to the callers that wait for them. A caller may be gone by then."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Callable

from ouroboros.control.irm import Irm
from ouroboros.runtime.callers import Callers
from ouroboros.runtime.flows import Channel
from ouroboros.runtime.journal import Journal
from ouroboros.wire.control import Failed, Granted


class Grants:
    """Answers requests for flows, by their tokens. What does not reach its program is abandoned."""

    def __init__(self, irm: Irm, callers: Callers, journal: Journal, publish: Callable[[], None]) -> None:
        """`publish`: is called before a program has a flow."""
        self._irm = irm
        self._journal = journal
        self._callers = callers
        self._publish = publish

    def grant(self, token: int, granted: Granted, channel: Channel) -> None:
        """Send an end and its descriptors."""
        self._publish()
        take_back = functools.partial(self._abandon, granted.flow_id, granted.side, token)
        ends = channel.memory, channel.bells[granted.side]
        if not self._callers.answer(token, granted, ends, undelivered=take_back):
            take_back()

    def fail_flow(self, flow_id: int, side: int, token: int, error: OSError) -> None:
        """Say that an end could not be made."""
        self._journal.write(self._callers.user(token), f"flow {flow_id} could not be made: {error}")
        self._abandon(flow_id, side, token)
        text = f"the node could not make the flow: {error.strerror}"
        if error.errno:
            limit = {errno.EFBIG: "`ulimit -f`", errno.ENOMEM: "`ulimit -v`"}.get(error.errno, "`ulimit -n`")
            text += f"; deallocate flows, or raise its limits ({limit})"
        self._callers.answer(token, Failed("NodeLimitError", text))

    def _abandon(self, flow_id: int, side: int, token: int) -> None:
        self._irm.abandon(flow_id, side, token, asyncio.get_running_loop().time())
