"""Servers in the style of `socketserver`: a class for what is done with each flow, and a loop that accepts them.

>>> from ouroboros.server import *                             # doctest: +SKIP
>>> class Echo(FlowRequestHandler):                            # doctest: +SKIP
...     def handle(self):
...         self.flow.write(self.flow.read())
>>> with ThreadingFlowServer("oecho", Echo) as server:         # doctest: +SKIP
...     server.serve_forever()

For asyncio and trio there is `ouroboros.aio.serve`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import sys
import threading
import time
import weakref
from types import TracebackType
from typing import Self

from ouroboros import backend
from ouroboros._arguments import shown
from ouroboros._owned import Uncopied
from ouroboros._requests import accept_request, check_name
from ouroboros._values import time_limit
from ouroboros.dev import Flow
from ouroboros.errors import FlowException, FlowNameException, IrmError
from ouroboros.runtime.client import FlowGrant
from ouroboros.runtime.descriptors import Eventfd
from ouroboros.wire.control import BindProcess, UnbindProcess

log = logging.getLogger("ouroboros.server")
log.addHandler(logging.NullHandler())


class FlowRequestHandler:
    """The handler of a server for one flow. Override `handle`, and `setup` and `finish` if need be.

    `self.flow` is the flow, `self.flow.name` the name that it is for, `self.server` the server. The server makes an object
    for each flow, which is deallocated when `finish` is through.
    """

    def __init__(self, flow: Flow, server: FlowServer) -> None:
        self.flow = flow
        self.server = server
        self.setup()
        try:
            self.handle()
        finally:
            self.finish()

    def setup(self) -> None:
        """Called before `handle`."""

    def handle(self) -> None:
        """Converse with the peer."""

    def finish(self) -> None:
        """Called after `handle`, also when that failed, but not when `setup` did."""


class FlowServer(Uncopied):
    """Accepts flows to `name`, one after the other, and has a `RequestHandlerClass` handle each. A context manager.

    The name is bound to this process when the object is made, and unbound by `server_close` of its last server for that
    name, `ouroboros.aio.serve` among them. Clients wait while a handler runs: `ThreadingFlowServer` lets them not.
    """

    #: Seconds that `handle_request` waits for a flow; None waits without limit.
    timeout: float | None = None

    #: None before `__init__`, which a subclass may forget to call.
    _closed: bool | None = None
    _stop: Eventfd | None
    _stopping: bool
    _idle: threading.Event

    def __init__(self, name: str, RequestHandlerClass: type[FlowRequestHandler]) -> None:
        self.name = check_name(name)
        if not callable(RequestHandlerClass):
            raise TypeError(
                f"RequestHandlerClass is a subclass of FlowRequestHandler, not {shown(RequestHandlerClass)}"
            )
        self.RequestHandlerClass = RequestHandlerClass
        self._be_idle()
        backend.request(BindProcess(os.getpid(), self.name))
        self._closed = False
        _open.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server_close()

    def serve_forever(self) -> None:
        """Accept and handle flows until `shutdown` or `server_close`.

        Raises as `flow_accept` does, `FlowNameException` among them when somebody else destroys or unbinds the name.
        """
        self._check_open()
        self._idle.clear()
        try:
            while not self._stopping and (flow := self._accept(None)) is not None:
                self._process(flow)
        finally:
            if self._stop is not None:
                self._stop.hush()
            self._stopping = False
            self._idle.set()

    def handle_request(self) -> None:
        """Accept and handle one flow; with a `timeout` that runs out, call `handle_timeout` instead."""
        flow = self._accept(time_limit(self.timeout))
        if flow is None:
            self.handle_timeout()
        else:
            self._process(flow)

    def shutdown(self) -> None:
        """Have `serve_forever` end, and wait until it has. To be called from another thread than that one.

        One that was not running yet ends as soon as it begins.
        """
        self._check_made()
        self._stopping = True
        if (stop := self._stop) is not None:
            stop.ring()
        self._idle.wait()

    def server_close(self) -> None:
        """Unbind the name. Can be repeated. Waits for a node that does not answer for a moment only."""
        if self._closed is not False:
            return
        self._closed = True
        # A waiter is called back, and has a reference.
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.ring()
        _open.discard(self)
        if any(other.name == self.name for other in list(_open)):
            return
        # The name may be gone already, and the node too.
        with contextlib.suppress(IrmError):
            backend.tell(UnbindProcess(os.getpid(), self.name))

    # --- to override

    def verify_request(self, flow: Flow) -> bool:
        """Whether to handle this flow; it is deallocated if not. True unless overridden."""
        return True

    def process_request(self, flow: Flow) -> None:
        """Handle the flow and deallocate it. `ThreadingFlowServer` does so in a thread."""
        self.finish_request(flow)

    def finish_request(self, flow: Flow) -> None:
        """Have a handler handle the flow, and deallocate it. Errors of the handler go to `handle_error`."""
        try:
            with flow:
                self.RequestHandlerClass(flow, self)
        except Exception:  # noqa: BLE001 - the server goes on whatever a handler does
            self.handle_error(flow)

    def handle_error(self, flow: Flow) -> None:
        """Called in the `except` block of a handler that failed. Logs to `ouroboros.server`: a flow that ended at level
        INFO, anything else with its traceback at level ERROR."""
        error = sys.exc_info()[1]
        if isinstance(error, FlowException):
            log.info("%s: a flow ended: %s", self.name, str(error))
        else:
            log.error("%s: the handler of a flow failed", self.name, exc_info=error)

    def handle_timeout(self) -> None:
        """Called by `handle_request` when no flow came in time. Does nothing unless overridden."""

    # --- helpers

    def _be_idle(self) -> None:
        """No loop runs, and none is told to stop."""
        self._stop = None if self._closed else Eventfd()
        self._stopping = False
        self._idle = threading.Event()
        self._idle.set()

    def _check_made(self) -> None:
        if self._closed is None:
            raise ValueError(
                f"this {type(self).__name__} has no name: its __init__ has to call "
                "super().__init__(name, RequestHandlerClass)"
            )

    def _check_open(self) -> None:
        self._check_made()
        if self._closed:
            raise ValueError("this server is closed: make a new FlowServer")

    def _process(self, flow: Flow) -> None:
        try:
            accepted = self.verify_request(flow)
        except Exception:  # noqa: BLE001 - as that of a handler
            self.handle_error(flow)
            accepted = False
        if accepted:
            self.process_request(flow)
        else:
            flow.dealloc()

    def _accept(self, timeout: float | None) -> Flow | None:
        """The next flow; None when the time is over, or the server is told to stop."""
        self._check_open()
        call = backend.begin(accept_request(None, self.name))
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            grant = self._wait_for(call, deadline)
        except FlowNameException:
            if self._closed:
                # That has unbound the name.
                return None
            raise
        if grant is None:
            return None
        flow = Flow()
        flow._take(grant)
        return flow

    def _wait_for(self, call: backend.Call[FlowGrant], deadline: float) -> FlowGrant | None:
        try:
            while (grant := call.poll()) is None:
                if not self._wait(call.waits_for(), deadline):
                    call.withdraw()
                    return None
        except BaseException:
            call.withdraw()
            raise
        return grant

    def _wait(self, what: backend.Wait, deadline: float) -> bool:
        """Whether there may be an answer; False when it is time to stop."""
        stop = self._stop
        if stop is None:
            return False
        if what.work is not None:
            what.work()
            return True
        poller = select.poll()
        poller.register(stop, select.POLLIN)
        if what.descriptor is not None:
            poller.register(what.descriptor, select.POLLIN)
        left = min(max(0.0, deadline - time.monotonic()), math.inf if what.seconds is None else what.seconds)
        ready = [descriptor for descriptor, _ in poller.poll(None if left == math.inf else math.ceil(1000 * left))]
        return stop.fileno() not in ready and (bool(ready) or time.monotonic() < deadline)


class Service:
    """The server of a name, but no `FlowServer`. In its `with` block no server of that name that is closed unbinds it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        _open.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        _open.discard(self)


