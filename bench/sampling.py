"""Round trips and rates through an open pair, with a number of packets that fits the time."""

from __future__ import annotations

from dataclasses import dataclass

from bench.harness import Pair
from bench.loops import BATCH, RoundTrips
from bench.run import packets_for

_MOST_TRIPS = 300_000
_MOST_PACKETS = 3_000_000
_MOST_SET_UPS = 20_000


@dataclass(frozen=True, slots=True)
class Length:
    """How long a sample takes, and how many packets find out how many that is; they also warm up."""

    seconds: float
    trial: int = 1000


def round_trips(pair: Pair, size: int, length: Length) -> RoundTrips:
    """Return the round trip times over the latest connection."""
    return _round_trips(pair, ("echo", "ping"), size, length, least=length.trial)


def round_trips_over_all(pair: Pair, size: int, length: Length, flows: int) -> RoundTrips:
    """Return the round trip times over all connections in turn, each used at least once after the trial."""
    trial = Length(length.seconds, max(length.trial, flows))
    return _round_trips(pair, ("echo_over", "ping_over"), size, trial, least=flows)


def rate(pair: Pair, size: int, length: Length) -> float:
    """Return the packets a second over the latest connection."""
    return _rate(pair, ("pull", "push"), size, length)


def rate_over_all(pair: Pair, size: int, length: Length, flows: int) -> float:
    """Return the packets a second over all connections in turn."""
    return _rate(pair, ("pull_over", "push_over"), size, Length(length.seconds, max(length.trial, 2 * flows)))


def rate_in_batches(pair: Pair, size: int, length: Length) -> float:
    """Return the packets a second with a batch a call."""
    return _rate(pair, ("pull_many", "push_many"), size, length)


def round_trips_awaited(pair: Pair, size: int, length: Length) -> RoundTrips:
    """Return the round trip times over the latest connection, with awaited calls."""
    return _round_trips(pair, ("echo_awaited", "ping_awaited"), size, length, least=length.trial)


def rate_awaited(pair: Pair, size: int, length: Length) -> float:
    """Return the packets a second over the latest connection, with awaited calls."""
    return _rate(pair, ("pull_awaited", "push_awaited"), size, length)


def set_ups(pair: Pair, length: Length) -> float:
    """Return how many connections a second are set up, used for a byte each way, and released, one after the other."""
    commands = ("accept_and_close", "connect_and_close")
    trial: float = pair.together(*commands, count=length.trial)[1]["per_second"]
    count = packets_for(length.seconds, 1 / trial, length.trial, _MOST_SET_UPS)
    rate: float = pair.together(*commands, count=count)[1]["per_second"]
    return rate


def one_way_with_losses(pair: Pair, size: int, length: Length) -> tuple[float, float]:
    """Return the packets a second that arrive over the latest connection, and how many percent do not."""
    commands = ("drain", "flood")
    trial = pair.together(*commands, size=size, count=length.trial)[0]["per_second"]
    count = packets_for(length.seconds, 1 / trial, length.trial, _MOST_PACKETS)
    came = pair.together(*commands, size=size, count=count)[0]
    return came["per_second"], 100 * (1 - came["received"] / count)


def megabits(pair: Pair, size: int, length: Length) -> float:
    """Return the rate over the latest connection in Mbit/s, with awaited calls where there are no others."""
    awaited = pair.client.call("has_awaited")["yes"]
    return (rate_awaited if awaited else rate)(pair, size, length) * size * 8 / 1e6


def _round_trips(pair: Pair, commands: tuple[str, str], size: int, length: Length, least: int) -> RoundTrips:
    trial = RoundTrips(**pair.together(*commands, size=size, count=length.trial)[1])
    count = packets_for(length.seconds, trial.mean / 1e6, least, _MOST_TRIPS)
    return RoundTrips(**pair.together(*commands, size=size, count=count)[1])


def _rate(pair: Pair, commands: tuple[str, str], size: int, length: Length) -> float:
    trial: float = pair.together(*commands, size=size, count=_whole_batches(length.trial))[0]["per_second"]
    count = packets_for(length.seconds, 1 / trial, length.trial, _MOST_PACKETS)
    measured: float = pair.together(*commands, size=size, count=_whole_batches(count))[0]["per_second"]
    return measured


def _whole_batches(count: int) -> int:
    return -(-count // BATCH) * BATCH
