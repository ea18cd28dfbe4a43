"""One end of a flow of the C library, with the methods of the engine's `Endpoint`.

The library is used in two ways only, which keeps clear of most of its defects (`docs/native.md` has their numbers). A *look*
reads with a time limit that is long over, so that it never waits. A *slice* reads with a short one, so that a reader soon
sees what the library wakes nobody for: the peer's dealloc, our own, a signal. Reads are into a buffer that takes any packet;
partial reads, flags and timeouts are kept here. A write is made only when the ring has room and the flow is known to be up.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
)
from ouroboros.native import declarations as c
from ouroboros.native.bell import Bell
from ouroboros.native.kept import Kept
from ouroboros.native.library import Library
from ouroboros.native.pump import Pump, Undertaker

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: More than the longest packet, so that a read never ends exactly at the end of the buffer, which the library marks.
_BUFFER = (1 << 20) + 4096

_T = TypeVar("_T")

# Flags (`flows.md` 6.2).
_ACCESS, _READ_ONLY, _WRITE_ONLY, _READ_WRITE = 0o3, 0o0, 0o1, 0o2
_DOWN, _NON_BLOCKING_READ, _NON_BLOCKING_WRITE, _NO_PARTIAL_READ = 0o4, 0o1000, 0o2000, 0o10000
_DEFAULT_FLAGS = 0o20002

#: What ended a flow, as the engine says it.
CLOSED, DEAD, DOWN = 1, 2, 4

#: What events of the library say why a flow is down: that is set down, up again, given back by the peer.
_CAUSES = {2: DOWN, 4: 0, 16: CLOSED}

#: Seconds that a reader stays in the library at a time. With FRCT the library may take the packet that the reader waits for
#: and not wake it.
_SLICE, _SLICE_WITH_FRCT = 0.02, 0.005

#: A time limit that was over before the clock began. One that is only just over costs a timer of the kernel.
_LONG_OVER = -1_000_000_000

#: Seconds for which a flow that was found up counts as up.
_STAYS_UP = 0.00005

#: Entries of the ring left to the library, for keepalives and acknowledgements.
_SPARE = 24

#: Seconds in which an event says why a flow is down, or a flow is down of which an event has said why.
_FALLS = 0.2

#: Packets, and bytes, that are taken out of the library just to see whether the flow is up behind them.
_KEPT, _KEPT_BYTES = 64, 1 << 20

#: Looks at the length of the queue before a reader goes to sleep, and seconds in which they would have found a packet. That
#: length is the one thing of the library that can be looked at without keeping the writer from writing.
_LOOKS, _LOOKS_TAKE = 40, 0.00003

#: How much looking has to have paid lately, and what that counts at most.
_PAYS, _PAYS_WELL = 4, 8

#: Seconds after which a read that brought a packet has waited for it: the packet is new, and its writer was up just now.
_WAITED = 0.000005

#: Seconds between two looks for room, at first and at most.
_FIRST_PAUSE, _LAST_PAUSE = 0.00005, 0.002

#: Seconds that a reader waits for the descriptor at a time.
_LONGEST_POLL = 0.5

#: Seconds that a reader stays away for others that want to read.
_TURN = 0.0005


class Endpoint:
    """One end of a flow. `fd`: its number in the library. `frct`: whether the library keeps order, or more, by itself."""

    def __init__(self, library: Library, fd: int, pump: Pump, undertaker: Undertaker, *, frct: bool) -> None:
        self.fd: Final = fd
        self._library = library
        self._pump = pump
        self._undertaker = undertaker
        self._frct = frct
        self._flow_read = library.dev.flow_read
        self._flow_write = library.dev.flow_write
        buffer = library.ffi.from_buffer(mmap.mmap(-1, _BUFFER))
        self._arguments = ((fd, buffer, _BUFFER),)
        #: The bytes of the buffer. A slice is a copy.
        self._view: Any = library.ffi.buffer(buffer)
        #: What the last read of the library returned, until it is used. It gets here in one step that no signal divides.
        self._results: list[int] = []
        self._kept = Kept()
        self._slice = _SLICE_WITH_FRCT if frct else _SLICE
        self._pays = _PAYS + 2 if len(os.sched_getaffinity(0)) > 1 and not frct else -_PAYS_WELL
        self._length = library.ffi.new("size_t *")
        #: The time limit that the library has for reads.
        self._limit = 0.0
        self._queued = 0
        self._flags = _DEFAULT_FLAGS
        self.receive_timeout: float | None = None
        self.send_timeout: float | None = None
        self._ended = 0
        #: Why it is down, or will be, if the library has told: CLOSED or DOWN.
        self._cause = 0
        #: When the library told that.
        self._told_at = -_FALLS
        #: Since when it is known that it is up no more, and not why.
        self._fell_at = 0.0
        self._up_at = 0.0
        self._room = 0
        #: Of the C functions, each is called under one of these. Who holds the first does so for a slice at most.
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._usable = True
        self._disowned = False
        self._bell = Bell()
        self._seen = 0
        #: The end that the descriptor told of last, and whether nobody has looked since.
        self._told_end, self._end_is_news = 0, False
        self._wants_room = self._room_found = False
        self._plain = self._may_write = True
        self._set_limit(_LONG_OVER)
        self._fccntl(c.SEND_TIMEOUT, self._timespec(_LONG_OVER))

    # --- packets

    def read(self, count: int | None = None, /) -> bytes:
        # The usual case in few steps: a packet is there, and all of it is wanted.
        if count is None and self._plain and self._reading.acquire(False):
            try:
                results = self._results
                began = perf_counter()
                if not results and self._plain and (self._limit < 0 or self.receive_timeout is None):
                    results.extend(starmap(self._flow_read, self._arguments))
                if results and results[0] > 0 and self._plain:
                    packet: bytes = self._view[: results[0]]
                    del results[0]
                    if (waited := perf_counter() - began) > _WAITED:
                        self._note_wait(began, waited)
                    return packet
            finally:
                self._reading.release()
        return self._receive(self._take_bytes, _checked(count))

    def read_soon(self, count: int | None = None, /) -> bytes | None:
        return self._receive_now(self._take_bytes, _checked(count))

    def read_text(self, count: int | None = None, /) -> str:
        return self._receive(self._take_text, _checked(count))

    def read_text_soon(self, count: int | None = None, /) -> str | None:
        return self._receive_now(self._take_text, _checked(count))

    def read_into(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer)
        if target.readonly or not target.c_contiguous:
            raise TypeError("readinto() needs a writable, contiguous buffer such as a bytearray")
        packet = self._receive(self._take_bytes, target.nbytes)
        if packet:
            target.cast("B")[: len(packet)] = packet
        return len(packet)

    def read_many(self, limit: int) -> list[bytes]:
        if limit < 1:
            raise ValueError("read_many: the limit must be at least 1 packet")
        packets = [self._receive(self._take_bytes, None)]
        # What ends the flow shows at the next call: the packets before it are not lost.
        with contextlib.suppress(FlowException):
            while len(packets) < limit and (packet := self._receive_now(self._take_bytes, None)) is not None:
                packets.append(packet)
        return packets

    def write(self, buffer: ReadableBuffer, count: int | None = None, /) -> int:
        # The usual case in few steps: there is room, and the flow was up just now.
        if count is None and type(buffer) is bytes and self._room > 0 and self._writing.acquire(False):
            try:
                if self._may_write and buffer and perf_counter() - self._up_at < _STAYS_UP:
                    result = self._flow_write(self.fd, buffer, len(buffer))
                    if result >= 0:
                        self._room -= 1
                        written: int = result
                        return written
            finally:
                self._writing.release()
        source, length = self._source(buffer, count)
        if not self._write_now(source, length):
            self._write_later(source, length)
        return length

    def write_soon(self, buffer: ReadableBuffer, count: int | None = None, /) -> int | None:
        source, length = self._source(buffer, count)
        return length if self._write_now(source, length) else None

    def write_many(self, packets: Sequence[ReadableBuffer]) -> int:
        sources = [self._source(packet, None) for packet in packets]
        written = 0
        try:
            for source, length in sources:
                if not self._write_now(source, length):
                    self._write_later(source, length)
                written += 1
        except FlowException:
            if not written:
                raise
        return written

    # --- waiting for them elsewhere

    def fileno(self) -> int:
        return self.descriptor

    @property
    def descriptor(self) -> int:
        with self._held():
            if self._bell.descriptor is None:
                self._bell.open()
                self._settle()
            assert self._bell.descriptor is not None
            return self._bell.descriptor

    def watch(self, seen: int) -> None:
        """Be silent about the end `seen`."""
        with self._held():
            self._seen, self._end_is_news = seen, False
            self._settle()

    def want_room(self, length: int) -> bool:
        """Whether there may be room; if not, the descriptor is silent until there is, or there is news for a reader."""
        with self._writing:
            self._check_usable()
            if self._ended or self._find_room():
                return True
        self._room_found = False
        self._wants_room = True
        self._bell.hush()
        self._pump.look_at(self)
        return False

    def forget_room(self) -> None:
        self._wants_room = self._room_found = False
        with self._held():
            self._settle()

    @property
    def ended(self) -> int:
        with self._held():
            # The library tells of the end behind the last packet.
            while not self._ended and self._kept.size < _KEPT_BYTES and len(self._kept) < c.RING and self._fetch_now():
                pass
            return self._ended

    @property
    def readable(self) -> bool:
        with self._held():
            return self._look()

    @property
    def receive_queue(self) -> int:
        with self._held():
            queued = len(self._kept) + max(0, self._queue(c.RECEIVE_QUEUE))
            # The descriptor says no less, whether the event has come or not.
            if queued:
                self._settle()
            return queued

    @property
    def transmit_queue(self) -> int:
        self._check_usable()
        return max(0, self._queue(c.TRANSMIT_QUEUE))

    @property
    def rejected(self) -> int:
        return 0

    # --- settings and end

    @property
    def flags(self) -> int:
        return self._flags

    @flags.setter
    def flags(self, flags: int) -> None:
        if flags & _ACCESS == _ACCESS:
            raise ValueError("flags: WriteOnly and ReadWrite exclude each other")
        with self._held(), self._writing:
            self._tell_flags(flags)
            self._flags = flags
            self._may_write = self._usable and flags & _ACCESS != _READ_ONLY
            self._up_at = self._room = 0
            if self._ended == DOWN and not flags & _DOWN:
                self._ended = 0
            self._settle()
        if self._refuses():
            self._pump.look_at(self)

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    def close(self) -> None:
        """Give the flow back once the peer has read what is left, which this does not wait for."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._usable = self._plain = self._may_write = False
        self._bell.close()
        if not self._disowned:
            self._undertaker.bury(self.fd, self._is_done, self._give_back)

    def disown(self) -> None:
        """In the child of a fork: the flow is the parent's, some thread of which may hold the locks."""
        self._disowned = True
        self._usable = self._plain = self._may_write = False
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._bell = self._bell.disown()

    # --- for the pump

    def event(self, kinds: Sequence[int]) -> None:
        """The library has something to tell of the flow."""
        with contextlib.suppress(FlowException), self._held():
            for kind in kinds:
                # Only the reason: whether it is so, a look shows. The event may be of the flow that had the number before,
                # and it comes before the flow is down, or behind.
                if kind in _CAUSES:
                    self._cause, self._told_at = _CAUSES[kind], perf_counter()
                    self._pump.look_at(self)
            if self._ended == DOWN and not self._cause:
                self._ended = 0
            self._settle()

    def look(self) -> bool:
        """Look for what the library has no events for; returns whether to look again."""
        try:
            if self._wants_room and not self._room_found:
                with self._writing:
                    self._check_usable()
                    self._room_found = self._find_room() or bool(self._ended)
                if self._room_found:
                    self._bell.ring()
            if self._refuses():
                self._refuse()
            elif self._bell.descriptor is not None and not self._wants_room and (self._frct or self._falls()):
                with self._held():
                    self._settle()
        except FlowException:
            return False
        return (
            self._refuses() or self._wants_room or self._falls() or (self._frct and self._bell.descriptor is not None)
        )

    def pulse(self) -> bool:
        """Read for once, so that the library sees that the peer is alive; returns whether to do so again."""
        # Who holds the flow reads it.
        if self._usable and self._reading.acquire(blocking=False):
            try:
                if self._usable and len(self._kept) < _KEPT and self._kept.size < _KEPT_BYTES:
                    self._fetch_now()
                    self._settle()
            finally:
                self._reading.release()
        return self._usable

    # --- reading

    def _receive(self, take: Callable[[int | None], _T], count: int | None) -> _T:
        """What `take` makes of the next packet, once there is one."""
        deadline = None if self.receive_timeout is None else time.monotonic() + self.receive_timeout
        while True:
            with self._held(deadline):
                self._check_readable()
                bell = self._bell.descriptor
                found = self._look()
                if not found and not self._ended and bell is None and not self._flags & _NON_BLOCKING_READ:
                    found = self._wait(deadline)
                if found:
                    return self._settled(take(count))
                self._check_up()
                self._end_is_news = False
                self._settle()
            if self._flags & _NON_BLOCKING_READ:
                raise FlowWouldBlockException("non-blocking flow: no packet to read now")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise FlowTimeoutException("no packet to read within the time limit of the flow")
            if bell is not None:
                _wait_for(bell, left)
            elif self._queued:
                self._closing.wait(_TURN)

    def _receive_now(self, take: Callable[[int | None], _T], count: int | None) -> _T | None:
        with self._held():
            self._check_readable()
            if self._look():
                return self._settled(take(count))
            self._check_up()
            self._end_is_news = False
            return None

    def _take_bytes(self, count: int | None) -> bytes:
        return self._kept.take_bytes(count, not self._flags & _NO_PARTIAL_READ)

    def _take_text(self, count: int | None) -> str:
        return self._kept.take_text(count, not self._flags & _NO_PARTIAL_READ)

    def _look(self) -> bool:
        """Whether there is something to read; takes it out of the library if need be."""
        return bool(self._kept) or self._fetch_now()

    def _fetch_now(self) -> bool:
        if self._limit >= 0:
            self._set_limit(_LONG_OVER)
        return self._fetch()

    def _wait(self, deadline: float | None) -> bool:
        """Wait for a packet: look for it as long as that pays, then sleep in the library, for a slice."""
        if self._pays >= _PAYS and self._look_long():
            return True
        slice_ = self._slice if deadline is None else max(0.0, min(self._slice, deadline - time.monotonic()))
        if self._limit != slice_:
            self._set_limit(slice_)
        began = perf_counter()
        found = self._fetch()
        if found and (waited := perf_counter() - began) > _WAITED:
            self._note_wait(began, waited)
        return found

    def _look_long(self) -> bool:
        fccntl, length = self._library.dev.fccntl, self._length
        for _ in range(_LOOKS):
            fccntl(self.fd, c.RECEIVE_QUEUE, length)
            if length[0]:
                self._pays = min(self._pays + 1, _PAYS_WELL)
                return self._look()
        self._pays -= 2
        return False

    def _note_wait(self, began: float, waited: float) -> None:
        """A read that slept brought a packet, which its writer, who was up, wrote just now."""
        self._up_at = began + waited
        if waited < _LOOKS_TAKE and not self._frct:
            self._pays = min(self._pays + 1, _PAYS_WELL)
            if self._pays >= _PAYS:
                # From now on a read looks first.
                self._set_limit(_LONG_OVER)

    def _fetch(self) -> bool:
        """Take a packet out of the library, waiting for as long as that is set to; note what ended the flow."""
        results = self._results
        if not results:
            results.extend(starmap(self._flow_read, self._arguments))
        result = results[0]
        if result > 0:
            self._kept.put(self._view[:result])
            self._plain = False
        del results[0]
        if result <= 0:
            self._note(result)
        elif self._ended != DEAD and not self._flags & _DOWN:
            # What was queued comes before the end; so it was up again.
            self._ended = 0
        return result > 0

    def _note(self, result: int) -> None:
        """What a read without a packet says of the flow."""
        number = self._library.number(result)
        if number in (0, c.EAGAIN, c.ETIMEDOUT):
            self._up_at = perf_counter()
            if self._ended or self._up_at - self._told_at > _FALLS:
                self._cause = 0
            self._ended, self._fell_at = 0, 0.0
        elif number == c.EPERM:
            # Our library, of a flow that is write-only.
            self._up_at = 0.0
        elif self._ended == DEAD or number == c.EFLOWPEER:
            self._ended = DEAD
        elif self._flags & _DOWN:
            self._ended = DOWN
        elif self._cause:
            self._ended = self._cause
        elif not self._ended and not self._waits_for_the_cause():
            # It may be down only: the library does not say which, but by an event to who watches.
            self._ended = CLOSED
        if self._ended:
            self._fell_at = 0.0

    def _falls(self) -> bool:
        """Whether a look may soon tell more of the end."""
        return bool(self._fell_at) or perf_counter() - self._told_at <= _FALLS

    def _waits_for_the_cause(self) -> bool:
        """Whether an event is still to tell how a flow ended that is up no more."""
        if not self._pump.is_armed(self):
            self._fell_at = 0.0
            return False
        now = perf_counter()
        if not self._fell_at:
            self._fell_at = now
            self._pump.look_at(self)
        return now - self._fell_at < _FALLS

    def _set_limit(self, seconds: float) -> None:
        self._limit = seconds
        self._fccntl(c.RECEIVE_TIMEOUT, self._timespec(seconds))

    # --- writing

    def _write_now(self, source: Any, length: int) -> bool:  # noqa: ANN401
        """Write the packet if there is room for it."""
        with self._writing:
            if not self._may_write:
                self._check_writable()
            if self._room <= 0 or perf_counter() - self._up_at > _STAYS_UP:
                self._look_whether_up()
                if self._room <= 0 and not self._find_room():
                    return False
            if not length:
                # To the library it would be a keepalive.
                return True
            result = self._flow_write(self.fd, source, length)
            if result >= 0:
                self._room -= 1
                return True
        number = self._library.number(result)
        if number in (c.EAGAIN, c.ETIMEDOUT, c.ECONNRESET):
            return False
        if number == c.EMSGSIZE:
            raise FlowSizeException(
                f"a packet of {length} bytes is too long: the C Ouroboros has room for packets of 1048260 bytes at most,"
                " and of 261828 for users without privilege"
            )
        raise self._failure(result)

    def _write_later(self, source: Any, length: int) -> None:  # noqa: ANN401
        """Write the packet when there is room. While the library waits for that itself, no other thread can use it."""
        if self._flags & _NON_BLOCKING_WRITE:
            raise FlowWouldBlockException("non-blocking flow: no room to write now")
        deadline = None if self.send_timeout is None else time.monotonic() + self.send_timeout
        pause = _FIRST_PAUSE
        while True:
            left = _LAST_PAUSE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise FlowTimeoutException("no room to write within the time limit of the flow")
            select.select([], [], [], min(pause, left))
            if self._write_now(source, length):
                return
            pause = min(2 * pause, _LAST_PAUSE)

    def _look_whether_up(self) -> None:
        """To a flow that is down the library writes as to any other, into the void."""
        # A reader that holds the flow sees for itself how it is.
        if self._reading.acquire(blocking=False):
            try:
                if len(self._kept) < _KEPT and self._kept.size < _KEPT_BYTES:
                    self._fetch_now()
                self._settle()
            finally:
                self._reading.release()
        self._check_up()
        if self._fell_at:
            raise FlowDownException("the flow is down, or the peer deallocated it; allocate a new one")

    def _find_room(self) -> bool:
        """Count how many packets the ring takes. It only becomes more, but for what the library itself writes."""
        if self._library.ours:
            # That one says it itself when there is none.
            self._room = c.RING
            return True
        queued = self._queue(c.TRANSMIT_QUEUE)
        self._room = c.RING - _SPARE - queued if queued >= 0 else 1
        return self._room > 0

    def _refuses(self) -> bool:
        """Whether to drop what the peer sends: the library would, but could never be told to take packets again."""
        return self._flags & _ACCESS == _WRITE_ONLY and not self._library.ours and self._usable

    def _refuse(self) -> None:
        with self._held():
            while self._look():
                self._kept.clear()
            self._update_plain()

    # --- the descriptor: readable while there is a packet, an end that was not seen, or room that is wanted; else armed

    def _settled(self, packet: _T) -> _T:
        self._update_plain()
        if self._bell.descriptor is not None:
            self._settle()
        return packet

    def _settle(self) -> None:
        self._update_plain()
        if self._bell.descriptor is None or not self._usable:
            return
        packet = self._look()
        if self._frct:
            self._pump.look_at(self)
        elif not packet and self._ended != DEAD and not (self._ended == CLOSED and self._cause):
            # Also while there is an end to be told: why the next one comes, only its event says.
            self._pump.arm(self)
            # Of what came before there is no event.
            packet = self._look()
        if self._ended != self._told_end:
            # News even if it is taken back before anybody looks.
            self._told_end, self._end_is_news = self._ended, True
        if packet or self._room_found or self._end_is_news or self._ended != self._seen:
            self._bell.ring()
        else:
            self._bell.hush()

    # --- the end

    def _is_done(self) -> bool:
        """Whether the flow can be given back at once: the peer has read everything, or has given its end back."""
        if self._library.ours or self._queue(c.TRANSMIT_QUEUE) <= 0:
            return True
        with self._reading:
            while self._look():
                self._kept.clear()
            return self._ended == CLOSED and bool(self._cause)

    def _give_back(self) -> None:
        # No thread is in the library with this number any more. It may soon be another flow's.
        with self._reading, self._writing:
            self._pump.disarm(self)
            self._bell.close()
            self._library.dev.flow_dealloc(self.fd)

    # --- helpers

    @contextlib.contextmanager
    def _held(self, deadline: float | None = None) -> Iterator[None]:
        """With the right to read, which others have for a slice at a time."""
        if not self._reading.acquire(blocking=False):
            self._queued += 1
            try:
                left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._reading.acquire(timeout=left):
                    raise FlowTimeoutException("no packet to read within the time limit of the flow")
            finally:
                self._queued -= 1
        try:
            self._check_usable()
            yield
        finally:
            self._reading.release()

    def _update_plain(self) -> None:
        self._plain = (
            self._usable
            and not self._kept
            and self._bell.descriptor is None
            and self._flags & _ACCESS != _WRITE_ONLY
            and not self._flags & _NON_BLOCKING_READ
        )

    def _check_usable(self) -> None:
        if self._closing.is_set():
            raise FlowNotAllocatedException("this flow is deallocated; allocate a new one")
        if self._disowned:
            raise FlowException("this flow belongs to the process that forked this one; it cannot be used here")

    def _check_readable(self) -> None:
        if self._flags & _ACCESS == _WRITE_ONLY:
            raise FlowPermissionException(
                "the flow is set write-only; set_flags() with FlowProperties.ReadWrite to read"
            )

    def _check_writable(self) -> None:
        self._check_usable()
        if self._flags & _ACCESS == _READ_ONLY:
            raise FlowPermissionException(
                "the flow is set read-only; set_flags() with FlowProperties.ReadWrite to write"
            )

    def _check_up(self) -> None:
        if self._ended == DEAD:
            raise FlowPeerException("the peer's process died, or does not answer any more; allocate a new flow")
        if self._ended == DOWN:
            raise FlowDownException("the flow is set down by FlowProperties.Down, here or at the peer")
        if self._ended:
            raise FlowDownException("the peer deallocated the flow; allocate a new one")

    def _failure(self, result: int) -> FlowException:
        number = self._library.number(result)
        if number in (c.ENOTALLOC, c.EBADF):
            return FlowNotAllocatedException("the C Ouroboros does not know this flow any more; allocate a new one")
        if number == c.EFLOWDOWN:
            return FlowDownException("the flow is down; allocate a new one")
        if number == c.EFLOWPEER:
            return FlowPeerException("the peer does not answer any more; allocate a new flow")
        if number == c.EPERM:
            return FlowPermissionException("the peer has set the flow write-only and takes no packets")
        return FlowException(f"the C Ouroboros refused with error {result} ({os.strerror(number)})")

    def _source(self, buffer: ReadableBuffer, count: int | None) -> tuple[Any, int]:
        """The packet as the library takes it, and its length."""
        if type(buffer) is bytes:
            return buffer, len(buffer) if count is None else min(len(buffer), _checked(count))
        if isinstance(buffer, str):
            raise TypeError("a packet is bytes, not str: use writeline() for text, or encode it")
        view = memoryview(buffer)
        if not view.c_contiguous:
            raise ValueError("a packet must be a contiguous buffer: copy it with bytes()")
        length = view.nbytes if count is None else min(view.nbytes, _checked(count))
        return self._library.ffi.from_buffer(view), length

    def _tell_flags(self, flags: int) -> None:
        told = _DOWN | (_ACCESS if self._library.ours else 0)
        if (flags ^ self._flags) & told:
            access = flags & _ACCESS if self._library.ours else _READ_WRITE
            value = flags & _DOWN | access | _DEFAULT_FLAGS & ~_ACCESS
            result = self._fccntl(c.SET_FLAGS, self._library.ffi.cast("uint32_t", value))
            if result < 0:
                raise self._failure(result)

    def _fccntl(self, command: int, argument: Any) -> int:  # noqa: ANN401
        return int(self._library.dev.fccntl(self.fd, command, argument))

    def _queue(self, command: int) -> int:
        length = self._library.ffi.new("size_t *")
        result = self._fccntl(command, length)
        return result if result < 0 else int(length[0])

    def _timespec(self, seconds: float) -> Any:  # noqa: ANN401
        if seconds == _LONG_OVER and self._library.ours:
            seconds = 0
        return self._library.ffi.new("struct timespec *", (int(seconds), int(seconds % 1 * 1e9)))


def _wait_for(bell: int, seconds: float | None) -> None:
    """Wait until the descriptor is readable, but not long: another thread may have closed it meanwhile."""
    poller = select.poll()
    poller.register(bell, select.POLLIN)
    poller.poll(1000 * _LONGEST_POLL if seconds is None else math.ceil(1000 * min(seconds, _LONGEST_POLL)))


@overload
def _checked(count: int) -> int: ...


@overload
def _checked(count: None) -> None: ...


def _checked(count: int | None) -> int | None:
    if count is not None and count < 0:
        raise ValueError("count must not be negative")
    return count


__all__ = ["CLOSED", "DEAD", "DOWN", "Endpoint"]
