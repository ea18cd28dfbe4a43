"""The `irmd` command: runs a node."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from ouroboros import __version__
from ouroboros.errors import OuroborosError
from ouroboros.runtime.embedded import READY
from ouroboros.runtime.node import IDLE_TIME, Node
from ouroboros.runtime.paths import runtime_dir


def _become_daemon() -> None:
    """Leave the program that started us: it waits for its child, we are its grandchild."""
    if os.fork() > 0:
        os._exit(0)


@click.command()
@click.option("--stdout", is_flag=True, help="Log to standard output instead of standard error.")
@click.option("--directory", type=click.Path(path_type=Path), help="Runtime directory, in place of the usual one.")
@click.option("--embedded", is_flag=True, hidden=True, help="Behave as the node that programs start by themselves.")
@click.option(
    "--idle-time", default=IDLE_TIME, hidden=True, help="Seconds without programs until an embedded node ends."
)
@click.option("--ready-fd", type=int, hidden=True, help="Descriptor to report on that programs can connect.")
@click.version_option(__version__, "--version")
def main(stdout: bool, directory: Path | None, embedded: bool, idle_time: float, ready_fd: int | None) -> None:
    """Run an Ouroboros node until it is told to end by SIGTERM or SIGINT.

    Programs find it by its runtime directory: $OUROBOROS_RUNTIME_DIR, else /run/ouroboros for root, else
    $XDG_RUNTIME_DIR/ouroboros. It needs no privileges.
    """
    if embedded and ready_fd is not None:
        _become_daemon()
    stream = sys.stdout if stdout else sys.stderr
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(name)s(%(levelname)s): %(message)s")
    where = directory or runtime_dir()

    def ready() -> None:
        logging.getLogger("ouroboros.irmd").info("ready in %s", where)
        if ready_fd is not None:
            os.write(ready_fd, READY)
            os.close(ready_fd)

    try:
        asyncio.run(Node(where, embedded=embedded, idle_time=idle_time).run(ready))
    except OuroborosError as error:
        print(f"irmd: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
