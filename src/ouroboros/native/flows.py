"""Getting flows from the library: allocate, accept, join, with the times and the errors of `ouroboros.dev`."""

from __future__ import annotations

import grp
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ouroboros.errors import (
    FlowAuthException,
    FlowCryptException,
    FlowException,
    FlowNameException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    NodeError,
    NodeLimitError,
    UnsupportedError,
)
from ouroboros.native import declarations as c
from ouroboros.native.calls import Call
from ouroboros.native.endpoint import Endpoint
from ouroboros.native.library import Library
from ouroboros.native.pump import Pulse, Pump, Undertaker
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Accept, Alloc, Capture, FlowRequest, Granted, Join

#: Seconds that the library waits for a flow to accept at a time. A withdrawn call goes on for as long.
_ACCEPT_SLICE = 0.2

#: The least time that the library is given. With none it gives up a flow that the other end has got already.
_LEAST = 0.1

#: Within these seconds the daemon says that no layer knows a name. When it answers later, it has waited for an acceptor.
_AT_ONCE = 0.5

#: Seconds between two tries when nobody accepts. While a name is waited for, the pauses double, up to the second number.
_PAUSE = 0.05
_LONGEST_PAUSE = 0.4

#: Bytes of the longest packet: for users of the large shared memory, for other users, and with our library.
_LONGEST, _LONGEST_OF_OTHERS, _LONGEST_OF_OURS = 1048260, 261828, 1 << 20


