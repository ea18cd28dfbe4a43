"""How long networks of the laboratory take until they are ready, for the quiet hour: `python -m bench.laboratory`.
Real clocks by the clock on the wall, the process that forks being there but for the first row; virtual time by the time
of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ouroboros.lab import Lab, describe
from ouroboros.lab.real import warm_up


def main() -> None:
    report("three nodes with traffic, with the process that forks", 0.5, lambda: ready("line 3", "real"))
    warm_up()
    for _ in range(3):
        report("three nodes with traffic", 0.5, lambda: ready("line 3", "real"))
    report("a line of 100 nodes", 5.0, lambda: ready("line 100", "real"))
    report("virtual: a line of 100 nodes", 2.0, lambda: ready("line 100", "virtual"))
    report("virtual: a grid of 100 nodes", 5.0, lambda: ready("grid 10x10", "virtual"))


def ready(network: str, clock: str) -> float:
    """Seconds until all routes are there and a packet came back from the last node."""
    described = describe(network)
    # A line of 100 nodes is longer than packets go by default: those that keep a name would be out of reach.
    layers = tuple(replace(layer, settings={"max_ttl": 100}) for layer in described.layers)
    now = time.process_time if clock == "virtual" else time.monotonic
    start = now()
    with Lab(replace(described, layers=layers), clock=clock, seed=7) as lab:
        nodes = list(lab)
        assert nodes[0].ping(nodes[-1])
        return now() - start


def report(what: str, bar: float, measure: Callable[[], float]) -> None:
    print(f"{what}: {measure():.2f} s (bar: {bar:g} s)", flush=True)


if __name__ == "__main__":
    main()
