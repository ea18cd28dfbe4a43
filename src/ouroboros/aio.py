"""Flows for asyncio and trio (through anyio): the verbs of `ouroboros.dev`, awaited.

>>> from ouroboros import aio                                  # doctest: +SKIP
>>> async with await aio.flow_alloc("oecho") as f:             # doctest: +SKIP
...     await f.writeline("Hello, PyOuroboros!")
...     print(await f.readline())

Time limits are cancel scopes (`anyio.fail_after`, `asyncio.timeout`); the timeouts of a flow play no part. Cancelling a call
loses nothing: a packet is taken, or written, in the step that returns from the call or not at all.

There is no thread behind this. A call first looks at the ring, then waits for the descriptor of the flow; whatever woke it,
it looks again. Calls that need not wait let other tasks run now and then, not each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import select
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from ouroboros import backend, dev
from ouroboros._arguments import as_whole, shown
from ouroboros._owned import Uncopied
from ouroboros._requests import accept_request, alloc_request, check_name, join_request
from ouroboros._values import copy_into, packet_view, target_view
from ouroboros.dataplane import AwaitedFlow, Endpoint
from ouroboros.dataplane.ends import Ended, FlowEnd
from ouroboros.dev import FlowProperties
from ouroboros.errors import FlowDownException, FlowException, FlowNotAllocatedException
from ouroboros.qos import QoSSpec
from ouroboros.runtime.descriptors import epoll
from ouroboros.security import FlowSecurity
from ouroboros.server import Service
from ouroboros.wire.control import Accept, Alloc, BindProcess, Join

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_T = TypeVar("_T")

log = logging.getLogger("ouroboros.aio")
log.addHandler(logging.NullHandler())


class Flow(Uncopied, AwaitedFlow):
    """A conversation with a named peer, or with all members of a broadcast layer. An async context manager.

    One task may read while another writes. Iterating over a flow gives its packets until the peer deallocates it. What
    needs no waiting (flags, QoS, queue lengths) is on `sync`, the `ouroboros.dev.Flow` behind it.
    """

    #: The flow as `ouroboros.dev` knows it.
    sync: dev.Flow
    _woken: anyio.Event | None
    _turn_to_write: anyio.Lock | None

    # Here, because a subclass may forget to call `__init__`.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        flow = super().__new__(cls)
        flow.sync = dev.Flow()
        flow._woken = flow._turn_to_write = None
        return flow

    def __init__(self) -> None:
        """A flow object that holds no flow."""

    @property
    def security(self) -> FlowSecurity | None:
        """How this flow is encrypted, and who its peer is; None for a flow in clear."""
        return self.sync.security

    @property
    def name(self) -> str:
        """The name that this flow was asked for, at both ends; of a joined flow, its broadcast layer."""
        return self.sync.name

    @property
    def layer(self) -> str:
        """The name of the layer that carries this flow, at both ends, as of `ouroboros.dev.Flow.layer`."""
        return self.sync.layer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dealloc()

    def __repr__(self) -> str:
        return repr(self.sync).replace("dev.Flow", "aio.Flow")

    async def alloc(
        self,
        dst: str,
        qos: QoSSpec | None = None,
        timeo: float | None = None,
        *,
        wait: bool = False,
        layer: str | None = None,
    ) -> QoSSpec:
        """Allocate a flow to a name and return its QoS. As `ouroboros.dev.Flow.alloc`; cancelling withdraws the request."""
        return await self._request(alloc_request(dst, qos, timeo, wait, layer))

    async def accept(self, timeo: float | None = None, *, name: str | None = None) -> QoSSpec:
        """Wait for a flow to a name of this program. As `ouroboros.dev.Flow.accept`; cancelling withdraws the request."""
        return await self._request(accept_request(timeo, name))

    async def join(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Join the broadcast layer of that name. As `ouroboros.dev.Flow.join`."""
        return await self._request(join_request(dst, qos, timeo))

    def dealloc(self) -> None:
        """Give the flow back, as `ouroboros.dev.Flow.dealloc`. Tasks that wait on it get `FlowNotAllocatedException`."""
        self._endpoint = None
        self.sync.dealloc()

    # They look at the ring without a coroutine, and make one of those below (`_read_slowly` ...) when they have to wait.
    read = AwaitedFlow.read
    readline = AwaitedFlow.readline
    write = AwaitedFlow.write

    async def readinto(self, buffer: WriteableBuffer) -> int:
        """Read up to `len(buffer)` bytes of the next packet into a writable buffer; return how many. Like `read`."""
        # Kept while waiting: its memory stays where it is.
        target = target_view(buffer)
        return copy_into(target, await self.read(target.nbytes))

    async def read_many(self, limit: int = 64) -> list[bytes]:
        """Wait for a packet as `read` does, then return it with those that are there already, at most `limit` packets."""
        limit = as_whole(limit, "limit", 1, sys.maxsize)
        packets = [await self.read()]
        # An end of the flow shows at the next call: the packets before it are not lost.
        with contextlib.suppress(FlowException):
            endpoint = self._held()
            while len(packets) < limit and endpoint.readable and (packet := endpoint.read_soon()) is not None:
                packets.append(packet)
        return packets

    async def write_many(self, packets: Sequence[ReadableBuffer]) -> int:
        """Write each buffer as a packet; return how many were written.

        That is fewer than given only when the flow went down or a packet was too long after some were written: call again
        with the others to get the exception. When the call is cancelled, those before the one that waits are written.
        """
        views = [packet_view(packet) for packet in packets]
        written = 0
        try:
            for view in views:
                await self.write(view)
                written += 1
        except FlowException:
            if not written:
                raise
        return written

    def stream(self) -> FlowStream:
        """This flow as an `anyio.abc.ObjectStream`."""
        return FlowStream(self)

    async def writeline(self, str: str, count: int | None = None) -> int:
        """Write text, or its first `count` characters, as one packet; return the number of characters."""
        text = dev.clip(str, count)
        try:
            packet = text.encode()
        except AttributeError:
            raise dev.not_a_line(text) from None
        await self.write(packet)
        return len(text)

    # --- helpers

    async def _read_slowly(self, turn_is_over: bool, count: int | None) -> bytes:
        if turn_is_over:
            await anyio.lowlevel.checkpoint()
        endpoint = self._held()
        return await self._wait_for(endpoint, endpoint.read_soon, count)

    async def _readline_slowly(self, turn_is_over: bool, count: int | None) -> str:
        if turn_is_over:
            await anyio.lowlevel.checkpoint()
        endpoint = self._held()
        return await self._wait_for(endpoint, endpoint.read_text_soon, count)

    async def _write_slowly(self, turn_is_over: bool, buf: ReadableBuffer, count: int | None) -> int:
        if turn_is_over:
            await anyio.lowlevel.checkpoint()
        endpoint = self._held()
        written = endpoint.write_soon(buf, count)
        return written if written is not None else await self._wait_to_write(endpoint, buf, count)

    async def _next_slowly(self, turn_is_over: bool) -> bytes:
        try:
            return await self._read_slowly(turn_is_over, None)
        except FlowDownException:
            if self._held().ended != Ended.CLOSED:
                raise
        raise StopAsyncIteration

    def _held(self) -> FlowEnd:
        if self._endpoint is not None:
            return self._endpoint
        end = self.sync._held()
        if isinstance(end, Endpoint):
            # An end that is not the engine's has no way around the coroutines.
            self._endpoint = end
        return end

    async def _wait_for(self, endpoint: FlowEnd, read: Callable[[int | None], _T | None], count: int | None) -> _T:
        while True:
            # Before the look: if that finds nothing, the descriptor becomes readable when there is something.
            endpoint.watch(0)
            if (result := read(count)) is not None:
                return result
            await self._wake(endpoint)

    async def _wake(self, endpoint: FlowEnd) -> None:
        """Wait until the descriptor is readable. A loop watches it for one task only; others wait for that one."""
        if self._woken is not None:
            await self._woken.wait()
            return
        self._woken = woken = anyio.Event()
        try:
            await self._sleep(endpoint, endpoint.descriptor)
        finally:
            self._woken = None
            woken.set()

    async def _wait_to_write(self, endpoint: FlowEnd, buf: ReadableBuffer, count: int | None) -> int:
        length = memoryview(buf).nbytes
        if count is not None:
            length = min(length, count)
        if self._turn_to_write is None:
            self._turn_to_write = anyio.Lock()
        # In turn: the engine knows one wish for room, and who ends it ends it for all.
        async with self._turn_to_write:
            # Packets that wait to be read make the descriptor readable all the time. A writer waits for news of it.
            with epoll() as news:
                news.register(endpoint.descriptor, select.EPOLLIN | select.EPOLLET)
                while True:
                    news.poll(0)
                    await self._wait_for_room(endpoint, length, news)
                    if (written := endpoint.write_soon(buf, count)) is not None:
                        return written

    async def _wait_for_room(self, endpoint: FlowEnd, length: int, news: select.epoll) -> None:
        try:
            if endpoint.abandoned or not endpoint.want_room(length):
                await self._sleep(endpoint, news)
        finally:
            if not endpoint.closed:
                endpoint.forget_room()

    async def _sleep(self, endpoint: FlowEnd, until_readable: int | select.epoll) -> None:
        """Wait for a descriptor, or until any thread sets flags of this flow, which no descriptor tells of."""
        if endpoint.abandoned:
            # The program ends, and this is not the thread that ends it.
            await anyio.sleep_forever()
        with anyio.CancelScope() as scope:
            wake = _from_any_thread(scope.cancel)
            self.sync._sleepers.append(wake)
            try:
                if not endpoint.flags & FlowProperties.Down:
                    await anyio.wait_readable(until_readable)
            finally:
                self.sync._sleepers.remove(wake)

    async def _request(self, request: Alloc | Accept | Join) -> QoSSpec:
        self.sync._check_free()
        qos = self.sync._take(await outcome(await _begin(request)))
        self._held()
        return qos


