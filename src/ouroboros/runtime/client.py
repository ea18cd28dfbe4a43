"""The program's side of the control socket: connections to the node, one for each call that is under way.

A call that is interrupted or times out hangs up, which cancels its request in the node; otherwise its connection is kept
for the next call. There is no thread behind this.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import resource
import socket
import sys
import weakref
from typing import Any, NamedTuple

import msgspec

from ouroboros import errors
from ouroboros.control import messages
from ouroboros.control.messages import Answer, Dealloc, Done, Failed, Granted, Hello, MessageReader, Request
from ouroboros.dataplane import Endpoint
from ouroboros.dataplane.ends import FlowEnd
from ouroboros.errors import NodeError, NodeLimitError, ProtocolError
from ouroboros.runtime.instance import instance
from ouroboros.runtime.paths import CREDENTIALS, runtime_dir, socket_path

#: A node answers anything but a waiting request at once; seconds after which it counts as stuck.
_PATIENCE = 30.0

#: Seconds that an interrupted call waits until the node has noticed.
_WITHDRAWAL = 1.0

_DESCRIPTORS = socket.CMSG_SPACE(2 * array.array("i").itemsize)

_ENTRIES: dict[type[Request], Any] = {
    messages.ListNames: list[messages.NameEntry],
    messages.ListIpcps: list[messages.IpcpEntry],
    messages.ListFlows: list[messages.FlowEntry],
    messages.NodeInfo: messages.NodeEntry,
}


class FlowGrant(NamedTuple):
    """What came of an allocation: the answer of the node and the engine's end of the flow."""

    granted: Granted
    endpoint: FlowEnd
    #: Tells the node that gave it out from others.
    node: int


