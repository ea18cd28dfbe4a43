"""The program's side of the control socket: connections to the node, one for each call that is under way.

A call that is interrupted or times out hangs up, which cancels its request in the node; otherwise its connection is kept
for the next call. There is no thread behind this.

A call is a machine that never waits itself: its caller waits, in `poll(2)` or in an event loop, as the call says. So a call
keeps its time limit whatever the node does, and can be interrupted everywhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ouroboros import errors
from ouroboros.dataplane import Endpoint
from ouroboros.dataplane.ends import FlowEnd
from ouroboros.errors import NodeError, NodeLimitError, ProtocolError
from ouroboros.runtime.connection import Connection, connect, why_no_answer
from ouroboros.runtime.instance import instance
from ouroboros.runtime.paths import is_chosen, owner_socket_path, place, runtime_dir, socket_path
from ouroboros.wire import control as messages
from ouroboros.wire.control import Answer, Dealloc, Done, Failed, Granted, Hello, Request

_T = TypeVar("_T")

#: Seconds without an answer after which a node counts as stuck. It answers all requests at once, but for those that wait for
#: another program.
_PATIENCE = 30.0

#: Seconds that the node gets for its answer when the time of the caller is over: as a rule to say just that.
_GRACE = 2.0

#: Seconds that a node may take to start.
_START = 30.0

#: Seconds that a start may take beyond the time limit of the call, when that is shorter. A start does not count in the time
#: of the call.
_START_GRACE = 8.0

#: Seconds that an interrupted call waits until the node has noticed.
WITHDRAWAL = 1.0

#: Seconds between two looks, where no descriptor tells: whether a node that starts is ready, and whether one that is behind
#: takes more.
_PAUSE = 0.02

#: Seconds. Longer waits are made of several.
_LONGEST_POLL = 86_400.0

_ENTRIES: dict[type[Request], Any] = {
    messages.ListNames: list[messages.NameEntry],
    messages.ListIpcps: list[messages.IpcpEntry],
    messages.ListFlows: list[messages.FlowEntry],
    messages.NodeInfo: messages.NodeEntry,
    messages.ProbeName: list[messages.HopEntry],
    messages.DiscoverLayers: list[messages.OfferEntry],
}


class FlowGrant(NamedTuple):
    """The result of an allocation: the answer of the node and the engine's end of the flow."""

    granted: Granted
    endpoint: FlowEnd
    #: Tells the node that gave it out from others.
    node: int


class Wait(NamedTuple):
    """The reason of a call to wait; after it, poll the call again."""

    #: To become readable; None when no descriptor tells.
    descriptor: int | None
    #: Seconds after which to poll in any case; None for never.
    seconds: float | None
    #: In place of waiting: something to be done, which takes long, in a thread if there is a loop to be kept going.
    work: Callable[[], None] | None = None


def program_name() -> str:
    """The name of this program: its script or executable, the last part of the module for `python -m`, the directory of a
    `__main__.py`, `python` for an interpreter.

    Under a profiler or a debugger it is the program that this one runs, which has taken its place in `sys.argv`.
    """
    path = sys.argv[0] if sys.argv else ""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name not in ("", "__main__"):
        # Some modules put a text for people there, such as "python -m unittest".
        itself = spec.origin in (None, path) or " -m " in path
        module = spec.name if itself else path
        if itself or not (os.sep in path or path.endswith(".py")):
            return str(module).removesuffix(".__main__").rpartition(".")[2]
    directory, name = os.path.split(os.path.normpath(path))
    if name == "__main__.py":
        name = os.path.basename(directory)
    return "python" if name in ("", ".", "-c", "-") else name


