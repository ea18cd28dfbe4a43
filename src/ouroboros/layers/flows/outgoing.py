"""Flows that our programs ask for: look the peer up, send requests until one is answered, take the first answer.

Each repetition is a request of its own, with a fresh endpoint id and a fresh handshake, because a node of the C prototype
takes no request twice. A node of ours knows repetitions by the number in the extension. An answer to any of them is good;
the others are given up, but remembered for a while: when a peer accepts one of those, it is told that nobody is there.

A node of ours may first want to know whether we are where we say: it sends a cookie, which then goes with every request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ouroboros.errors import FlowCryptException, FlowRefusedException, OuroborosError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.effects import RemoteEnd, Reserve, Unreserve, Where
from ouroboros.layers.flows.core import Core
from ouroboros.layers.flows.notices import Notices
from ouroboros.layers.flows.refusals import Refusal, error_of
from ouroboros.oap import ClientHandshake, OapError, Settings, refusal
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import (
    FlowDealloc,
    FlowReply,
    FlowRequest,
    FlowRetry,
    changed,
    outgoing_qos,
    without_crc,
)

#: A node of ours knows the same request again, so it is sent once more first: after so many seconds of the pause.
QUICK_PAUSE = 0.4
#: Seconds between repetitions: the pauses double up to this.
LONGEST_PAUSE = 12.0
#: So many requests of one allocation can be answered; older ones are given up. The prototype waits twenty seconds at most.
LIVE_TRIES = 4
#: For how long an answer to a request that was given up may come in, seconds, and how many such requests are known.
LATE_TIME = 60.0
LATE_SIZE = 4096
#: Refusals after which another peer may still accept.
_ELSEWHERE = (Refusal.ENAME, Refusal.EIPCP, Refusal.ENOMEM)
#: So many cookies are kept, and so often a request goes out once more with one: it may also be damaged on the way.
COOKIES = 1024
PROOFS = 4
#: The shortest timeout that a peer may ask for, milliseconds.
LEAST_TIMEOUT = 1000


@dataclass(slots=True)
class Try:
    """A request that was sent. `own`: our blob in it. `token`: of the allocation, None when it was given up. `message`: as
    it went out."""

    eid: int
    address: Where
    handshake: ClientHandshake
    own: Extension
    token: int | None
    message: FlowRequest
    proofs: int = 0


@dataclass(slots=True)
class Allocation:
    """A flow that a program waits for."""

    token: int
    name: str
    qos: QoSSpec
    settings: Settings
    #: The number of the allocation, for nodes of ours.
    request: bytes
    #: To be asked, the next one first.
    addresses: tuple[Where, ...] = ()
    pause: float = 0.0
    sent: int = 0
    #: Goes out once more, before there is another one so many seconds later.
    again: tuple[Try, float] | None = None
    tries: list[Try] = field(default_factory=list)
    #: Those that do not take it; and why one of them refused, when others could still be asked.
    passed: list[Where] = field(default_factory=list)
    refusal: OuroborosError | None = None


class Outgoing:
    """The allocations of one layer. Its keys of time are the tokens of allocations."""

    def __init__(self, core: Core, notices: Notices, accepted: Callable[[int, RemoteEnd, float], None]) -> None:
        """`accepted`: is given our end of a flow that a peer accepted, with the token of its allocation."""
        self._core = core
        self._accepted_by_peer = accepted
        self._directory = core.directory
        self._notices = notices
        self._allocations: dict[int, Allocation] = {}
        #: Requests by endpoint id: open ones, and those that were given up.
        self._tries: dict[int, Try] = {}
        #: What proves our address to nodes of ours; the last one at the end.
        self._cookies: dict[Where, int] = {}
        self._repetitions = Agenda(core.host.alarm)
        self._late = Agenda(core.host.alarm)

    def __len__(self) -> int:
        return len(self._allocations)

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        number = self._core.host.random.randbytes(16)
        allocation = Allocation(token, name, outgoing_qos(qos), settings, number)
        self._allocations[token] = allocation
        addresses = self._directory.find(name, token, now)
        if addresses is not None:
            self.found(token, addresses, now)

    def found(self, token: int, addresses: tuple[Where, ...], now: float) -> None:
        """Where the name of an allocation is; nowhere, as far as the layer knows, when there are none."""
        if not addresses:
            allocation = self._allocations.pop(token)
            advice = self._directory.advice(allocation.name, allocation.passed)
            self._core.host.upper.unreachable(token, advice, now)
            return
        allocation = self._allocations[token]
        allocation.addresses = addresses
        allocation.pause = self._core.patience(addresses[0]).pause
        if not self._directory.guesses:
            self._core.host.upper.reachable(token)
        self._send(allocation, now)

    def lost(self, address: Where, now: float) -> None:
        """Nobody is there any more."""
        for allocation in list(self._allocations.values()):
            if address in allocation.addresses:
                self._pass_over(allocation, address, now)

    def cancel(self, token: int, now: float) -> None:
        """Nobody waits for the flow any more."""
        allocation = self._allocations.pop(token, None)
        if allocation is not None:
            self._directory.cancel(allocation.name, token)
            self._end(allocation, None, now)
            if allocation.sent:
                self._directory.forget(allocation.name)

    def reserve_again(self) -> None:
        """The engine has forgotten what was reserved."""
        live = (sent for sent in self._tries.values() if sent.token is not None)
        self._core.effects += [Reserve(self._core.id, sent.eid, sent.address) for sent in live]

    def fail_all(self, error: OuroborosError, now: float) -> None:
        for allocation in list(self._allocations.values()):
            self._directory.cancel(allocation.name, allocation.token)
            self._fail(allocation, error, now, for_now=True)

    def why(self, token: int) -> str:
        """Why it still waits, for people."""
        allocation = self._allocations.get(token)
        if allocation is None:
            return "it came to an end just now"
        if not allocation.sent:
            return "its address is still being looked up"
        asked = ", ".join(dict.fromkeys(self._directory.written(each.address) for each in allocation.tries))
        return f"no answer from {asked} to {allocation.sent} request{'s' * (allocation.sent > 1)}"

    def replied(self, reply: FlowReply, address: Where, now: float) -> None:
        """A reply came in. It is believed only from the address of its request."""
        sent = self._answered(reply.eid, address)
        if sent is None:
            return
        if sent.token is None:
            self._answered_late(sent, reply, now)
        elif address in self._cookies and not reply.checked:
            # It is damaged where the checksum begins; or there is another node now, which the next request will show.
            del self._cookies[address]
            self._core.counters["messages_malformed"] += 1
        elif reply.response < 0:
            self._refused(self._allocations[sent.token], sent, reply.response, now)
        else:
            self._accepted(self._allocations[sent.token], sent, reply, now)

    def asked(self, eid: int) -> Where:
        """Where the request with that id went; 0 if there is none."""
        sent = self._tries.get(eid)
        return 0 if sent is None else sent.address

    def retried(self, retry: FlowRetry, address: Where, now: float) -> None:
        """A peer wants a request once more, with a cookie."""
        sent = self._answered(retry.eid, address)
        if sent is not None and sent.token is not None and sent.proofs < PROOFS:
            self._cookies.pop(address, None)
            while len(self._cookies) >= COOKIES:
                del self._cookies[next(iter(self._cookies))]
            self._cookies[address] = retry.cookie
            sent.proofs += 1
            sent.message = msgspec.structs.replace(sent.message, cookie=retry.cookie)
            self._core.counters["requests_proven"] += 1
            self._core.send(address, self._core.encode(sent.message))
            self._once_more(self._allocations[sent.token], sent, self._core.patience(address).pause, now)

    def _answered(self, eid: int, address: Where) -> Try | None:
        """The request that is answered. Only what comes from where one went is believed."""
        sent = self._tries.get(eid)
        if sent is None:
            self._core.counters["messages_unknown"] += 1
        elif sent.address != address:
            self._core.counters["messages_wrong_source"] += 1
        else:
            return sent
        return None

    def expects(self, eid: int, address: Where) -> bool:
        """Whether a request with that id can still be answered from there."""
        sent = self._tries.get(eid)
        return sent is not None and sent.token is not None and sent.address == address

    def deadline(self) -> float | None:
        return earliest(self._repetitions.next(), self._late.next())

    def timeout(self, now: float) -> None:
        for token in self._repetitions.due(now):
            allocation = self._allocations[token]
            if allocation.again is None:
                self._send(allocation, now)
            else:
                self._send_again(allocation, *allocation.again, now)
        for eid in self._late.due(now):
            self._drop(eid)

    # --- requests

    def _send(self, allocation: Allocation, now: float) -> None:
        """One request, or the end of the allocation. Where a name is at several addresses, they are asked in turn."""
        allocation.again = None
        address = allocation.addresses[0]
        own = self._blob(allocation, address)
        try:
            handshake = self._shake(allocation, address, own)
        except FlowRefusedException as error:
            self._fail(allocation, error, now)
            return
        core, eid = self._core, self._core.draw_eid()
        message = FlowRequest(
            eid,
            without_crc(allocation.qos),
            core.digest(allocation.name),
            handshake.request,
            self._cookies.get(address, 0),
        )
        sent = Try(eid, address, handshake, own, allocation.token, message)
        self._tries[eid] = sent
        allocation.tries.append(sent)
        allocation.sent += 1
        if len(allocation.tries) > LIVE_TRIES:
            self._give_up(allocation.tries.pop(0), now)
        core.effects.append(Reserve(core.id, eid, address))
        core.send(address, core.encode(message))
        core.counters["requests_sent"] += 1
        allocation.addresses = (*allocation.addresses[1:], address)
        pause, allocation.pause = allocation.pause, min(2 * allocation.pause, LONGEST_PAUSE)
        if message.cookie:
            self._once_more(allocation, sent, pause, now)
        elif allocation.sent < core.patience(address).most * len(allocation.addresses):
            self._repetitions.set(allocation.token, now + pause)

    def _once_more(self, allocation: Allocation, sent: Try, pause: float, now: float) -> None:
        """A request went out that a node of ours gets. `pause`: seconds until another one."""
        allocation.again = sent, pause - QUICK_PAUSE
        self._repetitions.set(allocation.token, now + QUICK_PAUSE)

    def _send_again(self, allocation: Allocation, sent: Try, pause: float, now: float) -> None:
        allocation.again = None
        allocation.sent += 1
        self._core.counters["requests_sent"] += 1
        self._core.send(sent.address, self._core.encode(sent.message))
        self._repetitions.set(allocation.token, now + pause)

    def _shake(self, allocation: Allocation, address: Where, own: Extension) -> ClientHandshake:
        """Raises `FlowRefusedException` when no request can be made of the settings, or it fits no datagram."""
        if not self._core.has_eids:
            raise FlowRefusedException(
                f"no flow to {allocation.name!r}: all endpoint ids of the layer are in use; some are free a minute after "
                "their flows end"
            )
        if own.max_packet < extension.LEAST_PACKET:
            raise FlowRefusedException(
                f"no flow to {allocation.name!r}: the way to {self._directory.written(address)} carries no packets of "
                f"{extension.LEAST_PACKET} bytes"
            )
        host = self._core.host
        try:
            handshake = ClientHandshake(
                allocation.name, allocation.settings, random=host.random, wall=host.wall(), data=own.encode()
            )
        except OapError as error:
            raise refusal(error, f"no flow to {allocation.name!r}") from error
        if len(handshake.request) > self._core.request_room:
            raise FlowCryptException(
                f"the request for a flow to {allocation.name!r} has {len(handshake.request)} bytes of certificate and keys; "
                f"{self._core.request_room} fit: use a smaller certificate or key exchange"
            )
        return handshake

    def _blob(self, allocation: Allocation, address: Where) -> Extension:
        qos = allocation.qos
        return self._core.extension(allocation.request, address, crc=qos.ordered and qos.ber == 0)

    # --- answers

    def _accepted(self, allocation: Allocation, sent: Try, reply: FlowReply, now: float) -> None:
        core = self._core
        try:
            session = sent.handshake.finish(reply.oap)
        except OapError as error:
            core.counters["handshakes_failed"] += 1
            place = self._directory.written(sent.address)
            text = f"the answer of {place} for a flow to {allocation.name!r} was refused here"
            self._fail(allocation, refusal(error, text), now)
            self._decline(sent, reply, now)
            return
        peer = _peer_extension(session.data, sent)
        agreed = peer.agree(sent.own) if peer is not None else None
        has_crc = agreed is not None and agreed.has(extension.CRC)
        qos = allocation.qos if has_crc else without_crc(allocation.qos)
        timeout = qos.timeout if peer is None else _shortened(qos.timeout, reply.timeout)
        qos = changed(qos, cypher_s=session.strength, timeout=timeout)
        end = self._directory.end(
            ipcp=core.id,
            qos=qos,
            session=session,
            eid=sent.eid,
            peer_eid=reply.peer_eid,
            address=sent.address,
            extension=agreed,
        )
        del self._allocations[allocation.token], self._tries[sent.eid]
        self._end(allocation, sent, now)
        self._accepted_by_peer(allocation.token, end, now)

    def _refused(self, allocation: Allocation, sent: Try, code: int, now: float) -> None:
        self._core.counters["replies_refusing"] += 1
        place = self._directory.written(sent.address)
        error = error_of(code, allocation.name, place, sent.handshake.reason(code))
        if self._directory.guesses and code in _ELSEWHERE:
            if code != Refusal.ENAME:
                allocation.refusal = error
            self._pass_over(allocation, sent.address, now)
            return
        self._fail(allocation, error, now, for_now=code in (Refusal.EIPCP, Refusal.ENAME))

    def _pass_over(self, allocation: Allocation, address: Where, now: float) -> None:
        """Nobody takes the flow there: ask the next, if no other has been asked already."""
        allocation.passed.append(address)
        self._directory.forget(allocation.name)
        allocation.addresses = tuple(each for each in allocation.addresses if each != address)
        asked = [sent for sent in allocation.tries if sent.address != address]
        if allocation.again is not None and allocation.again[0] not in asked:
            allocation.again = None
        if not allocation.addresses:
            if allocation.refusal is not None:
                self._fail(allocation, allocation.refusal, now, for_now=True)
                return
            self._end(allocation, None, now)
            self.found(allocation.token, (), now)
            return
        for sent in allocation.tries:
            if sent.address == address:
                self._give_up(sent, now)
        allocation.tries = asked
        if not asked:
            allocation.pause = self._core.patience(allocation.addresses[0]).pause
            self._send(allocation, now)

    def _fail(self, allocation: Allocation, error: OuroborosError, now: float, *, for_now: bool = False) -> None:
        del self._allocations[allocation.token]
        self._end(allocation, None, now)
        self._core.host.upper.refused(allocation.token, error, now, for_now=for_now)

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


def _shortened(own: int, told: int) -> int:
    """A peer may shorten the timeout of a flow, but not so much that signs of life become a flood."""
    return own if told < LEAST_TIMEOUT else min(own or told, told)


def _peer_extension(data: bytes, sent: Try) -> Extension | None:
    """The blob of a node of ours that answers this allocation."""
    found = extension.decode(data)
    return found if found is not None and found.request == sent.own.request else None
