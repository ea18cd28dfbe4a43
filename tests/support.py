"""Real nodes and real programs for tests, and counts of what must not be left behind.

Nothing here sleeps: tests wait for lines on pipes, for the end of processes, for answers of the node, or for the kernel to
say that a thread is blocked in a system call.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import platform
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, TypeVar

import pytest
from warm import Warm

from ouroboros import errors
from ouroboros.runtime import client
from ouroboros.runtime.embedded import READY
from ouroboros.settings import Udp4Config, Udp4Settings, Udp6Config, Udp6Settings
from ouroboros.wire.control import FlowEntry, ListFlows, NodeEntry, NodeInfo

T = TypeVar("T")
P = TypeVar("P", bound="Program")

#: What a program given as source text starts with.
HEAD = """\
import os, signal, sys, threading
from ouroboros.dev import *
from ouroboros.runtime import client
from ouroboros.settings import Udp4Config, Udp4Settings, Udp6Config, Udp6Settings

def say(value):
    print(repr(value), flush=True)

def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return line.rstrip("\\n")

"""

#: Names of the tools, and a broadcast layer.
TOOLS_CONFIGURATION = """
[name.oecho]
prog = ["oecho"]
[name.oping]
prog = ["oping"]
[name.operf]
prog = ["operf"]
[name.ocbr]
prog = ["ocbr"]
[broadcast.news0]
bootstrap = "news"
"""

#: A program that does what it is told, one piece of Python after the other.
SHELL = """
import ast, json

scope = dict(globals())

def carry_out(code):
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<told>", "exec"), scope)
    return None if last is None else eval(compile(ast.Expression(last.value), "<told>", "eval"), scope)

def answer(line):
    try:
        return ["value", repr(carry_out(json.loads(line)))]
    except BaseException as error:
        return ["raised", type(error).__name__, str(error)]

for line in sys.stdin:
    print(json.dumps(answer(line)), flush=True)
