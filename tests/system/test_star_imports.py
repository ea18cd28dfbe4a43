"""Programs that import nothing but a star of one module, as those of the C prototype's Python package do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import NodeProcess

from ouroboros import irm

#: Where the prototype's Python package lies, version 0.23, for its own examples.
REFERENCE = os.environ.get("OUROBOROS_REFERENCE_PYTHON")

ECHO = """
from ouroboros.event import *
import sys

def serve():
    fq = FEventQueue()
    with FlowSet() as flows:
        print("ready", flush=True)
        flow = flow_accept()
        flow.set_snd_timeout(DEFAULT_PEER_TIMEOUT / 1000)
        flows.add(flow)
        while True:
            flows.wait(fq)
            flow, kind = fq.next()
            if kind == FEventType.FlowPkt:
                flow.writeline(flow.readline().upper())
            elif kind == FEventType.FlowDealloc:
                flow.dealloc()
                return

def ask():
    flow = flow_alloc("echo", QoSSpec(loss=0, timeout=UINT32_MAX))
    flow.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingRead)
    try:
        flow.read()
    except FlowException:
        print("nothing yet")
    flow.set_flags(FlowProperties.ReadWrite)
    flow.writeline("hello")
    print(flow.readline())
    flow.dealloc()

serve() if sys.argv[1:] == ["-l"] else ask()
"""

MANAGE = """
from ouroboros.cli import *

pid = create_ipcp("lab0", IpcpType.LOCAL)
bootstrap_ipcp("lab0", IpcpConfig(IpcpType.LOCAL, layer_name="lab"))
reg_name("clock", layers=["lab"])
found: List[Optional[IpcpInfo]] = [each for each in list_ipcps() if each.pid == pid]
print(found[0].name, [info.name for info in list_names()], shutil.which("sh") is not None)
"""


class Scripts:
    """Python files that run as programs of their own."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, path: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", str(path), *arguments]
        self._running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return self._running[-1]

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def scripts(node: NodeProcess) -> Iterator[Scripts]:
    scripts = Scripts()
    yield scripts
    scripts.end()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_a_program_with_a_flow_set_needs_a_star_of_event_only(scripts: Scripts, tmp_path: Path) -> None:
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    path.chmod(0o755)
    irm.bind_program(str(path), "echo")
    server = scripts.start(path, "-l")
    assert line(server) == "ready", server.communicate()
    assert scripts.start(path).communicate() == ("nothing yet\nHELLO\n", "")
    assert server.communicate() == ("", "")


def test_a_program_that_manages_needs_a_star_of_cli_only(scripts: Scripts, tmp_path: Path) -> None:
    path = tmp_path / "manage.py"
    path.write_text(MANAGE)
    assert scripts.start(path).communicate() == ("lab0 ['clock'] True\n", "")


@pytest.mark.skipif(REFERENCE is None, reason="OUROBOROS_REFERENCE_PYTHON names no checkout of the prototype's package")
@pytest.mark.parametrize("example", ["oecho.py", "oecho_set.py"])
def test_the_prototypes_example_runs_unmodified(scripts: Scripts, tmp_path: Path, example: str) -> None:
    # Not where it lies: next to it is the package itself.
    path = tmp_path / example
    path.write_bytes((Path(REFERENCE or "") / "examples" / example).read_bytes())
    path.chmod(0o755)
    irm.bind_program(str(path), "oecho")
    server = scripts.start(path, "-l")
    assert line(server) == "Starting the server."
    for _ in range(2):
        assert scripts.start(path).communicate() == ("Hello, PyOuroboros!\n", "")
        assert [line(server), line(server)] == ["New flow.", "Message from client is Hello, PyOuroboros!"]
