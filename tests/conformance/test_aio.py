"""Awaited flows, on asyncio and on trio (`flows.md` 5, as `ouroboros.aio` gives it)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import random
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.text import TextStream
from support import NodeProcess, Programs, Shell

from ouroboros import aio, dev
from ouroboros.dev import (
    FlowAllocatedException,
    FlowDownException,
    FlowException,
    FlowNameException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
    FlowProperties,
    FlowSizeException,
    FlowTimeoutException,
    QoSSpec,
)
from ouroboros.event import FEventQueue, FEventType, FlowSet
from ouroboros.runtime import client
from ouroboros.wire.control import CreateName

pytestmark = pytest.mark.anyio

#: Far more than any of this takes.
HANG = 30.0
BIG = 60_000


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def far(node: NodeProcess, programs: Programs) -> Shell:
    """A program that calls its flow `f`."""
    client.request(CreateName("pair", "spillover"))
    return programs.shell("far")


@asynccontextmanager
async def meet(far: Shell, qos: QoSSpec | None = None) -> AsyncIterator[aio.Flow]:
    """A flow to the far program."""
    far.begin("f = flow_accept(name='pair')")
    with anyio.fail_after(HANG):
        async with await aio.flow_alloc("pair", qos) as flow:
            far.answer()
            yield flow


@asynccontextmanager
async def both_ends() -> AsyncIterator[tuple[aio.Flow, aio.Flow]]:
    """A flow of this program to itself."""
    one, other = aio.Flow(), aio.Flow()
    client.request(CreateName("own", "spillover"))
    with anyio.fail_after(HANG):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(one.accept, name="own"))
            await other.alloc("own")
        async with one, other:
            yield one, other


def fill(flow: aio.Flow) -> int:
    """Write until there is no room for a big packet; how many fit."""
    sync = flow.sync
    sync.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlocking)
    count = sync.write_many([bytes(BIG)] * 100)
    sync.set_flags(FlowProperties.ReadWrite)
    assert count < 100
    return count


def empty(flow: aio.Flow) -> list[bytes]:
    """Read what is there."""
    return flow.sync.read_many(100_000) if flow.sync.get_rx_queue_len() else []


@asynccontextmanager
async def waiting(*calls: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[Any]]:
    """Tasks that are blocked in these calls; what they returned or raised, when all have."""
    outcomes: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            outcomes[index] = await call()
        except FlowException as error:
            outcomes[index] = error

    async with anyio.create_task_group() as tasks:
        for index, call in enumerate(calls):
            tasks.start_soon(run, index, call)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == [None] * len(calls)
        yield outcomes


class TestBatches:
    async def test_a_batch_is_written_and_read_in_order(self, far: Shell) -> None:
        packets = [b"%d" % number for number in range(100)]
        async with meet(far) as flow:
            assert await flow.write_many(packets) == 100
            assert far.do("[f.read() for _ in range(100)]") == packets
            far.do(f"f.write_many({packets!r})")
            assert await flow.read_many(3) == packets[:3]
            assert await flow.read_many(1000) == packets[3:]
            assert await flow.write_many([]) == 0

    async def test_a_batch_larger_than_the_ring_waits_for_the_reader(self) -> None:
        packets = [bytes([number]) * BIG for number in range(100)]
        async with both_ends() as (one, other), waiting(lambda: one.write_many(packets)) as outcomes:
            read: list[bytes] = []
            while len(read) < len(packets):
                read += await other.read_many()
        assert outcomes == [100]
        assert read == packets

    async def test_read_many_returns_what_is_there_before_the_end_shows(self, far: Shell) -> None:
        async with meet(far) as flow:
            far.do("f.write(b'one'); f.write(b'two'); f.dealloc()")
            assert await flow.read_many() == [b"one", b"two"]
            with pytest.raises(FlowDownException):
                await flow.read_many()
            with pytest.raises(FlowDownException):
                await flow.write_many([b"x"])

    async def test_write_many_stops_before_a_packet_that_is_too_long(self, far: Shell) -> None:
        async with meet(far) as flow:
            packets = [b"short", bytes(dev.MAX_PACKET + 1), b"never"]
            assert await flow.write_many(packets) == 1
            with pytest.raises(FlowSizeException):
                await flow.write_many(packets[1:])
            assert far.do("f.read_many()") == [b"short"]

    async def test_what_is_wrong_in_a_batch_is_told_before_anything_is_sent(self, far: Shell) -> None:
        async with meet(far) as flow:
            wrong: list[tuple[Any, type[Exception]]] = [
                ("text", TypeError),
                (7, TypeError),
                (memoryview(b"abcd")[::2], BufferError),
            ]
            for packet, kind in wrong:
                with pytest.raises(kind):
                    await flow.write_many([b"x", packet])
            for limit in (0, -1):
                with pytest.raises(ValueError, match="at least 1"):
                    await flow.read_many(limit)
            with pytest.raises(TypeError, match="limit is a whole number"):
                await flow.read_many(1.5)  # type: ignore[arg-type]
            assert far.do("f.get_rx_queue_len()") == 0

    async def test_readinto_fills_any_writable_buffer(self, far: Shell) -> None:
        async with meet(far) as flow:
            buffer, numbers = bytearray(5), (ctypes.c_int * 2)()
            far.do("f.write(b'abc'); f.write(b'12345678'); f.write(b'12345678')")
            assert await flow.readinto(buffer) == 3
            assert await flow.readinto(memoryview(buffer)[3:]) == 2
            assert buffer == b"abc12"
            assert await flow.readinto(numbers) == 6
            assert bytes(numbers)[:6] == b"345678"
            assert await flow.readinto(numbers) == 8
            assert bytes(numbers) == b"12345678"
            for wrong in (b"read-only", memoryview(bytearray(8))[::2], "text"):
                with pytest.raises(TypeError):
                    await flow.readinto(wrong)  # type: ignore[arg-type]

    async def test_a_buffer_that_a_read_waits_for_stays_as_long_as_it_is(self, far: Shell) -> None:
        buffer = bytearray(4)
        async with meet(far) as flow, waiting(lambda: flow.readinto(buffer)) as outcomes:
            with pytest.raises(BufferError):
                buffer.clear()
            far.do("f.write(b'late')")
        assert outcomes == [4]
        assert buffer == b"late"


class TestStream:
    async def test_objects_are_packets(self) -> None:
        async with both_ends() as (one, other):
            sender, receiver = one.stream(), other.stream()
            assert isinstance(sender, anyio.abc.ObjectStream)
            for packet in (b"one", bytes(BIG), b"three"):
                await sender.send(packet)
                assert await receiver.receive() == packet
            with pytest.raises(ValueError, match="empty"):
                await sender.send(b"")
            with pytest.raises(NotImplementedError, match="both directions"):
                await sender.send_eof()

    async def test_the_peer_that_deallocates_ends_the_stream(self) -> None:
        async with both_ends() as (one, other):
            await one.write(b"last")
            async with one.stream():
                pass
            stream = other.stream()
            assert [packet async for packet in stream] == [b"last"]
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            with pytest.raises(anyio.BrokenResourceError):
                await stream.send(b"x")

    async def test_a_peer_that_dies_breaks_the_stream(self, far: Shell) -> None:
        async with meet(far) as flow:
            far.kill()
            for call in (flow.stream().receive, functools.partial(flow.stream().send, b"x")):
                with pytest.raises(anyio.BrokenResourceError):
                    await call()

    async def test_a_stream_that_is_closed_refuses(self) -> None:
        async with both_ends() as (one, _):
            stream = one.stream()
            closed: list[type] = []

            async def receive() -> None:
                try:
                    await stream.receive()
                except anyio.ClosedResourceError:
                    closed.append(anyio.ClosedResourceError)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await stream.aclose()
            await stream.aclose()
            assert closed == [anyio.ClosedResourceError]
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await stream.send(b"x")

    async def test_a_second_task_in_the_same_call_is_told(self) -> None:
        async with both_ends() as (one, other):
            stream = one.stream()
            fill(one)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.receive)
                    tasks.start_soon(stream.send, bytes(BIG))
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises(anyio.BusyResourceError):
                        await stream.receive()
                    with pytest.raises(anyio.BusyResourceError):
                        await stream.send(b"x")
                    scope.cancel()
            empty(other)
            await stream.send(b"again")
            assert await other.read() == b"again"

    async def test_the_streams_of_anyio_take_it(self) -> None:
        async with both_ends() as (one, other):
            await TextStream(one.stream()).send("grüße")
            assert await TextStream(other.stream()).receive() == "grüße"
            buffered = BufferedByteReceiveStream(other.stream())
            await one.write_many([b"first li", b"ne\nsecond", b" line\n"])
            assert await buffered.receive_until(b"\n", 100) == b"first line"
            assert await buffered.receive_exactly(12) == b"second line\n"


class TestVerbs:
    async def test_alloc_read_write_dealloc(self, far: Shell) -> None:
        async with meet(far) as flow:
            assert await flow.write(b"hello") == 5
            assert await flow.write(memoryview(b"hello"), 2) == 2
            assert await flow.writeline("héllo") == 5
            assert await flow.writeline("héllo", 2) == 2
            assert await flow.write(b"") == 0
            assert far.do("[f.read(), f.read(), f.readline(), f.readline()]") == [b"hello", b"he", "héllo", "hé"]
            far.do("f.write(b'0123456789'); f.writeline('€€€'); f.write(b'whole')")
            assert [await flow.read(4), await flow.read(9)] == [b"0123", b"456789"]
            assert [await flow.readline(2), await flow.readline()] == ["€€", "€"]
            assert await flow.read() == b"whole"
        with pytest.raises(FlowNotAllocatedException):
            await flow.read()
        with pytest.raises(FlowDownException):
            far.do("f.read()")

    async def test_accept(self, far: Shell) -> None:
        qos = QoSSpec(loss=0)
        async with anyio.create_task_group() as tasks:
            flow = aio.Flow()
            tasks.start_soon(functools.partial(flow.accept, name="pair"))
            await anyio.wait_all_tasks_blocked()
            far.begin(f"f = flow_alloc('pair', {qos!r})")
        async with flow:
            far.answer()
            assert flow.sync.get_qos() == qos
            far.do("f.write(b'x')")
            assert await flow.read() == b"x"
            with pytest.raises(FlowAllocatedException):
                await flow.alloc("pair")

    async def test_flow_accept_waits_and_times_out(self, node: NodeProcess) -> None:
        with pytest.raises(FlowTimeoutException):
            await aio.flow_accept(0, name="nobody")
        with anyio.move_on_after(0.001) as scope:
            await aio.flow_accept()
        assert scope.cancelled_caught

    async def test_join(self, embedded: object, programs: Programs) -> None:
        async with await aio.flow_join("broadcast") as one, await aio.flow_join("broadcast") as other:
            async with waiting(one.read, one.readline) as outcomes:
                await other.write(b"all")
                await other.write(b"all")
            assert {*outcomes} == {b"all", "all"}

    async def test_a_failed_call_leaves_the_next_one_alone(self, far: Shell) -> None:
        for _ in range(3):
            with pytest.raises(FlowNameException):
                await aio.flow_alloc("nobody")
            with pytest.raises(FlowTimeoutException):
                await aio.flow_alloc("pair", timeo=0)
        async with meet(far) as flow:
            await flow.write(b"x")
            assert far.do("f.read()") == b"x"

    async def test_the_first_call_starts_a_node(self, embedded: object) -> None:
        with pytest.raises(FlowTimeoutException):
            await aio.flow_accept(0, name="first")

    async def test_refusals_are_those_of_the_blocking_calls(self, far: Shell) -> None:
        async with meet(far) as flow:
            with pytest.raises(FlowSizeException):
                await flow.write(bytes(dev.MAX_PACKET + 1))
            with pytest.raises(ValueError, match="count"):
                await flow.read(-1)
            with pytest.raises(TypeError):
                await flow.write("text")  # type: ignore[arg-type]
            flow.sync.set_flags(FlowProperties.ReadOnly)
            with pytest.raises(FlowPermissionException):
                await flow.write(b"x")
            assert "aio.Flow" in repr(flow)


class TestCalls:
    """What a call returns behaves like the coroutine that it is taken for."""

    async def test_a_call_does_nothing_before_it_is_awaited(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            read, write = one.read(), other.write(b"x")
            assert one.sync.get_rx_queue_len() == 0
            assert await write == 1
            assert one.sync.get_rx_queue_len() == 1
            assert await read == b"x"

    async def test_a_call_is_awaited_once(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            write = other.write(b"1")
            await write
            with pytest.raises(RuntimeError, match="already awaited"):
                await write
            # Nor does it come to life again as the next one.
            read = one.read()
            assert await read == b"1"
            await other.write(b"2")
            assert await one.read() == b"2"
            with pytest.raises(RuntimeError, match="already awaited"):
                await read

    async def test_a_call_that_nobody_awaits_is_warned_of(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            for call in (one.read, one.readline, one.__anext__, lambda: one.write(b"x")):
                with pytest.warns(RuntimeWarning, match=r"coroutine 'Flow\.\w+' was never awaited"):
                    call()
            one.read().close()
            assert other.sync.get_rx_queue_len() == 0

    async def test_arguments_may_be_named(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            assert await other.write(buf=b"0123456789", count=6) == 6
            assert await one.read(count=4) == b"0123"
            assert await one.readline(count=4) == "45"
            assert await other.write(b"0123456789", count=2) == 2
            assert await one.read(2) == b"01"
            for call in (lambda: one.read("2"), lambda: one.read(1, 2), lambda: one.write(), lambda: one.write(c=1)):  # type: ignore[arg-type,call-arg]
                with pytest.raises(TypeError):
                    call()

    async def test_a_call_can_be_a_task(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.read)
                tasks.start_soon(one.read)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(other.write, b"1")
                tasks.start_soon(other.write, b"2")
            assert one.sync.get_rx_queue_len() == 0

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_a_call_can_be_given_to_asyncio(self, node: NodeProcess) -> None:
        import asyncio

        async with both_ends() as (one, other):
            await other.write(b"1")
            await other.write(b"2")
            assert [*await asyncio.gather(one.read(), one.read())] == [b"1", b"2"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(one.read(), 0.001)
            await other.write(b"3")
            assert await asyncio.wait_for(one.read(), HANG) == b"3"
            await other.write(b"kept")
            tasks = [asyncio.get_running_loop().create_task(call) for call in (one.read(), one.write(b"not written"))]
            for task in tasks:
                # Before its first step.
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await one.read() == b"kept"
            assert other.sync.get_rx_queue_len() == 0

    async def test_a_failure_of_a_call_is_raised_where_it_is_awaited(self, node: NodeProcess) -> None:
        async with both_ends() as (one, _):
            call = one.write(bytes(dev.MAX_PACKET + 1))
            with pytest.raises(FlowSizeException):
                await call

    async def test_a_class_of_ones_own(self, far: Shell) -> None:
        class Mine(aio.Flow):
            def __init__(self, greeting: bytes) -> None:
                super().__init__()
                self.greeting = greeting

            async def greet(self) -> None:
                await self.write(self.greeting)

        far.begin("f = flow_accept(name='pair')")
        async with Mine(b"hello") as flow:
            await flow.alloc("pair")
            far.answer()
            await flow.greet()
            assert far.do("f.read()") == b"hello"


class TestWaiting:
    async def test_a_packet_wakes_a_reader(self, far: Shell) -> None:
        async with meet(far) as flow:
            for number in range(20):
                async with waiting(flow.read) as outcomes:
                    far.do(f"f.write(b'{number}')")
                assert outcomes == [b"%d" % number]

    async def test_room_wakes_a_writer(self, far: Shell) -> None:
        async with meet(far) as flow:
            for _ in range(5):
                count = fill(flow)
                async with waiting(lambda: flow.write(bytes(BIG)), lambda: flow.write(bytes(BIG), 10**9)) as outcomes:
                    far.do(f"[f.read() for _ in range({count})]; None")
                assert outcomes == [BIG, BIG]
                assert far.do("[len(f.read()), len(f.read())]") == [BIG, BIG]

    async def test_a_waiting_writer_does_not_burn_though_packets_wait_to_be_read(self, far: Shell) -> None:
        async with meet(far) as flow:
            far.do("for _ in range(10): f.write(b'unread')")
            count = fill(flow)
            wakes = 0
            real = flow._sleep

            async def counted(*arguments: Any) -> None:
                nonlocal wakes
                wakes += 1
                await real(*arguments)

            flow._sleep = counted  # type: ignore[method-assign,assignment]
            async with waiting(lambda: flow.write(bytes(BIG))) as outcomes:
                for _ in range(100):
                    await checkpoint()
                assert wakes == 1
                # Who looks at the descriptor sees them nevertheless.
                assert select.select([flow.sync], [], [], 0)[0]
                assert [await flow.read() for _ in range(10)] == [b"unread"] * 10
                far.do("f.write(b'news')")
                assert await flow.read() == b"news"
                for _ in range(100):
                    await checkpoint()
                assert wakes <= 3
                assert outcomes == [None]
                far.do(f"[f.read() for _ in range({count})]; None")
            assert outcomes == [BIG]

    async def test_packets_show_in_the_descriptor_after_a_wait_for_room(self, far: Shell) -> None:
        async with meet(far) as flow:
            far.do("f.write(b'queued')")
            count = fill(flow)
            async with waiting(lambda: flow.write(bytes(BIG))):
                far.do(f"[f.read() for _ in range({count})]; None")
            assert select.select([flow.sync], [], [], 0)[0]
            queue = FEventQueue()
            with FlowSet([flow.sync]) as flows:
                flows.wait(queue, timeo=0)
                assert [kind for _, kind in queue] == [FEventType.FlowPkt]
                with anyio.move_on_after(0):
                    await flow.write(bytes(BIG))
                far.do("f.write(b'second')")
                assert await flow.read() == b"queued"
                flows.wait(queue, timeo=HANG)
            assert await flow.read() == b"second"

    async def test_a_packet_that_comes_as_a_writer_begins_to_wait_wakes_the_reader(
        self, anyio_backend_name: str, node: NodeProcess
    ) -> None:
        """The peer reads only after its packet was answered for."""
        async with both_ends() as (one, other):
            fill(one)

            async def reader() -> None:
                assert await one.read() == b"read me first"
                empty(other)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader)
                await anyio.wait_all_tasks_blocked()
                other.sync.write(b"read me first")
                # In the same step, before the loop can see that the descriptor is readable.
                assert await one.write(bytes(BIG)) == BIG

    async def test_a_writer_that_gives_up_takes_nobody_elses_wake_up(self, node: NodeProcess) -> None:
        for gives_up in range(3):
            async with both_ends() as (one, other):
                fill(one)
                scopes = [anyio.CancelScope() for _ in range(3)]
                sent: list[int] = []

                async def writer(index: int, scopes: Any = scopes, sent: Any = sent, one: Any = one) -> None:
                    with scopes[index]:
                        await one.write(bytes(BIG))
                        sent.append(index)

                async with anyio.create_task_group() as tasks:
                    for index in range(3):
                        tasks.start_soon(writer, index)
                    await anyio.wait_all_tasks_blocked()
                    scopes[gives_up].cancel()
                    await anyio.wait_all_tasks_blocked()
                    empty(other)
                assert sorted(sent) == sorted({0, 1, 2} - {gives_up})
                assert len(empty(other)) == 2

    async def test_two_readers_share_the_packets(self, far: Shell) -> None:
        count = 2000
        shares: list[list[int]] = [[], []]

        async def reader(flow: aio.Flow, share: list[int]) -> None:
            async for packet in flow:
                share.append(int(packet))
                await checkpoint()

        async with meet(far) as flow, anyio.create_task_group() as tasks:
            for share in shares:
                tasks.start_soon(reader, flow, share)
            await anyio.wait_all_tasks_blocked()
            far.begin(f"for number in range({count}): f.write(b'%d' % number)\nf.dealloc()")
        far.answer()
        assert sorted(shares[0] + shares[1]) == list(range(count))
        assert all(share == sorted(share) for share in shares)

    async def test_a_flow_is_full_duplex(self, far: Shell) -> None:
        count = 300
        got: list[int] = []

        async def reader(flow: aio.Flow) -> None:
            for number in range(count):
                packet = await flow.read()
                assert packet == b"%d" % number + bytes(BIG)
                got.append(number)

        async def writer(flow: aio.Flow) -> None:
            for number in range(count):
                await flow.write(b"%d" % number + bytes(BIG))

        async with meet(far) as flow:
            far.begin(
                f"""
                packets = [b"%d" % number + bytes({BIG}) for number in range({count})]
                writer = threading.Thread(target=lambda: [f.write(packet) for packet in packets])
                writer.start()
                same = all(f.read() == packet for packet in packets)
                writer.join()
                same
                """
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reader, flow)
                tasks.start_soon(writer, flow)
            assert far.answer()
        assert got == list(range(count))

    async def test_a_busy_echo_lets_others_run(self, node: NodeProcess) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await checkpoint()
                turns += 1

        async with both_ends() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            for _ in range(2560):
                await one.write(b"x")
                await other.write(await other.read())
                await one.read()
            assert turns >= 10
            tasks.cancel_scope.cancel()


class TestEnd:
    @pytest.mark.parametrize(
        ("end", "kind"),
        [
            ("f.dealloc()", FlowDownException),
            ("f.set_flags(FlowProperties.Down)", FlowDownException),
            (None, FlowPeerException),
        ],
        ids=["dealloc", "down", "kill"],
    )
    async def test_the_end_of_the_peer_wakes_all_tasks(
        self, far: Shell, end: str | None, kind: type[Exception]
    ) -> None:
        async with meet(far) as flow:
            fill(flow)
            async with waiting(flow.read, lambda: flow.write(bytes(BIG)), flow.readline) as outcomes:
                far.kill() if end is None else far.do(end)
            assert [type(each) for each in outcomes] == [kind] * 3

    @pytest.mark.parametrize("thread", [False, True], ids=["same-thread", "other-thread"])
    async def test_own_down_wakes_all_tasks(self, far: Shell, thread: bool) -> None:
        def set_down() -> None:
            flow.sync.set_flags(FlowProperties.ReadWrite | FlowProperties.Down)

        async with meet(far) as flow:
            fill(flow)
            async with waiting(flow.read, lambda: flow.write(bytes(BIG)), flow.readline) as outcomes:
                await anyio.to_thread.run_sync(set_down) if thread else set_down()
            assert [type(each) for each in outcomes] == [FlowDownException] * 3
            flow.sync.set_flags(FlowProperties.ReadWrite)
            async with waiting(flow.read) as outcomes:
                flow.sync.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlocking)
                await anyio.wait_all_tasks_blocked()
                assert outcomes == [None]
                far.do("f.write(b'up again')")
            assert outcomes == [b"up again"]

    async def test_own_dealloc_wakes_all_tasks(self, far: Shell) -> None:
        async with meet(far) as flow:
            fill(flow)
            async with waiting(flow.read, lambda: flow.write(bytes(BIG)), lambda: flow.write(bytes(BIG))) as outcomes:
                flow.dealloc()
            assert [type(each) for each in outcomes] == [FlowNotAllocatedException] * 3

    async def test_iteration_ends_when_the_peer_deallocates(self, far: Shell) -> None:
        async with meet(far) as flow:
            far.do("for number in range(3): f.write(b'%d' % number)")
            far.do("f.dealloc()")
            assert [packet async for packet in flow] == [b"0", b"1", b"2"]
            assert [packet async for packet in flow] == []

    @pytest.mark.parametrize("end", ["down", "kill", "own"])
    async def test_iteration_raises_for_any_other_end(self, far: Shell, end: str) -> None:
        async with meet(far) as flow:
            far.do("f.write(b'last')")
            assert await anext(flow) == b"last"
            if end == "down":
                far.do("f.set_flags(FlowProperties.Down)")
            elif end == "kill":
                far.kill()
            else:
                flow.dealloc()
            wanted = {"down": FlowDownException, "kill": FlowPeerException, "own": FlowNotAllocatedException}[end]
            with pytest.raises(wanted):
                await anext(flow)

    async def test_iteration_can_be_left_early(self, far: Shell) -> None:
        """A generator that is dropped half-way makes trio warn."""
        async with meet(far) as flow:
            far.do("f.write(b'first'); f.write(b'second')")
            async for packet in flow:
                assert packet == b"first"
                break
            assert await flow.read() == b"second"

    async def test_an_object_can_be_used_again(self, far: Shell) -> None:
        async with meet(far) as flow:
            async with waiting(flow.read) as outcomes:
                flow.dealloc()
                far.begin_blocked("g = flow_accept(name='pair')", "node")
                await flow.alloc("pair")
                far.answer()
                far.do("g.write(b'new')")
                assert await flow.read() == b"new"
            assert isinstance(outcomes[0], FlowNotAllocatedException)


class TestCancellation:
    async def test_a_cancelled_read_loses_no_packet(self, node: NodeProcess) -> None:
        """Cancelled after each number of steps, with packets that come in each of them or not."""
        async with both_ends() as (one, other):
            got: list[int] = []
            sent = 0

            async def reader(scope: anyio.CancelScope, take: int | None) -> None:
                with scope:
                    while True:
                        packet = await one.read(take)
                        if packet:
                            got.append(int(packet))

            for steps in range(60):
                chance = random.Random(steps)
                async with anyio.create_task_group() as tasks:
                    scope = anyio.CancelScope()
                    tasks.start_soon(reader, scope, chance.choice([None, 100]))
                    for _ in range(steps % 20):
                        for _ in range(chance.choice([0, 0, 1, 2])):
                            other.sync.write(b"%d" % sent)
                            sent += 1
                        await checkpoint()
                    if chance.random() < 0.5:
                        other.sync.write(b"%d" % sent)
                        sent += 1
                    scope.cancel()
            got += [int(packet) for packet in empty(one)]
            assert got == list(range(sent))

    async def test_a_cancelled_write_is_written_or_not(self, node: NodeProcess) -> None:
        async with both_ends() as (one, other):
            written: list[int] = []
            received: list[int] = []

            async def writer(scope: anyio.CancelScope, first: int) -> None:
                with scope:
                    for number in range(first, first + 10**6):
                        await one.write(b"%d " % number + bytes(BIG))
                        written.append(number)

            for steps in range(40):
                async with anyio.create_task_group() as tasks:
                    scope = anyio.CancelScope()
                    tasks.start_soon(writer, scope, steps * 10**6)
                    for _ in range(steps):
                        await checkpoint()
                        if random.Random(steps).random() < 0.7:
                            received += [int(packet.split()[0]) for packet in empty(other)[:100]]
                    scope.cancel()
            received += [int(packet.split()[0]) for packet in empty(other)]
            assert received == written

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_native_cancellation_loses_no_packet(self, node: NodeProcess) -> None:
        import asyncio

        async with both_ends() as (one, other):
            got: list[int] = []

            async def reader() -> None:
                while True:
                    got.append(int(await one.read()))

            for number in range(60):
                task = asyncio.get_running_loop().create_task(reader())
                for _ in range(number % 6):
                    await asyncio.sleep(0)
                other.sync.write(b"%d" % number)
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            got += [int(packet) for packet in empty(one)]
            assert got == list(range(60))

    async def test_a_cancelled_accept_takes_no_client(self, far: Shell) -> None:
        """B14: the next client was given to nobody."""
        for steps in range(8):
            flow = aio.Flow()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(functools.partial(flow.accept, name="pair"))
                    for _ in range(steps):
                        await checkpoint()
                    scope.cancel()
            far.begin("f = flow_alloc('pair')")
            async with await aio.flow_accept(name="pair") as flow:
                far.answer()
                far.do("f.write(b'x')")
                assert await flow.read() == b"x"
            far.do("f.dealloc()")

    async def test_a_cancelled_alloc_waits_for_nobody(self, far: Shell) -> None:
        for steps in range(8):
            flow = aio.Flow()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(flow.alloc, "pair")
                    for _ in range(steps):
                        await checkpoint()
                    scope.cancel()
            with pytest.raises(FlowTimeoutException):
                far.do("flow_accept(timeo=0, name='pair')")

    async def test_a_grant_that_comes_as_the_call_is_cancelled_is_kept_or_given_back(self, far: Shell) -> None:
        for steps in range(6):
            flow = aio.Flow()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(flow.alloc, "pair")
                    await anyio.wait_all_tasks_blocked()
                    # From here on the grant is in the socket of the call.
                    far.do("f = flow_accept(name='pair')")
                    for _ in range(steps):
                        await checkpoint()
                    scope.cancel()
            flow.dealloc()
            with pytest.raises(FlowDownException):
                far.do("f.read()")
            far.do("f.dealloc()")

    async def test_timeouts_are_cancel_scopes(self, far: Shell) -> None:
        async with meet(far) as flow:
            with pytest.raises(TimeoutError), anyio.fail_after(0.001):
                await flow.read()
            far.do("f.write(b'late')")
            assert await flow.read() == b"late"


async def echo(flow: aio.Flow) -> None:
    async for packet in flow:
        await flow.write(packet)


class TestServe:
    async def test_it_serves_many_clients_at_once(self, node: NodeProcess) -> None:
        async def visitor(number: int) -> None:
            async with await aio.flow_alloc("echo") as flow:
                for _ in range(5):
                    await flow.write(b"%d" % number)
                    assert await flow.read() == b"%d" % number

        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "echo", echo)
            async with anyio.create_task_group() as visitors:
                for number in range(20):
                    visitors.start_soon(visitor, number)
            tasks.cancel_scope.cancel()

    async def test_the_name_is_bound_when_start_returns(self, node: NodeProcess) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "echo", echo)
            async with await aio.flow_alloc("echo", timeo=HANG) as flow:
                await flow.write(b"x")
                assert await flow.read() == b"x"
            tasks.cancel_scope.cancel()

    async def test_the_limit_is_kept(self, node: NodeProcess) -> None:
        running, most = 0, 0

        async def handler(flow: aio.Flow) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await echo(flow)
            running -= 1

        async def visitor() -> None:
            async with await aio.flow_alloc("echo") as flow:
                await flow.write(b"x")
                await flow.read()
                for _ in range(10):
                    await checkpoint()

        with anyio.fail_after(HANG):
            async with anyio.create_task_group() as tasks:
                await tasks.start(functools.partial(aio.serve, "echo", handler, limit=2))
                async with await aio.flow_alloc("echo"), await aio.flow_alloc("echo"):
                    with pytest.raises(FlowTimeoutException):
                        await aio.flow_alloc("echo", timeo=0)
                async with anyio.create_task_group() as visitors:
                    for _ in range(10):
                        visitors.start_soon(visitor)
                assert most == 2
                tasks.cancel_scope.cancel()
        with pytest.raises(ValueError, match="limit"):
            await aio.serve("echo", echo, limit=0)

    async def test_the_limit_is_any_whole_number(self, node: NodeProcess) -> None:
        class Whole:
            def __index__(self) -> int:
                return 2

        async with anyio.create_task_group() as tasks:
            await tasks.start(functools.partial(aio.serve, "echo", echo, limit=Whole()))  # type: ignore[arg-type]
            tasks.cancel_scope.cancel()

    async def test_a_handler_whose_flow_ends_ends_alone(self, far: Shell, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "ouroboros.aio")
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "echo", echo)
            far.begin("f = flow_alloc('echo'); f.write(b'x')")
            await anyio.to_thread.run_sync(far.answer)
            async with await aio.flow_alloc("echo") as flow:
                await flow.write(b"1")
                assert await flow.read() == b"1"
                far.kill()
                while "died" not in caplog.text:
                    await flow.write(b"2")
                    assert await flow.read() == b"2"
            tasks.cancel_scope.cancel()

    async def test_any_other_failure_of_a_handler_ends_the_server(self, node: NodeProcess) -> None:
        async def handler(flow: aio.Flow) -> None:
            if await flow.read() == b"fail":
                raise ZeroDivisionError
            await anyio.sleep_forever()

        ends: list[type[Exception]] = []

        async def visitor(word: bytes) -> None:
            async with await aio.flow_alloc("echo") as flow:
                await flow.write(word)
                try:
                    await flow.read()
                except FlowDownException as error:
                    ends.append(type(error))

        async def serve() -> None:
            with pytest.raises(BaseExceptionGroup) as caught:
                await aio.serve("echo", handler)
            assert caught.group_contains(ZeroDivisionError)

        with anyio.fail_after(HANG):
            async with anyio.create_task_group() as tasks:
                client.request(CreateName("echo", "spillover"))
                tasks.start_soon(serve)
                tasks.start_soon(visitor, b"stay")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(visitor, b"fail")
        assert ends == [FlowDownException] * 2

    async def test_cancelling_deallocates_all_flows(self, far: Shell) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, "echo", echo)
            for number in range(10):
                far.begin(f"f{number} = flow_alloc('echo'); f{number}.write(b'x')")
                await anyio.to_thread.run_sync(far.answer)
            async with await aio.flow_alloc("echo") as flow:
                tasks.cancel_scope.cancel()
                with pytest.raises(anyio.get_cancelled_exc_class()):
                    await flow.read()
        for number in range(10):
            assert far.do(f"f{number}.get_rx_queue_len()") in (0, 1)
            with pytest.raises(FlowDownException) as caught:
                far.do(f"f{number}.read(); f{number}.read()")
            assert not isinstance(caught.value, FlowPeerException)
        assert not dev._flows

    async def test_a_name_that_is_none_is_refused(self, node: NodeProcess) -> None:
        with pytest.raises(TypeError):
            await aio.serve(7, echo)  # type: ignore[arg-type]
