"""Many private nodes, each a process, that cost no import each: a process that has imported all forks them.

`python -m ouroboros.testing.forks` is that process. It reads a line of JSON for each thing to do from its input, a
socket, and writes one for each thing that happened. It ends, with all nodes, at the end of its input; a node ends with it,
however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ouroboros._owned import Uncopied
from ouroboros.errors import NodeError
from ouroboros.testing.link import TAP, open_device

#: From linux/sched.h, the same on all machines.
_CLONE_NEWNET = 0x40000000
_GONE = "the process that starts nodes is gone"
_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

log = logging.getLogger("ouroboros.irmd")


# --- the process of a node


def _become_node(name: str, directory: Path, security: Path, alive: int, space: int | None) -> NoReturn:
    """In the child: be a node, until it is told to end or `alive` comes to its end. `space`: the network namespace, a
    new one for -1."""
    status = 1
    try:
        if space is not None:
            _enter(space)
        told = os.dup(1)
        output = os.open(directory / "irmd.log", _LOG, 0o600)
        for standard in (1, 2):
            os.dup2(output, standard)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s(%(levelname)s): %(message)s")
        os.environ |= {"OUROBOROS_RUNTIME_DIR": str(directory), "OUROBOROS_SECURITY_DIR": str(security)}
        asyncio.run(_serve(directory, security, alive, lambda: _tell(told, name=name, ready=os.getpid())))
        status = 0
    except BaseException:  # the process ends here, and says why
        log.exception("the node failed")
    finally:
        logging.shutdown()
        # Nothing of the parent is to be cleaned up here.
        os._exit(status)


def _enter(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) if space < 0 else libc.setns(space, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"no network namespace: {os.strerror(ctypes.get_errno())}")


def _open_device(space: int, device: str) -> int:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(space)
        try:
            descriptor, _ = open_device(TAP, device)
        finally:
            _enter(home)
    finally:
        os.close(home)
    return descriptor


def open_device_in(namespace: Path, device: str) -> int:
    """Make a device for frames in a network namespace, which is for root. Its descriptor. Raises `OSError`."""
    space = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _open_device(space, device)
    finally:
        os.close(space)


async def _serve(directory: Path, security: Path, alive: int, ready: Callable[[], None]) -> None:
    from ouroboros.runtime.node import Node

    node = Node(directory, idle_time=math.inf, security=security)
    asyncio.get_running_loop().add_reader(alive, node.stop)
    await node.run(ready)


# --- the process that forks


class _Server:
    """Reads from descriptor 0, by which descriptors go back, and writes to 1. `apart`: each node has a network namespace
    of its own, which it has again when it begins anew."""

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._spaces: dict[str, int] = {}
        self._alive, self._end = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, tuple[int, int]] = {}

    def run(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))
        self._selector.register(self._socket, selectors.EVENT_READ, None)
        waiting = b""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._ended(key.data)
                    continue
                read = self._socket.recv(65536)
                if not read:
                    self._end_all()
                    return
                *lines, waiting = (waiting + read).split(b"\n")
                for line in lines:
                    self._do(json.loads(line))

    def _do(self, what: dict[str, Any]) -> None:
        name = what["name"]
        if "directory" in what:
            self._start(name, Path(what["directory"]), Path(what["security"]))
        elif "forget" in what:
            if (space := self._spaces.pop(name, None)) is not None:
                os.close(space)
        elif "batch" in what:
            self._set_up(name, what["batch"])
        elif "tap" in what:
            self._tap(name, what["tap"])
        else:
            self._signal(name, what["signal"])

    def _signal(self, name: str, number: int) -> None:
        if name in self._children:
            _, descriptor = self._children[name]
            signal.pidfd_send_signal(descriptor, number)
            if number == signal.SIGSTOP:
                # Until it stands still; one that ends meanwhile is left for `_ended`.
                os.waitid(os.P_PIDFD, descriptor, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        _tell(1, name=name, signal=number)

    def _start(self, name: str, directory: Path, security: Path) -> None:
        space = self._spaces.get(name, -1) if self._apart else None
        pid = os.fork()
        if pid == 0:
            os.close(self._end)
            os.setpgid(0, 0)
            _become_node(name, directory, security, self._alive, space)
        descriptor = os.pidfd_open(pid)
        self._children[name] = pid, descriptor
        self._selector.register(descriptor, selectors.EVENT_READ, name)

    def _space(self, name: str) -> int:
        """The network namespace of a node, which runs the first time."""
        if name not in self._spaces:
            pid, _ = self._children[name]
            self._spaces[name] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return self._spaces[name]

    def _tap(self, name: str, device: str) -> None:
        """Make a TAP device in the namespace of a node, and send its descriptor."""
        try:
            descriptor = _open_device(self._space(name), device)
        except OSError as error:
            _tell(1, name=name, tap=str(error))
        else:
            socket.send_fds(self._socket, [b"t"], [descriptor])
            os.close(descriptor)
            _tell(1, name=name, tap="")

    def _set_up(self, name: str, batch: str) -> None:
        """Have `ip` do something in the namespace of a node."""
        space = self._space(name)
        command = ["nsenter", f"--net=/proc/self/fd/{space}", "--", "ip", "-batch", "-"]
        done = subprocess.run(command, input=batch, capture_output=True, text=True, check=False, pass_fds=[space])
        _tell(1, name=name, batch=done.stderr.strip() or f"status {done.returncode}" if done.returncode else "")

    def _ended(self, name: str) -> None:
        pid, descriptor = self._children.pop(name)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        _tell(1, name=name, ended=os.waitstatus_to_exitcode(status))

    def _end_all(self) -> None:
        # A node that stands still does not see that.
        for _, descriptor in self._children.values():
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        os.close(self._end)
        for name in list(self._children):
            self._ended(name)


def _tell(descriptor: int, **what: object) -> None:
    # One that nobody reads any more tells nobody. As it is short, it is written in one piece.
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, json.dumps(what).encode() + b"\n")


def _warm_up() -> None:
    """Import what a node needs, now or later, once for all of them. The program that starts this process does not need
    it."""
    from google.protobuf import descriptor_pool, message, message_factory

    import ouroboros.runtime.node

    del descriptor_pool, message, message_factory, ouroboros
    gc.collect()
    gc.freeze()


# --- the side of the program


def _promise() -> Future[Any]:
    """One that is kept, also when nobody waits for it any more."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _settle(future: Future[Any], value: object) -> None:
    """The end of the process can be seen in two threads."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)


class _Child(NamedTuple):
    """`ready`: its process id, once programs can connect. `ended`: its status, as of `subprocess`. `batches`: what `ip`
    has to say of each. `signals`: those on their way. `taps`: descriptors of devices."""

    ready: Future[int]
    ended: Future[int]
    batches: deque[Future[str]]
    signals: deque[Future[None]]
    taps: deque[Future[int]]


class Forks(Uncopied):
    """Nodes that one process forks. No call waits but `close`; what it returns can be waited for. `prefix`: the start
    of the command line. `apart`: each node has a network namespace of its own, for which the prefix has to give
    rights."""

    def __init__(self, prefix: Sequence[str] = (), *, apart: bool = False) -> None:
        # The nodes run the copy of the package that the program runs.
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "ouroboros.testing.forks", *(["apart"] if apart else [])],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OUROBOROS_BACKEND": "node"},
            start_new_session=True,
        )
        theirs.close()
        assert self._process.stdout is not None
        self._socket, self._input, self._output = ours, ours.makefile("wb"), self._process.stdout
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._over = False
        self._reader = threading.Thread(target=self._read, name="news of nodes", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """False: it is gone, and with it the nodes."""
        return not self._over

    def start(self, name: str, directory: Path, security: Path) -> Future[int]:
        """A node begins in a directory, which is there. `name`: of none that runs. The process id, once programs can
        connect; `NodeError` if it ends before."""
        child = _Child(_promise(), _promise(), deque(), deque(), deque())
        with self._lock:
            if not self._over:
                self._children[name] = child
        if not self._say(name=name, directory=str(directory), security=str(security)):
            _settle(child.ready, NodeError(_GONE))
        return child.ready

    def signal(self, name: str, number: int) -> Future[None]:
        """Send a signal to a node; nothing if it has ended. Done when it was sent, and after SIGSTOP when the node
        stands still."""
        done: Future[None] = _promise()
        self._children[name].signals.append(done)
        if not self._say(name=name, signal=number):
            _settle(done, None)
        return done

    def batch(self, name: str, lines: Sequence[str]) -> Future[str]:
        """Have `ip` do this in the network namespace of a node, which runs the first time. What went wrong; empty for
        nothing."""
        done: Future[str] = _promise()
        self._children[name].batches.append(done)
        if not self._say(name=name, batch="".join(f"{line}\n" for line in lines)):
            _settle(done, _GONE)
        return done

    def tap(self, name: str, device: str) -> Future[int]:
        """Make a device for frames in the network namespace of a node, which runs the first time. The descriptor of its
        other end, with which the device goes, and which is the caller's; `OSError` if there is none."""
        done: Future[int] = _promise()
        self._children[name].taps.append(done)
        if not self._say(name=name, tap=device):
            _settle(done, OSError(_GONE))
        return done

    def forget(self, name: str) -> None:
        """Let go of the network namespace of a node that has ended."""
        self._say(name=name, forget=True)

    def ended(self, name: str) -> Future[int]:
        """The status of a node, once it has ended."""
        return self._children[name].ended

    def close(self) -> None:
        """End all nodes, and wait until they have ended."""
        # It may be gone.
        with contextlib.suppress(OSError):
            self._input.close()
            self._socket.shutdown(socket.SHUT_WR)
        self._process.wait()
        self._reader.join()
        self._output.close()
        self._socket.close()

    def _say(self, **what: object) -> bool:
        try:
            self._input.write(json.dumps(what).encode() + b"\n")
            self._input.flush()
        except (OSError, ValueError):
            return False
        return True

    def _read(self) -> None:
        for line in self._output:
            told = json.loads(line)
            child = self._children[told["name"]]
            if "ready" in told:
                child.ready.set_result(told["ready"])
            elif "signal" in told:
                child.signals.popleft().set_result(None)
            elif "batch" in told:
                child.batches.popleft().set_result(told["batch"])
            elif "tap" in told:
                _settle(child.taps.popleft(), OSError(told["tap"]) if told["tap"] else self._take_descriptor())
            else:
                self._note_end(child, told["ended"])
        with self._lock:
            self._over = True
        for child in self._children.values():
            if not child.ended.done():
                self._note_end(child, -signal.SIGKILL)
            for left in child.signals:
                _settle(left, None)
            for batch in child.batches:
                _settle(batch, _GONE)
            for tap in child.taps:
                _settle(tap, OSError(_GONE))

    def _take_descriptor(self) -> int:
        """The next one that the process has sent."""
        _, (descriptor,), *_ = socket.recv_fds(self._socket, 1, 1, socket.MSG_CMSG_CLOEXEC)
        return descriptor

    def _note_end(self, child: _Child, status: int) -> None:
        if not child.ready.done():
            child.ready.set_exception(NodeError(f"the node ended with status {status} before it was ready"))
        child.ended.set_result(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _warm_up()
    _Server(apart=sys.argv[1:] == ["apart"]).run()
