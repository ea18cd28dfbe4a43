"""The flows of a node, and what happens when their ends are let go. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from ouroboros.control.parties import Party
from ouroboros.control.shares import EVERYBODY, Kind, Shares
from ouroboros.errors import NodeLimitError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.effects import Effect, MarkDead, Release, RemoteEnd
from ouroboros.layers.face import End
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import FlowEntry

#: One host has that part of the memory of all peers.
PART_OF_HOST = 4


@dataclass(slots=True)
class Flow:
    """A flow between two ends; the owner of an end is None when it let go, or when it is not a party of this node."""

    id: int
    name: str
    qos: QoSSpec
    pids: tuple[int, int]
    owners: list[Party | None]
    #: Tokens of the programs' requests that were granted each end.
    tokens: tuple[int | None, int | None]
    #: A peer asked for it, from that host.
    of_peer: bool = False
    host: tuple[int, Hashable] | None = None
    ipcp: Ipcp | None = None
    #: The IPC process of the impaired layer that it goes through, although both ends are in this node.
    relay: Ipcp | None = None
    #: Our end of a flow with another node.
    remote: End | None = None
    #: The name of the layer that carries it; "" for one within the node whose name is in no layer.
    layer: str = ""
    #: Whose share has each end that a program holds, and how much of it.
    charged: dict[int, tuple[int, int]] = field(default_factory=dict)
    #: Counters of the engine.
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def carrier(self) -> int | None:
        """The IPC process that carries its packets, None when nothing is between the two ends."""
        if self.remote is not None:
            return self.remote.ipcp
        ipcp = self.ipcp or self.relay
        return ipcp.id if ipcp else None

    @property
    def ours(self) -> bool:
        """Whether both ends are at nodes of ours."""
        return self.remote is None or self.remote.peer()[1] == "node"


class FlowTable:
    """The flows by id; the lowest free id is given to the next one. `limit`: of all of them."""

    def __init__(self, effects: list[Effect], limit: int, ipcps: Mapping[int, Ipcp], shares: Shares) -> None:
        self._effects = effects
        self._limit = limit
        #: Flows that peers asked for, and how many there may be.
        self._of_peers = 0
        self.most_of_peers = self.most_of_host = 0
        #: Of each host: an IPC process, and who that is there.
        self._of_hosts: Counter[tuple[int, Hashable]] = Counter()
        #: Their accounts in the engine, below those that all have.
        self._host_accounts: dict[tuple[int, Hashable], int] = {}
        self._last_account = EVERYBODY
        self._ipcps = ipcps
        self._shares = shares
        #: Flows with other nodes that the engine has, by IPC process and endpoint id. What a program wrote before it let go
        #: is still to be delivered, and takes memory and descriptors of the node: then whose share has how much, else None.
        self._carried: dict[tuple[int, int], tuple[int, int] | None] = {}
        self._free_ids: list[int] = []
        self._next_id = 1
        self.flows: dict[int, Flow] = {}
        #: Ids of flows that are not, or not any more, as they were shown last.
        self._changed: dict[int, None] = {}

    def add(
        self,
        name: str,
        qos: QoSSpec,
        owners: tuple[Party | None, Party | None],
        tokens: tuple[int | None, int | None],
        users: tuple[int | None, int | None],
        *,
        ring: bool = False,
        host: tuple[int, Hashable] | None = None,
    ) -> Flow:
        """A new flow. `users`: of the programs that get ends, None for the owner. `ring`: nothing is between two programs.
        One without a first owner is one that a peer asked for, from that `host`: an IPC process, and who that is there.

        Raises `NodeLimitError` when there are too many, or a user or the peers have too many.
        """
        if len(self.flows) >= self._limit:
            raise NodeLimitError(f"the node has its limit of {self._limit} flows; deallocate some, or raise its limit")
        if owners[0] is None:
            # Half of them are for the programs of the node, whatever comes from outside.
            most = min(self.most_of_peers, (self._limit + 1) // 2)
            if self._of_peers >= most:
                raise NodeLimitError(f"peers have their share of {most} of the flows of the node")
            if host is not None and self._of_hosts[host] >= min(self.most_of_host, (most + 1) // 2):
                raise NodeLimitError(f"a peer has its share of {self._of_hosts[host]} of the flows of the node")
        charged = self._charge(users, ring=ring)
        if self._free_ids:
            flow_id = heapq.heappop(self._free_ids)
        else:
            flow_id = self._next_id
            self._next_id += 1
        zero, one = owners
        pids = (zero.pid if zero else 0, one.pid if one else 0)
        flow = Flow(flow_id, name, qos, pids, [zero, one], tokens, of_peer=zero is None, host=host)
        flow.charged = charged
        self.flows[flow_id] = flow
        self.touch(flow_id)
        self._of_peers += flow.of_peer
        if host is not None:
            self._of_hosts[host] += 1
        for side, owner in enumerate(flow.owners):
            if owner is not None:
                owner.ends.add((flow_id, side))
        return flow

    def check(self, users: tuple[int | None, int | None], *, ring: bool = False) -> None:
        """Raises `NodeLimitError` when these users cannot have the ends of a flow."""
        for user, amount in self._charge(users, ring=ring).values():
            self._shares.give_back(Kind.FLOWS, user, amount)

    def _charge(self, users: tuple[int | None, int | None], *, ring: bool) -> dict[int, tuple[int, int]]:
        """All of it or nothing."""
        charged: dict[int, tuple[int, int]] = {}
        # Where the engine is the other side, it has descriptors of its own.
        amount = 1 if ring else 2
        try:
            for side, user in enumerate(users):
                if user is not None:
                    self._shares.take(Kind.FLOWS, user, amount)
                    charged[side] = user, amount
        except NodeLimitError:
            for user, amount in charged.values():
                self._shares.give_back(Kind.FLOWS, user, amount)
            raise
        return charged

    def accounts(self, flow: Flow, side: int) -> dict[int, int]:
        """What pays for the memory of an end in the engine, and how much each has; nothing for the owner."""
        user, _ = flow.charged.get(side, (None, 0))
        accounts = self._shares.memory(user, of_peer=flow.of_peer)
        if flow.host is not None:
            if flow.host not in self._host_accounts:
                self._last_account -= 1
                self._host_accounts[flow.host] = self._last_account
            # So that one host does not slow all others down.
            accounts[self._host_accounts[flow.host]] = self._shares.memory_of_peers // PART_OF_HOST
        return accounts

    def attach(self, flow: Flow, end: End) -> None:
        """The engine is to have our end of a flow with another node."""
        flow.remote, flow.layer = end, self._ipcps[end.ipcp].layer
        self.touch(flow.id)
        if flow.charged and isinstance(end, RemoteEnd):
            self._carried[end.ipcp, end.eid] = None

    def engine_done(self, ipcp: int, eid: int) -> None:
        """It has nothing more of a flow with another node."""
        if (charged := self._carried.pop((ipcp, eid), None)) is not None:
            self._shares.give_back(Kind.FLOWS, *charged)

    def carrier_gone(self, ipcp: int) -> None:
        """Nor of any that the IPC process carried."""
        for each, eid in [key for key in self._carried if key[0] == ipcp]:
            self.engine_done(each, eid)

    def _give_back(self, flow: Flow, charged: tuple[int, int]) -> None:
        key = (flow.remote.ipcp, flow.remote.eid) if isinstance(flow.remote, RemoteEnd) else None
        if key in self._carried:
            self._carried[key] = charged
        else:
            self._shares.give_back(Kind.FLOWS, *charged)

    def lose(self, flow: Flow, side: int, now: float) -> None:
        """The end of a process that is gone."""
        self._effects.append(MarkDead(flow.id, side, None if flow.ipcp else flow.carrier))
        self.let_go(flow, side, now)

    def let_go(self, flow: Flow, side: int, now: float) -> None:
        flow.owners[side] = None
        if (charged := flow.charged.pop(side, None)) is not None:
            self._give_back(flow, charged)
        if any(owner is not None for owner in flow.owners):
            return
        del self.flows[flow.id]
        self.touch(flow.id)
        self._of_peers -= flow.of_peer
        if flow.host is not None:
            self._of_hosts[flow.host] -= 1
            if not self._of_hosts[flow.host]:
                del self._of_hosts[flow.host]
                self._host_accounts.pop(flow.host, None)
        heapq.heappush(self._free_ids, flow.id)
        if flow.ipcp is not None:
            flow.ipcp.leave(flow.id, now)
        self._effects.append(Release(flow.id, flow.carrier))

    def touch(self, flow_id: int) -> None:
        """What is shown of that flow is not so any more."""
        self._changed[flow_id] = None

    def take_changes(self) -> dict[int, FlowEntry | None]:
        """The entries of flows that have changed since the last time; None for those that are gone."""
        if not self._changed:
            # As after most requests that are refused.
            return {}
        changed, self._changed = self._changed, {}
        flows = ((flow_id, self.flows.get(flow_id)) for flow_id in changed)
        return {flow_id: None if flow is None else self._entry(flow) for flow_id, flow in flows}

    def entries(self) -> list[FlowEntry]:
        return [self._entry(flow) for flow in self.flows.values()]

    def _entry(self, flow: Flow) -> FlowEntry:
        if (end := flow.remote) is None:
            return FlowEntry(flow.id, flow.name, flow.pids, flow.qos, flow.layer)
        address, kind = end.peer()
        return FlowEntry(
            flow.id,
            flow.name,
            flow.pids,
            flow.qos,
            layer=flow.layer,
            address=address,
            peer=kind,
            counters=dict(flow.counters),
        )