"""

# System calls that wait, by what they wait for. Numbers differ between machines.
_CALLS: dict[str, dict[str, set[int]]] = {
    "x86_64": {"read": {0}, "poll": {7, 271, 202}, "node": {45, 47, 7, 271}, "room": {202, 270}},
    "aarch64": {"read": {63}, "poll": {73, 98}, "node": {207, 212, 73}, "room": {98, 72}},
}
_FUTEXES = {"x86_64": 202, "aarch64": 98}
_FUTEX_PRIVATE = 128

#: Seconds after which something that must happen counts as never happening.
WATCHDOG = 45.0


def asleep_in(pid: int, thread: int, what: str) -> bool:
    """Whether a thread is blocked: "poll" in the read of a flow, "room" in a write, "node" in a call to the node."""
    try:
        text = Path(f"/proc/{pid}/task/{thread}/syscall").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise AssertionError(f"thread {thread} of process {pid} is gone") from error
    words = text.split()
    machine = platform.machine()
    if not words or words[0] in ("running", "-1") or int(words[0]) not in _CALLS[machine][what]:
        return False
    # Waits for the interpreter lock are private to the process. A writer waits in memory that two processes share, and over
    # a C library a reader does.
    return int(words[0]) != _FUTEXES[machine] or not int(words[2], 16) & _FUTEX_PRIVATE


def waits(pid: int, thread: int, what: str) -> bool:
    """As `asleep_in`, and for the node not just until it has answered the hello that comes before a request."""
    if what != "node":
        return asleep_in(pid, thread, what)
    before = _sleeps(pid, thread)
    if not asleep_in(pid, thread, what):
        return False
    # Twice, because the node may take what came from two programs in any order.
    node_info()
    node_info()
    return asleep_in(pid, thread, what) and _sleeps(pid, thread) == before


def _sleeps(pid: int, thread: int) -> str:
    """How often a thread went to sleep so far."""
    status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


def until(condition: Callable[[], bool]) -> None:
    """Look until it is so. The limit is a watchdog, for fixtures after a test that ran out of its time already."""
    end = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        os.sched_yield()


def fuzz(target: str, runs: int, folder: Path) -> None:
    """Have a fuzzer try a target of the folder `fuzz` so often. What it finds is left in `folder`."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("there is no atheris for this platform")
    program = Path(__file__).parents[1] / "fuzz" / f"{target}.py"
    command = [sys.executable, str(program), f"-runs={runs}", "-seed=1", f"-artifact_prefix={folder}/", "new"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Done {runs} runs" in done.stderr


def forever(call: Callable[[], object]) -> NoReturn:
    """Call again and again, until it raises."""
    while True:
        call()


def ended(pid: int) -> None:
    """Wait for the end of a process, which need not be a child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


class Program:
    """A Python program in a process of its own. `warm`: what forks it; else it is a fresh one."""

    def __init__(
        self, path: Path, arguments: list[str], environment: dict[str, str], limit: int | None, warm: Warm | None = None
    ) -> None:
        self._stderr = path.with_suffix(".err")
        command = [sys.executable, str(path), *arguments]
        if limit is not None:
            command = limited(command, limit)
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
        if warm is not None and limit is None:
            popen = warm.popen
        with self._stderr.open("wb") as stderr:
            self.process = popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | environment,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def raw_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise AssertionError(f"the program ended with status {status}; it said:\n{self.errors()}")
        return line.decode().rstrip("\n")

    def line(self) -> Any:
        """The next value that the program gave to `say`."""
        return ast.literal_eval(self.raw_line())

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self._stderr.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> int:
        """Close its standard input, which ends it if it listens, and return its exit status."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait()

    def until_asleep(self, what: str, thread: int | None = None) -> None:
        """Until it is blocked in a read ("poll"), a write ("room") or a call to the node ("node")."""
        until(lambda: waits(self.pid, thread or self.pid, what))

    def dispose(self) -> None:
        # With all that it forked, which may live longer than itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Shell(Program):
    """A program that does what the test tells it."""

    def begin(self, code: str) -> None:
        """Have it start on something; `answer` waits for the outcome."""
        self.tell(json.dumps(textwrap.dedent(code)))

    def answer(self) -> Any:
        """The value of the last expression that it was told; raises what the program raised."""
        return outcome(self.raw_line())

    def do(self, code: str) -> Any:
        self.begin(code)
        return self.answer()

    def begin_blocked(self, code: str, what: str) -> None:
        """Have it start on something and wait until it is blocked there.

        When it is the node that it waits for ("node"), the node has its request when this returns.
        """
        if what == "node":
            # The connection is made, so that the only thing to wait for is the answer to the request.
            self.do("from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()); None")
        self.begin(code)
        self.until_asleep(what)
        if what == "node":
            node_info()

    def descriptors(self) -> Counter[str]:
        return descriptors(self.pid)


def outcome(line: str) -> Any:
    """What a `Shell` answered: the value, or raises what it raised."""
    kind, *rest = json.loads(line)
    if kind == "raised":
        raise _exception(*rest)
    try:
        return ast.literal_eval(rest[0])
    except (ValueError, SyntaxError):
        return rest[0]


def _exception(name: str, text: str) -> BaseException:
    kind = getattr(errors, name, None) or {
        each.__name__: each for each in (KeyboardInterrupt, TypeError, ValueError, OSError, TimeoutError)
    }.get(name)
    return kind(text) if isinstance(kind, type) else AssertionError(f"the program raised {name}: {text}")


class Programs:
    """Starts programs and ends them all. `warm`: what forks shells."""

    def __init__(self, directory: Path, warm: Warm | None = None) -> None:
        self._directory = directory
        self._warm = warm
        self._running: list[Program] = []

    def start(self, source: str, *arguments: str, name: str = "program", **environment: str) -> Program:
        """Run Python source as a script of that name; it has `say`, `hear` and all of `ouroboros.dev`."""
        return self._keep(Program(self._write(name, source), list(arguments), environment, None, None))

    def shell(self, name: str = "shell", limit: int | None = None, **environment: str) -> Shell:
        """Run a program that does what it is told. `limit`: its limit of descriptors."""
        return self._keep(Shell(self._write(name, SHELL), [], environment, limit, self._warm))

    def script(self, name: str, source: str) -> Path:
        """Only write an executable script."""
        path = self._directory / name
        path.write_text(f"#!{sys.executable}\n{HEAD}{textwrap.dedent(source)}")
        path.chmod(0o755)
        return path

    def end(self) -> None:
        """Kill what still runs."""
        while self._running:
            self._running.pop().dispose()

    def _keep(self, program: P) -> P:
        self._running.append(program)
        return program

    def _write(self, name: str, source: str) -> Path:
        # A folder for each, because programs of one name may differ.
        folder = Path(tempfile.mkdtemp(dir=self._directory))
        path = folder / f"{name}.py"
        path.write_text(HEAD + textwrap.dedent(source))
        return path


class NodeProcess:
    """An `irmd` process. Starts when it is made. `within`: a command that runs it, as in another network. `warm`: what
    forks it, if it has no such command and no limit."""

    def __init__(
        self,
        directory: Path,
        log: Path,
        *options: str,
        limit: int | None = None,
        within: Sequence[str] = (),
        warm: Warm | None = None,
    ) -> None:
        self.directory = directory
        self._log = log
        self._options = options
        self._limit = limit
        self._within = within
        self._warm = warm
        #: Its engine may keep a flow whose program is gone: the other end may be none of ours, and say nothing.
        self.lingers = False
        self.start()

    def start(self) -> None:
        """Start it and wait until programs can connect."""
        ready, child_end = os.pipe()
        with self._log.open("ab") as log:
            self.process = spawn_irmd(
                self.directory,
                log,
                "--ready-fd",
                str(child_end),
                *self._options,
                limit=self._limit,
                keep=child_end,
                within=self._within,
                warm=self._warm,
            )
        os.close(child_end)
        self.pid = self.process.pid
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == READY, self.log()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")


def spawn_irmd(
    directory: Path,
    log: IO[bytes],
    *options: str,
    limit: int | None = None,
    keep: int | None = None,
    within: Sequence[str] = (),
    warm: Warm | None = None,
) -> subprocess.Popen[bytes]:
    """Run an `irmd`, with a limit of descriptors; it inherits the descriptor `keep`. `within`: a command that runs it."""
    command = [sys.executable, "-m", "ouroboros.tools.irmd", *options]
    popen = subprocess.Popen if warm is None or within or limit is not None else warm.popen
    return popen(
        [*within, *(command if limit is None else limited(command, limit))],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | {"OUROBOROS_RUNTIME_DIR": str(directory)},
        pass_fds=[] if keep is None else [keep],
    )


def limited(command: list[str], descriptors: int) -> list[str]:
    """The command with a limit of descriptors."""
    code = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *command]


