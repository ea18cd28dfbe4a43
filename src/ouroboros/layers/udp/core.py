"""What the parts of a UDP layer share: who they are, endpoint ids, counters, and the way out."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from ouroboros.control.effects import Address, Effect, SendManagement, Warn
from ouroboros.control.oap import Server, Session, Settings
from ouroboros.errors import OuroborosError
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import PACKET_LENGTH, RESERVED_EIDS

if TYPE_CHECKING:
    from ouroboros.layers.udp.incoming import Arrival

#: What our engine can do.
OWN_FLAGS = extension.DEALLOC | extension.FRAGMENTS | extension.SACK | extension.CREDIT | extension.REPLAY
#: The most FRCP packets beyond the last one read that our engine takes from a node of ours.
OWN_WINDOW = 1 << 16

#: What is counted; `docs/udp.md` says what each means.
COUNTERS = (
    "requests_sent",
    "replies_refusing",
    "replies_late",
    "requests_received",
    "requests_accepted",
    "requests_refused",
    "requests_repeated",
    "requests_unknown_name",
    "handshakes_failed",
    "messages_malformed",
    "messages_wrong_source",
    "messages_unknown",
    "messages_dropped",
    "notices_unanswered",
)


class Random(Protocol):
    """What is needed of `random.Random`."""

    def getrandbits(self, k: int, /) -> int: ...

    def randbytes(self, n: int, /) -> bytes: ...


class RemoteEnd(msgspec.Struct, frozen=True):
    """Our end of a flow with another node. `eid`: ours. `extension`: what both can do, None for the C prototype."""

    ipcp: int
    eid: int
    peer_eid: int
    address: Address
    qos: QoSSpec
    extension: Extension | None
    session: Session

    def can(self, flag: int) -> bool:
        return self.extension is not None and self.extension.has(flag)


class Upper(Protocol):
    """Who wants flows and takes them: the flow manager."""

    def settings(self, name: str) -> Settings:
        """What we want of a peer that asks for a flow to our `name`. Raises `OapError`."""

    def reachable(self, token: int) -> None:
        """The layer knows where to ask and does so."""

    def unreachable(self, token: int, now: float) -> None:
        """The layer does not know whom to ask. It has forgotten the token."""

    def answered(self, token: int, end: RemoteEnd, now: float) -> None:
        """The peer accepted."""

    def refused(self, token: int, error: OuroborosError) -> None:
        """There will be no flow. The layer has forgotten the token."""

    def requested(self, layer: int, arrival: Arrival, now: float) -> None:
        """A peer wants a flow to a name of ours: `accept` or `refuse` is called later."""

    def withdrawn(self, arrival: Arrival) -> None:
        """A request that waits is over: neither `accept` nor `refuse` is called."""


@dataclass(frozen=True)
class Environment:
    """What a layer is given by its node. `wall`: nanoseconds since 1970."""

    effects: list[Effect]
    random: Random
    wall: Callable[[], int]
    oap: Server
    upper: Upper


class Core:
    """Identity, endpoint ids, counters and output of one layer."""

    def __init__(self, id: int, family: str, environment: Environment) -> None:
        self.id = id
        self.family = family
        self.port = 0
        #: The time of the last thing that happened here, for what comes without one.
        self.now = 0.0
        self.environment = environment
        self.effects = environment.effects
        #: Every id that means something to us or may still come in a late message.
        self.eids: set[int] = set()
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))

    def draw_eid(self) -> int:
        """A random id, so that whoever does not see the packets of a flow cannot guess where to send his own."""
        while True:
            eid = self.environment.random.getrandbits(32)
            if eid not in RESERVED_EIDS and eid not in self.eids:
                self.eids.add(eid)
                return eid

    def send(self, address: Address, data: bytes) -> None:
        self.effects.append(SendManagement(self.id, address, data))

    def warn(self, text: str) -> None:
        self.effects.append(Warn(text))

    def extension(self, request: bytes, *, crc: bool) -> Extension:
        """Our blob. `crc`: a CRC on each packet of a flow with FRCP is wanted."""
        flags = OWN_FLAGS | (extension.CRC if crc else 0)
        return Extension(flags, PACKET_LENGTH[self.family], OWN_WINDOW, request)


class Agenda:
    """What is to be done when. A key has one time; setting it again moves it."""

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __contains__(self, key: int) -> bool:
        return key in self._times

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: int, when: float) -> None:
        self._times[key] = when
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 64 + 4 * len(self._times):
            # Most entries are of things that were over before their time.
            self._heap = [(when, key) for key, when in self._times.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: int) -> None:
        self._times.pop(key, None)

    def next(self) -> float | None:
        """The earliest time."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[int]:
        """Take the keys whose time has come, the earliest first."""
        while (when := self.next()) is not None and when <= now:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            yield key


class Bucket:
    """At most `rate` a second in the long run, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._last = 0.0

    def take(self, now: float) -> bool:
        self._level = min(self._burst, self._level + max(0.0, now - self._last) * self._rate)
        self._last = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
