"""Layers over UDP: flows with other nodes, ours or of the C prototype (`layers.flows`), over one socket.

Source: `shims.md` 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ouroboros._hosts import read_peer, written
from ouroboros.layers.effects import OpenPort
from ouroboros.layers.face import Host, Located, Task
from ouroboros.layers.flows.ipcp import PortIpcp
from ouroboros.layers.udp.directory import Directory
from ouroboros.settings import TypeSettings, Udp4Settings, Udp6Settings, UdpSettings
from ouroboros.wire.control import PortDetails

#: As of `Ipcp`, of the resolver of the host: behind the peers of all layers over UDP.
RESOLVER_PREFERENCE = 6.5


class UdpIpcp(PortIpcp):
    """A member of a layer over UDP, with one socket."""

    def __init__(self, id: int, name: str, host: Host) -> None:
        self._directory = Directory(id, self.type, host.effects)
        super().__init__(id, name, host, self._directory)

    # --- management

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        """Ask for the socket; `opened` or `failed` follows."""
        assert isinstance(settings, UdpSettings)
        self._check_new()
        told = settings.udp
        self._directory.change([read_peer(self.type, text) for text in told.peers], self._directory.peers)
        self._directory.port = told.port
        self._begin(layer, OpenPort(self.id, self.type, told.ip_addr, told.port), task)

    def change_peers(self, add: Iterable[str], remove: Iterable[str], now: float) -> None:
        self._check_operational()
        adds, removes = ([read_peer(self.type, text) for text in texts] for texts in (add, remove))
        self._directory.change(adds, removes)

    def check_impairable(self) -> None:
        pass

    def settings_now(self) -> TypeSettings:
        now = super().settings_now()
        assert isinstance(now, UdpSettings)
        peers = tuple(peer.text for peer in self._directory.peers)
        return replace(now, **{self.type: replace(now.udp, peers=peers)})

    def details(self) -> PortDetails:
        return PortDetails(
            impair="" if self.impairment is None else self.impairment.text,
            address="" if self._port is None else written((self._port.address, self._port.port)),
            peers=tuple(peer.text for peer in self._directory.peers),
        )

    def turn(self, name: str) -> tuple[float, int, int]:
        # The resolver may take seconds, and another layer have the name among its peers.
        listed = self._directory.listed(name) is not None
        return self.preference if listed else RESOLVER_PREFERENCE, self.preference, self.id

    def locate(self, name: str, task: Task, now: float) -> None:
        where = self._directory.listed(name)
        if where is None:
            super().locate(name, task, now)
        else:
            task.done(Located(where, now))

    # --- what the machine tells

    def resolved(self, number: int, hosts: list[str], now: float) -> None:
        tokens, addresses = self._directory.resolved(number, hosts, now)
        for token in tokens:
            self._outgoing.found(token, addresses, now)


class Udp4Ipcp(UdpIpcp):
    """A layer over UDP and IPv4."""

    type = "udp4"
    settings = Udp4Settings
    preference = 5


class Udp6Ipcp(UdpIpcp):
    """A layer over UDP and IPv6."""

    type = "udp6"
    settings = Udp6Settings
    preference = 6
