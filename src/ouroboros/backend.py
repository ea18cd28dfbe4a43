"""Which stack carries the flows of this program: our node, or the C prototype that is installed (`docs/native.md`).

`OUROBOROS_BACKEND` says `node` or `native`. Unset, it is our node if one runs, else the prototype if its daemon runs, else
our node, which is started. Calls go where the choice points when they are made, but a program that came to use the
prototype stays with it unless told otherwise; a flow stays where it was made.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from ouroboros import __version__, backend_ids
from ouroboros.errors import NodeError, UnsupportedError
from ouroboros.runtime import client
from ouroboros.runtime.client import WITHDRAWAL, FlowGrant, Wait
from ouroboros.runtime.paths import check_socket, is_chosen, runtime_dir, socket_path
from ouroboros.wire.control import FlowRequest, NodeInfo, Request

if TYPE_CHECKING:
    from ouroboros.native.stack import Stack
    from ouroboros.runtime.figures import Figures

_Outcome = TypeVar("_Outcome", covariant=True)

_VARIABLE = "OUROBOROS_BACKEND"

#: A node that was killed is listed as one that runs.
count_killed: ContextVar[bool] = ContextVar("count_killed", default=False)


class Call(Protocol[_Outcome]):
    """A request that is under way, as `runtime.client.Call`."""

    def poll(self) -> _Outcome | None: ...

    def waits_for(self) -> Wait: ...

    def leave(self) -> bool: ...

    def withdraw(self, patience: float = WITHDRAWAL) -> None: ...


class Choice(NamedTuple):
    """`native`: the prototype. `reason`: why that one."""

    native: bool
    reason: str


#: Choices for which nothing has to be waited for. As a rule one of them is made, and each flow asks: no words for that.
_TOLD = {word: Choice(word == "native", f"{_VARIABLE} is {word}") for word in ("node", "native")}
_IN_USE = Choice(True, "this program uses it already")
_RUNS = Choice(False, "our node runs")


def _at_once() -> Choice | None:
    if is_chosen():
        return _TOLD["node"]
    word = os.environ.get(_VARIABLE)
    if word:
        if word not in _TOLD:
            raise NodeError(f"{_VARIABLE} must be node or native, not {word!r}")
        return _TOLD[word]
    if backend_ids.native_in_use():
        # A program does not hop from one to the other when the daemon is slow to answer.
        return _IN_USE
    return _RUNS if client.client.find() else None


def choose() -> Choice:
    """The stack for the next call. Raises `NodeError` when `OUROBOROS_BACKEND` is neither of its words."""
    choice = _at_once()
    if choice is _RUNS:
        return Choice(False, f"our node runs in {runtime_dir()}")
    if choice is not None:
        return choice
    why_not = _why_not_native()
    if why_not:
        return Choice(False, f"no node runs in {runtime_dir()}, and {why_not}")
    return Choice(True, f"no node of ours runs in {runtime_dir()}, and the daemon of the C Ouroboros does")


def is_our_node() -> bool:
    """Whether the choice is our node, as far as can be told without waiting. Raises as `choose`."""
    choice = _at_once()
    return choice is not None and not choice.native


def native() -> Stack | None:
    """The stack over the prototype, if that is the choice. Raises `NodeError` when it cannot be used."""
    if not (_at_once() or choose()).native:
        return None
    from ouroboros.native.stack import stack

    return stack()


def request(message: Request, *, start: bool = True) -> Any:  # noqa: ANN401
    """Send a request of management and return the value of its answer. As `runtime.client.Client.request`."""
    stack = native()
    return client.request(message, start=start) if stack is None else stack.request(message)


def figures() -> Figures | None:
    """What our node, or the last one that was killed here, says of itself in its files; asks nobody. None when there is
    nothing that this user may read. Raises `NodeError` when the files are not what they should be, and `UnsupportedError`
    with the prototype."""
    if _is_native():
        raise UnsupportedError("the C Ouroboros has no files of figures: its lists have what it tells")
    from ouroboros.runtime import figures

    directory = runtime_dir()
    check_socket(socket_path(directory))
    return figures.read(directory)


def _is_native() -> bool:
    """Whether calls go to the prototype, as far as can be told without asking."""
    word = "node" if is_chosen() else os.environ.get(_VARIABLE)
    return word == "native" or (not word and backend_ids.native_in_use())


def figures_to_list() -> Figures | None:
    """Those of the node that runs, for lists; None: it has to be asked. It knows better than files that are damaged, and it
    may not yet have heard of flows that this program has let go of."""
    if _is_native() or client.client.let_go != client.client.known:
        return None
    try:
        found = figures()
    except NodeError:
        # Whoever asks the node is told what is wrong, if that is in the way.
        return None
    if found is None or (found.running and not found.whole):
        return None
    return found if found.running or count_killed.get() else None


def ask(message: Request) -> client.ManagementCall | None:
    """As `request`, and do not wait for the answer. None with the prototype, where that cannot be."""
    return client.ask(message) if native() is None else None


def tell(message: Request) -> None:
    """As `request`, of a program that is done with something. As `runtime.client.Client.tell`."""
    stack = native()
    if stack is None:
        client.tell(message)
    else:
        stack.request(message)


def request_flow(message: FlowRequest) -> FlowGrant:
    """Ask for a flow and wait for it. As `runtime.client.Client.request_flow`."""
    stack = native()
    return client.request_flow(message) if stack is None else stack.request_flow(message)


def begin(message: FlowRequest) -> Call[FlowGrant]:
    """Ask for a flow, and do not wait for it. Takes a moment unless `is_our_node`."""
    stack = native()
    return client.begin(message) if stack is None else stack.begin(message)


def release(flow_id: int, side: int, node: int) -> None:
    """Tell the node that gave out an end of a flow that it is not used any more. The prototype knows by the end itself."""
    if node != backend_ids.NATIVE:
        client.release(flow_id, side, node)


class Info(NamedTuple):
    """Which stack there is. `backend`: node or native. `version`: of the node or the C library; empty if unknown."""

    backend: str
    version: str
    reason: str
    running: bool
    #: Runtime directory, or library.
    place: str
    #: Why the chosen stack cannot be used; empty if it can.
    problem: str = ""
    #: The process of a node that was killed there, whose last figures are kept; 0: there is none.
    killed: int = 0
    #: What users other than its owner have of our node: the fields of `irm.ShareInfo`.
    shares: tuple[dict[str, Any], ...] = ()


def info() -> Info:
    """Which stack the next call would use. Starts and loads nothing."""
    choice = choose()
    if choice.native:
        return _native_info(choice.reason)
    try:
        entry = client.request(NodeInfo(), start=False)
    except NodeError as error:
        starts = os.environ.get("OUROBOROS_AUTOSTART") != "0" and not client.client.find()
        problem = "" if starts else str(error)
        return Info("node", __version__, choice.reason, False, str(runtime_dir()), problem, _killed())
    shares = tuple(msgspec.to_builtins(share) for share in entry.shares)
    return Info("node", entry.version, choice.reason, True, entry.runtime_dir, shares=shares)


def _killed() -> int:
    try:
        found = figures()
    except NodeError:
        # Whoever wants to see the figures is told.
        return 0
    return 0 if found is None or found.running else found.pid


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


def _why_not_native() -> str:
    """Why the prototype cannot be used; empty if it can."""
    from ouroboros.native import find

    try:
        # In this order: without a daemon, which is the rule, nothing is looked for.
        find.daemon()
        if find.installed().ours:
            return "the library of C functions that is found leads to our node"
    except NodeError as error:
        return str(error)
    return ""


__all__ = [
    "WITHDRAWAL",
    "Call",
    "Choice",
    "FlowGrant",
    "Info",
    "Wait",
    "ask",
    "begin",
    "choose",
    "count_killed",
    "figures",
    "figures_to_list",
    "info",
    "is_our_node",
    "native",
    "release",
    "request",
    "request_flow",
    "tell",
]
