"""What the parts of a layer on an Ethernet segment share: how messages are written, and how long they may be."""

from __future__ import annotations

from typing import Final

from ouroboros.layers.base import DEFAULT_HASH, HASHES
from ouroboros.layers.effects import Where
from ouroboros.layers.ethernet.directory import EVERYBODY, Directory
from ouroboros.layers.face import Host
from ouroboros.layers.flows import core as flows
from ouroboros.wire import extension
from ouroboros.wire.ethernet import Layout, Message, NameQuery
from ouroboros.wire.extension import Extension
from ouroboros.wire.offers import QUESTION

#: Counters beside those of all layers with flows; `docs/ethernet.md` explains each.
COUNTERS: Final = ("queries_sent", "queries_answered")


class EthCore(flows.Core):
    """The core of a member. Whoever is on a segment can send in the name of any station there, so nobody proves anything."""

    has_strangers = False
    #: It forgets an endpoint id that it is told before it has noted its own request (`shims.md` 3.4).
    repeats_answers = True

    def __init__(self, id: int, host: Host, stations: Directory, layout: Layout) -> None:
        super().__init__(id, host, stations)
        self._layout = layout
        self._stations = stations
        #: Makes digests of names.
        self.hash = HASHES[DEFAULT_HASH]
        self.counters.update(dict.fromkeys(COUNTERS, 0))

    def opened(self, mtu: int) -> None:
        """There is a device. `mtu`: bytes of the longest payload of its frames."""
        self._stations.most = self._layout.most(mtu)

    @property
    def request_room(self) -> int:  # type: ignore[override]
        return self.reply_room - len(self.digest(""))

    @property
    def reply_room(self) -> int:  # type: ignore[override]
        return max(self._stations.most - self._layout.length, 0)

    @property
    def has_eids(self) -> bool:
        return len(self.eids) < len(self._layout.eids) // 2

    def _any_eid(self) -> int:
        return self._layout.eids[self.host.random.getrandbits(32) % len(self._layout.eids)]

    def is_of_prototype(self, eid: int) -> bool:
        return True

    def digest(self, name: str) -> bytes:
        return self.hash(name.encode()).digest()

    def encode(self, message: Message) -> bytes:
        return self._layout.encode(message)

    def extension(self, request: bytes, address: Where, *, crc: bool) -> Extension:
        own = super().extension(request, address, crc=crc)
        if self._layout.has_credit:
            return own
        return Extension(own.flags & ~extension.CREDIT, own.max_packet, own.window, own.request)

    @property
    def question(self) -> bytes:
        """In the place of the digest of a name: which layers are there?"""
        return self.digest(QUESTION)

    def ask(self, digest: bytes) -> None:
        """Who has that name?"""
        self.counters["queries_sent"] += 1
        self.send((EVERYBODY, self._layout.management), self.encode(NameQuery(digest)))
