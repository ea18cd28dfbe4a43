"""What every peer looks like to the loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

#: What `receive_with` is told when only the one-byte greeting will come.
GREETING_SIZE = 64


@dataclass(slots=True)
class Awaited:
    """The calls of a connection to be awaited, and what runs a loop with them in it."""

    send: Callable[[bytes], Awaitable[object]]
    recv: Callable[[], Awaitable[bytes]]
    run: Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass(slots=True)
class Channel:
    """One connection. The loops call `send` and `recv` as they are: for a peer they are its own bound methods."""

    send: Callable[[bytes], object]
    recv: Callable[[], bytes]
    close: Callable[[], object]
    #: For peers whose receive call must be told the size of its buffer.
    recv_for: Callable[[int], Callable[[], bytes]] | None = None
    send_many: Callable[[list[bytes]], int] | None = None
    recv_many: Callable[[], list[bytes]] | None = None
    #: For peers that lose packets: after how many seconds without one `recv` is to raise one of `silence`.
    give_up: Callable[[float], object] | None = None
    #: ... and after how many without room `send` is to raise one of them.
    give_up_sending: Callable[[float], object] | None = None
    silence: tuple[type[Exception], ...] = (TimeoutError, BlockingIOError)
    #: For peers of the measure `aio`: the calls for packets of one size.
    awaited: Callable[[int], Awaited] | None = None

    def receive_with(self, size: int) -> Callable[[], bytes]:
        """Return the call that receives packets of up to `size` bytes."""
        return self.recv if self.recv_for is None else self.recv_for(size)


class Peer(ABC):
    """A means of talking, seen from one program.

    `address` is the same on both sides: a path in a private directory, or the IP address of the server.
    """

    #: Descriptors that one connection takes in the program that needs more of them.
    fds_per_flow = 1
    #: Whether the programs need a node to talk through.
    needs_node = False

    def __init__(self, address: str) -> None:
        self.address = address

    @staticmethod
    @abstractmethod
    def version() -> str:
        """Return the version of what is measured."""

    @abstractmethod
    def serve(self) -> None:
        """Make the address reachable. The other program calls `connect` only after this."""

    @abstractmethod
    def accept(self) -> Channel:
        """Return the next connection; the server calls it once for each `connect`, in the same order."""

    @abstractmethod
    def connect(self) -> Channel:
        """Return a new connection to the address."""

    def shutdown(self) -> None:  # noqa: B027 - most peers have nothing left to release
        """Release what `serve` took."""
