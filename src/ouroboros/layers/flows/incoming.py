"""Flows that peers ask for. Anybody can send a request, so work, memory and answers are bounded; cheap checks come first.

A request of a node of ours has proven its address before it comes here: the engine sees to that. Another one may come from
anywhere. It has places of a share, until the first packet of its flow arrives, and its answer may not be much longer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.bucket import Bucket, Buckets, Lines
from ouroboros.layers.effects import RemoteEnd, Where
from ouroboros.layers.face import Arrival
from ouroboros.layers.flows.core import Core
from ouroboros.layers.flows.refusals import Refusal
from ouroboros.layers.flows.share import Places
from ouroboros.oap import OapError, Received, Session
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.oap import decode as decode_oap
from ouroboros.wire.udp import MANAGEMENT_LENGTH, FlowReply, FlowRequest, changed, incoming_qos

#: Requests a second that are looked at, and at once: as many as the door of a port lets in, of all kinds.
REQUESTS = (2500.0, 3000.0)
#: Of one host or member: as many as the door lets in. Flows below have no door.
REQUESTS_OF_ONE = (1000.0, 1000.0)
#: By one lower flow, where nothing else tells who sent them: less than all that is shared with others.
REQUESTS_OF_FLOW = (800.0, 800.0)
#: Refusals that are sent, so many a second, and at once: to requesters that have proven their address, and to others, which
#: also get answers again from these. A requester that got none asks again, and gets one later.
REFUSALS_TO_PROVEN = (1000.0, 1000.0)
REFUSALS = (100.0, 200.0)
#: Lines of the log a second about requests that were refused, and at once.
WARNINGS = (1.0, 5.0)
#: Requests that wait for an acceptor: from all hosts, from one, and by one lower flow.
WAITING = 1024
WAITING_OF_ONE = 256
WAITING_OF_FLOW = 768
#: For how long an answer is known, seconds, so that a repeated request gets the same; and how many are.
ANSWER_TIME = 30.0
ANSWERS = 4096
#: So many repetitions of a request are told apart.
REPETITIONS = 16

_Key = tuple[Where, bytes]


@dataclass(slots=True, eq=False, kw_only=True)
class Request(Arrival):
    """A request of a peer. `eid`: the peer's. `length`: bytes of it.
    `bounded`: it asked for another timeout. `via`: the lower flow that brought it, None in layers without."""

    number: int
    eid: int
    address: Where
    length: int
    bounded: bool
    via: int | None
    #: None when it is answered: it knows secrets.
    received: Received | None
    extension: Extension | None
    keys: list[_Key] = field(default_factory=list)
    #: The answer; None while it waits.
    reply: bytes | None = None
    accepted: bool = False
    #: Our endpoint id, when it was accepted.
    own: int = 0


class Incoming:
    """The requests that came to one layer."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: Names that can be reached from outside, by digest.
        self.names: dict[bytes, str] = {}
        self._last = 0
        self._requested: dict[int, Request] = {}
        self._known: dict[_Key, Request] = {}
        #: When answered requests are forgotten.
        self._answered = Agenda(core.host.alarm)
        self._places = Places()
        self._of_flows = Places()
        #: Of those that have proven nothing: what waits, and flows without a packet yet, by our endpoint id.
        self._unproven = Places()
        self._unheard: dict[int, Hashable] = {}
        self._requests, self._of_one = Bucket(*REQUESTS), Buckets(*REQUESTS_OF_ONE)
        self._of_flow = Buckets(*REQUESTS_OF_FLOW)
        #: By whether the address is proven.
        self._refusals = {True: Bucket(*REFUSALS_TO_PROVEN), False: Bucket(*REFUSALS)}
        self._warnings = Lines(*WARNINGS, core.warn)

    @property
    def waiting(self) -> list[Request]:
        """Requests without an answer yet."""
        return [arrival for arrival in self._requested.values() if arrival.reply is None]

    def register(self, name: str) -> None:
        self.names[self._core.digest(name)] = name

    def unregister(self, name: str) -> None:
        self.names.pop(self._core.digest(name), None)

    # --- requests

    def requested(
        self, request: FlowRequest, data: bytes, address: Where, now: float, *, via: int | None = None
    ) -> None:
        """A request came in; `data` is the datagram. `via`: the lower flow that brought it."""
        counters = self._core.counters
        counters["requests_received"] += 1
        if not self._has_turn(address, via, now):
            counters["messages_dropped"] += 1
            return
        key = (address, hashlib.blake2b(data, digest_size=16).digest())
        if self._is_repeated(key, key, now):
            return
        try:
            blob = extension.decode(decode_oap(request.oap).data)
        except ProtocolError:
            counters["messages_malformed"] += 1
            if self._core.is_of_prototype(request.eid):
                self._refuse(request.eid, address, Refusal.EAUTH, now)
            return
        damaged = blob is not None and bool(request.cookie) and not blob.has(extension.RETRY)
        if damaged or (blob is None and not self._core.is_of_prototype(request.eid)):
            counters["messages_malformed"] += 1
        elif blob is not None and not self._core.fits(address):
            # Our answer could not say how little we take.
            self._refuse(request.eid, address, Refusal.EIPCP, now, blob)
        elif blob is None or not self._is_repeated((address, blob.request), key, now):
            self._take(request, blob, key, len(data), now, via)

    def _has_turn(self, address: Where, via: int | None, now: float) -> bool:
        if via is not None and not self._of_flow.take(via, now):
            return False
        return self._of_one.take(self._core.directory.origin(address), now) and self._requests.take(now)

    def _is_repeated(self, known: _Key, key: _Key, now: float) -> bool:
        """Whether the request was here; if it was answered, the answer is sent again."""
        arrival = self._known.get(known)
        if arrival is None:
            return False
        self._core.counters["requests_repeated"] += 1
        if key not in self._known and len(arrival.keys) < REPETITIONS:
            self._remember(arrival, key)
        free = arrival.accepted and arrival.proven
        if arrival.reply is not None and (free or self._refusals[arrival.proven].take(now)):
            self._core.send(arrival.address, arrival.reply)
        return True

    def _take(
        self, request: FlowRequest, blob: Extension | None, key: _Key, length: int, now: float, via: int | None
    ) -> None:
        host, counters = self._core.host, self._core.counters
        address = key[0]
        name, proven = self.names.get(request.digest), self._core.is_proven(address, blob)
        if name is None:
            counters["requests_unknown_name"] += 1
            # The prototype says that nobody accepts it.
            code = Refusal.ENAME if self._core.directory.guesses else Refusal.EIPCP
            self._refuse(request.eid, address, code, now, blob)
            return
        if not self._has_room(address, proven, via):
            counters["messages_dropped"] += 1
            return
        try:
            received = host.oap.receive(request.oap, host.upper.settings(name), host.wall(), proven=proven)
        except OapError as error:
            self._fail_handshake(name, address, error, now, via)
            self._refuse(request.eid, address, error.code, now, blob)
            return
        qos = self._bounded(incoming_qos(request.qos))
        arrival = Request(
            ipcp=self._core.id,
            name=name,
            qos=qos,
            number=self._last + 1,
            eid=request.eid,
            address=address,
            host=self._core.directory.origin(address),
            proven=proven,
            length=length,
            bounded=qos.timeout != request.qos.timeout,
            via=via,
            received=received,
            extension=blob,
        )
        self._keep(arrival, key)
        host.upper.requested(arrival, now)

    def _keep(self, arrival: Request, key: _Key) -> None:
        self._last = arrival.number
        self._requested[arrival.number] = arrival
        self._places.take(arrival.host)
        self._of_flows.take(arrival.via)
        if not arrival.proven:
            self._unproven.take(arrival.host)
        self._remember(arrival, key)
        if arrival.extension is not None:
            self._remember(arrival, (arrival.address, arrival.extension.request))

    def _has_room(self, address: Where, proven: bool, via: int | None) -> bool:
        host, shares = self._core.directory.origin(address), self._core.host.strangers
        if not self._places.has_room(host, WAITING, WAITING_OF_ONE):
            return False
        if via is not None and not self._of_flows.has_room(via, WAITING, WAITING_OF_FLOW):
            return False
        return proven or self._unproven.has_room(host, shares.unproven, shares.unproven_of_one)

    def _bounded(self, qos: QoSSpec) -> QoSSpec:
        """A peer that goes without a word must not keep its flow for ever."""
        longest = self._core.host.strangers.timeout
        return changed(qos, timeout=min(qos.timeout or longest, longest))

    def _remember(self, arrival: Request, key: _Key) -> None:
        arrival.keys.append(key)
        self._known[key] = arrival

    # --- answers

    def accept(self, arrival: Request, now: float) -> RemoteEnd | None:
        """A program accepts: our end of the flow. `confirm` tells the peer, once the flow is there. None when the handshake
        fails: the peer is told, and the program can go on waiting."""
        core, blob = self._core, arrival.extension
        if not core.has_eids:
            self.refuse(arrival, Refusal.ENOMEM, now)
            return None
        own = agreed = None
        if blob is not None:
            own = core.extension(blob.request, arrival.address, crc=blob.has(extension.CRC))
            agreed = blob.agree(own)
        try:
            oap, session = self._respond(arrival, b"" if own is None else own.encode())
        except OapError as error:
            self._fail_handshake(arrival.name, arrival.address, error, now, arrival.via)
            self.refuse(arrival, error.code, now)
            return None
        qos = changed(arrival.qos, cypher_s=session.strength)
        if agreed is not None and agreed.has(extension.CRC) and qos.ordered:
            qos = msgspec.structs.replace(qos, ber=0)
        arrival.own = eid = core.draw_eid()
        grace = 0
        if not arrival.proven:
            self._unheard[eid] = arrival.host
            grace = core.host.strangers.grace * 1000
        elif core.repeats_answers and blob is None:
            # No other time, but the first packet is told.
            grace = qos.timeout
        # The others do not look at it.
        timeout = arrival.qos.timeout if arrival.bounded and blob is not None else 0
        reply = FlowReply(arrival.eid, eid, 0, oap, timeout, checked=core.knows_checks(blob))
        self._answer(arrival, core.encode(reply), now)
        return core.directory.end(
            ipcp=core.id,
            qos=qos,
            session=session,
            eid=eid,
            peer_eid=arrival.eid,
            address=arrival.address,
            extension=agreed,
            grace=grace,
        )

    def _respond(self, arrival: Request, data: bytes) -> tuple[bytes, Session]:
        """The response, and what was agreed. Raises `OapError` when the client's key is bad, or the reply is too long."""
        host, received = self._core.host, arrival.received
        assert received is not None, "it is answered"
        oap, session = received.respond(random=host.random, wall=host.wall(), data=data)
        longest = self._core.reply_room
        text = f"certificate and keys take {len(oap)} bytes; {longest} fit in a reply"
        if not arrival.proven and host.strangers.answer * arrival.length < MANAGEMENT_LENGTH:
            longest = max(longest - MANAGEMENT_LENGTH + host.strangers.answer * arrival.length, 0)
            text = (
                f"certificate and keys take {len(oap)} bytes; to a node that cannot prove its address, the answer may have "
                f"{longest}, because the request was so short: raise `answer` of [strangers], or use a smaller certificate"
            )
        if len(oap) > longest:
            session.wipe()
            raise OapError(Refusal.ECRYPT, text)
        return oap, session

    def heard(self, eid: int) -> bool:
        """The first packet of a flow came, or the flow is over. Whether it was one of a stranger until now."""
        if eid not in self._unheard:
            return False
        self._unproven.give_back(self._unheard.pop(eid))
        return True

    def confirm(self, arrival: Request) -> None:
        """The flow of an accepted request is there: tell the peer."""
        assert arrival.reply is not None, "it was not accepted"
        arrival.accepted = True
        self._core.counters["requests_accepted"] += 1
        self._core.send(arrival.address, arrival.reply)

    def refuse(self, arrival: Request, code: int, now: float) -> None:
        """There will be no flow. The end, if `accept` gave one, is over by `heard`."""
        reply = FlowReply(arrival.eid, 0, code, b"", checked=self._core.knows_checks(arrival.extension))
        self._answer(arrival, self._core.encode(reply), now, over=True)
        self._refuse(arrival.eid, arrival.address, code, now, arrival.extension)

    def lost(self, address: Where, now: float) -> None:
        """The requester is not there any more."""
        for arrival in self.waiting:
            if arrival.address == address:
                self._core.host.upper.withdrawn(arrival)
                self._answer(arrival, b"", now, over=True)

    def _answer(self, arrival: Request, reply: bytes, now: float, *, over: bool = False) -> None:
        """`over`: there will be no flow."""
        if arrival.reply is None:
            self._places.give_back(arrival.host)
            self._of_flows.give_back(arrival.via)
            if over and not arrival.proven:
                self._unproven.give_back(arrival.host)
        arrival.reply, arrival.received = reply, None
        self._answered.set(arrival.number, now + ANSWER_TIME)
        if len(self._answered) > ANSWERS:
            self._forget(next(self._answered.due(now + ANSWER_TIME)))

    def _fail_handshake(self, name: str, address: Where, error: OapError, now: float, via: int | None) -> None:
        """The peer is told a code only; what it means is for us."""
        self._core.counters["handshakes_failed"] += 1
        place = self._core.directory.written(address)
        self._warnings.add(f"a flow to {name!r} for {place} was refused: {error}", now, via)
        self._core.host.alarm.sooner(self._warnings.deadline())

    def _refuse(self, eid: int, address: Where, code: int, now: float, blob: Extension | None = None) -> None:
        if self._refusals[self._core.is_proven(address, blob)].take(now):
            self._core.counters["requests_refused"] += 1
            reply = FlowReply(eid, 0, code, b"", checked=self._core.knows_checks(blob))
            self._core.send(address, self._core.encode(reply))
        else:
            self._core.counters["messages_dropped"] += 1

    # --- time

    def deadline(self) -> float | None:
        return earliest(self._answered.next(), self._warnings.deadline())

    def timeout(self, now: float) -> None:
        for number in self._answered.due(now):
            self._forget(number)
        self._warnings.timeout(now)

    def _forget(self, number: int) -> None:
        for key in self._requested.pop(number).keys:
            del self._known[key]
