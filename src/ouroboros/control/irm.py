"""The IPC resource manager: names, IPC processes, programs, processes and flows of one node. Pure.

The runtime feeds it (`process_arrived`, `handle`, `cancel`, `process_died`, `timeout`, ...) and after each call carries out
what `take_effects` returns. Requests that the caller got wrong raise nothing here: they are answered by `Failed`.
"""

from __future__ import annotations

from collections.abc import Callable

from ouroboros.control.effects import Address, Effect, Impair, Reply, StartLayer, StopLayer
from ouroboros.control.flows import FlowManager
from ouroboros.control.impairment import Impairment
from ouroboros.control.impairment import parse as parse_impairment
from ouroboros.control.messages import (
    FIRST_IPCP_ID,
    Accept,
    Alloc,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ChangePeers,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    DestroyName,
    Done,
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
from ouroboros.control.names import Binding, Process, Registry, check_name
from ouroboros.control.oap import Server
from ouroboros.control.security import Directory, NoDirectory, Security
from ouroboros.errors import (
    BindError,
    FlowNameException,
    FlowPermissionException,
    IpcpBootstrapError,
    IpcpCreateError,
    NameError,
    OuroborosError,
    UnsupportedError,
)
from ouroboros.layers.base import DEFAULT_HASH, Ipcp
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.local import LocalIpcp
from ouroboros.layers.udp import Environment, Udp4Ipcp, Udp6Ipcp, UdpIpcp
from ouroboros.layers.udp.core import Random

#: Types that the command line knows; those without a class are not built yet.
IPCP_TYPES: dict[str, type[Ipcp] | None] = {
    "local": LocalIpcp,
    "unicast": None,
    "broadcast": BroadcastIpcp,
    "eth-llc": None,
    "eth-dix": None,
    "udp4": Udp4Ipcp,
    "udp6": Udp6Ipcp,
}


_BUILT = [type for type, kind in IPCP_TYPES.items() if kind is not None]


class _Later:
    """The answer of a request that is not answered yet."""


class Irm:
    """One node's resource manager.

    `uid`: of the node, whose owner (and root) may manage it. `random`: has to be `random.SystemRandom`, except in tests.
    `wall`: nanoseconds since 1970. `directory`: what protects flows; nothing by default.
    """

    def __init__(
        self,
        uid: int,
        *,
        random: Random,
        wall: Callable[[], int],
        directory: Directory | None = None,
        embedded: bool = False,
        flow_limit: int = 10_239,
        name_limit: int = 100_000,
    ) -> None:
        self._uid = uid
        self._embedded = embedded
        self._effects: list[Effect] = []
        self._next_ipcp = FIRST_IPCP_ID
        self.ipcps: dict[int, Ipcp] = {}
        self.registry = Registry(name_limit)
        self.security = Security(
            NoDirectory() if directory is None else directory, self.registry.security_of, random=random, wall=wall
        )
        self.flows = FlowManager(
            self.registry, self.security, self._effects, flow_limit, self.ipcps, self._impaired_layer_of
        )
        self._environment = Environment(self._effects, random, wall, Server(), self.flows)
        #: Who waits for the bootstrap of an IPC process, and how its layer is to be impaired.
        self._bootstrapping: dict[int, tuple[int, Impairment | None]] = {}
        if embedded:
            for type, layer in (("local", "local"), ("broadcast", "broadcast")):
                ipcp = self._create_ipcp(CreateIpcp(layer, type))
                self._bootstrap_ipcp(0, BootstrapIpcp(ipcp, layer, DEFAULT_HASH))

    # --- what the runtime feeds

    def process_arrived(self, pid: int, uid: int, program: str) -> Process:
        """A process said hello for the first time. Raises `NameError` when its program name cannot be one."""
        trusted = uid in (0, self._uid)
        return self.registry.add_process(pid, uid, check_name(program, "program name"), trusted=trusted)

    def process_died(self, process: Process) -> None:
        self.flows.process_died(process)
        self.registry.remove_process(process)
        for text in process.names:
            self.flows.wanted(self.registry.names[text])

    def handle(self, token: int, process: Process, request: Request, now: float) -> None:
        """Take a request; its answer comes as an effect, now or later."""
        try:
            match request:
                case Alloc():
                    self.flows.alloc(token, process, request, now)
                case Accept():
                    self._bind_acceptor(process, request)
                    self.flows.accept(token, process, request, now)
                case Join():
                    self.flows.join(token, process, request, self._broadcast_layer(request.layer))
                case Dealloc():
                    self.flows.dealloc(process, request.flow_id, request.side)
                case _:
                    value = self._manage(token, process, request)
                    if not isinstance(value, _Later):
                        self._effects.append(Reply(token, Done(value)))
        except OuroborosError as error:
            self._fail(token, error)

    def cancel(self, token: int) -> None:
        """Whoever waited under this token hung up."""
        self.flows.cancel(token)

    @property
    def busy(self) -> bool:
        """Whether the node is of use without programs: peers may ask for flows at any time."""
        return any(ipcp.state != "boot" for ipcp in self._udp_layers())

    def deadline(self) -> float | None:
        times = (self.flows.deadline(), *(ipcp.deadline() for ipcp in self._udp_layers()))
        return min((when for when in times if when is not None), default=None)

    def timeout(self, now: float) -> None:
        self.flows.timeout(now)
        for ipcp in self._udp_layers():
            ipcp.timeout(now)

    def take_effects(self) -> list[Effect]:
        """What is to be done now, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    # --- what the runtime tells of UDP layers; those that are gone are ignored

    def layer_opened(self, ipcp: int) -> None:
        """What `OpenLayer` asked for is there."""
        layer = self.ipcps.get(ipcp)
        if not isinstance(layer, UdpIpcp) or ipcp not in self._bootstrapping:
            return
        token, impairment = self._bootstrapping.pop(ipcp)
        layer.opened()
        if impairment is not None:
            self._impair(layer, impairment)
        self._effects.append(Reply(token, Done(ipcp)))

    def layer_failed(self, ipcp: int, text: str) -> None:
        """What `OpenLayer` asked for could not be had; `text` says why."""
        layer = self.ipcps.get(ipcp)
        if not isinstance(layer, UdpIpcp) or ipcp not in self._bootstrapping:
            return
        token, _ = self._bootstrapping.pop(ipcp)
        layer.failed()
        self._fail(token, IpcpBootstrapError(text))

    def resolved(self, ipcp: int, token: int, addresses: list[str], now: float) -> None:
        """The answer to `Resolve`; no addresses when the name has none."""
        if (layer := self._operational(ipcp)) is not None:
            layer.resolved(token, addresses, now)

    def management_arrived(self, ipcp: int, data: bytes, address: Address, now: float) -> None:
        """A datagram with endpoint id 0 came in, id included."""
        if (layer := self._operational(ipcp)) is not None:
            layer.arrived(data, address, now)

    def flow_ended(self, ipcp: int, eid: int, how: str, now: float) -> None:
        """The engine is done with what `Attach` gave it, which is told once for each; the endpoint id is free.

        `how`: "closed" (by the program, and delivered), "died" (the program, and what it wrote is delivered), "peer" (silent
        for too long), "down" (not repairable), "gone" (told by `PeerGone`). A program that has the flow keeps its end until
        it lets go.
        """
        if (layer := self._operational(ipcp)) is not None:
            layer.flow_ended(eid, how == "closed", now)

    def _operational(self, ipcp: int) -> UdpIpcp | None:
        layer = self.ipcps.get(ipcp)
        return layer if isinstance(layer, UdpIpcp) and layer.state == "operational" else None

    def _udp_layers(self) -> list[UdpIpcp]:
        return [ipcp for ipcp in self.ipcps.values() if isinstance(ipcp, UdpIpcp)]

    # --- management

    def _manage(self, token: int, process: Process, request: Request) -> object:
        match request:
            case ListNames():
                return [name.entry(self._layers_of(name.text)) for name in self.registry.names.values()]
            case ListIpcps():
                return [
                    ipcp.entry() for ipcp in sorted(self.ipcps.values(), key=lambda each: (each.preference, each.id))
                ]
            case ListFlows():
                return self.flows.entries()
        if not process.trusted:
            raise BindError("only the user who runs this node, and root, may manage it")
        match request:
            case CreateName():
                self.registry.create(request.name, request.policy, security=request.security)
            case DestroyName():
                self._destroy_name(request.name)
            case RegisterName():
                self._register_name(request)
            case UnregisterName():
                self._ipcp(request.ipcp).unregister(request.name)
            case BindProgram():
                self._bind_program(request)
            case UnbindProgram():
                self.registry.unbind_program(request.program, request.name)
            case BindProcess():
                self._bind_process(request)
            case UnbindProcess():
                self._unbind_process(request)
            case CreateIpcp():
                return self._create_ipcp(request)
            case BootstrapIpcp():
                return self._bootstrap_ipcp(token, request)
            case ImpairIpcp():
                self._impair(self._ipcp(request.ipcp), parse_impairment(request.impair))
            case ChangePeers():
                self._change_peers(request)
            case DestroyIpcp():
                self._destroy_ipcp(request.ipcp)
            case _:
                raise UnsupportedError(f"{type(request).__name__} is no request for the IRM")
        return None

    def _bind_acceptor(self, process: Process, request: Accept) -> None:
        name = request.name
        if name is None and self._embedded and not process.names:
            # The embedded default: a program that nobody bound is known by its own name.
            name = process.program.removesuffix(".py")
        if name is None or name in process.names:
            return
        if not process.trusted:
            raise FlowPermissionException(f"only the user who runs this node, and root, may take the name {name!r}")
        try:
            entry = self.registry.bind_process(process, name, lasting=False)
        except NameError as error:
            raise FlowNameException(str(error)) from error
        # Another thread of the process may wait already, for any of its names.
        self.flows.bound(process, entry)

    def _bind_program(self, request: BindProgram) -> None:
        if not request.path.startswith("/"):
            raise BindError(f"the path of a program must be absolute, not {request.path!r}")
        if any("\0" in text for text in (request.path, *request.args)):
            raise BindError("neither the path nor the arguments of a program can have a null character in them")
        running = self.registry.bind_program(Binding(request.path, request.auto, request.args), request.name)
        name = self.registry.names[request.name]
        for process in running:
            self.flows.bound(process, name)
        self.flows.wanted(name)

    def _bind_process(self, request: BindProcess) -> None:
        if request.pid in self.ipcps:
            self.registry.create(request.name)
            self.ipcps[request.pid].names.add(request.name)
            return
        process = self._process(request.pid)
        self.flows.bound(process, self.registry.bind_process(process, request.name))

    def _unbind_process(self, request: UnbindProcess) -> None:
        if request.pid not in self.ipcps:
            process = self._process(request.pid)
            self.flows.unbound(process, self.registry.unbind_process(process, request.name))
        elif request.name in self.ipcps[request.pid].names:
            self.ipcps[request.pid].names.discard(request.name)
        else:
            raise BindError(f"IPC process {self.ipcps[request.pid].name!r} is not bound to {request.name!r}")

    def _register_name(self, request: RegisterName) -> None:
        self.registry.find(request.name)
        self._ipcp(request.ipcp).register(request.name)
        self.registry.create(request.name)

    def _destroy_name(self, text: str) -> None:
        name = self.registry.destroy(text)
        self.flows.name_destroyed(name)
        for ipcp in self.ipcps.values():
            ipcp.names.discard(text)
            if isinstance(ipcp, LocalIpcp | UdpIpcp):
                ipcp.unregister(text)

    def _process(self, pid: int) -> Process:
        process = self.registry.processes.get(pid)
        if process is None:
            raise BindError(f"no process {pid} uses this node; bind its program instead, or start it first")
        return process

    # --- IPC processes

    def _create_ipcp(self, request: CreateIpcp) -> int:
        check_name(request.name, "name of an IPC process")
        if request.type not in IPCP_TYPES:
            raise IpcpCreateError(f"unknown type {request.type!r}: choose one of {', '.join(IPCP_TYPES)}")
        kind = IPCP_TYPES[request.type]
        if kind is None:
            raise UnsupportedError(
                f"IPC processes of type {request.type} are not built yet; there are {', '.join(_BUILT)}"
            )
        if any(ipcp.name == request.name for ipcp in self.ipcps.values()):
            raise IpcpCreateError(f"there is an IPC process {request.name!r} already; choose another name")
        id = self._next_ipcp
        self._next_ipcp += 1
        self.ipcps[id] = (
            kind(id, request.name, self._environment) if issubclass(kind, UdpIpcp) else kind(id, request.name)
        )
        return id

    def _bootstrap_ipcp(self, token: int, request: BootstrapIpcp) -> int | _Later:
        ipcp = self._ipcp(request.ipcp)
        check_name(request.layer, "layer name")
        if self._layer(request.layer, ipcp.type) is not None:
            raise NameError(f"this node is in {ipcp.type} layer {request.layer!r} already")
        impairment = None if request.impair is None else parse_impairment(request.impair)
        if impairment is not None:
            ipcp.check_impairable()
        if isinstance(ipcp, UdpIpcp):
            return self._open_layer(token, ipcp, request, impairment)
        if request.udp is not None:
            raise IpcpBootstrapError(
                f"IPC process {ipcp.name!r} of type {ipcp.type} has neither ip nor port: leave them out"
            )
        ipcp.bootstrap(request.layer, request.hash)
        if impairment is not None:
            self._impair(ipcp, impairment)
        if isinstance(ipcp, BroadcastIpcp):
            self._effects.append(StartLayer(ipcp.id))
        return ipcp.id

    def _open_layer(self, token: int, ipcp: UdpIpcp, request: BootstrapIpcp, impairment: Impairment | None) -> _Later:
        """Answered when the runtime has the socket, or has none."""
        if ipcp.state == "boot":
            ipcp.configure(request.udp)
        ipcp.bootstrap(request.layer, request.hash)
        self._bootstrapping[ipcp.id] = (token, impairment)
        return _Later()

    def _impair(self, ipcp: Ipcp, impairment: Impairment) -> None:
        ipcp.impair(impairment)
        self._effects.append(Impair(ipcp.id, impairment))

    def _destroy_ipcp(self, id: int) -> None:
        ipcp = self._ipcp(id)
        running = isinstance(ipcp, BroadcastIpcp | UdpIpcp) and ipcp.state != "boot"
        if isinstance(ipcp, UdpIpcp):
            ipcp.destroyed()
        del self.ipcps[id]
        if id in self._bootstrapping:
            token, _ = self._bootstrapping.pop(id)
            self._fail(token, IpcpBootstrapError(f"IPC process {ipcp.name!r} was destroyed"))
        if running or ipcp.impairment is not None:
            self._effects.append(StopLayer(id))

    def _change_peers(self, request: ChangePeers) -> None:
        ipcp = self._ipcp(request.ipcp)
        if not isinstance(ipcp, UdpIpcp):
            raise IpcpBootstrapError(f"IPC process {ipcp.name!r} of type {ipcp.type} has no peers; those over UDP have")
        ipcp.change_peers(request.add, request.remove)

    def _fail(self, token: int, error: OuroborosError) -> None:
        self._effects.append(Reply(token, Failed(type(error).__name__, str(error))))

    def _ipcp(self, id: int) -> Ipcp:
        ipcp = self.ipcps.get(id)
        if ipcp is None:
            raise IpcpCreateError(f"there is no IPC process {id}; `irm ipcp list` shows them")
        return ipcp

    def _layer(self, layer: str, type: str) -> Ipcp | None:
        of_type = (ipcp for ipcp in self.ipcps.values() if ipcp.type == type and ipcp.state != "boot")
        return next((ipcp for ipcp in of_type if ipcp.layer == layer), None)

    def _impaired_layer_of(self, name: str) -> Ipcp | None:
        """The impaired layer through which flows to a name go: that of the name, if it is in several the oldest of them."""
        local = [ipcp for ipcp in self.ipcps.values() if isinstance(ipcp, LocalIpcp)]
        if all(ipcp.impairment is None for ipcp in local):
            return None
        layer = next((ipcp for ipcp in local if ipcp.query(ipcp.digest(name))), None)
        return layer if layer is not None and layer.impairment is not None else None

    def _broadcast_layer(self, layer: str) -> Ipcp | None:
        return self._layer(layer, "broadcast")

    def _layers_of(self, name: str) -> list[str]:
        return [ipcp.layer for ipcp in self.ipcps.values() if ipcp.layer and ipcp.query(ipcp.digest(name))]
