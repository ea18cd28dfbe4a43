"""The flows of a node: makes their channels, and runs the workers that carry packets of layers. Carries out effects."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from typing import Any, Protocol

import msgspec

from ouroboros.control.effects import Attach, Connect, Impair, Join, MarkDead, Relay, Release, Unreserve
from ouroboros.control.irm import Irm
from ouroboros.control.messages import Granted
from ouroboros.control.security import shown
from ouroboros.dataplane import MAX_PACKET, BroadcastWorker, RelayWorker, create_channel, mark_dead
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.local import LocalIpcp
from ouroboros.layers.udp import UdpIpcp
from ouroboros.runtime.looped import LoopedFlows
from ouroboros.runtime.udp import UdpRuntime
from ouroboros.wire.suites import CIPHER_BY_NUMBER

log = logging.getLogger("ouroboros.irmd")


class Programs(Protocol):
    """Who hands flows to the programs that wait for them."""

    def grant(self, token: int, granted: Granted, memory: int, bell: int) -> None: ...

    def fail_flow(self, flow_id: int, side: int, token: int, error: OSError) -> None: ...


class FlowRuntime:
    """Channels and workers of one node."""

    def __init__(self, irm: Irm, programs: Programs, udp: UdpRuntime) -> None:
        self._irm = irm
        self._programs = programs
        self._udp = udp
        #: Memory of flows between two programs, kept to say that a side died.
        self._memories: dict[int, int] = {}
        self._workers: dict[int, BroadcastWorker] = {}
        self._relays: dict[int, RelayWorker] = {}
        #: Ordered flows of impaired local layers, and what the links of those layers do.
        self._looped: dict[int, LoopedFlows] = {}
        self._settings: dict[int, dict[str, Any]] = {}

    def connect(self, effect: Connect) -> None:
        tokens = (effect.allocator, effect.acceptor)
        try:
            memory, *bells = create_channel()
        except OSError as error:
            for side, token in enumerate(tokens):
                self._programs.fail_flow(effect.flow_id, side, token, error)
            return
        self._memories[effect.flow_id] = memory
        for side, (token, bell) in enumerate(zip(tokens, bells, strict=True)):
            self._programs.grant(token, _granted(effect, side), memory, bell)
            os.close(bell)

    def relay(self, effect: Relay) -> None:
        tokens = (effect.allocator, effect.acceptor)
        made: list[tuple[int, int, int]] = []
        try:
            made += [create_channel()]
            made += [create_channel()]
        except OSError as error:
            for descriptor in itertools.chain(*made):
                os.close(descriptor)
            for side, token in enumerate(tokens):
                self._programs.fail_flow(effect.flow_id, side, token, error)
            return
        # The relay is side 1 of the allocator's channel and side 0 of the acceptor's.
        (memory_a, bell_a, relay_a), (memory_b, relay_b, bell_b) = made
        for side, memory, bell in ((0, memory_a, bell_a), (1, memory_b, bell_b)):
            self._programs.grant(tokens[side], _granted(effect, side), memory, bell)
            os.close(bell)
        try:
            # These descriptors are taken over; when that fails, both programs see their flow hang up.
            if effect.qos.ordered:
                ends = [(memory_a, relay_a, 1), (memory_b, relay_b, 0)]
                self._looped_flows(effect.ipcp).add(effect.flow_id, effect.qos, ends)
            else:
                self._relays[effect.ipcp].add(effect.flow_id, memory_a, relay_a, memory_b, relay_b)
        except OSError as error:
            log.warning("flow %d has no relay: %s", effect.flow_id, error)

    def _looped_flows(self, ipcp: int) -> LoopedFlows:
        if ipcp not in self._looped:
            self._looped[ipcp] = LoopedFlows(self._settings[ipcp], self._keep_counters)
        return self._looped[ipcp]

    def _keep_counters(self, flow_id: int, counters: dict[str, int]) -> None:
        if (flow := self._irm.flows.flows.get(flow_id)) is not None and flow.relay is not None:
            flow.counters = counters

    def join(self, effect: Join) -> None:
        try:
            memory, bell, far_bell = create_channel()
        except OSError as error:
            self._programs.fail_flow(effect.flow_id, 0, effect.token, error)
            return
        try:
            # Before it is granted: what the others write once `join` has returned must reach it.
            self._workers[effect.ipcp].add(*_duplicates(memory, far_bell))
        except OSError as error:
            self._programs.fail_flow(effect.flow_id, 0, effect.token, error)
        else:
            self._programs.grant(effect.token, Granted(effect.flow_id, effect.qos, 0, MAX_PACKET), memory, bell)
        finally:
            for descriptor in (memory, bell, far_bell):
                os.close(descriptor)

    def attach(self, effect: Attach) -> None:
        try:
            memory, *bells = create_channel()
        except OSError as error:
            _wipe(effect)
            self._fail_attach(effect, error)
            return
        bell, far_bell = bells[effect.side], bells[1 - effect.side]
        try:
            longest = self._udp.attach(effect, *_duplicates(memory, far_bell))
        except OSError as error:
            self._fail_attach(effect, error)
        else:
            granted = Granted(effect.flow_id, effect.qos, effect.side, longest, shown(effect.session))
            self._programs.grant(effect.token, granted, memory, bell)
        finally:
            _wipe(effect)
            for descriptor in (memory, bell, far_bell):
                os.close(descriptor)

    def _fail_attach(self, effect: Attach, error: OSError) -> None:
        """The engine does not have the flow, so nobody else would say that it is over; the peer thinks it is there."""
        self._programs.fail_flow(effect.flow_id, effect.side, effect.token, error)
        self._udp.unreserve(Unreserve(effect.ipcp, effect.eid))
        self._irm.flow_ended(effect.ipcp, effect.eid, "closed", asyncio.get_running_loop().time())

    def mark_dead(self, effect: MarkDead) -> None:
        if effect.ipcp is not None:
            # The layer may be gone, and the flow with it. One over UDP sees the doorbell hang up.
            if (relay := self._relays.get(effect.ipcp)) is not None:
                relay.mark_dead(effect.flow_id, effect.side)
        # A joined flow has no memory here: its other side is our own worker, which sees it end.
        elif (memory := self._memories.get(effect.flow_id)) is not None:
            mark_dead(memory, effect.side)

    def release(self, effect: Release) -> None:
        if effect.ipcp is None:
            # Not there when it could not be made.
            if (memory := self._memories.pop(effect.flow_id, None)) is not None:
                os.close(memory)
        elif (relay := self._relays.get(effect.ipcp)) is not None:
            relay.remove(effect.flow_id)

    # --- layers

    def start_broadcast(self, ipcp: int) -> None:
        self._workers[ipcp] = BroadcastWorker()

    def impair(self, effect: Impair) -> None:
        settings = msgspec.structs.asdict(effect.impairment)
        if (layer := self._udp.workers.get(effect.ipcp)) is not None:
            layer.set_impairment(**settings)
            return
        self._settings[effect.ipcp] = settings
        if (relay := self._relays.get(effect.ipcp)) is not None:
            relay.set_impairment(**settings)
        else:
            self._relays[effect.ipcp] = RelayWorker(**settings)
        if (looped := self._looped.get(effect.ipcp)) is not None:
            looped.worker.set_impairment(**settings)

    def stop_layer(self, ipcp: int) -> None:
        for worker in (self._workers.pop(ipcp, None), self._relays.pop(ipcp, None), self._looped.pop(ipcp, None)):
            if worker is not None:
                worker.stop()
        self._udp.stop(ipcp)

    def count(self) -> None:
        """Tell the IRM what the workers have counted."""
        for ipcp in self._irm.ipcps.values():
            if isinstance(ipcp, BroadcastIpcp) and ipcp.id in self._workers:
                ipcp.lost = self._workers[ipcp.id].lost
            elif isinstance(ipcp, LocalIpcp) and ipcp.id in self._relays:
                ipcp.counts = self._count_relayed(ipcp.id)
        self._count_udp()

    def _count_relayed(self, ipcp: int) -> tuple[int, int, int, int]:
        raw = self._relays[ipcp].counters
        if ipcp not in self._looped:
            return raw
        ordered, of_flows = self._looped[ipcp].counters()
        for flow_id, counters in of_flows.items():
            self._keep_counters(flow_id, counters)
        delivered, lost, duplicated, reordered = (one + other for one, other in zip(raw, ordered, strict=True))
        return delivered, lost, duplicated, reordered

    def _count_udp(self) -> None:
        of_layer = {ipcp: worker.snapshot() for ipcp, worker in self._udp.workers.items()}
        for ipcp, (counters, _) in of_layer.items():
            layer = self._irm.ipcps.get(ipcp)
            if isinstance(layer, UdpIpcp):
                layer.engine_counters = counters
        for flow in self._irm.flows.flows.values():
            if (end := flow.remote) is not None and end.ipcp in of_layer:
                flow.counters = of_layer[end.ipcp][1].get(end.eid, flow.counters)

    def shut_down(self) -> None:
        for ipcp in (*self._workers, *self._relays, *self._udp.workers):
            self.stop_layer(ipcp)
        for memory in self._memories.values():
            os.close(memory)


def _wipe(effect: Attach) -> None:
    """The engine has the key, or nobody needs it."""
    if effect.session is not None:
        effect.session.wipe()


def _granted(effect: Connect | Relay, side: int) -> Granted:
    """What a program gets of a flow within the node. It has the key itself, and the node does not any more."""
    if effect.sessions is None:
        return Granted(effect.flow_id, effect.qos, side, MAX_PACKET)
    session = effect.sessions[side]
    longest = MAX_PACKET - CIPHER_BY_NUMBER[session.cipher].overhead
    key = bytes(session.key)
    session.wipe()
    return Granted(effect.flow_id, effect.qos, side, longest, shown(session), session.cipher, key)


def _duplicates(one: int, other: int) -> tuple[int, int]:
    """Both descriptors once more, or neither."""
    first = os.dup(one)
    try:
        return first, os.dup(other)
    except OSError:
        os.close(first)
        raise
