"""Loading the C library into this process, once, and only when that cannot end the process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cffi

from ouroboros.errors import FlowException, NodeError
from ouroboros.native import declarations
from ouroboros.native.find import Installed, daemon, installed

#: Seconds that a library may take to start. It asks the daemon twice.
_PATIENCE = 10.0

#: Loads a library in a process of its own. A constructor that fails ends that process, not ours, and leaves no core file.
_TRIAL = "import ctypes, resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.CDLL(sys.argv[1])"

#: Crashes in a row after which the library counts as broken. The prototype's crashes at up to one start in seven on a busy
#: machine (B25).
_TRIALS = 5

#: Programs whose name the library takes from the first argument; without one it ends the process.
_INTERPRETERS = ("python", "python2", "python3")


@dataclass
class Library:
    """The C functions. `dev` and `irm` may be anything that behaves like them, with the pointers of `ffi`."""

    ffi: Any
    dev: Any
    version: tuple[int, int]
    #: Whether it is the one of this project, which leads to our node.
    ours: bool = False
    release: str = ""
    path: Path | None = None
    #: The process that may use it: a child of a fork has none of its threads, and the daemon does not know it.
    pid: int = field(default_factory=os.getpid)
    _irm: Any = None

    @property
    def irm(self) -> Any:  # noqa: ANN401
        """The functions of the management library. Raises `NodeError` when it is not installed."""
        if self._irm is None:
            assert self.path is not None
            path = self.path.with_name(self.path.name.replace("-dev", "-irm"))
            try:
                self._irm = self.ffi.dlopen(str(path))
            except OSError as error:
                raise NodeError(f"cannot load {path}: {error}") from error
        return self._irm

    def check_process(self) -> None:
        """Raise `FlowException` in the child of a fork."""
        if self.pid != os.getpid():
            raise FlowException(
                "this process was forked from one that uses the C Ouroboros, which cannot be used in both: start it as a"
                " program of its own (multiprocessing: method 'spawn' or 'forkserver')"
            )

    def number(self, result: int) -> int:
        """The error number in a result below 0, in the numbering of 0.23."""
        return declarations.error_number(self.version, result)


_loaded: Library | None = None
_lock = threading.Lock()


def loaded() -> Library | None:
    """The library, if it is loaded already."""
    return _loaded


def load() -> Library:
    """The library, loaded by the first call. Raises `NodeError` when it is not there or would end this process."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load(installed())
            os.register_at_fork(after_in_child=_end_child_without_destructors)
        _loaded.check_process()
        return _loaded


def _load(found: Installed) -> Library:
    if not found.ours:
        _check_name()
        daemon()
        _try_out(found.path)
    ffi = cffi.FFI()
    ffi.cdef(declarations.declarations(found.version))
    # Its threads inherit the signal mask; signals are for the threads of Python.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        dev = ffi.dlopen(str(found.path))
    except OSError as error:
        raise NodeError(f"cannot load {found.path}: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Library(ffi, dev, found.version, found.ours, found.release, found.path)


def _check_name() -> None:
    """The library takes the name of the program from its arguments, and ends it when there is none."""
    arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    if len(arguments) == 1 and os.path.basename(arguments[0]).decode(errors="replace") in _INTERPRETERS:
        raise NodeError(
            "the C Ouroboros would end an interpreter that was started without arguments, as it finds no name for the"
            f" program: start it as `{os.path.basename(sys.executable)} -q`"
        )


def _try_out(path: Path) -> None:
    """Load the library in a process of its own first: with a daemon of another version, or memory that may not be opened, it
    ends its process. A start that crashes may work the next time, and is tried again; one that gives up will not."""
    for _ in range(_TRIALS):
        trial = _start(path)
        if trial.returncode >= 0:
            break
    if trial.returncode < 0:
        how = signal.strsignal(-trial.returncode) or f"signal {-trial.returncode}"
        raise NodeError(f"{path} crashed at each of {_TRIALS} starts ({how}): restart the daemon of the C Ouroboros")
    if trial.returncode:
        said = trial.stderr.decode(errors="replace").strip().splitlines()
        raise NodeError(f"{path} does not start here: {said[-1] if said else f'status {trial.returncode}'}")


def _start(path: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{path} does not start: the daemon of the C Ouroboros does not answer it") from error
    except OSError as error:
        raise NodeError(f"cannot try out {path}: {error.strerror}") from error


def _end_child_without_destructors() -> None:
    """In the child of a fork: the destructor of the library would take down the flows of the parent when the child ends.

    What the child registers now runs before it, and ends the process with its status.
    """
    if _loaded is None or _loaded.ours:
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):
        return
    libc.on_exit(libc._exit, None)
    # Last registered, first called: buffered output of C is not lost.
    libc.__cxa_atexit(libc.fcloseall, None, None)
