"""What the commands do when nobody can read what they print: as other programs do, and never with a traceback."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from support import TOOLS_CONFIGURATION, Background, NodeProcess, forever

from ouroboros import irm
from ouroboros.dev import FlowDownException, FlowPeerException, flow_accept, flow_alloc
from ouroboros.tools.irm_help import completion_script

#: A command line of each tool that prints, and of each way that it has to print.
LINES = [
    "oecho -l",
    "oping -l",
    "operf -l",
    "ocbr -l",
    "obc -n news -l",
    "oping --help",
    "irm name list",
    "irm ipcp list --json",
    "irm completion bash",
    "ouroboros info",
    "ouroboros --help",
    "ouroboros trace --help",
    "irmd --version",
]


class Tools:
    """Starts commands, and ends them."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, line: str, stdout: int | IO[str], **environment: str) -> subprocess.Popen[str]:
        name, *arguments = line.split()
        self._running.append(
            subprocess.Popen(
                [str(Path(sys.executable).with_name(name)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=os.environ | environment,
                text=True,
            )
        )
        return self._running[-1]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def tools(make_node: Callable[..., NodeProcess], tmp_path: Path) -> Iterator[Tools]:
    path = tmp_path / "irmd.toml"
    path.write_text(TOOLS_CONFIGURATION)
    make_node("--config", str(path))
    tools = Tools()
    yield tools
    tools.end()


def closed_pipe() -> IO[str]:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what went to standard error."""
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.slow
def test_a_command_whose_reader_has_gone_ends_quietly(tools: Tools) -> None:
    with closed_pipe() as pipe:
        processes = {line: tools.start(line, pipe) for line in LINES}
    assert {line: outcome(each) for line, each in processes.items()} == dict.fromkeys(LINES, (-signal.SIGPIPE, ""))


@pytest.mark.slow
def test_a_command_that_cannot_write_says_so_in_a_sentence(tools: Tools) -> None:
    with open("/dev/full", "w") as full:
        processes = {line: tools.start(line, full) for line in LINES}
    said = 1, "Cannot write to standard output: No space left on device\n"
    assert {line: outcome(each) for line, each in processes.items()} == dict.fromkeys(LINES, said)


def test_a_full_device_for_errors_is_exit_status_1(tools: Tools) -> None:
    command = [sys.executable, "-m", "ouroboros.tools.irm", "name", "destroy", "nobody"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_slow_reader_of_a_non_blocking_output_gets_all_of_it(tools: Tools) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w") as pipe:
        process = tools.start("irm completion bash", pipe)
    with os.fdopen(reader) as output:
        assert output.read() == completion_script("bash")
    assert outcome(process) == (0, "")
    assert len(completion_script("bash")) > 4096


def test_a_command_without_standard_output_does_its_work(tools: Tools) -> None:
    command = 'exec "$0" -m ouroboros.tools.irm name create clock >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "clock" in [name.name for name in irm.list_names()]


@pytest.mark.parametrize("tool", ["oecho", "oping", "operf", "ocbr"])
def test_a_server_whose_reader_goes_lets_go_of_its_clients_and_ends(tools: Tools, tool: str) -> None:
    server = tools.start(f"{tool} -l", subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    with flow_alloc(tool) as first:
        assert server.stdout.readline().startswith("New flow")
        server.stdout.close()
        if tool == "oecho":
            # It serves one after the other.
            first.write(b"hello")
            flows = [first]
        else:
            flows = [first, flow_alloc(tool)]
        for flow in flows:
            with pytest.raises(FlowDownException) as caught:
                forever(flow.read)
            flow.dealloc()
            assert not isinstance(caught.value, FlowPeerException)
    assert server.stderr is not None
    assert (server.stderr.read(), server.wait()) == ("", -signal.SIGPIPE)


def test_a_node_goes_on_when_nobody_reads_its_log(runtime_dir: Path) -> None:
    ready, child_end = os.pipe()
    with closed_pipe() as pipe:
        command = [sys.executable, "-m", "ouroboros.tools.irmd", "--stdout", "--ready-fd", str(child_end)]
        node = subprocess.Popen(command, stdout=pipe, stderr=subprocess.PIPE, pass_fds=[child_end], text=True)
    os.close(child_end)
    with os.fdopen(ready, "rb") as report:
        assert report.read() == b"ready\n"
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    with flow_alloc("clock") as flow, acceptor.result():
        flow.write(b"hello")
    node.terminate()
    assert outcome(node) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_of_any_letters_is_shown_in_every_encoding(tools: Tools, encoding: str) -> None:
    irm.create_name(irm.NameInfo("zürich"))
    irm.create_name(irm.NameInfo("東京"))
    shown = ["zürich".encode(encoding, "backslashreplace"), "東京".encode(encoding, "backslashreplace")]
    for line in ("name list", "name list --json"):
        command = [sys.executable, "-m", "ouroboros.tools.irm", *line.split()]
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert all(name in done.stdout for name in shown)


def test_the_tools_escape_what_their_output_has_no_code_for(tools: Tools) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="zürich"))
    process = tools.start("oping -n zürich -c 1", subprocess.PIPE, PYTHONIOENCODING="ascii")
    acceptor.result().dealloc()
    output, errors = process.communicate()
    assert process.returncode == 1
    assert output.startswith("Pinging z\\xfcrich with 64 bytes")
    assert "Traceback" not in errors


def test_wrong_usage_is_told_in_every_encoding(tools: Tools) -> None:
    process = tools.start("oping --zürich", subprocess.PIPE, PYTHONIOENCODING="ascii")
    status, errors = outcome(process)
    assert status == 2
    assert "z\\xfcrich" in errors
