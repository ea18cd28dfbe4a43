"""What a layer more costs a packet, and what a packet of others does, as examples of the engine measure it: in the stack
alone, and between two engines."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from bench.harness import BenchError
from bench.rows import LAYER_SIZES
from bench.run import Run, Sample

#: Kinds of layers in the example `layers`, by the beginning of a row.
_KINDS = {"layer": "plain", "rank": "unicast"}
#: Columns of the example `transit`, by the beginning of a row.
_TRANSIT = {"transit": 1, "transit-mixed": 2, "transit-routes": 3, "transit-routes-mixed": 4}
#: Cases of the example `rate`, by row: flows over a port, and over one layer more.
_CASES = {"layer-without": "in clear", "layer-with": "a layer more"}


def measure(run: Run) -> None:
    """Run the examples, which `cargo` builds when they are not yet."""
    packets = "20000" if run.quick else "400000"

    def sample(_: str) -> Iterator[Sample]:
        table = _example("ouroboros-stack", "layers", packets)
        transit = _example("ouroboros-stack", "transit", packets)
        for size in LAYER_SIZES:
            for row, kind in _KINDS.items():
                # Kind, bytes, the time without a layer, and what each layer adds.
                _, _, _, *more = next(line for line in table if line[:2] == [kind, str(size)])
                yield f"{row}-{size}", sum(map(float, more)) / len(more)
            for row, column in _TRANSIT.items():
                yield f"{row}-{size}", float(next(line for line in transit if line[0] == str(size))[column])
        for row, case in _CASES.items():
            (*_, sender, receiver, _rate, _each) = _example("ouroboros-io", "rate", case, packets)[-1]
            yield row, float(sender) + float(receiver)

    run.interleave("layers", ["ours"], sample)


def _example(crate: str, name: str, *arguments: str) -> list[list[str]]:
    """The lines of its table, in words."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", crate, "--example", name, "--", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchError("there is no cargo") from None
    if done.returncode != 0:
        raise BenchError(f"the example {name} failed: {done.stderr[-200:]}")
    return [line.split() for line in done.stdout.splitlines()]
