"""The `irmd` command: runs a node."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import click

from ouroboros import __version__
from ouroboros.control import configuration
from ouroboros.control.configuration import Configuration, ConfigurationError
from ouroboros.errors import OuroborosError
from ouroboros.runtime.embedded import READY
from ouroboros.runtime.node import IDLE_TIME, Node
from ouroboros.runtime.paths import runtime_dir
from ouroboros.runtime.security import keep_out_of_core_files
from ouroboros.runtime.systemd import take_listener, take_notifier

log = logging.getLogger("ouroboros.irmd")


def _become_daemon() -> None:
    """Leave the program that started us: it waits for its child, we are its grandchild."""
    if os.fork() > 0:
        os._exit(0)


# --- configuration


def read_configuration(path: Path) -> Configuration:
    """Read a configuration file; raise `ConfigurationError` naming the file and what is wrong with it."""
    try:
        return configuration.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: no UTF-8 at byte {error.start}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _find_program(name: str) -> str | None:
    found = shutil.which(name)
    return None if found is None else os.path.abspath(found)


def _configure(node: Node, path: Path) -> None:
    """Bring about what the file says; raise `ConfigurationError` for the first thing that cannot be done."""
    for error in read_configuration(path).apply(node.manage, _find_program):
        if error is not None:
            raise ConfigurationError(f"{path}: {error}")


def _configure_again(node: Node, path: Path) -> None:
    """Bring about what is new in the file. What cannot be done is logged, and the node goes on."""
    try:
        failed = [error for error in read_configuration(path).apply(node.manage, _find_program) if error is not None]
    except ConfigurationError as error:
        log.warning("%s; nothing was changed", error)
        return
    for each in failed:
        log.warning("%s: %s; the rest was done", path, each)
    log.info("read %s again", path)


def _check(path: Path) -> None:
    found = read_configuration(path)
    click.echo(f"{path}: good, with {len(found.names)} names and {len(found.ipcps)} IPC processes")


# --- command line


def _run(node: Node, where: Path, config: Path | None, ready_fd: int | None) -> None:
    notify = take_notifier()

    def ready() -> None:
        log.info("ready in %s", where)
        notify("READY=1")
        if ready_fd is not None:
            os.write(ready_fd, READY)
            os.close(ready_fd)

    def stopping() -> None:
        notify("STOPPING=1")

    if config is None:
        asyncio.run(node.run(ready, stopping=stopping))
        return
    # The node may be in another directory when it reads it again.
    path = config.absolute()
    asyncio.run(
        node.run(
            ready,
            configure=lambda: _configure(node, path),
            reload=lambda: _configure_again(node, path),
            stopping=stopping,
        )
    )


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; read again at SIGHUP.")
@click.option("--check", type=click.Path(path_type=Path), help="Only check a configuration file, and run nothing.")
@click.option("--stdout", is_flag=True, help="Log to standard output instead of standard error.")
@click.option("--directory", type=click.Path(path_type=Path), help="Runtime directory, in place of the usual one.")
@click.option("--embedded", is_flag=True, hidden=True, help="Behave as the node that programs start by themselves.")
@click.option(
    "--idle-time", default=IDLE_TIME, hidden=True, help="Seconds without programs until an embedded node ends."
)
@click.option("--ready-fd", type=int, hidden=True, help="Descriptor to report on that programs can connect.")
@click.version_option(__version__, "--version")
def main(
    *,
    config: Path | None,
    check: Path | None,
    stdout: bool,
    directory: Path | None,
    embedded: bool,
    idle_time: float,
    ready_fd: int | None,
) -> None:
    """Run an Ouroboros node until it is told to end by SIGTERM or SIGINT.

    Programs find it by its runtime directory: $OUROBOROS_RUNTIME_DIR, else /run/ouroboros for root, else
    $XDG_RUNTIME_DIR/ouroboros. It needs no privileges.
    """
    # Whoever started us may ignore its children, and that is inherited.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if embedded and ready_fd is not None:
        _become_daemon()
    stream = sys.stdout if stdout else sys.stderr
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(name)s(%(levelname)s): %(message)s")
    try:
        if check is not None:
            _check(check)
            return
        where = directory or runtime_dir()
        listener, core_files = take_listener(where), keep_out_of_core_files()
        node = Node(where, embedded=embedded, idle_time=idle_time, listener=listener, core_files=core_files)
        _run(node, where, config, ready_fd)
    except OuroborosError as error:
        print(f"irmd: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