def program_name() -> str:
    """What this program is called: its script or executable, the last part of the module for `python -m`, `python` for an
    interpreter."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("", "__main__"):
        return str(spec.name).removesuffix(".__main__").rpartition(".")[2]
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return "python" if name in ("", "-c", "-") else name


class _Connection:
    """One connection that said hello. Used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = MessageReader()
        self._came: list[int] = []
        pid, _ = _peer(sock)
        #: Tells nodes apart. Not the process alone, which can run several of them.
        self.node = hash((pid, sock.getpeername()))
        #: The runtime directory that the environment named.
        self.directory = os.environ.get("OUROBOROS_RUNTIME_DIR")

    def send(self, request: Request) -> None:
        self._sock.sendall(messages.encode(request))

    def receive(self, timeout: float | None) -> tuple[Answer, list[int]]:
        """Wait for the answer. Descriptors that come with it belong to the caller.

        With a timeout of 0 raises `BlockingIOError` as long as it is not there.
        """
        self._sock.settimeout(timeout)
        while (body := self._reader.next()) is None:
            data, ancillary, _, _ = self._sock.recvmsg(65536, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            self._came += _descriptors(ancillary)
            if not data:
                raise ConnectionResetError("hung up")
            self._reader.feed(data)
        answer = messages.decode_answer(body)
        descriptors, self._came = self._came, []
        return answer, descriptors

    def fileno(self) -> int:
        return self._sock.fileno()

    def is_over(self) -> bool:
        """Whether the node has hung up."""
        self._sock.settimeout(0)
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def withdraw(self) -> None:
        """Hang up, and wait until the node knows: from then on it gives the request nothing, which would be lost."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while True:
                _, descriptors = self.receive(_WITHDRAWAL)
                for descriptor in descriptors:
                    os.close(descriptor)
        except (OSError, ProtocolError):
            # The end of the connection, as a rule.
            pass
        finally:
            self.close()

    def close(self) -> None:
        self._sock.close()
        while self._came:
            os.close(self._came.pop())


class Call:
    """A request for a flow that is under way. For event loops: `poll` it when `fileno` is readable."""

    def __init__(self, client: Client, connection: _Connection) -> None:
        self._client = client
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.fileno()

    def poll(self) -> FlowGrant | None:
        """The flow, or None when there is no answer yet. Raises what `Client.request_flow` raises."""
        try:
            answer, descriptors = self._client.wait(self._connection, 0)
        except BlockingIOError:
            return None
        return self._client.attach(answer, descriptors, self._connection.node)

    def withdraw(self) -> None:
        """Give up: the node forgets the request."""
        self._connection.withdraw()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


class Client:
    """The connections of this process to its node."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []
        self._instance = instance()

    def find(self) -> bool:
        """Whether a node runs where the environment points to. Starts none."""
        connection = self._take_idle()
        while connection is not None and connection.is_over():
            connection.close()
            connection = self._take_idle()
        try:
            self._idle.append(connection or self._connect(start=False))
        except NodeError:
            return False
        except errors.OuroborosError:
            # There is one, which does not want us: the request will be told why.
            return True
        return True

    def request(self, request: Request, *, start: bool = True, timeout: float | None = _PATIENCE) -> Any:  # noqa: ANN401
        """Send a request and return the value of its answer.

        With `start`, a node is started when there is none (unless `OUROBOROS_AUTOSTART=0`). Raises the exception that
        the node names, or `NodeError` when there is no node, it goes away or it does not answer.
        """
        answer, descriptors, _ = self._exchange(request, start, timeout)
        for descriptor in descriptors:
            os.close(descriptor)
        if not isinstance(answer, Done):
            raise ProtocolError(f"the node answered {type(request).__name__} with {type(answer).__name__}")
        kind = _ENTRIES.get(type(request))
        return answer.value if kind is None else msgspec.convert(answer.value, kind)

    def request_flow(self, request: Request, wait: float | None) -> FlowGrant:
        """Send a request that is answered by a flow, after up to `wait` seconds, and attach to the flow."""
        patience = None if wait is None else wait + _PATIENCE
        return self.attach(*self._exchange(request, True, patience))

    def begin(self, request: Request, *, start: bool) -> Call:
        """Send a request that is answered by a flow, and do not wait for the answer. May block to connect to the node,
        and for long only when it has to be started."""
        return Call(self, self._send(request, start))

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
        """Tell the node that gave out an end of a flow that it is not used any more. One that is gone needs no telling,
        and its successor may use the same numbers for another flow."""
        try:
            connection = self._take_idle(node) or self._connect(start=False)
        except NodeError:
            return
        if connection.node == node:
            try:
                connection.send(Dealloc(flow_id, side))
            except OSError:
                connection.close()
                return
        self._idle.append(connection)

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
        self._instance = instance()

    def _exchange(self, request: Request, start: bool, timeout: float | None) -> tuple[Answer, list[int], int]:
        connection = self._send(request, start)
        answer, descriptors = self.wait(connection, timeout)
        return answer, descriptors, connection.node

    def _send(self, request: Request, start: bool) -> _Connection:
        """Send the request over a connection of its own."""
        connection = self._take_idle()
        while connection is not None and not self._sent(connection, request):
            # The node that it led to is gone.
            connection = self._take_idle()
        if connection is None:
            connection = self._connect(start)
            if not self._sent(connection, request):
                raise _gone()
        return connection

    def _sent(self, connection: _Connection, request: Request) -> bool:
        """Send the request, unless nobody is there to take it."""
        try:
            connection.send(request)
        except (BrokenPipeError, ConnectionResetError):
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        return True

    def wait(self, connection: _Connection, timeout: float | None) -> tuple[Answer, list[int]]:
        """Wait for the answer to the request that was sent; hang up when there is none."""
        try:
            answer, descriptors = connection.receive(timeout)
        except BlockingIOError:
            raise
        except TimeoutError as error:
            connection.close()
            raise NodeError(
                f"the node does not answer: it is stuck or overloaded (socket in {runtime_dir()})"
            ) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            connection.close()
            raise _gone() from error
        except BaseException:
            connection.withdraw()
            raise
        self._idle.append(connection)
        if isinstance(answer, Failed):
            raise _exception(answer)
        return answer, descriptors

    def _take_idle(self, node: int | None = None) -> _Connection | None:
        """A connection that is kept for the next call, with `node` one to that node. Threads may race for it."""
        # The environment may name another directory than it did.
        directory = os.environ.get("OUROBOROS_RUNTIME_DIR")
        for connection in self._idle[::-1]:
            if connection.directory == directory if node is None else connection.node == node:
                with contextlib.suppress(ValueError):
                    self._idle.remove(connection)
                    return connection
        return None

    def _connect(self, start: bool) -> _Connection:
        sock = _open(start)
        connection = _Connection(sock)
        _live.add(connection)
        answer, _ = self._hello(connection)
        if isinstance(answer, Failed):
            connection.close()
            raise _exception(answer)
        return connection

    def _hello(self, connection: _Connection) -> tuple[Answer, list[int]]:
        try:
            connection.send(Hello(messages.VERSION, program_name(), self._instance))
            return connection.receive(_PATIENCE)
        except OSError as error:
            connection.close()
            raise NodeError(f"the node in {runtime_dir()} does not let this program in: {error}") from error


def _endpoint(granted: Granted, descriptors: list[int]) -> Endpoint:
    memory, bell = descriptors
    if not granted.suite:
        return Endpoint(memory, bell, granted.side, granted.max_packet)
    return Endpoint(memory, bell, granted.side, granted.max_packet, granted.suite, granted.key)


def _open(start: bool) -> socket.socket:
    """A socket that is connected to the node, which is started if need be."""
    directory = runtime_dir()
    path = socket_path(directory)
    sock = _try_connect(path)
    if sock is not None:
        return sock
    if not start or os.environ.get("OUROBOROS_AUTOSTART") == "0":
        raise NodeError(f"no node runs in {directory}: start one with `irmd`")
    from ouroboros.runtime.embedded import start_node

    return start_node(directory, lambda: _try_connect(path))


def _try_connect(path: str) -> socket.socket | None:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise NodeLimitError(f"this program cannot open one more socket: {error.strerror}") from error
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        if error.errno == errno.EPROTOTYPE:
            raise NodeError(
                f"a C Ouroboros runs at {path}: use it (OUROBOROS_BACKEND=native), or another directory for our node"
                " (OUROBOROS_RUNTIME_DIR)"
            ) from error
        raise NodeError(f"cannot reach the node at {path}: {error.strerror}") from error
    _, owner = _peer(sock)
    if owner not in (0, os.geteuid()):
        # Whoever gets to a name in /tmp first must not become the node of everybody.
        sock.close()
        raise NodeError(
            f"the node at {path} belongs to user {owner}: set OUROBOROS_RUNTIME_DIR to a directory of yours"
        )
    return sock


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of whoever listens at the other end."""
    pid, uid, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


def _gone() -> NodeError:
    return NodeError("the node went away while it worked on the request; try again")


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


_live: weakref.WeakSet[_Connection] = weakref.WeakSet()
client = Client()
request = client.request
request_flow = client.request_flow
begin = client.begin
release = client.release


def _after_fork() -> None:
    # Also those that a thread of the parent was using: a copy that stays open here would hide the parent's hanging up.
    for connection in list(_live):
        connection.close()
    client.forget()


os.register_at_fork(after_in_child=_after_fork)
