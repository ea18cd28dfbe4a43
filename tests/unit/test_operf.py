"""What `operf` puts on the wire, and what it says. No flow takes part."""

from __future__ import annotations

import sys

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import ProtocolError
from ouroboros.tools import operf
from ouroboros.tools.operf import (
    Mode,
    Plan,
    decode_mode,
    decode_sequence,
    encode_mode,
    number_packet,
    sent_summary,
    summary,
)

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of little-endian machines")


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "name": "operf",
        "mode": Mode.UNIDIRECTIONAL,
        "duration": 2.0,
        "size": 1500,
        "rate": 1e6,
        "sleep": False,
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


# --- packets


@little_endian
@pytest.mark.parametrize(("mode", "packet"), [(Mode.UNIDIRECTIONAL, "00000000"), (Mode.BIDIRECTIONAL, "01000000")])
def test_the_first_packet_is_the_test_and_nothing_else(mode: Mode, packet: str) -> None:
    assert encode_mode(mode) == bytes.fromhex(packet)
    assert decode_mode(bytes.fromhex(packet)) is mode


@pytest.mark.parametrize("packet", [b"", b"\0\0\0", bytes(5), bytes(64)])
def test_a_first_packet_of_another_length_is_the_clients_fault(packet: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"has {len(packet)} bytes"):
        decode_mode(packet)


def test_an_unknown_test_is_the_clients_fault() -> None:
    with pytest.raises(ProtocolError, match="test 2"):
        decode_mode((2).to_bytes(4, sys.byteorder))


@little_endian
def test_a_data_packet_is_its_sequence_and_zeros() -> None:
    packet = bytearray(64)
    number_packet(packet, 258)
    assert bytes(packet) == bytes.fromhex("02010000") + bytes(60)


@given(st.integers(0, 2**40), st.integers(64, 2000))
def test_a_sequence_is_read_back_and_begins_anew_after_the_largest(sequence: int, size: int) -> None:
    packet = bytearray(size)
    number_packet(packet, sequence)
    assert len(packet) == size
    assert decode_sequence(bytes(packet)) == sequence % 2**32


@given(st.binary(max_size=3))
def test_a_packet_without_room_for_a_sequence_is_the_clients_fault(packet: bytes) -> None:
    with pytest.raises(ProtocolError, match="too short"):
        decode_sequence(packet)


# --- words and figures


def test_headings_as_the_c_prototype_prints_them() -> None:
    assert plan().heading() == "Sending 1500 byte packets for 2 s to operf at 1.000 Mb/s."
    assert plan(size=100, rate=None).heading() == "Flooding operf with 100 byte packets for 2 seconds."
    assert [mode.word for mode in Mode] == ["unidirectional", "bidirectional"]


def test_the_interval_keeps_the_rate() -> None:
    assert plan().interval == pytest.approx(0.012)
    assert plan(rate=None).interval == 0.0


def test_summary_as_the_c_prototype_prints_it() -> None:
    assert summary("operf", 1250, 200, 150, 2.0) == [
        "--- operf perf statistics ---",
        "200 packets transmitted, 150 received, 25% packet loss, time: 2000.000 ms, bandwidth: 0.750 Mb/s.",
    ]


def test_summary_of_what_was_sent() -> None:
    assert sent_summary("operf", 1250, 200, 2.0) == [
        "--- operf perf statistics ---",
        "200 packets transmitted, 250000 bytes, time: 2000.000 ms, bandwidth: 1.000 Mb/s.",
    ]
    assert sent_summary("operf", 64, 0, 0.0)[1].endswith("bandwidth: 0.000 Mb/s.")


def test_summary_of_nothing_divides_by_nothing() -> None:
    assert summary("operf", 64, 0, 0, 0.0)[1].startswith("0 packets transmitted, 0 received, 0% packet loss")


# --- options


def chosen(line: str, monkeypatch: pytest.MonkeyPatch) -> Plan:
    plans: list[Plan] = []
    monkeypatch.setattr(operf, "_run_client", plans.append)
    result = CliRunner().invoke(operf.operf, line.split())
    assert result.exit_code == 0, result.output
    return plans[0]


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("-n operf", monkeypatch) == plan(duration=60.0)


def test_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plan(name="a", mode=Mode.BIDIRECTIONAL, duration=1.5, size=64, rate=2e6, sleep=True)
    assert chosen("-n a -t bi -d 1500 -s 64 -r 2M --sleep", monkeypatch) == expected
    assert chosen("-n a -t bi -d 1.5s -s 64 -r 2000 --sleep", monkeypatch) == expected
    assert chosen("-n a -f -r 5G", monkeypatch).rate is None


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "add -n NAME, or -l"),
        ("-n a -s 63", "64<=x<=1048576"),
        ("-n a -s 1048577", "64<=x<=1048576"),
        ("-n a -d soon", "'soon' is no duration"),
        ("-n a -r fast", "'fast' is no rate"),
        ("-n a -r 0", "'0' is no rate"),
        ("-n a -t tri", "'tri' is not one of"),
    ],
)
def test_wrong_options_are_named(line: str, text: str) -> None:
    result = CliRunner().invoke(operf.operf, line.split())
    assert result.exit_code == click.UsageError.exit_code
    assert text in result.output
