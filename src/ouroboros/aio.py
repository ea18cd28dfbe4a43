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
import functools
import logging
import os
import select
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from ouroboros import backend, dev
from ouroboros.control.messages import Accept, Alloc, BindProcess, Join
from ouroboros.dataplane import AwaitedFlow, Endpoint
from ouroboros.dataplane.ends import FlowEnd
from ouroboros.dev import FlowProperties
from ouroboros.errors import FlowDownException, FlowException, NodeError
from ouroboros.qos import QoSSpec
from ouroboros.security import FlowSecurity

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_T = TypeVar("_T")

log = logging.getLogger("ouroboros.aio")
log.addHandler(logging.NullHandler())

# What ended a flow, as the engine says it: the peer deallocated it.
_CLOSED = 1


class Flow(AwaitedFlow):
    """A conversation with a named peer, or with all members of a broadcast layer. An async context manager.

    One task may read while another writes. Iterating over a flow gives its packets until the peer deallocates it. What
    needs no waiting (flags, QoS, queue lengths) is on `sync`, the `ouroboros.dev.Flow` behind it.
    """

    def __init__(self) -> None:
        #: The flow as `ouroboros.dev` knows it.
        self.sync = dev.Flow()
        self._woken: anyio.Event | None = None
        self._turn_to_write: anyio.Lock | None = None

    @property
    def security(self) -> FlowSecurity | None:
        """How this flow is encrypted, and who its peer is; None for a flow in clear."""
        return self.sync.security

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dealloc()

    def __repr__(self) -> str:
        return repr(self.sync).replace("dev.Flow", "aio.Flow")

    async def alloc(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Allocate a flow to a name and return its QoS. As `ouroboros.dev.Flow.alloc`; cancelling withdraws the request."""
        return await self._request(dev.alloc_request(dst, qos, timeo))

    async def accept(self, timeo: float | None = None, *, name: str | None = None) -> QoSSpec:
        """Wait for a flow to a name of this program. As `ouroboros.dev.Flow.accept`; cancelling withdraws the request."""
        return await self._request(dev.accept_request(timeo, name))

    async def join(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Join the broadcast layer of that name. As `ouroboros.dev.Flow.join`."""
        return await self._request(dev.join_request(dst, qos, timeo))

    def dealloc(self) -> None:
        """Give the flow back, as `ouroboros.dev.Flow.dealloc`. Tasks that wait on it get `FlowNotAllocatedException`."""
        self._endpoint = None
        self.sync.dealloc()

    # They look at the ring without a coroutine, and make one of those below (`_read_slowly` ...) when they have to wait.
    read = AwaitedFlow.read
    readline = AwaitedFlow.readline
    write = AwaitedFlow.write

    async def writeline(self, str: str, count: int | None = None) -> int:
        """Write text, or its first `count` characters, as one packet; return the number of characters."""
        text = dev.clip(str, count)
        await self.write(text.encode())
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
            if self._held().ended != _CLOSED:
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
            with select.epoll() as news:
                news.register(endpoint.descriptor, select.EPOLLIN | select.EPOLLET)
                while True:
                    news.poll(0)
                    await self._wait_for_room(endpoint, length, news)
                    if (written := endpoint.write_soon(buf, count)) is not None:
                        return written

    async def _wait_for_room(self, endpoint: FlowEnd, length: int, news: select.epoll) -> None:
        try:
            if not endpoint.want_room(length):
                await self._sleep(endpoint, news)
        finally:
            if not endpoint.closed:
                endpoint.forget_room()

    async def _sleep(self, endpoint: FlowEnd, until_readable: int | select.epoll) -> None:
        """Wait for a descriptor, or until any thread sets flags of this flow, which no descriptor tells of."""
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
        call = await _begin(request)
        # An answer that is an error leaves the connection to the next call: only a wait that was cut short withdraws.
        while (grant := call.poll()) is None:
            try:
                await anyio.wait_readable(call)
            except BaseException:
                call.withdraw()
                raise
        qos = self.sync._take(grant)
        self._held()
        return qos


async def flow_alloc(dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> Flow:
    """Allocate a flow to the name `dst`. See `Flow.alloc`."""
    flow = Flow()
    await flow.alloc(dst, qos, timeo)
    return flow


async def flow_accept(timeo: float | None = None, *, name: str | None = None) -> Flow:
    """Wait for a flow to a name of this program; with `name`, bind to it first. See `Flow.accept`."""
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
    if limit < 1:
        raise ValueError("limit must be at least 1")
    await _bind(name)
    free = anyio.Semaphore(limit)
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
            await handler(flow)
    except FlowException as error:
        # Its text only: a record that is kept must not keep the frames of the handler.
        log.info("%s ended: %s", who, str(error))
    finally:
        free.release()


def _from_any_thread(function: Callable[[], object]) -> Callable[[], None]:
    """What any thread can call to have the loop of this task call the function."""
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


async def _begin(request: Alloc | Accept | Join) -> backend.Call:
    try:
        return backend.begin(request, start=False)
    except NodeError:
        # Starting a node takes long enough to let others run; it is done once.
        return await anyio.to_thread.run_sync(functools.partial(backend.begin, request, start=True))


async def _bind(name: str) -> None:
    await anyio.to_thread.run_sync(backend.request, BindProcess(os.getpid(), dev.check_name(name)))


__all__ = ["Flow", "flow_accept", "flow_alloc", "flow_join", "serve"]
