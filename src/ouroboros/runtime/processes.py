"""The processes that use a node: which of them a caller is, and when each ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from ouroboros.control.irm import Irm
from ouroboros.control.parties import Process
from ouroboros.errors import NodeError
from ouroboros.runtime.callers import Callers
from ouroboros.runtime.peers import has_ended, identify
from ouroboros.runtime.turns import Caller
from ouroboros.wire.control import Hello


class Processes:
    """`ended`: is called with the number of each process that is over, and with the process if it said hello."""

    def __init__(self, irm: Irm, callers: Callers, ended: Callable[[int, Process | None], None]) -> None:
        self._irm = irm
        self._callers = callers
        self._ended = ended
        self._pidfds: dict[int, int] = {}
        #: The connection by which each process arrived, by pid: what it said to be, and when it was accepted.
        self._arrivals: dict[int, tuple[int, float]] = {}

    def identify(self, caller: Caller, hello: Hello) -> Process:
        """The process of a caller, and what the connection may do. Raises `NodeError` when it cannot be told, `NameError`
        when it cannot be called so, and `OSError` when it cannot be watched."""
        peer = identify(caller.sock, caller.accepted)
        pid = peer.pid
        # First, because it can fail: a process whose end we do not see would never be forgotten.
        is_new = self.watch(pid, peer.pidfd)
        # From here on the process that is known by the number is the one that connected.
        known = self._irm.process(pid)
        if known is not None:
            instance, arrived = self._arrivals[pid]
            if instance == hello.instance:
                # It may have changed its user: what it holds stays, and from now on its name is only what a stranger says.
                known.trusted &= caller.trusted
                return known
            if caller.accepted < arrived:
                # Else whoever executes a program with the rights of another user, and keeps a connection from before,
                # could speak for it.
                raise NodeError(f"process {pid} executed another program since it made this connection: connect anew")
            # The process lives but is not what it was.
            self._forget(known)
            is_new = True
        try:
            process = self._irm.process_arrived(pid, peer.uid, hello.program)
        except BaseException:
            if is_new:
                # One that is not let in has no descriptor of ours.
                _stop_watching(self._pidfds.pop(pid))
            raise
        self._arrivals[pid] = (hello.instance, caller.accepted)
        return process

    def watch(self, pid: int, pidfd: int) -> bool:
        """Watch a process that lived a moment ago; whether it was not watched before. Takes the pidfd."""
        if pid in self._pidfds and has_ended(self._pidfds[pid]):
            # We are about to be told. Its number has gone to another process already.
            self._gone(pid)
        if pid in self._pidfds:
            os.close(pidfd)
            return False
        try:
            asyncio.get_running_loop().add_reader(pidfd, self._gone, pid)
        except OSError:
            os.close(pidfd)
            raise
        self._pidfds[pid] = pidfd
        return True

    def shut_down(self) -> None:
        for pidfd in self._pidfds.values():
            _stop_watching(pidfd)

    def _gone(self, pid: int) -> None:
        _stop_watching(self._pidfds.pop(pid))
        process = self._irm.process(pid)
        if process is not None:
            self._forget(process)
        self._ended(pid, process)

    def _forget(self, process: Process) -> None:
        self._callers.forget(process)
        del self._arrivals[process.pid]
        self._irm.process_died(process, asyncio.get_running_loop().time())


def _stop_watching(pidfd: int) -> None:
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
