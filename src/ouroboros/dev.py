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
import errno
import functools
import operator
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from enum import IntFlag
from math import modf
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Optional, Protocol, Self

from ouroboros import backend
from ouroboros._arguments import shown
from ouroboros._file import open_flow
from ouroboros._owned import Uncopied
from ouroboros._requests import accept_request, alloc_request, join_request
from ouroboros._values import time_limit, whole_number
from ouroboros.dataplane import MAX_PACKET, BlockingFlow, ends, note_exit
from ouroboros.dataplane.ends import Ended
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
from ouroboros.qos import BILLION, DEFAULT_PEER_TIMEOUT, MILLION, QOS_RAW, UINT32_MAX, QoSSpec
from ouroboros.runtime.client import FlowGrant
from ouroboros.security import FlowSecurity
from ouroboros.wire.control import Accept, Alloc, Join

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class FlowProperties(IntFlag):
    """Flags of a flow, for `Flow.set_flags`. A new flow has `ReadWrite | NoPartialWrite`.

    Setting flags replaces all of them: without `ReadWrite` (or `WriteOnly`) the flow becomes read-only.
    """

    ReadOnly = ends.READ_ONLY
    WriteOnly = ends.WRITE_ONLY
    ReadWrite = ends.READ_WRITE
    Down = ends.DOWN
    NonBlockingRead = ends.NON_BLOCKING_READ
    NonBlockingWrite = ends.NON_BLOCKING_WRITE
    NonBlocking = NonBlockingRead | NonBlockingWrite
    NoPartialRead = ends.NO_PARTIAL_READ
    NoPartialWrite = ends.NO_PARTIAL_WRITE


#: FRCT flags of a flow, for `Flow.set_frct_flags`: what is lost is sent again. Fixed by the QoS of the flow.
FRCT_RETRANSMIT = 0o1
#: ... a writer obeys the window that the peer gives it.
FRCT_RESCNTL = 0o2
#: ... dealloc sees to it that what was written arrives.
FRCT_LINGER = 0o4

_FRCT_FLAGS = FRCT_RETRANSMIT | FRCT_RESCNTL | FRCT_LINGER

_ALL_FLAGS = int(functools.reduce(operator.or_, FlowProperties))

# Flows that this process has, so that their peers are told when it ends.
_flows: weakref.WeakSet[Flow] = weakref.WeakSet()


class Watcher(Protocol):
    """An observer that is told when a Flow gets or loses its flow."""

    def flow_allocated(self, flow: Flow) -> None: ...

    def flow_deallocated(self, flow: Flow) -> None: ...


