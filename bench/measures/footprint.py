"""Memory of a connection that is open and idle, after one packet each way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.harness import BenchError, Pair
from bench.proc import pss_kib, rss_kib
from bench.rows import MEMORY_FLOWS
from bench.run import Run, Sample

#: Opened before the first reading, so that what a program needs once is not counted.
_BEFORE = 10


def measure(run: Run) -> None:
    """Open connections and see by how much the programs and the node grow. Kernel memory (sockets) is not seen."""

    def sample(column: str) -> Iterator[Sample]:
        if reason := run.lacks_descriptors(column, MEMORY_FLOWS + _BEFORE):
            raise BenchError(reason)
        with run.pair(column) as pair:
            pair.connect(_BEFORE)
            rss, pss = _total(pair, rss_kib), _total(pair, pss_kib)
            pair.connect(MEMORY_FLOWS)
            yield "memory-rss", (_total(pair, rss_kib) - rss) / MEMORY_FLOWS
            yield "memory-pss", (_total(pair, pss_kib) - pss) / MEMORY_FLOWS

    run.interleave("memory", [column for column in run.columns if column != "limit"], sample)


def _total(pair: Pair, read: Callable[[int], float]) -> float:
    return sum(read(pid) for pid in pair.pids)
