"""Flows: allocate them to names, accept them, join broadcast layers, and read and write packets.

>>> from ouroboros.dev import *                               # doctest: +SKIP
>>> with flow_alloc("oecho") as f:                            # doctest: +SKIP
...     f.writeline("Hello, PyOuroboros!")
...     print(f.readline())

A flow carries packets: one `write` is one packet, and it arrives whole, once and in order on flows between programs of one
node. A program needs no set-up: if no node runs, the first call starts one for its user.

Source: the PyOuroboros API text; `docs/flows.md` for the behaviour of each call.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from enum import IntFlag
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from ouroboros import backend
from ouroboros._file import open_flow
from ouroboros.control.messages import Accept, Alloc, Join
from ouroboros.dataplane import MAX_PACKET
from ouroboros.dataplane.ends import FlowEnd
from ouroboros.errors import (
    FlowAllocatedException,
    FlowAuthException,
    FlowCryptException,
    FlowDeallocWarning,
    FlowDownException,
    FlowException,
    FlowNameException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
    FlowQosException,
    FlowRefusedException,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
)
from ouroboros.qos import BILLION, MILLION, QoSSpec
from ouroboros.runtime.client import FlowGrant
from ouroboros.security import FlowSecurity

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Seconds that `flow_alloc` and `flow_join` wait when no `timeo` is given.
DEFAULT_TIMEOUT = 20.0


class FlowProperties(IntFlag):
    """Flags of a flow, for `Flow.set_flags`. A new flow has `ReadWrite | NoPartialWrite`.

    Setting flags replaces all of them: without `ReadWrite` (or `WriteOnly`) the flow becomes read-only.
    """

    ReadOnly = 0o0
    WriteOnly = 0o1
    ReadWrite = 0o2
    Down = 0o4
    NonBlockingRead = 0o1000
    NonBlockingWrite = 0o2000
    NonBlocking = NonBlockingRead | NonBlockingWrite
    NoPartialRead = 0o10000
    NoPartialWrite = 0o20000


#: FRCT flags of a flow, for `Flow.set_frct_flags`: what is lost is sent again. Fixed by the QoS of the flow.
FRCT_RETRANSMIT = 0o1
#: ... a writer obeys the window that the peer gives it.
FRCT_RESCNTL = 0o2
#: ... dealloc sees to it that what was written arrives.
FRCT_LINGER = 0o4

_FRCT_FLAGS = FRCT_RETRANSMIT | FRCT_RESCNTL | FRCT_LINGER

# Flows that this process has, so that their peers are told when it ends.
_flows: weakref.WeakSet[Flow] = weakref.WeakSet()

# Methods that a Flow takes over from the engine while it holds a flow: a call of `f.read()` is then one call of compiled
# code, where a Python method around it would double its cost.
_FAST = {"read": "read", "readline": "read_text", "write": "write", "readinto": "read_into"}


class Watcher(Protocol):
    """Who wants to know when a Flow gets or loses its flow."""

    def flow_allocated(self, flow: Flow) -> None: ...

    def flow_deallocated(self, flow: Flow) -> None: ...


class Flow:
    """A conversation with a named peer, or with all members of a broadcast layer. A context manager.

    A new object holds no flow; `alloc`, `accept` and `join` get one, `dealloc` gives it back, after which the object can
    hold another. All methods can be called from any thread. In the child of a fork a flow of the parent refuses to work.
    """

    def __init__(self) -> None:
        self._endpoint: FlowEnd | None = None
        self._qos = QoSSpec()
        self._security: FlowSecurity | None = None
        self._max_packet = MAX_PACKET
        self._frct_flags = 0
        self._flow_id = 0
        self._side = 0
        self._node = 0
        self._pid = 0
        #: The set that this flow is in (`ouroboros.event`).
        self._watcher: weakref.ref[Watcher] | None = None
        #: Wake tasks that wait for this flow (`ouroboros.aio`).
        self._sleepers: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dealloc()

    def __del__(self) -> None:
        if getattr(self, "_endpoint", None) is not None and self._pid == os.getpid():
            warnings.warn(f"{self!r} was never deallocated", FlowDeallocWarning, stacklevel=2, source=self)
            self.dealloc()

    def __repr__(self) -> str:
        state = "not allocated" if self._endpoint is None else f"flow {self._flow_id}, side {self._side}"
        return f"<ouroboros.dev.Flow: {state}>"

    # --- getting and releasing a flow

    def alloc(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Allocate a flow to a name and return its QoS.

        `timeo`: seconds to wait for somebody to accept; None for 20 s, 0 to take only one that waits already.

        Raises `FlowNameException` when nobody offers the name, `FlowTimeoutException` when nobody accepts in time,
        `FlowRefusedException` when the flow is refused (`FlowCryptException`: no encryption that both sides want, and
        `FlowAuthException`: a side did not prove who it is), `FlowAllocatedException` when this object holds a flow already,
        `NodeError` when there is no node or it goes away. Interrupting the call (Ctrl-C) withdraws the request.
        """
        return self._request(alloc_request(dst, qos, timeo))

    def accept(self, timeo: float | None = None, *, name: str | None = None) -> QoSSpec:
        """Wait for a flow to a name that this program is bound to, and return its QoS.

        `timeo`: seconds; None waits without limit. `name`: bind this process to the name first. On the embedded node a
        program that nobody bound accepts under its own name (`oecho.py`: `oecho`).

        Raises `FlowTimeoutException`, `FlowAllocatedException`, `FlowNameException` for a name that cannot be one,
        `FlowPermissionException` for one that is not this user's to take, or `NodeError`.
        """
        return self._request(accept_request(timeo, name))

    def join(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Join the broadcast layer of that name, and return the QoS of the flow.

        What is written goes to all other members; a member that reads too slowly loses packets and slows nobody down.

        Raises `FlowNameException` when there is no such layer here, `FlowQosException` for a QoS that a broadcast layer
        cannot give, `FlowAllocatedException` or `NodeError`.
        """
        return self._request(join_request(dst, qos, timeo))

    def dealloc(self) -> None:
        """Give the flow back. The peer reads what is queued and is then told; calls of other threads that wait on this
        flow return at once. Does nothing when no flow is held. Never blocks on the peer."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        for name in _FAST:
            self.__dict__.pop(name, None)
        _flows.discard(self)
        if (watcher := self._get_watcher()) is not None:
            watcher.flow_deallocated(self)
        endpoint.close()
        if self._pid == os.getpid():
            backend.release(self._flow_id, self._side, self._node)

    # --- packets

    def read(self, count: int | None = None) -> bytes:
        """Return the next packet, or up to `count` bytes of it; the rest stays for the next read.

        A read of exactly the packet's length is followed by one that returns `b""`, which marks the packet's end; reads
        without a count, and flows with `NoPartialRead`, have no such mark. Waits up to the receive timeout.

        Raises `FlowTimeoutException`, `FlowWouldBlockException` (non-blocking and nothing there), `FlowDownException`
        (nothing queued, and the peer deallocated; `FlowPeerException`: it died), `FlowSizeException` (`NoPartialRead`, and
        the packet is longer than `count`; it stays), `FlowPermissionException` (write-only), `FlowNotAllocatedException`.
        """
        return self._held().read(count)

    def readline(self, count: int | None = None) -> str:
        """Return the next packet as text (UTF-8), or up to `count` characters of it. Otherwise like `read`.

        A packet is a line: newlines are neither looked for nor removed. Raises `UnicodeDecodeError` when the packet is no
        UTF-8; it can still be had with `read`.
        """
        return self._held().read_text(count)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read up to `len(buffer)` bytes of the next packet into a writable buffer and return how many. Like `read`."""
        return self._held().read_into(buffer)

    def read_many(self, limit: int = 64) -> list[bytes]:
        """Wait for a packet as `read` does, then return it with those that are there already, at most `limit` packets."""
        return self._held().read_many(limit)

    def write(self, buf: ReadableBuffer, count: int | None = None) -> int:
        """Write the buffer, or its first `count` bytes, as one packet; return the number of bytes.

        Any contiguous buffer will do; it is free for reuse when the call returns. A full queue makes the call wait, up to
        the send timeout. Nothing is ever sent in part or dropped. An empty buffer sends nothing.

        Raises `FlowTimeoutException`, `FlowWouldBlockException` (non-blocking and no room), `FlowDownException`,
        `FlowSizeException` (more than `max_packet` bytes), `FlowPermissionException` (read-only, or the peer is
        write-only), `FlowNotAllocatedException`.
        """
        return self._held().write(buf, count)

    def writeline(self, str: str, count: int | None = None) -> int:
        """Write text, or its first `count` characters, as one packet of UTF-8; return the number of characters.

        No newline is added. Raises as `write` does, and `UnicodeEncodeError` for text that has no UTF-8.
        """
        text = clip(str, count)
        self.write(text.encode())
        return len(text)

    def write_many(self, packets: Sequence[ReadableBuffer]) -> int:
        """Write each buffer as a packet; return how many were written.

        That is fewer than given only when the flow went down, the time was over or a packet was too long after some
        were written: call again with the others to get the exception.
        """
        return self._held().write_many(packets)

    def fileno(self) -> int:
        """A descriptor for `select`, `poll` and `epoll`, readable while there may be a packet to read or the flow is down.

        Only for waiting: reading from it or writing to it breaks the flow. It belongs to the flow and closes with it.
        """
        return self._held().fileno()

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file whose content is that of the packets, one after the other: a stream, without their boundaries.

        The arguments are those of `socket.socket.makefile`: `mode` is `"r"`, `"w"` or `"rw"`, with `"b"` for bytes; text
        is UTF-8 unless told otherwise. What is written is buffered, so call `flush()`; it becomes packets of any
        size up to `max_packet`. Closing the file leaves the flow as it is. Timeouts and flags of the flow apply.

        The file ends when the peer deallocates the flow. Its death raises `FlowPeerException`, as `read` does.
        """
        self._held()
        return open_flow(self, mode, buffering, encoding, errors, newline)

    # --- settings

    def set_snd_timeout(self, timeo: float | None) -> None:
        """Set the time limit of a blocking write, seconds; None for no limit, 0 to fail at once."""
        self._held().send_timeout = _check_timeout(timeo, None)

    def get_snd_timeout(self) -> float | None:
        """The time limit of a blocking write, seconds, or None."""
        return self._held().send_timeout

    def set_rcv_timeout(self, timeo: float | None) -> None:
        """Set the time limit of a blocking read, seconds; None for no limit, 0 to fail at once."""
        self._held().receive_timeout = _check_timeout(timeo, None)

    def get_rcv_timeout(self) -> float | None:
        """The time limit of a blocking read, seconds, or None."""
        return self._held().receive_timeout

    def get_qos(self) -> QoSSpec:
        """The QoS of this flow: what the allocating side asked for; `cypher_s` is the strength of its encryption, bits."""
        self._held()
        return self._qos

    def get_rx_queue_len(self) -> int:
        """Packets that arrived and were not read."""
        return self._held().receive_queue

    def get_tx_queue_len(self) -> int:
        """Packets that were written and that the peer has not read yet."""
        return self._held().transmit_queue

    def set_flags(self, flags: FlowProperties) -> None:
        """Replace the flags of this flow.

        `WriteOnly` also refuses the peer's packets; `Down` takes the flow down for both sides until flags without it are
        set. Raises `ValueError` for both access bits at once.
        """
        self._held().flags = int(flags)
        for wake in tuple(self._sleepers):
            wake()

    def get_flags(self) -> FlowProperties:
        """The flags of this flow."""
        return FlowProperties(self._held().flags)

    def get_frct_flags(self) -> int:
        """The FRCT flags of this end: `FRCT_RESCNTL` for a flow in order, all three for a reliable one, until set.

        Raises `FlowPermissionException` for a flow without FRCT, which is neither in order nor reliable by its QoS.
        """
        self._held()
        if not self._qos.ordered:
            raise FlowPermissionException("this flow has no FRCT: its QoS asks for neither order nor reliability")
        return self._frct_flags

    def set_frct_flags(self, flags: int) -> None:
        """Replace the FRCT flags of this end; `FRCT_RETRANSMIT` stays as the QoS of the flow has it.

        Between programs of one node they change nothing: such a flow is reliable, obeys the room in the queue of the
        peer and delivers what was written before dealloc, whatever its flags. Raises `ValueError` for other bits, and
        `FlowPermissionException` as `get_frct_flags`.
        """
        fixed = self.get_frct_flags() & FRCT_RETRANSMIT
        if flags & ~_FRCT_FLAGS:
            raise ValueError(f"FRCT flags: {flags:#o} has bits other than RETRANSMIT, RESCNTL and LINGER")
        self._frct_flags = flags & ~FRCT_RETRANSMIT | fixed

    @property
    def max_packet(self) -> int:
        """The longest packet that this flow takes, bytes: `MAX_PACKET`, less for encryption, and less over some networks."""
        self._held()
        return self._max_packet

    @property
    def security(self) -> FlowSecurity | None:
        """How this flow is encrypted, and who its peer is; None for a flow in clear."""
        self._held()
        return self._security

    @property
    def flow_id(self) -> int:
        """The node's number of this flow, as `irm flow list` shows it."""
        self._held()
        return self._flow_id

    # --- helpers

    def _held(self) -> FlowEnd:
        if self._endpoint is None:
            raise FlowNotAllocatedException("this Flow holds no flow: use alloc(), accept() or join() first")
        return self._endpoint

    def _request(self, request: Alloc | Accept | Join) -> QoSSpec:
        self._check_free()
        return self._take(backend.request_flow(request, request.timeout))

    def _check_free(self) -> None:
        if self._endpoint is not None:
            raise FlowAllocatedException("this Flow holds a flow already: dealloc() it first, or use a new Flow")

    def _take(self, grant: FlowGrant) -> QoSSpec:
        """Hold the flow that was granted."""
        granted, endpoint, self._node = grant
        self._endpoint = endpoint
        self._qos, self._flow_id, self._side, self._pid = granted.qos, granted.flow_id, granted.side, os.getpid()
        self._security, self._max_packet = granted.security, granted.max_packet
        self._frct_flags = _first_frct_flags(granted.qos)
        _flows.add(self)
        for public, native in _FAST.items():
            # Not over the method of a subclass.
            if getattr(type(self), public) is getattr(Flow, public):
                self.__dict__[public] = getattr(endpoint, native)
        if (watcher := self._get_watcher()) is not None:
            watcher.flow_allocated(self)
        return granted.qos

    def _get_watcher(self) -> Watcher | None:
        return self._watcher() if self._watcher is not None else None


def flow_alloc(dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> Flow:
    """Allocate a flow to the name `dst`. See `Flow.alloc`."""
    flow = Flow()
    flow.alloc(dst, qos, timeo)
    return flow


def flow_accept(timeo: float | None = None, *, name: str | None = None) -> Flow:
    """Wait for a flow to a name of this program; with `name`, bind to it first. See `Flow.accept`."""
    flow = Flow()
    flow.accept(timeo, name=name)
    return flow


def flow_join(dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> Flow:
    """Join the broadcast layer `dst`. See `Flow.join`."""
    flow = Flow()
    flow.join(dst, qos, timeo)
    return flow


# --- requests and checks, shared with `ouroboros.aio`


def alloc_request(dst: str, qos: QoSSpec | None, timeo: float | None) -> Alloc:
    return Alloc(check_name(dst), _check_qos(qos), _check_timeout(timeo, DEFAULT_TIMEOUT))


def accept_request(timeo: float | None, name: str | None) -> Accept:
    return Accept(None if name is None else check_name(name), _check_timeout(timeo, None))


def join_request(dst: str, qos: QoSSpec | None, timeo: float | None) -> Join:
    return Join(check_name(dst), _check_qos(qos), _check_timeout(timeo, DEFAULT_TIMEOUT))


def clip(text: str, count: int | None) -> str:
    """The first `count` characters."""
    if count is None:
        return text
    if count < 0:
        raise ValueError("count must not be negative")
    return text[:count]


def check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FlowNameException(f"the name {name!r} is not valid UTF-8: {error.reason}") from error
    return name


def _first_frct_flags(qos: QoSSpec) -> int:
    if qos.reliable:
        return _FRCT_FLAGS
    return FRCT_RESCNTL if qos.ordered else 0


def _check_qos(qos: QoSSpec | None) -> QoSSpec:
    if qos is None:
        return QoSSpec()
    if not isinstance(qos, QoSSpec):
        raise TypeError(f"qos is a QoSSpec, not {qos!r}")
    return qos


def _check_timeout(timeout: float | None, default: float | None) -> float | None:
    if timeout is None:
        return default
    if not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise TypeError(f"a timeout is a number of seconds or None, not {timeout!r}")
    # What ends after the sun does is no limit.
    return None if timeout > 1e9 else max(0.0, float(timeout))


def _say_goodbye() -> None:
    """At the end of the program: peers are told, which they could not be if the process just vanished."""
    for flow in list(_flows):
        with contextlib.suppress(FlowException):
            flow.dealloc()


def _disown() -> None:
    """In the child of a fork: flows stay the parent's, whose death must not be hidden by a copy of their sockets."""
    for flow in list(_flows):
        if flow._endpoint is not None:
            flow._endpoint.disown()


atexit.register(_say_goodbye)
os.register_at_fork(after_in_child=_disown)

__all__ = [
    "BILLION",
    "FRCT_LINGER",
    "FRCT_RESCNTL",
    "FRCT_RETRANSMIT",
    "MAX_PACKET",
    "MILLION",
    "Flow",
    "FlowAllocatedException",
    "FlowAuthException",
    "FlowCryptException",
    "FlowDeallocWarning",
    "FlowDownException",
    "FlowException",
    "FlowNameException",
    "FlowNotAllocatedException",
    "FlowPeerException",
    "FlowPermissionException",
    "FlowProperties",
    "FlowQosException",
    "FlowRefusedException",
    "FlowSecurity",
    "FlowSizeException",
    "FlowTimeoutException",
    "FlowWouldBlockException",
    "QoSSpec",
    "flow_accept",
    "flow_alloc",
    "flow_join",
]