class Flow(Uncopied, BlockingFlow):
    """A conversation with a named peer, or with all members of a broadcast layer. A context manager.

    A new object holds no flow; `alloc`, `accept` and `join` get one, `dealloc` gives it back, after which the object can
    hold another. All methods can be called from any thread. In the child of a fork a flow of the parent refuses to work.
    """

    _qos: QoSSpec
    _security: FlowSecurity | None
    _max_packet: int
    _frct_flags: int
    _flow_id: int
    _name: str
    _layer: str
    _side: int
    _node: int
    _pid: int
    #: The set that this flow is in (`ouroboros.event`).
    _watcher: weakref.ref[Watcher] | None
    #: Wake tasks that wait for this flow (`ouroboros.aio`).
    _sleepers: list[Callable[[], None]]

    # Here, because a subclass may forget to call `__init__`.
    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        flow = super().__new__(cls)
        flow._qos = QOS_RAW
        flow._security = None
        flow._max_packet = MAX_PACKET
        flow._frct_flags = flow._flow_id = flow._side = flow._node = flow._pid = 0
        flow._name = flow._layer = ""
        flow._watcher = None
        flow._sleepers = []
        return flow

    def __init__(self) -> None:
        """A flow object that holds no flow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dealloc()

    def __del__(self) -> None:
        if self._endpoint is not None and not self._endpoint.abandoned and self._pid == os.getpid():
            text = f"{self!r} was never deallocated"
            # First: a warning may be an exception.
            self.dealloc()
            warnings.warn(text, FlowDeallocWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "not allocated" if self._endpoint is None else f"flow {self._flow_id}, side {self._side}"
        return f"<ouroboros.dev.Flow: {state}>"

    # --- getting and releasing a flow

    def alloc(
        self,
        dst: str,
        qos: QoSSpec | None = None,
        timeo: float | None = None,
        *,
        wait: bool = False,
        layer: str | None = None,
    ) -> QoSSpec:
        """Allocate a flow to a name and return its QoS.

        `timeo`: seconds to wait for somebody to accept; None for 20 s, 0 to take only one that waits already, infinity for
        no limit. With `wait`, wait also while nobody serves the name, here or anywhere: for a server that is not started
        yet, or starts again. `docs/flows.md` has the rule in a table. `layer`: look for the name in that layer only; this
        node has to be in it. Without it, the layers of the node are asked one after the other (`docs/flows.md`).

        Raises `FlowNameException` when nobody offers the name, or nobody does any more (not with `wait`, except for what
        cannot be a name), when the node is not in `layer`, `FlowTimeoutException` when nobody accepts in time,
        `FlowRefusedException` when the flow is refused (`FlowCryptException`: no encryption that both sides want, and
        `FlowAuthException`: a side did not prove who it is), `FlowAllocatedException` when this object holds a flow already,
        `NodeError` when there is no node or it goes away, and `UnsupportedError` for a `layer` with the C prototype, which
        chooses the layer itself. Interrupting the call (Ctrl-C) withdraws the request.
        """
        return self._request(alloc_request(dst, qos, timeo, wait, layer))

    def accept(self, timeo: float | None = None, *, name: str | None = None) -> QoSSpec:
        """Wait for a flow to a name that this program is bound to, and return its QoS. `name` then tells which one.

        `timeo`: seconds; None waits without limit. `name`: bind this process to the name first, and take flows to that name
        alone; without it, flows to all names of this process. On the embedded node a program that nobody bound accepts
        under its own name (`oecho.py`: `oecho`).

        Raises `FlowTimeoutException`, `FlowAllocatedException`, `FlowNameException` for a name that cannot be one, or that
        is destroyed or unbound from this process while the call waits for it, `FlowPermissionException` for one that is
        not this user's to take, or `NodeError`. On the C prototype `UnsupportedError` for a second name (`docs/native.md`).
        """
        return self._request(accept_request(timeo, name))

    def join(self, dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> QoSSpec:
        """Join the broadcast layer of that name, and return the QoS of the flow.

        What is written goes to all other members; a member that reads too slowly loses packets and slows nobody down. A node
        that is not in the layer enrolls in it, if one of its layers leads to that name (`docs/broadcast.md`). `timeo`:
        seconds to wait for that; None for 20 s, 0 to join only what is here, infinity for no limit.

        Raises `FlowNameException` when there is no such layer, `FlowTimeoutException` when no member of it answers in time,
        `FlowRefusedException` when one refuses (`FlowAuthException`: a side did not prove who it is),
        `FlowPermissionException` when the node does not enroll for this user, `FlowQosException` for a QoS that a broadcast
        layer cannot give, `FlowAllocatedException` or `NodeError`. Interrupting the call (Ctrl-C) withdraws the request.
        """
        return self._request(join_request(dst, qos, timeo))

    def dealloc(self) -> None:
        """Give the flow back. The peer reads what is queued and is then told; calls of other threads that wait on this
        flow return at once. Does nothing when no flow is held. Never blocks on the peer."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        released = endpoint.abandoned
        self._leave_set()
        endpoint.close()
        if not released:
            self._release()

    def close(self) -> None:
        """As `dealloc`, by the name that files and sockets have for it, so that `contextlib.closing` takes a flow."""
        self.dealloc()

    # --- packets

    # The engine's own: a Python method around them would double their cost.
    read = BlockingFlow.read
    readline = BlockingFlow.readline
    readinto = BlockingFlow.readinto
    write = BlockingFlow.write

    def __iter__(self) -> Self:
        """The packets of the flow, until the peer deallocates it. Whatever else ends it is an error, not an end."""
        return self

    def __next__(self) -> bytes:
        try:
            return self.read()
        except FlowDownException:
            if self._held().ended != Ended.CLOSED:
                raise
        raise StopIteration

    def read_many(self, limit: int = 64) -> list[bytes]:
        """Wait for a packet as `read` does, then return it with those that are there already, at most `limit` packets."""
        try:
            return self._held().read_many(limit)
        except (TypeError, ValueError, OverflowError):
            _check_limit(limit)
            raise

    def writeline(self, str: str, count: int | None = None) -> int:
        """Write text, or its first `count` characters, as one packet of UTF-8; return the number of characters.

        No newline is added. Raises as `write` does, and `UnicodeEncodeError` for text that has no UTF-8.
        """
        text = clip(str, count)
        try:
            packet = text.encode()
        except AttributeError:
            raise not_a_line(text) from None
        self.write(packet)
        return len(text)

    def write_many(self, packets: Sequence[ReadableBuffer]) -> int:
        """Write each buffer as a packet; return how many were written.

        That is fewer than given only when the flow went down, the time was over or a packet was too long after some
        were written: call again with the others to get the exception.
        """
        try:
            return self._held().write_many(packets)
        except TypeError:
            _check_packets(packets)
            raise

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
        self._held().send_timeout = time_limit(timeo)

    def get_snd_timeout(self) -> float | None:
        """The time limit of a blocking write, seconds, or None."""
        return self._held().send_timeout

    def set_rcv_timeout(self, timeo: float | None) -> None:
        """Set the time limit of a blocking read, seconds; None for no limit, 0 to fail at once."""
        self._held().receive_timeout = time_limit(timeo)

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
        set. Raises `ValueError` for both access bits at once, and for bits that are none of `FlowProperties`.
        """
        self._held().flags = _check_flags(flags)
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
        if not isinstance(flags, int):
            raise TypeError(f"FRCT flags are FRCT_RESCNTL and FRCT_LINGER, one or both (|), or 0, not {shown(flags)}")
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
    def name(self) -> str:
        """The name that this flow was asked for, at both ends; of a joined flow, its broadcast layer."""
        self._held()
        return self._name

    @property
    def layer(self) -> str:
        """The name of the layer that carries this flow, at both ends. "" for a flow between programs of one node to a name
        that is in no layer, and with the C prototype, which does not tell."""
        self._held()
        return self._layer

    @property
    def flow_id(self) -> int:
        """The node's number of this flow, as `irm flow list` shows it."""
        self._held()
        return self._flow_id

    # --- helpers

    def _request(self, request: Alloc | Accept | Join) -> QoSSpec:
        self._check_free()
        return self._take(backend.request_flow(request))

    def _check_free(self) -> None:
        if self._endpoint is not None:
            raise FlowAllocatedException("this Flow holds a flow already: dealloc() it first, or use a new Flow")

    def _take(self, grant: FlowGrant) -> QoSSpec:
        """Hold the flow that was granted."""
        granted, endpoint, self._node = grant
        self._endpoint = endpoint
        self._qos, self._flow_id, self._side, self._pid = granted.qos, granted.flow_id, granted.side, os.getpid()
        self._name, self._layer = granted.name, granted.layer
        self._security, self._max_packet = granted.security, granted.max_packet
        self._frct_flags = _first_frct_flags(granted.qos)
        _flows.add(self)
        if (watcher := self._get_watcher()) is not None:
            watcher.flow_allocated(self)
        return granted.qos

    def _abandon(self) -> None:
        """As `dealloc`, for the peer and the node; threads of this program that use the flow are to notice nothing."""
        if self._endpoint is not None:
            self._leave_set()
            self._endpoint.abandon()
            self._release()

    def _leave_set(self) -> None:
        _flows.discard(self)
        if (watcher := self._get_watcher()) is not None:
            watcher.flow_deallocated(self)

    def _release(self) -> None:
        if self._pid == os.getpid():
            backend.release(self._flow_id, self._side, self._node)

    def _get_watcher(self) -> Watcher | None:
        return self._watcher() if self._watcher is not None else None


