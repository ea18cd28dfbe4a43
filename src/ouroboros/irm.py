"""Management of a node: names, bindings, IPC processes and layers, flows.

::

    from ouroboros.irm import *

    pid = create_ipcp("lab0", IpcpType.LOCAL)
    bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, layer_name="lab"))
    create_name(NameInfo("clock"))
    bind_program("clockd", "clock", BIND_AUTO, ["--utc"])
    reg_name("clock", pid)

Three relations, and none implies another: a *binding* says which programs and processes may accept flows for a name, a
*registration* says in which layer the name can be found, and a *bootstrap* makes an IPC process a member of a layer.

The "pid" of an IPC process is its id inside the node; it is not a process of the operating system. `ouroboros.cli` has the
same calls with names in its place.

Every call raises `NodeError` when the node cannot be reached. What the node refuses raises the exception that the call
names, an `IrmError` whose text is the node's reason. What this version cannot do yet raises `UnsupportedError`. With no
node running, a call starts the embedded one, unless made under `running_node_only`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035

import msgspec

from ouroboros import _infos, backend, settings
from ouroboros._arguments import as_name, as_text, as_texts, as_whole, shown
from ouroboros._checks import as_choice
from ouroboros._infos import *  # noqa: F403 - exported
from ouroboros._infos import (
    FlowInfo,
    IpcpInfo,
    LayerOffer,
    NodeFigures,
    NodeInfo,
    ShareInfo,
    flow_infos,
    ipcp_infos,
    layer_offers,
    name_info,
)
from ouroboros._values import time_limit
from ouroboros.errors import (
    BindError,
    IpcpBootstrapError,
    IpcpConnectError,
    IpcpCreateError,
    IpcpEnrollError,
    IrmError,
    NameError,
    NodeError,
    UnsupportedError,
)
from ouroboros.qos import QoSSpec, check_qos
from ouroboros.runtime.paths import runtime_dir
from ouroboros.settings import *  # noqa: F403 - exported
from ouroboros.settings import IpcpConfig, IpcpType, NameInfo, settings_of
from ouroboros.wire import control as messages

# A few helpers are among them, which a star import of the package 0.23 brings and programs may use.
__all__ = [
    "BIND_AUTO",
    "DT_COMP",
    "MGMT_COMP",
    "BindError",
    "IntEnum",
    "IpcpBootstrapError",
    "IpcpConnectError",
    "IpcpCreateError",
    "IpcpEnrollError",
    "IrmError",
    "List",
    "NameError",
    "NodeError",
    "Optional",
    "QoSSpec",
    "UnsupportedError",
    "bind_process",
    "bind_program",
    "bootstrap_ipcp",
    "change_peers",
    "connect_ipcp",
    "create_ipcp",
    "create_name",
    "destroy_ipcp",
    "destroy_name",
    "disconnect_ipcp",
    "discover_layers",
    "enroll_ipcp",
    "impair_ipcp",
    "keep_alive_ipcp",
    "last_figures",
    "list_flows",
    "list_ipcps",
    "list_names",
    "node_info",
    "reg_name",
    "running_node_only",
    "save_configuration",
    "unbind_process",
    "unbind_program",
    "unreg_name",
]
__all__ += [*_infos.__all__, *settings.__all__]

#: Option of `bind_program`: the node starts the program when a flow to the name is asked for and nobody accepts.
BIND_AUTO = 1

#: The parts of a unicast IPC process that `connect_ipcp` connects to those of a neighbour.
DT_COMP = "Data Transfer"
MGMT_COMP = "Management"


# --- IPC processes


def create_ipcp(name: str, ipcp_type: IpcpType) -> int:
    """Create an IPC process and return its pid. It is in no layer until `bootstrap_ipcp` or `enroll_ipcp`.

    Raises `IpcpCreateError` when the node refuses, for instance because there is one of that name; `UnsupportedError` for
    a type that the node cannot build.

    Example::

        pid = create_ipcp("lab0", IpcpType.LOCAL)
    """
    ipcp_type = as_choice(IpcpType, ipcp_type, "ipcp_type")
    name = _name(name, IpcpCreateError, "name of an IPC process")
    pid: int = _request(messages.CreateIpcp(name, ipcp_type.word), IpcpCreateError)
    return pid


def destroy_ipcp(pid: int) -> None:
    """Destroy an IPC process; flows in its layer go down.

    Raises `IpcpCreateError` when there is none with that pid.

    Example::

        destroy_ipcp(pid)
    """
    _request(messages.DestroyIpcp(_ipcp_pid(pid)), IpcpCreateError)


def bootstrap_ipcp(pid: int, conf: IpcpConfig) -> None:
    """Make an IPC process the first member of a new layer.

    Raises `IpcpBootstrapError` when there is none with that pid, when it is of another type than `conf` or already in a
    layer, when `conf` has no layer name, or when a layer over UDP cannot have its address and port; `UnsupportedError` for a
    type that this version cannot build.

    Example::

        bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, layer_name="lab"))
    """
    _check_settings(conf)
    _ipcp_pid(pid)
    if (stack := backend.native()) is not None:
        stack.management.bootstrap_ipcp(pid, conf)
        return
    if not conf.layer_name:
        raise IpcpBootstrapError("the configuration has no layer name: set layer_name")
    ipcp = _find(pid, IpcpBootstrapError)
    if ipcp.type is not conf.ipcp_type:
        raise IpcpBootstrapError(
            f"IPC process {ipcp.name!r} is of type {ipcp.type.word}, its configuration of type {conf.ipcp_type.word}"
        )
    _request(messages.BootstrapIpcp(pid, conf.layer_name, settings_of(conf)), IpcpBootstrapError)


def change_peers(pid: int, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
    """Change where a layer over UDP looks for names, while it runs: all that is asked for, or nothing.

    Entries are `NAME@ADDRESS`, as in `Udp4Config.peers`; one that is there already can be added again. Flows that exist
    stay as they are.

    Raises `IpcpBootstrapError` when there is no IPC process with that pid, it is not in a layer over UDP, an entry is wrong,
    or one to remove is not there.

    Example::

        change_peers(pid, add=["clock@192.0.2.7"], remove=["clock@192.0.2.2"])
    """
    request = messages.ChangePeers(_ipcp_pid(pid), as_texts(add, "add"), as_texts(remove, "remove"))
    _request(request, IpcpBootstrapError)


def impair_ipcp(pid: int, impair: str) -> None:
    """Change what an impaired layer does to packets, while it runs.

    `impair`: replaces what was set before, as in `"loss=1%,delay=10ms"` (`docs/testing.md`); `"none"` for nothing. Flows
    that were allocated when the layer had no impairment at all stay direct.

    Raises `IpcpBootstrapError` when there is no IPC process with that pid, its layer cannot be impaired, or a word of
    `impair` is wrong.

    Example::

        impair_ipcp(pid, "partition")
    """
    _request(messages.ImpairIpcp(_ipcp_pid(pid), as_text(impair, "impair")), IpcpBootstrapError)


def keep_alive_ipcp(pid: int, seconds: float) -> None:
    """Change how often a member of a unicast layer lets neighbours hear of it: each 10 s, if nothing is said. A neighbour
    of which nothing was heard for three times as long is passed round.

    `seconds`: from 0.05 to 3600. It counts for connections for packets (`DT_COMP`) that it asks for from then on, in which
    both sides do so; say it before `enroll_ipcp` or `connect_ipcp`.

    Raises `ValueError` for other times, `IpcpConnectError` when there is no IPC process with that pid, and
    `UnsupportedError` when it is of another type.

    Example::

        keep_alive_ipcp(pid, 0.1)
    """
    least, most = messages.LEAST_KEEPALIVE, messages.MOST_KEEPALIVE
    every = time_limit(seconds)
    if every is None or not least <= every <= most:
        raise ValueError(f"keepalives are {least} to {most:.0f} seconds apart, not {seconds!r}")
    _request(messages.KeepAliveIpcp(_ipcp_pid(pid), every), IpcpConnectError)


def enroll_ipcp(
    pid: int, dst: str, *, connect: bool = True, timeout: float | None = None, over: Iterable[str] = ()
) -> None:
    """Make an IPC process a member of a layer that exists, by way of a member of it.

    `dst`: a name that a member is bound to, by custom that of the layer, registered in a layer that both are in. `connect`:
    connect to that member, too; a member without a neighbour reaches nobody. Over the C prototype, `connect_ipcp` does that.
    `timeout`: seconds until it fails, None for 6; the C prototype has one of its own. One that fails, or is interrupted,
    leaves the IPC process as it was. `over`: layers below, by one of which the member is asked, and over each of which the
    two are connected; none: whichever leads there.

    Raises `IpcpEnrollError` when there is no IPC process with that pid, its type cannot enroll or it is in a layer already,
    nobody is found by that name, or the member refuses; `IpcpConnectError` when it has enrolled and cannot connect.

    Example::

        enroll_ipcp(pid, "campus")
    """
    layers = tuple(over)
    _enroll(pid, dst, connect=connect, timeout=timeout, over=layers)
    if not connect or backend.native() is not None:
        return
    is_broadcast = _find(pid, IpcpConnectError).type is IpcpType.BROADCAST
    for layer in layers or ("",):
        for component in (DT_COMP,) if is_broadcast else (MGMT_COMP, DT_COMP):
            _request(messages.ConnectIpcp(pid, component, dst, QoSSpec(), layer), IpcpConnectError)


def _enroll(pid: int, dst: str, *, connect: bool, timeout: float | None, over: tuple[str, ...]) -> None:
    """`enroll_ipcp`, but for connecting. `connect`: that will follow, and its flows are asked for meanwhile."""
    dst = _name(dst, IpcpEnrollError, "name to enroll with")
    seconds = time_limit(timeout)
    if seconds == 0:
        raise ValueError(f"timeout: an enrollment takes some seconds, not {timeout}")
    _check_networked(pid, "enroll", IpcpEnrollError)
    for layer in over:
        _name(layer, IpcpEnrollError, "layer to enroll over")
    if (stack := backend.native()) is not None:
        _check_any_layer(over)
        stack.management.enroll_ipcp(pid, dst)
    else:
        _request(messages.EnrollIpcp(pid, dst, connect, seconds, over), IpcpEnrollError)


def discover_layers(*, over: Iterable[str] = ()) -> list[LayerOffer]:
    """Ask which layers other nodes offer to newcomers, sorted. Nodes of ours on an Ethernet segment answer, within 0.7 s.

    `over`: names of layers of this node to ask in; none: all on a segment. Anybody on a segment can answer: only
    certificates tell who it is (`docs/ethernet.md`).

    Raises `IpcpEnrollError` when this node is on no segment, or in none of these layers, and `UnsupportedError` on the C
    prototype.

    Example::

        offers = [offer for offer in discover_layers() if offer.type is IpcpType.BROADCAST]
    """
    layers = tuple(_name(layer, IpcpEnrollError, "layer to ask in") for layer in over)
    if backend.native() is not None:
        raise UnsupportedError("the C Ouroboros cannot ask which layers there are")
    return layer_offers(_request(messages.DiscoverLayers(layers), IpcpEnrollError))


def _check_any_layer(over: Collection[str]) -> None:
    if over:
        raise UnsupportedError("over: the C Ouroboros chooses itself which layer carries a connection")


def connect_ipcp(pid: int, component: str, dst: str, qos: QoSSpec | None = None, *, over: str | None = None) -> None:
    """Connect a part of an IPC process to that of a neighbour in its layer, and keep the two connected: a connection that is
    lost is made again. Succeeds at once when they are connected.

    `component`: `MGMT_COMP`, by which they tell each other about routes, or `DT_COMP`, for packets. A member needs both; in
    a broadcast layer there is only `DT_COMP`. `dst`: a name that the neighbour is bound to. `qos`: of the flow between them,
    None for raw; it has to be raw in a broadcast layer, and if the neighbour is a member of the C prototype.
    `over`: the layer below that carries it, None for whichever leads there. Two members can have several connections, over a
    layer each.

    Raises `ValueError` for another component, `IpcpConnectError` when there is no IPC process with that pid, its type has no
    neighbours, nobody is found by that name, or it is no member of the layer; `UnsupportedError` for a flow that is not raw
    in a broadcast layer.

    Example::

        connect_ipcp(pid, DT_COMP, "campus.b", QOS_RAW)
    """
    _check_component(pid, component)
    layer = "" if over is None else _name(over, IpcpConnectError, "layer to connect over")
    if (stack := backend.native()) is not None:
        _check_any_layer(layer)
        stack.management.connect_ipcp(pid, component, dst, qos)
        return
    dst = _name(dst, IpcpConnectError, "name of the neighbour")
    _request(messages.ConnectIpcp(pid, component, dst, check_qos(qos), layer), IpcpConnectError)


def disconnect_ipcp(pid: int, component: str, dst: str) -> None:
    """Undo `connect_ipcp`. Raises `ValueError` and `IpcpConnectError` as it does, also when they are not connected.

    Example::

        disconnect_ipcp(pid, DT_COMP, "campus.b")
    """
    _check_component(pid, component)
    if (stack := backend.native()) is not None:
        stack.management.disconnect_ipcp(pid, component, dst)
        return
    dst = _name(dst, IpcpConnectError, "name of the neighbour")
    _request(messages.DisconnectIpcp(pid, component, dst), IpcpConnectError)


def list_ipcps() -> list[IpcpInfo]:
    """All IPC processes, sorted by type, then pid. A user that may read the files of the node does not ask it
    (`last_figures`).

    Example::

        layers = {ipcp.layer for ipcp in list_ipcps() if ipcp.layer}
    """
    figures = backend.figures_to_list()
    return ipcp_infos(_request(messages.ListIpcps()) if figures is None else figures.ipcps)


# --- names


def create_name(info: NameInfo) -> None:
    """Create a name. One that exists stays as it is, but for security files that are given: they count from now on.

    Raises `NameError` when the node refuses, for instance because the name is too long, and when there is no file of a path
    in `info`.

    Example::

        create_name(NameInfo("clock", LoadBalancePolicy.SPILL))
    """
    _check_info(info)
    name = _name(info.name, NameError)
    paths = [_real(path) for sec in (info.server_sec, info.client_sec) for path in (sec.enc, sec.crt, sec.key)]
    security = messages.NameSecurity(*paths) if any(paths) else None
    _request(messages.CreateName(name, info.pol_lb.word, security), NameError)


def _real(path: str) -> str | None:
    """Where the file is for the node, which runs in another directory."""
    if path and not os.path.isfile(path):
        raise NameError(f"there is no file {path!r}")
    return os.path.realpath(path) if path else None


def destroy_name(name: str) -> None:
    """Destroy a name and everything bound to it. Raises `NameError` when there is no such name.

    Example::

        destroy_name("clock")
    """
    _request(messages.DestroyName(_name(name, NameError)), NameError)


def list_names() -> list[NameInfo]:
    """All names, sorted.

    Example::

        unserved = [info.name for info in list_names() if not info.programs and not info.processes]
    """
    entries: list[messages.NameEntry] = _request(messages.ListNames())
    return sorted((name_info(entry) for entry in entries), key=lambda info: info.name)


def reg_name(name: str, pid: int) -> None:
    """Publish a name in the layer of an IPC process.

    Raises `NameError` when the node refuses, for instance because there is no such name; `UnsupportedError` when the layer
    holds no names (a broadcast layer).

    Example::

        reg_name("clock", pid)
    """
    _request(messages.RegisterName(_name(name, NameError), _ipcp_pid(pid)), NameError)


def unreg_name(name: str, pid: int) -> None:
    """Take a name out of the layer of an IPC process; raises as `reg_name`, but not when the name is not in it.

    Example::

        unreg_name("clock", pid)
    """
    _request(messages.UnregisterName(_name(name, NameError), _ipcp_pid(pid)), NameError)


# --- bindings


def bind_program(prog: str, name: str, opts: int = 0, argv: Sequence[str] | None = None) -> None:
    """Let every process of a program, running or to come, accept flows for a name, creating the name if needed.

    `prog` is a path, or looked up on PATH. With `BIND_AUTO` in `opts` the node starts it, with the arguments `argv`,
    when a flow is asked for and nobody accepts.

    Raises `BindError` when the program cannot be found or executed, when `argv` is given without `BIND_AUTO`, or when
    the node refuses; `ValueError` for unknown options.

    Example::

        bind_program("clockd", "clock", BIND_AUTO, ["--utc"])
    """
    if not isinstance(opts, int) or opts & ~BIND_AUTO:
        raise ValueError(f"bind_program: opts knows only BIND_AUTO ({BIND_AUTO}), not {shown(opts)}")
    if argv and not opts & BIND_AUTO:
        raise BindError("only a program that the node starts is given arguments: bind it with auto, or leave them out")
    name = _name(name, BindError)
    arguments = as_texts(argv, "argv")
    _request(messages.BindProgram(_executable(prog), name, bool(opts & BIND_AUTO), arguments), BindError)


def unbind_program(prog: str, name: str) -> None:
    """Undo `bind_program`; running processes stay bound. `prog`: path or base name.

    Raises `BindError` when the program is not bound to the name.

    Example::

        unbind_program("clockd", "clock")
    """
    program = Path(_path(prog)).name
    _request(messages.UnbindProgram(program, _name(name, BindError)), BindError)


def bind_process(pid: int, name: str) -> None:
    """Let a running process, or an IPC process, accept flows for a name, creating the name if needed.

    Raises `BindError` when the node refuses, for instance because no such process uses it.

    Example::

        bind_process(os.getpid(), "clock")
    """
    _request(messages.BindProcess(_process(pid), _name(name, BindError)), BindError)


def unbind_process(pid: int, name: str) -> None:
    """Undo `bind_process`. Raises `BindError` when the process is not bound to the name.

    Example::

        unbind_process(os.getpid(), "clock")
    """
    _request(messages.UnbindProcess(_process(pid), _name(name, BindError)), BindError)


# --- the node


def list_flows() -> list[FlowInfo]:
    """All flows of the node, sorted by flow id. A user that may read the files of the node does not ask it
    (`last_figures`), unless this program has just let go of a flow.

    Example::

        busiest = Counter(flow.name for flow in list_flows()).most_common(1)
    """
    figures = backend.figures_to_list()
    return flow_infos(_request(messages.ListFlows()) if figures is None else figures.flows)


def last_figures() -> NodeFigures:
    """The figures of the node in the runtime directory, also when it is stopped or was killed, until another
    node starts. Asks no node, and starts none.

    Raises `NodeError` when there is nothing, this user may not read it, or it is damaged; `UnsupportedError` with the C
    prototype.

    Example::

        figures = last_figures()
        lost = sum(flow.counters.get("overrun", 0) for flow in figures.flows)
    """
    found = backend.figures()
    if found is None:
        raise NodeError(
            f"no node has left figures in {runtime_dir()} that this user may read: one that ends in order leaves none"
        )
    ipcps, flows = ipcp_infos(found.ipcps), flow_infos(found.flows)
    return NodeFigures(found.pid, found.version, found.running, found.updated, tuple(ipcps), tuple(flows))


def node_info() -> NodeInfo:
    """Version, pid and figures of the node that answers.

    Example::

        print(node_info().runtime_dir)
    """
    entry: messages.NodeEntry = _request(messages.NodeInfo())
    shares = [ShareInfo(**msgspec.structs.asdict(share)) for share in entry.shares]
    return NodeInfo(**(msgspec.structs.asdict(entry) | {"shares": shares}))


def save_configuration() -> str:
    """What the node has, as the text of a configuration file from which `irmd` makes the same (`docs/node.md`): names and
    their programs, IPC processes with settings, registrations, bindings and connections, and what was changed of shares.

    What ends with a process is left out. Secrets are not in it, only the paths of files with them.

    Raises `BindError` when this user may not manage the node; `UnsupportedError` with the C prototype, which does not tell.

    Example::

        Path("node.toml").write_text(save_configuration(), encoding="utf-8")
    """
    text: str = _request(messages.Save(), BindError)
    return text


@contextmanager
def running_node_only() -> Iterator[None]:
    """Within this block, calls of this module raise `NodeError` when no node runs, and never start one.

    Example::

        with running_node_only():
            names = list_names()
    """
    token = _may_start_node.set(False)
    try:
        yield
    finally:
        _may_start_node.reset(token)


_may_start_node: ContextVar[bool] = ContextVar("may_start_node", default=True)

#: Types with members on other nodes that they know by name.
_NETWORKED_TYPES = (IpcpType.UNICAST, IpcpType.BROADCAST)


def _request(message: messages.Request, refused: type[IrmError] = IrmError) -> Any:  # noqa: ANN401
    try:
        return backend.request(message, start=_may_start_node.get())
    except NodeError:
        raise
    except IrmError as error:
        if isinstance(error, refused):
            raise
        # The node knows what is wrong, for instance with a name; the caller wants to know which call failed.
        raise refused(str(error)) from error


def _name(name: str, refused: type[IrmError], what: str = "name") -> str:
    return as_name(as_text(name, f"the {what}"), what, refused)


def _ipcp_pid(pid: object) -> int:
    if isinstance(pid, str):
        raise TypeError(
            f"pid is the number that create_ipcp gave, not {shown(pid)}: ouroboros.cli has the same calls by names"
        )
    return as_whole(pid, "pid")


def _process(pid: object) -> int:
    if isinstance(pid, str):
        raise TypeError(f"pid is the number of a process, not {shown(pid)}: programs are for bind_program")
    return as_whole(pid, "pid")


def _check_info(info: object) -> None:
    if not isinstance(info, NameInfo):
        hint = f": write NameInfo({shown(info)}), or call create_name of ouroboros.cli" if isinstance(info, str) else ""
        raise TypeError(f"info is a NameInfo, not {shown(info)}{hint}")


def _path(prog: object) -> str:
    return as_text(os.fspath(prog) if isinstance(prog, os.PathLike) else prog, "prog")


def _check_settings(conf: object) -> None:
    if not isinstance(conf, IpcpConfig):
        raise TypeError(f"conf is an IpcpConfig such as IpcpConfig(IpcpType.LOCAL, 'lab'), not {shown(conf)}")


def _find(pid: int, refused: type[IrmError]) -> IpcpInfo:
    _ipcp_pid(pid)
    for ipcp in list_ipcps():
        if ipcp.pid == pid:
            return ipcp
    raise refused(f"there is no IPC process {pid}; `irm ipcp list` shows them")


def _check_networked(pid: int, verb: str, refused: type[IrmError]) -> None:
    ipcp = _find(pid, refused)
    if ipcp.type not in _NETWORKED_TYPES:
        able = " and ".join(known.word for known in _NETWORKED_TYPES)
        raise refused(f"IPC process {ipcp.name!r} of type {ipcp.type.word} cannot {verb}: only types {able} can")


def _check_component(pid: int, component: str) -> None:
    if not isinstance(component, str) or component not in (DT_COMP, MGMT_COMP):
        raise ValueError(f"component must be MGMT_COMP ({MGMT_COMP!r}) or DT_COMP ({DT_COMP!r}), not {component!r}")
    _check_networked(pid, "have neighbours", IpcpConnectError)


def _executable(prog: str) -> str:
    path = Path(_path(prog))
    if not path.is_file():
        found = shutil.which(prog) if path.name == prog else None
        if found is None:
            where = "here or on PATH" if path.name == prog else "at that path"
            raise BindError(f"there is no program {prog!r} {where}: give the path of an executable file")
        path = Path(found)
    # A symbolic link is not followed: a process is recognised by the name it was started under.
    absolute = os.path.abspath(path)
    if not os.access(absolute, os.X_OK):
        raise BindError(f"{absolute} is not executable: make it so with chmod +x")
    return absolute
