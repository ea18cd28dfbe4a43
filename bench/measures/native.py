"""Python programs on a C Ouroboros: its own package, and ours over the same libraries and daemon."""

from __future__ import annotations

from collections.abc import Iterator

from bench.prototype import lacks_binding, on_one_host
from bench.run import Run, Sample
from bench.sampling import Length, one_way_with_losses, round_trips

_SIZE = 64
_RATE_TRIAL = 5000
_PEERS = {"prototype": "binding", "ours": "native"}


def measure(run: Run) -> None:
    """A write and a read in each of two programs; then as many writes as one makes, and what the other gets of them."""
    if reason := lacks_binding():
        run.results.skip("native", "everything", reason)
        return

    def sample(column: str) -> Iterator[Sample]:
        with on_one_host(_PEERS[column], run.cores) as pair:
            pair.connect()
            trips = round_trips(pair, _SIZE, Length(run.seconds))
            yield "native-rtt-p50", trips.p50
            yield "native-rtt-p99", trips.p99
            yield "native-rtt-mean", trips.mean
            received, lost = one_way_with_losses(pair, _SIZE, Length(run.seconds, _RATE_TRIAL))
            yield "native-rate", received
            yield "native-loss", lost

    run.interleave("native", _PEERS, sample)