def flow_alloc(
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
    flow.alloc(dst, qos, timeo, wait=wait, layer=layer)
    return flow


def flow_accept(timeo: float | None = None, *, name: str | None = None) -> Flow:
    """Wait for a flow to a name of this program; with `name`, bind to it first and take no others. See `Flow.accept`."""
    flow = Flow()
    flow.accept(timeo, name=name)
    return flow


def flow_join(dst: str, qos: QoSSpec | None = None, timeo: float | None = None) -> Flow:
    """Join the broadcast layer `dst`. See `Flow.join`."""
    flow = Flow()
    flow.join(dst, qos, timeo)
    return flow


# --- checks, shared with `ouroboros.aio`


def clip(text: str, count: int | None) -> str:
    """The first `count` characters."""
    if count is None:
        return text
    try:
        count = whole_number(count)
    except TypeError:
        raise TypeError(f"count is a whole number of characters or None, not {shown(count)}") from None
    if count < 0:
        raise ValueError("count must not be negative")
    return text[:count]


def not_a_line(text: object) -> TypeError:
    return TypeError(f"a line is a str, not {shown(text)}: use write() for bytes")


def _first_frct_flags(qos: QoSSpec) -> int:
    if qos.reliable:
        return _FRCT_FLAGS
    return FRCT_RESCNTL if qos.ordered else 0


def _check_flags(flags: object) -> int:
    if not isinstance(flags, int):
        word = flags if isinstance(flags, str) and flags in FlowProperties.__members__ else "NonBlocking"
        raise TypeError(f"flags are those of FlowProperties, such as FlowProperties.{word}, not {shown(flags)}")
    if unknown := int(flags) & ~_ALL_FLAGS:
        known = ", ".join(FlowProperties.__members__)
        raise ValueError(f"flags: {unknown:#o} is none of FlowProperties ({known})")
    return int(flags)


def _check_limit(limit: object) -> None:
    """Why the engine did not take a limit, if it did not."""
    if not hasattr(type(limit), "__index__"):
        raise TypeError(f"limit is a whole number of packets, not {shown(limit)}") from None
    if operator.index(limit) < 1:  # type: ignore[arg-type]
        raise ValueError(f"limit must be at least 1 packet, not {limit}") from None


def _check_packets(packets: object) -> None:
    """Why the engine took no packets, unless it is one of them."""
    if not isinstance(packets, Sequence) or isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"packets is a list of buffers, not {shown(packets)}: use write() for a single one") from None


def _say_goodbye() -> None:
    """At the end of the program: peers are told, which they could not be if the process just vanished.

    Threads that nobody waits for may be in a call of a flow. They stay there: what it raised they could only print.
    """
    note_exit()
    for flow in list(_flows):
        with contextlib.suppress(FlowException):
            flow._abandon()


def _disown() -> None:
    """In the child of a fork: flows stay the parent's, whose death must not be hidden by a copy of their sockets."""
    for flow in list(_flows):
        if flow._endpoint is not None:
            flow._endpoint.disown()


atexit.register(_say_goodbye)
os.register_at_fork(after_in_child=_disown)

# A few helpers are among them, which a star import of the package 0.23 brings and programs may use.
__all__ = [
    "BILLION",
    "DEFAULT_PEER_TIMEOUT",
    "FRCT_LINGER",
    "FRCT_RESCNTL",
    "FRCT_RETRANSMIT",
    "MAX_PACKET",
    "MILLION",
    "UINT32_MAX",
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
    "IntFlag",
    "Optional",
    "QoSSpec",
    "errno",
    "flow_accept",
    "flow_alloc",
    "flow_join",
    "modf",
]
