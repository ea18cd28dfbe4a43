"""The process of a private node: `python -m ouroboros.testing.host DIRECTORY READY_FD`. Ends at the end of its input."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from pathlib import Path

from ouroboros.runtime.embedded import READY
from ouroboros.runtime.node import Node


async def _serve(directory: Path, ready_fd: int) -> None:
    def ready() -> None:
        os.write(ready_fd, READY)
        os.close(ready_fd)

    node = Node(directory, embedded=True, idle_time=math.inf)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), node.stop)
    await node.run(ready)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s(%(levelname)s): %(message)s")
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
