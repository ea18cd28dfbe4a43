"""The `oping` command: measures round trips to a name, or with `-l` is the server that sends every packet back.

The packets are those of the C prototype's `oping`, so either end can be the other's::

    0  type, 0 request, 1 reply (u32, network order)     8  seconds      } the client's clock (i64 each, in the
    4  sequence, from 0 (u32, network order)            16  nanoseconds  } byte order of the client); the rest is zero
"""

from __future__ import annotations

import contextlib
import math
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from ouroboros import __version__
from ouroboros.dev import Flow, FlowProperties, flow_alloc
from ouroboros.errors import FlowDownException, FlowException, FlowTimeoutException, FlowWouldBlockException
from ouroboros.qos import NAMED_SPECS
from ouroboros.tools._common import CONTEXT, LAYER, FlowServer, Quantity, Tool, fail, parse_duration
from ouroboros.tools._output import run_command, say

REQUEST, REPLY = 0, 1
SMALLEST, LARGEST = 64, 1500
MOST_PACKETS = 2**31 - 1

#: Seconds without a packet after which the server gives a flow up.
IDLE_LIMIT = 10.0
#: Seconds beyond the interval that the client waits for a reply.
REPLY_LIMIT = 2.0
#: Longest interval between two packets, seconds.
LONGEST_INTERVAL = 10.0

#: How the client exits when it has no reply to show, and when it came to no ping. As ping does.
NO_REPLY, OTHER_ERROR = 1, 2

_HEAD = struct.Struct("!II")
_CLOCK = struct.Struct("=qq")
_SECOND = 1_000_000_000


# --- packets


@dataclass(frozen=True)
class Ping:
    """What a packet says. `sent`: nanoseconds of the client's monotonic clock."""

    type: int
    sequence: int
    sent: int


def encode_request(sequence: int, now: int, size: int) -> bytes:
    """A request of `size` bytes, stamped with `now` (nanoseconds)."""
    return (_HEAD.pack(REQUEST, sequence) + _CLOCK.pack(*divmod(now, _SECOND))).ljust(size, b"\0")


def encode_reply(request: bytes) -> bytes:
    """The reply to a request: the same packet with another type. The clock is opaque here and goes back as it came."""
    return _HEAD.pack(REPLY, decode(request).sequence) + request[_HEAD.size :]


def decode(packet: bytes) -> Ping:
    """Read a packet; raise `ValueError` when it is too short to be one."""
    if len(packet) < _HEAD.size + _CLOCK.size:
        raise ValueError(f"a packet of {len(packet)} bytes is too short for a ping")
    kind, sequence = _HEAD.unpack_from(packet)
    seconds, nanoseconds = _CLOCK.unpack_from(packet, _HEAD.size)
    return Ping(kind, sequence, seconds * _SECOND + nanoseconds)


# --- figures


def count_for(duration: float, interval: float) -> int:
    """How many packets a run of `duration` seconds has: one per interval, ten per millisecond when that is 0."""
    return max(1, int(round(duration * 1000) * 10 if interval == 0 else duration / interval))


def milliseconds(time_ms: float) -> str:
    """A time for people: milliseconds, or microseconds when it is below 0.1 ms."""
    return f"{time_ms * 1000:.3f} µs" if time_ms < 0.1 else f"{time_ms:.3f} ms"


