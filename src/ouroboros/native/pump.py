"""The threads that wait for the C library where a program must not: for flows that are watched through a descriptor, for
room in a ring, and for peers to read the last packets of a flow that is given back.

A flow that is watched and has nothing to read is *armed*: it is in a flow set of the library, whose events come to a thread.
The first event takes it out again. So no events pile up for a flow that is being read, which the library would write past
the end of its memory, and the library is never asked about more flows than those that wait.

The library has no events for room, for flows with retransmission, and for packets that are to be refused. Such a flow is
polled again and again, by a second thread that runs only as long as there is such a flow.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ouroboros.native.declarations import ETIMEDOUT, EVENT_DOWN, EVENT_UP
from ouroboros.native.library import Library

#: Events of flags that the peer sets.
_UPS_AND_DOWNS = frozenset({EVENT_DOWN, EVENT_UP})

#: Seconds between two polls of a flow.
_POLL = 0.002

#: Nanoseconds after which a wait for events ends though there are none, and a program that ends gets its thread back. Arming
#: needs no wake-up: a set may grow meanwhile.
_LONGEST_WAIT = 100_000_000

#: Seconds between two checks of a ring that its reader has not emptied, at first and at most.
_FIRST_CHECK, _LAST_CHECK = 0.0005, 0.05

#: Reads within the timeout of a flow that the program does not read.
_PULSES = 3

#: Seconds in which a flow is usually given back. `bury` waits for that long, so that the peer usually knows when it returns.
_USUAL = 0.02

#: Seconds in all that a program waits at its end for the peers to read the last packets.
_FAREWELL = 1.0


class Armed(Protocol):
    """A flow that waits for an event."""

    @property
    def fd(self) -> int:
        """Its number in the library."""

    def event(self, kinds: Sequence[int]) -> None:
        """Something happened, and the flow is armed no more, unless it only went up or down."""

    def poll(self) -> bool:
        """Check all that the library has no events for. Returns whether to poll again."""

    def pulse(self) -> bool:
        """Read once, so that the peer counts as alive in the library. Returns whether to do so again."""


class Pump:
    """The threads of one library."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.RLock()
        self._some_armed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._set: Any = None
        self._armed: dict[int, Armed] = {}
        #: All that were ever armed: events that the library has posted may still come when a flow is armed no more.
        self._known: weakref.WeakValueDictionary[int, Armed] = weakref.WeakValueDictionary()
        self._being_told: set[int] = set()
        #: A flow was given back since the events were last read. An event of it reads like the end of a batch.
        self._blind = False
        self._polled: weakref.WeakSet[Armed] = weakref.WeakSet()
        self._polling = False

    # --- events

    def arm(self, flow: Armed) -> None:
        """Have `event` called for the next thing that happens to the flow, or has happened to it: packets count."""
        with self._lock:
            if flow.fd in self._armed or self._stopped:
                return
            if self._set is None:
                self._start()
            self._armed[flow.fd] = self._known[flow.fd] = flow
            self._library.dev.fset_add(self._set, flow.fd)
            self._some_armed.notify()

    def is_armed(self, flow: Armed) -> bool:
        """Whether an event is still to come."""
        with self._lock:
            return self._armed.get(flow.fd) is flow or flow.fd in self._being_told

    def disarm(self, flow: Armed) -> None:
        """Not any more. For a flow that is given back, too, before its number is free for another."""
        with self._lock:
            self._known.pop(flow.fd, None)
            if self._armed.get(flow.fd) is flow:
                del self._armed[flow.fd]
                self._library.dev.fset_del(self._set, flow.fd)
                self._blind = True

    def _start(self) -> None:
        dev = self._library.dev
        self._set = dev.fset_create()
        queue = dev.fqueue_create()
        if self._library.ffi.NULL in (self._set, queue):
            self._set = None
            raise MemoryError("the C Ouroboros has no flow set left: this program has 31 of them already")
        self._thread = threading.Thread(target=self._wait, args=(queue,), name="ouroboros-events", daemon=True)
        self._thread.start()

    def _wait(self, queue: Any) -> None:  # noqa: ANN401
        dev, limit = self._library.dev, self._library.ffi.new("struct timespec *", (0, _LONGEST_WAIT))
        pause = threading.Event()
        while self._has_armed():
            result = dev.fevent(self._set, queue, limit)
            if result not in (1, -ETIMEDOUT):
                # Nothing that is known; but not to be asked again without end.
                pause.wait(_POLL)
            events: dict[int, list[int]] = {}
            while (fd := dev.fqueue_next(queue)) >= 0:
                events.setdefault(fd, []).append(dev.fqueue_type(queue))
            self._tell(events)

    def _has_armed(self) -> bool:
        """Wait until there is a flow to wait for; false when it is time to stop."""
        with self._lock:
            self._some_armed.wait_for(lambda: self._armed or self._stopped)
            return not self._stopped

    def _tell(self, events: dict[int, list[int]]) -> None:
        with self._lock:
            if self._blind:
                self._blind = False
                for fd in self._armed:
                    events.setdefault(fd, [])
            told = [(flow, kinds) for fd, kinds in events.items() if (flow := self._known.get(fd)) is not None]
            for flow, kinds in told:
                # A flow that goes up and down stays, so that it is told of each time.
                if not (kinds and _UPS_AND_DOWNS.issuperset(kinds)) and self._armed.pop(flow.fd, None) is not None:
                    self._library.dev.fset_del(self._set, flow.fd)
                self._being_told.add(flow.fd)
        for flow, kinds in told:
            flow.event(kinds)
            with self._lock:
                self._being_told.discard(flow.fd)

    def stop(self) -> None:
        """The program ends: no thread may be in the library when it goes."""
        with self._lock:
            self._stopped = True
            self._some_armed.notify()
        if self._thread is not None:
            self._thread.join(_FAREWELL)

    # --- polls

    def keep_polling(self, flow: Armed) -> None:
        """Call `poll` again and again, until it says that it is not needed any more."""
        with self._lock:
            self._polled.add(flow)
            if self._polling:
                return
            self._polling = True
        threading.Thread(target=self._poll, name="ouroboros-polls", daemon=True).start()

    def _poll(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_POLL)
            with self._lock:
                flows = list(self._polled)
                if not flows:
                    self._polling = False
                    return
            for flow in flows:
                if not flow.poll():
                    with self._lock:
                        self._polled.discard(flow)


