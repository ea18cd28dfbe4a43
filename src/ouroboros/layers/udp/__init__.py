"""Layers over UDP: flows with other nodes, ours or of the C prototype (`layers.flows`), over one socket.

Source: `shims.md` 3.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ouroboros._hosts import read_peer, written
from ouroboros.errors import IpcpBootstrapError
from ouroboros.layers.base import State
from ouroboros.layers.effects import OpenPort
from ouroboros.layers.face import Host, Located, Task
from ouroboros.layers.flows.ipcp import FlowIpcp
from ouroboros.layers.udp.directory import Directory
from ouroboros.settings import TypeSettings, Udp4Config, Udp4Settings, Udp6Config, Udp6Settings, UdpSettings
from ouroboros.wire.control import PortDetails


class UdpIpcp(FlowIpcp):
    """A member of a layer over UDP, with one socket."""

    def __init__(self, id: int, name: str, host: Host) -> None:
        self._directory = Directory(id, self.type, host.effects)
        super().__init__(id, name, host, self._directory)
        #: The settings of its bootstrap.
        self.told: Udp4Config | Udp6Config | None = None
        #: The bootstrap that waits for its socket.
        self._bootstrap: Task | None = None

    # --- management

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        """Ask for the socket; `opened` or `failed` follows."""
        assert isinstance(settings, UdpSettings)
        self._check_new()
        told = settings.udp
        self._directory.change([read_peer(self.type, text) for text in told.peers], self._directory.peers)
        self.layer, self._bootstrap, self.told = layer, task, told
        self._directory.port = told.port
        self._open()

    def _open(self) -> None:
        told = self.told
        assert told is not None
        self.state = State.OPENING
        self.host.effects.append(OpenPort(self.id, self.type, told.ip_addr, told.port))

    def opened(self, now: float) -> None:
        self.state = State.OPERATIONAL
        if self.impairment is not None:
            # The engine has begun again, and knows nothing of it.
            self.impair(self.impairment)
        if self._bootstrap is not None:
            task, self._bootstrap = self._bootstrap, None
            task.done(self.id)

    def failed(self, text: str, now: float) -> None:
        """There is no socket: back to the beginning, or the end of one that was to begin again."""
        if self._bootstrap is None:
            self.gave_up(text, now)
            self._core.warn(self.trouble, error=True)
            return
        task, self._bootstrap = self._bootstrap, None
        self.layer, self.state, self.told = "", State.BOOT, None
        task.failed(IpcpBootstrapError(text))

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

    def destroy(self, now: float) -> None:
        super().destroy(now)
        if self._bootstrap is not None:
            self._bootstrap.failed(IpcpBootstrapError(f"IPC process {self.name!r} was destroyed"))

    def details(self) -> PortDetails:
        return PortDetails(
            impair="" if self.impairment is None else self.impairment.text,
            address="" if self.told is None else written((self.told.ip_addr, self.told.port)),
            peers=tuple(peer.text for peer in self._directory.peers),
        )

    def turn(self, name: str) -> tuple[bool, int, int]:
        # The resolver may take seconds, and another layer have the name among its peers.
        return self._directory.listed(name) is None, self.preference, self.id

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
