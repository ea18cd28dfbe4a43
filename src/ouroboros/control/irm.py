"""The IPC resource manager: names, IPC processes, programs, processes and flows of one node. Pure.

The runtime feeds it (`process_arrived`, `handle`, `cancel`, `process_died`, `timeout`, ...) and after each call carries out
what `take_effects` returns. Requests that the caller got wrong raise nothing here: they are answered by `Failed`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from ouroboros.control.flows import FlowManager
from ouroboros.control.names import Binding, Registry, check_name
from ouroboros.control.parties import IpcProcess, Party, Process
from ouroboros.control.security import NoSecurityFiles, Security, SecurityFiles
from ouroboros.control.shares import Kind, Share, Shares, default_shares
from ouroboros.errors import (
    BindError,
    FlowNameException,
    FlowPermissionException,
    IpcpBootstrapError,
    IpcpConnectError,
    IpcpCreateError,
    IpcpEnrollError,
    NameError,
    OuroborosError,
    UnsupportedError,
)
from ouroboros.layers.agenda import earliest
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Effect, Reply, Warn, Where
from ouroboros.layers.face import Host, How, PostedUpper, Posts, Random, Size, Task
from ouroboros.layers.impairment import Impairment
from ouroboros.layers.impairment import parse as parse_impairment
from ouroboros.oap import Server
from ouroboros.settings import Strangers
from ouroboros.wire.control import (
    FIRST_IPCP_ID,
    Accept,
    Alloc,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    DestroyName,
    DisconnectIpcp,
    Done,
    EnrollIpcp,
    Failed,
    ImpairIpcp,
    Join,
    ListFlows,
    ListIpcps,
    ListNames,
    RegisterName,
    Request,
    UnbindProcess,
    UnbindProgram,
    UnregisterName,
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


class _Later:
    """The answer of a request that is not answered yet."""


class _Asked(NamedTuple):
    """A request to an IPC process that is not answered yet. `destroyed`: what it fails with when the IPC process ends."""

    task: Task
    ipcp: int
    destroyed: type[OuroborosError]


class Irm:
    """One node's resource manager.

    `uid`: of the node, whose owner (and root) may manage it. `random`: has to be `random.SystemRandom`, except in tests.
    `wall`: nanoseconds since 1970. `directory`: what protects flows; nothing by default. `types`: of IPC processes, by the
    words of the command line; None for one that is not built yet. `initial`: types of the IPC processes that it begins with,
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
        types: Mapping[str, type[Ipcp] | None],
        initial: Sequence[str] = (),
        embedded: bool = False,
        flow_limit: int = 10_239,
        name_limit: int = 100_000,
        memory: Mapping[str, bytes] | None = None,
        shares: Mapping[Kind, Share] | None = None,
    ) -> None:
        self._uid = uid
        self._embedded = embedded
        self._types = types
        self._effects: list[Effect] = []
        self._posts = Posts()
        self._next_ipcp = FIRST_IPCP_ID
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
        self.flows = FlowManager(
            self.registry, self.security, self._effects, flow_limit, self.ipcps, self._posts, self.shares
        )
        upper = PostedUpper(self.flows, self._posts)
        self._host = Host(
            self._effects, random, wall, Server(), upper, self.flows.lower, {} if memory is None else memory
        )
        #: Something was managed since `take_managed` was called last.
        self._managed = False
        #: Requests to IPC processes that are not answered yet, by token.
        self._tasks: dict[int, _Asked] = {}
        for type in initial:
            ipcp = self._create_ipcp(CreateIpcp(type, type))
            self._bootstrap_ipcp(BootstrapIpcp(ipcp, type), Task(self._posts, _no_answer), 0.0)
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
                    self._bind_acceptor(process, request, trusted, now)
                    self.flows.accept(token, process, request, counts, now)
                case Join():
                    self.flows.join(token, process, request, self._member_to_join(request.layer), counts, now)
                case Dealloc():
                    self.flows.dealloc(process, request.flow_id, request.side, now)
                case _:
                    value = self._manage(token, request, trusted, now)
                    if not isinstance(value, _Later):
                        self._effects.append(Reply(token, Done(value)))
        except OuroborosError as error:
            self._fail(token, error)

    @_entry
    def cancel(self, token: int, now: float) -> None:
        """The caller of this token hung up."""
        if (asked := self._tasks.pop(token, None)) is not None:
            asked.task.cancel()
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
        return earliest(self.flows.deadline(), *[ipcp.deadline() for ipcp in self.ipcps.values()])

    @_entry
    def timeout(self, now: float) -> None:
        self.flows.timeout(now)
        for ipcp in list(self.ipcps.values()):
            ipcp.timeout(now)

    @_entry
    def shut_down(self, now: float) -> None:
        """Destroy all IPC processes, the highest first: their last words leave by the layers below."""

        def destroy_next() -> None:
            if self.ipcps:
                highest = max(self.ipcps, key=lambda id: (self.flows.rank(id), id))
                self._destroy_ipcp(highest, Task(self._posts, _no_answer), now)
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

    def touch(self, ipcp: int) -> None:
        """Something else may be shown of an IPC process than before."""
        self._host.touched.add(ipcp)

    def take_touched(self) -> set[int]:
        """The ids of IPC processes that may have changed since the last time, or are gone."""
        touched, self._host.touched = self._host.touched, set()
        return touched

    def take_managed(self) -> bool:
        """Whether somebody may expect to see what he has had done to IPC processes, for the first time."""
        managed, self._managed = self._managed, False
        return managed

    def take_effects(self) -> list[Effect]:
        """The effects that are due, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    # --- news of IPC processes from the runtime; of one that is gone they are ignored

    @_entry
    def member_opened(self, ipcp: int, now: float) -> None:
        """The engine has the member that `OpenPort` asked for."""
        member = self.ipcps.get(ipcp)
        if member is not None and member.state == State.OPENING:
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
        member = self._operational(ipcp)
        self.flows.carrier_gone(ipcp)
        if member is None:
            return
        ended = f"the layer {member.layer!r} failed ({reason}), and its flows died; it begins again"
        self._effects.append(Warn(ended if member.broke(reason, now) else member.trouble, error=True))

    @_entry
    def resolved(self, ipcp: int, token: int, addresses: list[str], now: float) -> None:
        """The answer to `Resolve`; no addresses when the name has none."""
        if (member := self._operational(ipcp)) is not None:
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
        member = self.ipcps.get(ipcp) if isinstance(where, int) else self._operational(ipcp)
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
        member = self._operational(ipcp)
        if member is not None and (fd == 0 or self.flows.lower.holds(ipcp, fd)):
            member.heard(eid, data, fd, now)

    @_entry
    def flow_ended(self, ipcp: int, eid: int, how: How, now: float) -> None:
        """The engine is done with what `Attach` gave it, which is told once for each; the endpoint id is free.

        A program that has the flow keeps its end until it lets go.
        """
        self.flows.engine_done(ipcp, eid)
        if (member := self._operational(ipcp)) is not None:
            member.over(eid, how, now)

    @_entry
    def flow_heard(self, ipcp: int, eid: int) -> None:
        """The first packet came of a flow that the engine has; also told when a peer that was silent is back."""
        if (layer := self._operational(ipcp)) is not None:
            layer.begun(eid)

    @_entry
    def end_opened(self, flow_id: int, side: int, size: Size, now: float) -> None:
        """The engine has the end of an IPC process that `Attach` or `Loop` gave it."""
        self.flows.lower.end_opened(flow_id, side, size, now)

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

    def counted(self, ipcp: int, counters: Mapping[str, int]) -> None:
        """Counters of the engine for an IPC process, so far."""
        if (member := self.ipcps.get(ipcp)) is not None:
            member.counted(counters)

    def _operational(self, ipcp: int) -> Ipcp | None:
        member = self.ipcps.get(ipcp)
        return member if member is not None and member.state == State.OPERATIONAL else None

    # --- management

    def _manage(self, token: int, request: Request, trusted: bool, now: float) -> object:
        match request:
            case ListNames():
                return [name.entry(self._layers_of(name.text)) for name in self.registry.names.values()]
            case ListIpcps():
                ipcps = sorted(self.ipcps.values(), key=lambda each: (each.preference, each.id))
                return [ipcp.entry() for ipcp in ipcps]
            case ListFlows():
                return self.flows.entries()
        if not trusted:
            raise BindError("only the user who runs this node, and root, may manage it")
        self._managed = True
        match request:
            case CreateName():
                self.registry.create(request.name, request.policy, security=request.security)
            case DestroyName():
                self._destroy_name(request.name, now)
            case RegisterName():
                self._register_name(request, now)
            case UnregisterName():
                self._ipcp(request.ipcp).unregister(request.name, now)
            case BindProgram():
                self._bind_program(request, now)
            case UnbindProgram():
                self.registry.unbind_program(request.program, request.name)
                self.flows.wanted(self.registry.names[request.name], now)
            case BindProcess():
                self._bind_process(request, now)
            case UnbindProcess():
                self._unbind_process(request, now)
            case CreateIpcp():
                return self._create_ipcp(request)
            case BootstrapIpcp():
                self._bootstrap_ipcp(request, self._task(token, request.ipcp, IpcpBootstrapError), now)
                return _Later()
            case ImpairIpcp():
                self._ipcp(request.ipcp).impair(parse_impairment(request.impair))
            case ChangePeers():
                self._ipcp(request.ipcp).change_peers(request.add, request.remove, now)
            case EnrollIpcp():
                self._enroll_ipcp(request, self._task(token, request.ipcp, IpcpEnrollError), now)
                return _Later()
            case ConnectIpcp():
                task = self._task(token, request.ipcp, IpcpConnectError)
                self._neighbour(request).connect(request.component, request.name, request.qos, task, now)
                return _Later()
            case DisconnectIpcp():
                task = self._task(token, request.ipcp, IpcpConnectError)
                self._neighbour(request).disconnect(request.component, request.name, task, now)
                return _Later()
            case DestroyIpcp():
                self._destroy_ipcp(request.ipcp, self._task(token, 0, IpcpCreateError), now)
                return _Later()
            case _:
                raise UnsupportedError(f"{type(request).__name__} is no request for the IRM")
        return None

    def _bind_acceptor(self, process: Process, request: Accept, trusted: bool, now: float) -> None:
        name = request.name
        if name is None and self._embedded and not process.names:
            # The embedded default: a program that nobody bound is known by its own name.
            name = re.sub(r"\.py[cwz]?$", "", process.program)
        if name is None or name in process.names:
            return
        if not trusted:
            raise FlowPermissionException(f"only the user who runs this node, and root, may take the name {name!r}")
        try:
            entry = self.registry.bind_process(process, name, lasting=False)
        except NameError as error:
            raise FlowNameException(str(error)) from error
        # Another thread of the process may wait already, for any of its names.
        self.flows.bound(process, entry, now)

    def _bind_program(self, request: BindProgram, now: float) -> None:
        if not request.path.startswith("/"):
            raise BindError(f"the path of a program must be absolute, not {request.path!r}")
        if any("\0" in text for text in (request.path, *request.args)):
            raise BindError("neither the path nor the arguments of a program can have a null character in them")
        running = self.registry.bind_program(Binding(request.path, request.auto, request.args), request.name)
        name = self.registry.names[request.name]
        for process in running:
            self.flows.bound(process, name, now)
        self.flows.wanted(name, now)

    def _bind_process(self, request: BindProcess, now: float) -> None:
        party = self._party(request.pid)
        # An IPC process takes flows at once, or never.
        name = self.registry.bind_process(party, request.name, expected=isinstance(party, Process))
        self.flows.bound(party, name, now)

    def _unbind_process(self, request: UnbindProcess, now: float) -> None:
        party = self._party(request.pid)
        if isinstance(party, IpcProcess) and request.name not in party.names:
            raise BindError(f"{party} is not bound to {request.name!r}")
        self.flows.unbound(party, self.registry.unbind_process(party, request.name), now)

    def _register_name(self, request: RegisterName, now: float) -> None:
        self.registry.find(request.name)
        self._ipcp(request.ipcp).register(request.name, now)
        self.registry.create(request.name)

    def _destroy_name(self, text: str, now: float) -> None:
        name = self.registry.destroy(text)
        self.flows.name_destroyed(name, now)
        for ipcp in self.ipcps.values():
            if ipcp.registers:
                ipcp.unregister(text, now)

    def _party(self, pid: int) -> Party:
        """The process with that number, or the IPC process."""
        try:
            return self.registry.party(pid)
        except KeyError:
            raise BindError(f"no process {pid} uses this node; bind its program instead, or start it first") from None

    # --- IPC processes

    def _create_ipcp(self, request: CreateIpcp) -> int:
        check_name(request.name, "name of an IPC process")
        if request.type not in self._types:
            raise IpcpCreateError(f"unknown type {request.type!r}: choose one of {', '.join(self._types)}")
        kind = self._types[request.type]
        if kind is None:
            built = ", ".join(type for type, kind in self._types.items() if kind is not None)
            raise UnsupportedError(f"IPC processes of type {request.type} are not built yet; there are {built}")
        if any(ipcp.name == request.name for ipcp in self.ipcps.values()):
            raise IpcpCreateError(f"there is an IPC process {request.name!r} already; choose another name")
        id = self._next_ipcp
        self._next_ipcp += 1
        self.ipcps[id] = kind(id, request.name, self._host)
        self.touch(id)
        member = self.registry.add_member(self.ipcps[id])
        if kind.accepts_flows:
            self.flows.stand(member)
        return id

    def _bootstrap_ipcp(self, request: BootstrapIpcp, task: Task, now: float) -> None:
        ipcp = self._ipcp(request.ipcp)
        check_name(request.layer, "layer name")
        if not ipcp.several and (there := self._member_of(request.layer, ipcp.type)) is not None:
            if there.state == State.FAILED:
                raise IpcpBootstrapError(there.trouble)
            raise NameError(f"this node is in {ipcp.type} layer {request.layer!r} already")
        settings = ipcp.settings() if request.settings is None else request.settings
        if not isinstance(settings, ipcp.settings):
            raise IpcpBootstrapError(
                f"IPC process {ipcp.name!r} is of type {ipcp.type}, its settings of {settings.word()}"
            )
        settings.check()
        impairment = None if settings.impair is None else parse_impairment(settings.impair)
        if impairment is not None:
            ipcp.check_impairable()
        ipcp.bootstrap(request.layer, settings, self._impairing(ipcp, impairment, task), now)

    def _enroll_ipcp(self, request: EnrollIpcp, task: Task, now: float) -> None:
        check_name(request.name, "name to enroll with")
        self._ipcp(request.ipcp).enroll(request.name, task, now)

    def _neighbour(self, request: ConnectIpcp | DisconnectIpcp) -> Ipcp:
        """The IPC process that has one."""
        check_name(request.name, "name of the neighbour")
        return self._ipcp(request.ipcp)

    def _impairing(self, ipcp: Ipcp, impairment: Impairment | None, task: Task) -> Task:
        """A bootstrap after which the layer is impaired, before it is told that there is one."""
        if impairment is None:
            return task

        def answer(outcome: object) -> None:
            if isinstance(outcome, OuroborosError):
                task.failed(outcome)
            else:
                ipcp.impair(impairment)
                task.done(outcome)

        return Task(self._posts, answer)

    def _destroy_ipcp(self, id: int, task: Task, now: float) -> None:
        """Whatever holds a flow that it carries is told first, and can do what follows from that. Then the flows end, then
        its part in the engine, and last of all the flows that it holds itself: what it has to say goes out by those."""
        ipcp, member = self._ipcp(id), self.registry.members[id]
        del self.ipcps[id]
        end_flows = self.flows.closing(ipcp, member, now)

        def finish() -> None:
            end_flows()
            ipcp.destroy(now)
            self.flows.lower.holder_ends(member, now)
            for asked in [each for each in self._tasks.values() if each.ipcp == id]:
                asked.task.failed(asked.destroyed(f"IPC process {ipcp.name!r} was destroyed"))
            task.done()

        self._posts.add(finish)

    def _task(self, token: int, ipcp: int, destroyed: type[OuroborosError]) -> Task:
        """The answer to a request of a program to an IPC process, which may come later."""

        def answer(outcome: object) -> None:
            self._tasks.pop(token, None)
            self._managed = True
            if isinstance(outcome, OuroborosError):
                self._fail(token, outcome)
            else:
                self._effects.append(Reply(token, Done(outcome)))

        task = Task(self._posts, answer)
        self._tasks[token] = _Asked(task, ipcp, destroyed)
        return task

    def _fail(self, token: int, error: OuroborosError) -> None:
        self._tasks.pop(token, None)
        self._effects.append(Reply(token, Failed(type(error).__name__, str(error))))

    def _ipcp(self, id: int) -> Ipcp:
        ipcp = self.ipcps.get(id)
        if ipcp is None:
            raise IpcpCreateError(f"there is no IPC process {id}; `irm ipcp list` shows them")
        return ipcp

    def _member_of(self, layer: str, type: str) -> Ipcp | None:
        of_type = (ipcp for ipcp in self.ipcps.values() if ipcp.type == type and ipcp.state != State.BOOT)
        return next((ipcp for ipcp in of_type if ipcp.layer == layer), None)

    def _member_to_join(self, layer: str) -> Ipcp | None:
        # A failed one is there, and says how to repair it.
        there = (ipcp for ipcp in self.ipcps.values() if ipcp.state in (State.OPERATIONAL, State.FAILED))
        return next((ipcp for ipcp in there if ipcp.joinable and ipcp.layer == layer), None)

    def _layers_of(self, name: str) -> list[str]:
        return [ipcp.layer for ipcp in self.ipcps.values() if ipcp.layer and ipcp.query(ipcp.digest(name))]


def _no_answer(outcome: object) -> None:
    """Nobody waits for it."""
    assert not isinstance(outcome, OuroborosError), outcome
