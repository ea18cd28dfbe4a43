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

from ouroboros import dev
from ouroboros._arguments import shown
from ouroboros._owned import Uncopied
from ouroboros._values import time_limit
from ouroboros.dataplane.ends import Ended
from ouroboros.dev import *  # noqa: F403 - as in the package 0.23: a program needs no other import
from ouroboros.dev import Flow
from ouroboros.errors import FlowEventError, FlowEventTimeoutException, FlowNotAllocatedException
from ouroboros.runtime.descriptors import Eventfd, epoll

#: Packets of one flow that one wait tells of; the others are told of by the next.
_PACKETS_AT_ONCE = 1024

#: Seconds. The longest wait that epoll takes is some 24 days; a longer one is made of several.
_LONGEST_POLL = 86_400.0

#: Ends that nothing takes back.
_FOR_GOOD = (Ended.CLOSED, Ended.DEAD)


class FEventType(IntFlag):
    """Kinds of events of a flow. An event has exactly one type."""

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


class FEventQueue(Uncopied):
    """Events that a `FlowSet.wait` found, in the order in which they are to be handled."""

    _events: deque[tuple[Flow, FEventType]]

    # Here, because a subclass may forget to call `__init__`.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        queue = super().__new__(cls)
        queue._events = deque()
        return queue

    def __init__(self) -> None:
        """A queue without events."""

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


class FlowSet(Uncopied):
    """A set of flows to wait for. A context manager, which destroys the set at its end.

    A flow is in at most one set. A flow that is deallocated leaves its set. All methods can be called from any thread; of
    several threads that wait, one gets all events that are there.
    """

    _epoll: select.epoll
    _kick: Eventfd
    _pid: int
    #: Members, and their descriptors while they are watched.
    _flows: dict[Flow, int | None]
    _watched: dict[int, Flow]
    _down: set[Flow]
    _posted: deque[tuple[Flow, FEventType]]
    _destroyed: bool
    _lock: threading.RLock
    _waiting: threading.Lock

    # Here, because a subclass may forget to call `__init__`.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        flows = super().__new__(cls)
        flows._epoll = epoll()
        flows._kick = Eventfd()
        flows._epoll.register(flows._kick, select.EPOLLIN)
        flows._pid = os.getpid()
        flows._flows, flows._watched = {}, {}
        flows._down, flows._posted = set(), deque()
        flows._destroyed = False
        flows._lock = threading.RLock()
        flows._waiting = threading.Lock()
        return flows

    def __init__(self, flows: Iterable[Flow] | None = None) -> None:
        for flow in _members(flows):
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
        _check_member(flow)
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
        _check_member(flow)
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
        if not isinstance(fq, FEventQueue):
            raise TypeError(f"fq is an FEventQueue, not {shown(fq)}: make one with FEventQueue()")
        fq._drop_stale()
        if fq._events:
            return
        limit = time_limit(timeo)
        deadline = None if limit is None else time.monotonic() + limit
        if not self._waiting.acquire(timeout=-1 if limit is None else limit):
            raise FlowEventTimeoutException("no event within the time limit: another thread waits on this set")
        try:
            while not fq._events:
                with self._usable():
                    # All at once, and the kick: a look without waiting must not end with what comes to nothing.
                    watched, most = self._epoll, len(self._watched) + 1
                left = None if deadline is None else min(max(0.0, deadline - time.monotonic()), _LONGEST_POLL)
                ready = watched.poll(left, most)
                with self._usable():
                    fq._events.extend(self._collect(ready))
                    fq._drop_stale()
                # False alarms do not outlast the limit, however many a peer raises.
                if not fq._events and deadline is not None and time.monotonic() >= deadline:
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
            self._kick.ring()
        # Waiting threads were woken and leave; the descriptors must not go before.
        with self._waiting:
            self._epoll.close()
            self._kick.close()

    # --- what flows tell

    def flow_allocated(self, flow: Flow) -> None:
        """A member got a flow. For `Flow` only."""
        with self._told_by_flow() as usable:
            if usable and flow in self._flows:
                self._posted.append((flow, FEventType.FlowAlloc))
                self._watch(flow)
                self._kick.ring()

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
        if self._kick.fileno() in descriptors:
            # First: a flow is told of before its packets.
            self._kick.hush()
            events += self._posted
            self._posted.clear()
        for flow in filter(None, map(self._watched.get, descriptors)):
            events += [(flow, kind) for kind in self._events_of(flow)]
        return events

    def _events_of(self, flow: Flow) -> list[FEventType]:
        endpoint = flow._endpoint
        if endpoint is None:
            return []
        # In this order: all packets that come before the end are there to be counted when the end is.
        ended = endpoint.ended
        waiting = max(endpoint.receive_queue, 1) if endpoint.readable else 0
        kinds = [FEventType.FlowPkt] * min(waiting, _PACKETS_AT_ONCE)
        if ended in _FOR_GOOD and len(kinds) < _PACKETS_AT_ONCE:
            # For good: its descriptor stays readable and would wake us for nothing.
            self._unwatch(flow)
            kinds.append(FEventType.FlowDealloc if ended == Ended.CLOSED else FEventType.FlowPeer)
            return kinds
        down = ended == Ended.DOWN
        if down != (flow in self._down):
            kinds.append(FEventType.FlowDown if down else FEventType.FlowUp)
            (self._down.add if down else self._down.discard)(flow)
        if not kinds:
            # Nothing is left to tell: from now on it is silent until there is.
            endpoint.watch(ended)
        return kinds


def _members(flows: Iterable[Flow] | None) -> list[Flow]:
    # A flow is iterable, too: over its packets, which are not to be taken.
    if isinstance(flows, Flow) or not isinstance(flows, Iterable | None):
        raise TypeError(f"a FlowSet is made of a list of flows, not of {shown(flows)}")
    found = list(flows or ())
    for flow in found:
        _check_member(flow)
    return found


def _check_member(flow: object) -> None:
    if not isinstance(flow, Flow):
        hint = ": give its `sync`" if isinstance(getattr(flow, "sync", None), Flow) else ""
        raise TypeError(f"a member of a FlowSet is a Flow of ouroboros.dev, not {shown(flow)}{hint}")


__all__ = ["FEventQueue", "FEventType", "FlowEventError", "FlowEventTimeoutException", "FlowSet"]
__all__ += dev.__all__
