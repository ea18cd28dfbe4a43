"""The `irmd` command: runs a node."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from ouroboros import __version__
from ouroboros.control import configuration
from ouroboros.control.configuration import Configuration, ConfigurationError
from ouroboros.errors import OuroborosError
from ouroboros.runtime.children import become_independent, forget_starter, heed_signals
from ouroboros.runtime.descriptors import above_standard, fill_standard, pipe
from ouroboros.runtime.embedded import READY, hear, log_of
from ouroboros.runtime.node import IDLE_TIME, Node
from ouroboros.runtime.paths import make_runtime_dir, runtime_dir
from ouroboros.runtime.security import keep_out_of_core_files
from ouroboros.runtime.systemd import take_listener, take_notifier
from ouroboros.tools._common import Tool
from ouroboros.tools._output import run_command, say

log = logging.getLogger("ouroboros.irmd")

#: Seconds that a node in the background may take to start.
START = 30.0


def _become_daemon() -> None:
    """Leave the program that started us: it waits for its child, we are its grandchild."""
    if os.fork() > 0:
        os._exit(0)


def _go_to_background(where: Path) -> int:
    """Go on in a process of its own, which writes to a log in the runtime directory; returns the descriptor by which it
    tells that programs can connect. The process that the user waits for ends here, then, or says why there is no node."""
    make_runtime_dir(where)
    log = above_standard(os.open(log_of(where), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    begin = os.lseek(log, 0, os.SEEK_END)
    ready, child_end = pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = above_standard(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for standard, descriptor in enumerate((nothing, log, log)):
            os.dup2(descriptor, standard)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        # What was said by a relative path is an absolute one by now.
        os.chdir("/")
        return child_end
    os.close(child_end)
    try:
        is_ready = hear(ready, time.monotonic() + START) == READY
    except BaseException as error:
        os.kill(child, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        is_ready = False
    if not is_ready:
        os.waitpid(child, 0)
        sys.stderr.write(
            os.pread(log, 65536, begin).decode(errors="replace") or f"irmd: not ready within {START:g} s\n"
        )
    os._exit(0 if is_ready else 1)


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
    for error in _bring_about(node, path):
        if error is not None:
            raise ConfigurationError(f"{path}: {error}")


def _bring_about(node: Node, path: Path) -> Iterator[ConfigurationError | None]:
    found = read_configuration(path)
    node.bound_strangers(found.strangers)
    node.bound_users(found.users)
    for share in found.shares:
        node.share(share.kind, share.user, share.users)
    return found.apply(node.manage, _find_program, node.pursue)


def _configure_again(node: Node, path: Path) -> None:
    """Bring about what is new in the file. What cannot be done is logged, and the node goes on."""
    try:
        failed = [error for error in _bring_about(node, path) if error is not None]
    except ConfigurationError as error:
        log.warning("%s; nothing was changed", error)
        return
    for each in failed:
        log.warning("%s: %s; the rest was done", path, each)
    log.info("read %s again", path)


def _check(path: Path) -> None:
    found = read_configuration(path)
    say(f"{path}: good, with {len(found.names)} names and {len(found.ipcps)} IPC processes")


# --- command line


def _log_to(stream: TextIO) -> None:
    """Log to where the stream leads, but not through it: its loss ends a tool, and a node goes on."""
    logging.raiseExceptions = False
    raw = io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False))
    text = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)
    logging.basicConfig(stream=text, level=logging.INFO, format="%(asctime)s %(name)s(%(levelname)s): %(message)s")


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


@click.command(cls=Tool, instead="a node is managed by the irm command, and configured by --config FILE")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; read again at SIGHUP.")
@click.option("--check", type=click.Path(path_type=Path), help="Only check a configuration file, and run nothing.")
@click.option("--stdout", is_flag=True, help="Log to standard output instead of standard error.")
@click.option("--directory", type=click.Path(path_type=Path), help="Runtime directory, in place of the usual one.")
@click.option(
    "--background", is_flag=True, help="Return when programs can connect; log to irmd.log in the runtime directory."
)
@click.option("--embedded", is_flag=True, hidden=True, help="Behave as the node that programs start by themselves.")
@click.option(
    "--idle-time", default=IDLE_TIME, hidden=True, help="Seconds without programs until an embedded node ends."
)
@click.option("--ready-fd", type=int, hidden=True, help="Descriptor to report on that programs can connect.")
@click.version_option(__version__, "--version")
def irmd(
    *,
    config: Path | None,
    check: Path | None,
    stdout: bool,
    directory: Path | None,
    background: bool,
    embedded: bool,
    idle_time: float,
    ready_fd: int | None,
) -> None:
    """Run an Ouroboros node until it is told to end by SIGTERM or SIGINT.

    Programs find it by its runtime directory: $OUROBOROS_RUNTIME_DIR, else /run/ouroboros for root, else
    $XDG_RUNTIME_DIR/ouroboros. It needs no privileges.
    """
    if check is None:
        fill_standard()
        heed_signals()
        forget_starter()
    if embedded and ready_fd is not None:
        become_independent([ready_fd])
        _become_daemon()
    try:
        if check is not None:
            _check(check)
            return
        where = directory or runtime_dir()
        if background:
            where, config = where.absolute(), config and config.absolute()
            ready_fd = _go_to_background(where)
        _log_to(sys.stdout if stdout else sys.stderr)
        listener, core_files = take_listener(where), keep_out_of_core_files()
        node = Node(where, embedded=embedded, idle_time=idle_time, listener=listener, core_files=core_files)
        _run(node, where, config, ready_fd)
    except OuroborosError as error:
        say(f"irmd: {error}", err=True)
        sys.exit(1)


def main() -> None:
    """Entry point of the `irmd` command."""
    run_command(irmd)


if __name__ == "__main__":
    main()
