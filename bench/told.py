"""The process of a node that writes down when its engine is told that a connection is over: in `DIRECTORY/told`, a line for
each time, in nanoseconds of the monotonic clock. `python -m bench.told DIRECTORY READY_FD`."""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

from ouroboros.layers.effects import TakeBack
from ouroboros.runtime.engine import EngineRuntime

TOLD = "told"


def _write_down(path: Path) -> None:
    take_back = EngineRuntime.take_back
    # Open before: the node is to lose no time with it.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def taking_back(self: EngineRuntime, effect: TakeBack) -> None:
        at = time.monotonic_ns()
        take_back(self, effect)
        os.write(file, b"%d\n" % at)

    EngineRuntime.take_back = taking_back  # type: ignore[method-assign]


if __name__ == "__main__":
    _write_down(Path(sys.argv[1]) / TOLD)
    runpy.run_module("ouroboros.testing.host", run_name="__main__")
