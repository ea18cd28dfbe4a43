"""The real clock: a process for each node, forked by one that has imported all, links over UDP on loopback
addresses."""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ouroboros import aio
from ouroboros.errors import NodeError
from ouroboros.lab.description import Link
from ouroboros.lab.errors import LabError
from ouroboros.lab.ground import NOT_HERE, Flow, Ground, Job, T
from ouroboros.qos import QoSSpec
from ouroboros.runtime import client
from ouroboros.runtime.embedded import log_of
from ouroboros.runtime.paths import node_at
from ouroboros.testing.forks import Forks
from ouroboros.wire.control import Request

_lock = threading.Lock()
_forks: dict[tuple[str, ...], Forks] = {}


def shared(prefix: tuple[str, ...] = ()) -> Forks:
    """The process that forks, one for all laboratories: its imports are what costs. `prefix`: as of `Forks`, of one
    that has nodes apart."""
    with _lock:
        if prefix not in _forks or not _forks[prefix].running:
            _forks[prefix] = Forks(prefix, apart=bool(prefix))
        return _forks[prefix]


def warm_up() -> None:
    """Have the process that forks started, before the first laboratory needs it."""
    shared()


@atexit.register
def _end() -> None:
    with _lock:
        for each in _forks.values():
            each.close()
        _forks.clear()


# A copy of the process has copies of the pipes: the nodes must not wait for it to close them, nor be ended by it.
os.register_at_fork(after_in_child=_forks.clear)


class RealGround(Ground):
    """See the module."""

    clock = "real"
    # Loopback has one address of IPv6, and no Ethernet.
    links: tuple[str, ...] = ("udp4",)

    def __init__(self, forks: Forks | None = None) -> None:
        self._forks = shared() if forks is None else forks
        self.random = random.SystemRandom()
        self._subnet = self.random.randrange(16, 255)
        self._reserved, self._port = _free_port(self._subnet)
        # Short, for the path of a socket.
        self._directory = Path(tempfile.mkdtemp(prefix="ouroboros-lab-"))
        self._running: set[str] = set()
        self._pids: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="laboratory", daemon=True)
        self._thread.start()
        self._aside: set[Future[Any]] = set()

    # --- time

    def run(self, job: Job[T]) -> T:
        if threading.current_thread() is self._thread:
            job.close()
            raise LabError(NOT_HERE)
        running = asyncio.run_coroutine_threadsafe(job, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def begin(self, job: Job[Any]) -> Callable[[], None]:
        running = asyncio.run_coroutine_threadsafe(job, self._loop)
        self._aside.add(running)
        running.add_done_callback(self._note_aside)

        def end() -> None:
            running.cancel()

        return end

    def _note_aside(self, running: Future[Any]) -> None:
        self._aside.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            self._loop.call_exception_handler({"message": "a coroutine of the laboratory failed", "exception": error})

    def now(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def within(self, seconds: float, job: Job[T]) -> T:
        return await asyncio.wait_for(job, seconds)

    async def all(self, jobs: Sequence[Job[T]]) -> list[T]:
        async with _Group() as group:
            tasks = [group.create_task(job) for job in jobs]
        return [task.result() for task in tasks]

    # --- nodes

    def directory(self, node: str) -> Path:
        return self._directory / node

    def security(self, node: str) -> Path:
        return self._directory / f"{node}.security"

    async def add(self, name: str) -> None:
        self.directory(name).mkdir(mode=0o700, exist_ok=True)
        try:
            starting = self._forks.start(self._key(name), self.directory(name), self.security(name))
            self._running.add(name)
            self._pids[name] = await asyncio.wrap_future(starting)
        except NodeError as error:
            raise NodeError(f"node {name} did not start: {error}\n{self.log(name)}") from error

    def secure(self, node: str, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            file = self.security(node) / path
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A key is for its owner alone from the start.
            file.touch(mode=0o600)
            file.write_bytes(content)

    @property
    def wall(self) -> int:
        return time.time_ns()

    async def kill(self, name: str) -> None:
        self._forks.signal(self._key(name), signal.SIGKILL)
        await asyncio.wrap_future(self._forks.ended(self._key(name)))
        self._running.discard(name)

    async def pause(self, name: str) -> None:
        await asyncio.wrap_future(self._forks.signal(self._key(name), signal.SIGSTOP))

    async def resume(self, name: str) -> None:
        await asyncio.wrap_future(self._forks.signal(self._key(name), signal.SIGCONT))

    def pid(self, node: str) -> int:
        """The process of a node."""
        return self._pids[node]

    async def request(self, node: str, request: Request) -> Any:  # noqa: ANN401
        with node_at(self.directory(node)):
            return (await aio.outcome(client.ask(request, start=False))).value

    async def alloc(self, node: str, name: str, qos: QoSSpec, timeo: float | None) -> Flow:
        with node_at(self.directory(node)):
            return await aio.flow_alloc(name, qos, timeo)

    async def accept(self, node: str, name: str) -> Flow:
        with node_at(self.directory(node)):
            return await aio.flow_accept(name=name)

    async def join(self, node: str, layer: str) -> Flow:
        with node_at(self.directory(node)):
            return await aio.flow_join(layer)

    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        high, low = divmod(2 * number + 2, 256)
        return f"127.{self._subnet}.{high}.{low}", f"127.{self._subnet}.{high}.{low + 1}"

    @property
    def port(self) -> int:
        return self._port

    def command(self, node: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        chosen = {
            "OUROBOROS_RUNTIME_DIR": str(self.directory(node)),
            "OUROBOROS_SECURITY_DIR": str(self.security(node)),
            "OUROBOROS_BACKEND": "node",
            "OUROBOROS_AUTOSTART": "0",
            # Our commands, for whoever did not activate the environment that they are in.
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]),
        }
        return list(words), os.environ | chosen

    def log(self, node: str) -> str:
        path = log_of(self.directory(node))
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        try:
            self.run(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._reserved.close()
            for each in self._directory.iterdir():
                client.client.disconnect(str(each))
            shutil.rmtree(self._directory)

    async def _end(self) -> None:
        for running in list(self._aside):
            running.cancel()
        for name in self._running:
            # One that stands still does not hear the other.
            self._forks.signal(self._key(name), signal.SIGTERM)
            self._forks.signal(self._key(name), signal.SIGCONT)
        await asyncio.gather(*(asyncio.wrap_future(self._forks.ended(self._key(name))) for name in self._running))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _key(self, name: str) -> str:
        """Laboratories share the process that forks."""
        return str(self.directory(name))


class _Group(asyncio.TaskGroup):
    """One that raises what the first of its tasks raised, and not a group of it."""

    async def __aexit__(self, kind: Any, value: Any, trace: Any) -> None:  # noqa: ANN401
        try:
            await super().__aexit__(kind, value, trace)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _free_port(subnet: int) -> tuple[socket.socket, int]:
    """A port that nobody has on addresses of the subnet, and the socket that keeps it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((f"127.{subnet}.0.0", 0))
    except OSError:
        sock.close()
        raise
    return sock, int(sock.getsockname()[1])


__all__ = ["RealGround", "warm_up"]
