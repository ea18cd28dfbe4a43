"""The node: one asyncio process that runs the IRM and carries out what it wants done."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ouroboros import __version__, errors
from ouroboros.control import messages
from ouroboros.control.effects import (
    Attach,
    Connect,
    Effect,
    Impair,
    Join,
    MarkDead,
    OpenLayer,
    PeerGone,
    Relay,
    Release,
    Reply,
    Reserve,
    Resolve,
    SendManagement,
    StartLayer,
    StartProgram,
    StopLayer,
    Unreserve,
    Warn,
)
from ouroboros.control.irm import Irm
from ouroboros.control.messages import (
    Dealloc,
    Done,
    Failed,
    Granted,
    Hello,
    ListFlows,
    ListIpcps,
    MessageReader,
    NodeEntry,
    NodeInfo,
    Request,
)
from ouroboros.control.names import Process
from ouroboros.errors import FlowAuthException, NodeError, OuroborosError, ProtocolError
from ouroboros.runtime.flows import FlowRuntime
from ouroboros.runtime.paths import CREDENTIALS, make_runtime_dir, security_dir, socket_path
from ouroboros.runtime.security import SecurityDirectory, give_core_files
from ouroboros.runtime.udp import UdpRuntime

log = logging.getLogger("ouroboros.irmd")

#: Seconds that a new connection may take to say hello.
HELLO_TIME = 10.0
#: Seconds without programs after which an embedded node ends.
IDLE_TIME = 30.0
#: Seconds that programs started by the node get to end at shutdown.
GRACE = 5.0
#: Descriptors that a node keeps for connections and itself; each flow takes one of the rest.
RESERVED_DESCRIPTORS = 4096


class Connection:
    """One connection of a program."""

    __slots__ = ("granted", "hello_timer", "out", "process", "reader", "sock", "token")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = MessageReader(messages.REQUEST_LENGTH)
        self.process: Process | None = None
        self.hello_timer: asyncio.TimerHandle | None = None
        #: Name in the IRM of the request that is under way, 0 when none is.
        self.token = 0
        #: Flow, side and token of the end that went out with the last answer and was not followed by a sign of life.
        self.granted: tuple[int, int, int] | None = None
        #: What the socket did not take yet.
        self.out = bytearray()


class Node:
    """Runs until it is told to stop, or, embedded, until nobody used it for a while."""

    def __init__(
        self,
        directory: Path,
        *,
        embedded: bool = False,
        idle_time: float = IDLE_TIME,
        listener: socket.socket | None = None,
        security: Path | None = None,
        core_files: str | None = None,
    ) -> None:
        """`core_files`: what programs that it starts are to have of theirs, see `keep_out_of_core_files`."""
        self.directory = directory
        self._core_files = core_files
        self._embedded = embedded
        self._idle_time = idle_time
        #: The control socket when somebody else opened it, to whom it then belongs.
        self._inherited = listener
        self._irm = Irm(
            os.geteuid(),
            random=random.SystemRandom(),
            wall=time.time_ns,
            directory=SecurityDirectory(security or security_dir()),
            embedded=embedded,
            flow_limit=_flow_limit(),
        )
        #: Who asks when the node itself does.
        self._own_process = Process(os.getpid(), os.geteuid(), "irmd", trusted=True)
        self._connections: set[Connection] = set()
        #: Connections that wait for an answer, by the token of their request. Each request has a token of its own.
        self._asking: dict[int, Connection] = {}
        self._next_token = 1
        self._pidfds: dict[int, int] = {}
        #: What each process said to be, by pid.
        self._instances: dict[int, int] = {}
        self._children: dict[int, tuple[subprocess.Popen[bytes], str, str]] = {}
        self._udp = UdpRuntime(self._irm, self._carry_out)
        self._flows = FlowRuntime(self._irm, self, self._udp)
        self._timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()

    async def run(
        self,
        ready: Callable[[], None],
        *,
        configure: Callable[[], None] | None = None,
        reload: Callable[[], None] | None = None,
        stopping: Callable[[], None] | None = None,
    ) -> None:
        """Serve. Raises `NodeError` when another node has the directory, and what `configure` raises.

        Calls `configure` before the first program is let in, `ready` when programs can connect, `reload` at SIGHUP, and
        `stopping` when the node begins to end.
        """
        self._loop = asyncio.get_running_loop()
        make_runtime_dir(self.directory)
        with _lock(self.directory), self._inherited or self._listen() as listener:
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            # Signals belong to the main thread; a node in another one is stopped by whoever runs it there.
            if _in_main_thread():
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._loop.add_signal_handler(number, self._stopped.set)
                self._loop.add_signal_handler(signal.SIGHUP, self._reload, reload)
            try:
                self._load_trust()
                if configure is not None:
                    configure()
                self._loop.add_reader(listener, self._accept, listener)
                self._carry_out()
                self._watch_idleness()
                ready()
                await self._stopped.wait()
            finally:
                self._loop.remove_reader(listener)
                # First of all: programs that come from now on start another node, or are told that there is none.
                if self._inherited is None:
                    os.unlink(socket_path(self.directory))
                if stopping is not None:
                    stopping()
                await self._shut_down()

    def _load_trust(self) -> None:
        """A node that was configured by somebody does not run with a broken CA store. One that a program started does: it
        trusts nobody then, so nothing is taken for proven, and flows without certificates are as they were."""
        try:
            self._irm.security.reload()
        except FlowAuthException as error:
            if not self._embedded:
                raise
            log.warning("%s; this node trusts nobody", error)

    def _reload(self, reload: Callable[[], None] | None) -> None:
        try:
            self._irm.security.reload()
        except FlowAuthException as error:
            log.warning("%s; the one that was read before stays", error)
        if reload is not None:
            reload()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def manage(self, request: Request) -> object:
        """Carry out a management request of the node's own and give the value of the answer; raises what it names."""
        token, self._next_token = self._next_token, self._next_token + 1
        self._irm.handle(token, self._own_process, request, self._loop.time())
        answer: object = None
        while effects := self._irm.take_effects():
            for effect in effects:
                if isinstance(effect, Reply) and effect.token == token:
                    answer = effect.message
                else:
                    self._carry_out_one(effect)
        self._set_timer()
        if isinstance(answer, Failed):
            raise getattr(errors, answer.error)(answer.text)
        assert isinstance(answer, Done), f"{type(request).__name__} is no management request"
        return answer.value

    # --- connections

    def _listen(self) -> socket.socket:
        path = socket_path(self.directory)
        # We hold the lock, so a socket that is there belongs to a node that died.
        Path(path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(path)
        os.chmod(path, 0o666 if os.geteuid() == 0 else 0o600)
        listener.listen(4096)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._turn_away(listener, error)
                return
            sock.setblocking(False)
            connection = Connection(sock)
            self._connections.add(connection)
            connection.hello_timer = self._loop.call_later(HELLO_TIME, self._hang_up, connection, "said no hello")
            self._loop.add_reader(sock, self._read, connection)

    def _turn_away(self, listener: socket.socket, error: OSError) -> None:
        """Out of descriptors: take the caller's connection with the spare one and close it, so that it does not hang."""
        log.warning("a program was turned away: %s", error)
        os.close(self._reserve)
        try:
            listener.accept()[0].close()
        except OSError as again:
            log.warning("nor could it be told: %s", again)
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
            if not data:
                self._hang_up(connection, None)
                return
            connection.reader.feed(data)
            while connection.sock.fileno() >= 0 and (body := connection.reader.next()) is not None:
                self._receive(connection, messages.decode_request(body))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._hang_up(connection, f"failed: {error}")
        except ProtocolError as error:
            self._refuse(connection, error)
        except Exception as error:  # a bug of ours: whoever waits must hear of it, and the node goes on
            log.exception("a request of %s met a bug of the node", connection.process)
            self._refuse(connection, NodeError(f"bug in the node: {error!r}; please report it"))

    def _refuse(self, connection: Connection, error: OuroborosError) -> None:
        self._send(connection, Failed(type(error).__name__, str(error)))
        self._hang_up(connection, str(error))

    def _receive(self, connection: Connection, request: Request) -> None:
        connection.granted = None
        if isinstance(request, Hello):
            self._say_hello(connection, request)
        elif connection.process is None:
            raise ProtocolError("the first message must be a Hello")
        elif connection.token:
            raise ProtocolError("a second request came before the first was answered")
        elif isinstance(request, NodeInfo):
            self._send(connection, Done(self._entry()))
        else:
            self._hand_over(connection, connection.process, request)

    def _hand_over(self, connection: Connection, process: Process, request: Request) -> None:
        if isinstance(request, ListIpcps | ListFlows):
            self._flows.count()
        token = 0
        if not isinstance(request, Dealloc):
            token = connection.token = self._next_token
            self._next_token += 1
            self._asking[token] = connection
        self._irm.handle(token, process, request, self._loop.time())
        self._carry_out()

    def _say_hello(self, connection: Connection, hello: Hello) -> None:
        if hello.version != messages.VERSION:
            raise ProtocolError(
                f"this node speaks version {messages.VERSION} of the control protocol, the program {hello.version}: "
                "update the older of the two"
            )
        if connection.process is not None:
            raise ProtocolError("a second Hello on one connection")
        pid, uid, _ = CREDENTIALS.unpack(
            connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        try:
            connection.process = self._process(pid, uid, hello)
        except (OuroborosError, OSError) as error:
            self._refuse(connection, error if isinstance(error, OuroborosError) else NodeError(str(error)))
            return
        if connection.hello_timer is not None:
            connection.hello_timer.cancel()
        self._send(connection, Done(None))
        self._carry_out()
        self._watch_idleness()

    def _hang_up(self, connection: Connection, why: str | None) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        if why is not None:
            log.warning("connection of %s closed: %s", connection.process or "a stranger", why)
        if connection.hello_timer is not None:
            connection.hello_timer.cancel()
        self._loop.remove_reader(connection.sock)
        self._loop.remove_writer(connection.sock)
        connection.sock.close()
        self._asking.pop(connection.token, None)
        self._irm.cancel(connection.token)
        if connection.granted is not None:
            self._irm.flows.abandon(*connection.granted)
        self._carry_out()
        self._watch_idleness()

    def _send(
        self, connection: Connection, message: Done | Failed | Granted, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Send, or keep for when the socket takes more. Descriptors go with the first byte, so not behind a backlog."""
        data = messages.encode(message)
        self._asking.pop(connection.token, None)
        connection.token = 0
        try:
            sent = 0 if connection.out else socket.send_fds(connection.sock, [data], list(descriptors))
        except BlockingIOError:
            sent = 0
        except OSError:
            # It hung up; its end of file, which we will read, cleans up.
            return
        if sent < len(data):
            connection.out += data[sent:]
            self._loop.add_writer(connection.sock, self._flush, connection)

    def _flush(self, connection: Connection) -> None:
        try:
            del connection.out[: connection.sock.send(connection.out)]
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(connection, f"failed: {error}")
            return
        if not connection.out:
            self._loop.remove_writer(connection.sock)

    # --- processes

    def _process(self, pid: int, uid: int, hello: Hello) -> Process:
        known = self._irm.registry.processes.get(pid)
        if known is not None and self._instances[pid] == hello.instance:
            return known
        if known is not None:
            # The process lives but is not what it was: it executed another program.
            self._forget_process(known)
        if pid <= 0:
            raise NodeError("the node cannot see your process: it lives in another pid namespace")
        # First, because it can fail: a process whose end we do not see would never be forgotten.
        self._watch_process(pid)
        process = self._irm.process_arrived(pid, uid, hello.program)
        self._instances[pid] = hello.instance
        return process

    def _forget_process(self, process: Process) -> None:
        for connection in [each for each in self._connections if each.process is process]:
            connection.granted = None
            self._hang_up(connection, None)
        del self._instances[process.pid]
        self._irm.process_died(process)

    def _watch_process(self, pid: int) -> None:
        if pid not in self._pidfds:
            pidfd = self._pidfds[pid] = os.pidfd_open(pid)
            self._loop.add_reader(pidfd, self._process_gone, pid)

    def _process_gone(self, pid: int) -> None:
        pidfd = self._pidfds.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        process = self._irm.registry.processes.get(pid)
        if process is not None:
            self._forget_process(process)
        if pid in self._children:
            child, name, program = self._children.pop(pid)
            how = _how_it_ended(child.wait())
            log.info("%s, started for %s, %s", program, name, how)
            self._irm.flows.program_ended(name, program, how, process is not None and process.served)
        self._carry_out()
        self._watch_idleness()

    # --- effects

    def _carry_out(self) -> None:
        while effects := self._irm.take_effects():
            for effect in effects:
                self._carry_out_one(effect)
        self._set_timer()

    def _carry_out_one(self, effect: Effect) -> None:
        match effect:
            case Reply():
                if (connection := self._asking.get(effect.token)) is not None:
                    self._send(connection, effect.message)
            case Warn():
                log.warning("%s", effect.text)
            case StartProgram():
                self._start_program(effect)
            case Connect():
                self._flows.connect(effect)
            case Relay():
                self._flows.relay(effect)
            case Join():
                self._flows.join(effect)
            case Attach():
                self._flows.attach(effect)
            case MarkDead():
                self._flows.mark_dead(effect)
            case Release():
                self._flows.release(effect)
            case StartLayer():
                self._flows.start_broadcast(effect.ipcp)
            case Impair():
                self._flows.impair(effect)
            case StopLayer():
                self._flows.stop_layer(effect.ipcp)
            case _:
                self._carry_out_udp(effect)

    def _carry_out_udp(self, effect: OpenLayer | Resolve | SendManagement | Reserve | Unreserve | PeerGone) -> None:
        match effect:
            case OpenLayer():
                self._udp.open(effect)
            case Resolve():
                self._udp.resolve(effect)
            case SendManagement():
                self._udp.send(effect)
            case Reserve():
                self._udp.reserve(effect)
            case Unreserve():
                self._udp.unreserve(effect)
            case PeerGone():
                self._udp.peer_gone(effect)

    def grant(self, token: int, granted: Granted, memory: int, bell: int) -> None:
        connection = self._asking.get(token)
        if connection is None:
            self._irm.flows.abandon(granted.flow_id, granted.side, token)
            return
        connection.granted = (granted.flow_id, granted.side, token)
        self._send(connection, granted, (memory, bell))

    def fail_flow(self, flow_id: int, side: int, token: int, error: OSError) -> None:
        log.warning("flow %d could not be made: %s", flow_id, error)
        self._irm.flows.abandon(flow_id, side, token)
        text = (
            f"the node could not make the flow: {error.strerror}; deallocate flows, or raise its limits (`ulimit -n`)"
        )
        if (connection := self._asking.get(token)) is not None:
            self._send(connection, Failed("NodeLimitError", text))

    def _start_program(self, effect: StartProgram) -> None:
        program = effect.path.rpartition("/")[2]
        # It is started for a flow of this node, whatever stack programs use otherwise.
        environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(self.directory), "OUROBOROS_BACKEND": "node"}
        try:
            child = subprocess.Popen(
                [effect.path, *effect.args], stdin=subprocess.DEVNULL, start_new_session=True, env=environment
            )
        except OSError as error:
            how = f"could not be started: {error.strerror}"
            log.warning("%s, wanted for %s, %s", program, effect.name, how)
            self._irm.flows.program_ended(effect.name, program, how, served=False)
            return
        give_core_files(child.pid, self._core_files)
        log.info("started %s (%d) for %s", program, child.pid, effect.name)
        self._children[child.pid] = (child, effect.name, program)
        self._watch_process(child.pid)

    # --- time

    def _set_timer(self) -> None:
        deadline = self._irm.deadline()
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            # An early timer finds nothing to do and sets the next one: cheaper than moving it for every request.
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self._irm.timeout(self._loop.time())
        self._carry_out()

    def _watch_idleness(self) -> None:
        if not self._embedded:
            return
        if self._connections or self._children or self._irm.busy:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
                self._idle_timer = None
        elif self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._idle_time, self.stop)

    # --- the rest

    def _entry(self) -> NodeEntry:
        registry = self._irm.registry
        counts = (len(registry.processes), len(self._irm.flows.flows), len(registry.names))
        return NodeEntry(__version__, os.getpid(), self._embedded, str(self.directory), *counts)

    async def _shut_down(self) -> None:
        for connection in list(self._connections):
            if connection.token:
                self._send(connection, Failed("NodeError", "the node is shutting down"))
            # A flow that was given out lives on without us.
            connection.granted = None
            self._hang_up(connection, None)
        self._flows.shut_down()
        self._udp.shut_down()
        for pidfd in self._pidfds.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        await self._end_children()
        for timer in (self._timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        os.close(self._reserve)

    async def _end_children(self) -> None:
        for child, _, _ in self._children.values():
            child.terminate()
        deadline = self._loop.time() + GRACE
        for child, _, program in self._children.values():
            try:
                await asyncio.to_thread(child.wait, max(0.0, deadline - self._loop.time()))
            except subprocess.TimeoutExpired:
                log.warning("%s does not end: killed", program)
                child.kill()
                child.wait()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _lock(directory: Path) -> TextIO:
    """The lock of the directory, held while the node lives; a node that crashes lets go of it."""
    lock = open(directory / "irmd.lock", "a+")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise NodeError(f"a node runs in {directory} already, as process {owner}") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _flow_limit() -> int:
    """Raise the limit of descriptors as far as we may; each flow takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - RESERVED_DESCRIPTORS, hard // 2)


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"was killed by {_signal_name(-status)}"
    return f"ended with status {status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # A real-time signal; only the first and the last have names.
        return f"signal {number}"
