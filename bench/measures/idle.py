"""How often a program that only waits, and the node behind it, are woken."""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.harness import BenchError, Pair
from bench.proc import voluntary_switches
from bench.run import Run

#: For everything that starting and connecting left to do.
_SETTLE = 2.0


def measure(run: Run) -> None:
    """Let one program of every peer wait in its receive call at the same time, and count for some seconds."""
    with ExitStack() as stack:
        waiting: dict[str, Pair] = {}
        for column in run.columns:
            try:
                waiting[column] = _start_waiting(stack.enter_context(run.pair(column)))
            except BenchError as error:
                run.results.skip("idle", column, str(error))
        time.sleep(_SETTLE)
        for _ in range(run.repetitions):
            _count(run, waiting)
        for pair in waiting.values():
            _stop_waiting(pair)


def _start_waiting(pair: Pair) -> Pair:
    pair.connect()
    pair.server.start("echo", size=64, count=1)
    return pair


def _count(run: Run, waiting: dict[str, Pair]) -> None:
    seconds = 2.0 if run.quick else 5.0
    processes = {(column, "idle-program"): pair.server.pid for column, pair in waiting.items()}
    processes |= {(column, "idle-node"): node.pid for column, pair in waiting.items() for node in pair.nodes}
    before = {key: voluntary_switches(pid) for key, pid in processes.items()}
    time.sleep(seconds)
    for (column, row), pid in processes.items():
        run.results.add(row, column, (voluntary_switches(pid) - before[column, row]) / seconds)


def _stop_waiting(pair: Pair) -> None:
    pair.client.call("ping", size=64, count=1)
    pair.server.finish()
