"""Neighbours: members to which connections of data transfer lead, and which of them are up."""

from __future__ import annotations

from collections.abc import Callable

from ouroboros.layers.face import Size
from ouroboros.layers.members.connections import Connection

#: Bytes in front of each packet of the layer (`unicast-data.md` 2.1).
HEADER_LENGTH = 15

_Told = Callable[[int, float], None]


class Adjacencies:
    """The component for data transfer. A neighbour is up while one of its connections is."""

    def __init__(self, up: _Told, down: _Told) -> None:
        """`up`, `down`: are told the address of a neighbour, when that changes."""
        self._up = up
        self._down = down
        self._connections: dict[int, Connection] = {}
        #: Of packets that all connections carry, without the header; nothing is carried when there is none.
        self.size = Size(0, 0)
        self._alive: dict[int, set[int]] = {}

    def _measure(self) -> None:
        """Connections came or went. Flows ask for the size one by one."""
        most = min((each.size.most for each in self._connections.values()), default=0)
        whole = min((each.size.whole for each in self._connections.values()), default=0)
        self.size = Size(max(most - HEADER_LENGTH, 0), max(whole - HEADER_LENGTH, 0))

    @property
    def neighbours(self) -> list[int]:
        """Addresses of those that are up."""
        return list(self._alive)

    def flow_to(self, address: int) -> int | None:
        """The lower flow by which packets go to a neighbour: of those that are up the newest. None: it is down."""
        return max(self._alive.get(address, ()), default=None)

    def connected(self, connection: Connection, now: float) -> None:
        self._connections[connection.fd] = connection
        self._measure()
        self._raise(connection, now)

    def disconnected(self, connection: Connection, now: float) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self._measure()
            self._lower(connection, now)

    def state(self, connection: Connection, up: bool, now: float) -> None:
        if connection.fd not in self._connections:
            return
        if up:
            self._raise(connection, now)
        else:
            self._lower(connection, now)

    def heard(self, connection: Connection, data: bytes, now: float) -> None:
        """What comes over it is the engine's."""

    def _raise(self, connection: Connection, now: float) -> None:
        alive = self._alive.setdefault(connection.address, set())
        first = not alive
        alive.add(connection.fd)
        if first:
            self._up(connection.address, now)

    def _lower(self, connection: Connection, now: float) -> None:
        alive = self._alive.get(connection.address, set())
        alive.discard(connection.fd)
        if not alive and self._alive.pop(connection.address, None) is not None:
            self._down(connection.address, now)
