"""The address of a member: random, kept over a restart, drawn anew when another member has it.

Source: `unicast-control.md` 5, 11. Values and contacts in directories of members of the C prototype outlive us, so a member
that comes back has its address again. That another has it is found by greetings (connections.py) and in announcements of
links (link_state.py).
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from ouroboros.layers.effects import Remember
from ouroboros.layers.face import Host, Random
from ouroboros.layers.members.greeting import LEAST_ADDRESS
from ouroboros.wire.unicast.protobuf import MOST_ADDRESS


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered. `version`: of the order of fields."""

    version: int
    layer: str
    address: int
    node: int


class Address:
    """Of one member. `name`: of its IPC process."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._key = f"unicast/{name}/address"
        self._layer = ""
        self._kept = _decoded(host.memory.get(self._key, b""))
        self.value = 0
        #: It is that of an earlier life.
        self.is_kept = False
        #: A random number that stands for the member, whatever its layer and address are.
        self.node = host.random.getrandbits(64) if self._kept is None else self._kept.node

    def choose(self, layer: str) -> int:
        """The address in a layer: that of before, or a new one."""
        self._layer = layer
        if self._kept is not None and self._kept.layer == layer:
            self.value, self.is_kept = self._kept.address, True
        else:
            self._draw(frozenset())
        return self.value

    def renew(self, taken: Container[int] = frozenset()) -> int:
        """Another address, because this one is that of another member. `taken`: those that are known to be used."""
        self._draw(taken)
        return self.value

    def forget(self) -> None:
        """The member leaves the layer for good."""
        self._host.effects.append(Remember(self._key, b""))

    def _draw(self, taken: Container[int]) -> None:
        while (drawn := draw(self._host.random)) == self.value or drawn in taken:
            pass
        self.value, self.is_kept = drawn, False
        kept = _Kept(_VERSION, self._layer, self.value, self.node)
        self._host.effects.append(Remember(self._key, msgspec.msgpack.encode(kept)))


_VERSION = 1


def draw(random: Random) -> int:
    """Any address that a member can have, all alike."""
    while not LEAST_ADDRESS <= (drawn := random.getrandbits(32)) <= MOST_ADDRESS:
        pass
    return drawn


def _decoded(data: bytes) -> _Kept | None:
    """What was kept; None for what is damaged, or of another version."""
    try:
        kept = msgspec.msgpack.decode(data, type=_Kept)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        return None
    known = kept.version == _VERSION and LEAST_ADDRESS <= kept.address <= MOST_ADDRESS and 0 <= kept.node < 2**64
    return kept if known else None
