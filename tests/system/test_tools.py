"""The installed commands, between processes, on a node whose configuration file binds the names to them."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import TOOLS_CONFIGURATION, Background, NodeProcess

from ouroboros.dev import FlowDownException, flow_accept, flow_alloc, flow_join
from ouroboros.tools.oping import encode_reply


class Command:
    """An installed command that runs."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name(name)), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.finish()
        return line.rstrip("\n")

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def finish(self) -> tuple[int, list[str], str]:
        """Wait for its end: exit status, the rest of its output, what it wrote to standard error."""
        output, errors = self.process.communicate()
        return self.process.returncode, output.splitlines(), errors


Start = Callable[..., Command]


@pytest.fixture
def start(make_node: Callable[..., NodeProcess], tmp_path: Path) -> Iterator[Start]:
    """Starts commands on a node that has the configuration; ends them at the end."""
    path = tmp_path / "irmd.toml"
    path.write_text(TOOLS_CONFIGURATION)
    make_node("--config", str(path))
    running: list[Command] = []

    def begin(name: str, *arguments: str) -> Command:
        running.append(Command(name, *arguments))
        return running[-1]

    yield begin
    for command in running:
        command.process.kill()
        with contextlib.suppress(ValueError):
            command.process.communicate()


def stopped(server: Command) -> list[str]:
    """Interrupt a server, which must end well; the rest of its output."""
    server.interrupt()
    status, output, errors = server.finish()
    assert (status, errors) == (0, "")
    return output


# --- oecho, oping


def test_oecho(start: Start) -> None:
    server = start("oecho", "-l")
    assert server.line() == "Starting the server."
    assert start("oecho").finish() == (0, ["Server replied with Client says hi!"], "")
    assert stopped(server) == ["New flow.", "Message from client is Client says hi!.", "Server stopped."]


def test_oping(start: Start) -> None:
    server = start("oping", "-l")
    assert server.line() == "Ouroboros ping server started."
    clients = [start("oping", "-n", "oping", "-c", "3", "-i", "10", "-s", "100") for _ in range(3)]
    for client in clients:
        status, output, errors = client.finish()
        assert (status, errors) == (0, "")
        assert output[0] == "Pinging oping with 100 bytes of data (3 packets):"
        for sequence, line in enumerate(output[2:5]):
            assert re.fullmatch(rf"100 bytes from oping: seq={sequence} time=\d+\.\d{{3}} (ms|µs)", line)
        assert "3 packets transmitted, 3 received, 0 out-of-order, 0% packet loss" in output[-2]
    output = stopped(server)
    assert sum(line.startswith("New flow ") for line in output) == 3
    assert sum(line.startswith("Received 100 bytes on fd ") for line in output) == 9
    assert output[-1] == "Ouroboros ping server stopped."


def test_oping_without_a_reply_exits_with_1(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="oping"))
    client = start("oping", "-n", "oping", "-c", "3")
    acceptor.result().dealloc()
    status, output, errors = client.finish()
    assert (status, errors) == (1, "")
    assert output[-1].startswith("0 packets transmitted, 0 received")


def test_oping_with_one_reply_of_three_exits_with_0(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="oping"))
    client = start("oping", "-n", "oping", "-c", "3", "-f")
    with acceptor.result() as flow:
        flow.write(encode_reply(flow.read()))
        flow.read()
    status, output, errors = client.finish()
    assert (status, errors) == (0, "")
    assert output[-2].startswith("2 packets transmitted, 1 received")


def test_oping_interrupted_without_a_reply_exits_with_1(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="oping"))
    client = start("oping", "-n", "oping", "-i", "1")
    with acceptor.result() as flow:
        flow.read()
        client.interrupt()
        status, output, errors = client.finish()
    assert (status, errors) == (1, "")
    assert " 0 received" in output[-1]


# --- operf


def arrived(line: str) -> tuple[int, int, int]:
    """What a server counted: the flow, packets and bytes."""
    total = re.fullmatch(r"Flow +(\d+): +(\d+) packets \( +(\d+) bytes\) in +\d+ ms => +[\d.]+ pps, +[\d.]+ Mbps", line)
    assert total is not None, line
    return int(total[1]), int(total[2]), int(total[3])


@pytest.mark.slow
def test_operf_one_way(start: Start) -> None:
    server = start("operf", "-l")
    server.line()
    client = start("operf", "-n", "operf", "-d", "200", "-r", "1M", "-s", "1000", "--sleep")
    status, output, errors = client.finish()
    assert (status, errors) == (0, "")
    assert output[:-1] == [
        "Doing a unidirectional test.",
        "Sending 1000 byte packets for 0.2 s to operf at 1.000 Mb/s.",
        "Test finished.",
        "--- operf perf statistics ---",
    ]
    sent = re.fullmatch(
        r"(\d+) packets transmitted, (\d+) bytes, time: [\d.]+ ms, bandwidth: [\d.]+ Mb/s\.", output[-1]
    )
    assert sent is not None
    assert int(sent[2]) == 1000 * int(sent[1])
    fd = re.fullmatch(r"New flow (\d+)\.", server.line())
    assert fd is not None
    assert server.line() == "Doing a unidirectional test."
    sequence = 0
    while re.fullmatch(rf"Seqno {sequence} from fd {fd[1]}: \d+\.\d{{6}}", line := server.line()):
        sequence += 1
    assert 1 <= sequence <= 25
    assert sequence == int(sent[1])
    assert arrived(line) == (int(fd[1]), sequence, sequence * 1000)
    assert server.line() == f"Flow {fd[1]} ended by the client."
    assert stopped(server) == ["Ouroboros perf server stopped."]


