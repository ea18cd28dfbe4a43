"""Layers on an Ethernet segment: flows with other stations, ours or of the C prototype (`layers.flows`), over one device.

A station asks all others where a name is (`layers.ethernet.directory`). Source: `shims.md` 4 and 5.
"""

from __future__ import annotations

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import earliest
from ouroboros.layers.base import DEFAULT_HASH, HASHES
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.effects import OpenPort, Where
from ouroboros.layers.ethernet.core import EthCore
from ouroboros.layers.ethernet.directory import Directory, EthEnd, LlcEnd
from ouroboros.layers.ethernet.discovery import Discovery
from ouroboros.layers.face import Host, Task
from ouroboros.layers.flows.ipcp import PortIpcp
from ouroboros.settings import EthDixSettings, EthLlcSettings, TypeSettings
from ouroboros.wire import offers
from ouroboros.wire.control import PortDetails
from ouroboros.wire.ethernet import DIX, LLC, Layout, NameQuery, NameReply

#: Queries for names of ours that are answered, so many a second, and at once; and questions for layers, whose answers may be
#: much longer.
_ANSWERS = (1000.0, 1000.0)
_OFFERS = (20.0, 40.0)


class EthIpcp(PortIpcp):
    """A member of a layer on an Ethernet segment, with one device."""

    discovers = True

    layout: Layout
    end: type[EthEnd]

    def __init__(self, id: int, name: str, host: Host) -> None:
        self._directory = Directory(
            self.end, lambda name: self._eth.digest(name), lambda digest: self._eth.ask(digest), host.alarm
        )
        self._eth = EthCore(id, host, self._directory, self.layout)
        super().__init__(id, name, host, self._directory, self._eth)
        self._directory.found = self._outgoing.found
        self.hash = DEFAULT_HASH
        self._answers, self._offers = Bucket(*_ANSWERS), Bucket(*_OFFERS)
        self._discovery = Discovery(lambda: self._eth.ask(self._eth.question))

    # --- management

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        """Ask for the device; `opened` or `failed` follows."""
        assert isinstance(settings, EthDixSettings | EthLlcSettings)
        self._check_new()
        self.hash = settings.dir_hash_algo.word
        self._eth.hash = HASHES[self.hash]
        self._begin(layer, OpenPort(self.id, self.type, settings.eth.dev, settings.eth.ethertype), task)

    def opened(self, now: float) -> None:
        self._eth.opened(self.mtu)
        super().opened(now)

    def device(self, trouble: str, now: float) -> None:
        self._directory.trouble = trouble
        if trouble:
            self._directory.forget_all()
            self._eth.warn(f"the layer {self.layer!r} carries nothing: {trouble}")
        else:
            self._eth.warn(f"the layer {self.layer!r} carries packets again")

    def turn(self, name: str) -> tuple[float, int, int]:
        # A segment that lacks the name is known to lack it after seconds, and another may have answered for it.
        return self.preference - 0.5 * self._directory.answered(name), self.preference, self.id

    def details(self) -> PortDetails:
        return PortDetails(address="" if self._port is None else self._port.address)

    # --- what the engine tells

    def received(self, data: bytes, source: Where, now: float) -> None:
        core = self._eth
        try:
            message = self.layout.decode(data, len(core.digest("")))
        except ProtocolError:
            core.counters["messages_malformed"] += 1
            return
        match message:
            case NameQuery(digest=digest):
                self._asked(digest, source, now)
            case NameReply(digest=digest, data=rest) if digest == core.question:
                self._offered(rest, source)
            case NameReply(digest=digest):
                if not self._directory.heard(digest, source, now):
                    core.counters["messages_unknown"] += 1
            case _:
                self._heard(message, data, source, now)

    def _asked(self, digest: bytes, source: Where, now: float) -> None:
        core, answers, data = self._eth, self._answers, b""
        if digest == core.question:
            answers, data = self._offers, offers.encode(self.host.upper.offers(self.id), core.request_room)
        elif digest not in self._incoming.names:
            return
        if not answers.take(now):
            core.counters["messages_dropped"] += 1
        elif data or digest != core.question:
            core.counters["queries_answered"] += 1
            core.send(source, self.layout.encode(NameReply(digest, data)))

    def discover(self, task: Task, now: float) -> None:
        self._check_operational()
        self._discovery.begin(task, now)

    def _offered(self, data: bytes, source: Where) -> None:
        try:
            if not self._discovery.heard(source, offers.decode(data)):
                self._eth.counters["messages_unknown"] += 1
        except ProtocolError:
            self._eth.counters["messages_malformed"] += 1

    def destroy(self, now: float) -> None:
        self._discovery.close()
        super().destroy(now)

    def deadline(self) -> float | None:
        return earliest(super().deadline(), self._directory.deadline(), self._discovery.deadline())

    def timeout(self, now: float) -> None:
        super().timeout(now)
        self._directory.timeout(now)
        self._discovery.timeout(now)


class DixIpcp(EthIpcp):
    """A layer of frames with an ethertype."""

    type = "eth-dix"
    settings = EthDixSettings
    preference = 4
    layout = DIX
    end = EthEnd


class LlcIpcp(EthIpcp):
    """A layer of frames with LLC headers."""

    type = "eth-llc"
    settings = EthLlcSettings
    preference = 3
    layout = LLC
    end = LlcEnd
