"""Awaited calls beside our blocking ones and beside asyncio streams, each program on its own core."""

from __future__ import annotations

from collections.abc import Iterator

from bench.run import Run, Sample
from bench.sampling import Length, rate, rate_awaited, round_trips, round_trips_awaited

_SIZE = 64
_RATE_TRIAL = 5000


def measure(run: Run) -> None:
    """Round trip and one way. The blocking calls are measured in the same turn."""

    def sample(column: str) -> Iterator[Sample]:
        trips, length = Length(run.seconds), Length(run.seconds, _RATE_TRIAL)
        if column == "ours":
            with run.pair("ours") as pair:
                pair.connect()
                yield "aio-rtt-blocking", round_trips(pair, _SIZE, trips).mean
                yield "aio-rate-blocking", rate(pair, _SIZE, length)
        with run.pair("ours-aio" if column == "ours" else column) as pair:
            pair.connect()
            yield "aio-rtt", round_trips_awaited(pair, _SIZE, trips).mean
            yield "aio-rate", rate_awaited(pair, _SIZE, length)

    run.interleave("aio", run.known("streams", "ours"), sample)
