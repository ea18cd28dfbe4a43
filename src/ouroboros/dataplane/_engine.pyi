"""Types of the compiled engine. The crate `rust/python` is its source; `ouroboros.dev` is its public face."""

from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Self, TypeVar, final

from _typeshed import ReadableBuffer, WriteableBuffer
from typing_extensions import disjoint_base

__all__ = [
    "CAPACITY",
    "MAX_PACKET",
    "AwaitedFlow",
    "BroadcastWorker",
    "Call",
    "Endpoint",
    "Frcp",
    "LinkWorker",
    "RelayWorker",
    "UdpWorker",
    "create_channel",
    "mark_dead",
    "note_fork",
]

_T_co = TypeVar("_T_co", covariant=True)

CAPACITY: int
MAX_PACKET: int

@final
class Endpoint:
    def __new__(
        cls,
        memory: int,
        bell: int,
        side: int,
        max_packet: int = ...,
        suite: int = 0,
        key: ReadableBuffer | None = None,
    ) -> Endpoint: ...
    def read(self, count: int | None = None, /) -> bytes: ...
    def read_soon(self, count: int | None = None, /) -> bytes | None: ...
    def read_text_soon(self, count: int | None = None, /) -> str | None: ...
    def write_soon(self, buffer: ReadableBuffer, count: int | None = None, /) -> int | None: ...
    def want_room(self, length: int) -> bool: ...
    def forget_room(self) -> None: ...
    def read_into(self, buffer: WriteableBuffer) -> int: ...
    def read_text(self, count: int | None = None, /) -> str: ...
    def read_many(self, limit: int) -> list[bytes]: ...
    def write(self, buffer: ReadableBuffer, count: int | None = None, /) -> int: ...
    def write_many(self, packets: Sequence[ReadableBuffer]) -> int: ...
    def fileno(self) -> int: ...
    def watch(self, seen: int) -> None: ...
    @property
    def descriptor(self) -> int: ...
    @property
    def ended(self) -> int: ...
    @property
    def readable(self) -> bool: ...
    def close(self) -> None: ...
    def disown(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def receive_queue(self) -> int: ...
    @property
    def transmit_queue(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    flags: int
    receive_timeout: float | None
    send_timeout: float | None

@disjoint_base
class Call(Coroutine[object, object, _T_co]):
    def __new__(cls) -> Call[_T_co]: ...
    def __await__(self) -> Generator[object, object, _T_co]: ...
    def __next__(self) -> object: ...
    def send(self, value: object, /) -> object: ...
    def throw(self, *exception: object) -> object: ...
    def close(self) -> None: ...

@disjoint_base
class AwaitedFlow:
    _endpoint: Endpoint | None
    def __new__(cls, *_args: object, **_kwargs: object) -> Self: ...
    def read(self, count: int | None = None) -> Coroutine[Any, Any, bytes]: ...
    def readline(self, count: int | None = None) -> Coroutine[Any, Any, str]: ...
    def write(self, buf: ReadableBuffer, count: int | None = None) -> Coroutine[Any, Any, int]: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...

@final
class BroadcastWorker:
    def __new__(cls) -> BroadcastWorker: ...
    def add(self, memory: int, bell: int) -> None: ...
    @property
    def lost(self) -> int: ...
    def stop(self) -> None: ...

@final
class LinkWorker:
    def __new__(
        cls,
        one: int,
        other: int,
        *,
        loss: float,
        duplicate: float,
        reorder: float,
        delay: int,
        jitter: int,
        rate: int,
        partition: bool,
        seed: int,
    ) -> LinkWorker: ...
    def set_impairment(
        self,
        *,
        loss: float,
        duplicate: float,
        reorder: float,
        delay: int,
        jitter: int,
        rate: int,
        partition: bool,
    ) -> None: ...
    @property
    def counters(self) -> tuple[int, int, int, int]: ...
    def stop(self) -> None: ...

@final
class RelayWorker:
    def __new__(
        cls,
        *,
        loss: float,
        duplicate: float,
        reorder: float,
        delay: int,
        jitter: int,
        rate: int,
        partition: bool,
        seed: int,
    ) -> RelayWorker: ...
    def add(self, flow_id: int, memory_a: int, bell_a: int, memory_b: int, bell_b: int) -> None: ...
    def remove(self, flow_id: int) -> None: ...
    def mark_dead(self, flow_id: int, side: int) -> None: ...
    def set_impairment(
        self,
        *,
        loss: float,
        duplicate: float,
        reorder: float,
        delay: int,
        jitter: int,
        rate: int,
        partition: bool,
        seed: int,
    ) -> None: ...
    @property
    def counters(self) -> tuple[int, int, int, int]: ...
    def stop(self) -> None: ...

@final
class UdpWorker:
    def __new__(cls, socket: int) -> UdpWorker: ...
    def add(
        self,
        *,
        memory: int,
        bell: int,
        side: int,
        eid: int,
        peer_eid: int,
        peer: tuple[str, int],
        mtu: int,
        crc: bool,
        timeout: int,
        seed: int,
        credit: bool,
        frcp: Frcp | None,
        suite: int = 0,
        key: ReadableBuffer | None = None,
        reject_replays: bool = False,
    ) -> None: ...
    def reserve(self, eid: int, peer: tuple[str, int]) -> None: ...
    def unreserve(self, eid: int) -> None: ...
    def peer_gone(self, eid: int, died: bool) -> None: ...
    def send(self, datagram: bytes, to: tuple[str, int]) -> None: ...
    def set_impairment(
        self,
        *,
        loss: float,
        duplicate: float,
        reorder: float,
        delay: int,
        jitter: int,
        rate: int,
        partition: bool,
        seed: int,
    ) -> None: ...
    def fileno(self) -> int: ...
    def take_events(
        self,
    ) -> tuple[list[tuple[bytes, tuple[str, int]]], list[tuple[int, str, dict[str, int]]]]: ...
    def snapshot(self) -> tuple[dict[str, int], dict[int, dict[str, int]]]: ...
    def stop(self) -> None: ...

@final
class Frcp:
    def __new__(
        cls, *, reliable: bool, own: bool, sack: bool, fragments: bool, window: int, max_packet: int, mpl: int
    ) -> Frcp: ...

def create_channel() -> tuple[int, int, int]: ...
def mark_dead(memory: int, side: int) -> None: ...
def note_fork() -> None: ...
