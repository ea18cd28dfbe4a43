"""The `operf` command: sends packets to a name at a rate, or with `-l` is the server that counts or returns them.

The packets are those of the C prototype's `operf`, so either end can be the other's (numbers in the byte order of the
machine)::

    first packet   0  test, 0 unidirectional, 1 bidirectional (u32), and nothing else
    data           0  sequence, from 0 (u32); the rest is zero

In a bidirectional test the server returns every data packet as it is.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import click

from ouroboros import __version__
from ouroboros.dev import Flow, FlowProperties, flow_alloc
from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowTimeoutException,
    FlowWouldBlockException,
    ProtocolError,
)
from ouroboros.tools._common import (
    CONTEXT,
    LAYER,
    FlowServer,
    Quantity,
    Tool,
    fail,
    megabits,
    paced,
    parse_duration,
    parse_rate,
    received_line,
    sleep_until,
    spin_until,
)
from ouroboros.tools._output import run_command, say

SMALLEST, LARGEST = 64, 1 << 20

#: Seconds between the first packet and the data, as the C prototype's client waits.
SETTLE_TIME = 1.0
#: Seconds without a packet after which the server gives a flow up.
IDLE_LIMIT = 1.0
#: Seconds that the server waits for the first data packet: a client waits before it sends.
START_LIMIT = SETTLE_TIME + IDLE_LIMIT
#: Seconds that the client waits for room to send, and for the next of the last replies.
REPLY_LIMIT = 2.0

_NUMBER = struct.Struct("=I")


class Mode(IntEnum):
    """Which way the data of a test goes."""

    UNIDIRECTIONAL = 0
    BIDIRECTIONAL = 1

    @property
    def word(self) -> str:
        return self.name.lower()


# --- packets


def encode_mode(mode: Mode) -> bytes:
    """The first packet of a flow."""
    return _NUMBER.pack(mode)


def decode_mode(packet: bytes) -> Mode:
    """Read the first packet of a flow; raise `ProtocolError` when it is none."""
    if len(packet) != _NUMBER.size:
        raise ProtocolError(f"the first packet has {len(packet)} bytes; {_NUMBER.size} with the test were expected")
    (number,) = _NUMBER.unpack(packet)
    try:
        return Mode(number)
    except ValueError:
        raise ProtocolError(f"the client asks for test {number}; there are 0 and 1") from None


def number_packet(packet: bytearray, sequence: int) -> None:
    """Put a sequence into a data packet; after the largest comes 0."""
    _NUMBER.pack_into(packet, 0, sequence & 0xFFFFFFFF)


def decode_sequence(packet: bytes) -> int:
    """The sequence of a data packet; raise `ProtocolError` when it is too short to have one."""
    if len(packet) < _NUMBER.size:
        raise ProtocolError(f"a packet of {len(packet)} bytes is too short for a sequence")
    (sequence,) = _NUMBER.unpack_from(packet)
    return int(sequence)


# --- client


@dataclass(frozen=True)
class Plan:
    """What the client does. `duration`: seconds. `rate`: bits per second, None to send as fast as it can.
    `layer`: over which, None for any."""

    name: str
    mode: Mode
    duration: float
    size: int
    rate: float | None
    sleep: bool
    layer: str | None = None

    @property
    def interval(self) -> float:
        """Seconds from packet to packet."""
        return self.size * 8 / self.rate if self.rate is not None else 0.0

    def heading(self) -> str:
        if self.rate is None:
            return f"Flooding {self.name} with {self.size} byte packets for {self.duration:g} seconds."
        return f"Sending {self.size} byte packets for {self.duration:g} s to {self.name} at {self.rate / 1e6:.3f} Mb/s."


def sent_summary(name: str, size: int, sent: int, seconds: float) -> list[str]:
    """What the client prints after a unidirectional test; the server prints what arrived."""
    return [
        f"--- {name} perf statistics ---",
        f"{sent} packets transmitted, {sent * size} bytes, time: {seconds * 1e3:.3f} ms, "
        f"bandwidth: {megabits(sent * size, seconds):.3f} Mb/s.",
    ]


def summary(name: str, size: int, sent: int, received: int, seconds: float) -> list[str]:
    """What the client prints after a bidirectional test."""
    loss = 100 * max(0, sent - received) / sent if sent else 0.0
    return [
        f"--- {name} perf statistics ---",
        f"{sent} packets transmitted, {received} received, {loss:.3g}% packet loss, time: {seconds * 1e3:.3f} ms, "
        f"bandwidth: {megabits(received * size, seconds):.3f} Mb/s.",
    ]


class Client:
    """One test over an allocated flow.

    Everything happens on one thread: a second one for the replies would take turns with it for the interpreter.
    """

    def __init__(self, flow: Flow, plan: Plan) -> None:
        self.sent = 0
        self.received = 0
        self.interrupted = False
        self._flow = flow
        self._plan = plan
        self._packet = bytearray(plan.size)
        self._both_ways = plan.mode is Mode.BIDIRECTIONAL
        self._poll = select.poll()
        self._last = 0.0

    def run(self) -> None:
        """Send until the time is over or the user interrupts. Raises `FlowException` when the flow ends before."""
        say(f"Doing a {self._plan.mode.word} test.")
        self._flow.set_snd_timeout(REPLY_LIMIT)
        self._flow.write(encode_mode(self._plan.mode))
        sleep_until(time.monotonic() + SETTLE_TIME)
        started = self._last = time.monotonic()
        try:
            say(self._plan.heading())
            self._send_all()
        except KeyboardInterrupt:
            self.interrupted = True
            say()
        finally:
            say("Test finished.")
            say("\n".join(self._summary(started)))

    def _summary(self, started: float) -> list[str]:
        plan = self._plan
        if not self._both_ways:
            return sent_summary(plan.name, plan.size, self.sent, time.monotonic() - started)
        # A server that is gone may have left replies.
        with contextlib.suppress(FlowException):
            while self._take():
                pass
        return summary(plan.name, plan.size, self.sent, self.received, self._last - started)

    def _send_all(self) -> None:
        send = self._send_and_take if self._both_ways else self._flow.write
        if self._both_ways:
            self._flow.set_flags(self._flow.get_flags() | FlowProperties.NonBlocking)
            self._poll.register(self._flow.fileno(), select.POLLIN)
        for sequence in paced(self._plan.interval, self._plan.duration, self._wait()):
            number_packet(self._packet, sequence)
            send(self._packet)
            self.sent += 1
        self._last = time.monotonic()
        if self._both_ways:
            self._take_the_last()

    def _wait(self) -> Callable[[float], None]:
        if self._both_ways:
            return partial(self._take_until, sleep=self._plan.sleep)
        return sleep_until if self._plan.sleep else spin_until

    def _send_and_take(self, packet: bytearray) -> None:
        """Send without blocking: a server that waits until we take a packet takes none itself."""
        deadline = 0.0
        while True:
            try:
                self._flow.write(packet)
                break
            except FlowWouldBlockException:
                now = time.monotonic()
                deadline = deadline or now + REPLY_LIMIT
                if now > deadline:
                    raise FlowTimeoutException(f"the server took no packet for {REPLY_LIMIT:g} s") from None
                self._poll.poll(1)
                self._take()
        if self._flow.get_rx_queue_len():
            self._take()

    def _take(self) -> bool:
        """Take the replies that are there; whether there was one."""
        try:
            packets = self._flow.read_many()
        except FlowWouldBlockException:
            return False
        self.received += len(packets)
        self._last = time.monotonic()
        return True

    def _take_until(self, due: float, *, sleep: bool) -> None:
        while (left := due - time.monotonic()) > 0:
            # Whole milliseconds are too coarse for the last of them.
            if sleep and left < 0.001:
                sleep_until(due)
            elif self._poll.poll(int(left * 1000) if sleep else 0):
                self._take()

    def _take_the_last(self) -> None:
        # A server that goes now costs replies, but does not fail the test.
        with contextlib.suppress(FlowDownException):
            while self.received < self.sent and self._poll.poll(REPLY_LIMIT * 1000):
                self._take()


def _run_client(plan: Plan) -> None:
    try:
        flow = flow_alloc(plan.name, layer=plan.layer)
    except FlowException as error:
        fail(f"Failed to allocate flow: {error}")
    with flow:
        client = Client(flow, plan)
        try:
            client.run()
        except FlowTimeoutException as error:
            fail(f"Server timed out: {error}")
        except FlowException as error:
            fail(f"The test ended early: {error}")
        except KeyboardInterrupt:
            fail("Interrupted before the first packet.")
    if plan.mode is Mode.BIDIRECTIONAL and not client.received and not client.interrupted:
        fail("No packet came back.")


# --- server


def _serve(flow: Flow, fd: int) -> None:
    say(f"New flow {fd}.")
    flow.set_rcv_timeout(IDLE_LIMIT)
    flow.set_snd_timeout(IDLE_LIMIT)
    mode = decode_mode(flow.read())
    say(f"Doing a {mode.word} test.")
    flow.set_rcv_timeout(START_LIMIT)
    take = partial(_print, fd) if mode is Mode.UNIDIRECTIONAL else flow.write
    packet = flow.read()
    flow.set_rcv_timeout(IDLE_LIMIT)
    packets = count = 0
    # The silence at the end is no part of it.
    first = last = time.monotonic()
    try:
        while True:
            packets += 1
            count += len(packet)
            take(packet)
            last = time.monotonic()
            packet = flow.read()
    finally:
        say(received_line(fd, packets, count, last - first))


def _print(fd: int, packet: bytes) -> None:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    say(f"Seqno {decode_sequence(packet)} from fd {fd}: {seconds}.{nanoseconds // 1000:06d}")


# --- command line


_DURATION = Quantity("duration", parse_duration)
_RATE = Quantity("rate", partial(parse_rate, bare=1000.0))


@click.command(cls=Tool, instead="did you mean -n {}?", context_settings=CONTEXT)
@click.option("-n", "--name", "--server-name", "name", help="Name of the server.")
@LAYER
@click.option("-t", "--test", type=click.Choice(["uni", "bi"]), default="uni", help="One way, or there and back (uni).")
@click.option("-d", "--duration", type=_DURATION, default=60.0, help="Length of the test (60s).")
@click.option("-r", "--rate", type=_RATE, default=1e6, help="Bits per second, k, M or G; kilobits without unit (1M).")
@click.option("-s", "--size", type=click.IntRange(SMALLEST, LARGEST), default=1500, help="Bytes of a packet (1500).")
@click.option("-f", "--flood", is_flag=True, help="Send as fast as it goes, whatever the rate.")
@click.option("--sleep", is_flag=True, help="Sleep between packets, which is less exact than staying awake.")
@click.option("-l", "--listen", is_flag=True, help="Be the server.")
@click.version_option(__version__)
def operf(
    *,
    name: str | None,
    layer: str | None,
    test: str,
    duration: float,
    rate: float,
    size: int,
    flood: bool,
    sleep: bool,
    listen: bool,
) -> None:
    """Send packets to a name. Durations have a unit, ms, s, m, h or d; a bare number is milliseconds."""
    if listen:
        say("Ouroboros perf server started.")
        FlowServer(_serve).run()
        say("Ouroboros perf server stopped.")
        return
    if name is None:
        raise click.UsageError("no server given: add -n NAME, or -l to be the server")
    mode = Mode.BIDIRECTIONAL if test == "bi" else Mode.UNIDIRECTIONAL
    _run_client(Plan(name, mode, duration, size, None if flood else rate, sleep, layer))


def main() -> None:
    """Entry point of the `operf` command."""
    run_command(operf)


if __name__ == "__main__":
    main()