class Call(ABC, Generic[_T]):
    """A request that is under way: `poll` until there is an answer, and wait for `waits_for` between."""

    def __init__(self, client: Client, request: Request, limit: float | None, *, start: bool) -> None:
        """`limit`: seconds that the node may take for the request. `start`: a node is started when there is none."""
        self._client = client
        self._request = request
        self._limit = limit
        self._start = start
        self._begun = time.monotonic()
        self._connection: Connection | None = None
        #: Since when a node is being started, by this call or by others.
        self._absent: float | None = None
        self._started = False
        self._late = False
        self._work: Callable[[], None] | None = None

    @abstractmethod
    def _outcome(self, answer: Answer, descriptors: list[int], node: int) -> _T: ...

    def poll(self) -> _T | None:
        """The outcome, or None when there is none yet. Raises the exception that the node names, or `NodeError` when there
        is no node, it goes away or it does not answer in time."""
        connection = self._connection
        if connection is None:
            # What was sent just now is not answered yet.
            self._find_node()
        found = None if connection is None else self._receive(connection)
        if connection is None or found is None:
            self._check_time()
            return None
        self._connection = None
        answer, descriptors = found
        self._client.keep(connection)
        if isinstance(answer, Failed):
            raise _exception(answer)
        return self._outcome(answer, descriptors, connection.node)

    def waits_for(self) -> Wait:
        """The reason to wait."""
        end = self._end()
        left = math.inf if end is None else max(0.0, end - time.monotonic())
        if self._connection is None or self._connection.is_behind:
            return Wait(None, min(left, _PAUSE), self._work)
        return Wait(self._connection.fileno(), min(left, _LONGEST_POLL))

    def finish(self) -> _T:
        """Wait for the outcome. Interrupting the wait withdraws the request."""
        try:
            while (outcome := self.poll()) is None:
                _wait(self.waits_for())
        except BaseException:
            self.withdraw()
            raise
        return outcome

    def leave(self) -> bool:
        """Give up: the node forgets the request. True when it has, or has none; else to be called again when the descriptor
        of `waits_for` is readable."""
        if self._connection is None or self._connection.leave():
            self._connection = None
            return True
        return False

    def withdraw(self, patience: float = WITHDRAWAL) -> None:
        """Give up, and wait until the node has noticed, `patience` seconds at most."""
        end = time.monotonic() + patience
        while self._connection is not None and not self.leave():
            left = end - time.monotonic()
            if left <= 0:
                self._hang_up()
            else:
                _wait(Wait(self._connection.fileno(), left))

    # --- helpers

    def _receive(self, connection: Connection) -> tuple[Answer, list[int]] | None:
        try:
            connection.flush()
            return connection.receive()
        except (BrokenPipeError, ConnectionResetError) as error:
            self._hang_up()
            if not connection.welcomed:
                raise NodeError(f"the node in {runtime_dir()} does not let this program in: {error}") from error
            raise NodeError("the node went away while it worked on the request; try again") from error

    def _find_node(self) -> None:
        """Send the request to the node, as soon as there is one that takes it."""
        self._work = None
        try:
            self._connection = self._client.send(self._request if not self._late else self._in_time())
        except BlockingIOError:
            self._late = True
            return
        if self._connection is None:
            self._have_one_started()
        elif self._absent is not None:
            self._begun += time.monotonic() - self._absent
            self._absent = None

    def _have_one_started(self) -> None:
        from ouroboros.runtime import embedded

        directory = runtime_dir()
        may_start = self._start and not is_chosen() and os.environ.get("OUROBOROS_AUTOSTART") != "0"
        if not embedded.is_starting(directory, or_ending=may_start):
            if not may_start:
                self._hope(directory)
                return
            if self._started:
                raise NodeError(
                    f"the node started in {directory} but is gone already: see {embedded.log_of(directory)}"
                )
            self._work = self._start_node
        if self._absent is None:
            self._absent = time.monotonic()

    def _hope(self, directory: Path) -> None:
        """That somebody has just started a node, which has not even taken its lock."""
        if time.monotonic() - self._begun >= self._client.hope:
            raise NodeError(f"no node runs in {directory}: start one with `irmd`")

    def _start_node(self) -> None:
        from ouroboros.runtime.embedded import start_node

        self._work = None
        self._started = True
        end = self._end()
        assert end is not None, "a start has a limit"
        start_node(runtime_dir(), end, self._client.find)

    def _in_time(self) -> Request:
        """The request, with the rest of its time."""
        if self._limit is None or getattr(self._request, "timeout", None) is None:
            return self._request
        waited = (time.monotonic() if self._absent is None else self._absent) - self._begun
        return msgspec.structs.replace(self._request, timeout=max(0.0, self._limit - waited))

    def _end(self) -> float | None:
        """When to give up."""
        if self._absent is not None:
            return self._absent + min(_START, math.inf if self._limit is None else self._limit + _START_GRACE)
        answer = math.inf if self._limit is None else self._begun + self._limit + _GRACE
        if self._connection is None or not self._connection.welcomed:
            return min(answer, self._begun + _PATIENCE)
        return None if answer == math.inf else answer

    def _check_time(self) -> None:
        end = self._end()
        if end is None or time.monotonic() < end:
            return
        directory = runtime_dir()
        if self._absent is not None:
            from ouroboros.runtime import embedded

            raise NodeError(embedded.why_not_ready(directory))
        pid = None if self._connection is None else self._connection.pid
        self._hang_up()
        raise NodeError(why_no_answer(directory, pid))

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class ManagementCall(Call[Done]):
    """A request of management. The outcome is its answer."""

    def __init__(self, client: Client, request: Request, limit: float | None, *, start: bool) -> None:
        super().__init__(client, request, limit, start=start)
        self._let_go = client.let_go

    def _outcome(self, answer: Answer, descriptors: list[int], node: int) -> Done:
        for descriptor in descriptors:
            os.close(descriptor)
        if not isinstance(answer, Done):
            raise ProtocolError(f"the node answered {type(self._request).__name__} with {type(answer).__name__}")
        if isinstance(self._request, messages.ListFlows | messages.ListIpcps):
            self._client.known = self._let_go
        kind = _ENTRIES.get(type(self._request))
        return answer if kind is None else Done(msgspec.convert(answer.value, kind))


