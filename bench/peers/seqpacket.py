"""Unix SEQPACKET sockets: the kernel's own packets between two programs."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.peers.face import GREETING_SIZE, Channel, Peer

_BACKLOG = 128


class Seqpacket(Peer):
    """Connected AF_UNIX SOCK_SEQPACKET sockets, blocking, with the kernel's default buffers."""

    _listener: socket.socket

    @staticmethod
    def version() -> str:
        return platform.release()

    def serve(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.address)
        self._listener.listen(_BACKLOG)

    def accept(self) -> Channel:
        return _channel(self._listener.accept()[0])

    def connect(self) -> Channel:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(self.address)
        return _channel(sock)

    def shutdown(self) -> None:
        self._listener.close()
        Path(self.address).unlink()


def _channel(sock: socket.socket) -> Channel:
    def recv_for(size: int) -> Callable[[], bytes]:
        # A buffer of the packet's size: recv allocates what it is told, and too much would slow the peer down.
        return partial(sock.recv, size)

    return Channel(sock.send, recv_for(GREETING_SIZE), sock.close, recv_for)
