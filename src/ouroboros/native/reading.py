"""The way of packets from the library to readers.

A read of the library either has a time limit that is long over, and returns at once, or a short one (a *slice*), so that a
reader soon sees what the library wakes nobody for: the peer's dealloc, our own, a signal.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from itertools import starmap
from time import perf_counter
from typing import Any

from ouroboros.dataplane import ends
from ouroboros.errors import FlowPermissionException, FlowTimeoutException
from ouroboros.native import declarations as c
from ouroboros.native.ending import Ending
from ouroboros.native.handle import Handle
from ouroboros.native.kept import Kept
from ouroboros.native.tuning import (
    BUFFER,
    KEPT,
    KEPT_BYTES,
    LONG_OVER,
    PAYS,
    PAYS_WELL,
    SLICE,
    SLICE_WITH_FRCT,
    SPIN_TAKES,
    SPINS,
    WAITED,
)


class Reading:
    """Packets that were taken out of the library and are not read yet, and how a reader waits for more.

    Except for `plain` and `queued`, all of it is for the holder of `lock`.
    """

    def __init__(self, handle: Handle, ending: Ending) -> None:
        self._handle = handle
        self._ending = ending
        #: The holder takes packets out of the library, and waits there for a slice at most.
        self.lock = threading.Lock()
        #: Threads that wait for the lock.
        self.queued = 0
        self.kept = Kept()
        #: Whether the next packet may go straight from the library to a reader that wants all of it.
        self.plain = True
        #: Whether there is a descriptor, which has to follow each read.
        self.watched = False
        self.read_one = handle.library.dev.flow_read
        buffer = handle.library.ffi.from_buffer(mmap.mmap(-1, BUFFER))
        self.arguments = ((handle.fd, buffer, BUFFER),)
        #: The bytes of the buffer. A slice of it is a copy.
        self.view: Any = handle.library.ffi.buffer(buffer)
        #: Result of the last read of the library, until it is used. It gets here in one step that no signal can divide.
        self.results: list[int] = []
        self._slice = SLICE_WITH_FRCT if handle.frct else SLICE
        #: How well spinning paid lately.
        self._pays = PAYS + 2 if len(os.sched_getaffinity(0)) > 1 and not handle.frct else -PAYS_WELL
        self._length = handle.library.ffi.new("size_t *")
        #: The time limit that the library has for reads.
        self.limit = 0.0
        self._set_limit(LONG_OVER)

    # --- the right to read

    @contextlib.contextmanager
    def held(self, deadline: float | None = None) -> Iterator[None]:
        """With the lock, which others have for a slice at a time, and a flow that may be used."""
        if not self.lock.acquire(blocking=False):
            self.queued += 1
            try:
                left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
                if not self.lock.acquire(timeout=left):
                    raise FlowTimeoutException("no packet to read within the time limit of the flow")
            finally:
                self.queued -= 1
        try:
            self._handle.check_usable()
            yield
        finally:
            self.lock.release()

    def check_readable(self) -> None:
        if self._handle.is_write_only:
            raise FlowPermissionException(
                "the flow is set write-only; set_flags() with FlowProperties.ReadWrite to read"
            )

    def update_plain(self) -> None:
        self.plain = (
            self._handle.usable
            and not self.kept
            and not self.watched
            and not self._handle.is_write_only
            and not self._handle.flags & ends.NON_BLOCKING_READ
        )

    # --- packets

    def has_packet(self) -> bool:
        """Whether there is something to read; takes it out of the library if need be."""
        return bool(self.kept) or self._fetch_now()

    def keep_one(self) -> None:
        """Take a packet out of the library to see how the flow is behind it, unless many are kept already."""
        if len(self.kept) < KEPT and self.kept.size < KEPT_BYTES:
            self._fetch_now()

    def find_end(self) -> None:
        """Take packets out of the library up to the last one: the library tells of the end behind it."""
        while not self._ending.ended and self.kept.size < KEPT_BYTES and len(self.kept) < c.RING and self._fetch_now():
            pass

    def drop_all(self) -> None:
        while self.has_packet():
            self.kept.clear()

    def take_bytes(self, count: int | None) -> bytes:
        return self.kept.take_bytes(count, not self._handle.flags & ends.NO_PARTIAL_READ)

    def take_text(self, count: int | None) -> str:
        return self.kept.take_text(count, not self._handle.flags & ends.NO_PARTIAL_READ)

    # --- waiting

    def wait(self, deadline: float | None) -> bool:
        """Wait for a packet: spin for as long as that pays, then sleep in the library, for a slice."""
        if self._pays >= PAYS and self._spin():
            return True
        slice_ = self._slice if deadline is None else max(0.0, min(self._slice, deadline - time.monotonic()))
        if self.limit != slice_:
            self._set_limit(slice_)
        began = perf_counter()
        found = self._fetch()
        if found and (waited := perf_counter() - began) > WAITED:
            self.note_wait(began, waited)
        return found

    def note_wait(self, began: float, waited: float) -> None:
        """A read that slept brought a packet. So the peer wrote just now, and the flow was up."""
        self._ending.up_at = began + waited
        if waited < SPIN_TAKES and not self._handle.frct:
            self._pays = min(self._pays + 1, PAYS_WELL)
            if self._pays >= PAYS:
                # From now on a reader spins first.
                self._set_limit(LONG_OVER)

    def _spin(self) -> bool:
        fccntl, fd, length = self._handle.library.dev.fccntl, self._handle.fd, self._length
        for _ in range(SPINS):
            fccntl(fd, c.RECEIVE_QUEUE, length)
            if length[0]:
                self._pays = min(self._pays + 1, PAYS_WELL)
                return self.has_packet()
        self._pays -= 2
        return False

    # --- the library

    def _fetch_now(self) -> bool:
        if self.limit >= 0:
            self._set_limit(LONG_OVER)
        return self._fetch()

    def _fetch(self) -> bool:
        """Take a packet out of the library within its time limit, and note the end of the flow."""
        results = self.results
        if not results:
            results.extend(starmap(self.read_one, self.arguments))
        result = results[0]
        if result > 0:
            self.kept.put(self.view[:result])
            self.plain = False
        del results[0]
        if result > 0:
            self._ending.note_packet()
        else:
            self._ending.note_nothing(result)
        return result > 0

    def _set_limit(self, seconds: float) -> None:
        self.limit = seconds
        self._handle.set_limit(c.RECEIVE_TIMEOUT, seconds)


__all__ = ["Reading"]
