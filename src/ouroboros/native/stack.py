"""This process over the C prototype: what `ouroboros.runtime.client` is over our node."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from ouroboros import backend_ids
from ouroboros.backend_ids import NATIVE as NODE
from ouroboros.errors import BindError, FlowNameException, NameError, UnsupportedError
from ouroboros.native import calls, library
from ouroboros.native.calls import Call
from ouroboros.native.flows import Flows
from ouroboros.native.library import Library
from ouroboros.native.management import Management
from ouroboros.runtime.client import FlowGrant, Wait
from ouroboros.wire.control import BindProcess, DestroyName, FlowRequest, ListNames, Request, UnbindProcess

#: Seconds that a program which ends waits for calls that are under way.
_FAREWELL = 1.0


class NativeCall:
    """A request for a flow that is under way. As `ouroboros.runtime.client.Call`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def waits_for(self) -> Wait:
        """The descriptor to wait for."""
        return Wait(self._call.fileno(), None)

    def poll(self) -> FlowGrant | None:
        """The flow, or None when there is no answer yet."""
        grant = self._call.poll()
        return None if grant is None else FlowGrant(grant[0], grant[1], NODE)

    def withdraw(self, patience: float = 0) -> None:
        """Give up. That never takes long."""
        self._call.withdraw()

    def leave(self) -> bool:
        """Give up; true, for there is nothing to wait for."""
        self._call.withdraw()
        return True


class Stack:
    """The flows and the management over one library."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.management = Management(library)
        self._flows = Flows(library, self._bind_to_accept)
        #: Names that this process was bound to, and the names among them for which it accepts by name.
        self._binding = threading.Lock()
        self._bound: set[str] = set()
        self._exact: set[str] = set()

    def request(self, request: Request) -> Any:  # noqa: ANN401
        """Answer a request of management. Raises the same as our node."""
        if isinstance(request, BindProcess) and request.pid == os.getpid():
            self.library.check_process()
            self._bind(request.name, exact=False)
            return None
        value = self.management.request(request)
        match request:
            case UnbindProcess(pid=pid, name=name) if pid == os.getpid():
                self._forget(name)
            case DestroyName(name=name):
                self._forget(name)
        return value

    def request_flow(self, request: FlowRequest) -> FlowGrant:
        """Get a flow, however long that takes."""
        granted, endpoint = self._flows.begin(request).wait()
        return FlowGrant(granted, endpoint, NODE)

    def begin(self, request: FlowRequest) -> NativeCall:
        """Ask for a flow, and do not wait for it."""
        return NativeCall(self._flows.begin(request))

    def stop(self) -> None:
        """The program ends."""
        if self.library.pid != os.getpid():
            # A child of a fork, where threads of the parent may have held the locks.
            return
        calls.withdraw_all(_FAREWELL)
        self._flows.stop()

    def _bind_to_accept(self, name: str) -> None:
        self._bind(name, exact=True)

    def _forget(self, name: str) -> None:
        self._bound.discard(name)
        self._exact.discard(name)

    def _bind(self, name: str, *, exact: bool) -> None:
        with self._binding:
            others = self._bound - {name}
            if others and (exact or self._exact):
                raise UnsupportedError(
                    f"this program is bound to {min(others)!r} already, and cannot tell flows to {name!r} from those: a"
                    " C Ouroboros does not say which name a flow is for; use a program for each name, or accept without one"
                )
            self._bind_process(name)
            self._bound.add(name)
            if exact:
                self._exact.add(name)

    def _bind_process(self, name: str) -> None:
        # Each time: the daemon may be another one by now.
        try:
            self.management.bind_process(os.getpid(), name)
        except NameError as error:
            raise FlowNameException(str(error)) from error
        except BindError:
            # So it answers for a name that this process is bound to already, which it does not list.
            if not any(entry.name == name for entry in self.management.request(ListNames())):
                raise


_stack: Stack | None = None
_lock = threading.Lock()


def stack() -> Stack:
    """The stack of this process; the first call loads the library. Raises `NodeError` when that cannot be."""
    global _stack
    with _lock:
        loaded = library.load()
        if _stack is None:
            _stack = Stack(loaded)
            # Runs before the handler of `ouroboros.dev`, which was registered earlier and gives flows back: they go at once.
            atexit.register(_stack.stop)
        return _stack


def in_use() -> bool:
    """Whether there is a stack in this process."""
    return _stack is not None


backend_ids.native_in_use = in_use

__all__ = ["NODE", "NativeCall", "Stack", "in_use", "stack"]
