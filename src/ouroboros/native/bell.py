"""A descriptor that a flow makes readable: for `select`, `poll`, `epoll` and event loops."""

from __future__ import annotations

from ouroboros.runtime.descriptors import Eventfd


class Bell:
    """An eventfd that any thread can ring, hush and close. Before `open` and after `close` it is nothing."""

    def __init__(self) -> None:
        #: Stays open as long as a thread that waits for it has a reference.
        self.event: Eventfd | None = None

    @property
    def descriptor(self) -> int | None:
        event = self.event
        return None if event is None else event.fileno()

    def open(self) -> None:
        self.event = Eventfd()

    def ring(self) -> None:
        if (event := self.event) is not None:
            event.ring()

    def hush(self) -> None:
        if (event := self.event) is not None:
            event.hush()

    def disown(self) -> Bell:
        """In the child of a fork: let go of it in silence, and return another."""
        if self.event is not None:
            # Threads of the parent, which may refer to it, are not here.
            self.event.close()
        return Bell()

    def close(self) -> None:
        """Ring, because a descriptor that is only closed wakes nobody, and let go of it."""
        event, self.event = self.event, None
        if event is not None:
            event.ring()


__all__ = ["Bell"]
