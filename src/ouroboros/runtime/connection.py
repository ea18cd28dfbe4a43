"""One connection to the node. Nothing here ever waits: a node that is stopped must not stop its programs."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from pathlib import Path

from ouroboros.errors import NodeError, NodeLimitError, ProtocolError
from ouroboros.runtime.descriptors import above_standard, socket_above_standard
from ouroboros.runtime.paths import check_socket, place, trusted_users, unusable
from ouroboros.runtime.peers import credentials
from ouroboros.wire import control as messages
from ouroboros.wire.control import Answer, Done, Hello, MessageReader, Request

_READS_AT_ONCE = 64

_DESCRIPTORS = socket.CMSG_SPACE(2 * array.array("i").itemsize)


class Connection:
    """Used by one thread at a time. It says hello by itself, and the answer to that comes before all others."""

    def __init__(self, sock: socket.socket, hello: Hello) -> None:
        self._sock = sock
        self._reader = MessageReader()
        self._came: list[int] = []
        #: Bytes that the socket did not take yet.
        self._out = bytearray(messages.encode(hello))
        self._left = False
        #: The node has answered the hello, and lets this program in.
        self.welcomed = False
        self.pid, _ = credentials(sock)
        #: Tells nodes apart. Not the process alone, which can run several of them, nor the socket: one can have two.
        self.node = hash((self.pid, os.path.dirname(sock.getpeername())))
        #: The runtime directory that was named, and whose rights it has with the node, for good.
        self.directory, self.user = place()

    def send(self, request: Request) -> None:
        """Send, or keep for `flush` what the socket does not take. Raises `OSError` when nobody is there to take it."""
        self._out += messages.encode(request)
        self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._out.clear()
            # A node that refuses the hello has said why, which is still to be read.
            if self.welcomed:
                raise

    @property
    def is_behind(self) -> bool:
        """Whether the node takes no more, so that there is something for `flush`."""
        return bool(self._out)

    def receive(self) -> tuple[Answer, list[int]] | None:
        """The answer to the request, None as long as it is not there. Descriptors that come with it belong to the caller."""
        # However fast it comes piece by piece, the caller has a clock to look at.
        for _ in range(_READS_AT_ONCE):
            while (body := self._reader.next()) is not None:
                answer = messages.decode_answer(body)
                if self.welcomed or not isinstance(answer, Done):
                    descriptors, self._came = self._came, []
                    return answer, descriptors
                # Descriptors belong to the answer behind it, which may have come along.
                self.welcomed = True
            try:
                self._read()
            except BlockingIOError:
                break
        return None

    def fileno(self) -> int:
        return self._sock.fileno()

    def is_over(self) -> bool:
        """Whether the node has hung up."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def leave(self) -> bool:
        """Hang up. True when the node knows: from then on it gives the request nothing, which would be lost. Else to be
        called again, when there is something to read."""
        try:
            if not self._left:
                self._left = True
                self._sock.shutdown(socket.SHUT_WR)
            while True:
                self._read()
                self._drop()
        except BlockingIOError:
            return False
        except (OSError, ProtocolError):
            # The end of the connection, as a rule.
            self.close()
            return True

    def close(self) -> None:
        self._sock.close()
        self._drop()

    def _read(self) -> None:
        data, ancillary, _, _ = self._sock.recvmsg(65536, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        self._came += _descriptors(ancillary)
        if not data:
            raise ConnectionResetError("hung up")
        self._reader.feed(data)

    def _drop(self) -> None:
        while self._came:
            os.close(self._came.pop())


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return [above_standard(each) for each in found]


def connect(path: str) -> socket.socket | None:
    """A socket that is connected to the node, None when nobody listens.

    Raises `BlockingIOError` when as many callers as the node takes wait for it already, and `NodeError` for what is no node
    of this user.
    """
    try:
        sock = socket_above_standard(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    except OSError as error:
        raise NodeLimitError(
            f"this program cannot open one more socket: {error.strerror}; raise its limit (`ulimit -n`)"
        ) from error
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BlockingIOError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        if error.errno == errno.EPROTOTYPE:
            raise NodeError(
                f"a C Ouroboros runs at {path}: use it (OUROBOROS_BACKEND=native), or another directory for our node"
                " (OUROBOROS_RUNTIME_DIR)"
            ) from error
        raise unusable(Path(path).parent, error) from error
    _, owner = credentials(sock)
    if owner not in trusted_users():
        # The first process that takes a name in /tmp must not become the node of everybody.
        sock.close()
        raise NodeError(
            f"the node at {path} belongs to user {owner}: set OUROBOROS_RUNTIME_DIR to a directory of yours"
        )
    try:
        # Nor choose which of those that we trust it is.
        check_socket(path)
    except BaseException:
        sock.close()
        raise
    return sock


def why_no_answer(directory: Path, pid: int | None) -> str:
    """A sentence about a node that does not answer, and what to do. `pid`: its process, as far as it is known."""
    if pid is None:
        # Whoever holds the lock has written that there.
        with contextlib.suppress(OSError, ValueError):
            pid = int((directory / "irmd.lock").read_text())
    if not pid:
        return f"the node in {directory} does not answer: it is stuck or overloaded; end it, and start it again"
    if _state(pid) in ("T", "t"):
        return (
            f"the node in {directory} does not answer: its process {pid} is stopped; have it go on (`kill -CONT {pid}`, or"
            " in its debugger)"
        )
    return (
        f"the node in {directory} does not answer: its process {pid} is stuck or overloaded; end it (`kill -9 {pid}`), and"
        " start it again"
    )


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # Behind the name of the program, which may have anything in it.
    return stat.rpartition(")")[2].split()[0]
