"""The machine under a node: its engine, clock, chance and the network of the system."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from ouroboros.control.shares import PEERS
from ouroboros.dataplane import Engine
from ouroboros.errors import ProtocolError
from ouroboros.layers.effects import Address, OpenPort, Resolve
from ouroboros.layers.face import Random
from ouroboros.runtime import figures
from ouroboros.runtime.descriptors import duplicates
from ouroboros.runtime.devices import Device, Devices
from ouroboros.runtime.held import News, Program
from ouroboros.runtime.journal import Journal
from ouroboros.runtime.ports import Resolver, open_port, path_mtu
from ouroboros.wire.counters import Counters

log = logging.getLogger("ouroboros.irmd")

#: Events that are handled before others in the loop get their turn.
_MOST_EVENTS = 64


class RealMachine:
    """A `Machine` of `runtime.held`. What is asked of it happens in the running loop."""

    def __init__(self, directory: Path | None = None, journal: Journal | None = None) -> None:
        """`directory`: where the engine has its file of counters; None: nowhere."""
        self._journal = Journal(lambda user: False) if journal is None else journal
        self.random: Random = random.SystemRandom()
        self.instance = 0
        self._path = None if directory is None else directory / figures.COUNTERS
        #: That file, to read.
        self._counters: int | None = None
        self._resolver = Resolver()
        self._devices = Devices()
        self._engine: Engine | None = None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> int:
        return time.time_ns()

    def start(self, heard: Callable[[News, str | None], None]) -> Engine:
        def read() -> None:
            heard(engine.take_events(_MOST_EVENTS), engine.failure)

        self._engine = engine = self._make_engine()
        asyncio.get_running_loop().add_reader(engine.fileno(), read)
        return engine

    def _make_engine(self) -> Engine:
        """One that shows its counters in a file, if there can be one."""
        self.instance = self.random.getrandbits(64)
        if self._path is None:
            return Engine()
        try:
            file = figures.create(self._path)
        except OSError as error:
            return self._without_file(error)
        try:
            engine = Engine(os.dup(file), self.instance)
            figures.put(self._path)
        except OSError as error:
            os.close(file)
            return self._without_file(error)
        self._counters = file
        return engine

    def _without_file(self, error: OSError) -> Engine:
        assert self._path is not None
        figures.discard(self._path)
        log.warning("%s cannot be written, so whoever asks for counters wakes the engine: %s", self._path, error)
        return Engine()

    def counters(self) -> Counters | None:
        try:
            return None if self._counters is None else figures.counters_of(self._counters)
        except ProtocolError as error:
            log.warning("somebody has written to %s: %s", self._path, error)
            return None

    def stop(self) -> None:
        if self._counters is not None:
            os.close(self._counters)
            self._counters = None
        engine, self._engine = self._engine, None
        if engine is not None:
            asyncio.get_running_loop().remove_reader(engine.fileno())
            engine.stop()

    def open_port(self, effect: OpenPort) -> tuple[int, int]:
        assert self._engine is not None
        return open_port(effect, self._engine)

    def watch(self, who: object, device: str, told: Callable[[Device | None], None]) -> None:
        self._devices.watch(who, device, told)

    def unwatch(self, who: object) -> None:
        self._devices.unwatch(who)

    def path_mtu(self, family: str, address: Address) -> int:
        return path_mtu(family, address)

    def resolve(self, effect: Resolve, found: Callable[[list[str]], None], *, apart: bool) -> None:
        self._resolver.resolve(effect, found, apart=apart)

    def copied(self, program: Program) -> Program:
        """The same, with descriptors for the engine."""
        return *duplicates(program[0], program[1]), program[2]

    def met_bug(self, what: str, error: Exception) -> None:
        # Peers may cause it, with each packet.
        text = f"a bug of the node, please report it: {what} could not be told"
        self._journal.write(PEERS, text, level=logging.ERROR, bug=error)

    def shut_down(self) -> None:
        self.stop()
        self._devices.close()
        self._resolver.shut_down()
