"""Programs of nodes in virtual time, their requests and flows. Whatever waits lets time pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ouroboros import errors
from ouroboros.control.parties import Process
from ouroboros.errors import FlowDownException, FlowTimeoutException, OuroborosError
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Accept, Alloc, Answer, Dealloc, Done, Failed, Granted, Join

if TYPE_CHECKING:
    from ouroboros.testing.sim.node import Node

_T = TypeVar("_T")


class Program:
    """A program of a node, made by `Node.program`."""

    def __init__(self, node: Node, process: Process) -> None:
        self.node = node
        self.process = process
        self._asked: list[Asked] = []

    def alloc(
        self,
        name: str,
        qos: QoSSpec | None = None,
        timeout: float | None = None,
        *,
        wait: bool = False,
        layer: str | None = None,
    ) -> Asked:
        """Ask for a flow. `timeout`, `wait`, `layer`: as of `flow_alloc`."""
        return self._ask(Alloc(name, QoSSpec() if qos is None else qos, timeout, wait, layer))

    def accept(self, name: str | None = None, timeout: float | None = None) -> Asked:
        """Wait for a flow to a name; None: to any that the program is bound to."""
        return self._ask(Accept(name, timeout))

    def join(self, layer: str, timeout: float | None = None) -> Asked:
        """Ask for a flow of a broadcast layer. `timeout`: as of `flow_join`."""
        return self._ask(Join(layer, QoSSpec(), timeout))

    def die(self) -> None:
        """End without a word."""
        for asked in self._asked:
            if isinstance(asked.answer, Granted):
                asked.flow.abandon()
        self.node.died(self.process)

    def _ask(self, request: Alloc | Accept | Join) -> Asked:
        asked = self.node.ask(self.process, request, user=self.process.uid)
        self._asked.append(asked)
        return asked


class Asked:
    """A request. `answer`: None while there is none."""

    def __init__(self, node: Node, token: int, process: Process) -> None:
        self.node = node
        self.token = token
        self.process = process
        self.answer: Answer | None = None
        #: Called when there is an answer.
        self.answered: Callable[[], None] | None = None
        #: Of the flow in the engine.
        self.number = -1
        self._flow: Flow | None = None

    @property
    def value(self) -> object:
        """The value of the answer. Raises the error of the answer, and `FlowTimeoutException` while there is none."""
        match self.answer:
            case None:
                raise FlowTimeoutException("there is no answer yet; let time pass")
            case Failed(error=kind, text=text):
                error: OuroborosError = getattr(errors, kind)(text)
                raise error
            case Done(value=value):
                return value
            case Granted() as granted:
                if self._flow is None:
                    self._flow = Flow(self.node, self.process, granted, self.number)
                return self._flow
        raise AssertionError(self.answer)

    @property
    def flow(self) -> Flow:
        """The flow that was asked for. Raises as `value`."""
        flow = self.value
        assert isinstance(flow, Flow), flow
        return flow

    def wait(self, seconds: float = 60.0) -> Asked:
        """Let time pass until it is answered, so many seconds at the most."""
        self.node.network.run_until(lambda: self.answer is not None, seconds)
        return self

    def cancel(self) -> None:
        """There will be no answer."""
        self.node.cancel(self.token)


class Flow:
    """An end of a flow of a program. `granted`: what the node says of it."""

    def __init__(self, node: Node, process: Process, granted: Granted, number: int) -> None:
        self.granted = granted
        self._node = node
        self._process = process
        self._number = number
        self._held = True

    @property
    def qos(self) -> QoSSpec:
        return self.granted.qos

    def write(self, packet: bytes, seconds: float = 60.0) -> None:
        """Let time pass until there is room for the packet. Raises as `dev.Flow.write`."""
        if not self._until(lambda: self.offer(packet) or None, seconds):
            raise FlowTimeoutException(f"no room to write within {seconds} s")

    def read(self, seconds: float = 60.0) -> bytes:
        """Let time pass until there is a packet. Raises as `dev.Flow.read`."""
        packet = self._until(self.poll, seconds)
        if packet is None:
            raise FlowTimeoutException(f"no packet to read within {seconds} s")
        return packet

    def poll(self) -> bytes | None:
        """The next packet, if there is one now."""
        self._check()
        return self._node.engine.read(self._number)

    def offer(self, packet: bytes) -> bool:
        """Write the packet if there is room for it now."""
        self._check()
        return self._node.engine.write(self._number, packet)

    def watch(self, on: bool) -> None:
        """Whether time stops when something happens to the flow."""
        if self._held:
            self._node.engine.watch(self._number, on)

    def _check(self) -> None:
        if self._node.crashed:
            raise FlowDownException("the node that carried this flow is gone")

    def _until(self, attempt: Callable[[], _T | None], seconds: float) -> _T | None:
        outcome: _T | None = None

        def done() -> bool:
            nonlocal outcome
            outcome = attempt()
            return outcome is not None

        self.watch(True)
        try:
            self._node.network.run_until(done, seconds)
        finally:
            self.watch(False)
        return outcome

    def dealloc(self) -> None:
        """Let go: what was written is sent. Nothing the second time."""
        if self._let_go(died=False) and not self._node.crashed:
            self._node.tell(self._process, Dealloc(self.granted.flow_id, self.granted.side))

    def abandon(self) -> None:
        """The program died."""
        self._let_go(died=True)

    def _let_go(self, *, died: bool) -> bool:
        held, self._held = self._held, False
        if held and not self._node.crashed:
            self._node.engine.let_go(self._number, died)
            self._node.engine.forget(self._number)
        return held

    # --- a program that needs no Python

    def source(self, count: int, length: int, interval: float = 0.0) -> None:
        """Have the program write so many packets of `length` bytes, one each `interval` seconds or as fast as it can, and
        read all that comes."""
        self._node.engine.source(self._number, count, length, round(interval * 1e9))

    def sink(self) -> None:
        """Have the program read all that comes."""
        self._node.engine.sink(self._number)

    def echo(self) -> None:
        """Have the program write back all that comes."""
        self._node.engine.echo(self._number)

    def tally(self) -> dict[str, int]:
        """Counters of such a program: packets `written` and `read`, `bytes` read, packets out of order (`disordered`)."""
        return self._node.engine.tally(self._number)
