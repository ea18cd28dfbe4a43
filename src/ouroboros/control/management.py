"""Requests to manage a node: names, bindings, IPC processes. Pure."""

from __future__ import annotations

import functools
import re

from ouroboros.control.flows import FlowManager
from ouroboros.control.ipcps import IpcProcesses
from ouroboros.control.names import Binding, Registry
from ouroboros.control.parties import IpcProcess, Party, Process
from ouroboros.control.probing import Probing
from ouroboros.control.saving import configuration_of, text_of
from ouroboros.control.shares import Shares
from ouroboros.errors import (
    BindError,
    FlowNameException,
    FlowPermissionException,
    IpcpBootstrapError,
    IpcpConnectError,
    IpcpCreateError,
    IpcpEnrollError,
    NameError,
    UnsupportedError,
)
from ouroboros.layers.impairment import parse as parse_impairment
from ouroboros.wire.control import (
    Accept,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    DestroyName,
    DisconnectIpcp,
    DiscoverLayers,
    EnrollIpcp,
    ImpairIpcp,
    KeepAliveIpcp,
    ListFlows,
    ListIpcps,
    ListNames,
    ProbeName,
    RegisterName,
    Request,
    Save,
    UnbindProcess,
    UnbindProgram,
    UnregisterName,
)


class Later:
    """The answer of a request that is not answered yet."""


