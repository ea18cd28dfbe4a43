"""This process over the C Ouroboros: what `ouroboros.runtime.client` is over our node."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from ouroboros.control.messages import Accept, Alloc, BindProcess, Join, ListNames, Request
from ouroboros.errors import BindError, FlowNameException, NameError
from ouroboros.native import calls, library
from ouroboros.native.calls import Call
from ouroboros.native.flows import Flows
from ouroboros.native.library import Library
from ouroboros.native.management import Management
from ouroboros.runtime.client import FlowGrant

#: The node that a grant names; our nodes have other numbers.
NODE = -1

#: Seconds that a program which ends waits for calls that are under way.
_FAREWELL = 1.0


class NativeCall:
    """A request for a flow that is under way. As `ouroboros.runtime.client.Call`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def fileno(self) -> int:
        return self._call.fileno()

    def poll(self) -> FlowGrant | None:
        """The flow, or None when there is no answer yet."""
        grant = self._call.poll()
        return None if grant is None else FlowGrant(grant[0], grant[1], NODE)

    def withdraw(self) -> None:
        """Give up."""
        self._call.withdraw()


class Stack:
    """The flows and the management over one library."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.management = Management(library)
        self._flows = Flows(library, self._bind)

    def request(self, request: Request) -> Any:  # noqa: ANN401
        """Answer a request of management. Raises what the node would."""
        if isinstance(request, BindProcess) and request.pid == os.getpid():
            self.library.check_process()
            self._bind(request.name)
            return None
        return self.management.request(request)

    def request_flow(self, request: Alloc | Accept | Join) -> FlowGrant:
        """Get a flow, however long that takes."""
        granted, endpoint = self._flows.begin(request).wait()
        return FlowGrant(granted, endpoint, NODE)

    def begin(self, request: Alloc | Accept | Join) -> NativeCall:
        """Ask for a flow, and do not wait for it."""
        return NativeCall(self._flows.begin(request))

    def stop(self) -> None:
        """The program ends."""
        if self.library.pid != os.getpid():
            # A child of a fork, where threads of the parent may have held the locks.
            return
        calls.withdraw_all(_FAREWELL)
        self._flows.stop()

    def _bind(self, name: str) -> None:
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
            # Before that of `ouroboros.dev`, which was registered earlier: what that gives back is given back at once.
            atexit.register(_stack.stop)
        return _stack


def in_use() -> bool:
    """Whether there is a stack in this process."""
    return _stack is not None


__all__ = ["NODE", "NativeCall", "Stack", "in_use", "stack"]