class Statistics:
    """Counts packets and keeps running figures of the round trips, in milliseconds."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.out_of_order = 0
        self.least = math.inf
        self.most = 0.0
        self.mean = 0.0
        self._square_sum = 0.0  # of the distances to the mean (Welford)
        self._expected = 0

    def add(self, sequence: int, rtt: float) -> bool:
        """Count a reply; whether it came in order."""
        in_order = sequence >= self._expected
        self._expected = max(self._expected, sequence + 1)
        self.out_of_order += not in_order
        self.received += 1
        self.least, self.most = min(self.least, rtt), max(self.most, rtt)
        distance = rtt - self.mean
        self.mean += distance / self.received
        self._square_sum += distance * (rtt - self.mean)
        return in_order

    @property
    def deviation(self) -> float:
        """Sample standard deviation; not a number for fewer than two replies."""
        return math.sqrt(self._square_sum / (self.received - 1)) if self.received > 1 else math.nan

    @property
    def loss(self) -> float:
        """Lost packets, per cent."""
        return 100 * max(0, self.sent - self.received) / self.sent if self.sent else 0.0

    def lines(self, name: str, elapsed: float) -> list[str]:
        """The summary of a run that took `elapsed` milliseconds."""
        lines = [
            f"--- {name} ping statistics ---",
            f"{self.sent} packets transmitted, {self.received} received, {self.out_of_order} out-of-order, "
            f"{self.loss:.3g}% packet loss, time: {elapsed:.3f} ms",
        ]
        if self.received:
            scale, unit = (1000, "µs") if self.mean < 0.1 else (1, "ms")
            figures = [f"{figure * scale:.3f}" for figure in (self.least, self.mean, self.most)]
            figures.append("NaN" if math.isnan(self.deviation) else f"{self.deviation * scale:.3f}")
            lines.append(f"rtt min/avg/max/mdev = {'/'.join(figures)} {unit}")
        return lines


# --- reading


def reader(flow: Flow, limit: float, *, busy: bool) -> Callable[[], bytes]:
    """A function that reads the next packet within `limit` seconds, sleeping or, if `busy`, asking again and again."""
    if not busy:
        flow.set_rcv_timeout(limit)
        return flow.read
    flow.set_flags(flow.get_flags() | FlowProperties.NonBlockingRead)
    return lambda: _read_busily(flow, limit)


def _read_busily(flow: Flow, limit: float) -> bytes:
    deadline = time.monotonic() + limit
    while True:
        try:
            return flow.read()
        except FlowWouldBlockException:
            if time.monotonic() > deadline:
                raise FlowTimeoutException(f"no packet within {limit:g} s") from None


# --- client


@dataclass(frozen=True)
class Plan:
    """What the client does. `layer`: over which, None for any. `interval`: seconds. `flood`: the next packet leaves when the
    reply to the last is here."""

    name: str
    layer: str | None
    count: int
    interval: float
    size: int
    flood: bool
    busy: bool
    quiet: bool
    stamp: bool


class Client:
    """One run over an allocated flow."""

    def __init__(self, flow: Flow, plan: Plan) -> None:
        self.statistics = Statistics()
        self._flow = flow
        self._plan = plan
        self._stop = threading.Event()
        limit = plan.interval + REPLY_LIMIT
        self._read = reader(flow, limit, busy=plan.busy)
        flow.set_snd_timeout(limit)

    def run(self) -> None:
        """Send and receive until all is done, the server is silent, or the user interrupts."""
        started = time.monotonic_ns()
        try:
            if self._plan.flood:
                self._flood()
            else:
                self._ping()
        except FlowTimeoutException:
            say("Server timed out.")
        except FlowDownException as error:
            say(f"Flow to the server is gone: {error}")
        except KeyboardInterrupt:
            say()
        elapsed = (time.monotonic_ns() - started) / 1e6
        say("\n" + "\n".join(self.statistics.lines(self._plan.name, elapsed)))

    def _flood(self) -> None:
        for sequence in range(self._plan.count):
            self._send(sequence)
            while self._receive() != sequence:
                pass

    def _ping(self) -> None:
        sender = threading.Thread(target=self._send_all, name="oping-sender")
        try:
            sender.start()
            while self.statistics.received < self._plan.count:
                self._receive()
        finally:
            self._stop.set()
            # The user may interrupt before this thread knows that the other one runs, which ends all the same.
            with contextlib.suppress(RuntimeError):
                sender.join()

    def _send_all(self) -> None:
        for sequence in range(self._plan.count):
            if self._stop.wait(self._plan.interval):
                return
            try:
                self._send(sequence)
            except FlowException as error:
                if not self._stop.is_set():
                    # The receiving side notices too, at the latest by its time limit, and ends the run.
                    say(f"Sending stopped: {error}", err=True)
                return

    def _send(self, sequence: int) -> None:
        self._flow.write(encode_request(sequence, time.monotonic_ns(), self._plan.size))
        self.statistics.sent += 1

    def _receive(self) -> int | None:
        """Take one packet in; its sequence, or None when it is no reply of this run."""
        packet = self._read()
        now = time.monotonic_ns()
        try:
            ping = decode(packet)
        except ValueError as error:
            say(f"Ignored: {error}.")
            return None
        if ping.type != REPLY or ping.sequence >= self._plan.count:
            say(f"Ignored: a packet of type {ping.type} with sequence {ping.sequence}.")
            return None
        rtt = (now - ping.sent) / 1e6
        in_order = self.statistics.add(ping.sequence, rtt)
        if not self._plan.quiet:
            late = "" if in_order else " [out-of-order]"
            line = f"{len(packet)} bytes from {self._plan.name}: seq={ping.sequence} time={milliseconds(rtt)}{late}"
            say(_stamp() + line if self._plan.stamp else line)
        return ping.sequence


def _stamp() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), _SECOND)
    return f"[{seconds}.{nanoseconds // 1000:06d}] "


def _run_client(plan: Plan, qos: str) -> None:
    try:
        flow = flow_alloc(plan.name, NAMED_SPECS[qos], layer=plan.layer)
    except FlowException as error:
        fail(f"Failed to allocate flow: {error}", OTHER_ERROR)
    with flow:
        packets = f"{plan.count} packets{', busy-poll' if plan.busy else ''}"
        say(f"Pinging {plan.name} with {plan.size} bytes of data ({packets}):\n")
        client = Client(flow, plan)
        client.run()
    if not client.statistics.received:
        sys.exit(NO_REPLY)


# --- server


class Server:
    """Sends requests back, on one thread per flow; with `single`, on one flow at a time and no other thread."""

    def __init__(self, *, quiet: bool, busy: bool, single: bool) -> None:
        self._quiet = quiet
        self._busy = busy
        self._server = FlowServer(self._serve, single=single)

    def run(self) -> None:
        """Serve until the user interrupts."""
        say("Ouroboros ping server started.")
        self._server.run()
        say("Ouroboros ping server stopped.")

    def _serve(self, flow: Flow, fd: int) -> None:
        say(f"New flow {fd}.")
        read = reader(flow, IDLE_LIMIT, busy=self._busy)
        flow.set_snd_timeout(IDLE_LIMIT)
        while True:
            packet = read()
            if not self._quiet:
                say(f"Received {len(packet)} bytes on fd {fd}.")
            try:
                reply = encode_reply(packet)
            except ValueError as error:
                say(f"Ignored on fd {fd}: {error}.")
                continue
            flow.write(reply)


# --- command line


_DURATION = Quantity("duration", parse_duration)


@click.command(cls=Tool, instead="did you mean -n {}?", context_settings=CONTEXT)
@click.option("-n", "--name", "--server-name", "name", help="Name of the server.")
@LAYER
@click.option("-c", "--count", type=click.IntRange(1, MOST_PACKETS), default=MOST_PACKETS, help="Number of packets.")
@click.option("-i", "--interval", type=_DURATION, default=1.0, help="Between packets, at most 10 s (1000 ms).")
@click.option("-d", "--duration", type=_DURATION, help="Length of the run; the count follows from the interval.")
@click.option("-s", "--size", type=click.IntRange(SMALLEST, LARGEST), default=64, help="Bytes of a packet (64).")
@click.option("-q", "--qos", type=click.Choice(list(NAMED_SPECS)), default="raw", help="QoS of the flow (raw).")
@click.option("-f", "--flood", is_flag=True, help="Send the next packet as soon as the reply is here.")
@click.option("-F", "--flood-busy", is_flag=True, help="As -f, and never sleep while waiting.")
@click.option("-Q", "--quiet", is_flag=True, help="Print the summary only; as server, do not print each packet.")
@click.option(
    "-D", "--timestamp", "--timeofday", "timestamp", is_flag=True, help="Print the time of day before each line."
)
@click.option("-l", "--listen", is_flag=True, help="Be the server.")
@click.option("--poll", is_flag=True, help="As server, never sleep while waiting.")
@click.option("--busy", is_flag=True, help="As --poll, on one flow at a time.")
@click.version_option(__version__)
def oping(
    *,
    name: str | None,
    layer: str | None,
    count: int,
    interval: float,
    duration: float | None,
    size: int,
    qos: str,
    flood: bool,
    flood_busy: bool,
    quiet: bool,
    timestamp: bool,
    listen: bool,
    poll: bool,
    busy: bool,
) -> None:
    """Measure round trips to a name. Durations have a unit, ms, s, m, h or d; a bare number is milliseconds."""
    if listen:
        Server(quiet=quiet, busy=poll or busy, single=busy).run()
        return
    if name is None:
        raise click.UsageError("no server given: add -n NAME, or -l to be the server")
    interval = 0.0 if flood or flood_busy else min(interval, LONGEST_INTERVAL)
    if duration is not None:
        count = min(count, count_for(duration, interval))
    plan = Plan(name, layer, count, interval, size, flood or flood_busy, flood_busy, quiet, timestamp)
    _run_client(plan, qos)


def main() -> None:
    """Entry point of the `oping` command."""
    run_command(oping)


if __name__ == "__main__":
    main()
