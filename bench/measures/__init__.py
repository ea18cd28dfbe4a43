"""The measures, by the name that `--only` takes."""

from __future__ import annotations

from collections.abc import Callable

from bench.measures import (
    awaited,
    broadcast,
    c_programs,
    encrypted,
    ethernet,
    footprint,
    growth,
    idle,
    imports,
    layers,
    native,
    packets,
    setup,
    shared_core,
    udp,
    unicast,
)
from bench.run import Run

MEASURES: dict[str, Callable[[Run], None]] = {
    "latency": packets.latency,
    "rate": packets.rate,
    "setup": setup.measure,
    "memory": footprint.measure,
    "growth": growth.measure,
    "import": imports.measure,
    "idle": idle.measure,
    "shared": shared_core.measure,
    "aio": awaited.measure,
    "c": c_programs.measure,
    "udp": udp.raw,
    "reliable": udp.reliable,
    "lossy": udp.lossy,
    "udp-setup": udp.setup,
    "udp-idle": udp.idle,
    "dix": ethernet.dix,
    "broadcast": broadcast.measure,
    "layers": layers.measure,
    "hop-1": unicast.one_hop,
    "hop-2": unicast.two_hops,
    "ranks": unicast.ranks,
    "transit": unicast.transit,
    "enroll": unicast.enrollment,
    "four": unicast.four,
    "rest": unicast.rest,
    "crypt": encrypted.one_machine,
    "crypt-udp": encrypted.raw,
    "crypt-reliable": encrypted.reliable,
    "crypt-setup": encrypted.setup,
    "native": native.measure,
}
