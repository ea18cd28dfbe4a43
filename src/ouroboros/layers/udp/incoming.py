"""Flows that peers ask for. Anybody can send a request, so work, memory and answers are bounded, cheap checks come first,
and what is sent back is smaller than what came in until a program accepts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from ouroboros.control.effects import Address
from ouroboros.control.oap import OapError, Received
from ouroboros.errors import ProtocolError
from ouroboros.layers.udp.core import Agenda, Bucket, Core, RemoteEnd
from ouroboros.layers.udp.options import written
from ouroboros.layers.udp.refusals import AUTHENTICATION, ENCRYPTION, NOBODY, refusal
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.oap import decode as decode_oap
from ouroboros.wire.udp import REPLY_OAP_LENGTH, FlowReply, FlowRequest, digest_of, incoming_qos

#: Requests a second that are looked at, and at once.
REQUESTS = (2000.0, 2000.0)
#: Refusals a second that are sent, and at once. Who asks again when none came gets one later.
REFUSALS = (100.0, 200.0)
#: Reasons of refusals a second that are told to whoever looks after the node, and at once.
WARNINGS = (1.0, 20.0)
#: Requests that wait for an acceptor: from all hosts, and from one.
WAITING = 1024
WAITING_OF_ONE = 256
#: For how long an answer is known, seconds, so that a repeated request gets the same; and how many are.
ANSWER_TIME = 30.0
ANSWERS = 4096
#: So many repetitions of a request are told apart.
REPETITIONS = 16
#: Endpoint ids of the C prototype are below, and one that it did not hand out can kill it.
PROTOTYPE_EIDS = 10_240

_Key = tuple[Address, bytes]


@dataclass(slots=True, eq=False)
class Arrival:
    """A request of a peer. `eid`: the peer's."""

    number: int
    name: str
    eid: int
    address: Address
    qos: QoSSpec
    #: None when it is answered: it knows secrets.
    received: Received | None
    extension: Extension | None
    keys: list[_Key] = field(default_factory=list)
    #: What it was answered; None while it waits.
    reply: bytes | None = None
    accepted: bool = False


