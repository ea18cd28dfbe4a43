"""How long packets are that a frame carries. Sizes are bytes."""

from __future__ import annotations

from ouroboros.layers.face import Size
from ouroboros.wire.ethernet import LAYOUTS


def path_of(family: str, mtu: int) -> Size:
    """Sizes of packets on a segment, without their endpoint ids. `mtu`: of the device."""
    most = LAYOUTS[family].most(mtu)
    return Size(most, most)
