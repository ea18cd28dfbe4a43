"""The connections of programs to a node, and whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

from ouroboros.control.parties import Process
from ouroboros.wire import control as messages
from ouroboros.wire.control import MessageReader

#: Bytes of a request of a user who may not manage the node. Half a message is all that a connection has the node keep.
REQUEST_LENGTH_OF_OTHERS = 4096


class Caller:
    """One connection of a program."""

    __slots__ = (
        "accepted",
        "ended",
        "hello_timer",
        "hung_up",
        "kept",
        "out",
        "process",
        "queue",
        "reader",
        "sock",
        "token",
        "trusted",
        "undelivered",
        "user",
    )

    def __init__(self, sock: socket.socket, user: int, queue: Queue, *, trusted: bool) -> None:
        self.sock = sock
        self.accepted = time.clock_gettime(time.CLOCK_BOOTTIME)
        #: Who made it, and whether that is root or the user of the node. Of each connection: a process can change its user.
        self.user = user
        self.trusted = trusted
        self.queue = queue
        self.reader = MessageReader(messages.REQUEST_LENGTH if trusted else REQUEST_LENGTH_OF_OTHERS)
        #: It has hung up, behind what is left to read.
        self.ended = False
        #: The kernel has said that the other end has; there may be something left to read.
        self.hung_up = False
        self.process: Process | None = None
        self.hello_timer: asyncio.TimerHandle | None = None
        #: Name of the request that is under way, 0 when none is.
        self.token = 0
        #: Takes back what went out with the last answer, as long as no sign of life followed.
        self.undelivered: Callable[[], None] | None = None
        #: What the socket did not take yet; the next message is read when it has.
        self.out = bytearray()
        #: Bytes of that for which its user's share is taken.
        self.kept = 0

    def read(self) -> bytes | None:
        """The next message. None when it is not there as a whole: then no more of it is read than it has."""
        while (body := self.reader.next()) is None:
            try:
                data = self.sock.recv(self.reader.missing)
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionResetError:
                # As the end, with an answer that was not read.
                data = b""
            if not data:
                self.ended = True
                return None
            self.reader.feed(data)
        return body

    def has_hung_up(self) -> bool:
        """Whether the other end has, and nothing is left to read, as of the last time that it had a turn."""
        if not self.hung_up:
            return self.ended
        try:
            self.ended = self.ended or not self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionResetError:
            self.ended = True
        return self.ended

    def drain(self) -> None:
        """Drop what has come: an end with something left to read breaks the connection before its last answer is read."""
        with contextlib.suppress(OSError):
            for _ in range(4):
                self.sock.recv(1 << 16)

    def send(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        """Send, or keep for when the socket takes more. Descriptors go with the first byte: raises `BlockingIOError` when
        there are some and it takes nothing."""
        try:
            sent = 0 if self.out else socket.send_fds(self.sock, [data], list(descriptors))
        except BlockingIOError:
            if descriptors:
                raise
            sent = 0
        except OSError:
            # It hung up; its end of file, which we will read, cleans up.
            return
        self.out += data[sent:]

    def flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        with contextlib.suppress(BlockingIOError):
            del self.out[: self.sock.send(self.out)]


class Queue:
    """Connections that are served in turn: the kernel puts one that has had its turn behind the others."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, caller: Caller) -> None:
        """Raises `OSError`."""
        self._epoll.register(caller.sock, select.EPOLLIN | select.EPOLLRDHUP)
        self._callers[caller.sock.fileno()] = caller

    def remove(self, caller: Caller) -> None:
        # By hand: until its exec, the child that a start of a program makes has the socket, too.
        self._epoll.unregister(caller.sock)
        del self._callers[caller.sock.fileno()]

    def watch(self, caller: Caller) -> None:
        """For what it says, or, as long as something waits for it, for that it reads."""
        self._epoll.modify(caller.sock, select.EPOLLOUT if caller.out else select.EPOLLIN | select.EPOLLRDHUP)

    def ready(self, most: int) -> Iterator[Caller]:
        """Those that are to be served now. Serving one may end another."""
        for descriptor, events in self._epoll.poll(0, most):
            if (caller := self._callers.get(descriptor)) is not None:
                caller.hung_up = bool(events & (select.EPOLLRDHUP | select.EPOLLHUP))
                yield caller

    def close(self) -> None:
        self._epoll.close()


class Users:
    """The queues of all users but the owner, which take turns, too."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._queues: dict[int, Queue] = {}
        self._users: dict[int, int] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def queue(self, user: int) -> Queue:
        """That of a user, made if there is none. Raises `OSError`."""
        if (queue := self._queues.get(user)) is None:
            queue = Queue()
            try:
                self._epoll.register(queue, select.EPOLLIN)
            except BaseException:
                queue.close()
                raise
            self._queues[user] = queue
            self._users[queue.fileno()] = user
        return queue

    def left(self, user: int) -> None:
        """A connection of the user is gone, or never came to be."""
        if (queue := self._queues.get(user)) is not None and not queue:
            del self._queues[user], self._users[queue.fileno()]
            self._epoll.unregister(queue)
            queue.close()

    def ready(self) -> Iterator[Caller]:
        """The next one of the next user."""
        if len(self._queues) == 1:
            # Nobody to take turns with.
            yield from next(iter(self._queues.values())).ready(1)
            return
        for descriptor, _ in self._epoll.poll(0, 1):
            yield from self._queues[self._users[descriptor]].ready(1)

    def close(self) -> None:
        self._epoll.close()