class Incoming:
    """The requests that came to one layer."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: Names that can be reached from outside, by digest.
        self.names: dict[bytes, str] = {}
        self._last = 0
        self._arrivals: dict[int, Arrival] = {}
        self._known: dict[_Key, Arrival] = {}
        #: When answered requests are forgotten.
        self._answered = Agenda()
        self._waiting = 0
        self._waiting_of: Counter[str] = Counter()
        self._requests = Bucket(*REQUESTS)
        self._refusals = Bucket(*REFUSALS)
        self._warnings = Bucket(*WARNINGS)

    @property
    def waiting(self) -> list[Arrival]:
        """Requests without an answer yet."""
        return [arrival for arrival in self._arrivals.values() if arrival.reply is None]

    def register(self, name: str) -> None:
        self.names[digest_of(name)] = name

    def unregister(self, name: str) -> None:
        self.names.pop(digest_of(name), None)

    # --- requests

    def requested(self, request: FlowRequest, data: bytes, address: Address, now: float) -> None:
        """A request came in; `data` is the datagram."""
        counters = self._core.counters
        counters["requests_received"] += 1
        if not self._requests.take(now):
            counters["messages_dropped"] += 1
            return
        key = (address, hashlib.blake2b(data, digest_size=16).digest())
        if self._is_repeated(key, key, now):
            return
        try:
            blob = extension.decode(decode_oap(request.oap).data)
        except ProtocolError:
            counters["messages_malformed"] += 1
            self._refuse(request.eid, address, AUTHENTICATION, now)
            return
        if blob is None and request.eid >= PROTOTYPE_EIDS:
            counters["messages_malformed"] += 1
        elif blob is None or not self._is_repeated((address, blob.request), key, now):
            self._take(request, blob, key, address, now)

    def _is_repeated(self, known: _Key, key: _Key, now: float) -> bool:
        """Whether the request was here; if it was answered, the answer is sent again."""
        arrival = self._known.get(known)
        if arrival is None:
            return False
        self._core.counters["requests_repeated"] += 1
        if key not in self._known and len(arrival.keys) < REPETITIONS:
            self._remember(arrival, key)
        if arrival.reply is not None and (arrival.accepted or self._refusals.take(now)):
            self._core.send(arrival.address, arrival.reply)
        return True

    def _take(self, request: FlowRequest, blob: Extension | None, key: _Key, address: Address, now: float) -> None:
        environment, counters = self._core.environment, self._core.counters
        name = self.names.get(request.digest)
        if name is None:
            counters["requests_unknown_name"] += 1
            self._refuse(request.eid, address, NOBODY, now)
            return
        if self._waiting >= WAITING or self._waiting_of[address[0]] >= WAITING_OF_ONE:
            counters["messages_dropped"] += 1
            return
        try:
            received = environment.oap.receive(request.oap, environment.upper.settings(name), environment.wall())
        except OapError as error:
            self._fail_handshake(name, address, error)
            self._refuse(request.eid, address, error.code, now)
            return
        self._last += 1
        qos = incoming_qos(request.qos)
        arrival = Arrival(self._last, name, request.eid, address, qos, received, blob)
        self._arrivals[arrival.number] = arrival
        self._waiting += 1
        self._waiting_of[address[0]] += 1
        self._remember(arrival, key)
        if blob is not None:
            self._remember(arrival, (address, blob.request))
        environment.upper.requested(self._core.id, arrival, now)

    def _remember(self, arrival: Arrival, key: _Key) -> None:
        arrival.keys.append(key)
        self._known[key] = arrival

    # --- answers

    def accept(self, arrival: Arrival) -> RemoteEnd:
        """A program accepts: our end of the flow. `confirm` tells the peer, once the flow is there.

        Raises `FlowRefusedException` when the handshake fails; the peer is told, and the program can go on waiting.
        """
        core, blob, received = self._core, arrival.extension, arrival.received
        assert received is not None, "it is answered"
        own = agreed = None
        if blob is not None:
            own = core.extension(blob.request, crc=blob.has(extension.CRC))
            agreed = blob.agree(own)
        try:
            oap, session = received.respond(
                random=core.environment.random,
                wall=core.environment.wall(),
                data=b"" if own is None else own.encode(),
            )
            if len(oap) > REPLY_OAP_LENGTH:
                raise OapError(
                    ENCRYPTION, f"certificate and keys take {len(oap)} bytes; {REPLY_OAP_LENGTH} fit in a reply"
                )
        except OapError as error:
            self._fail_handshake(arrival.name, arrival.address, error)
            self.refuse(arrival, error.code)
            raise refusal(error, f"a flow to {arrival.name!r} for {written(arrival.address)} was refused") from error
        qos = msgspec.structs.replace(arrival.qos, cypher_s=session.strength)
        if agreed is not None and agreed.has(extension.CRC) and qos.ordered:
            qos = msgspec.structs.replace(qos, ber=0)
        eid = core.draw_eid()
        self._answer(arrival, FlowReply(arrival.eid, eid, 0, oap).encode())
        return RemoteEnd(core.id, eid, arrival.eid, arrival.address, qos, agreed, session)

    def confirm(self, arrival: Arrival) -> None:
        """The flow of an accepted request is there: tell the peer."""
        assert arrival.reply is not None, "it was not accepted"
        arrival.accepted = True
        self._core.counters["requests_accepted"] += 1
        self._core.send(arrival.address, arrival.reply)

    def refuse(self, arrival: Arrival, code: int) -> None:
        """There will be no flow, even if `accept` was called."""
        self._answer(arrival, FlowReply(arrival.eid, 0, code, b"").encode())
        self._refuse(arrival.eid, arrival.address, code, self._core.now)

    def _answer(self, arrival: Arrival, reply: bytes) -> None:
        now = self._core.now
        if arrival.reply is None:
            host = arrival.address[0]
            self._waiting -= 1
            self._waiting_of[host] -= 1
            if not self._waiting_of[host]:
                del self._waiting_of[host]
        arrival.reply, arrival.received = reply, None
        self._answered.set(arrival.number, now + ANSWER_TIME)
        if len(self._answered) > ANSWERS:
            self._forget(next(self._answered.due(now + ANSWER_TIME)))

    def _fail_handshake(self, name: str, address: Address, error: OapError) -> None:
        """The peer is told a code only; what it means is for us."""
        self._core.counters["handshakes_failed"] += 1
        if self._warnings.take(self._core.now):
            self._core.warn(f"a flow to {name!r} for {written(address)} was refused: {error}")

    def _refuse(self, eid: int, address: Address, code: int, now: float) -> None:
        if self._refusals.take(now):
            self._core.counters["requests_refused"] += 1
            self._core.send(address, FlowReply(eid, 0, code, b"").encode())
        else:
            self._core.counters["messages_dropped"] += 1

    # --- time

    def deadline(self) -> float | None:
        return self._answered.next()

    def timeout(self, now: float) -> None:
        for number in self._answered.due(now):
            self._forget(number)

    def _forget(self, number: int) -> None:
        for key in self._arrivals.pop(number).keys:
            del self._known[key]
