"""How long packets are that a frame carries. Sizes are bytes."""

from __future__ import annotations

from ouroboros.layers.face import Size
from ouroboros.wire.ethernet import LAYOUTS


def path_of(family: str, mtu: int) -> Size:
    """Sizes of packets on a segment, without their endpoint ids. `mtu`: of the device."""
    layout = LAYOUTS[family]
    most = max(min(mtu, layout.longest) - layout.header, 0)
    return Size(most, most)