def node_info() -> NodeEntry:
    """What the node says about itself. All that reached the node before this is settled when it returns."""
    entry = client.request(NodeInfo(), start=False)
    assert isinstance(entry, NodeEntry)
    return entry


class Background(Generic[T]):
    """A call in a thread of the test."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @classmethod
    def waiting_for_node(cls, call: Callable[[], T]) -> Background[T]:
        """A call to the node whose request the node has, and does not answer yet, when this returns."""
        # The connection is made, so that the only thing to wait for is the answer to the request.
        node_info()
        background = cls(call)
        background.until_asleep("node")
        return background

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asks for the result
            self._error = error

    def until_asleep(self, what: str) -> None:
        """Until it is blocked in a read ("poll"), a write ("room") or a call to the node ("node")."""
        until(lambda: self._thread.native_id is not None)
        native = self._thread.native_id
        assert native is not None
        until(lambda: waits(os.getpid(), native, what))

    def result(self) -> T:
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._value


def lasting_descriptors() -> Counter[str]:
    """What this process has open, as far as a test must leave it as it was."""
    found = descriptors()
    if (library := sys.modules.get("ouroboros.native.library")) is not None and library.loaded() is not None:
        # A C library keeps connections and what it waits with, as it likes.
        del found["socket"], found["anon_inode"]
    return found


def descriptors(pid: int | None = None) -> Counter[str]:
    """Open descriptors of a process by kind: flow memory, sockets, and the rest together."""
    found: Counter[str] = Counter()
    folder = f"/proc/{pid or 'self'}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            # The one by which the folder was read.
            continue
        if target.startswith("/memfd:ouroboros-flow"):
            found["flow memory"] += 1
        elif target.startswith("socket:"):
            found["socket"] += 1
        else:
            found[re.sub(r":.*", "", target)] += 1
    return found


def mapped_flows(pid: int | None = None) -> int:
    """How many flows a process has mapped."""
    return Path(f"/proc/{pid or 'self'}/maps").read_text().count("memfd:ouroboros-flow")


def children(pid: int | None = None) -> list[int]:
    """Child processes, zombies included."""
    found: list[int] = []
    for task in Path(f"/proc/{pid or 'self'}/task").iterdir():
        # Threads end while we look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return sorted(found)


def users_of(directory: Path) -> list[int]:
    """Processes, but for this one, that were started for a runtime directory."""
    mark = f"OUROBOROS_RUNTIME_DIR={directory}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def flows_of_node() -> set[int]:
    """The ids of those that the node knows."""
    entries: list[FlowEntry] = client.request(ListFlows())
    return {entry.id for entry in entries}


def holds_nothing(pid: int, *, lingers: bool = False, lower: Collection[int] = ()) -> None:
    """Wait until the node, which is process `pid`, knows of no process but ours and those that it started, and of no flow,
    and has no zombies. `lingers`: as `NodeProcess.lingers`. `lower`: flows that its IPC processes hold for good."""
    until(lambda: node_info().processes <= 1 + len(children(pid)))
    until(lambda: flows_of_node() == set(lower))
    # The engine may have one for longer, until all that was written is delivered.
    until(lambda: descriptors(pid)["flow memory"] == 0 and (lingers or mapped_flows(pid) == 0))
    until(lambda: not any(_zombie(pid) for pid in children(pid)))


def _zombie(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def logged_no_bug(log: str) -> bool:
    """Whether the log of a node has no line that only a bug of the node writes."""
    return "(ERROR)" not in log and "(CRITICAL)" not in log


def descriptor_limit() -> int:
    """How many descriptors a process may have here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def udp_settings(
    host: str, port: int = Udp4Config().port, peers: Iterable[str] = (), *, dns: str = "", impair: str | None = None
) -> Udp4Settings | Udp6Settings:
    """Settings of a layer over UDP, of the version of the address."""
    if ":" in host:
        return Udp6Settings(impair=impair, udp6=Udp6Config(host, dns or "::", port, tuple(peers)))
    return Udp4Settings(impair=impair, udp4=Udp4Config(host, dns or "0.0.0.0", port, tuple(peers)))
