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

The "pid" of an IPC process is its id inside the node; it is not a process of the operating system.

Every call raises `NodeError` when the node cannot be reached. What the node refuses raises the exception that the call
names, an `IrmError` whose text is the node's reason. With no node running, a call starts the embedded one, unless made
under `running_node_only`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec

from ouroboros.control import messages
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
from ouroboros.qos import QoSSpec
from ouroboros.runtime import client

__all__ = [
    "BIND_AUTO",
    "BindError",
    "DirectoryHashAlgo",
    "FlowInfo",
    "IpcpBootstrapError",
    "IpcpConfig",
    "IpcpConnectError",
    "IpcpCreateError",
    "IpcpEnrollError",
    "IpcpInfo",
    "IpcpType",
    "IrmError",
    "LoadBalancePolicy",
    "NameError",
    "NameInfo",
    "NodeError",
    "NodeInfo",
    "UnsupportedError",
    "bind_process",
    "bind_program",
    "bootstrap_ipcp",
    "create_ipcp",
    "create_name",
    "destroy_ipcp",
    "destroy_name",
    "list_flows",
    "list_ipcps",
    "list_names",
    "node_info",
    "reg_name",
    "running_node_only",
    "unbind_process",
    "unbind_program",
    "unreg_name",
]

#: Option of `bind_program`: the node starts the program when a flow to the name is asked for and nobody accepts.
BIND_AUTO = 1


class IpcpType(IntEnum):
    """Type of an IPC process and of its layer. This version builds `LOCAL` and `BROADCAST`."""

    LOCAL = 0
    UNICAST = 1
    BROADCAST = 2
    ETH_LLC = 3
    ETH_DIX = 4
    UDP4 = 5
    UDP6 = 6

    @property
    def word(self) -> str:
        """The type as the `irm` command writes it, such as `eth-llc`."""
        return self.name.lower().replace("_", "-")


class DirectoryHashAlgo(IntEnum):
    """How a layer hashes the names that are registered in it."""

    SHA3_224 = 0
    SHA3_256 = 1
    SHA3_384 = 2
    SHA3_512 = 3

    @property
    def word(self) -> str:
        """The algorithm as the `irm` command writes it, such as `SHA3_256`."""
        return self.name


class LoadBalancePolicy(IntEnum):
    """Which acceptor of a name gets the next flow: the one that waited longest, or the one that came last."""

    ROUND_ROBIN = 0
    SPILL = 1

    @property
    def word(self) -> str:
        """The policy as the `irm` command writes it: `round-robin` or `spillover`."""
        return "round-robin" if self is LoadBalancePolicy.ROUND_ROBIN else "spillover"


class IpcpConfig(msgspec.Struct, frozen=True):
    """What `bootstrap_ipcp` makes of an IPC process: a member of the layer `layer_name`."""

    ipcp_type: IpcpType
    layer_name: str = ""
    dir_hash_algo: DirectoryHashAlgo = DirectoryHashAlgo.SHA3_256


class NameInfo(msgspec.Struct, frozen=True):
    """A name. `create_name` uses the first two fields; `list_names` fills the others too.

    `programs`: base names of bound programs. `processes`: ids of bound processes. `layers`: where it is registered.
    """

    name: str
    pol_lb: LoadBalancePolicy = LoadBalancePolicy.ROUND_ROBIN
    programs: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()


class IpcpInfo(msgspec.Struct, frozen=True):
    """An IPC process of the node.

    `state`: "boot", and "operational" once it is in a layer; until then `layer` is empty and `dir_hash_algo` is None.
    `members`: flows joined to a broadcast layer. `lost`: packets that its members were too slow to take.
    """

    pid: int
    name: str
    type: IpcpType
    layer: str
    state: str
    dir_hash_algo: DirectoryHashAlgo | None = None
    members: int = 0
    lost: int = 0


