"""Latency and rate of one connection, each program on its own core."""

from __future__ import annotations

from collections.abc import Iterator

from bench.rows import LATENCY_SIZES, RATE_SIZES
from bench.run import Run, Sample
from bench.sampling import Length, rate_in_batches, round_trips
from bench.sampling import rate as one_way

#: Fewer packets than a ring or a socket buffer holds would measure copying into it.
_RATE_TRIAL = 5000


def latency(run: Run) -> None:
    """Send a packet, wait for it to come back."""

    def sample(column: str) -> Iterator[Sample]:
        with run.pair(column) as pair:
            pair.connect()
            for size in LATENCY_SIZES:
                trips = round_trips(pair, size, Length(run.seconds))
                yield f"rtt-p50-{size}", trips.p50
                yield f"rtt-p99-{size}", trips.p99

    run.interleave("latency", run.columns, sample)


def rate(run: Run) -> None:
    """Send packets one way as fast as they go, one call a packet."""

    def sample(column: str) -> Iterator[Sample]:
        with run.pair(column) as pair:
            pair.connect()
            length = Length(run.seconds, _RATE_TRIAL)
            for size in RATE_SIZES:
                yield f"rate-{size}", one_way(pair, size, length)
            if pair.client.call("has_batches")["yes"]:
                yield "rate-batch", rate_in_batches(pair, 64, length)

    run.interleave("rate", run.columns, sample)