class Flows:
    """The flows of this process over one library."""

    def __init__(self, library: Library, bind: Callable[[str], None]) -> None:
        self._library = library
        self._bind = bind
        self._pump = Pump(library)
        self._undertaker = Undertaker()
        self._pulse = Pulse()
        self._lock = threading.Lock()
        others = os.geteuid() != 0 and not _is_member()
        self._longest = _LONGEST_OF_OURS if library.ours else _LONGEST_OF_OTHERS if others else _LONGEST
        #: How many calls wait for a flow, by the name they were given.
        self._accepting: dict[str | None, int] = {}

    def begin(self, request: FlowRequest) -> Call:
        """Start the request. Its call returns a `Granted` and an `Endpoint`."""
        self._library.check_process()
        self._check(request)
        if isinstance(request, Accept) and request.name is not None:
            # Before the call returns: from then on others can ask for flows to the name.
            self._bind(request.name)
        limit = None if request.timeout == math.inf else request.timeout
        return Call(lambda call: self._work(call, request), lambda grant: grant[1].close(), limit)

    def stop(self) -> None:
        """The program ends."""
        self._pulse.stop()
        self._pump.stop()
        self._undertaker.say_goodbye()

    # --- in the thread of a call

    def _work(self, call: Call, request: FlowRequest) -> tuple[Granted, Endpoint]:
        match request:
            case Alloc():
                return self._alloc(call, request)
            case Accept():
                return self._accept(call, request)
        assert isinstance(request, Join), request
        return self._join(call, request)

    def _alloc(self, call: Call, request: Alloc) -> tuple[Granted, Endpoint]:
        name, pause = _encode(request.name), _PAUSE
        while True:
            began = time.monotonic()
            qos = self._qos(request.qos)
            result = self._library.dev.flow_alloc(name, qos, self._limit(call.left()))
            if result >= 0:
                return self._grant(result, qos, request.name)
            left = call.left()
            self._check_again(request, result, time.monotonic() - began, left)
            if call.withdrawn or (left is not None and left <= _PAUSE):
                raise FlowTimeoutException(_too_late(request.name))
            threading.Event().wait(pause if left is None else min(pause, left))
            if request.wait:
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _check_again(self, request: Alloc, result: int, took: float, left: float | None) -> None:
        """Return if it helps to ask again, else raise the error."""
        match self._library.number(result):
            case c.EIPCP if took >= _AT_ONCE:
                # It has waited for a second, and gives up however much time there is.
                return
            case c.EIPCP | c.ENAME if request.wait:
                return
            case c.EIPCP:
                raise FlowNameException(
                    f"nobody offers {request.name!r}: no layer of the C Ouroboros here knows the name"
                )
            case c.ETIMEDOUT if left is None:
                # Without a limit it has one of its own.
                return
        raise self._error(result, f"allocate a flow to {request.name!r}", _too_late(request.name))

    def _accept(self, call: Call, request: Accept) -> tuple[Granted, Endpoint]:
        with self._lock:
            self._accepting[request.name] = self._accepting.get(request.name, 0) + 1
        try:
            return self._accept_one(call, request.name)
        finally:
            with self._lock:
                self._accepting[request.name] -= 1

    def _accept_one(self, call: Call, name: str | None) -> tuple[Granted, Endpoint]:
        while True:
            left = call.left()
            qos = self._qos(QoSSpec())
            limit = _ACCEPT_SLICE if left is None else max(_LEAST, min(_ACCEPT_SLICE, left))
            result = self._library.dev.flow_accept(qos, self._limit(limit))
            if result >= 0:
                return self._grant(result, qos, name or "")
            left = call.left()
            if self._library.number(result) != c.ETIMEDOUT or call.withdrawn or (left is not None and left <= 0):
                raise self._error(result, "accept a flow", "no flow came in time")

    def _join(self, call: Call, request: Join) -> tuple[Granted, Endpoint]:
        name, limit = _encode(request.layer), self._limit(call.left())
        if self._library.version < (0, 22):
            result = self._library.dev.flow_join(name, self._qos(request.qos), limit)
        else:
            result = self._library.dev.flow_join(name, limit)
        if result >= 0:
            return self._grant(result, self._qos(QoSSpec(timeout=0)), request.layer)
        if self._library.number(result) in (c.EIPCP, c.ENOTALLOC):
            raise FlowNameException(f"there is no broadcast layer {request.layer!r} on this host")
        raise self._error(result, f"join {request.layer!r}", f"the layer {request.layer!r} did not answer in time")

    # --- helpers

    def _check(self, request: FlowRequest) -> None:
        if isinstance(request, Accept):
            return
        if isinstance(request, Capture):
            raise UnsupportedError("the C Ouroboros has no way to capture packets of its layers")
        if isinstance(request, Join):
            if request.qos.ordered:
                raise FlowQosException("a broadcast layer cannot keep packets in order, nor deliver them all")
        elif not self._library.ours and self._accepts(request.name):
            # The library would use one ring for both directions, and the daemon would break.
            raise FlowRefusedException(
                f"this program accepts {request.name!r} itself: with the C Ouroboros a program has no flow to itself"
            )
        if isinstance(request, Alloc) and request.layer is not None:
            raise UnsupportedError(
                "the C Ouroboros chooses the layer of a flow itself, by where the name is registered: leave layer out"
            )
        if request.qos.cypher_s and self._library.version >= (0, 22):
            raise UnsupportedError(
                "the C Ouroboros is not asked for encryption by a flow: configure it for the name (enc.conf), and leave"
                " cypher_s out"
            )

    def _accepts(self, name: str) -> bool:
        with self._lock:
            return self._accepting.get(name, 0) > 0

    def _grant(self, fd: int, qos: Any, name: str) -> tuple[Granted, Endpoint]:  # noqa: ANN401
        spec = _spec(qos)
        endpoint = Endpoint(self._library, fd, self._pump, self._undertaker, frct=bool(spec.in_order))
        if spec.timeout and not self._library.ours:
            self._pulse.add(endpoint, spec.timeout / 1000)
        return Granted(fd, spec, 0, self._longest, name=name), endpoint

    def _qos(self, spec: QoSSpec) -> Any:  # noqa: ANN401
        qos = self._library.ffi.new("qosspec_t *")
        for field in ("delay", "bandwidth", "availability", "loss", "ber", "max_gap", "timeout"):
            setattr(qos, field, getattr(spec, field))
        # There, retransmission needs both.
        qos.in_order = int(spec.ordered)
        if self._library.version < (0, 22):
            qos.cypher_s = spec.cypher_s
        return qos

    def _limit(self, seconds: float | None) -> Any:  # noqa: ANN401
        if seconds is None:
            return self._library.ffi.NULL
        seconds = max(_LEAST, seconds)
        return self._library.ffi.new("struct timespec *", (int(seconds), int(seconds % 1 * 1e9)))

    def _error(self, result: int, doing: str, too_late: str) -> FlowException:
        number = self._library.number(result)
        match number:
            case c.ETIMEDOUT:
                return FlowTimeoutException(too_late)
            case c.ENAME:
                return FlowNameException(
                    f"cannot {doing}: the daemon of the C Ouroboros does not know the name; for one of another host, create"
                    " it here as well (`irm name create`)"
                )
            case c.ECRYPT:
                return FlowCryptException(f"cannot {doing}: the two ends do not agree on encryption (enc.conf)")
            case c.EAUTH:
                return FlowAuthException(f"cannot {doing}: one end could not prove who it is")
            case c.EBADF | c.ENOMEM:
                return NodeLimitError(f"cannot {doing}: the C Ouroboros has no flow or memory left (error {result})")
            case c.EIRMD | c.EPERM | c.EINVAL:
                return NodeError(f"cannot {doing}: the daemon of the C Ouroboros does not answer (error {result})")
            case c.EIPCP:
                return FlowRefusedException(f"cannot {doing}: the layer failed (error {result})")
        return FlowRefusedException(f"cannot {doing}: refused with error {result}")


def _is_member() -> bool:
    """Whether this user is in the group that shares the large memory."""
    try:
        return grp.getgrnam("ouroboros").gr_gid in {os.getegid(), *os.getgroups()}
    except KeyError:
        return False


def _too_late(name: str) -> str:
    return f"nobody accepted {name!r} in time"


def _encode(name: str) -> bytes:
    encoded = name.encode()
    if not encoded or b"\0" in encoded or len(encoded) > 255:
        raise FlowNameException(f"a name has 1 to 255 bytes of UTF-8 and no NUL, not {name!r}")
    return encoded


def _spec(qos: Any) -> QoSSpec:  # noqa: ANN401
    """The QoS of the flow as the library gives it. It may differ from the QoS of the request."""
    return QoSSpec(
        qos.delay,
        qos.bandwidth,
        qos.availability,
        qos.loss,
        qos.ber,
        int(bool(qos.in_order)),
        qos.max_gap,
        cypher_s=getattr(qos, "cypher_s", 0),
        timeout=qos.timeout,
    )


__all__ = ["Flows"]
