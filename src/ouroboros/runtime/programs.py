"""The programs that a node starts for names to which they are bound: how they begin, and how they ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ouroboros.control.irm import Irm
from ouroboros.control.parties import Process
from ouroboros.layers.effects import Effect, StartProgram
from ouroboros.runtime.children import environment
from ouroboros.runtime.processes import Processes
from ouroboros.runtime.security import give_core_files

log = logging.getLogger("ouroboros.irmd")

#: Seconds that programs get to end when the node does.
GRACE = 5.0


class _Program(NamedTuple):
    child: subprocess.Popen[bytes]
    #: For which it was started.
    name: str
    #: Its name, for people.
    title: str


class Programs:
    """Programs of the node in `directory`. `core_files`: what they are to have of theirs, see `keep_out_of_core_files`."""

    def __init__(self, irm: Irm, processes: Processes, directory: Path, core_files: str | None) -> None:
        self._irm = irm
        self._processes = processes
        self._directory = directory
        self._core_files = core_files
        self._running: dict[int, _Program] = {}
        self.handlers: dict[type[Effect], Callable[[Any], None]] = {StartProgram: self.start}

    def __len__(self) -> int:
        """Programs that have not ended."""
        return len(self._running)

    def start(self, effect: StartProgram) -> None:
        title = effect.path.rpartition("/")[2]
        # It is started for a flow of this node, whatever stack programs use otherwise.
        own = {"OUROBOROS_RUNTIME_DIR": str(self._directory), "OUROBOROS_BACKEND": "node"}
        try:
            child = subprocess.Popen(
                [effect.path, *effect.args],
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment(os.environ) | own,
            )
        except OSError as error:
            how = f"could not be started: {error.strerror}"
            log.warning("%s, wanted for %s, %s", title, effect.name, how)
            self._irm.program_ended(effect.name, title, how, False, asyncio.get_running_loop().time())
            return
        give_core_files(child.pid, self._core_files)
        log.info("started %s (%d) for %s", title, child.pid, effect.name)
        # Before it counts as a child of ours: one that had its number before may still have to be forgotten.
        self._processes.watch(child.pid, os.pidfd_open(child.pid))
        self._running[child.pid] = _Program(child, effect.name, title)

    def process_ended(self, pid: int, process: Process | None) -> None:
        """A process is over, which may be one of these."""
        if (program := self._running.pop(pid, None)) is None:
            return
        how = _how_it_ended(program.child.wait())
        log.info("%s, started for %s, %s", program.title, program.name, how)
        served = process is not None and program.name in process.served
        self._irm.program_ended(program.name, program.title, how, served, asyncio.get_running_loop().time())

    async def shut_down(self) -> None:
        """End them, and wait until they have."""
        for program in self._running.values():
            program.child.terminate()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GRACE
        for child, _, title in self._running.values():
            try:
                await asyncio.to_thread(child.wait, max(0.0, deadline - loop.time()))
            except subprocess.TimeoutExpired:
                log.warning("%s does not end: killed", title)
                child.kill()
                child.wait()


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
