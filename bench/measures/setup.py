"""How many connections a second, one after the other: set up, a byte there and back, released."""

from __future__ import annotations

from collections.abc import Iterator

from bench.run import Run, Sample, packets_for

_TRIAL = 50
_MOST = 20_000
#: A PAIR socket serves one peer; ROUTER and DEALER are what ZeroMQ has for peers that come and go.
_INSTEAD = {"zmq": "zmq-router"}


def measure(run: Run) -> None:
    """Set up connections in sequence."""

    def sample(column: str) -> Iterator[Sample]:
        with run.pair(_INSTEAD.get(column, column)) as pair:
            commands = ("accept_and_close", "connect_and_close")
            trial: float = pair.together(*commands, count=_TRIAL)[1]["per_second"]
            count = packets_for(run.seconds, 1 / trial, _TRIAL, _MOST)
            yield "setup", pair.together(*commands, count=count)[1]["per_second"]

    run.interleave("setup", [column for column in run.columns if column != "limit"], sample)
