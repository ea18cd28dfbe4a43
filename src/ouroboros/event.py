"""Watching many flows at once: a `FlowSet` of flows, and an `FEventQueue` of what happened to them.

>>> from ouroboros.event import *                              # doctest: +SKIP
>>> fq = FEventQueue()                                         # doctest: +SKIP
>>> with FlowSet([f1, f2]) as fs:                              # doctest: +SKIP
...     fs.wait(fq, timeo=1.0)
...     f, t = fq.next()
...     if t == FEventType.FlowPkt:
...         print(f.readline())

The cost of a wait depends on the flows that have something to tell, not on the size of the set.

Source: the event API of PyOuroboros 0.23 (`flows.md` 7). Unlike there, a packet that was not read is told of again at the
next wait, so that a program cannot lose one by reading too little.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from enum import IntFlag
from types import TracebackType
from typing import Self

from ouroboros.dev import Flow
from ouroboros.errors import FlowEventError, FlowEventTimeoutException, FlowNotAllocatedException

#: Packets of one flow that one wait tells of; the others are told of by the next.
_PACKETS_AT_ONCE = 1024

#: Seconds. The longest wait that epoll takes is some 24 days; a longer one is made of several.
_LONGEST_POLL = 86_400.0

# What ended a flow, as the engine says it.
_CLOSED, _DEAD, _DOWN = 1, 2, 4


class FEventType(IntFlag):
    """What happened to a flow. An event has exactly one type."""

    #: A packet can be read: one event for each.
    FlowPkt = 1
    #: The flow was set down, by the Down flag at either side.
    FlowDown = 2
    #: ... and up again.
    FlowUp = 4
    #: A Flow that was added without a flow got one.
    FlowAlloc = 8
    #: The peer deallocated the flow. It stays in the set until it is removed or deallocated, but tells nothing more.
    FlowDealloc = 16
    #: The peer died.
    FlowPeer = 32


class FEventQueue:
    """Events that a `FlowSet.wait` found, in the order in which they are to be handled."""

    def __init__(self) -> None:
        self._events: deque[tuple[Flow, FEventType]] = deque()

    def next(self) -> tuple[Flow, FEventType]:
        """Take the next event: the program's own Flow object and what happened to it.

        Packets that were read meanwhile, and flows that were deallocated, are passed over. Raises `FlowEventError` when
        there are no more events.
        """
        self._drop_stale()
        if not self._events:
            raise FlowEventError("no more events in this queue: wait() for some")
        return self._events.popleft()

    def __iter__(self) -> Iterator[tuple[Flow, FEventType]]:
        """Take the events one by one, to the end of the queue."""
        with contextlib.suppress(FlowEventError):
            while True:
                yield self.next()

    def __bool__(self) -> bool:
        return bool(self._events)

    def _drop_stale(self) -> None:
        while self._events and _is_stale(*self._events[0]):
            self._events.popleft()


def _is_stale(flow: Flow, kind: FEventType) -> bool:
    """Whether an event tells of a packet that was read meanwhile, or of a flow that was deallocated."""
    endpoint = flow._endpoint
    try:
        return endpoint is None or (kind is FEventType.FlowPkt and not endpoint.readable)
    except FlowNotAllocatedException:
        # By another thread, since the line above.
        return True


class FlowSet:
    """A set of flows to wait for. A context manager, which destroys the set at its end.

    A flow is in at most one set. A flow that is deallocated leaves its set. All methods can be called from any thread; of
    several threads that wait, one gets all events that are there.
    """

    def __init__(self, flows: Iterable[Flow] | None = None) -> None:
        self._epoll = select.epoll()
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._close_kick = weakref.finalize(self, os.close, self._kick)
        self._epoll.register(self._kick, select.EPOLLIN)
        self._pid = os.getpid()
        #: Members, and their descriptors while they are watched.
        self._flows: dict[Flow, int | None] = {}
        self._watched: dict[int, Flow] = {}
        self._down: set[Flow] = set()
        self._posted: deque[tuple[Flow, FEventType]] = deque()
        self._destroyed = False
        self._lock = threading.RLock()
        self._waiting = threading.Lock()
        for flow in flows or ():
            self.add(flow)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def __contains__(self, flow: object) -> bool:
        return flow in self._flows

    def __iter__(self) -> Iterator[Flow]:
        return iter(list(self._flows))

    def __len__(self) -> int:
        return len(self._flows)

    def add(self, flow: Flow) -> None:
        """Put a flow into the set. Packets that are queued already are told of.

        A Flow object without a flow may be added; `FlowAlloc` tells when it has got one. Raises `FlowEventError` when the
        flow is in a set already, or this set is destroyed.
        """
        with self._usable():
            if flow._get_watcher() is not None:
                where = "this" if flow in self._flows else "another"
                raise FlowEventError(f"{flow!r} is in {where} set already: remove() it there first")
            flow._watcher = weakref.ref(self)
            self._flows[flow] = None
            if flow._endpoint is not None:
                self._watch(flow)

    def remove(self, flow: Flow) -> None:
        """Take a flow out of the set; nothing happens when it is not in. Events that a queue has already stay there."""
        with self._usable():
            if flow in self._flows:
                self._unwatch(flow)
                del self._flows[flow]
                flow._watcher = None

    def zero(self) -> None:
        """Take all flows out of the set."""
        with self._usable():
            for flow in list(self._flows):
                self.remove(flow)
            self._posted.clear()

    def wait(self, fq: FEventQueue, timeo: float | None = None) -> None:
        """Wait until something happened to a flow of the set, and put the events into `fq`.

        Returns at once when `fq` has events left, or a flow has packets that were not read. `timeo`: seconds; None waits
        without limit, 0 looks only. Raises `FlowEventTimeoutException` when the time is over, `FlowEventError` when the
        set is destroyed, also meanwhile.
        """
        fq._drop_stale()
        if fq._events:
            return
        deadline = None if timeo is None else time.monotonic() + max(0.0, timeo)
        if not self._waiting.acquire(timeout=-1 if timeo is None else min(max(0.0, timeo), threading.TIMEOUT_MAX)):
            raise FlowEventTimeoutException("no event within the time limit: another thread waits on this set")
        try:
            while not fq._events:
                with self._usable():
                    epoll = self._epoll
                left = None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_POLL)
                ready = epoll.poll(left)
                with self._usable():
                    fq._events.extend(self._collect(ready))
                    fq._drop_stale()
                if not ready and deadline is not None and time.monotonic() >= deadline:
                    raise FlowEventTimeoutException("no event within the time limit")
        finally:
            self._waiting.release()

    def destroy(self) -> None:
        """Take all flows out and give the resources back. A thread that waits gets a `FlowEventError`. Can be repeated."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._destroyed:
                return
            self.zero()
            self._destroyed = True
            os.eventfd_write(self._kick, 1)
        # Whoever waits was kicked and leaves; the descriptors must not go before.
        with self._waiting:
            self._epoll.close()
            self._close_kick()

    # --- what flows tell

    def flow_allocated(self, flow: Flow) -> None:
        """A member got a flow. For `Flow` only."""
        with self._told_by_flow() as usable:
            if usable and flow in self._flows:
                self._posted.append((flow, FEventType.FlowAlloc))
                self._watch(flow)
                os.eventfd_write(self._kick, 1)

    def flow_deallocated(self, flow: Flow) -> None:
        """A member let go of its flow. For `Flow` only."""
        with self._told_by_flow() as usable:
            if usable:
                self.remove(flow)

    # --- helpers

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        # Before the lock, which a thread of the parent may have held when it forked.
        if self._pid != os.getpid():
            raise FlowEventError("this set belongs to the process that forked this one: make a new FlowSet here")
        with self._lock:
            if self._destroyed:
                raise FlowEventError("this set is destroyed: make a new FlowSet")
            yield

    @contextlib.contextmanager
    def _told_by_flow(self) -> Iterator[bool]:
        """Whether the set wants to know. Never an error, also when another thread is just destroying it: the flow has to
        go on."""
        if self._pid != os.getpid():
            yield False
            return
        with self._lock:
            yield not self._destroyed

    def _watch(self, flow: Flow) -> None:
        descriptor = flow._held().descriptor
        self._watched[descriptor] = flow
        self._flows[flow] = descriptor
        self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, flow: Flow) -> None:
        self._down.discard(flow)
        descriptor = self._flows.get(flow)
        if descriptor is not None:
            self._flows[flow] = None
            del self._watched[descriptor]
            self._epoll.unregister(descriptor)

    def _collect(self, ready: list[tuple[int, int]]) -> list[tuple[Flow, FEventType]]:
        descriptors = [descriptor for descriptor, _ in ready]
        events: list[tuple[Flow, FEventType]] = []
        if self._kick in descriptors:
            # First: a flow is told of before its packets.
            os.eventfd_read(self._kick)
            events += self._posted
            self._posted.clear()
        for flow in filter(None, map(self._watched.get, descriptors)):
            events += [(flow, kind) for kind in self._look_at(flow)]
        return events

    def _look_at(self, flow: Flow) -> list[FEventType]:
        endpoint = flow._endpoint
        if endpoint is None:
            return []
        # In this order: all packets that come before the end are there to be counted when the end is.
        ended = endpoint.ended
        waiting = max(endpoint.receive_queue, 1) if endpoint.readable else 0
        kinds = [FEventType.FlowPkt] * min(waiting, _PACKETS_AT_ONCE)
        if ended in (_CLOSED, _DEAD) and len(kinds) < _PACKETS_AT_ONCE:
            # For good: its descriptor stays readable and would wake us for nothing.
            self._unwatch(flow)
            kinds.append(FEventType.FlowDealloc if ended == _CLOSED else FEventType.FlowPeer)
            return kinds
        if (ended == _DOWN) != (flow in self._down):
            kinds.append(FEventType.FlowDown if ended == _DOWN else FEventType.FlowUp)
            (self._down.add if ended == _DOWN else self._down.discard)(flow)
        if not kinds:
            # Nothing is left to tell: from now on it is silent until there is.
            endpoint.watch(ended)
        return kinds


__all__ = ["FEventQueue", "FEventType", "FlowEventError", "FlowEventTimeoutException", "FlowSet"]
