"""The virtual clock: nodes of `ouroboros.testing.sim`, and coroutines for which time passes there."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic

from ouroboros.errors import FlowTimeoutException, NodeError
from ouroboros.lab.description import Link
from ouroboros.lab.errors import LabError
from ouroboros.lab.ground import NOT_HERE, Flow, Ground, Job, T
from ouroboros.layers.face import Random
from ouroboros.qos import QoSSpec
from ouroboros.settings import Udp4Config
from ouroboros.testing import sim
from ouroboros.wire.control import Request

#: Seconds after which nothing can come any more for which something waits without a limit.
_FOR_EVER = 86_400.0


class _Wait:
    """What a coroutine waits for: awaiting it hands it to the scheduler. `begin` is given what to call, once, when it
    is there. `end` is called when the coroutine does not wait any more."""

    def __init__(self, begin: Callable[[Callable[[], None]], None], end: Callable[[], None] = lambda: None) -> None:
        self.begin = begin
        self.end = end

    def __await__(self) -> Generator[_Wait, None, None]:
        yield self


class Task(Generic[T]):
    """A coroutine that runs."""

    def __init__(self, scheduler: Scheduler, job: Job[T]) -> None:
        self._scheduler = scheduler
        self._job = job
        self._waits: _Wait | None = None
        self.done = False
        self.error: BaseException | None = None
        self._value: T | None = None
        #: Called when it is done.
        self.listeners: list[Callable[[], None]] = []

    @property
    def value(self) -> T:
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]

    def step(self, error: BaseException | None = None) -> None:
        """Let it go on."""
        if self.done:
            return
        self._stop_waiting()
        try:
            wait = self._job.send(None) if error is None else self._job.throw(error)
        except StopIteration as stopped:
            self._finish(stopped.value, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failed:  # noqa: BLE001 - whoever waits for the task has it
            self._finish(None, failed)
        else:
            self._wait(wait)

    def cancel(self) -> None:
        self.step(asyncio.CancelledError())

    def _wait(self, wait: object) -> None:
        if not isinstance(wait, _Wait):
            # Asyncio's futures mean nothing here.
            self.step(LabError("in virtual time a coroutine waits by what it was given: its flows, and `here.sleep`"))
            return
        self._waits = wait
        wait.begin(lambda: self._scheduler.wake(self, wait))

    def wakes(self, wait: _Wait) -> bool:
        return self._waits is wait

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.end()
            self._waits = None

    def _finish(self, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        self.done, self._value, self.error = True, value, error
        for listener in self.listeners:
            listener()


class Scheduler:
    """Lets coroutines run over a network."""

    def __init__(self, network: sim.Network) -> None:
        self._network = network
        self._runs = False
        self._awake: deque[tuple[Task[Any], _Wait]] = deque()
        #: What came out of a coroutine that nobody waits for.
        self._failure: BaseException | None = None
        #: What is looked at whenever something has happened.
        self._looks: dict[_Wait, tuple[Callable[[], bool], Callable[[], None]]] = {}

    def wake(self, task: Task[Any], wait: _Wait) -> None:
        self._awake.append((task, wait))

    def begin(self, job: Job[T]) -> Task[T]:
        task = Task(self, job)
        task.step()
        return task

    def begin_aside(self, job: Job[Any]) -> Task[Any]:
        """As `begin`. Nobody waits for it, so what it raises comes out of `run`."""
        task = self.begin(job)

        def ended() -> None:
            if task.error is not None and not isinstance(task.error, asyncio.CancelledError):
                self._failure = task.error

        task.listeners.append(ended)
        return task

    def run(self, job: Job[T]) -> T:
        if self._runs:
            job.close()
            raise LabError(NOT_HERE)
        self._runs = True
        try:
            return self._run(job)
        finally:
            self._runs = False

    def _run(self, job: Job[T]) -> T:
        task = self.begin(job)
        while not task.done:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                task.cancel()
                raise failure
            if not self._network.run_until(self._has_work, _FOR_EVER):
                task.cancel()
                raise LabError("nothing can happen any more that this waits for")
            while self._awake and not task.done:
                woken, wait = self._awake.popleft()
                if woken.wakes(wait):
                    woken.step()
        return task.value

    def _has_work(self) -> bool:
        for there, call in list(self._looks.values()):
            if there():
                call()
        return bool(self._awake)

    def look(self, there: Callable[[], bool]) -> _Wait:
        """Until that is so, which is looked at whenever something has happened."""

        def begin(call: Callable[[], None]) -> None:
            self._looks[wait] = there, call

        def end() -> None:
            self._looks.pop(wait, None)

        wait = _Wait(begin, end)
        return wait

    def sleep(self, seconds: float) -> _Wait:
        return _Wait(lambda call: self._network.later(max(0.0, seconds), call))


class VirtualFlow:
    """A flow of a node in virtual time."""

    def __init__(self, flow: sim.Flow, scheduler: Scheduler) -> None:
        self._flow = flow
        self._scheduler = scheduler

    async def read(self) -> bytes:
        found: list[bytes] = []

        def there() -> bool:
            if (packet := self._flow.poll()) is not None:
                found.append(packet)
            return bool(found)

        await self._until(there)
        return found[0]

    async def write(self, buf: bytes) -> int:
        await self._until(lambda: self._flow.offer(bytes(buf)))
        return len(buf)

    def dealloc(self) -> None:
        self._flow.dealloc()

    async def __aenter__(self) -> VirtualFlow:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dealloc()

    async def _until(self, attempt: Callable[[], bool]) -> None:
        error: list[Exception] = []

        def there() -> bool:
            if error:
                return True
            try:
                return attempt()
            except Exception as failed:  # noqa: BLE001 - it belongs to the coroutine
                error.append(failed)
                return True

        if not there():
            self._flow.watch(True)
            try:
                await self._scheduler.look(_once(there))
            finally:
                self._flow.watch(False)
        if error:
            raise error[0]


def _once(there: Callable[[], bool]) -> Callable[[], bool]:
    """The same, and not asked again once it was so."""
    so = False

    def asked() -> bool:
        nonlocal so
        if so:
            return False
        so = there()
        return so

    return asked


class VirtualGround(Ground):
    """See the module."""

    clock = "virtual"
    links = ("udp4", "udp6")
    port = Udp4Config().port

    def __init__(self, seed: int, *, log: bool = False) -> None:
        self.network = sim.Network(seed, log=log)
        self._scheduler = Scheduler(self.network)
        self._nodes: dict[str, sim.Node] = {}
        self._programs: dict[str, sim.Program] = {}
        self._files: dict[str, Mapping[str, bytes]] = {}
        self.random: Random = random.Random(f"{seed} certificates")

    def node(self, name: str) -> sim.Node:
        """A node, as `ouroboros.testing.sim` has it."""
        return self._nodes[name]

    # --- time

    def run(self, job: Job[T]) -> T:
        return self._scheduler.run(job)

    def begin(self, job: Job[Any]) -> Callable[[], None]:
        return self._scheduler.begin_aside(job).cancel

    def now(self) -> float:
        return self.network.now

    async def sleep(self, seconds: float) -> None:
        await self._scheduler.sleep(seconds)

    async def within(self, seconds: float, job: Job[T]) -> T:
        task = self._scheduler.begin(job)
        late: list[bool] = []

        def begin(call: Callable[[], None]) -> None:
            task.listeners.append(call)

            def passed() -> None:
                late.append(True)
                call()

            self.network.later(seconds, passed)

        try:
            if not task.done:
                await _Wait(begin)
            if not task.done:
                raise TimeoutError
            return task.value
        finally:
            task.cancel()

    async def all(self, jobs: Sequence[Job[T]]) -> list[T]:
        tasks = [self._scheduler.begin(job) for job in jobs]

        def settled() -> bool:
            return all(task.done for task in tasks) or any(task.error is not None for task in tasks)

        def begin(call: Callable[[], None]) -> None:
            for task in tasks:
                task.listeners.append(lambda: call() if settled() else None)

        try:
            if not settled():
                await _Wait(begin)
            for task in tasks:
                if task.error is not None:
                    raise task.error
            return [task.value for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    # --- nodes

    async def add(self, name: str) -> None:
        self._nodes[name] = self.network.add_node(name, security=self._files.get(name))
        self._programs.pop(name, None)

    def secure(self, node: str, files: Mapping[str, bytes]) -> None:
        self._files[node] = files

    @property
    def wall(self) -> int:
        return self.network.wall

    async def kill(self, name: str) -> None:
        self._nodes[name].crash()

    async def pause(self, name: str) -> None:
        self._nodes[name].pause()

    async def resume(self, name: str) -> None:
        self._nodes[name].resume()

    async def request(self, node: str, request: Request) -> Any:  # noqa: ANN401
        return await self._outcome(self._nodes[node].manage(request))

    async def alloc(self, node: str, name: str, qos: QoSSpec, timeo: float | None) -> Flow:
        return await self._flow(self._program(node).alloc(name, qos, timeo))

    async def accept(self, node: str, name: str) -> Flow:
        return await self._flow(self._program(node).accept(name))

    async def join(self, node: str, layer: str) -> Flow:
        return await self._flow(self._program(node).join(layer))

    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        if link.type == "udp6":
            return f"fd00::{number:x}:1", f"fd00::{number:x}:2"
        high, low = divmod(2 * number, 256)
        return f"10.{high >> 8}.{high & 255}.{low}", f"10.{high >> 8}.{high & 255}.{low + 1}"

    def log(self, node: str) -> str:
        return "".join(f"{line}\n" for line in self._nodes[node].warnings)

    def close(self) -> None:
        """Nothing of it is outside of this process."""

    def _program(self, node: str) -> sim.Program:
        if node not in self._programs:
            self._programs[node] = self._nodes[node].program("lab")
        return self._programs[node]

    async def _flow(self, asked: sim.Asked) -> Flow:
        flow = await self._outcome(asked)
        assert isinstance(flow, sim.Flow)
        return VirtualFlow(flow, self._scheduler)

    async def _outcome(self, asked: sim.Asked) -> object:
        if asked.answer is None:
            wait = _Wait(lambda call: setattr(asked, "answered", call), lambda: setattr(asked, "answered", None))
            try:
                await wait
            finally:
                if asked.answer is None:
                    asked.cancel()
        try:
            return asked.value
        except FlowTimeoutException as error:
            if asked.answer is None:
                raise NodeError("the node is gone") from error
            raise