class Watch:
    """The pump, as one flow uses it. Does not keep the flow alive."""

    def __init__(self, pump: Pump, flow: Armed) -> None:
        self._pump = pump
        self._flow = weakref.ref(flow)

    def arm(self) -> None:
        if (flow := self._flow()) is not None:
            self._pump.arm(flow)

    def is_armed(self) -> bool:
        return (flow := self._flow()) is not None and self._pump.is_armed(flow)

    def disarm(self) -> None:
        if (flow := self._flow()) is not None:
            self._pump.disarm(flow)

    def keep_polling(self) -> None:
        if (flow := self._flow()) is not None:
            self._pump.keep_polling(flow)


class Pulse:
    """Reads now and then from flows that the program does not read. To the library a peer is alive when something of it is
    read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._due: list[tuple[float, int, float, weakref.ref[Armed]]] = []
        self._count = itertools.count()
        self._running = False
        self._stopped = False

    def add(self, flow: Armed, timeout: float) -> None:
        """See to it that the peer of the flow does not count as dead after `timeout` seconds."""
        with self._lock:
            heapq.heappush(self._due, self._entry(weakref.ref(flow), timeout / _PULSES))
            if self._running:
                self._changed.notify()
                return
            self._running = True
        threading.Thread(target=self._run, name="ouroboros-pulse", daemon=True).start()

    def stop(self) -> None:
        """The program ends."""
        with self._lock:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            _, _, interval, reference = entry
            flow = reference()
            if flow is not None and flow.pulse():
                with self._lock:
                    heapq.heappush(self._due, self._entry(reference, interval))

    def _next(self) -> tuple[float, int, float, weakref.ref[Armed]] | None:
        with self._lock:
            while not self._stopped and self._due:
                left = self._due[0][0] - time.monotonic()
                if left <= 0:
                    return heapq.heappop(self._due)
                self._changed.wait(left)
            self._running = False
            return None

    def _entry(self, reference: weakref.ref[Armed], interval: float) -> tuple[float, int, float, weakref.ref[Armed]]:
        return time.monotonic() + interval, next(self._count), interval, reference


class Undertaker:
    """Gives flows back to the library, each as soon as its peer has read everything. Before, that would not return, and it
    would keep all other threads out of the library."""

    def __init__(self) -> None:
        self._left: set[int] = set()
        self._lock = threading.Lock()
        self._none_left = threading.Event()
        self._none_left.set()
        #: Until when a program that ends waits.
        self._end: float | None = None

    def bury(self, fd: int, is_done: Callable[[], bool], give_back: Callable[[], None]) -> None:
        """Call `give_back` when `is_done` is true: now, or in a thread, and then return without waiting for that."""
        if self._end is not None:
            # The library ends the rest when the process ends.
            if time.monotonic() < self._end and self._wait(is_done):
                give_back()
            return
        soon = is_done()
        with self._lock:
            self._left.add(fd)
            self._none_left.clear()
        thread = threading.Thread(
            target=self._run, args=(fd, is_done, give_back), name=f"ouroboros-dealloc-{fd}", daemon=True
        )
        thread.start()
        if soon:
            thread.join(_USUAL)

    def say_goodbye(self) -> None:
        """The program ends: wait for a moment until all flows are given back, those of later calls included."""
        self._end = time.monotonic() + _FAREWELL
        self._none_left.wait(_FAREWELL)

    def _run(self, fd: int, is_done: Callable[[], bool], give_back: Callable[[], None]) -> None:
        try:
            if self._wait(is_done):
                give_back()
        finally:
            with self._lock:
                self._left.discard(fd)
                if not self._left:
                    self._none_left.set()

    def _wait(self, is_done: Callable[[], bool]) -> bool:
        pause, time_to_wait = threading.Event(), _FIRST_CHECK
        while not is_done():
            if self._end is not None and time.monotonic() >= self._end:
                return False
            pause.wait(time_to_wait)
            time_to_wait = min(2 * time_to_wait, _LAST_CHECK)
        return True


__all__ = ["Armed", "Pulse", "Pump", "Undertaker", "Watch"]
