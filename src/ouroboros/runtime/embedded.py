"""The embedded node: a program that finds no node starts one for its user, as ssh-agent or adb do.

Programs that race for it meet at a lock: the first starts the node, the others find it. It takes a bounded time: a
process that does not become a node in time is ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ouroboros.errors import NodeError, NodeLimitError
from ouroboros.runtime.children import STARTED_BY, environment
from ouroboros.runtime.descriptors import above_standard, epoll, pipe
from ouroboros.runtime.isolation import interpreter_command
from ouroboros.runtime.paths import LIMITS, make_runtime_dir, unusable, using

#: The word of the node in its `--ready-fd` when programs can connect.
READY = b"ready\n"

#: The command that starts our `irmd`; else it is found.
CHOSEN = "OUROBOROS_IRMD"

#: Seconds between two looks at the lock of another starter.
_PAUSE = 0.02

_LOG = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

_INTERPRETER = re.compile(r"(python|pypy)[0-9.]*(t|d|-dbg)?")


def start_node(directory: Path, end: float, find: Callable[[], bool]) -> None:
    """Start a node in `directory` unless `find` finds one by now. Returns when programs can connect.

    Blocks, until the time `end` (of `time.monotonic`) at most. Raises `NodeError` with the node's own words when it cannot
    start.
    """
    if starter := os.environ.get(STARTED_BY):
        raise NodeError(
            f"process {starter} started this program as its node, which it is not: set {CHOSEN} to the command that runs"
            " irmd, or run `irmd` yourself"
        )
    make_runtime_dir(directory)
    with _lock(directory, end, find) as is_ours:
        if is_ours and not find():
            _spawn(directory, end)


@contextlib.contextmanager
def _lock(directory: Path, end: float, find: Callable[[], bool]) -> Iterator[bool]:
    """Hold the lock for the start of a node: True; False when a node was found while another process held it."""
    path = directory / "start.lock"
    try:
        lock = above_standard(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unusable(directory, error) from error
    with open(lock, "r+b", buffering=0) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if find():
                    yield False
                    return
                if time.monotonic() >= end:
                    raise NodeError(_held_too_long(directory, file.read(20))) from None
                select.select([], [], [], _PAUSE)
        # A full disk, or a limit, shows here: the node could not even write that into its log.
        with using(directory):
            file.truncate(0)
            file.write(b"%d" % os.getpid())
        yield True


def _held_too_long(directory: Path, owner: bytes) -> str:
    who = f"process {owner.decode(errors='replace')}"
    return (
        f"{who} has begun to start a node in {directory} and does not come to an end: if it is stopped have it go on"
        " (`kill -CONT`), or end it"
    )


def is_starting(directory: Path, *, or_ending: bool) -> bool:
    """Whether a node has the directory, though nobody listens: as it begins, or with `or_ending` as it ends."""
    path = directory / "irmd.lock"
    try:
        inode = str(path.stat().st_ino)
        # Not by trying: a node would find the lock taken.
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        held = any("FLOCK" in lock and lock[-3].endswith(f":{inode}") for lock in locks)
        # A node that ends empties the file.
        return held and (or_ending or bool(path.read_text()))
    except OSError:
        return False


def why_not_ready(directory: Path) -> str:
    """A sentence about a node that `is_starting` for too long."""
    try:
        who = f"process {(directory / 'irmd.lock').read_text() or 'that ends'}"
    except OSError:
        who = "a process"
    return (
        f"the node in {directory} is not ready: {who} has the directory and lets no program in; if it goes on like that, end"
        " it and start a node again"
    )


def log_of(directory: Path) -> Path:
    """The log of an embedded node."""
    return directory / "irmd.log"


def _spawn(directory: Path, end: float) -> None:
    command, of_ours = _command()
    with _able_to_start(command):
        ready, child_end = pipe()
    # An exception of a handler (Ctrl-C) must not come before we know which process to end then. A node blocks no signals.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with os.fdopen(ready, "rb") as reader:
            try:
                with _able_to_start(command):
                    child = _run([*command, "--embedded", "--ready-fd", str(child_end)], of_ours, directory, child_end)
            finally:
                os.close(child_end)
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                is_ready = _becomes_a_node(child, reader.fileno(), end)
            except BaseException:
                _end(child)
                raise
            if not is_ready:
                _end(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if not is_ready:
        words = _last_words(directory) or _how_it_ended(child.returncode)
        raise NodeError(f"the node did not start: {words} (see {log_of(directory)})")


def _becomes_a_node(child: subprocess.Popen[bytes], ready: int, end: float) -> bool:
    try:
        said = hear(ready, end)
        # The child only forks the node and ends.
        child.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return said == READY


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the process with all that it started: nothing is left behind but a node."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def _able_to_start(command: list[str]) -> Iterator[None]:
    """Within this block, an `OSError` becomes a `NodeError` that says why the command cannot be run."""
    try:
        yield
    except NodeError:
        raise
    except OSError as error:
        if (limited := LIMITS.get(error.errno or 0)) is not None:
            raise NodeLimitError(f"cannot start a node: {limited}") from error
        what = f"{error.strerror}: {error.filename or command[0]}"
        raise NodeError(f"cannot start a node: {what}; run `irmd` by hand to see more") from error


def _run(command: list[str], of_ours: dict[str, str], directory: Path, keep: int) -> subprocess.Popen[bytes]:
    own = {"OUROBOROS_RUNTIME_DIR": str(directory), STARTED_BY: str(os.getpid())}
    with using(directory):
        descriptor = above_standard(os.open(log_of(directory), _LOG, 0o600))
    with open(descriptor, "wb") as log:
        return subprocess.Popen(
            command,
            cwd="/",
            env=environment(os.environ, for_python=True) | of_ours | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[keep],
            start_new_session=True,
        )


def hear(descriptor: int, end: float) -> bytes:
    """The words of a starting node in its pipe: `READY`, or less when it does not start. Raises
    `subprocess.TimeoutExpired` when the time `end` comes first."""
    said = b""
    with epoll() as poller:
        poller.register(descriptor, select.EPOLLIN)
        while said != READY:
            left = max(0.0, end - time.monotonic())
            if not poller.poll(left):
                raise subprocess.TimeoutExpired("irmd", left)
            if not (more := os.read(descriptor, len(READY))):
                break
            said += more
    return said


def _last_words(directory: Path) -> str:
    words = log_of(directory).read_text(errors="replace").strip().splitlines()
    return words[-1] if words else ""


def _how_it_ended(status: int) -> str:
    # By us, as a rule.
    return "it said nothing in time" if status == -signal.SIGKILL else f"it said nothing and ended with status {status}"


# --- the command


def _command() -> tuple[list[str], dict[str, str]]:
    """The command for an `irmd`, and variables for it alone. Raises `NodeError` when there is none."""
    if chosen := os.environ.get(CHOSEN):
        # The node has another working directory.
        return [os.path.abspath(shutil.which(chosen) or chosen)], {}
    if interpreter := _find_interpreter():
        return interpreter_command(interpreter)
    if irmd := _find_irmd():
        return [irmd], {}
    raise NodeError(
        f"no node runs, and this program cannot start one: it has no Python interpreter (sys.executable is"
        f" {sys.executable!r}), and there is no irmd of PyOuroboros on PATH; run `irmd`, or set {CHOSEN} to the command"
    )


def _find_interpreter() -> str | None:
    """An interpreter for our modules. `sys.executable` can be the program itself (frozen, or with Python inside), and to run
    that again would be wrong; so its name decides, then the names of its relatives."""
    if getattr(sys, "frozen", False):
        # The modules are in the program.
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folders = [os.path.join(prefix, "bin") for prefix in (sys.prefix, sys.base_prefix)]
    beside = [os.path.join(folder, name) for folder in folders for name in (f"python{version}", "python3")]
    for path in (sys.executable, beside[0], beside[1], getattr(sys, "_base_executable", None), *beside[2:]):
        if path and _INTERPRETER.fullmatch(os.path.basename(path)) and shutil.which(path):
            return os.path.abspath(path)
    return None


def _find_irmd() -> str | None:
    """The first `irmd` on PATH that belongs to PyOuroboros. The C prototype has one, too, but no `ouroboros` beside it."""
    for folder in os.get_exec_path():
        irmd = os.path.join(folder, "irmd")
        if shutil.which(irmd) and shutil.which(os.path.join(folder, "ouroboros")):
            return os.path.abspath(irmd)
    return None
