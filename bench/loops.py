"""The loops that are timed, the same for every peer. Each side of a loop runs in its own program."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice, repeat
from operator import length_hint
from time import perf_counter, perf_counter_ns

Send = Callable[[bytes], object]
Recv = Callable[[], bytes]
#: The two calls of one connection.
Ends = tuple[Send, Recv]

SendSoon = Callable[[bytes], Awaitable[object]]
RecvSoon = Callable[[], Awaitable[bytes]]

#: Packets in one `write_many` or `read_many`.
BATCH = 64
#: Seconds in which the first packet comes, and after which no more are expected.
START_TIME = 10.0
_SILENCE = 0.5
_MARKER = b"that was all"
_ANSWER = b"!"


class CountError(Exception):
    """Packets were lost or came twice."""


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Microseconds a round trip."""

    p50: float
    p99: float
    mean: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def ping(send: Send, recv: Recv, packet: bytes, count: int) -> RoundTrips:
    """Send a packet and wait for it to come back, `count` times."""
    # One clock reading a round trip, into memory that is already there.
    stamps = array("q", bytes(8 * (count + 1)))
    clock = perf_counter_ns
    stamps[0] = clock()
    for i in range(1, count + 1):
        send(packet)
        recv()
        stamps[i] = clock()
    return _round_trips(stamps)


def echo(send: Send, recv: Recv, count: int) -> None:
    """Be the other side of `ping`."""
    for _ in repeat(None, count):
        send(recv())


def ping_over(ends: Sequence[Ends], packet: bytes, count: int) -> RoundTrips:
    """`ping`, each time over the next of several connections."""
    stamps = array("q", bytes(8 * (count + 1)))
    clock = perf_counter_ns
    stamps[0] = clock()
    for i, (send, recv) in enumerate(islice(cycle(ends), count), 1):
        send(packet)
        recv()
        stamps[i] = clock()
    return _round_trips(stamps)


def echo_over(ends: Sequence[Ends], count: int) -> None:
    """Be the other side of `ping_over`."""
    for send, recv in islice(cycle(ends), count):
        send(recv())


def push(send: Send, recv: Recv, packet: bytes, count: int) -> None:
    """Send `count` packets as fast as they go, and wait until the other side has counted them."""
    for _ in repeat(None, count):
        send(packet)
    _finish_push(send, recv, len(packet))


def pull(send: Send, recv: Recv, size: int, count: int) -> float:
    """Receive `count` packets; return how many came a second, from the first to the last."""
    recv()
    start = perf_counter()
    for _ in repeat(None, count - 1):
        recv()
    seconds = perf_counter() - start
    _finish_pull(send, recv(), size)
    return (count - 1) / seconds


def push_over(ends: Sequence[Ends], packet: bytes, count: int) -> None:
    """`push`, each packet over the next of several connections."""
    for send, _ in islice(cycle(ends), count):
        send(packet)
    _finish_push(*ends[0], len(packet))


def pull_over(ends: Sequence[Ends], size: int, count: int) -> float:
    """Be the other side of `push_over`; return packets a second."""
    turns = islice(cycle(ends), count)
    next(turns)[1]()
    start = perf_counter()
    for _, recv in turns:
        recv()
    seconds = perf_counter() - start
    send, recv = ends[0]
    _finish_pull(send, recv(), size)
    return (count - 1) / seconds


