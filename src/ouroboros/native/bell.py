"""A descriptor that a flow makes readable: for `select`, `poll`, `epoll` and event loops."""

from __future__ import annotations

import contextlib
import os
import threading


class Bell:
    """An eventfd that any thread can ring, hush and close. Before `open` and after `close` it is nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.descriptor: int | None = None

    def open(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Make it readable. Who watches for changes only is told again when it is already."""
        with self._lock:
            if self.descriptor is not None:
                os.eventfd_write(self.descriptor, 1)

    def hush(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if self.descriptor is not None:
                os.eventfd_read(self.descriptor)

    def disown(self) -> Bell:
        """In the child of a fork: let go of it in silence, and return another. A thread of the parent may hold its lock."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        return Bell()

    def close(self) -> None:
        """Ring, because a descriptor that is only closed wakes nobody, and close it."""
        self.ring()
        with self._lock:
            descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)


__all__ = ["Bell"]
