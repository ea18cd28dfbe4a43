"""The node: one asyncio process that runs the IRM and carries out what it wants done."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import math
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from ouroboros import __version__, errors
from ouroboros.control.irm import Irm
from ouroboros.control.parties import Process
from ouroboros.control.shares import PEERS, Kind, default_shares
from ouroboros.errors import FlowAuthException, NodeError, NodeLimitError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.effects import (
    Attach,
    Connect,
    Effect,
    Impair,
    Join,
    Loop,
    OpenBroadcast,
    OpenMember,
    OpenPort,
    OpenTransfer,
    Remember,
    Reply,
    Resolve,
    Warn,
)
from ouroboros.layers.ethernet import DixIpcp, LlcIpcp
from ouroboros.layers.local import LocalIpcp
from ouroboros.layers.udp import Udp4Ipcp, Udp6Ipcp
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.runtime import figures
from ouroboros.runtime.callers import Callers, open_owner_socket, open_socket
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.runtime.flows import FlowRuntime
from ouroboros.runtime.grants import Grants
from ouroboros.runtime.journal import Journal
from ouroboros.runtime.machine import RealMachine
from ouroboros.runtime.memory import Memory
from ouroboros.runtime.paths import (
    make_runtime_dir,
    owner_socket_path,
    security_dir,
    socket_path,
    state_dir,
    trusted_users,
    using,
)
from ouroboros.runtime.processes import Processes
from ouroboros.runtime.programs import Programs
from ouroboros.runtime.publisher import Publisher
from ouroboros.runtime.pursuits import Pursuits
from ouroboros.runtime.security import SecurityDirectory
from ouroboros.runtime.turns import Caller
from ouroboros.settings import Strangers, Users
from ouroboros.wire.control import (
    Accept,
    Alloc,
    Answer,
    Capture,
    Dealloc,
    Done,
    Failed,
    Hello,
    ListFlows,
    ListIpcps,
    ListNames,
    NodeEntry,
    NodeInfo,
    Request,
)
from ouroboros.wire.control import Join as AskToJoin

log = logging.getLogger("ouroboros.irmd")

#: Seconds without programs after which an embedded node ends.
IDLE_TIME = 30.0
#: Seconds until what IPC processes have counted is published.
SHOW_TIME = 0.1
#: Seconds until the node looks again after what was due and met a bug.
BUG_PAUSE = 1.0
#: Descriptors that a node keeps for connections and itself; each flow takes one of the rest.
RESERVED_DESCRIPTORS = 4096
#: With fewer than this a node would only turn programs away.
FEWEST_DESCRIPTORS = 32


#: The types of IPC process, by the words of the command line.
IPCP_TYPES: dict[str, type[Ipcp]] = {
    kind.type: kind for kind in (LocalIpcp, UnicastIpcp, BroadcastIpcp, LlcIpcp, DixIpcp, Udp4Ipcp, Udp6Ipcp)
}


class Node:
    """Runs until it is told to stop, or, embedded, until nobody used it for a while."""

    def __init__(
        self,
        directory: Path,
        *,
        embedded: bool = False,
        idle_time: float = IDLE_TIME,
        listener: socket.socket | None = None,
        security: Path | None = None,
        state: Path | None = None,
        core_files: str | None = None,
    ) -> None:
        """`security`, `state`: directories, by default those of the user. `core_files`: what programs that it starts are to
        have of theirs, see `keep_out_of_core_files`."""
        self.directory = directory
        self._embedded = embedded
        self._idle_time = idle_time
        #: A control socket that was passed in (socket activation); its owner closes it.
        self._inherited = listener
        self._memory = Memory(state or state_dir(directory))
        descriptors = _raise_limit()
        flows = max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2)
        # A user that cannot be told from others is not trusted: then root alone is.
        self._irm = Irm(
            max(trusted_users()),
            random=random.SystemRandom(),
            wall=time.time_ns,
            directory=SecurityDirectory(security or security_dir()),
            types=IPCP_TYPES,
            initial=("local", "broadcast") if embedded else (),
            embedded=embedded,
            flow_limit=flows,
            memory=self._memory.kept,
            shares=default_shares(descriptors, flows),
        )
        #: The asker of the node's own requests.
        self._own_process = Process(pid=os.getpid(), uid=os.geteuid(), program="irmd", trusted=True)
        journal = self._journal = Journal(self._irm.trusts)
        self._callers = Callers(self, self._irm.shares, journal, self._irm.trusts)
        self._processes = Processes(self._irm, self._callers, self._process_ended)
        self._programs = Programs(self._irm, self._processes, directory, core_files)
        self._engine = EngineRuntime(self._irm, self._carry_out, RealMachine(directory, journal))
        self._publisher = Publisher(directory, self._irm, self._engine)
        grants = Grants(self._irm, self._callers, journal, self._publisher.answered)
        self._flows = FlowRuntime(self._irm, grants, self._engine, warn=functools.partial(journal.write, PEERS))
        #: The handler of each kind of effect.
        self._handlers: dict[type[Effect], Callable[[Any], None]] = {
            Reply: self._reply,
            Warn: self._warn,
            Remember: self._memory.remember,
            **self._programs.handlers,
            **self._flows.handlers,
            **self._engine.handlers,
        }
        #: Answers to requests of the node's own, by token.
        self._own: dict[int, asyncio.Future[Answer]] = {}
        self._pursuits = Pursuits(self._ask)
        self.pursue = self._pursuits.begin
        self._timer: asyncio.TimerHandle | None = None
        #: When that is.
        self._timed = math.inf
        self._idle_timer: asyncio.TimerHandle | None = None
        #: When what IPC processes have counted is published next.
        self._show_timer: asyncio.TimerHandle | None = None
        #: Until when what the engine last said of its memory is told.
        self._held_until = 0.0
        #: Until when other users are told the counters of layers, and of flows too (True), as they were read last.
        self._counted_until = {False: 0.0, True: 0.0}
        #: When to look at deadlines again, after one met a bug.
        self._not_before = 0.0
        self._stopped = asyncio.Event()

    async def run(
        self,
        ready: Callable[[], None],
        *,
        configure: Callable[[], None] | None = None,
        reload: Callable[[], None] | None = None,
        stopping: Callable[[], None] | None = None,
    ) -> None:
        """Serve. Raises `NodeError` when another node has the directory, and what `configure` raises.

        Calls `configure` before the first program is let in, `ready` when programs can connect, `reload` at SIGHUP, and
        `stopping` when the node begins to end.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._met_bug)
        make_runtime_dir(self.directory)
        with (
            _lock(self.directory) as lock,
            self._inherited or open_socket(self.directory) as listener,
            open_owner_socket(self.directory) or contextlib.nullcontext() as for_owner,
        ):
            # Signals belong to the main thread; a node in another one is stopped by whoever runs it there.
            if _in_main_thread():
                for number in (signal.SIGTERM, signal.SIGINT):
                    self._loop.add_signal_handler(number, self._stopped.set)
                self._loop.add_signal_handler(signal.SIGHUP, self._reload, reload)
            try:
                self._memory.load()
                with using(self.directory):
                    figures.remove(self.directory)
                self._load_trust()
                if configure is not None:
                    configure()
                self._callers.listen(listener, for_owner)
                self._carry_out()
                self._watch_idleness()
                self._publisher.begin()
                ready()
                await self._stopped.wait()
            finally:
                self._callers.stop_listening()
                # First of all: programs that come from now on start another node, or are told that there is none.
                if for_owner is not None:
                    os.unlink(owner_socket_path(self.directory))
                if self._inherited is None:
                    os.unlink(socket_path(self.directory))
                # From now on it is no node that is about to be ready (`embedded.is_starting`).
                lock.truncate(0)
                if stopping is not None:
                    stopping()
                await self._shut_down()

    def _load_trust(self) -> None:
        """A node that was configured by somebody does not run with a broken CA store. One that a program started does: it
        trusts nobody then, so nothing is taken for proven, and flows without certificates are as they were."""
        try:
            self._irm.reload_trust()
        except FlowAuthException as error:
            if not self._embedded:
                raise
            log.warning("%s; this node trusts nobody", error)

    def _reload(self, reload: Callable[[], None] | None) -> None:
        try:
            self._irm.reload_trust()
        except FlowAuthException as error:
            log.warning("%s; the one that was read before stays", error)
        if reload is not None:
            reload()

    def stop(self) -> None:
        """End `run`."""
        self._stopped.set()

    def bound_strangers(self, strangers: Strangers) -> None:
        """From now on, other nodes have that of this one."""
        self._irm.bound_strangers(strangers)

    def bound_users(self, users: Users) -> None:
        """From now on, programs of users other than the owner may have that done."""
        self._irm.bound_users(users)

    def manage(self, request: Request) -> object:
        """Carry out a management request of the node's own and give the value of the answer; raises what it names."""
        token = self._callers.new_token()
        self._irm.handle(token, self._own_process, request, self._loop.time(), user=0)
        answer: object = None
        while effects := self._irm.take_effects():
            for effect in effects:
                if isinstance(effect, Reply) and effect.token == token:
                    answer = effect.message
                else:
                    self._try(effect)
        self._set_timer()
        return _value(request, answer)

    async def _ask(self, request: Request) -> object:
        """As `manage`, for what may be answered later."""
        token = self._callers.new_token()
        answer = self._own[token] = self._loop.create_future()
        self._irm.handle(token, self._own_process, request, self._loop.time(), user=0)
        self._carry_out()
        try:
            return _value(request, await answer)
        finally:
            del self._own[token]
            if answer.cancelled():
                self._irm.cancel(token, self._loop.time())
                self._carry_out()

    def share(self, kind: Kind, user: int | None, users: int | None) -> None:
        """Change what each user other than the owner has of it, and all of them together. None: as it is."""
        self._irm.shares.change(kind, user, users)

    # --- what callers come for

    def introduce(self, caller: Caller, hello: Hello) -> None:
        caller.process = self._processes.identify(caller, hello)
        self._carry_out()
        self._watch_idleness()

    def ask(self, caller: Caller, process: Process, request: Request) -> None:
        if isinstance(request, Alloc | Accept | AskToJoin | Capture) and caller.has_hung_up():
            # A caller that hung up already waits for no flow.
            return
        if isinstance(request, ListNames | ListIpcps | ListFlows):
            self._irm.check_list(request, caller.user, self._loop.time())
        if isinstance(request, ListIpcps | ListFlows):
            self._count(caller, flows=isinstance(request, ListFlows))
        token = 0 if isinstance(request, Dealloc) else self._callers.expect(caller)
        if isinstance(request, NodeInfo):
            self._callers.answer(token, Done(self._entry(caller.user)))
            return
        self._irm.handle(token, process, request, self._loop.time(), user=caller.user)
        self._carry_out()

    def _count(self, caller: Caller, *, flows: bool) -> None:
        """Counters are read all together, however short the list: for other users not each time."""
        now = self._loop.time()
        if caller.trusted or now >= self._counted_until[flows]:
            self._engine.count(flows=flows)
            self._counted_until[flows] = now + SHOW_TIME

    def hung_up(self, caller: Caller) -> None:
        self._irm.cancel(caller.token, self._loop.time())
        self._carry_out()
        self._watch_idleness()

    def _process_ended(self, pid: int, process: Process | None) -> None:
        self._programs.process_ended(pid, process)
        self._carry_out()
        self._watch_idleness()

    # --- effects

    def _carry_out(self) -> None:
        while effects := self._irm.take_effects():
            for effect in effects:
                self._try(effect)
        if self._show_timer is None:
            self._show_timer = self._loop.call_later(SHOW_TIME, self._show)
        self._set_timer()

    def _show(self) -> None:
        self._show_timer = None
        self._publisher.flows()
        self._publisher.ipcps()

    def _try(self, effect: Effect) -> None:
        """One that meets a bug does not keep the node from the others; a layer that it was to begin has failed then."""
        try:
            self._handlers[type(effect)](effect)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no `Exception`
            what = f"a bug of the node, please report it: {type(effect).__name__} failed"
            self._journal.write(PEERS, what, level=logging.ERROR, bug=error)
            text = f"bug in the node: {error!r}; please report it"
            self._give_up(effect, text)

    def _give_up(self, effect: Effect, text: str) -> None:
        """Tell whatever waits for it. A flow is not its layer, and neither is a message; each comes from anybody."""
        now = self._loop.time()
        match effect:
            case Reply(token=token):
                self._answer(token, Failed("NodeError", text))
            case Connect() | Loop() | Join() | Attach():
                for token in self._flows.give_up(effect, text):
                    self._callers.answer(token, Failed("NodeError", text))
            case Resolve():
                self._irm.resolved(effect.ipcp, effect.token, [], now)
            case OpenPort():
                self._irm.member_failed(effect.ipcp, text, now)
            case OpenBroadcast() | OpenMember() | OpenTransfer() | Impair():
                self._irm.member_broke(effect.ipcp, text, now)

    def _reply(self, effect: Reply) -> None:
        # Whoever is answered finds it published.
        self._publisher.answered()
        self._answer(effect.token, effect.message)

    def _answer(self, token: int, message: Answer) -> None:
        own = self._own.get(token)
        if own is None:
            self._callers.answer(token, message)
        elif not own.done():
            own.set_result(message)

    # --- time

    def _set_timer(self) -> None:
        deadline = self._irm.wake_at()
        if deadline is None or deadline >= self._timed:
            # An early timer finds nothing to do and sets the next one: cheaper than moving it for every request.
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timed = max(deadline, self._not_before)
        self._timer = self._loop.call_at(self._timed, self._time_out)

    def _time_out(self) -> None:
        self._timer, self._timed = None, math.inf
        try:
            self._irm.timeout(self._loop.time())
        except Exception:  # a bug of ours: what else is due comes a bit later
            log.exception("a bug of the node, please report it: something that was due failed")
            self._not_before = self._loop.time() + BUG_PAUSE
        self._carry_out()

    def _watch_idleness(self) -> None:
        if not self._embedded:
            return
        if self._callers or self._programs or self._irm.busy:
            if self._idle_timer is not None:
                self._idle_timer.cancel()
                self._idle_timer = None
        elif self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._idle_time, self.stop)

    # --- the rest

    def _entry(self, user: int) -> NodeEntry:
        if self._loop.time() >= self._held_until:
            # The engine is asked, so not for each who asks.
            self._irm.shares.note_memory(self._engine.held())
            self._held_until = self._loop.time() + SHOW_TIME
        counts, shares = self._irm.census(), self._irm.shares.entries(user)
        return NodeEntry(__version__, os.getpid(), self._embedded, str(self.directory), *counts, shares)

    def _warn(self, effect: Warn) -> None:
        if effect.user is None:
            self._journal.tell(logging.ERROR if effect.error else logging.WARNING, effect.text)
        else:
            self._journal.write(effect.user, effect.text)

    def _met_bug(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something in the loop raised that nobody there expects: the node goes on, and says so."""
        text = f"a bug of the node, please report it: {context['message']}"
        self._journal.write(PEERS, text, level=logging.ERROR, bug=context.get("exception"))

    async def _shut_down(self) -> None:
        self._pursuits.shut_down()
        self._callers.shut_down()
        # Layers have things to say to their peers, by the layers below.
        self._irm.shut_down(self._loop.time())
        self._carry_out()
        self._flows.shut_down()
        self._engine.shut_down()
        self._processes.shut_down()
        # No program is started any more.
        for timer in (self._timer, self._idle_timer, self._show_timer):
            if timer is not None:
                timer.cancel()
        await self._programs.shut_down()
        self._journal.count()
        self._memory.close()
        with using(self.directory):
            self._publisher.end()


def _value(request: Request, answer: object) -> object:
    """What a request of management is answered; raises what the answer names."""
    if isinstance(answer, Failed):
        raise getattr(errors, answer.error)(answer.text)
    assert isinstance(answer, Done), f"{type(request).__name__} is no management request"
    return answer.value


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _lock(directory: Path) -> TextIO:
    """The lock of the directory, held while the node lives; a node that crashes lets go of it."""
    with using(directory):
        lock = open(directory / "irmd.lock", "a+")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        who = (
            f"runs in {directory} already, as process {owner}" if owner else f"is just ending in {directory}: try again"
        )
        raise NodeError(f"a node {who}") from None
    with using(directory):
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _raise_limit() -> int:
    """Raise the limit of descriptors as far as we may, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < FEWEST_DESCRIPTORS:
        raise NodeLimitError(
            f"a node needs at least {FEWEST_DESCRIPTORS} descriptors, and may have {hard} here: raise the limit of the"
            " process that starts it (`ulimit -n`)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
