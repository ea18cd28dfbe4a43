"""Programs and nodes of tests, without the time that each would take to import its modules: a process that has them forks.

What it forks is as a fresh one: it has the descriptors, environment, arguments, working directory and session that
`subprocess.Popen` would give it, and ends as an interpreter ends. Not so its limits, its `/proc/PID/cmdline`, and modules
that it has loaded already. What a test says of these, of an import or of a start wants a fresh one.

`python warm.py SOCKET MODULE...` is the process that forks. It has no threads, and does one thing after the other."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any

#: Room for the environment of what is forked, in that of the process that forks: the kernel shows it from there.
_ROOM = 1 << 15
_LONGEST = 1 << 17
_DESCRIPTORS = 16

#: What programs of tests import.
PROGRAM = ("ouroboros.dev", "ouroboros.settings", "ast", "json", "linecache", "struct", "textwrap", "traceback")
#: What `irmd` and `ouroboros.testing.host` do.
NODE = (
    "click",
    "ouroboros.control.configuration",
    "ouroboros.runtime.node",
    "ouroboros.runtime.systemd",
    "ouroboros.tools._output",
    "google.protobuf.descriptor_pool",
    "google.protobuf.message",
    "google.protobuf.message_factory",
)


class Forked(subprocess.Popen[bytes]):
    """A process that a warm one has forked, which tells how it ended."""

    def __init__(self, origin: Warm, pid: int, stdin: int | None, stdout: int | None) -> None:
        self._origin = origin
        self._reaping = threading.Lock()
        self.pid, self.returncode = pid, None
        self.stdin = None if stdin is None else os.fdopen(stdin, "wb")
        self.stdout = None if stdout is None else os.fdopen(stdout, "rb")
        self.stderr = None

    def wait(self, timeout: float | None = None) -> int:
        with self._reaping:
            if self.returncode is None:
                # Until it is reaped the number is its own.
                descriptor = os.pidfd_open(self.pid)
                try:
                    if not select.select([descriptor], [], [], timeout)[0]:
                        raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
                finally:
                    os.close(descriptor)
                self.returncode = self._origin.reap(self.pid)
        return int(self.returncode)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        assert input is None
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        said = None
        if self.stdout is not None:
            with self.stdout:
                said = self.stdout.read()
        self.wait(timeout)
        return said, None


class Warm:
    """A process that has imported `modules`, and forks others."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules],
                # Pipes, as those of a program are.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"ROOM": "." * _ROOM},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def popen(
        self,
        command: Sequence[str],
        *,
        env: dict[str, str],
        stdout: int | IO[bytes],
        stderr: IO[bytes],
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = True,
    ) -> Forked:
        """As `subprocess.Popen`, but always in a session of its own. `command`: of our interpreter, a script or `-m`."""
        assert command[0] == sys.executable
        child: list[int] = []
        try:
            our_end: int | None = None
            if stdin == subprocess.PIPE:
                read, our_end = os.pipe()
                child.append(read)
            else:
                child.append(os.open(os.devnull, os.O_RDONLY))
            output: int | None = None
            if stdout == subprocess.PIPE:
                output, write = os.pipe()
                child.append(write)
            else:
                assert not isinstance(stdout, int)
                child.append(os.dup(stdout.fileno()))
            told = {
                "command": command[1:],
                "environment": env,
                "directory": os.getcwd(),
                "mask": _mask(),
                "numbers": [0, 1, 2, *pass_fds],
            }
            pid = self._ask(told, [*child, stderr.fileno(), *pass_fds])
        finally:
            for descriptor in child:
                os.close(descriptor)
        return Forked(self, pid, our_end, output)

    def reap(self, pid: int) -> int:
        """The status of one that has ended, as of `subprocess`."""
        return os.waitstatus_to_exitcode(self._ask({"reap": pid}))

    def close(self) -> None:
        """End the process that forks. What it has forked goes on."""
        # Somebody may have a copy of it.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._process.communicate()
        assert self._process.returncode == 0

    def _ask(self, what: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(what).encode()], descriptors)
            said = self._socket.recv(_LONGEST)
        assert said, "the process that forks is gone"
        return int(said)


def _mask() -> int:
    """Our file mode mask, looked at without a change of it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("Umask:")).split()[1], 8)


# --- the process that forks


def _serve(control: socket.socket) -> list[str] | None:
    """Do what we are told. None at the end; in what is forked, its command."""
    while True:
        said, descriptors, _, _ = socket.recv_fds(control, _LONGEST, _DESCRIPTORS)
        if not said:
            return None
        told = json.loads(said)
        if "reap" in told:
            _, answer = os.waitpid(told["reap"], 0)
        else:
            begun, beginning = os.pipe()
            answer = os.fork()
            if answer == 0:
                _begin(told, descriptors, control, begun, beginning)
                return list(told["command"])
            for descriptor in (beginning, *descriptors):
                os.close(descriptor)
            # Its end: the new one is in its session, or has ended.
            os.read(begun, 1)
            os.close(begun)
        control.send(str(answer).encode())


def _begin(told: dict[str, Any], descriptors: list[int], control: socket.socket, begun: int, beginning: int) -> None:
    """In the child: have all that belongs to it, and nothing else."""
    os.setsid()
    numbers = told["numbers"]
    control.close()
    os.close(begun)
    above = 1 + max(*numbers, *descriptors, beginning)
    beginning = _moved(beginning, above)
    for number, descriptor in zip(numbers, [_moved(each, above) for each in descriptors], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(told["environment"])
    _show_environment()
    os.chdir(told["directory"])
    os.umask(told["mask"])
    os.close(beginning)


def _moved(descriptor: int, above: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, above)
    os.close(descriptor)
    return moved


def _show_environment() -> None:
    """Have `/proc/PID/environ` say what the environment is. Nothing else is left of that memory."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    shown = b"".join(name + b"=" + value + b"\0" for name, value in os.environb.items())
    assert len(shown) <= end - start, "the environment is too long"
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), shown.ljust(end - start, b"\0"), start)


def _as_main(command: list[str]) -> tuple[str, dict[str, Any]]:
    """Be the program of that command line. Its script, and the module `__main__` for it."""
    is_module = command[0] == "-m"
    name, *arguments = command[is_module:]
    sys.argv = [name, *arguments]
    sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.abspath(name))
    main = sys.modules["__main__"] = ModuleType("__main__")
    if not is_module:
        main.__dict__.update(__file__=os.path.abspath(name), __builtins__=__builtins__)
    sys.excepthook = _tell
    return name, {} if is_module else main.__dict__


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Without the lines that are of this file."""
    here = trace and trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(here), here)


if __name__ == "__main__":
    for _module in sys.argv[2:]:
        importlib.import_module(_module)
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1
    if (_command := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _name, _scope = _as_main(_command)
        if _scope:
            with open(_name, "rb") as _file:
                _code = compile(_file.read(), _name, "exec")
            exec(_code, _scope)
        else:
            runpy.run_module(_name, run_name="__main__", alter_sys=True)
