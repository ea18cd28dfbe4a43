"""Two nodes with an Ethernet between them, a veth pair, beside the C prototype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Host, Pair
from bench.prototype import PrototypeDix
from bench.rows import DIX_SIZES, JUMBO
from bench.run import Run, Sample
from bench.sampling import Length, one_way_with_losses, round_trips
from ouroboros.testing.link import NamespacePair

_RATE_TRIAL = 5000


def dix(run: Run) -> None:
    """Round trip, and one way as fast as it goes, with what is lost; nothing is sent again."""
    if reason := NamespacePair.lacks():
        run.results.skip("dix", "everything", reason)
        return

    def sample(column: str) -> Iterator[Sample]:
        if column == "prototype":
            yield from _prototype(run)
            return
        with _pair(run, 1500) as pair:
            trips = round_trips(pair, DIX_SIZES[0], Length(run.seconds))
            yield "dix-rtt-p50", trips.p50
            yield "dix-rtt-p99", trips.p99
            for size in DIX_SIZES:
                rate, lost = one_way_with_losses(pair, size, Length(run.seconds, _RATE_TRIAL))
                yield f"dix-rate-{size}", rate
                yield f"dix-loss-{size}", lost
        with _pair(run, JUMBO) as pair:
            # An endpoint id and the length of the packet are in the frame.
            rate, _ = one_way_with_losses(pair, JUMBO - 4, Length(run.seconds, _RATE_TRIAL))
            yield "dix-jumbo", rate

    run.interleave("dix", run.known("prototype", "ours"), sample)


@contextmanager
def _pair(run: Run, mtu: int) -> Iterator[Pair]:
    with NamespacePair(None, mtu=mtu) as segment:
        one, other = (Host("", segment.command(side), "veth0") for side in (0, 1))
        with run.network_pair("ours-udp", (one, other)) as pair:
            pair.connect()
            yield pair


def _prototype(run: Run) -> Iterator[Sample]:
    with PrototypeDix() as hosts:
        trips = hosts.round_trips(DIX_SIZES[0], 500 if run.quick else 5000)
        yield "dix-rtt-p50", trips.p50
        yield "dix-rtt-p99", trips.p99
        for size in DIX_SIZES:
            rate, lost = hosts.one_way(size, 1 if run.quick else 3)
            yield f"dix-rate-{size}", rate
            yield f"dix-loss-{size}", lost
