"""Where the tools write to: readable in every encoding, and the end of a tool when nobody can read it."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, ClassVar, NoReturn, TextIO

if TYPE_CHECKING:
    import click
    from _typeshed import ReadableBuffer


class OutputLost(Exception):
    """Standard output or standard error takes no more. Only `run` handles it."""


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line, to standard error if `err`. It has left this process when this returns."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def run(tool: Callable[[], int | None]) -> NoReturn:
    """Run a tool and exit with the status that it returns.

    A character that the output has no code for is written as an escape. When the reader of the output has gone, the tool
    ends as a program in C does, by SIGPIPE; when the output fails otherwise, with a sentence and status 1. In both cases
    the tool first lets go of what it holds, whichever thread was writing.
    """
    sys.stdout, sys.stderr = _standard(sys.stdout, "standard output"), _standard(sys.stderr, "standard error")
    # The interpreter ignores it. So do we, as long as it is a socket that has lost its other end.
    signal.signal(signal.SIGPIPE, _stop_main_thread)
    status: int | None = 1
    try:
        status = tool()
    except OutputLost:
        pass
    except KeyboardInterrupt:
        say("Aborted!", err=True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if _Descriptor.failure is not None:
        _end(*_Descriptor.failure)
    sys.exit(status)


def run_command(command: click.Command) -> NoReturn:
    """`run` for a command of click, which has its own ways with outputs."""
    run(lambda: _invoke(command))


def _invoke(command: click.Command) -> int | None:
    # Here, because irm does without.
    import click

    try:
        status = command(standalone_mode=False)
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.Abort:
        say("Aborted!", err=True)
        return 1
    return status if isinstance(status, int) else None


def _end(what: str, error: OSError) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
        os.kill(os.getpid(), signal.SIGPIPE)
    say(f"Cannot write to {what}: {error.strerror}", err=True)
    sys.exit(1)


class _Descriptor(io.FileIO):
    """A descriptor to write to. When it fails, the main thread gets an `OutputLost` and what comes later is thrown away."""

    #: What failed first, and how.
    failure: ClassVar[tuple[str, OSError] | None] = None

    def __init__(self, number: int, name: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._what = name
        self._failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._failed:
            try:
                # It may be a terminal that another program has made non-blocking.
                while (written := super().write(data)) is None:
                    select.select([], [self], [])
                return written
            except OSError as error:
                self._fail(error)
        return memoryview(data).nbytes

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if _Descriptor.failure is not None:
            return
        _Descriptor.failure = self._what, error
        if threading.current_thread() is threading.main_thread():
            _lose_once()
        # It may be waiting for something else, such as the next flow.
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, signal.SIGPIPE)


def _stop_main_thread(_number: int, _frame: FrameType | None) -> None:
    if _Descriptor.failure is not None:
        _lose_once()


def _lose_once() -> NoReturn:
    # A second time would be in the midst of letting go.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    raise OutputLost


def _standard(stream: TextIO | None, name: str) -> TextIO:
    if stream is None:
        # Closed at the start. The place stays taken, whatever becomes of the stream.
        return open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    stream.flush()
    raw = _Descriptor(stream.fileno(), name)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=True)
