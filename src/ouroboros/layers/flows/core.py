"""What the parts of a layer share: who they are, endpoint ids, counters, how messages are written, the way out, and what an
address is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from ouroboros.layers.effects import RemoteEnd, SendManagement, Warn, Where
from ouroboros.layers.face import Host, Size
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import REPLY_OAP_LENGTH, REQUEST_OAP_LENGTH, RESERVED_EIDS, Message, digest_of

#: Abilities of our engine.
OWN_FLAGS = extension.DEALLOC | extension.FRAGMENTS | extension.SACK | extension.CREDIT | extension.REPLAY
#: The most FRCP packets beyond the last one read that our engine takes from a node of ours.
OWN_WINDOW = 1 << 16

#: Counters; `docs/udp.md` explains each.
COUNTERS = (
    "requests_sent",
    "requests_proven",
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
#: Those of them that there are only where peers have to prove their address.
_OF_STRANGERS = ("requests_proven",)


#: Endpoint ids of the C prototype in a layer over UDP are below, and one that it did not hand out can kill it.
PROTOTYPE_EIDS = 10_240


class Patience(NamedTuple):
    """Of a request. `pause`: seconds until it is repeated; then the pauses double. `most`: so often it is sent to one
    address."""

    pause: float
    most: float


#: Of a request that may be repeated as long as somebody waits.
PATIENCE = Patience(1.5, math.inf)


class Directory(Protocol):
    """Where names are, and what an address is: what a type of layer knows for itself."""

    #: It only knows where a name may be: a peer that does not know it says so, and the next one is asked.
    guesses: bool

    @property
    def end(self) -> Callable[..., RemoteEnd]:
        """Makes its ends, of the fields of a `RemoteEnd`."""

    def find(self, name: str, token: int, now: float) -> tuple[Where, ...] | None:
        """Where the name is; None when it has to be looked up, and `Outgoing.found` will be told."""

    def cancel(self, name: str, token: int) -> None:
        """That token does not wait any more."""

    def forget(self, name: str) -> None:
        """Nobody answered there."""

    def advice(self, name: str, refused: Sequence[Where]) -> str:
        """How the layer would come to know where the name is, for people. `refused`: peers that do not serve it."""

    def written(self, address: Where) -> str:
        """An address as people write it."""

    def origin(self, address: Where) -> Hashable:
        """Which host that is. None of them may take the room of all."""

    def longest(self, address: Where) -> int:
        """Bytes of the longest packet of a flow that we receive whole from there, without its endpoint id."""


class Core:
    """Identity, endpoint ids, counters and output of one layer. As it is here, it writes messages as layers over UDP do."""

    #: Bytes of OAP that a request and a reply have room for.
    request_room = REQUEST_OAP_LENGTH
    reply_room = REPLY_OAP_LENGTH
    #: Anybody can write to it: nodes of ours prove where they are, replies to them have a checksum, and others have little.
    has_strangers = True
    #: A node of the prototype may drop an answer that comes fast, so that it is said again.
    repeats_answers = False

    def __init__(self, id: int, host: Host, directory: Directory) -> None:
        self.id = id
        self.host = host
        self.directory = directory
        self.effects = host.effects
        #: Every id that means something to us or may still come in a late message.
        self.eids: set[int] = set()
        counted = [each for each in COUNTERS if self.has_strangers or each not in _OF_STRANGERS]
        self.counters: Counter[str] = Counter(dict.fromkeys(counted, 0))

    def draw_eid(self) -> int:
        """A random id, so that a stranger who does not see the packets of a flow cannot guess its address."""
        while True:
            eid = self._any_eid()
            if eid not in self.eids:
                self.eids.add(eid)
                return eid

    def _any_eid(self) -> int:
        while (eid := self.host.random.getrandbits(32)) in RESERVED_EIDS:
            pass
        return eid

    @property
    def has_eids(self) -> bool:
        """Whether there are ids to draw."""
        return True

    def is_of_prototype(self, eid: int) -> bool:
        """Whether it may be an endpoint id of the C prototype."""
        return eid < PROTOTYPE_EIDS

    def digest(self, name: str) -> bytes:
        """What stands for a name in a request."""
        return digest_of(name)

    def knows_checks(self, blob: Extension | None) -> bool:
        """Whether the node of a request looks at the checksum of a reply."""
        return self.has_strangers and blob is not None and blob.has(extension.RETRY)

    def is_proven(self, address: Where, blob: Extension | None) -> bool:
        """Whether a request comes from there. A flow below leads to one member; the engine lets none in that can prove its
        address and does not."""
        return not self.has_strangers or isinstance(address, int) or self.knows_checks(blob)

    def patience(self, address: Where) -> Patience:
        """With requests to an address."""
        return PATIENCE

    def encode(self, message: Message) -> bytes:
        return message.encode()

    def send(self, address: Where, data: bytes) -> None:
        """Send what `encode` gave."""
        self.effects.append(SendManagement(self.id, address, data))

    def warn(self, text: str, *, error: bool = False) -> None:
        self.effects.append(Warn(text, error))

    def _size(self, address: Where) -> Size:
        """Of packets between here and there."""
        return Size(self.directory.longest(address), 0)

    def fits(self, address: Where) -> bool:
        """Whether packets of a flow with a node of ours fit on the way from there."""
        return self._size(address).most >= extension.LEAST_PACKET

    def extension(self, request: bytes, address: Where, *, crc: bool) -> Extension:
        """Our blob for a peer there, if it `fits`. `crc`: a CRC on each packet of a flow with FRCP is wanted."""
        flags = OWN_FLAGS | (extension.CRC if crc else 0) | (extension.RETRY if self.has_strangers else 0)
        size, most = self._size(address), extension.LONGEST_PACKET
        return Extension(flags, min(size.most, most), OWN_WINDOW, request, min(size.whole, most))
