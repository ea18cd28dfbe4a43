"""ZeroMQ over ipc://, as a Python program would use it: pyzmq's own send and recv, copying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from bench.peers.face import Channel, Peer

#: The default of 1023 sockets a context would end the growth measurement early.
_MAX_SOCKETS = 16384
#: The default of 100 ms would be all that a connection which comes before its bind shows.
_RECONNECT_MS = 1


class ZmqPair(Peer):
    """PAIR sockets with default high-water marks. A PAIR serves one peer, so every connection has its own address."""

    fds_per_flow = 3

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self._opened = 0

    @staticmethod
    def version() -> str:
        return f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"

    def serve(self) -> None:
        pass

    def accept(self) -> Channel:
        sock = self._context.socket(zmq.PAIR)
        sock.bind(self._next_address())
        return _channel(sock)

    def connect(self) -> Channel:
        sock = self._context.socket(zmq.PAIR)
        sock.reconnect_ivl = _RECONNECT_MS
        sock.connect(self._next_address())
        return _channel(sock)

    def shutdown(self) -> None:
        self._context.destroy(linger=0)

    def _next_address(self) -> str:
        self._opened += 1
        return f"ipc://{self.address}.{self._opened}"


class ZmqRouter(Peer):
    """A new DEALER a connection, one ROUTER to serve them: what ZeroMQ has for clients that come and go.

    The server's side of a channel answers one packet, which is all that a set-up exchanges.
    """

    fds_per_flow = 2

    def __init__(self, address: str) -> None:
        super().__init__(f"ipc://{address}")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)

    version = staticmethod(ZmqPair.version)

    def serve(self) -> None:
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.address)

    def accept(self) -> Channel:
        router = self._router
        identity, first = router.recv_multipart()
        return Channel(lambda packet: router.send_multipart((identity, packet)), lambda: first, lambda: None)

    def connect(self) -> Channel:
        sock = self._context.socket(zmq.DEALER)
        sock.connect(self.address)
        return _channel(sock)

    def shutdown(self) -> None:
        self._context.destroy(linger=0)


def _channel(sock: Any) -> Channel:
    recv: Callable[[], bytes] = sock.recv
    return Channel(sock.send, recv, sock.close)
