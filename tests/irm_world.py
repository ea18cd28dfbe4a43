"""An IRM without a node around it: requests go in, the effects come out and are kept in the order of their appearance.

It does for the IRM what the runtime does, in no time and without sockets: it numbers the requests, moves the clock from
deadline to deadline and turns effects into the answers that programs would see. Its engine carries flows in name only, and
does nothing by itself: what it would tell the IRM waits in `due`, for a test to let it happen, in order or in any other. It
objects when it is asked what cannot be. With the real engine, in virtual time, are nodes of `ouroboros.testing.sim`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ouroboros import errors
from ouroboros.control.irm import Irm
from ouroboros.control.parties import Process
from ouroboros.control.security import SecurityFiles, shown
from ouroboros.control.shares import Kind, Share
from ouroboros.dataplane import MAX_PACKET
from ouroboros.layers.base import Ipcp
from ouroboros.layers.effects import (
    Attach,
    CloseMember,
    Connect,
    Effect,
    EndFlow,
    Join,
    Loop,
    MarkDead,
    Member,
    PeerGone,
    Release,
    Reply,
    User,
)
from ouroboros.layers.face import How, Size
from ouroboros.qos import QoSSpec
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.wire.control import Accept, Alloc, Answer, Dealloc, Done, Failed, Granted, Request

#: The user who runs the node.
OWNER = 1000
#: The wall clock at the start, nanoseconds since 1970.
WALL = 1_800_000_000 * 10**9
#: What ends of IPC processes carry.
SIZE = Size(9000, 1400)

_T = TypeVar("_T")


class Files(dict[str, bytes]):
    """A security directory: content by path. What is in `unreadable` is there, but cannot be read."""

    root = ""

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
    directory: SecurityFiles | None = None,
    types: Mapping[str, type[Ipcp]] = IPCP_TYPES,
    shares: Mapping[Kind, Share] | None = None,
    **limits: Any,
) -> Irm:
    """An IRM whose random numbers are always the same."""
    return Irm(
        OWNER,
        random=random.Random(seed),
        wall=lambda: WALL + round(now() * 1e9),
        directory=directory,
        types=types,
        initial=("local", "broadcast") if embedded else (),
        embedded=embedded,
        shares=shares,
        **limits,
    )


@dataclass(eq=False)
class EngineEnd:
    """An end of a flow that the engine has, or is to make. `carrier`: the IPC process that carries it, `eid`: there."""

    flow_id: int
    side: int
    user: User
    name: str
    carrier: int | None
    #: As its IPC process gave it, for a flow to a peer.
    end: Any = None
    open: bool = False
    let_go: bool = False
    #: Its program died.
    doomed: bool = False

    @property
    def eid(self) -> int | None:
        return getattr(self.end, "eid", None)


class World:
    """One node's IRM and its programs, and an engine."""

    #: Seconds that the engine needs to deliver what a program wrote before it let go, where it has the time.
    linger = 0.01

    def __init__(
        self,
        *,
        embedded: bool = False,
        flow_limit: int = 10_239,
        name_limit: int = 100_000,
        seed: int = 1,
        types: Mapping[str, type[Ipcp]] = IPCP_TYPES,
        shares: Mapping[Kind, Share] | None = None,
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
            types=types,
            shares=shares,
            flow_limit=flow_limit,
            name_limit=name_limit,
        )
        self._last_token = 0
        self.last_pid = 100
        self._answers: dict[int, Answer] = {}
        self._fresh: list[Effect] = []
        #: Ends that the engine has, by flow and side, and those to a peer by IPC process and endpoint id.
        self.ends: dict[tuple[int, int], EngineEnd] = {}
        self.carried: dict[tuple[int, int], EngineEnd] = {}
        #: What the engine has to tell.
        self.due: list[Callable[[], None]] = []
        #: What carries out each kind of effect.
        self.handlers: dict[type[Effect], Callable[[Any], None]] = {
            Reply: lambda effect: self._settle(effect.token, effect.message),
            Connect: self._connect,
            Join: self._join,
            Loop: self._loop,
            Attach: self.attach,
            EndFlow: self._end_flow,
            MarkDead: self._mark_dead,
            Release: self._release,
            PeerGone: self.peer_gone,
            CloseMember: self.close_member,
        }
        self.collect()
        self.manager = self.program("irm")

    # --- programs

    def program(self, name: str, uid: int = OWNER) -> Process:
        """A program that says hello."""
        self.last_pid += 1
        process = self.irm.process_arrived(self.last_pid, uid, name)
        self.collect()
        return process

    def server(self, *names: str, program: str = "server") -> Process:
        """A program whose process is bound to the names."""
        process = self.program(program)
        for name in names:
            self.irm.registry.bind_process(process, name)
        return process

    def kill(self, process: Process) -> None:
        self.irm.process_died(process, self.now)
        self.collect()

    # --- requests

    def send(self, process: Process, request: Request, uid: int | None = None) -> int:
        """The token of the request. `uid`: of the connection, when the process has changed its user."""
        self._last_token += 1
        user = process.uid if uid is None else uid
        self.irm.handle(self._last_token, process, request, self.now, user=user)
        self.collect()
        return self._last_token

    def alloc(
        self,
        process: Process,
        name: str,
        timeout: float | None = None,
        qos: QoSSpec | None = None,
        *,
        wait: bool = False,
        layer: str | None = None,
    ) -> int:
        return self.send(process, Alloc(name, QoSSpec() if qos is None else qos, timeout, wait, layer))

    def accept(self, process: Process, name: str | None = None, timeout: float | None = None) -> int:
        return self.send(process, Accept(name, timeout))

    def dealloc(self, process: Process, token: int) -> None:
        """Let go of the flow that the request got."""
        granted = self.granted(token)
        self.send(process, Dealloc(granted.flow_id, granted.side))

    def cancel(self, token: int) -> None:
        self.irm.cancel(token, self.now)
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
            if (handler := self.handlers.get(type(effect))) is not None:
                handler(effect)
        return effects

    def _settle(self, token: int, answer: Answer) -> None:
        assert token not in self._answers, f"request {token} was answered twice"
        self._answers[token] = answer

    # --- the engine

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """The engine will tell something, in so many seconds or whenever it comes to that."""
        self.due.append(call)

    def engine(self) -> None:
        """Let the engine tell what it has to, and what follows from that."""
        while self.due:
            self.due.pop(0)()

    def over(self, end: EngineEnd, how: How) -> None:
        """The engine is done with an end; told once, to its user and to what carries it."""
        if self.ends.get((end.flow_id, end.side)) is end:
            del self.ends[end.flow_id, end.side]
            if isinstance(end.user, Member):
                self.irm.end_over(end.flow_id, end.side, how, self.now)
        if end.carrier is not None and end.eid is not None and self.carried.get((end.carrier, end.eid)) is end:
            del self.carried[end.carrier, end.eid]
            self.irm.flow_ended(end.carrier, end.eid, how, self.now)
        self.collect()

    def fail_end(self, flow_id: int, side: int) -> None:
        """One that is to be made cannot be made."""
        assert not self.ends[flow_id, side].open
        del self.ends[flow_id, side]
        self.irm.end_failed(flow_id, side, "no memory", self.now)
        self.collect()

    def _connect(self, effect: Connect) -> None:
        self._settle(effect.allocator, _granted(effect, 0))
        self._settle(effect.acceptor, _granted(effect, 1))

    def _join(self, effect: Join) -> None:
        granted = Granted(effect.flow_id, effect.qos, 0, MAX_PACKET, name=effect.name, layer=effect.name)
        self._settle(effect.token, granted)

    def _loop(self, effect: Loop) -> None:
        for side, user in enumerate(effect.users):
            self._make(EngineEnd(effect.flow_id, side, user, effect.name, effect.ipcp), _granted(effect, side))

    def attach(self, effect: Attach) -> None:
        end = EngineEnd(effect.flow_id, effect.side, effect.user, effect.name, effect.ipcp, effect.end)
        if end.eid is not None:
            assert (effect.ipcp, end.eid) not in self.carried, "the endpoint id is not free"
            self.carried[effect.ipcp, end.eid] = end
        security = shown(effect.end.session)
        granted = Granted(
            effect.flow_id, effect.end.qos, effect.side, MAX_PACKET, security, name=effect.name, layer=effect.layer
        )
        self._make(end, granted)

    def _make(self, end: EngineEnd, granted: Granted) -> None:
        assert (end.flow_id, end.side) not in self.ends, "the engine is not done with the one before"
        self.ends[end.flow_id, end.side] = end
        if isinstance(end.user, Member):
            self.later(0.0, partial(self._open, end))
        else:
            end.open = True
            self._settle(end.user, granted)

    def _open(self, end: EngineEnd) -> None:
        if self.ends.get((end.flow_id, end.side)) is end:
            end.open = True
            self.irm.end_opened(end.flow_id, end.side, SIZE, self.now)
            self.collect()

    def _end_flow(self, effect: EndFlow) -> None:
        end = self.ends[effect.flow_id, effect.side]
        assert not end.let_go, "let go twice"
        end.let_go = True
        self.hang_up(end, How.CLOSED)

    def _mark_dead(self, effect: MarkDead) -> None:
        if (end := self.ends.get((effect.flow_id, effect.side))) is not None:
            end.doomed = True
            if end.eid is None:
                self.hang_up(end, How.DIED)

    def hang_up(self, end: EngineEnd, how: How) -> None:
        """An end is let go: the engine delivers what is on its way, and then the other one in this node is over, too."""
        self.later(self.linger, partial(self.over, end, how))
        if (other := self.ends.get((end.flow_id, 1 - end.side))) is not None:
            self.later(self.linger, partial(self.over, other, How.GONE))

    def _release(self, effect: Release) -> None:
        for side in (0, 1):
            # The engine lingers, and the id of the flow may belong to another.
            if (end := self.ends.pop((effect.flow_id, side), None)) is not None:
                assert not isinstance(end.user, Member), "released before the engine was done"
                self.later(self.linger, partial(self.over, end, How.DIED if end.doomed else How.CLOSED))

    def peer_gone(self, effect: PeerGone) -> None:
        if (end := self.carried.get((effect.ipcp, effect.eid))) is not None:
            self.later(0.001, partial(self.over, end, How.GONE))

    def close_member(self, effect: CloseMember) -> None:
        for end in [*self.ends.values(), *self.carried.values()]:
            if end.carrier == effect.ipcp:
                self.later(0.0, partial(self.over, end, How.GONE))


def _granted(effect: Connect | Loop, side: int) -> Granted:
    session = effect.sessions[side] if effect.sessions else None
    suite, key = (session.cipher, bytes(session.key)) if session else (0, b"")
    return Granted(effect.flow_id, effect.qos, side, MAX_PACKET, shown(session), suite, key, effect.name, effect.layer)