def push_many(send_many: Callable[[list[bytes]], int], send: Send, recv: Recv, packet: bytes, count: int) -> None:
    """`push` in batches of `BATCH`; `count` is a multiple of it."""
    batch = [packet] * BATCH
    for _ in repeat(None, count // BATCH):
        sent = send_many(batch)
        while sent < BATCH:
            sent += send_many(batch[sent:])
    _finish_push(send, recv, len(packet))


def pull_many(recv_many: Callable[[], list[bytes]], send: Send, size: int, count: int) -> float:
    """Be the other side of `push_many`; return packets a second."""
    packets = recv_many()
    first = received = len(packets)
    start = perf_counter()
    while received < count:
        packets = recv_many()
        received += len(packets)
    seconds = perf_counter() - start
    if received == count:
        packets = recv_many()
        received += len(packets)
    if received != count + 1:
        raise CountError(f"received {received - 1} packets, {count} were sent")
    _finish_pull(send, packets[-1], size)
    return (count - first) / seconds


def flood(send: Send, packet: bytes, count: int, silence: tuple[type[Exception], ...] = ()) -> int:
    """Send `count` packets as fast as they go, whatever becomes of them; return how many went before `send` raised one of
    `silence`."""
    left = repeat(None, count)
    with suppress(*silence):
        for _ in left:
            send(packet)
        return count
    # Without the one that found no room.
    return count - 1 - length_hint(left)


def flood_over(ends: Sequence[Ends], packet: bytes, count: int) -> None:
    """`flood` of several connections in turn, with so many packets for each."""
    for send, _ in islice(cycle(ends), count * len(ends)):
        send(packet)


def drain(
    recv: Recv, give_up: Callable[[float], object], count: int, silence: tuple[type[Exception], ...]
) -> tuple[int, float]:
    """Be the other side of `flood`; return how many packets came, and how many a second, from the first to the last.

    `give_up` sets after how many seconds without a packet `recv` raises one of `silence`.
    """
    give_up(START_TIME)
    recv()
    give_up(_SILENCE)
    clock = perf_counter
    start = last = clock()
    received = 1
    with suppress(*silence):
        while received < count:
            recv()
            last = clock()
            received += 1
    # What comes next by the same connection may begin later than that.
    give_up(START_TIME)
    return received, (received - 1) / (last - start)


def drain_all(
    members: Sequence[tuple[Callable[[], list[bytes]], Callable[[float], object]]],
    count: int,
    silence: tuple[type[Exception], ...],
) -> tuple[int, float]:
    """`drain` of several members, each of which may get all that is sent, with their calls to receive what there is and to
    give up. Return how many came to all of them together, and how many a second to one, on average."""
    for _, give_up in members:
        give_up(START_TIME)
    got = dict.fromkeys(members, 0)
    first = got[members[0]] = len(members[0][0]())
    start = last = perf_counter()
    for _, give_up in members:
        give_up(_SILENCE)
    waiting = list(members)
    while waiting := [member for member in waiting if got[member] < count]:
        for member in list(waiting):
            try:
                got[member] += len(member[0]())
                last = perf_counter()
            except silence:
                waiting.remove(member)
    received = sum(got.values())
    return received, (received - first) / (last - start) / len(members)


async def ping_awaited(send: SendSoon, recv: RecvSoon, packet: bytes, count: int) -> RoundTrips:
    """`ping`, with awaited calls."""
    stamps = array("q", bytes(8 * (count + 1)))
    clock = perf_counter_ns
    stamps[0] = clock()
    for i in range(1, count + 1):
        await send(packet)
        await recv()
        stamps[i] = clock()
    return _round_trips(stamps)


async def echo_awaited(send: SendSoon, recv: RecvSoon, count: int) -> None:
    """Be the other side of `ping_awaited`."""
    for _ in repeat(None, count):
        await send(await recv())


async def push_awaited(send: SendSoon, recv: RecvSoon, packet: bytes, count: int) -> None:
    """`push`, with awaited calls."""
    for _ in repeat(None, count):
        await send(packet)
    await send(_MARKER.ljust(len(packet)))
    if (answer := await recv()) != _ANSWER.ljust(len(packet)):
        raise CountError(f"expected the answer after the last packet, received {answer!r}")


async def pull_awaited(send: SendSoon, recv: RecvSoon, size: int, count: int) -> float:
    """Be the other side of `push_awaited`; return packets a second."""
    await recv()
    start = perf_counter()
    for _ in repeat(None, count - 1):
        await recv()
    seconds = perf_counter() - start
    if await recv() != _MARKER.ljust(size):
        raise CountError("more packets came than were sent")
    await send(_ANSWER.ljust(size))
    return (count - 1) / seconds


# What ends a loop has the size of its packets: a stream has no other way to tell them apart.


def _finish_push(send: Send, recv: Recv, size: int) -> None:
    send(_MARKER.ljust(size))
    if (answer := recv()) != _ANSWER.ljust(size):
        raise CountError(f"expected the answer after the last packet, received {answer!r}")


def _finish_pull(send: Send, packet: bytes, size: int) -> None:
    # A lost packet shows as a marker that came too early, and then as a receiver that waits: the harness ends it.
    if packet != _MARKER.ljust(size):
        raise CountError("more packets came than were sent")
    send(_ANSWER.ljust(size))


def _round_trips(stamps: array[int]) -> RoundTrips:
    count = len(stamps) - 1
    took = sorted(stamps[i + 1] - stamps[i] for i in range(count))
    mean = (stamps[-1] - stamps[0]) / count
    return RoundTrips(p50=took[count // 2] / 1e3, p99=took[min(count - 1, count * 99 // 100)] / 1e3, mean=mean / 1e3)
