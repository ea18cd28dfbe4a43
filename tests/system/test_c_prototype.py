"""The C prototype's own programs, as they were built for its libraries, on our node by way of ours.

`OUROBOROS_REFERENCE` is the prefix where it is installed, `OUROBOROS_REFERENCE_PYTHON` a Python interpreter that has its
binding.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from c_support import CProgram, cannot_build, install
from support import NodeProcess, Programs, node_info, until

from ouroboros import cli, irm
from ouroboros.dev import flow_alloc
from ouroboros.irm import IpcpType

_PREFIX = os.environ.get("OUROBOROS_REFERENCE")
_PYTHON = os.environ.get("OUROBOROS_REFERENCE_PYTHON")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _PREFIX, reason="OUROBOROS_REFERENCE does not say where the C prototype is"),
    pytest.mark.skipif(cannot_build() is not None, reason=cannot_build() or ""),
]

Run = Callable[..., CProgram]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix)
    return prefix / "lib"


@pytest.fixture
def run(libraries: Path, node: NodeProcess) -> Iterator[Run]:
    """Starts one of its programs with our libraries. Its output comes line by line."""
    running: list[CProgram] = []

    def start(name: str, *words: str) -> CProgram:
        folder = "sbin" if name == "irm" else "bin"
        path = name if "/" in name else f"{_PREFIX}/{folder}/{name}"
        program = CProgram("stdbuf", "-oL", path, *words, LD_LIBRARY_PATH=str(libraries))
        running.append(program)
        return program

    yield start
    for program in running:
        program.dispose()


def server(run: Run, name: str, *words: str) -> CProgram:
    """One of its servers, that accepts flows to its own name."""
    before = node_info().processes
    program = run(name, *words)
    # It says hello when it waits for its first flow.
    until(lambda: node_info().processes > before)
    irm.bind_process(program.pid, name)
    return program


def stopped(program: CProgram) -> str:
    """Stop a server as its users do; what it said."""
    program.process.send_signal(signal.SIGTERM)
    status, said, complaint = program.finish()
    assert (status, complaint) == (0, "")
    return said


def test_oping(run: Run) -> None:
    listening = server(run, "oping", "-l")
    status, said, _ = run("oping", "-n", "oping", "-c", "5", "-i", "1").finish()
    assert status == 0
    assert len(re.findall(r"64 bytes from oping: seq=", said)) == 5
    assert "5 packets transmitted, 5 received, 0 out-of-order, 0% packet loss" in said
    for options in (["-f"], ["-F"], ["-q", "data", "-i", "1"], ["-s", "1500", "-i", "1"]):
        status, said, _ = run("oping", "-n", "oping", "-c", "50", *options).finish()
        assert status == 0
        assert "50 packets transmitted, 50 received, 0 out-of-order, 0% packet loss" in said
    assert "Received 64 bytes on fd 64." in stopped(listening)


def test_oping_with_our_own(run: Run, programs: Programs) -> None:
    listening = server(run, "oping", "-l", "-Q")
    with flow_alloc("oping") as flow:
        request = bytes(4) + (7).to_bytes(4, "big") + bytes(range(56))
        flow.write(request)
        assert flow.read() == (1).to_bytes(4, "big") + request[4:]
    stopped(listening)


def test_oecho(run: Run) -> None:
    server(run, "oecho", "-l")
    assert run("oecho").finish() == (0, "Server replied with Client says hi!\n", "")
    with flow_alloc("oecho") as flow:
        flow.writeline("Hello from Python!\0")
        assert flow.readline() == "Hello from Python!\0"


def test_ocbr(run: Run) -> None:
    listening = server(run, "ocbr", "-l")
    for options in (["-r", "8M"], ["-f"]):
        status, said, _ = run("ocbr", "-n", "ocbr", "-d", "1", *options).finish()
        assert status == 0
        sent = re.search(r"sent statistics: +(\d+) packets", said)
        assert sent is not None
        received = 0
        while "timed out" not in (line := listening.line()):
            if found := re.match(r"Flow +\d+: +(\d+) packets", line):
                received += int(found[1])
        assert received == int(sent[1])
    stopped(listening)


def test_obc(run: Run) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    reader = run("obc", "-n", "chat", "-l")
    assert [reader.line(), reader.line()] == ["Starting a reader.", "New flow."]
    assert run("obc", "-n", "chat", "-m", "hello all").finish() == (0, "", "")
    assert reader.line() == "Message is hello all."


def test_irm(run: Run) -> None:
    def does(line: str) -> str:
        status, said, complaint = run("irm", *line.split()).finish()
        assert (status, complaint) == (0, ""), line
        return said

    assert does("ipcp list") == "No IPCPs in system.\n\n"
    assert does("name list") == "No names in system.\n\n"
    does("ipcp bootstrap type local name lab0 layer lab")
    does("ipcp create type broadcast name chat0")
    does("ipcp bootstrap name chat0 layer chat autobind")
    assert re.search(r"\| +chat0 \| +broadcast \| +chat \|", does("ipcp list"))
    does("name create clock lb spillover")
    does("name register clock layer lab")
    assert irm.list_names()[-1].layers == ("lab",)
    assert re.search(r"\| +clock \| +spillover \|", does("name list"))
    does(f"bind process {os.getpid()} name clock")
    does("bind program sh name clock")
    does("unbind program sh name clock")
    does(f"unbind process {os.getpid()} name clock")
    does("bind ipcp chat0 name other")
    does("unbind ipcp chat0 name other")
    does("name unregister clock layer lab")
    does("name destroy clock")
    does("ipcp destroy name chat0")
    assert [ipcp.name for ipcp in irm.list_ipcps()] == ["lab0"]


def test_irm_makes_unicast_layers(run: Run) -> None:
    def does(line: str) -> None:
        status, _, complaint = run("irm", *line.split()).finish()
        assert (status, complaint) == (0, ""), line

    options = (
        "hash SHA3_384 addr 4 eid 8 ttl 17 addr_auth flat routing lfa ls_t_recalc 2 ls_t_update 5 ls_t_timeo 20 "
        "congestion mb-ecn directory DHT dht_alpha 4 dht_k 5 dht_t_expire 3600 dht_t_refresh 60 dht_t_replicate 61"
    )
    does(f"ipcp bootstrap type unicast name a layer campus {options} autobind")
    does("ipcp enroll name b layer campus autobind")
    assert cli.find_ipcp("b").layer == "campus"
    does("ipcp connect name b dst a")
    assert {each.component for each in cli.find_ipcp("b").connections} == {"Management", "Data Transfer"}
    does("ipcp connect name b dst a")
    does("ipcp disconnect name b dst a")
    assert cli.find_ipcp("b").connections == ()
    does("ipcp connect name b dst a component mgmt")
    does("ipcp connect name b dst a component dt qos raw")
    assert {each.state for each in cli.find_ipcp("a").connections} == {"up"}
    for name in ("b", "a"):
        does(f"ipcp destroy name {name}")


@pytest.mark.skipif(not _PYTHON, reason="OUROBOROS_REFERENCE_PYTHON does not name an interpreter with its binding")
def test_its_python_binding(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "echo.py"
    script.write_text(
        "import os, sys\n"
        "from ouroboros.dev import *\n"
        "from ouroboros.cli import bind_process\n"
        "from ouroboros.irm import list_ipcps\n"
        "bind_process(os.getpid(), 'binding')\n"
        "print('accepting', flush=True)\n"
        "with flow_accept() as f:\n"
        "    f.writeline('you said ' + f.readline())\n"
        "    print(list_ipcps(), flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    assert _PYTHON is not None
    echo = run(_PYTHON, str(script))
    assert echo.line() == "accepting"
    with flow_alloc("binding") as flow:
        flow.writeline("hello")
        assert flow.readline() == "you said hello"
        status, said, complaint = echo.finish()
    assert (status, said, complaint) == (0, "[]\n", "")
