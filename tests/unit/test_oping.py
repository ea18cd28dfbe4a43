"""What `oping` puts on the wire and into its summary. No flow takes part."""

from __future__ import annotations

import math
import sys
import threading
from typing import cast

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.dev import Flow
from ouroboros.errors import FlowDownException
from ouroboros.tools import oping
from ouroboros.tools.oping import (
    REPLY,
    REQUEST,
    Client,
    Ping,
    Plan,
    Statistics,
    count_for,
    decode,
    encode_reply,
    encode_request,
    milliseconds,
)

# Captured between two C prototypes on little-endian machines: sequence 0, sent 2028 s and 888 892 572 ns after boot.
CAPTURED_REQUEST = bytes.fromhex("00000000 00000000 ec07000000000000 9c6cfb3400000000").ljust(64, b"\0")
CAPTURED_REPLY = bytes.fromhex("00000001 00000000 ec07000000000000 9c6cfb3400000000").ljust(64, b"\0")
CAPTURED_TIME = 2028 * 10**9 + 0x34FB6C9C

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the capture is from little-endian machines")


@little_endian
def test_a_request_is_the_captured_one() -> None:
    assert encode_request(0, CAPTURED_TIME, 64) == CAPTURED_REQUEST


@little_endian
def test_a_reply_is_the_captured_one() -> None:
    assert encode_reply(CAPTURED_REQUEST) == CAPTURED_REPLY


@little_endian
def test_the_captured_packets_are_read() -> None:
    assert decode(CAPTURED_REQUEST) == Ping(REQUEST, 0, CAPTURED_TIME)
    assert decode(CAPTURED_REPLY) == Ping(REPLY, 0, CAPTURED_TIME)


def test_type_and_sequence_are_in_network_order() -> None:
    assert encode_request(258, 0, 64)[:8] == bytes.fromhex("00000000 00000102")


def test_a_reply_keeps_the_clock_and_the_rest_untouched() -> None:
    request = encode_request(7, 1, 24) + bytes(range(100))
    assert encode_reply(request)[8:] == request[8:]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**62), st.integers(64, 1500))
def test_what_is_encoded_is_read_back(sequence: int, now: int, size: int) -> None:
    packet = encode_request(sequence, now, size)
    assert len(packet) == size
    assert decode(packet) == Ping(REQUEST, sequence, now)
    assert decode(encode_reply(packet)) == Ping(REPLY, sequence, now)


@given(st.binary(max_size=23))
def test_a_short_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match="too short"):
        decode(packet)


@pytest.mark.parametrize(
    ("duration", "interval", "count"), [(10, 1, 10), (1, 0.25, 4), (0.1, 1, 1), (2, 0, 20_000), (0, 0, 1)]
)
def test_count_of_a_duration(duration: float, interval: float, count: int) -> None:
    assert count_for(duration, interval) == count


def test_times_below_a_tenth_of_a_millisecond_are_in_microseconds() -> None:
    assert milliseconds(0.673) == "0.673 ms"
    assert milliseconds(0.1) == "0.100 ms"
    assert milliseconds(0.0234) == "23.400 µs"


def test_summary_as_the_c_prototype_prints_it() -> None:
    statistics = Statistics()
    statistics.sent = 2
    assert statistics.add(0, 0.673)
    assert statistics.add(1, 0.251)
    assert statistics.lines("oping", 20.726) == [
        "--- oping ping statistics ---",
        "2 packets transmitted, 2 received, 0 out-of-order, 0% packet loss, time: 20.726 ms",
        "rtt min/avg/max/mdev = 0.251/0.462/0.673/0.298 ms",
    ]


def test_summary_of_one_fast_packet_has_no_deviation() -> None:
    statistics = Statistics()
    statistics.sent = 1
    statistics.add(0, 0.02)
    assert statistics.lines("oping", 1)[-1] == "rtt min/avg/max/mdev = 20.000/20.000/20.000/NaN µs"


def test_summary_of_total_loss_has_no_round_trips() -> None:
    statistics = Statistics()
    statistics.sent = 3
    assert statistics.lines("oping", 5000) == [
        "--- oping ping statistics ---",
        "3 packets transmitted, 0 received, 0 out-of-order, 100% packet loss, time: 5000.000 ms",
    ]


def test_summary_of_nothing_sent_is_no_loss() -> None:
    assert "0 packets transmitted, 0 received, 0 out-of-order, 0% packet loss" in Statistics().lines("oping", 0)[1]


def test_a_reply_behind_a_later_one_is_out_of_order() -> None:
    statistics = Statistics()
    assert [statistics.add(sequence, 1.0) for sequence in (0, 2, 1, 3)] == [True, True, False, True]
    assert statistics.out_of_order == 1


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=50))
def test_running_figures_are_those_of_the_whole_list(times: list[float]) -> None:
    statistics = Statistics()
    for sequence, rtt in enumerate(times):
        statistics.add(sequence, rtt)
    mean = sum(times) / len(times)
    variance = sum((rtt - mean) ** 2 for rtt in times) / (len(times) - 1)
    assert (statistics.least, statistics.most) == (min(times), max(times))
    assert statistics.mean == pytest.approx(mean)
    assert statistics.deviation == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "add -n NAME, or -l"),
        ("-n oping -s 63", "64<=x<=1500"),
        ("-n oping -i soon", "'soon' is no duration"),
        ("-n oping -q fast", "'fast' is not one of"),
        ("-n oping -c 0", "1<=x<="),
    ],
)
def test_wrong_options_are_named(line: str, text: str) -> None:
    result = CliRunner().invoke(oping.oping, line.split())
    assert result.exit_code == click.UsageError.exit_code
    assert text in result.output


class _Closing:
    """A flow that is given back while its first packet is written: when the client stops."""

    client: Client
    written = 0

    def set_snd_timeout(self, _seconds: float) -> None:
        """As that of a flow."""

    set_rcv_timeout = set_snd_timeout

    def read(self) -> bytes:
        raise AssertionError("the user interrupts before that")

    def write(self, _packet: bytes) -> None:
        self.written += 1
        assert threading.Event.wait(self.client._stop, 60)
        raise FlowDownException("it is given back")


@pytest.mark.parametrize("is_known", [True, False])
def test_an_interrupt_while_the_sender_starts_ends_it_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_known: bool
) -> None:
    """`is_known`: the thread that starts it knows already that it runs."""
    flow, threads, start = _Closing(), list[threading.Thread](), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        if is_known:
            start(thread)
        raise KeyboardInterrupt

    plan = Plan("clock", None, 9, 0.0, 64, flood=False, busy=False, quiet=True, stamp=False)
    flow.client = client = Client(cast(Flow, flow), plan)
    monkeypatch.setattr(client._stop, "wait", lambda _seconds: False)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        client.run()
    if not is_known:
        start(threads[0])
    threads[0].join()
    assert (flow.written, client.statistics.sent, capsys.readouterr().err) == (1, 0, "")
