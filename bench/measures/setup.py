"""How many connections a second, one after the other: set up, a byte there and back, released."""

from __future__ import annotations

from collections.abc import Iterator

from bench.run import Run, Sample
from bench.sampling import Length, set_ups

_TRIAL = 50
#: A PAIR socket serves one peer; ROUTER and DEALER are what ZeroMQ has for peers that come and go.
_INSTEAD = {"zmq": "zmq-router"}


def measure(run: Run) -> None:
    """Set up connections in sequence."""

    def sample(column: str) -> Iterator[Sample]:
        with run.pair(_INSTEAD.get(column, column)) as pair:
            yield "setup", set_ups(pair, Length(run.seconds, _TRIAL))

    run.interleave("setup", [column for column in run.columns if column != "limit"], sample)
