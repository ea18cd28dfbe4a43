"""Results of the calls of `ouroboros.irm`, made of the messages of the node."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from ouroboros.qos import QoSSpec
from ouroboros.settings import DirectoryHashAlgo, IpcpType, LoadBalancePolicy, NameInfo
from ouroboros.wire import control as messages

__all__ = ["ConnectionInfo", "FlowInfo", "IpcpInfo", "LayerOffer", "NodeFigures", "NodeInfo", "RouteInfo", "ShareInfo"]

_TYPE_BY_WORD = {ipcp_type.word: ipcp_type for ipcp_type in IpcpType}
_POLICY_BY_WORD = {policy.word: policy for policy in LoadBalancePolicy}


class ConnectionInfo(msgspec.Struct, frozen=True):
    """A connection of a member of a unicast layer with a neighbour.

    `component`: `MGMT_COMP` or `DT_COMP`, or "Enrollment" while somebody enrolls. `name`: of the neighbour's IPC process, or
    what was asked for. `peer`: as of `FlowInfo`. `state`: "up", "silent", or "missing": it was lost, and is asked for
    again. `age`: seconds since it began. `over`: the layer that carries it, or is to; "" if it need not be a certain one.
    """

    component: str
    name: str
    address: str
    peer: str
    state: str
    age: float
    over: str = ""


class RouteInfo(msgspec.Struct, frozen=True):
    """The way to a member of a unicast layer. `via`: addresses of the neighbours that lead there, the first one first.
    `peer`: as of `FlowInfo`."""

    address: str
    hops: int
    via: tuple[str, ...]
    peer: str


class LayerOffer(msgspec.Struct, frozen=True):
    """A layer that another node offers to newcomers.

    `type`, `layer`: what it is. `member`: the name to enroll with. `over`: the layer of this node by which it was heard of.
    `station`: the address there of the node that said so.
    """

    type: IpcpType
    layer: str
    member: str
    over: str
    station: str

    def __str__(self) -> str:
        return f"{self.type.word} layer {self.layer!r} by {self.member!r} at {self.station} in {self.over!r}"


class IpcpInfo(msgspec.Struct, frozen=True):
    """An IPC process of the node.

    `state`: "boot", and "operational" once it is in a layer; until then `layer` is empty and `dir_hash_algo` is None.
    A layer that waits for its socket is "opening". One that fails by itself begins again, which `counters` has as
    "restored"; one that fails again and again is "failed", for the `reason` given, until it is destroyed.

    `members`: flows of this node joined to a broadcast layer, whose `address` and `connections` are as of a unicast one.
    `lost`: packets that its members were too slow to take, or that an impaired layer lost. `impair`: what the layer does to
    packets, "" for nothing, and how many it treated so. Of a layer over UDP:
    `address`, its own, `peers`, where it looks for names, and `counters`, what it got and what it dropped (`docs/udp.md`);
    its names are hashed with MD5, so `dir_hash_algo` is None. Of a unicast layer: `address` of the member, its `connections`
    and `routes`, the names of this node that are `registered` there, how many of others it has `kept` for the layer,
    and who may `enroll` there.
    """

    pid: int
    type: IpcpType
    name: str
    layer: str
    state: str
    dir_hash_algo: DirectoryHashAlgo | None = None
    members: int = 0
    lost: int = 0
    impair: str = ""
    delivered: int = 0
    duplicated: int = 0
    reordered: int = 0
    address: str = ""
    peers: tuple[str, ...] = ()
    counters: dict[str, int] = {}
    reason: str = ""
    connections: tuple[ConnectionInfo, ...] = ()
    routes: tuple[RouteInfo, ...] = ()
    registered: tuple[str, ...] = ()
    kept: int = 0
    enroll: tuple[str, ...] = ()


class FlowInfo(msgspec.Struct, frozen=True):
    """A flow of the node. `layer`: the layer that carries it, "" for one within the node whose name is in no layer.

    `pids`: of the allocator and of the acceptor; 0 is the node itself (a broadcast layer), or a program on another node. For
    a flow with another node, `address` is the other node's address, and `peer` says of which kind it is: "node" for one of
    ours, "prototype" for the C prototype; `counters` are those of the engine.
    """

    flow_id: int
    name: str
    pids: tuple[int, int]
    qos: QoSSpec
    layer: str = ""
    address: str = ""
    peer: str = ""
    counters: dict[str, int] = {}


class ShareInfo(msgspec.Struct, frozen=True):
    """The share of a user in a node that several users share. `kind`: connections, processes, requests, flows, lookups, and
    answers and memory, in bytes. `limit`: its share. `refused`: how often it wanted more."""

    user: int
    kind: str
    held: int
    limit: int
    refused: int


class NodeInfo(msgspec.Struct, frozen=True):
    """The node itself. `embedded`: started by a program's first call, and ends by itself when idle. `shares`: of users other
    than the owner, who sees those of all; others see their own."""

    version: str
    pid: int
    embedded: bool
    runtime_dir: str
    processes: int
    flows: int
    names: int
    shares: list[ShareInfo] = []


class NodeFigures(msgspec.Struct, frozen=True):
    """The figures of a node, as it wrote them last: at `updated`, seconds since 1970.

    `running`: it is there. Otherwise process `pid` was killed or crashed, and this is what it left.
    """

    pid: int
    version: str
    running: bool
    updated: float
    ipcps: tuple[IpcpInfo, ...]
    flows: tuple[FlowInfo, ...]


def name_info(entry: messages.NameEntry) -> NameInfo:
    policy = _POLICY_BY_WORD[entry.policy]
    return NameInfo(
        entry.name,
        policy,
        programs=tuple(entry.programs),
        processes=tuple(entry.processes),
        layers=tuple(entry.layers),
    )


def layer_offers(entries: Sequence[messages.OfferEntry]) -> list[LayerOffer]:
    return [LayerOffer(_TYPE_BY_WORD[each.type], each.layer, each.member, each.over, each.station) for each in entries]


def ipcp_infos(entries: Sequence[messages.IpcpEntry]) -> list[IpcpInfo]:
    return sorted((_ipcp_info(entry) for entry in entries), key=lambda ipcp: (ipcp.type, ipcp.pid))


def flow_infos(entries: Sequence[messages.FlowEntry]) -> list[FlowInfo]:
    flows = [
        FlowInfo(entry.id, entry.name, entry.pids, entry.qos, entry.layer, entry.address, entry.peer, entry.counters)
        for entry in entries
    ]
    return sorted(flows, key=lambda flow: flow.flow_id)


def _connection_info(entry: messages.ConnectionEntry) -> ConnectionInfo:
    fields = msgspec.structs.asdict(entry)
    since = fields.pop("since")
    return ConnectionInfo(**fields, age=max(time.monotonic() - since, 0.0) if since else 0.0)


def _ipcp_info(entry: messages.IpcpEntry) -> IpcpInfo:
    state, _, reason = entry.state.partition(": ")
    details = {} if entry.details is None else msgspec.structs.asdict(entry.details)
    if isinstance(entry.details, messages.UnicastDetails | messages.BroadcastDetails):
        details["connections"] = tuple(_connection_info(each) for each in entry.details.connections)
    if isinstance(entry.details, messages.UnicastDetails):
        details["routes"] = tuple(RouteInfo(**msgspec.structs.asdict(each)) for each in entry.details.routes)
    return IpcpInfo(
        pid=entry.id,
        name=entry.name,
        type=_TYPE_BY_WORD[entry.type],
        layer=entry.layer,
        state=state,
        dir_hash_algo=DirectoryHashAlgo.__members__.get(entry.hash) if entry.layer else None,
        counters=entry.counters,
        reason=reason,
        **details,
    )