@pytest.mark.slow
@pytest.mark.parametrize("pace", [["-r", "10M", "--sleep"], ["-r", "10M"], ["-f"]], ids=["sleep", "spin", "flood"])
def test_operf_there_and_back_by_several_clients_at_once(start: Start, pace: list[str]) -> None:
    server = start("operf", "-l")
    server.line()
    clients = [start("operf", "-n", "operf", "-t", "bi", "-d", "200ms", *pace) for _ in range(2)]
    returned = 0
    for client in clients:
        status, output, errors = client.finish()
        assert (status, errors) == (0, "")
        assert output[0] == "Doing a bidirectional test."
        assert output[2:4] == ["Test finished.", "--- operf perf statistics ---"]
        figures = re.fullmatch(
            r"(\d+) packets transmitted, (\d+) received, 0% packet loss, time: [\d.]+ ms, bandwidth: [\d.]+ Mb/s\.",
            output[4],
        )
        assert figures is not None
        assert int(figures[1]) == int(figures[2]) >= 1
        returned += int(figures[2])
    output = stopped(server)
    assert output.count("Doing a bidirectional test.") == 2
    totals = [arrived(line) for line in output if " pps, " in line]
    assert len(totals) == 2
    assert sum(packets for _, packets, _ in totals) == returned


@pytest.mark.slow
def test_operf_sends_the_packets_of_the_c_prototype(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="operf"))
    client = start("operf", "-n", "operf", "-t", "bi", "-r", "1M", "-s", "100")
    with acceptor.result() as flow:
        assert flow.read() == (1).to_bytes(4, sys.byteorder)
        for sequence in range(3):
            packet = flow.read()
            assert packet == sequence.to_bytes(4, sys.byteorder) + bytes(96)
            flow.write(packet)
    status, output, errors = client.finish()
    assert status == 1
    assert errors.startswith("The test ended early: ")
    assert output[-2] == "--- operf perf statistics ---"
    assert ", 3 received, " in output[-1]


@pytest.mark.slow
def test_operf_there_and_back_that_gets_nothing_back_fails(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="operf"))
    client = start("operf", "-n", "operf", "-t", "bi", "-d", "1ms", "-r", "1k")
    with acceptor.result() as flow:
        flow.read()
        flow.read()
        status, output, errors = client.finish()
    assert (status, errors) == (1, "No packet came back.\n")
    assert output[-1].startswith("1 packets transmitted, 0 received, 100% packet loss")


@pytest.mark.slow
def test_operf_returns_every_packet_unchanged_and_gives_up_a_silent_client(start: Start) -> None:
    server = start("operf", "-l")
    with flow_alloc("operf") as flow:
        flow.write((1).to_bytes(4, sys.byteorder))
        packets = [number.to_bytes(4, sys.byteorder) + bytes([number]) * 1000 for number in range(20)]
        for packet in packets:
            flow.write(packet)
        assert [flow.read() for _ in packets] == packets
        with pytest.raises(FlowDownException):
            flow.read()
        assert f"Flow {flow.flow_id} timed out." in stopped(server)


@pytest.mark.slow
def test_operf_survives_a_client_that_only_asks_for_a_test(start: Start) -> None:
    server = start("operf", "-l")
    with flow_alloc("operf") as flow:
        flow.write(bytes(4))
        with pytest.raises(FlowDownException):
            flow.read()
        assert f"Flow {flow.flow_id} timed out." in stopped(server)


def test_operf_ends_a_flow_that_begins_with_something_else(start: Start) -> None:
    server = start("operf", "-l")
    with flow_alloc("operf") as flow:
        flow.write(b"hello")
        with pytest.raises(FlowDownException):
            flow.read()
        ended = f"Flow {flow.flow_id} ended: the first packet has 5 bytes; 4 with the test were expected."
    assert ended in stopped(server)


@pytest.mark.slow
def test_operf_interrupted_prints_what_it_has(start: Start) -> None:
    server = start("operf", "-l")
    client = start("operf", "-n", "operf", "-t", "bi", "-r", "1M", "--sleep")
    assert client.line() == "Doing a bidirectional test."
    assert client.line().startswith("Sending 1500 byte packets for 60 s")
    client.interrupt()
    status, output, errors = client.finish()
    assert (status, errors) == (0, "")
    assert output[-2] == "--- operf perf statistics ---"
    stopped(server)


# --- ocbr


