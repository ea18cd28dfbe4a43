"""What a node has to do that needs others, who may not be there yet: it tries again until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ouroboros.control.configuration import Steps
from ouroboros.errors import OuroborosError
from ouroboros.wire.control import Request

log = logging.getLogger("ouroboros.irmd")

#: Seconds until what failed is tried again; the pauses double, up to the second number.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


class Pursuits:
    """Requests of the node's own, one sequence after another of each title."""

    def __init__(self, ask: Callable[[Request], Awaitable[object]]) -> None:
        """`ask`: carries a request out; raises the error of its answer."""
        self._ask = ask
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, title: str, steps: Callable[[], Steps]) -> None:
        """Carry the steps out. What goes on under that title ends."""
        if (before := self._tasks.pop(title, None)) is not None:
            before.cancel()
        task = self._tasks[title] = asyncio.get_running_loop().create_task(self._pursue(title, steps))
        task.add_done_callback(lambda _: self._ended(title, task))

    def _ended(self, title: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(title) is task:
            del self._tasks[title]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Said when it happens, and not when the task is collected.
            task.get_loop().call_exception_handler({"message": f"{title} was given up", "exception": error})

    async def _pursue(self, title: str, steps: Callable[[], Steps]) -> None:
        pause, told = FIRST_PAUSE, ""
        while True:
            try:
                await self._follow(steps())
            except OuroborosError as error:
                if str(error) != told:
                    log.warning("%s %s; it is tried again", title, error)
                told = str(error)
            else:
                if told:
                    log.info("%s is done", title)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _follow(self, steps: Steps) -> None:
        go_on: Callable[[], Request] = partial(steps.send, None)
        while True:
            try:
                request = go_on()
            except StopIteration:
                return
            try:
                go_on = partial(steps.send, await self._ask(request))
            except OuroborosError as error:
                go_on = partial(steps.throw, error)

    def shut_down(self) -> None:
        for task in self._tasks.values():
            task.cancel()
