"""The machine of a node in virtual time, and channels of its programs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ouroboros.dataplane import SimulatedEngine
from ouroboros.layers.effects import Address, OpenPort, Resolve
from ouroboros.layers.face import Random
from ouroboros.runtime.devices import Device
from ouroboros.runtime.flows import Channel
from ouroboros.runtime.held import News, Program

if TYPE_CHECKING:
    from ouroboros.testing.sim.network import Network

#: Of all paths.
MTU = 1500
#: Of layers over UDP.
_FAMILIES = ("udp4", "udp6")
#: Seconds that a lookup of a host takes.
_LOOKUP = 0.005


class VirtualMachine:
    """A `Machine` of `runtime.held`."""

    def __init__(self, network: Network, engine: SimulatedEngine, name: str, life: int = 0) -> None:
        self.random: Random = random.Random(f"{network.seed} {name} {life} machine")
        self.instance = 0
        #: By the name of a device, the last that watches it, and its member in the engine.
        self.devices: dict[str, tuple[Callable[[Device | None], None], int]] = {}
        self._members: dict[str, int] = {}
        self._name = name
        self._network = network
        self._engine = engine

    def now(self) -> float:
        return self._network.now

    def wall(self) -> int:
        return self._network.wall

    def counters(self) -> None:
        """Whoever asks the engine wakes nobody."""

    def start(self, heard: Callable[[News, str | None], None]) -> SimulatedEngine:
        # The network tells the news.
        return self._engine

    def stop(self) -> None:
        """It is there as long as its network."""

    def open_port(self, effect: OpenPort) -> tuple[int, int]:
        """All devices are on one segment."""
        if effect.family in _FAMILIES:
            return self._engine.open_port(effect.address, effect.port, self._network.delay), 0
        if effect.family != "eth-dix":
            raise OSError(0, "networks in virtual time have DIX frames only")
        mac = random.Random(f"{self._name} {effect.address} {effect.port}").randbytes(5)
        member = self._engine.open_port(f"02:{mac.hex(':')}", 0, self._network.delay)
        self._members[effect.address] = member
        return member, MTU

    def watch(self, who: object, device: str, told: Callable[[Device | None], None]) -> None:
        self.devices[device] = told, self._members[device]

    def unwatch(self, who: object) -> None:
        """What is told of nobody is ignored."""

    def path_mtu(self, family: str, address: Address) -> int:
        return MTU

    def resolve(self, effect: Resolve, found: Callable[[list[str]], None], *, apart: bool) -> None:
        addresses = self._network.hosts.get(effect.host, [])
        self._network.later(_LOOKUP, lambda: found(addresses))

    def copied(self, program: Program) -> None:
        """The engine makes the ring."""

    def met_bug(self, what: str, error: Exception) -> None:
        raise error

    def shut_down(self) -> None:
        """Nothing is left outside."""


class VirtualFiles:
    """A security directory: files by their paths."""

    root = ""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def exists(self, path: str) -> bool:
        return any(each == path or each.startswith(f"{path}/") for each in self._files)

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def files(self, path: str) -> dict[str, bytes]:
        return {each: content for each, content in self._files.items() if each.rpartition("/")[0] == path}


class NoChannel(Channel):
    """In the place of a channel: the engine has the ring of the program."""

    def __init__(self) -> None:
        self.memory, self.bells = -1, []

    def engine(self, side: int) -> Program:
        return (-1, -1, side)

    def close(self) -> None:
        """Nothing is open."""