class FlowInfo(msgspec.Struct, frozen=True):
    """A flow of the node. `pids`: of the allocator and of the acceptor; 0 is the node itself (a broadcast layer)."""

    flow_id: int
    name: str
    pids: tuple[int, int]
    qos: QoSSpec


class NodeInfo(msgspec.Struct, frozen=True):
    """The node itself. `embedded`: started by a program's first call, and ends by itself when idle."""

    version: str
    pid: int
    embedded: bool
    runtime_dir: str
    processes: int
    flows: int
    names: int


# --- IPC processes


def create_ipcp(name: str, ipcp_type: IpcpType) -> int:
    """Create an IPC process and return its pid. It is in no layer until `bootstrap_ipcp`.

    Raises `IpcpCreateError` when the node refuses, `UnsupportedError` for a type that this version cannot build.
    """
    _require_built(ipcp_type)
    pid: int = _request(messages.CreateIpcp(name, ipcp_type.word), IpcpCreateError)
    return pid


def destroy_ipcp(pid: int) -> None:
    """Destroy an IPC process; flows in its layer go down. Raises `IpcpCreateError` when there is none with that pid."""
    _request(messages.DestroyIpcp(pid), IpcpCreateError)


def bootstrap_ipcp(pid: int, conf: IpcpConfig) -> None:
    """Make an IPC process the first member of a new layer.

    Raises `IpcpBootstrapError` when there is none with that pid, when it is of another type than `conf` or already in a
    layer, or when `conf` has no layer name; `UnsupportedError` for a type that this version cannot build.
    """
    _require_built(conf.ipcp_type)
    if not conf.layer_name:
        raise IpcpBootstrapError("the configuration has no layer name: set layer_name")
    for ipcp in list_ipcps():
        if ipcp.pid == pid and ipcp.type is not conf.ipcp_type:
            raise IpcpBootstrapError(
                f"IPC process {pid} is of type {ipcp.type.word}, its configuration of type {conf.ipcp_type.word}"
            )
    _request(messages.BootstrapIpcp(pid, conf.layer_name, conf.dir_hash_algo.word), IpcpBootstrapError)


def list_ipcps() -> list[IpcpInfo]:
    """All IPC processes, sorted by type, then pid."""
    entries: list[messages.IpcpEntry] = _request(messages.ListIpcps())
    return sorted((_ipcp_info(entry) for entry in entries), key=lambda ipcp: (ipcp.type, ipcp.pid))


# --- names


def create_name(info: NameInfo) -> None:
    """Create a name. Raises `NameError` when the node refuses, for instance because it is too long."""
    _request(messages.CreateName(info.name, info.pol_lb.word), NameError)


def destroy_name(name: str) -> None:
    """Destroy a name and everything bound to it. Raises `NameError` when there is no such name."""
    _request(messages.DestroyName(name), NameError)


def list_names() -> list[NameInfo]:
    """All names, sorted."""
    entries: list[messages.NameEntry] = _request(messages.ListNames())
    return sorted((_name_info(entry) for entry in entries), key=lambda info: info.name)


def reg_name(name: str, pid: int) -> None:
    """Publish a name in the layer of an IPC process.

    Raises `NameError` when the node refuses, `UnsupportedError` when the layer holds no names (a broadcast layer).
    """
    _request(messages.RegisterName(name, pid), NameError)


def unreg_name(name: str, pid: int) -> None:
    """Take a name out of the layer of an IPC process; raises as `reg_name`, but not when the name is not in it."""
    _request(messages.UnregisterName(name, pid), NameError)


# --- bindings


