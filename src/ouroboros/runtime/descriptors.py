"""Where descriptors of ours go: never to the places of standard input, output and error, which a program may have closed.
What it then prints would go to the node, or into a flow.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import weakref

from ouroboros._owned import Uncopied

_LAST_STANDARD = 2


def above_standard(descriptor: int) -> int:
    """The descriptor; in the place of a standard one, a copy above those instead of it."""
    if descriptor > _LAST_STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
    finally:
        os.close(descriptor)


def socket_above_standard(sock: socket.socket) -> socket.socket:
    """As `above_standard`."""
    if sock.fileno() > _LAST_STANDARD:
        return sock
    return socket.socket(fileno=above_standard(sock.detach()))


class Eventfd(Uncopied):
    """An eventfd that any thread can ring. It is closed when nothing refers to it: whoever waits for it keeps a
    reference, so that no thread waits for a number that may be something else by then."""

    def __init__(self) -> None:
        self._descriptor = above_standard(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        # Threads that nobody waits for may still be there when the program ends.
        self._finalizer.atexit = False

    def fileno(self) -> int:
        return self._descriptor

    def ring(self) -> None:
        """Make it readable. A poller that watches for changes only is told again when it is already."""
        os.eventfd_write(self._descriptor, 1)

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Close it now: nobody waits for it."""
        self._finalizer()


def epoll() -> select.epoll:
    """A new epoll object."""
    made = select.epoll()
    if made.fileno() > _LAST_STANDARD:
        return made
    with made:
        return select.epoll.fromfd(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1))


def pipe() -> tuple[int, int]:
    """The two ends of a new pipe: to read from, to write to."""
    ends = os.pipe()
    return above_standard(ends[0]), above_standard(ends[1])


def duplicates(one: int, other: int) -> tuple[int, int]:
    """Both descriptors once more, or neither."""
    first = os.dup(one)
    try:
        return first, os.dup(other)
    except OSError:
        os.close(first)
        raise


def fill_standard() -> None:
    """In a process that is ours as a whole: open `/dev/null` in the places that are free."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
