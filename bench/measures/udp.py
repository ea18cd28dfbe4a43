"""Two nodes with a UDP layer between them, beside sockets, QUIC and the C prototype."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import BenchError, Host
from bench.proc import voluntary_switches
from bench.prototype import Prototype
from bench.rows import IDLE_FLOWS, LINK_ROUND_TRIP_MS, LOSSES
from bench.run import Run, Sample
from bench.sampling import Length, megabits, one_way_with_losses, round_trips, round_trips_awaited, set_ups
from ouroboros.testing.link import NamespacePair

_SIZE = 1400
_SMALL = 64
_RATE_TRIAL = 5000
_SET_UP_TRIAL = 20
#: A bad link brings few packets, and a sender takes some seconds to find out what it can bear.
_LOSSY_TRIAL = 300
_LOSSY_SECONDS = 4.0
#: For everything that starting and connecting left to do.
_SETTLE = 2.0


def raw(run: Run) -> None:
    """Round trip, and one way as fast as it goes, with what is lost; nothing is sent again."""

    def sample(column: str) -> Iterator[Sample]:
        if column == "prototype":
            yield from _prototype_raw(run)
            return
        with run.network_pair("ours-udp" if column == "ours" else column) as pair:
            pair.connect()
            awaited = pair.client.call("has_awaited")["yes"]
            trips = (round_trips_awaited if awaited else round_trips)(pair, _SMALL, Length(run.seconds))
            yield "udp-rtt-p50", trips.p50
            yield "udp-rtt-p99", trips.p99
            if column not in ("udp", "ours"):
                return
            for size in (_SMALL, _SIZE):
                rate, lost = one_way_with_losses(pair, size, Length(run.seconds, _RATE_TRIAL))
                yield f"udp-rate-{size}", rate
                yield f"udp-loss-{size}", lost

    run.interleave("udp", run.known("udp", "tcp", "quic", "prototype", "ours"), sample)


def reliable(run: Run) -> None:
    """Everything arrives, in order; nothing is lost on the way but what the receiver has no room for."""

    def sample(column: str) -> Iterator[Sample]:
        with run.network_pair("ours-udp-reliable" if column == "ours" else column) as pair:
            pair.connect()
            yield "udp-reliable", megabits(pair, _SIZE, Length(run.seconds, _RATE_TRIAL))

    run.interleave("reliable", run.known("tcp", "quic", "ours"), sample)


def lossy(run: Run) -> None:
    """The same through a bad link, TCP with cubic. Both have the link between two namespaces, as the kernel needs it."""
    if reason := NamespacePair.lacks():
        run.results.skip("lossy", "everything", reason)
        return
    turns = iter(range(1, 1_000_000))

    def sample(column: str) -> Iterator[Sample]:
        seed = next(turns)
        for loss in LOSSES:
            with (
                _bad_link(f"loss={loss}%,delay={LINK_ROUND_TRIP_MS / 2:g}ms", seed) as hosts,
                run.network_pair("ours-udp-reliable" if column == "ours" else column, hosts) as pair,
            ):
                pair.connect()
                length = Length(1.0 if run.quick else _LOSSY_SECONDS, _LOSSY_TRIAL)
                yield f"udp-lossy-{loss}", megabits(pair, _SIZE, length)

    run.interleave("lossy", run.known("tcp", "ours"), sample)


def setup(run: Run) -> None:
    """Connections in sequence: set up, a byte there and back, released."""

    def sample(column: str) -> Iterator[Sample]:
        if column == "prototype":
            with Prototype() as hosts:
                yield "udp-setup", hosts.set_ups()
            return
        with run.network_pair("ours-udp" if column == "ours" else column) as pair:
            yield "udp-setup", set_ups(pair, Length(run.seconds, _SET_UP_TRIAL))

    run.interleave("udp-setup", run.known("tcp", "tls", "quic", "prototype", "ours"), sample)


def idle(run: Run) -> None:
    """How often nodes and programs with many idle reliable flows are woken."""
    try:
        with run.network_pair("ours-udp-reliable") as pair:
            pair.connect(IDLE_FLOWS)
            watched = [("udp-idle-node", node.pid) for node in pair.nodes]
            watched += [("udp-idle-program", program.pid) for program in (pair.server, pair.client)]
            time.sleep(_SETTLE)
            for _ in range(run.repetitions):
                _count(run, watched)
    except BenchError as error:
        run.results.skip("udp-idle", "ours", str(error))


def _count(run: Run, watched: list[tuple[str, int]]) -> None:
    seconds = 2.0 if run.quick else 10.0
    before = [voluntary_switches(pid) for _, pid in watched]
    time.sleep(seconds)
    for (row, pid), count in zip(watched, before, strict=True):
        run.results.add(row, "ours", (voluntary_switches(pid) - count) / seconds)


def _prototype_raw(run: Run) -> Iterator[Sample]:
    with Prototype() as hosts:
        trips = hosts.round_trips(_SMALL, 500 if run.quick else 5000)
        yield "udp-rtt-p50", trips.p50
        yield "udp-rtt-p99", trips.p99
        for size in (_SMALL, _SIZE):
            rate, lost = hosts.one_way(size, 1 if run.quick else 3)
            yield f"udp-rate-{size}", rate
            yield f"udp-loss-{size}", lost


@contextmanager
def _bad_link(impair: str, seed: int) -> Iterator[tuple[Host, Host]]:
    with NamespacePair(impair, seed=seed) as pair:
        one, other = (Host(address, pair.command(side)) for side, address in enumerate(pair.addresses))
        yield one, other
