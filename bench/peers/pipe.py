"""multiprocessing.Pipe for programs that are not parent and child: the same Connection, from Listener and Client."""

from __future__ import annotations

import platform
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from bench.peers.face import Channel, Peer

_BACKLOG = 128


class Pipe(Peer):
    """Connections of multiprocessing over AF_UNIX, which is also what Pipe(duplex=True) makes."""

    _listener: Listener

    @staticmethod
    def version() -> str:
        return platform.python_version()

    def serve(self) -> None:
        self._listener = Listener(self.address, "AF_UNIX", backlog=_BACKLOG)

    def accept(self) -> Channel:
        return _channel(self._listener.accept())

    def connect(self) -> Channel:
        return _channel(Client(self.address, "AF_UNIX"))

    def shutdown(self) -> None:
        self._listener.close()


def _channel(connection: Connection[Any, Any]) -> Channel:
    return Channel(connection.send_bytes, connection.recv_bytes, connection.close)
