"""Processes that we start do not inherit what belongs to their starter alone.

=============================  ===================================================================================
environment                    `SPEAKS_FOR_PARENT`; an embedded node no `PYTHON…` but for `PYTHON_PLACES`
descriptors                    any but standard input (nothing), output and error (the log)
blocked and ignored signals    a node that ignores SIGTERM cannot be ended
working directory              it is `/`, so that no file system is kept busy
file mode mask                 it is 077: files of a node are for its user
limits                         those in `LIMITS` are as high as they may be
nice value, scheduling,        the usual ones, as far as the kernel allows
processors, oom_score_adj
session, terminal              its own, and none: keys typed at the program are not for the node
=============================  ===================================================================================

All of it holds for an embedded node, and so for the programs that it starts. A node that a user runs (`irmd`) keeps
directory, mask, limits and priority, which the user chose for it; programs that it starts get them, but for the directory.
`rust/client/src/embedded.rs` has the same lists of variables.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: Variables by which a supervisor talks to one program alone: readiness, watchdog, passed sockets and the unit
#: of systemd; the job server of make; a working directory that is another one in the child.
SPEAKS_FOR_PARENT = frozenset(
    {
        "CREDENTIALS_DIRECTORY",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "MAINPID",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MANAGERPID",
        "MANAGERPIDFDID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "MFLAGS",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)

#: Where an interpreter finds modules and leaves compiled ones. Any other `PYTHON…` is about the program that it was set for:
#: with `PYTHONWARNINGS=error` or `PYTHONINSPECT=1` a node would be another one.
PYTHON_PLACES = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHOME",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "PYTHONPLATLIBDIR",
        "PYTHONPYCACHEPREFIX",
        "PYTHONSAFEPATH",
        "PYTHONUSERBASE",
    }
)

#: Set for a process that is to become a node, to the pid of its starter. Such a process starts no node itself.
STARTED_BY = "OUROBOROS_STARTED_BY"

#: `PYTHONPATH` as it was before the folders for the node were put in front.
PYTHONPATH_BEFORE = "OUROBOROS_PYTHONPATH_BEFORE"

#: A limit of a program does not bind a process that outlives it. The stack and core files are
#: left as they are: more is not always better there.
LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_RSS,
)

_MASK = 0o077
_FIRST = 3


def environment(inherited: Mapping[str, str], *, for_python: bool = False) -> dict[str, str]:
    """The environment of a child. `for_python`: of a node that runs in an interpreter."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in SPEAKS_FOR_PARENT
        and not (for_python and name.startswith("PYTHON") and name not in PYTHON_PLACES)
    }


def heed_signals() -> None:
    """In a node: let no signal be blocked or ignored because its starter did so."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Those that the interpreter itself ignores it restores for programs that it starts.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def forget_starter() -> None:
    """In a node that is started: hide from its programs how that was done."""
    os.environ.pop(STARTED_BY, None)
    if (before := os.environ.pop(PYTHONPATH_BEFORE, None)) is not None:
        os.environ["PYTHONPATH"] = before
        if not before:
            del os.environ["PYTHONPATH"]


def become_independent(keep: Iterable[int]) -> None:
    """In an embedded node, first of all: let go of all that its starter left it. `keep`: descriptors."""
    _close_inherited(set(keep))
    os.chdir("/")
    os.umask(_MASK)
    for limit in LIMITS:
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))
    usual: list[Callable[[], object]] = [
        lambda: os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0)),
        lambda: os.setpriority(os.PRIO_PROCESS, 0, 0),
        lambda: os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF"))),
        lambda: Path("/proc/self/oom_score_adj").write_text("0"),
    ]
    for restore in usual:
        # Not every user may raise its priority; then that stays as it is.
        with contextlib.suppress(OSError):
            restore()


def _close_inherited(keep: set[int]) -> None:
    """Close descriptors that came through the exec. They lack the mark to be closed by one; all that were opened since have
    it."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number < _FIRST or number in keep:
            continue
        # The descriptor of the folder itself is gone.
        with contextlib.suppress(OSError):
            if not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(number)