def bind_program(prog: str, name: str, opts: int = 0, argv: Sequence[str] | None = None) -> None:
    """Let every process of a program, running or to come, accept flows for a name, creating the name if needed.

    `prog` is a path, or looked up on PATH. With `BIND_AUTO` in `opts` the node starts it, with the arguments `argv`,
    when a flow is asked for and nobody accepts.

    Raises `BindError` when the program cannot be found or executed, when `argv` is given without `BIND_AUTO`, or when
    the node refuses; `ValueError` for unknown options.
    """
    if opts & ~BIND_AUTO:
        raise ValueError(f"bind_program: opts knows only BIND_AUTO ({BIND_AUTO}), not {opts}")
    if argv and not opts & BIND_AUTO:
        raise BindError("only a program that the node starts is given arguments: bind it with auto, or leave them out")
    _request(messages.BindProgram(_executable(prog), name, bool(opts & BIND_AUTO), list(argv or ())), BindError)


def unbind_program(prog: str, name: str) -> None:
    """Undo `bind_program`; running processes stay bound. `prog`: path or base name.

    Raises `BindError` when the program is not bound to the name.
    """
    _request(messages.UnbindProgram(Path(prog).name, name), BindError)


def bind_process(pid: int, name: str) -> None:
    """Let a running process, or an IPC process, accept flows for a name, creating the name if needed.

    Raises `BindError` when the node refuses.
    """
    _request(messages.BindProcess(pid, name), BindError)


def unbind_process(pid: int, name: str) -> None:
    """Undo `bind_process`. Raises `BindError` when the process is not bound to the name."""
    _request(messages.UnbindProcess(pid, name), BindError)


# --- the node


def list_flows() -> list[FlowInfo]:
    """All flows of the node, sorted by flow id."""
    entries: list[messages.FlowEntry] = _request(messages.ListFlows())
    flows = [FlowInfo(entry.id, entry.name, entry.pids, entry.qos) for entry in entries]
    return sorted(flows, key=lambda flow: flow.flow_id)


def node_info() -> NodeInfo:
    """Version, pid and figures of the node that answers."""
    entry: messages.NodeEntry = _request(messages.NodeInfo())
    return NodeInfo(**msgspec.structs.asdict(entry))


@contextmanager
def running_node_only() -> Iterator[None]:
    """Within this block, calls of this module raise `NodeError` when no node runs, and never start one."""
    token = _may_start_node.set(False)
    try:
        yield
    finally:
        _may_start_node.reset(token)


_may_start_node: ContextVar[bool] = ContextVar("may_start_node", default=True)

_TYPE_BY_WORD = {ipcp_type.word: ipcp_type for ipcp_type in IpcpType}
_POLICY_BY_WORD = {policy.word: policy for policy in LoadBalancePolicy}
_BUILT_TYPES = (IpcpType.LOCAL, IpcpType.BROADCAST)


def _request(message: messages.Request, refused: type[IrmError] = IrmError) -> Any:  # noqa: ANN401
    try:
        return client.request(message, start=_may_start_node.get())
    except NodeError:
        raise
    except IrmError as error:
        if isinstance(error, refused):
            raise
        # The node knows what is wrong, for instance with a name; the caller wants to know which call failed.
        raise refused(str(error)) from error


def _require_built(ipcp_type: IpcpType) -> None:
    if ipcp_type not in _BUILT_TYPES:
        built = " and ".join(known.word for known in _BUILT_TYPES)
        raise UnsupportedError(f"IPC processes of type {ipcp_type.word} are not built yet: this version has {built}")


def _executable(prog: str) -> str:
    path = Path(prog)
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


def _name_info(entry: messages.NameEntry) -> NameInfo:
    policy = _POLICY_BY_WORD[entry.policy]
    return NameInfo(entry.name, policy, tuple(entry.programs), tuple(entry.processes), tuple(entry.layers))


def _ipcp_info(entry: messages.IpcpEntry) -> IpcpInfo:
    return IpcpInfo(
        pid=entry.id,
        name=entry.name,
        type=_TYPE_BY_WORD[entry.type],
        layer=entry.layer,
        state=entry.state,
        dir_hash_algo=DirectoryHashAlgo[entry.hash] if entry.layer else None,
        members=entry.members,
        lost=entry.lost,
    )
