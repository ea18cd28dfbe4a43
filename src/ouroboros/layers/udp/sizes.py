"""How long packets are that a path of IP carries. Sizes are bytes."""

from __future__ import annotations

from ouroboros.layers.face import Size
from ouroboros.wire.udp import EID_LENGTH, PACKET_LENGTH

#: Headers of IP and UDP.
_HEADERS = {"udp4": 28, "udp6": 48}


def path_of(family: str, mtu: int) -> Size:
    """Sizes of packets on a path, without their endpoint ids. `mtu`: of the path, as the kernel knows it."""
    return Size(PACKET_LENGTH[family], mtu - _HEADERS[family] - EID_LENGTH)
