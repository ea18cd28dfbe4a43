"""Two nodes with an Ethernet between them, beside the C prototype, and the kernel's TCP where the link is bad."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Host, Pair
from bench.prototype import PrototypeDix, one_way_over_dix
from bench.rows import DIX_SIZES, JUMBO, LINK_ROUND_TRIP_MS, LOSSES
from bench.run import Run, Sample
from bench.sampling import Length, megabits, one_way_with_losses, round_trips
from ouroboros.testing.link import NamespacePair

_RATE_TRIAL = 5000
#: A bad link brings few packets, and a sender takes some seconds to find out what it can bear.
_LOSSY_TRIAL = 300
_LOSSY_SECONDS = 4.0


def dix(run: Run) -> None:
    """Round trip, and one way as fast as it goes, with what is lost; nothing is sent again. Then a bad link, on which all
    is."""
    if reason := NamespacePair.lacks():
        run.results.skip("dix", "everything", reason)
        return

    turns = iter(range(1, 1_000_000))

    def sample(column: str) -> Iterator[Sample]:
        if column == "prototype":
            yield from _prototype(run)
            return
        yield "dix-lossy", _lossy(run, column, next(turns))
        if column == "tcp":
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

    run.interleave("dix", run.known("tcp", "prototype", "ours"), sample)


def _lossy(run: Run, column: str, seed: int) -> float:
    """Mbit/s of a reliable flow, or of a connection, over a bad Ethernet."""
    impair = f"loss={LOSSES[0]}%,delay={LINK_ROUND_TRIP_MS / 2:g}ms"
    with NamespacePair(impair, seed=seed, ethernet=True) as bad:
        device = "" if column == "tcp" else bad.device
        one, other = (Host(address, bad.command(side), device) for side, address in enumerate(bad.addresses))
        with run.network_pair("tcp" if column == "tcp" else "ours-udp-reliable", (one, other)) as pair:
            pair.connect()
            return megabits(pair, DIX_SIZES[-1], Length(1.0 if run.quick else _LOSSY_SECONDS, _LOSSY_TRIAL))


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
        rate, lost = one_way_over_dix(size, 1 if run.quick else 3)
        yield f"dix-rate-{size}", rate
        yield f"dix-loss-{size}", lost
