"""The way of packets from writers to the library: only when the ring has room, and to a flow that is known to be up."""

from __future__ import annotations

import select
import threading
import time
from time import perf_counter
from typing import Any

from ouroboros.dataplane import ends
from ouroboros.errors import (
    FlowDownException,
    FlowPermissionException,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
)
from ouroboros.native import declarations as c
from ouroboros.native.descriptor import Descriptor
from ouroboros.native.ending import Ending
from ouroboros.native.handle import Handle
from ouroboros.native.tuning import FIRST_PAUSE, LAST_PAUSE, LONG_OVER, SPARE, STAYS_UP


class Writing:
    """The room that a flow has, and how a writer waits for more."""

    def __init__(self, handle: Handle, ending: Ending, descriptor: Descriptor) -> None:
        self._handle = handle
        self._ending = ending
        self._descriptor = descriptor
        #: The holder writes. It may ask for the right to read, but does not wait for it.
        self.lock = threading.Lock()
        #: Packets that the ring takes at least.
        self.room = 0
        #: Neither closed nor read-only.
        self.allowed = True
        self.write_one = handle.library.dev.flow_write
        handle.set_limit(c.SEND_TIMEOUT, LONG_OVER)

    def write(self, source: Any, length: int, limit: float | None) -> None:  # noqa: ANN401
        """Write the packet, waiting for room for up to `limit` seconds."""
        if not self.write_soon(source, length):
            self._write_later(source, length, limit)

    def write_soon(self, source: Any, length: int) -> bool:  # noqa: ANN401
        """Write the packet if there is room for it."""
        with self.lock:
            if not self.allowed:
                self._check_writable()
            if self.room <= 0 or perf_counter() - self._ending.up_at > STAYS_UP:
                self._check_up()
                if self.room <= 0 and not self.find_room():
                    return False
            if not length:
                # To the library it would be a keepalive.
                return True
            result = self.write_one(self._handle.fd, source, length)
            if result >= 0:
                self.room -= 1
                return True
        number = self._handle.library.number(result)
        if number in (c.EAGAIN, c.ETIMEDOUT, c.ECONNRESET):
            return False
        if number == c.EMSGSIZE:
            raise FlowSizeException(
                f"a packet of {length} bytes is too long: the C Ouroboros has room for packets of 1048260 bytes at most,"
                " and of 261828 for users without privilege"
            )
        raise self._handle.failure(result)

    def _write_later(self, source: Any, length: int, limit: float | None) -> None:  # noqa: ANN401
        """Write the packet when there is room. While the library waits for that itself, no other thread can use it."""
        if self._handle.flags & ends.NON_BLOCKING_WRITE:
            raise FlowWouldBlockException("non-blocking flow: no room to write now")
        deadline = None if limit is None else time.monotonic() + limit
        pause = FIRST_PAUSE
        while True:
            left = LAST_PAUSE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise FlowTimeoutException("no room to write within the time limit of the flow")
            select.select([], [], [], min(pause, left))
            if self.write_soon(source, length):
                return
            pause = min(2 * pause, LAST_PAUSE)

    def find_room(self) -> bool:
        """Count the packets that the ring has room for. Besides writers only the library takes room: `SPARE` is for that."""
        if self._handle.library.ours:
            # That one says it itself when there is none.
            self.room = c.RING
            return True
        queued = self._handle.queue(c.TRANSMIT_QUEUE)
        self.room = c.RING - SPARE - queued if queued >= 0 else 1
        return self.room > 0

    def note_flags(self) -> None:
        """Flags were set, or the flow is usable no more."""
        self.allowed = self._handle.usable and not self._handle.is_read_only
        self.room = 0

    def _check_up(self) -> None:
        """Raise if the flow is down: the library would write all the same, and drop the packet."""
        self._descriptor.glance()
        self._ending.check_up()
        if self._ending.fell_at:
            raise FlowDownException("the flow is down, or the peer deallocated it; allocate a new one")

    def _check_writable(self) -> None:
        self._handle.check_usable()
        if self._handle.is_read_only:
            raise FlowPermissionException(
                "the flow is set read-only; set_flags() with FlowProperties.ReadWrite to write"
            )


__all__ = ["Writing"]