class Management:
    """Carries out what programs ask a node to do, but for flows. `embedded`: a program that nobody bound is known by its own
    name."""

    def __init__(
        self,
        registry: Registry,
        flows: FlowManager,
        ipcps: IpcProcesses,
        shares: Shares,
        probing: Probing,
        *,
        embedded: bool,
    ) -> None:
        self._registry = registry
        self._shares = shares
        self._probing = probing
        self._flows = flows
        self._ipcps = ipcps
        self._embedded = embedded

    def handle(self, token: int, request: Request, trusted: bool, now: float) -> object:
        """The answer of a request, or `Later`. `trusted`: it may change things. Raises why it is refused."""
        match request:
            case ListNames():
                return [name.entry(self._ipcps.layers_of(name.text)) for name in self._registry.names.values()]
            case ListIpcps():
                ipcps = sorted(self._ipcps.all(), key=lambda each: (each.preference, each.id))
                return [ipcp.entry() for ipcp in ipcps]
            case ListFlows():
                return self._flows.entries()
        if not trusted:
            raise BindError("only the user who runs this node, and root, may manage it")
        self._ipcps.managed = True
        if isinstance(request, Save):
            return self._save()
        if self._change_names(request, now):
            return None
        return self._manage_ipcp(token, request, now)

    def _save(self) -> str:
        ipcps = self._ipcps
        told = configuration_of(self._registry, ipcps.all(), self._shares, ipcps.strangers, ipcps.users)
        return text_of(*told)

    def _change_names(self, request: Request, now: float) -> bool:
        """Whether the request is about names and bindings. Then it is carried out."""
        match request:
            case CreateName():
                self._registry.create(request.name, request.policy, security=request.security)
            case DestroyName():
                self._destroy_name(request.name, now)
            case RegisterName():
                self._register_name(request, now)
            case UnregisterName():
                self._ipcps.find(request.ipcp).unregister(request.name, now)
            case BindProgram():
                self._bind_program(request, now)
            case UnbindProgram():
                self._registry.unbind_program(request.program, request.name)
                self._flows.wanted(self._registry.names[request.name], now)
            case BindProcess():
                self._bind_process(request, now)
            case UnbindProcess():
                self._unbind_process(request, now)
            case _:
                return False
        return True

    def _manage_ipcp(self, token: int, request: Request, now: float) -> object:
        task = functools.partial(self._ipcps.task, token)
        match request:
            case CreateIpcp():
                return self._ipcps.create(request)
            case ImpairIpcp():
                self._ipcps.find(request.ipcp).impair(parse_impairment(request.impair))
                return None
            case ChangePeers():
                self._ipcps.find(request.ipcp).change_peers(request.add, request.remove, now)
                return None
            case KeepAliveIpcp():
                self._ipcps.find(request.ipcp).keep_alive(request.seconds)
                return None
            case BootstrapIpcp():
                self._ipcps.bootstrap(request, task(request.ipcp, IpcpBootstrapError), now)
            case EnrollIpcp():
                self._ipcps.enroll(request, task(request.ipcp, IpcpEnrollError), now)
            case ConnectIpcp():
                answer, ipcp = task(request.ipcp, IpcpConnectError), self._ipcps.neighbour(request)
                ipcp.connect(request.component, request.name, request.qos, answer, now, over=request.over)
            case DisconnectIpcp():
                answer, ipcp = task(request.ipcp, IpcpConnectError), self._ipcps.neighbour(request)
                ipcp.disconnect(request.component, request.name, answer, now)
            case DiscoverLayers():
                self._ipcps.discover(request, task(0, IpcpEnrollError), now)
            case ProbeName():
                self._probing.begin(request, task(0, FlowNameException), now)
            case DestroyIpcp():
                self._ipcps.destroy(request.ipcp, task(0, IpcpCreateError), now)
            case _:
                raise UnsupportedError(f"{type(request).__name__} is no request for the IRM")
        return Later()

    def bind_acceptor(self, process: Process, request: Accept, trusted: bool, now: float) -> None:
        """A program that accepts flows for a name is bound to it. Raises why it must not be."""
        name = request.name
        if name is None and self._embedded and not process.names:
            # The embedded default: a program that nobody bound is known by its own name.
            name = re.sub(r"\.py[cwz]?$", "", process.program)
        if name is None or name in process.names:
            return
        if not trusted:
            raise FlowPermissionException(f"only the user who runs this node, and root, may take the name {name!r}")
        try:
            entry = self._registry.bind_process(process, name, lasting=False)
        except NameError as error:
            raise FlowNameException(str(error)) from error
        # Another thread of the process may wait already, for any of its names.
        self._flows.bound(process, entry, now)

    def _bind_program(self, request: BindProgram, now: float) -> None:
        if not request.path.startswith("/"):
            raise BindError(f"the path of a program must be absolute, not {request.path!r}")
        if any("\0" in text for text in (request.path, *request.args)):
            raise BindError("neither the path nor the arguments of a program can have a null character in them")
        running = self._registry.bind_program(Binding(request.path, request.auto, request.args), request.name)
        name = self._registry.names[request.name]
        for process in running:
            self._flows.bound(process, name, now)
        self._flows.wanted(name, now)

    def _bind_process(self, request: BindProcess, now: float) -> None:
        party = self._party(request.pid)
        # An IPC process takes flows at once, or never.
        name = self._registry.bind_process(party, request.name, expected=isinstance(party, Process))
        self._flows.bound(party, name, now)

    def _unbind_process(self, request: UnbindProcess, now: float) -> None:
        party = self._party(request.pid)
        if isinstance(party, IpcProcess) and request.name not in party.names:
            raise BindError(f"{party} is not bound to {request.name!r}")
        self._flows.unbound(party, self._registry.unbind_process(party, request.name), now)

    def _register_name(self, request: RegisterName, now: float) -> None:
        self._registry.find(request.name)
        self._ipcps.find(request.ipcp).register(request.name, now)
        self._registry.create(request.name)

    def _destroy_name(self, text: str, now: float) -> None:
        name = self._registry.destroy(text)
        self._flows.name_destroyed(name, now)
        for ipcp in self._ipcps.all():
            if ipcp.registers:
                ipcp.unregister(text, now)

    def _party(self, pid: int) -> Party:
        """The process with that number, or the IPC process."""
        try:
            return self._registry.party(pid)
        except KeyError:
            raise BindError(f"no process {pid} uses this node; bind its program instead, or start it first") from None
