"""Which stack carries the flows of this program: our node, or the C Ouroboros that is installed (`docs/native.md`).

`OUROBOROS_BACKEND` says `node` or `native`. Unset, it is our node if one runs, else the C Ouroboros if its daemon runs, else
our node, which is started. Calls go where the choice points when they are made, but a program that came to use the
C Ouroboros stays with it unless told otherwise; a flow stays where it was made.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ouroboros import __version__
from ouroboros.control.messages import Accept, Alloc, Join, NodeInfo, Request
from ouroboros.errors import NodeError
from ouroboros.runtime import client
from ouroboros.runtime.client import FlowGrant
from ouroboros.runtime.paths import runtime_dir

if TYPE_CHECKING:
    from ouroboros.native.stack import Stack

_VARIABLE = "OUROBOROS_BACKEND"


class Call(Protocol):
    """A request for a flow that is under way. `poll` it when `fileno` is readable."""

    def fileno(self) -> int: ...

    def poll(self) -> FlowGrant | None: ...

    def withdraw(self) -> None: ...


class Choice(NamedTuple):
    """`native`: the C Ouroboros. `reason`: why that one."""

    native: bool
    reason: str


def choose() -> Choice:
    """The stack for the next call. Raises `ValueError` when `OUROBOROS_BACKEND` is neither of its words."""
    match os.environ.get(_VARIABLE, ""):
        case "node":
            return Choice(False, f"{_VARIABLE} is node")
        case "native":
            return Choice(True, f"{_VARIABLE} is native")
        case "":
            pass
        case other:
            raise ValueError(f"{_VARIABLE} must be node or native, not {other!r}")
    if _in_use():
        # A program does not hop from one to the other when the daemon is slow to answer.
        return Choice(True, "this program uses it already")
    if client.client.find():
        return Choice(False, f"our node runs in {runtime_dir()}")
    why_not = _why_not_native()
    if why_not:
        return Choice(False, f"no node runs in {runtime_dir()}, and {why_not}")
    return Choice(True, f"no node of ours runs in {runtime_dir()}, and the daemon of the C Ouroboros does")


def native() -> Stack | None:
    """The stack over the C Ouroboros, if that is the choice. Raises `NodeError` when it cannot be used."""
    # As a rule it is our node, and each flow asks: no words for that.
    word = os.environ.get(_VARIABLE)
    if word == "node" or (not word and not _in_use() and client.client.find()):
        return None
    if not choose().native:
        return None
    from ouroboros.native.stack import stack

    return stack()


def request(message: Request, *, start: bool = True) -> Any:  # noqa: ANN401
    """Send a request of management and return the value of its answer. As `runtime.client.Client.request`."""
    stack = native()
    return client.request(message, start=start) if stack is None else stack.request(message)


def request_flow(message: Alloc | Accept | Join, wait: float | None) -> FlowGrant:
    """Ask for a flow and wait for it. As `runtime.client.Client.request_flow`."""
    stack = native()
    return client.request_flow(message, wait) if stack is None else stack.request_flow(message)


def begin(message: Alloc | Accept | Join, *, start: bool) -> Call:
    """Ask for a flow, and do not wait for it. As `runtime.client.Client.begin`."""
    stack = native()
    return client.begin(message, start=start) if stack is None else stack.begin(message)


def release(flow_id: int, side: int, node: int) -> None:
    """Tell the node that gave out an end of a flow that it is not used any more. The C Ouroboros knows by the end itself."""
    if node != _NATIVE:
        client.release(flow_id, side, node)


class Info(NamedTuple):
    """Which stack there is. `backend`: node or native. `version`: of the node or the C library; empty if unknown."""

    backend: str
    version: str
    reason: str
    running: bool
    #: Runtime directory, or library.
    place: str
    #: Why what was chosen cannot be used; empty if it can.
    problem: str = ""


def info() -> Info:
    """Which stack the next call would use. Starts and loads nothing."""
    choice = choose()
    if choice.native:
        return _native_info(choice.reason)
    try:
        entry = client.request(NodeInfo(), start=False)
    except NodeError as error:
        starts = os.environ.get("OUROBOROS_AUTOSTART") != "0"
        return Info("node", __version__, choice.reason, False, str(runtime_dir()), "" if starts else str(error))
    return Info("node", entry.version, choice.reason, True, entry.runtime_dir)


def _native_info(reason: str) -> Info:
    from ouroboros.native import find

    try:
        found = find.installed()
    except NodeError as error:
        return Info("native", "", reason, False, "", str(error))
    problem = ""
    if not found.ours:
        try:
            find.daemon()
        except NodeError as error:
            problem = str(error)
    return Info("native", found.release, reason, not problem, str(found.path), problem)


def _in_use() -> bool:
    """Whether the C Ouroboros was the choice before."""
    stack = sys.modules.get("ouroboros.native.stack")
    return stack is not None and stack.in_use()


def _why_not_native() -> str:
    """Why the C Ouroboros cannot be used; empty if it can."""
    from ouroboros.native import find

    try:
        # In this order: without a daemon, which is the rule, nothing is looked for.
        find.daemon()
        if find.installed().ours:
            return "the library of C functions that is found leads to our node"
    except NodeError as error:
        return str(error)
    return ""


#: `ouroboros.native.stack.NODE`, which is not imported before it is used.
_NATIVE = -1

__all__ = ["Call", "Choice", "Info", "begin", "choose", "info", "native", "release", "request", "request_flow"]
