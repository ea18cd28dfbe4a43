"""One end of a flow of the C library, with the methods of the engine's `Endpoint`.

It is made of a state object for each direction and for the descriptor. Read bottom to top: `tuning`, `handle`, `ending`,
`reading`, `descriptor`, `writing`, then this. The library is used in ways that keep clear of most of its defects
(`docs/native.md` has their numbers): a thread waits in it for a moment at most; reads are into a buffer that takes any
packet; partial reads, flags and timeouts are kept here; and a write is made only when there is room, to a flow that is up.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from ouroboros._owned import Uncopied
from ouroboros._values import copy_into, packet_view, target_view
from ouroboros.dataplane import ends
from ouroboros.errors import FlowException, FlowTimeoutException, FlowWouldBlockException
from ouroboros.native import declarations as c
from ouroboros.native.descriptor import Descriptor
from ouroboros.native.ending import Ending
from ouroboros.native.handle import Handle
from ouroboros.native.library import Library
from ouroboros.native.pump import Pump, Undertaker, Watch
from ouroboros.native.reading import Reading
from ouroboros.native.tuning import LONGEST_WAIT, STAYS_UP, TURN, WAITED
from ouroboros.native.writing import Writing
from ouroboros.runtime.descriptors import Eventfd

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_T = TypeVar("_T")


class Endpoint(Uncopied):
    """One end of a flow. `fd`: its number in the library. `frct`: whether the library keeps order, or more, by itself."""

    def __init__(self, library: Library, fd: int, pump: Pump, undertaker: Undertaker, *, frct: bool) -> None:
        self.fd: Final = fd
        self._undertaker = undertaker
        self._watch = Watch(pump, self)
        self._handle = Handle(library, fd, frct=frct)
        self._ending = Ending(self._handle, self._watch)
        self._reading = Reading(self._handle, self._ending)
        self._descriptor = Descriptor(self._handle, self._ending, self._reading, self._watch)
        self._writing = Writing(self._handle, self._ending, self._descriptor)
        self.receive_timeout: float | None = None
        self.send_timeout: float | None = None
        #: Thread that ended the program, if one did. For other threads nothing happens on the flow any more.
        self._leaver: int | None = None

    # --- packets

    def read(self, count: int | None = None, /) -> bytes:
        # The usual case in few steps: a packet is there, and all of it is wanted.
        reading = self._reading
        if count is None and reading.plain and reading.lock.acquire(False):
            try:
                results = reading.results
                began = perf_counter()
                if not results and reading.plain and (reading.limit < 0 or self.receive_timeout is None):
                    results.extend(starmap(reading.read_one, reading.arguments))
                if results and results[0] > 0 and reading.plain:
                    packet: bytes = reading.view[: results[0]]
                    del results[0]
                    if (waited := perf_counter() - began) > WAITED:
                        reading.note_wait(began, waited)
                    return packet
            finally:
                reading.lock.release()
        with self._resting():
            return self._receive(reading.take_bytes, _checked(count))

    def read_soon(self, count: int | None = None, /) -> bytes | None:
        return self._receive_now(self._reading.take_bytes, _checked(count))

    def read_text(self, count: int | None = None, /) -> str:
        with self._resting():
            return self._receive(self._reading.take_text, _checked(count))

    def read_text_soon(self, count: int | None = None, /) -> str | None:
        return self._receive_now(self._reading.take_text, _checked(count))

    def read_into(self, buffer: WriteableBuffer) -> int:
        target = target_view(buffer)
        with self._resting():
            packet = self._receive(self._reading.take_bytes, target.nbytes)
        return copy_into(buffer, packet)

    def read_many(self, limit: int) -> list[bytes]:
        if limit < 1:
            raise ValueError("read_many: the limit must be at least 1 packet")
        packets = [self.read()]
        # The end of the flow shows at the next call: the packets before it are not lost.
        with contextlib.suppress(FlowException):
            while len(packets) < limit and (packet := self._receive_now(self._reading.take_bytes, None)) is not None:
                packets.append(packet)
        return packets

    def write(self, buffer: ReadableBuffer, count: int | None = None, /) -> int:
        # The usual case in few steps: there is room, and the flow was up just now.
        writing = self._writing
        if count is None and type(buffer) is bytes and writing.room > 0 and writing.lock.acquire(False):
            try:
                if writing.allowed and buffer and perf_counter() - self._ending.up_at < STAYS_UP:
                    result = writing.write_one(self.fd, buffer, len(buffer))
                    if result >= 0:
                        writing.room -= 1
                        written: int = result
                        return written
            finally:
                writing.lock.release()
        source, length = self._source(buffer, count)
        with self._resting():
            writing.write(source, length, self.send_timeout)
        return length

    def write_soon(self, buffer: ReadableBuffer, count: int | None = None, /) -> int | None:
        source, length = self._source(buffer, count)
        return length if self._writing.write_soon(source, length) else None

    def write_many(self, packets: Sequence[ReadableBuffer]) -> int:
        sources = [self._source(packet, None) for packet in packets]
        written = 0
        try:
            for source, length in sources:
                with self._resting():
                    self._writing.write(source, length, self.send_timeout)
                written += 1
        except FlowException:
            if not written:
                raise
        return written

    def _source(self, buffer: ReadableBuffer, count: int | None) -> tuple[Any, int]:
        """The packet as the library takes it, and its length."""
        if type(buffer) is bytes:
            return buffer, len(buffer) if count is None else min(len(buffer), _checked(count))
        view = packet_view(buffer)
        length = view.nbytes if count is None else min(view.nbytes, _checked(count))
        return self._handle.library.ffi.from_buffer(view), length

    def _receive(self, take: Callable[[int | None], _T], count: int | None) -> _T:
        """Wait for a packet and return it as `take` does."""
        reading = self._reading
        deadline = None if self.receive_timeout is None else time.monotonic() + self.receive_timeout
        while True:
            with reading.held(deadline):
                reading.check_readable()
                bell = self._descriptor.bell.event
                blocks = not self._handle.flags & ends.NON_BLOCKING_READ
                found = reading.has_packet()
                if not found and not self._ending.ended and bell is None and blocks:
                    found = reading.wait(deadline)
                if found:
                    return self._taken(take(count))
                self._ending.check_up()
                self._descriptor.forget_news()
                self._descriptor.settle()
            if self._handle.flags & ends.NON_BLOCKING_READ:
                raise FlowWouldBlockException("non-blocking flow: no packet to read now")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise FlowTimeoutException("no packet to read within the time limit of the flow")
            if bell is not None:
                _wait_for(bell, left)
            elif reading.queued:
                self._handle.closing.wait(TURN)

    def _receive_now(self, take: Callable[[int | None], _T], count: int | None) -> _T | None:
        """As `_receive`, but return None when there is no packet."""
        with self._reading.held():
            self._reading.check_readable()
            if self._reading.has_packet():
                return self._taken(take(count))
            self._ending.check_up()
            self._descriptor.forget_news()
            return None

    def _taken(self, packet: _T) -> _T:
        self._descriptor.settle()
        return packet

    # --- waiting for them elsewhere

    def fileno(self) -> int:
        return self.descriptor

    @property
    def descriptor(self) -> int:
        with self._reading.held():
            return self._descriptor.number()

    def watch(self, seen: int) -> None:
        """Be silent about the end `seen`."""
        with self._reading.held():
            self._descriptor.watch(seen)

    def want_room(self, length: int) -> bool:
        """Whether there may be room; if not, the descriptor is silent until there is, or there is news for a reader."""
        with self._writing.lock:
            if self._may_have_room():
                return True
        self._descriptor.want_room()
        return False

    def forget_room(self) -> None:
        self._descriptor.forget_room()
        with self._reading.held():
            self._descriptor.settle()

    def _may_have_room(self) -> bool:
        self._handle.check_usable()
        return bool(self._ending.ended) or self._writing.find_room()

    @property
    def ended(self) -> int:
        with self._reading.held():
            self._reading.find_end()
            return self._ending.ended

    @property
    def readable(self) -> bool:
        with self._reading.held():
            return self._reading.has_packet()

    @property
    def receive_queue(self) -> int:
        with self._reading.held():
            queued = len(self._reading.kept) + max(0, self._handle.queue(c.RECEIVE_QUEUE))
            # The descriptor says no less, whether the event has come or not.
            if queued:
                self._descriptor.settle()
            return queued

    @property
    def transmit_queue(self) -> int:
        self._handle.check_usable()
        return max(0, self._handle.queue(c.TRANSMIT_QUEUE))

    @property
    def rejected(self) -> int:
        return 0

    # --- settings and end

    @property
    def flags(self) -> int:
        return self._handle.flags

    @flags.setter
    def flags(self, flags: int) -> None:
        if flags & ends.ACCESS == ends.ACCESS:
            raise ValueError("flags: WriteOnly and ReadWrite exclude each other")
        with self._reading.held(), self._writing.lock:
            self._handle.set_flags(flags)
            self._writing.note_flags()
            self._ending.note_flags()
            self._descriptor.settle()
        if self._handle.refuses():
            self._watch.keep_polling()

    @property
    def closed(self) -> bool:
        return self._handle.closing.is_set()

    def close(self) -> None:
        """Give the flow back once the peer has read all packets. Does not wait for that."""
        if self.closed:
            return
        self._handle.close()
        self._reading.plain = self._writing.allowed = False
        self._descriptor.close()
        if not self._handle.disowned:
            self._undertaker.bury(self.fd, self._is_done, self._give_back)

    def abandon(self) -> None:
        """Give the flow back, as this thread ends the program. Other threads that use the flow notice nothing."""
        self._leaver = threading.get_ident()
        self.close()

    @property
    def abandoned(self) -> bool:
        return self._leaver is not None

    def disown(self) -> None:
        """In the child of a fork: the flow is the parent's, and a thread of the parent may hold the locks."""
        self._handle.disown()
        self._reading.plain = self._writing.allowed = False
        self._reading.lock, self._writing.lock = threading.Lock(), threading.Lock()
        self._descriptor.disown()

    def _is_done(self) -> bool:
        """Whether the flow can be given back at once: the peer has read everything, or has given its end back."""
        if self._handle.library.ours or self._handle.queue(c.TRANSMIT_QUEUE) <= 0:
            return True
        with self._reading.lock:
            self._reading.drop_all()
            return self._ending.is_given_back()

    def _give_back(self) -> None:
        # With both locks no thread uses the number in the library. Another flow may soon have it.
        with self._reading.lock, self._writing.lock:
            self._watch.disarm()
            self._descriptor.close()
            self._handle.library.dev.flow_dealloc(self.fd)

    @contextlib.contextmanager
    def _resting(self) -> Iterator[None]:
        """When the program has ended, its other threads stay here: they could only print the exception."""
        try:
            yield
        except FlowException:
            if self._leaver not in (None, threading.get_ident()):
                threading.Event().wait()
            raise

    # --- for the pump

    def event(self, kinds: Sequence[int]) -> None:
        """The library has events of the flow."""
        with contextlib.suppress(FlowException), self._reading.held():
            self._ending.note_events(kinds)
            self._descriptor.settle()

    def poll(self) -> bool:
        """Check all that the library has no events for. Returns whether to poll again."""
        descriptor, frct = self._descriptor, self._handle.frct
        try:
            if descriptor.wants_room and not descriptor.room_found:
                with self._writing.lock:
                    descriptor.room_found = self._may_have_room()
                if descriptor.room_found:
                    descriptor.bell.ring()
            if self._handle.refuses():
                with self._reading.held():
                    self._reading.drop_all()
                    self._reading.update_plain()
            elif descriptor.is_open and not descriptor.wants_room and (frct or self._ending.is_unsettled()):
                with self._reading.held():
                    descriptor.settle()
        except FlowException:
            return False
        return (
            self._handle.refuses()
            or descriptor.wants_room
            or self._ending.is_unsettled()
            or (frct and descriptor.is_open)
        )

    def pulse(self) -> bool:
        """Read once, so that the peer counts as alive in the library. Returns whether to do so again."""
        self._descriptor.glance()
        return self._handle.usable


def _wait_for(bell: Eventfd, seconds: float | None) -> None:
    """Wait for the bell, but not long: the library has no events for some changes."""
    poller = select.poll()
    poller.register(bell, select.POLLIN)
    poller.poll(1000 * LONGEST_WAIT if seconds is None else math.ceil(1000 * min(seconds, LONGEST_WAIT)))


@overload
def _checked(count: int) -> int: ...


@overload
def _checked(count: None) -> None: ...


def _checked(count: int | None) -> int | None:
    if count is not None and count < 0:
        raise ValueError("count must not be negative")
    return count


__all__ = ["Endpoint"]
