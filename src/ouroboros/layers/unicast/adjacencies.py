"""Neighbours: members to which connections of data transfer lead, and which of them are up."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ouroboros.layers.face import NO_SIZE, Size
from ouroboros.layers.unicast.connections import Connection

#: Bytes in front of each packet of the layer (`unicast-data.md` 2.1).
HEADER_LENGTH = 15

_Told = Callable[[int, float], None]
_Sized = Callable[[int, Size, float], None]


class Adjacencies:
    """The component for data transfer. A neighbour is up while one of its connections is."""

    def __init__(self, up: _Told, down: _Told, sized: _Sized) -> None:
        """`up`, `down`: are told the address of a neighbour, when that changes. `sized`: is told of packets that all
        connections to a neighbour carry, without the header, when that changes, and before it is up."""
        self._up = up
        self._down = down
        self._sized = sized
        self._connections: dict[int, Connection] = {}
        #: Of packets that all connections carry, without the header; nothing is carried when there is none.
        self.size = NO_SIZE
        self._size_of: dict[int, Size] = {}
        self._alive: dict[int, set[int]] = {}

    def measure(self, now: float) -> None:
        """Connections came or went, or carry other lengths. Flows ask for the size one by one."""
        sizes: dict[int, Size] = {}
        for each in self._connections.values():
            size = Size(max(each.size.most - HEADER_LENGTH, 0), max(each.size.whole - HEADER_LENGTH, 0))
            sizes[each.address] = size.less(sizes.get(each.address, size))
        self.size = functools.reduce(Size.less, sizes.values()) if sizes else NO_SIZE
        before, self._size_of = self._size_of, sizes
        for address, size in sizes.items():
            if before.get(address) != size:
                self._sized(address, size, now)

    @property
    def neighbours(self) -> list[int]:
        """Addresses of those that are up."""
        return list(self._alive)

    def flow_to(self, address: int) -> int | None:
        """The lower flow by which packets go to a neighbour: of those that are up the newest. None: it is down."""
        return max(self._alive.get(address, ()), default=None)

    def connected(self, connection: Connection, now: float) -> None:
        self._connections[connection.fd] = connection
        self.measure(now)
        self._raise(connection, now)

    def disconnected(self, connection: Connection, now: float) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self.measure(now)
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
