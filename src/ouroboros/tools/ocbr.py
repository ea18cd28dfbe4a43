"""The `ocbr` command: sends packets to a name at a constant bit rate, or with `-l` is the server that counts them.

The packets are those of the C prototype's `ocbr`, so either end can be the other's: 8 bytes of sequence, from 0, in the
byte order of the machine, then anything. They go one way, and nothing else goes over the flow.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass

import click

from ouroboros import __version__
from ouroboros.dev import Flow, flow_alloc
from ouroboros.errors import FlowException, FlowNotAllocatedException, FlowTimeoutException
from ouroboros.tools._common import (
    CONTEXT,
    LAYER,
    FlowServer,
    Quantity,
    Tool,
    fail,
    megabits,
    paced,
    parse_rate,
    reason,
    received_line,
    sleep_until,
    spin_until,
)
from ouroboros.tools._output import run_command, say

LARGEST = 524_288

#: Seconds that the client waits for room to send.
SEND_LIMIT = 10.0

_SEQUENCE = struct.Struct("=Q")


# --- packets and figures


def encode_sequence(sequence: int, size: int) -> bytes:
    """The beginning of a packet of `size` bytes: its sequence, or as much of it as there is room for."""
    return _SEQUENCE.pack(sequence)[:size]


def sent_line(packets: int, count: int, seconds: float) -> str:
    """What the client did; `count` is in bytes."""
    return (
        f"sent statistics: {packets:9d} packets, {count:12d} bytes in {int(seconds * 1000):9d} ms, "
        f"{megabits(count, seconds):4.4f} Mb/s"
    )


class Report:
    """Counts what comes over one flow, from report to report. Times are seconds of a monotonic clock."""

    def __init__(self, fd: int, interval: float, now: float) -> None:
        self._fd = fd
        self._interval = interval
        self._start = self._last = now
        self._packets = 0
        self._bytes = 0

    def add(self, packets: list[bytes], now: float) -> str | None:
        """Count packets; the line of a report when one is due."""
        self._last = now
        self._packets += len(packets)
        self._bytes += sum(map(len, packets))
        return self.line(now) if now - self._start >= self._interval else None

    def line(self, now: float) -> str:
        """Report what was counted and begin anew."""
        line = received_line(self._fd, self._packets, self._bytes, now - self._start)
        self._start, self._packets, self._bytes = now, 0, 0
        return line

    def rest(self) -> str | None:
        """The last line, if it has anything to tell; the silence at the end is no part of it."""
        return self.line(self._last) if self._packets else None


# --- client


@dataclass(frozen=True)
class Plan:
    """What the client does. `duration`: seconds. `rate`: bits per second, None to send as fast as it can.
    `layer`: over which, None for any."""

    name: str
    duration: float
    size: int
    rate: float | None
    spin: bool
    layer: str | None = None

    @property
    def interval(self) -> float:
        """Seconds from packet to packet."""
        return self.size * 8 / self.rate if self.rate is not None else 0.0

    def heading(self) -> str:
        rate = "flood" if self.rate is None else f"rate {self.rate:.0f} b/s"
        return f"Client started, duration {self.duration:g}, {rate}, size {self.size} B."


def _run_client(plan: Plan) -> None:
    say(plan.heading())
    try:
        flow = flow_alloc(plan.name, layer=plan.layer)
    except FlowException as error:
        fail(f"Failed to allocate flow: {error}")
    with flow:
        flow.set_snd_timeout(SEND_LIMIT)
        try:
            _send_all(flow, plan)
        except FlowTimeoutException:
            fail(f"Server timed out: it took no packet for {SEND_LIMIT:g} s.")
        except FlowException as error:
            fail(f"The test ended early: {error}")


def _send_all(flow: Flow, plan: Plan) -> None:
    """Send until the time is over, the user interrupts or the flow ends, and say how much was sent."""
    packet = bytearray(plan.size)
    started = time.monotonic()
    sent = 0
    try:
        for sequence in paced(plan.interval, plan.duration, spin_until if plan.spin else sleep_until):
            packet[: _SEQUENCE.size] = encode_sequence(sequence, plan.size)
            flow.write(packet)
            sent += 1
    except KeyboardInterrupt:
        say()
    finally:
        say(sent_line(sent, sent * plan.size, time.monotonic() - started))


# --- server


class Server:
    """Counts what comes over each flow and reports every `interval` seconds; gives one up that is silent for `limit`."""

    def __init__(self, interval: float, limit: float) -> None:
        self._interval = interval
        self._limit = limit

    def run(self) -> None:
        """Serve until the user interrupts."""
        say(f"Server started, interval is {self._interval:g} s, timeout is {self._limit:g} s.")
        FlowServer(self._serve).run()
        say("Server stopped.")

    def _serve(self, flow: Flow, fd: int) -> None:
        say("New flow.")
        flow.set_rcv_timeout(self._limit)
        report = Report(fd, self._interval, time.monotonic())
        how = "was stopped"
        try:
            while True:
                if line := report.add(flow.read_many(), time.monotonic()):
                    say(line)
        except FlowNotAllocatedException:
            pass  # the server stops
        except FlowTimeoutException:
            how = "timed out"
        except FlowException as error:
            how = f"ended{reason(error)}"
        if line := report.rest():
            say(line)
        say(f"Test on flow {fd} {how}")


# --- command line


_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(cls=Tool, instead="did you mean -n {}?", context_settings=CONTEXT)
@click.option("-n", "--name", "--server_apn", "name", help="Name of the server.")
@LAYER
@click.option("-d", "--duration", type=_SECONDS, default=60.0, help="Length of the test, seconds (60).")
@click.option("-s", "--size", type=click.IntRange(1, LARGEST), default=1000, help="Bytes of a packet (1000).")
@click.option("-r", "--rate", type=Quantity("rate", parse_rate), default=1e6, help="Bits per second, k, M or G (1M).")
@click.option("-f", "--flood", is_flag=True, help="Send as fast as it goes, whatever the rate.")
@click.option(
    "--sleep/--spin", default=True, help="Between packets, sleep (default) or stay awake, which is more exact."
)
@click.option("-l", "--listen", is_flag=True, help="Be the server.")
@click.option("-i", "--interval", type=_SECONDS, default=1.0, help="As server, seconds from report to report (1).")
@click.option("-t", "--timeout", type=_SECONDS, default=1.0, help="As server, seconds until a silent flow ends (1).")
@click.version_option(__version__)
def ocbr(
    *,
    name: str | None,
    layer: str | None,
    duration: float,
    size: int,
    rate: float,
    flood: bool,
    sleep: bool,
    listen: bool,
    interval: float,
    timeout: float,
) -> None:
    """Send packets to a name at a constant bit rate."""
    if listen:
        Server(interval, timeout).run()
        return
    if name is None:
        raise click.UsageError("no server given: add -n NAME, or -l to be the server")
    _run_client(Plan(name, duration, size, None if flood else rate, spin=not sleep, layer=layer))


def main() -> None:
    """Entry point of the `ocbr` command."""
    run_command(ocbr)


if __name__ == "__main__":
    main()
