"""Encrypted flows, on one machine beside TLS, and over UDP beside plaintext and QUIC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from bench.harness import Pair
from bench.run import Run, Sample
from bench.sampling import Length, megabits, one_way_with_losses, rate, round_trips, set_ups

_SIZES = (1400, 65536)
_SMALL = 64
_RATE_TRIAL = 2000
_SET_UP_TRIAL = 20


def one_machine(run: Run) -> None:
    """Round trip, one way and set-up; TLS over loopback TCP."""

    def open_(column: str) -> AbstractContextManager[Pair]:
        return run.pair("ours-encrypted") if column == "ours" else run.network_pair(column)

    def sample(column: str) -> Iterator[Sample]:
        plain = 0.0
        if column == "ours":
            with run.pair("ours") as pair:
                pair.connect()
                plain = round_trips(pair, _SMALL, Length(run.seconds)).p50
                yield "crypt-rtt-raw", plain
        with open_(column) as pair:
            pair.connect()
            trips = round_trips(pair, _SMALL, Length(run.seconds)).p50
            yield "crypt-rtt", trips
            if column == "ours":
                yield "crypt-rtt-more", trips - plain
            for size in _SIZES:
                yield f"crypt-rate-{size}", rate(pair, size, Length(run.seconds, _RATE_TRIAL))
        with open_(column) as pair:
            yield "crypt-setup", set_ups(pair, Length(run.seconds, _SET_UP_TRIAL))

    run.interleave("crypt", run.known("tls", "ours"), sample)


def raw(run: Run) -> None:
    """Raw flows over UDP, without and with encryption in turn."""

    def sample(_: str) -> Iterator[Sample]:
        for peer, row in (("ours-udp", "crypt-udp-plain"), ("ours-udp-encrypted", "crypt-udp")):
            with run.network_pair(peer) as pair:
                pair.connect()
                yield row, one_way_with_losses(pair, _SIZES[0], Length(run.seconds, _RATE_TRIAL))[0]

    run.interleave("crypt-udp", run.known("ours"), sample)


def reliable(run: Run) -> None:
    """Reliable and encrypted, beside QUIC."""

    def sample(column: str) -> Iterator[Sample]:
        with run.network_pair("ours-udp-reliable-encrypted" if column == "ours" else column) as pair:
            pair.connect()
            yield "crypt-udp-reliable", megabits(pair, _SIZES[0], Length(run.seconds, _RATE_TRIAL))

    run.interleave("crypt-reliable", run.known("quic", "tls", "ours"), sample)


def setup(run: Run) -> None:
    """Encrypted connections in sequence."""

    def sample(column: str) -> Iterator[Sample]:
        with run.network_pair("ours-udp-x25519" if column == "ours" else column) as pair:
            yield "crypt-udp-setup", set_ups(pair, Length(run.seconds, _SET_UP_TRIAL))

    run.interleave("crypt-setup", run.known("quic", "tls", "ours"), sample)
