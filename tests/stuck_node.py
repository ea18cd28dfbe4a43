"""Nodes that go wrong: they take connections, or not even those, and then say less than they should."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ouroboros.wire import control as messages
from ouroboros.wire.control import Done, MessageReader, Request

#: The length of an answer, and nothing behind it.
_LONG = (messages.MESSAGE_LENGTH - 1).to_bytes(4)


class StuckNode:
    """Listens in a runtime directory. `behave` is called in a thread with each connection."""

    def __init__(self, directory: Path, behave: Callable[[socket.socket], None] | None, backlog: int = 100) -> None:
        self._path = directory / "irm.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(backlog)
        (directory / "irmd.lock").write_text(str(os.getpid()))
        self._open: list[socket.socket] = [self._listener]
        self._fillers: list[socket.socket] = []
        self._behave = behave
        self._threads: list[threading.Thread] = []
        if behave is not None:
            self._run(self._accept)

    def fill(self) -> None:
        """Take up all places in the queue of those who wait to be let in."""
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                self._fillers.append(sock)
                sock.connect(str(self._path))

    def empty(self) -> None:
        """Those who took up the places hang up; they are still to be accepted."""
        while self._fillers:
            self._fillers.pop().close()

    def accept(self) -> socket.socket:
        """The next connection; for tests that let nobody else accept."""
        sock, _ = self._listener.accept()
        self._open.append(sock)
        return sock

    def close(self) -> None:
        self.empty()
        for sock in self._open:
            # It wakes the thread that waits there, which closing alone does not.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._open:
            sock.close()
        self._path.unlink()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self.accept()
                assert self._behave is not None
                self._run(self._behave, sock)

    def _run(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        def run() -> None:
            # The other end has hung up, as a rule.
            with contextlib.suppress(OSError):
                target(*arguments)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()


def requests(sock: socket.socket) -> list[Request]:
    """All that comes until the other end hangs up, or the connection is shut down."""
    reader, found = MessageReader(), []
    while data := sock.recv(65536):
        reader.feed(data)
        while (body := reader.next()) is not None:
            found.append(messages.decode_request(body))
    return found


def silent(sock: socket.socket) -> None:
    """Takes all and says nothing."""
    requests(sock)


def polite(sock: socket.socket) -> None:
    """Answers the hello, and nothing else."""
    sock.sendall(messages.encode(Done(None)))
    requests(sock)


def piecemeal(sock: socket.socket) -> None:
    """Begins a long answer to the hello, byte by byte, as fast as it can."""
    _dribble(sock, _LONG)


def polite_piecemeal(sock: socket.socket) -> None:
    """Answers the hello, and then as `piecemeal`."""
    _dribble(sock, messages.encode(Done(None)) + _LONG)


def _dribble(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first)
    while True:
        sock.sendall(b"\0")
