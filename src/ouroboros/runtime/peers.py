"""The peer of a connection: the process at its other end and the rights that it had, as the kernel says.

The credentials of a socket are those of the process that connected it, at that moment. They stay what they were when that
process changes its user, passes the socket on or leaves it to a child; whoever is to have no more rights than its user
must make a connection of its own.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import NamedTuple

from ouroboros.errors import NodeError
from ouroboros.runtime.paths import CREDENTIALS

#: Gives a pidfd of the process that connected; Linux 6.5 and later. The module socket has no name for it.
SO_PEERPIDFD = 77


class Peer(NamedTuple):
    """A process that lived a moment ago. `pidfd` belongs to the caller; `uid` is that of the connection."""

    pid: int
    uid: int
    pidfd: int


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of the process at the other end, when it connected or listened."""
    pid, uid, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


def identify(sock: socket.socket, accepted: float) -> Peer:
    """The process that connected a socket, which was accepted at that time of `CLOCK_BOOTTIME`.

    Raises `NodeError` when it has ended, as its number may belong to another one by now, or cannot be told.
    """
    pid, uid = credentials(sock)
    if pid <= 0:
        raise NodeError("the node cannot see your process: it lives in another pid namespace")
    pidfd = _open(sock, pid)
    try:
        if pidfd is None:
            pidfd = os.pidfd_open(pid)
            _check_identity(pid, uid, accepted)
        if has_ended(pidfd):
            raise _ended()
    except BaseException as error:
        if pidfd is not None:
            os.close(pidfd)
        if isinstance(error, ProcessLookupError):
            raise _ended() from error
        raise
    return Peer(pid, uid, pidfd)


def has_ended(pidfd: int) -> bool:
    """Whether a process is over. As long as it is not, its number is that of no other process: two pidfds of processes with
    one number that are found alive, one after the other, are of one process."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _open(sock: socket.socket, pid: int) -> int | None:
    """A pidfd of the process that connected; None where the kernel cannot tell."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENODATA):
            raise _ended() from error
        raise


def _check_identity(pid: int, uid: int, accepted: float) -> None:
    """Refuse a process that took the number of the one that connected.

    It is another one when it started after the connection was accepted. Between connecting and being accepted a number can
    change hands as well: then at least both have one user, who may do to both what he likes. The caller holds a pidfd, and
    looks afterwards whether the process still lives; then it is the one that was read about.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program stands in parentheses and may have some in it.
            started = int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{pid}/status", "rb") as file:
            users = next(line.split() for line in file if line.startswith(b"Uid:"))
    except (FileNotFoundError, PermissionError) as error:
        raise NodeError(
            f"the node cannot tell whether process {pid} is yours: it has ended, or is hidden from the node in /proc "
            "(hidepid; Linux 6.5 does without it)"
        ) from error
    if started > accepted:
        raise _ended()
    if int(users[2]) != uid:
        raise NodeError(
            f"process {pid} is not the one that made this connection, or has another user since: connect anew"
        )


def _ended() -> NodeError:
    return NodeError("the process that made this connection has ended: whoever goes on in its place must connect anew")
