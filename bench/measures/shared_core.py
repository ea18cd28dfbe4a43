"""What spinning costs where it cannot help: both programs on one core, or more programs than cores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from bench.run import Run, Sample
from bench.sampling import Length, rate, round_trips

#: Our setting that makes a call park at once.
_PARK = {"OUROBOROS_SPIN_US": "0"}
_SIZE = 64
#: With a busy loop beside it, a round trip may take as long as the scheduler's turns.
_TRIAL = 100
_RATE_TRIAL = 5000

Cores = tuple[int | None, int | None]


def measure(run: Run) -> None:
    """Measure in every place, ours also with spinning switched off."""
    one = (run.cores[0], run.cores[0])
    busy = [core for core in run.cores if core is not None]
    places: dict[str, tuple[Cores, list[int]]] = {
        "one-core": (one, []),
        "one-core-busy": (one, busy),
        "busy": (run.cores, busy),
    }

    def sample(column: str) -> Iterator[Sample]:
        for place, (cores, hogs) in places.items():
            yield from _in_place(run, column, place, cores, hogs)

    if not busy:
        run.results.skip("shared", "ours", "there is only one core, so nothing to compare sharing it with")
        return
    run.interleave("shared", run.columns, sample)


def _in_place(run: Run, column: str, place: str, cores: Cores, hogs: list[int]) -> Iterator[Sample]:
    variants: list[tuple[str, dict[str, str]]] = [("", {})]
    if column == "ours":
        variants.append(("-park", _PARK))
    for suffix, env in variants:
        with run.pair(column, cores, env) as pair, _busy_loops(hogs):
            pair.connect()
            trips = round_trips(pair, _SIZE, Length(run.seconds, _TRIAL))
            yield f"{place}-mean{suffix}", trips.mean
            yield f"{place}-p50{suffix}", trips.p50
            yield f"{place}-rate{suffix}", rate(pair, _SIZE, Length(run.seconds, _RATE_TRIAL))


@contextmanager
def _busy_loops(cores: Iterable[int]) -> Iterator[None]:
    with ExitStack() as stack:
        for core in cores:
            program = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
            process = subprocess.Popen([sys.executable, "-c", program])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield
