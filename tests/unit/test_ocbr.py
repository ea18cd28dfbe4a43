"""What `ocbr` puts on the wire, and what it says. No flow takes part."""

from __future__ import annotations

import sys

import click
import pytest
from click.testing import CliRunner

from ouroboros.tools import ocbr
from ouroboros.tools._common import received_line
from ouroboros.tools.ocbr import Plan, Report, encode_sequence, sent_line

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of little-endian machines")


@little_endian
def test_a_packet_begins_with_its_sequence() -> None:
    assert encode_sequence(0, 1000) == bytes(8)
    assert encode_sequence(0x0102, 1000) == bytes.fromhex("0201000000000000")


@little_endian
def test_a_small_packet_has_as_much_of_the_sequence_as_fits() -> None:
    assert encode_sequence(0x01020304, 2) == bytes.fromhex("0403")


def test_lines_as_the_c_prototype_prints_them() -> None:
    assert sent_line(25, 25_000, 2.0183) == (
        "sent statistics:        25 packets,        25000 bytes in      2018 ms, 0.0991 Mb/s"
    )
    assert received_line(64, 15, 15_000, 1.055661) == (
        "Flow   64:        15 packets (       15000 bytes) in      1055 ms =>   14.2091 pps,    0.1137 Mbps"
    )
    plan = Plan("ocbr", 2.0, 1000, 100e3, spin=False)
    assert plan.heading() == "Client started, duration 2, rate 100000 b/s, size 1000 B."
    assert plan.interval == pytest.approx(0.08)


def test_a_flood_has_no_rate() -> None:
    plan = Plan("ocbr", 2.0, 1000, None, spin=False)
    assert plan.heading() == "Client started, duration 2, flood, size 1000 B."
    assert plan.interval == 0.0


def test_lines_of_nothing_divide_by_nothing() -> None:
    assert "0 packets" in sent_line(0, 0, 0.0)
    assert "0.0000 pps" in received_line(64, 0, 0, 0.0)


def test_a_report_is_due_after_each_interval_and_counts_from_the_last() -> None:
    report = Report(64, 1.0, now=10.0)
    assert report.add([b"12", b"3"], 10.5) is None
    assert report.add([b"45"], 11.0) == received_line(64, 3, 5, 1.0)
    assert report.add([b"6"], 11.9) is None
    assert report.add([b"7"], 12.5) == received_line(64, 2, 2, 1.5)


def test_the_rest_is_reported_without_the_silence_at_the_end() -> None:
    report = Report(64, 1.0, now=10.0)
    report.add([b"12"], 10.5)
    assert report.rest() == received_line(64, 1, 2, 0.5)
    assert report.rest() is None


def test_a_flow_without_packets_has_no_report() -> None:
    assert Report(64, 1.0, now=10.0).rest() is None


def chosen(line: str, monkeypatch: pytest.MonkeyPatch) -> Plan:
    plans: list[Plan] = []
    monkeypatch.setattr(ocbr, "_run_client", plans.append)
    result = CliRunner().invoke(ocbr.ocbr, line.split())
    assert result.exit_code == 0, result.output
    return plans[0]


def test_options_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("-n ocbr", monkeypatch) == Plan("ocbr", 60.0, 1000, 1e6, spin=False)
    assert chosen("-n a -d 2 -s 8 -r 64k --spin", monkeypatch) == Plan("a", 2.0, 8, 64e3, spin=True)
    assert chosen("-n a -r 500 --sleep", monkeypatch) == Plan("a", 60.0, 1000, 500.0, spin=False)
    assert chosen("-n a -f", monkeypatch).rate is None


def test_options_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ouroboros.tools._common.FlowServer.run", lambda self: None)
    output = CliRunner().invoke(ocbr.ocbr, ["-l"]).output
    assert output.startswith("Server started, interval is 1 s, timeout is 1 s.\n")
    output = CliRunner().invoke(ocbr.ocbr, ["-l", "-i", "10", "-t", "2.5"]).output
    assert output.startswith("Server started, interval is 10 s, timeout is 2.5 s.\n")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "add -n NAME, or -l"),
        ("-n a -s 0", "1<=x<=524288"),
        ("-n a -s 524289", "1<=x<=524288"),
        ("-n a -d 0", "x>0"),
        ("-n a -r fast", "'fast' is no rate"),
        ("-l -t 0", "x>0"),
    ],
)
def test_wrong_options_are_named(line: str, text: str) -> None:
    result = CliRunner().invoke(ocbr.ocbr, line.split())
    assert result.exit_code == click.UsageError.exit_code
    assert text in result.output
