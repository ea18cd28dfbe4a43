"""The measures, by the name that `--only` takes."""

from __future__ import annotations

from collections.abc import Callable

from bench.measures import awaited, footprint, growth, idle, imports, packets, setup, shared_core
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
}