class FlowCall(Call[FlowGrant]):
    """A request for a flow."""

    def _outcome(self, answer: Answer, descriptors: list[int], node: int) -> FlowGrant:
        return self._client.attach(answer, descriptors, node)


def _wait(for_what: Wait) -> None:
    """Wait, or do the work that is to be done instead."""
    if for_what.work is not None:
        for_what.work()
        return
    if for_what.descriptor is None:
        select.select([], [], [], for_what.seconds)
        return
    poller = select.poll()
    poller.register(for_what.descriptor, select.POLLIN)
    poller.poll(None if for_what.seconds is None else math.ceil(1000 * for_what.seconds))


class Client:
    """The connections of this process to its node."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        #: Seconds that a call which starts no node waits for one to appear: for commands that come right after `irmd &`.
        self.hope = 0.0
        #: Messages that a node did not take at once, and has to be sent.
        self._owed: deque[tuple[int, Dealloc]] = deque()
        #: How many flows it was let go of, and how many of those a node has heard of that was asked for a list since.
        self.let_go = self.known = 0
        self._paying = threading.Lock()
        #: Tells it when the program makes no other calls.
        self._payer: threading.Thread | None = None
        self._instance = instance()

    def find(self) -> bool:
        """Whether a node runs, or is about to, where the environment points to. Starts none, and never waits."""
        connection = self._take_idle()
        while connection is not None and connection.is_over():
            connection.close()
            connection = self._take_idle()
        try:
            if connection is None and (connection := self._connect()) is not None:
                connection.flush()
        except BlockingIOError:
            return True
        except NodeError:
            return False
        if connection is None:
            from ouroboros.runtime.embedded import is_starting

            return is_starting(runtime_dir(), or_ending=False)
        self._idle.append(connection)
        return True

    def request(self, request: Request, *, start: bool = True) -> Any:  # noqa: ANN401
        """Send a request and return the value of its answer.

        With `start`, a node is started when there is none (unless `OUROBOROS_AUTOSTART=0`). Raises the exception that
        the node names, or `NodeError` when there is no node, it goes away or it does not answer within half a minute.
        """
        return self.ask(request, start=start).finish().value

    def ask(self, request: Request, *, start: bool = True) -> ManagementCall:
        """As `request`, and do not wait for the answer."""
        return ManagementCall(self, request, _PATIENCE, start=start)

    def tell(self, request: Request) -> None:
        """As `request`, for a program that is done with something: starts no node, and waits a moment at most. A node that
        does not answer in that time carries out the request later."""
        ManagementCall(self, request, 0.0, start=False).finish()

    def request_flow(self, request: messages.FlowRequest) -> FlowGrant:
        """Send a request that is answered by a flow, wait for it within the time of the request, and attach to it."""
        return self.begin(request).finish()

    def begin(self, request: messages.FlowRequest) -> FlowCall:
        """As `request_flow`, and do not wait for the answer."""
        return FlowCall(self, request, request.timeout, start=True)

    def attach(self, answer: Answer, descriptors: list[int], node: int) -> FlowGrant:
        """The flow that an answer brought."""
        if not isinstance(answer, Granted):
            raise ProtocolError(f"the node answered a request for a flow with {type(answer).__name__}")
        if len(descriptors) != 2:
            for descriptor in descriptors:
                os.close(descriptor)
            self.release(answer.flow_id, answer.side, node)
            raise NodeLimitError("this program has no descriptors left for the flow: raise its limit (`ulimit -n`)")
        _make_room_for_descriptors(max(descriptors))
        try:
            return FlowGrant(answer, _endpoint(answer, descriptors), node)
        except BaseException:
            self.release(answer.flow_id, answer.side, node)
            raise

    def release(self, flow_id: int, side: int, node: int) -> None:
        """Tell the node that gave out an end of a flow that it is not used any more. Never waits: if the node does not take
        the message now, a thread sends it, or one of the next calls; and the node learns all at the end of this process. A
        node that is gone is not told: its successor may use the same numbers for another flow."""
        self.let_go += 1
        self._owed.append((node, Dealloc(flow_id, side)))
        self._pay()
        if self._is_behind() and (self._payer is None or not self._payer.is_alive()):
            self._payer = threading.Thread(target=self._pay_later, name="ouroboros-releases", daemon=True)
            # A program that may have no more threads, or is ending: then with the next call.
            with contextlib.suppress(RuntimeError):
                self._payer.start()

    def disconnect(self, directory: str) -> None:
        """Close the connections that are kept for calls to the node of a runtime directory, which has ended."""
        for connection in self._idle[:]:
            if connection.directory == directory:
                connection.close()
                self._idle.remove(connection)

    def forget(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        for connection in self._idle:
            connection.close()
        self._idle = []
        self._owed.clear()
        self._paying, self._payer = threading.Lock(), None
        self._instance = instance()

    def send(self, request: Request) -> Connection | None:
        """Send the request over a connection of its own; None when there is no node. Raises `BlockingIOError` when it takes
        no more connections for now."""
        if self._owed:
            self._pay()
        connection = self._take_idle()
        while connection is not None and not self._sent(connection, request):
            # The node that it led to is gone.
            connection = self._take_idle()
        if connection is None:
            connection = self._connect()
            if connection is not None and not self._sent(connection, request):
                raise NodeError("the node went away when it was asked; try again")
        return connection

    def keep(self, connection: Connection) -> None:
        """The request on that connection is answered: keep it for the next one."""
        if connection.welcomed:
            self._idle.append(connection)
        else:
            connection.close()

    def _pay(self) -> None:
        """Send nodes the messages that they have not taken yet, as far as they take them now."""
        # A finaliser may come in here in the midst of it. A caller that does not get in leaves it to the thread.
        paying = self._paying
        if not paying.acquire(blocking=False):
            return
        try:
            for connection in [each for each in self._idle if each.is_behind]:
                # Unless a call has just taken it, which flushes it.
                with contextlib.suppress(ValueError, OSError):
                    self._idle.remove(connection)
                    connection.flush()
                    self._idle.append(connection)
            while self._owed and self._pay_one():
                pass
        finally:
            paying.release()

    def _pay_one(self) -> bool:
        """Tell a node of one flow; False when it takes no connection for now."""
        node, dealloc = self._owed.popleft()
        try:
            connection = self._take_idle(node) or self._connect()
        except BlockingIOError:
            self._owed.appendleft((node, dealloc))
            return False
        except NodeError:
            return True
        if connection is not None and (connection.node != node or self._sent(connection, dealloc)):
            self._idle.append(connection)
        return True

    def _is_behind(self) -> bool:
        """Whether there is something that a node has not taken yet."""
        return self._paying.locked() or bool(self._owed) or any(each.is_behind for each in self._idle)

    def _pay_later(self) -> None:
        """Send nodes those messages as they take them, until they have all or have taken nothing for long."""
        end = time.monotonic() + _PATIENCE
        while self._is_behind() and time.monotonic() < end:
            select.select([], [], [], _PAUSE)
            self._pay()

    def _sent(self, connection: Connection, request: Request) -> bool:
        """Send the request, unless the node is gone."""
        try:
            connection.send(request)
        except (BrokenPipeError, ConnectionResetError):
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        return True

    def _take_idle(self, node: int | None = None) -> Connection | None:
        """A connection that is kept for the next call, with `node` one to that node. Threads may race for it."""
        # The environment may name another directory than it did. A program that gave up rights must not use those of an
        # older connection, except to let go of its flows.
        here = place()
        for connection in self._idle[::-1]:
            if (connection.directory, connection.user) == here if node is None else connection.node == node:
                try:
                    self._idle.remove(connection)
                except ValueError:
                    continue
                return connection
        return None

    def _connect(self) -> Connection | None:
        """A new connection, None when nobody listens."""
        directory = runtime_dir()
        path = socket_path(directory)
        # A node that serves all users has one for root.
        sock = connect(owner_socket_path(directory)) if os.geteuid() == 0 else None
        if sock is None and (sock := connect(path)) is None:
            return None
        connection = Connection(sock, Hello(messages.VERSION, program_name(), self._instance))
        _live.add(connection)
        # The user of the connection flushes: its next message goes along.
        return connection


def _endpoint(granted: Granted, descriptors: list[int]) -> Endpoint:
    memory, bell = descriptors
    if not granted.suite:
        return Endpoint(memory, bell, granted.side, granted.max_packet)
    return Endpoint(memory, bell, granted.side, granted.max_packet, granted.suite, granted.key)


def _exception(failed: Failed) -> errors.OuroborosError:
    kind = getattr(errors, failed.error, None)
    if isinstance(kind, type) and issubclass(kind, errors.OuroborosError):
        return kind(failed.text)
    return errors.OuroborosError(f"{failed.error}: {failed.text}")


def _make_room_for_descriptors(highest: int) -> None:
    """Raise the soft limit of descriptors to the hard one before it is reached: each flow takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft - highest < 64 and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_live: weakref.WeakSet[Connection] = weakref.WeakSet()
client = Client()
request = client.request
ask = client.ask
tell = client.tell
request_flow = client.request_flow
begin = client.begin
release = client.release


def _after_fork() -> None:
    # Also those that a thread of the parent was using: a copy that stays open here would hide the parent's hanging up.
    for connection in list(_live):
        connection.close()
    client.forget()


os.register_at_fork(after_in_child=_after_fork)
