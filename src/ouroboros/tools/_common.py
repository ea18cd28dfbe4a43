"""What the tools that use flows share: how they read their options, end, accept flows and keep time."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from ouroboros.dev import Flow, flow_accept
from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowTimeoutException,
    OuroborosError,
    ProtocolError,
)
from ouroboros.tools._output import say

#: For `click.command`: every tool answers to -h as well.
CONTEXT = {"help_option_names": ["-h", "--help"]}


class Tool(click.Command):
    """A command all of whose words belong to options. `instead`: what to say for a bare word, such as `oping kv`."""

    def __init__(self, *args: Any, instead: str, **kwargs: Any) -> None:  # noqa: ANN401 - what click gives
        super().__init__(*args, **kwargs)
        self._instead = instead

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            ctx.fail(f"{rest[0]!r} belongs to no option: {self._instead.format(rest[0])}")
        return rest


#: For clients: the layer that is to carry the flow.
LAYER = click.option("--layer", metavar="LAYER", help="Over this layer (default: the first that leads to the name).")

_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def fail(text: str, status: int = 1) -> NoReturn:
    """Say what happened and exit with that status."""
    say(text, err=True)
    sys.exit(status)


# --- texts in packets


def text_of(message: bytes) -> str:
    """The text of a packet, up to the NUL that ends it in the C prototype's tools."""
    return message.split(b"\0", 1)[0].decode(errors="replace")


# --- options


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `250ms`, `1.5s`, `2m`, `1h` or `1d`; a bare number is milliseconds.

    Raises `ValueError` when it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no duration: give a number and a unit, ms, s, m, h or d, such as 250ms")
    return float(match[1]) * _TIME_UNITS[match[2] or "ms"]


def parse_rate(text: str, bare: float = 1.0) -> float:
    """Bits per second in a rate such as `64k`, `1.5M` or `10G`; a bare number counts units of `bare`.

    Raises `ValueError` when it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG])?", text, re.ASCII)
    if match is None or float(match[1]) == 0:
        raise ValueError(
            f"{text!r} is no rate: give a number above 0 and a unit, k, M or G bits per second, such as 10M"
        )
    return float(match[1]) * (_RATE_UNITS[match[2]] if match[2] else bare)


class Quantity(click.ParamType[float]):
    """An option that `parse` reads and that is a number afterwards."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


# --- figures


def megabits(count: int, seconds: float) -> float:
    """Millions of bits per second, for that many bytes."""
    return count * 8 / seconds / 1e6 if seconds > 0 else 0.0


def received_line(fd: int, packets: int, count: int, seconds: float) -> str:
    """What came over a flow in that time; `count` is in bytes."""
    rate = packets / seconds if seconds > 0 else 0.0
    return (
        f"Flow {fd:4d}: {packets:9d} packets ({count:12d} bytes) in {int(seconds * 1000):9d} ms => "
        f"{rate:9.4f} pps, {megabits(count, seconds):9.4f} Mbps"
    )


# --- pace


def paced(
    interval: float, duration: float, wait: Callable[[float], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[int]:
    """Count from 0: number n comes when `n * interval` seconds have passed, until `duration` seconds have.

    `wait` is called with the time to wait for. Who comes late is not put off: the average rate stays as asked for.
    """
    start = clock()
    end = start + duration
    for number in itertools.count():
        due = start + number * interval
        if due > clock():
            # Also after the last one, whose share of the time belongs to the run.
            wait(min(due, end))
        if due >= end or clock() >= end:
            return
        yield number


def sleep_until(due: float) -> None:
    """Sleep until that time of the monotonic clock."""
    threading.Event().wait(max(0.0, due - time.monotonic()))


def spin_until(due: float) -> None:
    """Stay awake until that time of the monotonic clock."""
    while time.monotonic() < due:
        pass


# --- servers


def reason(error: OuroborosError) -> str:
    """Why a flow ended, to be put behind that word; a client that is done deallocates, which needs no explanation."""
    if isinstance(error, FlowDownException) and not isinstance(error, FlowPeerException):
        return " by the client"
    return f": {error}"


class FlowServer:
    """Accepts flows and gives each to `serve` on a thread of its own; with `single`, one at a time on this thread.

    `serve` gets the flow and its id, and ends by returning or by the exception that its flow ends with.
    """

    def __init__(self, serve: Callable[[Flow, int], None], *, single: bool = False) -> None:
        self._serve = serve
        self._single = single
        self._running: dict[Flow, threading.Thread | None] = {}

    def run(self) -> None:
        """Accept flows until the user interrupts; then deallocate them, so that no client has to wait."""
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    self._start(flow_accept())
        except FlowException as error:
            fail(f"Cannot accept flows: {error}")
        finally:
            self._end()

    def _start(self, flow: Flow) -> None:
        thread = None
        if not self._single:
            thread = threading.Thread(target=self._run, args=(flow,), daemon=True, name=f"flow-{flow.flow_id}")
        self._running[flow] = thread
        if thread is None:
            self._run(flow)
            return
        try:
            thread.start()
        except RuntimeError as error:
            # The limit of processes; the other flows go on.
            del self._running[flow]
            flow.dealloc()
            say(f"Flow {flow.flow_id} is let go: {error}.")

    def _run(self, flow: Flow) -> None:
        fd = flow.flow_id
        try:
            with flow:
                self._serve(flow, fd)
        except FlowTimeoutException:
            say(f"Flow {fd} timed out.")
        except FlowNotAllocatedException:
            pass  # _end() deallocated it: the server stops
        except (FlowException, ProtocolError) as error:
            say(f"Flow {fd} ended{reason(error)}.")
        finally:
            self._running.pop(flow, None)

    def _end(self) -> None:
        for flow, thread in list(self._running.items()):
            flow.dealloc()
            if thread is not None:
                thread.join()
