"""C programs on one machine: the prototype's own tools on the prototype, and the same files on a node of ours."""

from __future__ import annotations

from collections.abc import Iterator

from bench import prototype
from bench.rows import C_SIZES
from bench.run import Run, Sample

_SIZE = 64
_MEASURE = "c"


def measure(run: Run) -> None:
    """Round trips of `oping`, a core for each program and where the kernel puts them; one way as fast as `ocbr` goes."""
    if reason := prototype.lacks(network=False):
        run.results.skip(_MEASURE, "everything", reason)
        return
    stacks = {"prototype": prototype.PrototypeLocal, "ours": prototype.OnOurNode}

    def sample(column: str) -> Iterator[Sample]:
        count = 5000 if run.quick else 50_000
        with stacks[column](run.cores) as tools:
            yield "c-trips", tools.flood(_SIZE, count)
            for size in C_SIZES:
                yield f"c-rate-{size}", tools.one_way(size, 1 if run.quick else 2)[0]
        with stacks[column]() as tools:
            yield "c-trips-free", tools.flood(_SIZE, count)

    run.interleave(_MEASURE, stacks, sample)