# Those of this process that are not closed.
_open: weakref.WeakSet[FlowServer | Service] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child: names are bound to the parent, and loops run there. Their channel for stopping must not be shared."""
    for each in list(_open):
        if isinstance(each, FlowServer):
            each._be_idle()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)


class ThreadingFlowServer(FlowServer):
    """A `FlowServer` that handles each flow in a thread of its own."""

    #: Whether handlers that still run do not keep the program from ending.
    daemon_threads = False
    #: Whether `server_close` waits for the handlers; those of daemon threads are not waited for.
    block_on_close = True

    _threads: set[threading.Thread]

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        server = super().__new__(cls)
        server._threads = set()
        return server

    def process_request(self, flow: Flow) -> None:
        """Handle the flow in a thread, and deallocate it."""
        title = f"{self.name}: flow {flow.flow_id}"
        thread = threading.Thread(target=self._run, args=(flow,), name=title, daemon=self.daemon_threads)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            flow.dealloc()
            raise

    def server_close(self) -> None:
        """Unbind the name and wait for the handlers."""
        super().server_close()
        if self.block_on_close:
            for thread in list(self._threads):
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()

    def _run(self, flow: Flow) -> None:
        try:
            self.finish_request(flow)
        finally:
            self._threads.discard(threading.current_thread())


__all__ = ["FlowRequestHandler", "FlowServer", "ThreadingFlowServer"]
