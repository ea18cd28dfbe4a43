"""The IPC resource manager: names, IPC processes, programs, processes and flows of one node. Pure.

The runtime feeds it (`process_arrived`, `handle`, `cancel`, `process_died`, `timeout`, ...) and after each call carries out
what `take_effects` returns. Requests that the caller got wrong raise nothing here: they are answered by `Failed`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from ouroboros.control.flows import FlowManager
from ouroboros.control.ipcps import IpcProcesses
from ouroboros.control.joining import Joins
from ouroboros.control.management import Later, Management
from ouroboros.control.names import Registry, check_name
from ouroboros.control.parties import Process
from ouroboros.control.probing import Probing
from ouroboros.control.security import NoSecurityFiles, Security, SecurityFiles
from ouroboros.control.shares import Kind, Share, Shares, default_shares
from ouroboros.errors import FlowPermissionException, OuroborosError
from ouroboros.layers.agenda import Alarm, earliest
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Effect, Reply, Warn, Where
from ouroboros.layers.face import Host, How, PostedUpper, Posts, Random, Size
from ouroboros.oap import Server
from ouroboros.settings import Strangers, Users
from ouroboros.wire.control import (
    Accept,
    Alloc,
    BootstrapIpcp,
    Capture,
    CreateIpcp,
    Dealloc,
    Done,
    Join,
    ListFlows,
    ListIpcps,
    ListNames,
    Request,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _entry(method: Callable[Concatenate[Irm, _P], _T]) -> Callable[Concatenate[Irm, _P], _T]:
    """An entry point: when it is through, what IPC processes have to say is told (layers/face.py). None calls another."""

    @functools.wraps(method)
    def call(irm: Irm, /, *args: _P.args, **named: _P.kwargs) -> _T:
        try:
            return method(irm, *args, **named)
        finally:
            irm._posts.settle()

    return call


class Irm:
    """One node's resource manager.

    `uid`: of the node, whose owner (and root) may manage it. `random`: has to be `random.SystemRandom`, except in tests.
    `wall`: nanoseconds since 1970. `directory`: what protects flows; nothing by default. `types`: of IPC processes, by the
    words of the command line. `initial`: types of the IPC processes that it begins with,
    each in a layer of that name. `flow_limit`: descriptors for flows. `memory`: what the node before was told to remember.
    `shares`: of users other than the owner.
    """

    def __init__(
        self,
        uid: int,
        *,
        random: Random,
        wall: Callable[[], int],
        directory: SecurityFiles | None = None,
        types: Mapping[str, type[Ipcp]],
        initial: Sequence[str] = (),
        embedded: bool = False,
        flow_limit: int = 10_239,
        name_limit: int = 100_000,
        memory: Mapping[str, bytes] | None = None,
        shares: Mapping[Kind, Share] | None = None,
    ) -> None:
        self._uid = uid
        self._effects: list[Effect] = []
        self._posts = Posts()
        #: Of IPC processes, as they said when they were asked last.
        self._deadlines: dict[int, float] = {}
        self.ipcps: dict[int, Ipcp] = {}
        self.registry = Registry(name_limit)
        self.shares = Shares(default_shares(flow_limit + 4096, flow_limit) if shares is None else shares, self.trusts)
        self.security = Security(
            NoSecurityFiles() if directory is None else directory,
            self.registry.security_of,
            lambda text, user: self._effects.append(Warn(text, user=user)),
            random=random,
            wall=wall,
        )
        alarm = Alarm()
        self.flows = FlowManager(
            self.registry, self.security, self._effects, flow_limit, self.ipcps, self._posts, self.shares, alarm
        )
        upper, kept = PostedUpper(self.flows, self._posts), {} if memory is None else memory
        self._host = Host(self._effects, random, wall, Server(), upper, self.flows.lower, kept, alarm=alarm)
        #: The alarm has rung, and knows nothing of what is due after that.
        self._rang = False
        self._processes = IpcProcesses(
            self.ipcps, types, self.registry, self.flows, self._effects, self._posts, self._host
        )
        self._joins = Joins(self.registry, self._processes, self.flows, self._posts)
        probing = Probing(self.ipcps, self.registry, self._posts)
        self._management = Management(
            self.registry, self.flows, self._processes, self.shares, probing, embedded=embedded
        )
        for type in initial:
            ipcp = self._processes.create(CreateIpcp(type, type))
            self._processes.bootstrap(BootstrapIpcp(ipcp, type), self._processes.unasked(), 0.0)
        self._posts.settle()

    # --- what the runtime feeds

    def process_arrived(self, pid: int, uid: int, program: str) -> Process:
        """A process said hello for the first time. Raises `NameError` when its program name cannot be one, and
        `NodeLimitError` when its user has too many."""
        check_name(program, "program name")
        self.shares.take(Kind.PROCESSES, uid)
        return self.registry.add_process(pid, uid, program, trusted=self.trusts(uid))

    def trusts(self, uid: int) -> bool:
        """Whether a connection of that user may manage the node."""
        return uid in (0, self._uid)

    def check_list(self, request: ListNames | ListIpcps | ListFlows, user: int, now: float) -> None:
        """Raises `NodeLimitError` when a user is not to have that list now."""
        match request:
            case ListNames():
                # Each is looked for in each layer.
                length = len(self.registry.names) * max(1, len(self.ipcps))
            case ListIpcps():
                length = sum(ipcp.rows for ipcp in self.ipcps.values())
            case ListFlows():
                length = len(self.flows.flows)
        self.shares.check_list(user, max(1, length), now)

    def process(self, pid: int) -> Process | None:
        """The process with that number, if it said hello."""
        return self.registry.processes.get(pid)

    @_entry
    def process_died(self, process: Process, now: float) -> None:
        self.flows.process_died(process, now)
        self.registry.remove_process(process)
        self.shares.give_back(Kind.PROCESSES, process.uid)
        for text in process.names:
            self.flows.wanted(self.registry.names[text], now)

    @_entry
    def handle(self, token: int, process: Process, request: Request, now: float, *, user: int) -> None:
        """Take a request; its answer comes as an effect, now or later.

        `user`: of the connection that it came over. Not of the process, which may have changed its user.
        """
        trusted = self.trusts(user)
        counts = None if trusted else user
        try:
            match request:
                case Alloc():
                    self.flows.alloc(token, process, request, counts, now)
                case Accept():
                    self._management.bind_acceptor(process, request, trusted, now)
                    self.flows.accept(token, process, request, counts, now)
                case Join():
                    self._joins.join(token, process, request, counts, now)
                case Capture():
                    if not trusted:
                        raise FlowPermissionException("only the user who runs this node, and root, may capture packets")
                    self.flows.capture(token, process, request.snap, self._processes.find(request.ipcp))
                case Dealloc():
                    self.flows.dealloc(process, request.flow_id, request.side, now)
                case _:
                    value = self._management.handle(token, request, trusted, now)
                    if not isinstance(value, Later):
                        self._effects.append(Reply(token, Done(value)))
        except OuroborosError as error:
            self._processes.fail(token, error)

    @_entry
    def cancel(self, token: int, now: float) -> None:
        """The caller of this token hung up."""
        self._processes.cancel(token, now)
        self.flows.cancel(token, now)

    @_entry
    def abandon(self, flow_id: int, side: int, token: int, now: float) -> None:
        """The end of a flow did not reach the program whose request `token` was granted it."""
        self.flows.abandon(flow_id, side, now, token)

    @_entry
    def program_ended(self, name: str, program: str, how: str, served: bool, now: float) -> None:
        """A program of `StartProgram` is gone. `how`: for people. `served`: it took a flow."""
        self.flows.program_ended(name, program, how, served, now)

    @property
    def busy(self) -> bool:
        """Whether the node is of use without programs: peers may ask for flows at any time."""
        return any(ipcp.busy for ipcp in self.ipcps.values())

    def deadline(self) -> float | None:
        """When `timeout` has something to do."""
        self._ask_stirred()
        return earliest(self.flows.deadline(), self._joins.deadline(), *self._deadlines.values())

    def wake_at(self) -> float | None:
        """When to call `timeout`: at the `deadline`, or earlier, as what was over before its time is not looked for. This is
        asked after each step of a flow."""
        alarm, unsure = self._host.alarm, self._host.unsure
        if self._rang:
            self._rang, alarm.at = False, math.inf
            alarm.sooner(self.deadline())
            unsure.clear()
        elif unsure:
            self._ask_stirred()
            for id in unsure:
                alarm.sooner(self._deadlines.get(id))
            unsure.clear()
            # Members that are joined are called, too, when something changes for them.
            alarm.sooner(self._joins.deadline())
        return None if alarm.at == math.inf else alarm.at

    def _ask_stirred(self) -> None:
        """Ask those IPC processes for their deadlines that were called: some have hundreds of parts that wait for
        something."""
        stirred, self._host.stirred = self._host.stirred, set()
        for id in stirred:
            ipcp = self.ipcps.get(id)
            when = None if ipcp is None else ipcp.deadline()
            if when is None:
                self._deadlines.pop(id, None)
            else:
                self._deadlines[id] = when

    @_entry
    def timeout(self, now: float) -> None:
        self._rang = True
        self.flows.timeout(now)
        self._joins.timeout(now)
        self._ask_stirred()
        known = ((ipcp, self._deadlines.get(id)) for id, ipcp in self.ipcps.items())
        for ipcp in [ipcp for ipcp, when in known if when is not None and when <= now]:
            ipcp.timeout(now)

    @_entry
    def shut_down(self, now: float) -> None:
        """Destroy all IPC processes, the highest first: their last words leave by the layers below."""

        def destroy_next() -> None:
            if self.ipcps:
                highest = max(self.ipcps, key=lambda id: (self.flows.rank(id), id))
                self._processes.destroy(highest, self._processes.unasked(), now)
                self._posts.add(destroy_next)

        self.flows.shut_down(now)
        destroy_next()

    def census(self) -> tuple[int, int, int]:
        """Numbers of processes, flows and names."""
        return len(self.registry.processes), len(self.flows.flows), len(self.registry.names)

    def reload_trust(self) -> None:
        """Read the CA store anew. Raises `FlowAuthException` naming the file that is wrong; then nothing changed."""
        self.security.reload()

    def bound_strangers(self, strangers: Strangers) -> None:
        """From now on, others have that of the node."""
        self._host.strangers = strangers
        self.flows.bound_peers(strangers)

    def bound_users(self, users: Users) -> None:
        """From now on, programs of users other than the owner may have that done."""
        self._processes.users = users

    def touch(self, ipcp: int) -> None:
        """Something else may be shown of an IPC process than before."""
        self._host.touched.add(ipcp)

    def take_touched(self, *, counted: bool = True) -> set[int]:
        """The ids of IPC processes that may have changed since the last time, or are gone. `counted`: with those of which
        only counters may be others."""
        touched, self._host.touched = self._host.touched, set()
        if counted:
            touched |= self._host.counted
            self._host.counted.clear()
        return touched

    def take_managed(self) -> bool:
        """Whether somebody may expect to see what he has had done to IPC processes, for the first time."""
        managed, self._processes.managed = self._processes.managed, False
        return managed

    def take_effects(self) -> list[Effect]:
        """The effects that are due, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    # --- news of IPC processes from the runtime; of one that is gone they are ignored

    @_entry
    def member_opened(self, ipcp: int, now: float, mtu: int = 0) -> None:
        """The engine has the member that `OpenPort` asked for. `mtu`: as of `Ipcp`."""
        member = self.ipcps.get(ipcp)
        if member is not None and member.state == State.OPENING:
            member.mtu = mtu
            member.opened(now)

    @_entry
    def member_failed(self, ipcp: int, text: str, now: float) -> None:
        """The engine cannot have the member that `OpenPort` asked for; `text` says why."""
        member = self.ipcps.get(ipcp)
        if member is not None and member.state == State.OPENING:
            member.failed(text, now)

    @_entry
    def member_broke(self, ipcp: int, reason: str, now: float) -> None:
        """The member in the engine failed by itself, and its flows ended as died.

        It begins again, without them and a few times at most; then it is shown as failed until somebody destroys it.
        """
        member = self._processes.operational(ipcp)
        self.flows.carrier_gone(ipcp)
        if member is None:
            return
        ended = f"the layer {member.layer!r} failed ({reason}), and its flows died; it begins again"
        self._effects.append(Warn(ended if member.broke(reason, now) else member.trouble, error=True))

    @_entry
    def device_changed(self, ipcp: int, trouble: str, now: float) -> None:
        """The device of its port carries no frames from now on, and `trouble` says why; or ("") it does again."""
        if (member := self._processes.operational(ipcp)) is not None:
            member.device(trouble, now)

    @_entry
    def device_gone(self, ipcp: int, reason: str, now: float) -> None:
        """It is gone for good, and the layer with it, which is shown as failed until somebody destroys it."""
        member = self._processes.operational(ipcp)
        self.flows.carrier_gone(ipcp)
        if member is not None:
            member.gave_up(reason, now)
            self._effects.append(Warn(member.trouble))

    @_entry
    def resolved(self, ipcp: int, token: int, addresses: list[str], now: float) -> None:
        """The answer to `Resolve`; no addresses when the name has none."""
        if (member := self._processes.operational(ipcp)) is not None:
            member.resolved(token, addresses, now)

    @_entry
    def management_arrived(self, ipcp: int, data: bytes, where: Where, now: float) -> None:
        """A datagram with endpoint id 0 came in, id included.

        `where`: the lower flow of a member over such, else an address.
        """
        if isinstance(where, int) and not self.flows.lower.holds(ipcp, where):
            # It has let go of it, or was told of its end.
            return
        # By a lower flow, it may be that of an enrollment.
        member = self.ipcps.get(ipcp) if isinstance(where, int) else self._processes.operational(ipcp)
        if member is not None and member.state != State.FAILED:
            member.received(data, where, now)

    @_entry
    def message(self, ipcp: int, fd: int, data: bytes, now: float) -> None:
        """A packet came by a lower flow that an IPC process uses for control, perhaps to enroll."""
        member = self.ipcps.get(ipcp)
        if member is not None and member.state != State.FAILED and self.flows.lower.holds(ipcp, fd):
            member.message(fd, data, now)

    @_entry
    def heard(self, ipcp: int, eid: int, data: bytes, fd: int, now: float) -> None:
        """A packet came for a component of a member. `fd`: the lower flow that brought it; 0: it is from ourselves."""
        member = self._processes.operational(ipcp)
        if member is not None and (fd == 0 or self.flows.lower.holds(ipcp, fd)):
            member.heard(eid, data, fd, now)

    @_entry
    def flow_ended(self, ipcp: int, eid: int, how: How, now: float) -> None:
        """The engine is done with what `Attach` gave it, which is told once for each; the endpoint id is free.

        A program that has the flow keeps its end until it lets go.
        """
        self.flows.engine_done(ipcp, eid)
        if (member := self._processes.operational(ipcp)) is not None:
            member.over(eid, how, now)

    @_entry
    def flow_heard(self, ipcp: int, eid: int) -> None:
        """The first packet came of a flow that the engine has; also told when a peer that was silent is back."""
        if (layer := self._processes.operational(ipcp)) is not None:
            layer.begun(eid)

    @_entry
    def end_opened(self, flow_id: int, side: int, size: Size, now: float) -> None:
        """The engine has the end of an IPC process that `Attach` or `Loop` gave it."""
        self.flows.lower.end_opened(flow_id, side, size, now)

    @_entry
    def end_resized(self, flow_id: int, side: int, size: Size, now: float) -> None:
        """What is below the end of an IPC process carries packets of other lengths from now on."""
        self.flows.lower.end_resized(flow_id, side, size, now)

    @_entry
    def end_failed(self, flow_id: int, side: int, error: str, now: float) -> None:
        """The end of an IPC process could not be made. `error`: why, for people."""
        self.flows.lower.end_failed(flow_id, side, error, now)

    @_entry
    def end_over(self, flow_id: int, side: int, how: How, now: float) -> None:
        """The engine is done with the end of an IPC process, also after `EndFlow`; told once for each that was opened."""
        self.flows.lower.end_over(flow_id, side, how, now)

    @_entry
    def end_state(self, flow_id: int, side: int, up: bool, now: float) -> None:
        """The peer of an end of an IPC process was silent for longer than its timeout, or (`up`) is back."""
        self.flows.lower.end_state(flow_id, side, up, now)

    def flow_counted(self, flow_id: int, ipcp: int, counters: Mapping[str, int]) -> None:
        """Counters of the engine, so far, for a flow that the IPC process carries."""
        flow = self.flows.flows.get(flow_id)
        # The id may belong to another flow by now.
        if flow is not None and flow.carrier == ipcp:
            flow.counters = counters

    def flow_touched(self, flow_id: int) -> None:
        """The engine has an end of that flow, or has it no more."""
        self.flows.touch(flow_id)

    def asker(self, token: int) -> int | None:
        """The user whose program asks for a flow under that token; None for the owner, and when none does any more."""
        return self.flows.user(token)

    def counted(self, ipcp: int, counters: Mapping[str, int]) -> None:
        """Counters of the engine for an IPC process, so far."""
        if (member := self.ipcps.get(ipcp)) is not None:
            member.counted(counters)
