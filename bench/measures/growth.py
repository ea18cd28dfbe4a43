"""What more and more open connections cost: set-up, round trip and rate with 1 to 10 000 of them."""

from __future__ import annotations

from collections.abc import Iterator

from bench.harness import Pair
from bench.rows import LEVELS
from bench.run import Run, Sample
from bench.sampling import Length, rate, rate_over_all, round_trips, round_trips_over_all

_SIZE = 64
_RATE_TRIAL = 5000


def measure(run: Run) -> None:
    """Open connections level by level and measure at each level."""

    def sample(column: str) -> Iterator[Sample]:
        with run.pair(column) as pair:
            flows = 0
            for level in LEVELS:
                if reason := run.lacks_descriptors(column, level):
                    run.results.skip(f"growth to {level} flows", column, reason)
                    return
                yield f"grow-setup-{level}", pair.connect(level - flows)
                flows = level
                yield from _at_level(pair, level, run.seconds / 2)
            yield "grow-release", pair.close_connections()

    run.interleave("growth", [column for column in run.columns if column != "limit"], sample)


def _at_level(pair: Pair, flows: int, seconds: float) -> Iterator[Sample]:
    trips, packets = Length(seconds), Length(seconds, _RATE_TRIAL)
    yield f"grow-rtt-one-{flows}", round_trips(pair, _SIZE, trips).p50
    yield f"grow-rtt-all-{flows}", round_trips_over_all(pair, _SIZE, trips, flows).p50
    yield f"grow-rate-one-{flows}", rate(pair, _SIZE, packets)
    yield f"grow-rate-all-{flows}", rate_over_all(pair, _SIZE, packets, flows)
