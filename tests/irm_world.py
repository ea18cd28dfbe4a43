"""An IRM without a node around it: requests go in, the effects come out and are kept in the order of their appearance.

It does for the IRM what the runtime does, in no time and without sockets: it numbers the requests, moves the clock from
deadline to deadline and turns effects into the answers that programs would see.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TypeVar

from ouroboros import errors
from ouroboros.control.effects import Connect, Effect, Join, Reply
from ouroboros.control.irm import Irm
from ouroboros.control.messages import Accept, Alloc, Answer, Dealloc, Done, Failed, Granted, Request
from ouroboros.control.names import Process
from ouroboros.control.security import Directory, shown
from ouroboros.dataplane import MAX_PACKET
from ouroboros.qos import QoSSpec

#: The user who runs the node.
OWNER = 1000
#: The wall clock at the start, nanoseconds since 1970.
WALL = 1_800_000_000 * 10**9

_T = TypeVar("_T")


class Files(dict[str, bytes]):
    """A security directory: content by path. What is in `unreadable` is there, but cannot be read."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        super().__init__(files or {})
        self.unreadable: set[str] = set()
        #: Paths in the order in which they were read.
        self.reads: list[str] = []

    def exists(self, path: str) -> bool:
        return any(each.startswith(f"{path}/") for each in (*self, *self.unreadable))

    def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        if path in self.unreadable:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return self.get(path)

    def files(self, path: str) -> dict[str, bytes]:
        return {each: content for each, content in self.items() if each.startswith(f"{path}/")}


def new_irm(
    *,
    seed: int = 1,
    embedded: bool = False,
    now: Callable[[], float] = lambda: 0.0,
    directory: Directory | None = None,
    **limits: int,
) -> Irm:
    """An IRM whose random numbers are always the same."""
    return Irm(
        OWNER,
        random=random.Random(seed),
        wall=lambda: WALL + round(now() * 1e9),
        directory=directory,
        embedded=embedded,
        **limits,
    )


class World:
    """One node's IRM and its programs."""

    def __init__(
        self, *, embedded: bool = False, flow_limit: int = 10_239, name_limit: int = 100_000, seed: int = 1
    ) -> None:
        self.now = 0.0
        #: Seconds by which its wall clock is wrong.
        self.clock_error = 0.0
        self.files = Files()
        self.irm = new_irm(
            seed=seed,
            embedded=embedded,
            now=lambda: self.now + self.clock_error,
            directory=self.files,
            flow_limit=flow_limit,
            name_limit=name_limit,
        )
        self._last_token = 0
        self._last_pid = 100
        self._answers: dict[int, Answer] = {}
        self._fresh: list[Effect] = []
        self.collect()
        self.manager = self.program("irm")

    # --- programs

    def program(self, name: str, uid: int = OWNER) -> Process:
        """A program that says hello."""
        self._last_pid += 1
        process = self.irm.process_arrived(self._last_pid, uid, name)
        self.collect()
        return process

    def server(self, *names: str, program: str = "server") -> Process:
        """A program whose process is bound to the names."""
        process = self.program(program)
        for name in names:
            self.irm.registry.bind_process(process, name)
        return process

    def kill(self, process: Process) -> None:
        self.irm.process_died(process)
        self.collect()

    # --- requests

    def send(self, process: Process, request: Request) -> int:
        """The token of the request."""
        self._last_token += 1
        self.irm.handle(self._last_token, process, request, self.now)
        self.collect()
        return self._last_token

    def alloc(self, process: Process, name: str, timeout: float | None = None, qos: QoSSpec | None = None) -> int:
        return self.send(process, Alloc(name, QoSSpec() if qos is None else qos, timeout))

    def accept(self, process: Process, name: str | None = None, timeout: float | None = None) -> int:
        return self.send(process, Accept(name, timeout))

    def dealloc(self, process: Process, token: int) -> None:
        """Let go of the flow that the request got."""
        granted = self.granted(token)
        self.send(process, Dealloc(granted.flow_id, granted.side))

    def cancel(self, token: int) -> None:
        self.irm.cancel(token)
        self.collect()

    def manage(self, request: Request, process: Process | None = None) -> object:
        """What the request is answered, or the exception that the answer names."""
        match self.answer(self.send(process or self.manager, request)):
            case Done(value=value):
                return value
            case Failed(error=kind, text=text):
                raise getattr(errors, kind)(text)
            case other:
                raise AssertionError(f"{request} was answered by {other}")

    # --- answers

    def answer(self, token: int) -> Answer | None:
        """The answer to a request, None while it waits or when it was cancelled."""
        return self._answers.get(token)

    def granted(self, token: int) -> Granted:
        answer = self.answer(token)
        assert isinstance(answer, Granted), answer
        return answer

    def failed(self, token: int) -> Failed:
        answer = self.answer(token)
        assert isinstance(answer, Failed), answer
        return answer

    def connected(self, allocator: int, acceptor: int) -> bool:
        """Whether the two requests got the two ends of one flow."""
        asks, takes = self.answer(allocator), self.answer(acceptor)
        return (
            isinstance(asks, Granted)
            and isinstance(takes, Granted)
            and asks.flow_id == takes.flow_id
            and (asks.side, takes.side) == (0, 1)
        )

    # --- effects and time

    def take(self, kind: type[_T]) -> list[_T]:
        """The effects of that kind since the last call of `take`, which forgets all others."""
        taken: list[_T] = [effect for effect in self._fresh if isinstance(effect, kind)]
        self._fresh.clear()
        return taken

    def advance(self, seconds: float) -> None:
        """Let time pass, with a stop at each deadline."""
        end = self.now + seconds
        while (deadline := self.irm.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.irm.timeout(self.now)
            self.collect()
        self.now = end

    def collect(self) -> list[Effect]:
        """Carry out what the IRM wants done; returns it."""
        effects = self.irm.take_effects()
        self._fresh += effects
        for effect in effects:
            match effect:
                case Reply(token=token, message=message):
                    self._settle(token, message)
                case Connect():
                    self._settle(effect.allocator, _granted(effect, 0))
                    self._settle(effect.acceptor, _granted(effect, 1))
                case Join(flow_id=flow_id, qos=qos, token=token):
                    self._settle(token, Granted(flow_id, qos, 0, MAX_PACKET))
        return effects

    def _settle(self, token: int, answer: Answer) -> None:
        assert token not in self._answers, f"request {token} was answered twice"
        self._answers[token] = answer


def _granted(effect: Connect, side: int) -> Granted:
    session = effect.sessions[side] if effect.sessions else None
    suite, key = (session.cipher, bytes(session.key)) if session else (0, b"")
    return Granted(effect.flow_id, effect.qos, side, MAX_PACKET, shown(session), suite, key)