class FlowStream(Uncopied, anyio.abc.ObjectStream[bytes]):
    """A flow as anyio has streams of objects: one object is one packet. Closing it deallocates the flow.

    `receive` raises `anyio.EndOfStream` when the peer has deallocated the flow and everything is read. For whatever else
    ends the flow both raise `anyio.BrokenResourceError`, after `aclose` or `dealloc` `anyio.ClosedResourceError`, and when
    another task is in the same call `anyio.BusyResourceError`.
    """

    def __init__(self, flow: Flow) -> None:
        #: The flow.
        self.flow = flow
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.ResourceGuard("sending to")

    async def receive(self) -> bytes:
        """Return the next packet."""
        with self._receiving, _as_resource():
            try:
                return await self.flow.__anext__()
            except StopAsyncIteration:
                raise anyio.EndOfStream from None

    async def send(self, item: bytes) -> None:
        """Write a packet. Raises `ValueError` for an empty one, which a flow cannot carry, and `FlowSizeException`."""
        if not packet_view(item).nbytes:
            raise ValueError("a flow carries no empty packets")
        with self._sending, _as_resource():
            await self.flow.write(item)

    async def send_eof(self) -> None:
        """Raises `NotImplementedError`: a flow ends in both directions at once."""
        raise NotImplementedError("a flow ends in both directions at once: aclose() it, or send a packet that says so")

    async def aclose(self) -> None:
        """Deallocate the flow. Can be repeated."""
        self.flow.dealloc()
        await anyio.lowlevel.checkpoint()


