"""What an end of a flow can do, whichever stack it comes from: the engine of our node, or `ouroboros.native`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


# Flags of an end (`flows.md` 6.2), which `ouroboros.dev.FlowProperties` has for programs. These and those of `Ended` are
# plain numbers: with Python 3.11 to look up a member of an enumeration costs 250 ns, an operation on it a microsecond.
READ_ONLY: Final = 0o0
WRITE_ONLY: Final = 0o1
READ_WRITE: Final = 0o2
ACCESS: Final = 0o3
DOWN: Final = 0o4
NON_BLOCKING_READ: Final = 0o1000
NON_BLOCKING_WRITE: Final = 0o2000
NO_PARTIAL_READ: Final = 0o10000
NO_PARTIAL_WRITE: Final = 0o20000
#: The start of every flow.
DEFAULT_FLAGS: Final = READ_WRITE | NO_PARTIAL_WRITE


class Ended:
    """What ended a flow, as `FlowEnd.ended` says it; 0 as long as nothing has."""

    #: The peer deallocated it.
    CLOSED: Final = 1
    #: The peer died.
    DEAD: Final = 2
    #: Either side set it down, which that side may take back.
    DOWN: Final = 4


class FlowEnd(Protocol):
    """One end of a flow. The compiled `Endpoint` is the model; `ouroboros.dev` documents what its methods do."""

    receive_timeout: float | None
    send_timeout: float | None

    def read(self, count: int | None = None, /) -> bytes: ...

    def read_soon(self, count: int | None = None, /) -> bytes | None: ...

    def read_text(self, count: int | None = None, /) -> str: ...

    def read_text_soon(self, count: int | None = None, /) -> str | None: ...

    def read_into(self, buffer: WriteableBuffer) -> int: ...

    def read_many(self, limit: int) -> list[bytes]: ...

    def write(self, buffer: ReadableBuffer, count: int | None = None, /) -> int: ...

    def write_soon(self, buffer: ReadableBuffer, count: int | None = None, /) -> int | None: ...

    def write_many(self, packets: Sequence[ReadableBuffer]) -> int: ...

    def want_room(self, length: int) -> bool: ...

    def forget_room(self) -> None: ...

    def fileno(self) -> int: ...

    def watch(self, seen: int) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...

    @property
    def abandoned(self) -> bool: ...

    def disown(self) -> None: ...

    @property
    def descriptor(self) -> int: ...

    @property
    def ended(self) -> int: ...

    @property
    def readable(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    @property
    def receive_queue(self) -> int: ...

    @property
    def transmit_queue(self) -> int: ...

    @property
    def flags(self) -> int: ...

    @flags.setter
    def flags(self, flags: int) -> None: ...


__all__ = [
    "ACCESS",
    "DEFAULT_FLAGS",
    "DOWN",
    "NON_BLOCKING_READ",
    "NON_BLOCKING_WRITE",
    "NO_PARTIAL_READ",
    "NO_PARTIAL_WRITE",
    "READ_ONLY",
    "READ_WRITE",
    "WRITE_ONLY",
    "Ended",
    "FlowEnd",
]
