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
import os
import select
import sys
import threading
import time
import weakref
from types import TracebackType
from typing import Self

from ouroboros import backend
from ouroboros.control.messages import BindProcess, UnbindProcess
from ouroboros.dev import Flow, accept_request, check_name
from ouroboros.errors import FlowException, IrmError

log = logging.getLogger("ouroboros.server")
log.addHandler(logging.NullHandler())


class FlowRequestHandler:
    """What a server does with one flow. Override `handle`, and `setup` and `finish` if need be.

    `self.flow` is the flow, `self.server` the server. The server makes an object for each flow, which is deallocated when
    `finish` is through.
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


class FlowServer:
    """Accepts flows to `name`, one after the other, and has a `RequestHandlerClass` handle each. A context manager.

    The name is bound to this process when the object is made, and unbound by `server_close`. Clients wait while a
    handler runs: `ThreadingFlowServer` lets them not.
    """

    #: Seconds that `handle_request` waits for a flow; None waits without limit.
    timeout: float | None = None

    def __init__(self, name: str, RequestHandlerClass: type[FlowRequestHandler]) -> None:
        self.name = check_name(name)
        self.RequestHandlerClass = RequestHandlerClass
        self._closed = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._release = weakref.finalize(self, os.close, self._stop)
        self._stopping = False
        self._idle = threading.Event()
        self._idle.set()
        backend.request(BindProcess(os.getpid(), self.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server_close()

    def serve_forever(self) -> None:
        """Accept and handle flows until `shutdown`."""
        self._check_open()
        self._idle.clear()
        try:
            while not self._stopping and (flow := self._accept(None)) is not None:
                self._process(flow)
        finally:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._stop)
            if self._closed:
                self._release()
            self._stopping = False
            self._idle.set()

    def handle_request(self) -> None:
        """Accept and handle one flow; with a `timeout` that runs out, call `handle_timeout` instead."""
        flow = self._accept(self.timeout)
        if flow is None:
            self.handle_timeout()
        else:
            self._process(flow)

    def shutdown(self) -> None:
        """Have `serve_forever` end, and wait until it has. To be called from another thread than that one.

        One that was not running yet ends as soon as it begins.
        """
        self._stopping = True
        if self._release.alive:
            os.eventfd_write(self._stop, 1)
        self._idle.wait()

    def server_close(self) -> None:
        """Unbind the name. Can be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._idle.is_set():
            # Else another thread may be waiting on it.
            self._release()
        # The name may be gone already, and the node too.
        with contextlib.suppress(IrmError):
            backend.request(UnbindProcess(os.getpid(), self.name), start=False)

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

    def _check_open(self) -> None:
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
        call = backend.begin(accept_request(None, self.name), start=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        # Outside of the next loop, where only waiting is interrupted: an answer that is an error needs no withdrawal.
        while (grant := call.poll()) is None:
            try:
                ready = self._wait(call, deadline)
            except BaseException:
                call.withdraw()
                raise
            if not ready:
                call.withdraw()
                return None
        flow = Flow()
        flow._take(grant)
        return flow

    def _wait(self, call: backend.Call, deadline: float | None) -> bool:
        """Whether there may be an answer; False when it is time to stop."""
        poller = select.poll()
        poller.register(call, select.POLLIN)
        poller.register(self._stop, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = [descriptor for descriptor, _ in poller.poll(left)]
        return bool(ready) and self._stop not in ready


class ThreadingFlowServer(FlowServer):
    """A `FlowServer` that handles each flow in a thread of its own."""

    #: Whether handlers that still run do not keep the program from ending.
    daemon_threads = False
    #: Whether `server_close` waits for the handlers; those of daemon threads are not waited for.
    block_on_close = True

    def __init__(self, name: str, RequestHandlerClass: type[FlowRequestHandler]) -> None:
        super().__init__(name, RequestHandlerClass)
        self._threads: set[threading.Thread] = set()

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
