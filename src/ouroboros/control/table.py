"""The flows of a node, and what happens when their ends are let go. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from ouroboros.control.effects import Effect, MarkDead, Release
from ouroboros.control.messages import FlowEntry
from ouroboros.control.names import Process
from ouroboros.errors import NodeLimitError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.udp import RemoteEnd
from ouroboros.layers.udp.options import written
from ouroboros.qos import QoSSpec


@dataclass(slots=True)
class Flow:
    """A flow between two ends; the owner of an end is None when it let go, or when it is not a program of this node."""

    id: int
    name: str
    qos: QoSSpec
    pids: tuple[int, int]
    owners: list[Process | None]
    #: Of the requests that got the ends.
    tokens: tuple[int | None, int | None]
    ipcp: Ipcp | None = None
    #: Of the impaired layer whose relay it goes through.
    relay: Ipcp | None = None
    #: Our end of a flow with another node.
    remote: RemoteEnd | None = None
    #: What the engine counts for it.
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def carrier(self) -> int | None:
        """The IPC process that carries its packets, None when nothing is between the two programs."""
        if self.remote is not None:
            return self.remote.ipcp
        layer = self.ipcp or self.relay
        return layer.id if layer else None


class FlowTable:
    """The flows by id; the lowest free id is given to the next one."""

    def __init__(self, effects: list[Effect], limit: int, ipcps: Mapping[int, Ipcp]) -> None:
        self._effects = effects
        self._limit = limit
        self._ipcps = ipcps
        self._free_ids: list[int] = []
        self._next_id = 1
        self.flows: dict[int, Flow] = {}

    def add(
        self,
        name: str,
        qos: QoSSpec,
        owners: tuple[Process | None, Process | None],
        tokens: tuple[int | None, int | None],
    ) -> Flow:
        """A new flow. Raises `NodeLimitError` when there are too many."""
        if len(self.flows) >= self._limit:
            raise NodeLimitError(f"the node has its limit of {self._limit} flows; deallocate some, or raise its limit")
        if self._free_ids:
            flow_id = heapq.heappop(self._free_ids)
        else:
            flow_id = self._next_id
            self._next_id += 1
        zero, one = owners
        flow = Flow(flow_id, name, qos, (zero.pid if zero else 0, one.pid if one else 0), [zero, one], tokens)
        self.flows[flow_id] = flow
        for side, owner in enumerate(flow.owners):
            if owner is not None:
                owner.ends.add((flow_id, side))
        return flow

    def lose(self, flow: Flow, side: int) -> None:
        """The end of a process that is gone."""
        self._effects.append(MarkDead(flow.id, side, None if flow.ipcp else flow.carrier))
        self.let_go(flow, side)

    def let_go(self, flow: Flow, side: int) -> None:
        flow.owners[side] = None
        if any(owner is not None for owner in flow.owners):
            return
        del self.flows[flow.id]
        heapq.heappush(self._free_ids, flow.id)
        if flow.ipcp is not None:
            flow.ipcp.leave(flow.id)
        self._effects.append(Release(flow.id, flow.carrier))

    def entries(self) -> list[FlowEntry]:
        return [self._entry(flow) for flow in self.flows.values()]

    def _entry(self, flow: Flow) -> FlowEntry:
        if (end := flow.remote) is None:
            return FlowEntry(flow.id, flow.name, flow.pids, flow.qos)
        ipcp = self._ipcps.get(end.ipcp)
        return FlowEntry(
            flow.id,
            flow.name,
            flow.pids,
            flow.qos,
            layer="" if ipcp is None else ipcp.layer,
            address=written(end.address),
            peer="prototype" if end.extension is None else "node",
            counters=dict(flow.counters),
        )