def test_ocbr(start: Start) -> None:
    server = start("ocbr", "-l", "-i", "0.1")
    assert server.line() == "Server started, interval is 0.1 s, timeout is 1 s."
    clients = [start("ocbr", "-n", "ocbr", "-d", "0.2", "-r", rate, "-s", "500") for rate in ("200k", "400k")]
    sent = 0
    for client in clients:
        status, output, errors = client.finish()
        assert (status, errors) == (0, "")
        assert re.fullmatch(r"Client started, duration 0\.2, rate [24]00000 b/s, size 500 B\.", output[0])
        figures = re.fullmatch(r"sent statistics: +(\d+) packets, +(\d+) bytes in +\d+ ms, \d\.\d{4} Mb/s", output[1])
        assert figures is not None
        assert int(figures[2]) == 500 * int(figures[1])
        sent += int(figures[1])
    output = stopped(server)
    reports = re.findall(
        r"Flow +\d+: +(\d+) packets \( +(\d+) bytes\) in +\d+ ms => +[\d.]+ pps, +[\d.]+ Mbps", "\n".join(output)
    )
    assert sum(int(packets) for packets, _ in reports) == sent >= 2
    assert sum(int(count) for _, count in reports) == 500 * sent
    assert output.count("New flow.") == 2
    assert sum(bool(re.fullmatch(r"Test on flow \d+ ended by the client", line)) for line in output) == 2


def test_ocbr_sends_numbered_packets_and_nothing_else(start: Start) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="ocbr"))
    client = start("ocbr", "-n", "ocbr", "-d", "60", "-f", "-s", "24")
    with acceptor.result() as flow:
        for sequence in range(100):
            assert flow.read() == sequence.to_bytes(8, sys.byteorder) + bytes(16)
    status, output, errors = client.finish()
    assert status == 1
    assert errors.startswith("The test ended early: ")
    assert output[0] == "Client started, duration 60, flood, size 24 B."
    assert output[1].startswith("sent statistics: ")


def test_ocbr_gives_up_a_silent_client(start: Start) -> None:
    server = start("ocbr", "-l", "-t", "0.1")
    with flow_alloc("ocbr") as flow:
        flow.write(b"any packet counts")
        with pytest.raises(FlowDownException):
            flow.read()
        output = stopped(server)
        assert re.match(rf"Flow +{flow.flow_id}: +1 packets \( +17 bytes\)", output[-3])
        assert output[-2] == f"Test on flow {flow.flow_id} timed out"


def test_a_server_that_is_interrupted_ends_the_flows_of_its_clients(start: Start) -> None:
    server = start("ocbr", "-l", "-t", "60")
    with flow_alloc("ocbr") as flow, flow_alloc("ocbr") as other:
        assert [server.line() for _ in range(3)][1:] == ["New flow.", "New flow."]
        output = stopped(server)
        for each in (flow, other):
            with pytest.raises(FlowDownException):
                each.read()
        assert sorted(output[:2]) == sorted(f"Test on flow {each.flow_id} was stopped" for each in (flow, other))


# --- obc


def test_obc(start: Start) -> None:
    readers = [start("obc", "-n", "news", "-l") for _ in range(2)]
    for reader in readers:
        assert [reader.line(), reader.line()] == ["Starting a reader.", "New flow."]
    assert start("obc", "-n", "news", "-m", "hello all").finish() == (0, [], "")
    for reader in readers:
        assert reader.line() == "Message is hello all."
        assert stopped(reader) == ["Reader stopped."]


def test_obc_writes_one_packet_that_ends_with_a_nul(start: Start) -> None:
    with flow_join("news") as flow:
        start("obc", "-n", "news", "-m", "hello all").finish()
        assert flow.read() == bytes.fromhex("68656c6c6f20616c6c00")


# --- errors


@pytest.mark.parametrize(
    ("words", "expected", "text"),
    [
        # As ping: 1 would be a name that is there and does not answer.
        ("oping -n nobody -c 1", 2, "Failed to allocate flow: nobody offers 'nobody'"),
        ("operf -n nobody", 1, "Failed to allocate flow: nobody offers 'nobody'"),
        ("ocbr -n nobody", 1, "Failed to allocate flow: nobody offers 'nobody'"),
        ("obc -n nobody -m hello", 1, "Failed to join nobody: "),
        ("obc -n nobody -l", 1, "Failed to join nobody: "),
    ],
)
def test_a_name_that_nobody_offers_is_a_sentence_and_an_exit_code(
    start: Start, words: str, expected: int, text: str
) -> None:
    status, _, errors = start(*words.split()).finish()
    assert status == expected
    assert errors.startswith(text)
    assert "Traceback" not in errors


@pytest.mark.parametrize("tool", ["oecho", "oping", "operf", "ocbr"])
def test_a_server_without_a_node_is_a_sentence_and_exit_code_1(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("OUROBOROS_AUTOSTART", "0")
    status, _, errors = Command(tool, "-l").finish()
    assert status == 1
    assert re.match(r"Cannot accept flows: no node runs in .*: start one with `irmd`\n", errors)


# --- ouroboros


def test_python_m_ouroboros_is_the_command(runtime_dir: Path) -> None:
    command = [sys.executable, "-m", "ouroboros", "info"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == Command("ouroboros", "info").finish()