@contextlib.contextmanager
def _as_resource() -> Iterator[None]:
    """Have the end of a flow raise what anyio has for that of a resource."""
    try:
        yield
    except FlowNotAllocatedException as error:
        raise anyio.ClosedResourceError from error
    except FlowDownException as error:
        raise anyio.BrokenResourceError from error


async def flow_alloc(
    dst: str,
    qos: QoSSpec | None = None,
    timeo: float | None = None,
    *,
    wait: bool = False,
    layer: str | None = None,
) -> Flow:
    """Allocate a flow to the name `dst`, over `layer` if given; with `wait`, wait until somebody serves the name. See
    `Flow.alloc`."""
    flow = Flow()
    await flow.alloc(dst, qos, timeo, wait=wait, layer=layer)
    return flow


async def flow_accept(timeo: float | None = None, *, name: str | None = None) -> Flow:
    """Wait for a flow to a name of this program; with `name`, bind to it first and take no others. See `Flow.accept`."""
    flow = Flow()
    await flow.accept(timeo, name=name)
    return flow


async def flow_join(dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> Flow:
    """Join the broadcast layer `dst`. See `Flow.join`."""
    flow = Flow()
    await flow.join(dst, qos, timeo)
    return flow


async def serve(
    name: str,
    handler: Callable[[Flow], Awaitable[Any]],
    *,
    limit: int = 1000,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Accept flows to `name` and run `handler(flow)` for each in a task of its own, until cancelled.

    The flow is deallocated when its handler ends. `limit`: handlers at a time; while that many run, clients wait. A handler
    that fails with an exception of its flow (the peer went away) is logged at level INFO and ends alone; any other exception
    cancels all handlers and comes out of `serve`. With `task_group.start(serve, ...)` the name is bound on return.
    """
    if not callable(handler):
        raise TypeError(f"handler is an async function that is given a flow, not {shown(handler)}")
    limit = as_whole(limit, "limit", 1)
    name = check_name(name)
    free = anyio.Semaphore(limit)
    with Service(name):
        await _bind(name)
        await _accept_for(name, handler, free, task_status)


async def _accept_for(
    name: str,
    handler: Callable[[Flow], Awaitable[Any]],
    free: anyio.Semaphore,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    async with anyio.create_task_group() as tasks:
        task_status.started()
        while True:
            await free.acquire()
            flow = await flow_accept(name=name)
            tasks.start_soon(_handle, handler, flow, free, name=f"{name}: flow {flow.sync.flow_id}")


async def _handle(handler: Callable[[Flow], Awaitable[Any]], flow: Flow, free: anyio.Semaphore) -> None:
    who = repr(flow)
    try:
        async with flow:
            answer = handler(flow)
            if not inspect.isawaitable(answer):
                raise TypeError(f"the handler of a flow gave {shown(answer)}: write it as `async def`")
            await answer
    except FlowException as error:
        # Its text only: a record that is kept must not keep the frames of the handler.
        log.info("%s ended: %s", who, str(error))
    finally:
        free.release()


def _from_any_thread(function: Callable[[], object]) -> Callable[[], None]:
    """A function for any thread, which makes the loop of this task call the given one."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        call_soon = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        call_soon = asyncio.get_running_loop().call_soon_threadsafe

    def call() -> None:
        # A loop that has ended meanwhile has nobody who waits.
        with contextlib.suppress(RuntimeError):
            call_soon(function)

    return call


async def _begin(request: Alloc | Accept | Join) -> backend.Call[backend.FlowGrant]:
    if backend.is_our_node():
        return backend.begin(request)
    # To choose the stack, and to talk to the other one, takes a moment.
    return await anyio.to_thread.run_sync(backend.begin, request)


async def _bind(name: str) -> None:
    request = BindProcess(os.getpid(), name)
    call = backend.ask(request) if backend.is_our_node() else await anyio.to_thread.run_sync(backend.ask, request)
    if call is None:
        await anyio.to_thread.run_sync(backend.request, request)
    else:
        await outcome(call)


async def outcome(call: backend.Call[_T]) -> _T:
    """Wait for the result of a call. Cancelling withdraws it."""
    try:
        while (outcome := call.poll()) is None:
            await _wait_for(call.waits_for())
    except BaseException:
        try:
            with anyio.move_on_after(backend.WITHDRAWAL, shield=True):
                while not call.leave():
                    await _wait_for(call.waits_for())
        finally:
            call.withdraw(0)
        raise
    return outcome


async def _wait_for(what: backend.Wait) -> None:
    if what.work is not None:
        # It comes to its own end; nobody has to wait for that.
        await anyio.to_thread.run_sync(what.work, abandon_on_cancel=True)
        return
    with anyio.move_on_after(what.seconds):
        if what.descriptor is None:
            await anyio.sleep_forever()
        else:
            await anyio.wait_readable(what.descriptor)


__all__ = ["Flow", "FlowStream", "flow_accept", "flow_alloc", "flow_join", "serve"]
