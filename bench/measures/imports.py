"""What importing a peer's module costs a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from bench.harness import BenchError
from bench.run import Run, Sample

_MODULES = {
    "seqpacket": "socket",
    "pipe": "multiprocessing.connection",
    "zmq": "zmq",
    "limit": "barering",
    "ours": "ouroboros.dev",
}


def measure(run: Run) -> None:
    """Time a program that only imports, less one that does nothing."""

    def sample(column: str) -> Iterator[Sample]:
        bare = _seconds("pass")
        yield "import", (_seconds(f"import {_MODULES[column]}") - bare) * 1e3

    # The first import of each compiles it, or reads it from the disk.
    for column in run.columns:
        _seconds(f"import {_MODULES[column]}")
    run.interleave("import", run.columns, sample)


def _seconds(program: str) -> float:
    start = time.perf_counter()
    # Elsewhere than in the checkout, whose files must not be what is imported.
    done = subprocess.run([sys.executable, "-c", program], cwd=tempfile.gettempdir(), check=False)
    if done.returncode != 0:
        raise BenchError(f"{program} failed")
    return time.perf_counter() - start
