"""What a laboratory stands on: a clock, and nodes that take requests and carry flows. One for each clock.

All verbs but `run`, `add` and `close` are awaited, in coroutines that `run` lets run; so what a laboratory does is
written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ouroboros.lab.description import Link
from ouroboros.lab.errors import LabError
from ouroboros.layers.face import Random
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Request

#: What is said to a coroutine that calls what would wait for it.
NOT_HERE = "a coroutine of the laboratory cannot call what waits: it has `await` and the verbs of what it was given"

T = TypeVar("T")
Job = Coroutine[Any, Any, T]


class Flow(Protocol):
    """A flow of a program on a node of a laboratory, on each clock the same: the verbs of `ouroboros.aio.Flow`."""

    def read(self) -> Awaitable[bytes]:
        """Wait for a packet, and return it. Raises `FlowDownException` when the other end is gone."""

    def write(self, buf: bytes) -> Awaitable[int]:
        """Wait for room, and write a packet."""

    def dealloc(self) -> None:
        """Let go of it."""


class Ground(ABC):
    """See the module. Nodes are known by name."""

    #: What happens to time: "real", "namespaces" or "virtual".
    clock: str
    #: Types of links that it has.
    links: tuple[str, ...]
    #: Of keys.
    random: Random
    #: Nodes that run the C prototype.
    foreign: Collection[str] = ()

    # --- time

    @abstractmethod
    def run(self, job: Job[T]) -> T:
        """Let a coroutine run to its end, and time pass for it. Raises what it raises."""

    @abstractmethod
    def begin(self, job: Job[Any]) -> Callable[[], None]:
        """Let a coroutine run beside others until it ends. Returns what ends it before."""

    @abstractmethod
    def now(self) -> float:
        """Seconds."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    @abstractmethod
    async def within(self, seconds: float, job: Job[T]) -> T:
        """Raises `TimeoutError` when the coroutine has not ended by then; it is cancelled."""

    @abstractmethod
    async def all(self, jobs: Sequence[Job[T]]) -> list[T]:
        """Let coroutines run beside each other. The first exception ends the others, and is raised."""

    # --- nodes

    @abstractmethod
    async def add(self, name: str) -> None:
        """A node begins: for the first time, or anew after `kill`, with the memory that it had."""

    @abstractmethod
    def secure(self, node: str, files: Mapping[str, bytes]) -> None:
        """Have these files in the security directory of a node that begins later."""

    @property
    @abstractmethod
    def wall(self) -> int:
        """Nanoseconds since 1970, as the nodes have it."""

    @abstractmethod
    async def kill(self, name: str) -> None:
        """As SIGKILL: nobody is told."""

    @abstractmethod
    async def pause(self, name: str) -> None:
        """As SIGSTOP."""

    @abstractmethod
    async def resume(self, name: str) -> None:
        """As SIGCONT."""

    @abstractmethod
    async def request(self, node: str, request: Request) -> Any:  # noqa: ANN401
        """A request of management. Raises the exception that the node names, and `NodeError` when the node is gone."""

    @abstractmethod
    async def alloc(self, node: str, name: str, qos: QoSSpec, timeo: float | None) -> Flow:
        """As `flow_alloc`."""

    @abstractmethod
    async def accept(self, node: str, name: str) -> Flow:
        """As `flow_accept`."""

    @abstractmethod
    async def join(self, node: str, layer: str) -> Flow:
        """As `flow_join`."""

    async def echo(self, node: str, name: str) -> None:
        """Have a node of the prototype give back packets of `oping`, of all flows to that name."""
        raise AssertionError(node)

    async def ping(self, node: str, name: str, count: int, length: int) -> list[float | None] | None:
        """Round trips of packets from a node of the prototype to a name, seconds; None for one that is lost. None: no
        flow leads there."""
        raise AssertionError(node)

    def check(self, link: Link) -> None:
        """Raises `LabError` for a link of a type that there is not."""
        if link.type not in self.links:
            there = ", ".join(self.links)
            other = "namespaces" if self.clock != "namespaces" else "real"
            raise LabError(
                f"link {link.name}: {self.clock} time has links of type {there}, not {link.type}: take clock='{other}'"
            )

    @abstractmethod
    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        """Of the two ends of the link of that number; names of devices, of an Ethernet."""

    async def lay(self, links: Sequence[tuple[int, Link]]) -> None:  # noqa: B027 - most links need no device
        """Have the links of these numbers between nodes that run, for good."""

    def impairs(self, link: Link) -> bool:
        """Whether `change` does what happens to the packets of a link; else the layers at its ends do."""
        return link.is_ethernet

    async def change(self, number: int, link: Link, ways: Sequence[str], *, plugged: bool) -> None:
        """Put both plugs of a link in, or pull them, and have this happen to packets forth and back."""
        raise LabError(f"link {link.name}: {self.clock} time has no Ethernet")

    @property
    @abstractmethod
    def port(self) -> int:
        """Of UDP."""

    # --- on real clocks only

    def command(self, node: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command line that runs a program on a node, and its environment."""
        raise LabError(f"no programs run in {self.clock} time: run a coroutine (`Node.run`), or take clock='real'")

    def directory(self, node: str) -> Path:
        """The runtime directory of a node."""
        raise LabError(f"nodes have no runtime directory in {self.clock} time: take clock='real'")

    def security(self, node: str) -> Path:
        """The security directory of a node."""
        raise LabError(f"nodes have no security directory in {self.clock} time: take clock='real'")

    def log(self, node: str) -> str:
        """What the node had to say."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """End all of it."""
