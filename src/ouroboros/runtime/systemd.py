"""Being run by systemd, or by anything else that speaks its two small protocols: a socket that is listening already, and
telling when the node is ready.

Both come by variables, which are taken out of the environment: programs that the node starts must not answer to them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ouroboros.errors import NodeError
from ouroboros.runtime.paths import socket_path

log = logging.getLogger("ouroboros.irmd")

#: The first descriptor that is passed (sd_listen_fds).
_FIRST = 3


def take_listener(directory: Path) -> socket.socket | None:
    """The control socket that the caller of this process opened for it (`LISTEN_FDS`, `LISTEN_PID`), None without one.

    Can be called once. Raises `NodeError` when what was passed is not the control socket of the runtime directory.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    # What was meant for another process can have come down to this one.
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise NodeError(f"{count} sockets were passed to this node, which has use for one: its control socket")
    try:
        listener = socket.socket(fileno=_FIRST)
    except OSError as error:
        raise NodeError(
            f"descriptor {_FIRST}, which was passed to this node, is no socket: {error.strerror}"
        ) from error
    os.set_inheritable(_FIRST, False)
    try:
        _check(listener, socket_path(directory))
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _check(listener: socket.socket, path: str) -> None:
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (listener.family, listener.type, listens) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        raise NodeError("the socket that was passed to this node is no listening Unix stream socket (ListenStream=)")
    where = os.fsdecode(listener.getsockname())
    if os.path.realpath(where) != os.path.realpath(path):
        raise NodeError(
            f"the socket that was passed to this node is {where}; programs look for {path}: make them agree"
        )


def take_notifier() -> Callable[[str], None]:
    """A function that tells whoever runs this process (`NOTIFY_SOCKET`) its state, such as `READY=1`.

    It does nothing when nobody asked. Can be called once.
    """
    return partial(_notify, os.environ.pop("NOTIFY_SOCKET", ""))


def _notify(address: str, state: str) -> None:
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # An @ stands for the null character of an abstract address.
            sock.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("nobody could be told that %s: %s", state, error)
