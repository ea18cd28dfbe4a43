"""Flows that our programs ask for: look the peer up, send requests until one is answered, take the first answer.

Each repetition is a request of its own, with a fresh endpoint id and a fresh handshake, because a node of the C prototype
takes no request twice. A node of ours knows repetitions by the number in the extension. An answer to any of them is good;
the others are given up, but remembered for a while: when a peer accepts one of those, it is told that nobody is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ouroboros.control.effects import Address, Reserve, Unreserve
from ouroboros.control.oap import ClientHandshake, OapError, Settings
from ouroboros.errors import FlowCryptException, FlowRefusedException, OuroborosError
from ouroboros.layers.udp.core import Agenda, Core, RemoteEnd
from ouroboros.layers.udp.directory import Directory
from ouroboros.layers.udp.notices import Notices
from ouroboros.layers.udp.options import written
from ouroboros.layers.udp.refusals import error_of, refusal
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import (
    MANAGEMENT_LENGTH,
    REQUEST_OAP_LENGTH,
    FlowDealloc,
    FlowReply,
    FlowRequest,
    digest_of,
    outgoing_qos,
    without_crc,
)

#: Seconds until the first repetition; the pauses then double, up to the second number.
FIRST_PAUSE = 1.5
LONGEST_PAUSE = 12.0
#: So many requests of one allocation can be answered; older ones are given up. The prototype waits twenty seconds at most.
LIVE_TRIES = 4
#: For how long an answer to a request that was given up may come in, seconds, and how many such requests are known.
LATE_TIME = 60.0
LATE_SIZE = 4096


@dataclass(slots=True)
class Try:
    """A request that was sent. `token`: of the allocation, None when it was given up."""

    eid: int
    address: Address
    handshake: ClientHandshake
    request: bytes
    token: int | None


@dataclass(slots=True)
class Allocation:
    """A flow that a program waits for."""

    token: int
    name: str
    qos: QoSSpec
    settings: Settings
    #: The number of the allocation, for nodes of ours.
    request: bytes
    addresses: tuple[Address, ...] = ()
    pause: float = FIRST_PAUSE
    sent: int = 0
    tries: list[Try] = field(default_factory=list)


class Outgoing:
    """The allocations of one layer. Its keys of time are the tokens of allocations."""

    def __init__(self, core: Core, directory: Directory, notices: Notices) -> None:
        self._core = core
        self._directory = directory
        self._notices = notices
        self._allocations: dict[int, Allocation] = {}
        #: By endpoint id: those that can be answered, and those that were given up.
        self._tries: dict[int, Try] = {}
        self._repetitions = Agenda()
        self._late = Agenda()

    def __len__(self) -> int:
        return len(self._allocations)

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        """Begin. Raises `FlowRefusedException` when no request can be made of the settings, or it fits no datagram."""
        number = self._core.environment.random.randbytes(16)
        allocation = Allocation(token, name, outgoing_qos(qos), settings, number)
        self._allocations[token] = allocation
        addresses = self._directory.find(name, token, now)
        if addresses is not None:
            self._begin(allocation, addresses, now)

    def resolved(self, number: int, hosts: list[str], now: float) -> None:
        tokens, addresses = self._directory.resolved(number, hosts, now)
        upper = self._core.environment.upper
        for token in tokens:
            if addresses:
                try:
                    self._begin(self._allocations[token], addresses, now)
                except FlowRefusedException as error:
                    upper.refused(token, error)
            else:
                del self._allocations[token]
                upper.unreachable(token, now)

    def cancel(self, token: int) -> None:
        """Nobody waits for the flow any more."""
        allocation = self._allocations.pop(token, None)
        if allocation is not None:
            self._directory.cancel(allocation.name, token)
            self._end(allocation, None, self._core.now)
            if allocation.sent:
                self._directory.forget(allocation.name)

    def fail_all(self, error: OuroborosError) -> None:
        for allocation in list(self._allocations.values()):
            self._directory.cancel(allocation.name, allocation.token)
            self._fail(allocation, error, self._core.now)

    def why(self, token: int) -> str:
        """What it waits for."""
        allocation = self._allocations[token]
        if not allocation.sent:
            return "its address is still being looked up"
        asked = ", ".join(dict.fromkeys(written(each.address) for each in allocation.tries))
        return f"no answer from {asked} to {allocation.sent} request{'s' * (allocation.sent > 1)}"

    def replied(self, reply: FlowReply, address: Address, now: float) -> None:
        """A reply came in. Only one that comes from where a request went is believed."""
        sent = self._tries.get(reply.eid)
        if sent is None:
            self._core.counters["messages_unknown"] += 1
        elif sent.address != address:
            self._core.counters["messages_wrong_source"] += 1
        elif sent.token is None:
            self._answered_late(sent, reply, now)
        elif reply.response < 0:
            self._refused(self._allocations[sent.token], sent, reply.response, now)
        else:
            self._accepted(self._allocations[sent.token], sent, reply, now)

    def expects(self, eid: int, address: Address) -> bool:
        """Whether a request with that id can still be answered from there."""
        sent = self._tries.get(eid)
        return sent is not None and sent.token is not None and sent.address == address

    def deadline(self) -> float | None:
        return min((when for when in (self._repetitions.next(), self._late.next()) if when is not None), default=None)

    def timeout(self, now: float) -> None:
        for token in self._repetitions.due(now):
            try:
                self._send(self._allocations[token], now)
            except FlowRefusedException as error:
                self._fail(self._allocations[token], error, now)
        for eid in self._late.due(now):
            self._drop(eid)

    # --- requests

    def _begin(self, allocation: Allocation, addresses: tuple[Address, ...], now: float) -> None:
        allocation.addresses = addresses
        try:
            self._send(allocation, now)
        except FlowRefusedException:
            del self._allocations[allocation.token]
            raise
        self._core.environment.upper.reachable(allocation.token)

    def _send(self, allocation: Allocation, now: float) -> None:
        """One request. Where a name is at several addresses, they are asked in turn."""
        core, environment = self._core, self._core.environment
        blob = self._blob(allocation).encode()
        try:
            handshake = ClientHandshake(
                allocation.name, allocation.settings, random=environment.random, wall=environment.wall(), data=blob
            )
        except OapError as error:
            raise refusal(error, f"no flow to {allocation.name!r}") from error
        if len(handshake.request) > REQUEST_OAP_LENGTH:
            raise FlowCryptException(
                f"the request for a flow to {allocation.name!r} has {len(handshake.request)} bytes of certificate and keys; "
                f"{REQUEST_OAP_LENGTH} fit in a datagram of {MANAGEMENT_LENGTH}: use a smaller certificate or key exchange"
            )
        address = allocation.addresses[allocation.sent % len(allocation.addresses)]
        sent = Try(core.draw_eid(), address, handshake, allocation.request, allocation.token)
        self._tries[sent.eid] = sent
        allocation.tries.append(sent)
        allocation.sent += 1
        if len(allocation.tries) > LIVE_TRIES:
            self._give_up(allocation.tries.pop(0), now)
        core.effects.append(Reserve(core.id, sent.eid, address))
        qos = without_crc(allocation.qos)
        core.send(address, FlowRequest(sent.eid, qos, digest_of(allocation.name), handshake.request).encode())
        core.counters["requests_sent"] += 1
        self._repetitions.set(allocation.token, now + allocation.pause)
        allocation.pause = min(2 * allocation.pause, LONGEST_PAUSE)

    def _blob(self, allocation: Allocation) -> Extension:
        qos = allocation.qos
        return self._core.extension(allocation.request, crc=qos.ordered and qos.ber == 0)

    # --- answers

    def _accepted(self, allocation: Allocation, sent: Try, reply: FlowReply, now: float) -> None:
        core = self._core
        try:
            session = sent.handshake.finish(reply.oap)
        except OapError as error:
            core.counters["handshakes_failed"] += 1
            text = f"the answer of {written(sent.address)} for a flow to {allocation.name!r} was refused here"
            self._fail(allocation, refusal(error, text), now)
            self._decline(sent, reply, now)
            return
        peer = _peer_extension(session.data, sent)
        agreed = peer.agree(self._blob(allocation)) if peer is not None else None
        has_crc = agreed is not None and agreed.has(extension.CRC)
        qos = allocation.qos if has_crc else without_crc(allocation.qos)
        qos = msgspec.structs.replace(qos, cypher_s=session.strength)
        end = RemoteEnd(core.id, sent.eid, reply.peer_eid, sent.address, qos, agreed, session)
        del self._allocations[allocation.token], self._tries[sent.eid]
        self._end(allocation, sent, now)
        core.environment.upper.answered(allocation.token, end, now)

    def _refused(self, allocation: Allocation, sent: Try, code: int, now: float) -> None:
        self._core.counters["replies_refusing"] += 1
        error = error_of(code, allocation.name, sent.address, sent.handshake.reason(code))
        self._fail(allocation, error, now)

    def _fail(self, allocation: Allocation, error: OuroborosError, now: float) -> None:
        del self._allocations[allocation.token]
        self._end(allocation, None, now)
        self._core.environment.upper.refused(allocation.token, error)

    def _answered_late(self, sent: Try, reply: FlowReply, now: float) -> None:
        """A request that was given up is answered."""
        self._core.counters["replies_late"] += 1
        if reply.response >= 0:
            self._decline(sent, reply, now)

    def _decline(self, sent: Try, reply: FlowReply, now: float) -> None:
        """A peer accepted a request that was given up: a node of ours is told that nobody is there."""
        if _peer_extension(sent.handshake.claimed(reply.oap), sent) is not None:
            del self._tries[sent.eid]
            self._late.cancel(sent.eid)
            self._notices.tell(FlowDealloc(sent.eid, reply.peer_eid), sent.address, now)

    # --- the end of requests

    def _end(self, allocation: Allocation, winner: Try | None, now: float) -> None:
        """The allocation is over: give up all of its requests but one."""
        self._repetitions.cancel(allocation.token)
        for sent in allocation.tries:
            if sent is not winner:
                self._give_up(sent, now)

    def _give_up(self, sent: Try, now: float) -> None:
        sent.token = None
        self._core.effects.append(Unreserve(self._core.id, sent.eid))
        self._late.set(sent.eid, now + LATE_TIME)
        if len(self._late) > LATE_SIZE:
            self._drop(next(self._late.due(now + LATE_TIME)))

    def _drop(self, eid: int) -> None:
        del self._tries[eid]
        self._core.eids.discard(eid)


def _peer_extension(data: bytes, sent: Try) -> Extension | None:
    """The blob of a node of ours that answers this allocation."""
    found = extension.decode(data)
    return found if found is not None and found.request == sent.request else None
