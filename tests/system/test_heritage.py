"""What a process that we start does not inherit, and what a program without standard input, output and error has."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from c_support import CProgram, build, cannot_build, install
from support import NodeProcess, Programs, node_info, until

from ouroboros.dev import flow_alloc
from ouroboros.runtime import client
from ouroboros.runtime.children import LIMITS, PYTHON_PLACES, SPEAKS_FOR_PARENT
from ouroboros.wire.control import BindProgram

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

#: Of Python, and to be seen in a process that inherits them. They change nothing for the program here that has them.
PYTHON = {"PYTHONHASHSEED": "1", "PYTHONUNBUFFERED": "1", "PYTHONSTARTUP": "/no/file", "PYTHONINSPECT": ""}

#: Does all to itself that a child inherits, and then becomes the program that it is told.
BURDENED = f"""
import os, resource, signal, sys
from ouroboros.runtime.children import LIMITS, SPEAKS_FOR_PARENT

for name in SPEAKS_FOR_PARENT:
    os.environ[name] = "of the parent"
os.environ.update({PYTHON!r})
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMIN}})
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
os.umask(0)
os.nice(5)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("500")
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
for limit in LIMITS:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, ((1 << 33) if hard == resource.RLIM_INFINITY else hard // 2, hard))
for number in (3, 20, 21):
    os.dup2(os.open("/etc/hostname", os.O_RDONLY), number, inheritable=True)
os.chdir(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tests/capi/peer.c`."""
    if (reason := cannot_build()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("prefix")
    install(folder)
    return build("peer", folder, folder)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def numbers(mask: str) -> set[int]:
    """But for those that the C library keeps for itself: it lets nobody set them, and `posix_spawn` ignores one."""
    return {number for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


def check_inherits_nothing(pid: int, within: Path) -> None:
    environment = dict(
        word.split("=", 1) for word in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in word
    )
    # A shell that starts the interpreter says where that is.
    assert environment.pop("PWD", "/") == "/"
    assert not SPEAKS_FOR_PARENT & environment.keys()
    assert not PYTHON.keys() & environment.keys()
    status = status_of(pid)
    assert numbers(status["SigBlk"]) == set()
    # Those that the interpreter ignores itself.
    assert numbers(status["SigIgn"]) <= {signal.SIGPIPE, signal.SIGXFSZ}
    assert status["Umask"] == "0077"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    if os.geteuid() == 0:
        assert os.getpriority(os.PRIO_PROCESS, pid) == 0
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"
    for limit in LIMITS:
        soft, hard = resource.prlimit(pid, limit)
        assert soft == hard
    open_now = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    assert "/etc/hostname" not in open_now
    assert str(within) not in open_now
    # Session and terminal of its own.
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[3]) != os.getsid(0)
    assert int(stat[4]) == 0


def burdened(tmp_path: Path, *command: str) -> list[str]:
    program = tmp_path / "burdened.py"
    program.write_text(BURDENED)
    return [sys.executable, str(program), str(tmp_path), *command]


def test_a_node_inherits_nothing_of_the_program_that_started_it(embedded: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from ouroboros.irm import list_names; print(list_names())")
    done = subprocess.run(burdened(tmp_path, sys.executable, str(program)), capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    check_inherits_nothing(node_info().pid, tmp_path)


def test_a_node_inherits_nothing_of_the_c_program_that_started_it(
    embedded: Path, tmp_path: Path, c_program: Path
) -> None:
    program = CProgram(*burdened(tmp_path, str(c_program), "alloc", "x"))
    assert program.finish() == (0, "alloc -1007\n", "")
    check_inherits_nothing(node_info().pid, tmp_path)


#: Says what it was started with.
TELLER = """
import json
with flow_accept() as f:
    path = os.environ.get("PYTHONPATH")
    f.writeline(json.dumps([os.getpid(), os.getcwd(), path, sorted(os.environ)]))
    f.read()
"""


def told_by(programs: Programs) -> list[object]:
    client.request(BindProgram(str(programs.script("teller.py", TELLER)), "told", True, []))
    with flow_alloc("told") as flow:
        told: list[object] = json.loads(flow.readline())
        pid = told[0]
        assert isinstance(pid, int)
        status = status_of(pid)
        assert numbers(status["SigBlk"]) == set()
        assert numbers(status["SigIgn"]) <= {signal.SIGPIPE, signal.SIGXFSZ}
        flow.write(b"end")
    return told


def test_a_program_that_a_node_starts_inherits_nothing_of_its_starter(
    make_node: Callable[..., NodeProcess], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SPEAKS_FOR_PARENT - {"NOTIFY_SOCKET"}:
        monkeypatch.setenv(name, "of the parent")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        make_node()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _, directory, _, names = told_by(programs)
    assert directory == "/"
    assert isinstance(names, list)
    assert not SPEAKS_FOR_PARENT & set(names)


@pytest.mark.parametrize("path", [None, "/some/where"])
def test_what_an_embedded_node_needs_of_python_is_not_for_its_programs(
    embedded: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    _, _, found, names = told_by(programs)
    assert found == path
    assert not [name for name in names if name.startswith("OUROBOROS_STARTED")]  # type: ignore[attr-defined]


def test_programs_in_c_and_in_python_have_the_same_list() -> None:
    source = (ROOT / "rust/client/src/embedded.rs").read_text()
    for name, ours in (("SPEAKS_FOR_PARENT", SPEAKS_FOR_PARENT), ("PYTHON_PLACES", PYTHON_PLACES)):
        found = re.search(rf"const {name}: [^=]*= \[(.*?)\];", source, re.DOTALL)
        assert found is not None
        assert set(re.findall(r'"(\w+)"', found[1])) == ours


def test_the_documentation_has_the_whole_list() -> None:
    page = (ROOT / "docs/node.md").read_text()
    for name in SPEAKS_FOR_PARENT:
        assert f"`{name}`" in page


# --- without standard descriptors

CLOSED = [list(each) for count in range(4) for each in itertools.combinations(range(3), count)]

#: Closes descriptors, and becomes the program that it is told.
CLOSER = "import os, sys; [os.close(int(number)) for number in sys.argv[1]]; os.execv(sys.argv[2], sys.argv[2:])"

#: Does all kinds of things, and writes to a file whether its standard descriptors are what they were.
CLOSED_PROGRAM = """
import os, sys

def standard():
    found = []
    for number in range(3):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            found.append(None)
    return found

out, before = sys.argv[1], standard()
import threading
from ouroboros.dev import *
from ouroboros.event import *
from ouroboros.irm import list_names
from ouroboros.server import FlowServer, FlowRequestHandler

found = [list_names() is not None, standard() == before]
accepted = []
thread = threading.Thread(target=lambda: accepted.append(flow_accept(name="closed")))
thread.start()
while not accepted:
    try:
        flow = flow_alloc("closed", timeo=10)
        break
    except FlowNameException:
        pass
thread.join()
other = accepted[0]
with FlowSet([other]) as flows, FlowServer("served", FlowRequestHandler):
    found.append(standard() == before)
    flow.write(b"hello")
    queue = FEventQueue()
    flows.wait(queue)
    found.append(other.read() == b"hello")
    found.append(standard() == before)
flow.dealloc()
other.dealloc()
with open(out, "w") as file:
    file.write(repr(found))
"""


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_program_with_standard_descriptors_closed_starts_a_node_and_has_flows(
    embedded: Path, tmp_path: Path, closed: list[int]
) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(CLOSED_PROGRAM)
    words = "".join(map(str, closed))
    command = [sys.executable, "-c", CLOSER, words, sys.executable, str(program), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == repr([True] * 5)
    assert node_info().embedded


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_node_and_a_command_do_without_standard_descriptors(
    runtime_dir: Path, tmp_path: Path, closed: list[int]
) -> None:
    words = "".join(map(str, closed))
    ready, child_end = os.pipe()
    high = fcntl.fcntl(child_end, fcntl.F_DUPFD, 10)
    os.close(child_end)
    irmd = [sys.executable, "-m", "ouroboros.tools.irmd", "--ready-fd", str(high)]
    with (tmp_path / "log").open("w") as log:
        node = subprocess.Popen(
            [sys.executable, "-c", CLOSER, words, *irmd],
            pass_fds=[high],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(high)
    with os.fdopen(ready, "rb") as pipe:
        assert pipe.read() == b"ready\n"
    command = [sys.executable, "-c", CLOSER, words, sys.executable, "-m", "ouroboros.tools.irm", "name", "create", "n"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Nothing of the node is in the place of a standard descriptor.
    for number in range(3):
        assert not os.readlink(f"/proc/{node.pid}/fd/{number}").startswith(("socket", "anon_inode", "/memfd"))
    node.terminate()
    assert node.wait() == 0


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_c_program_does_without_standard_descriptors(
    embedded: Path, c_program: Path, closed: list[int], tmp_path: Path
) -> None:
    words = "".join(map(str, closed))
    program = CProgram(sys.executable, "-c", CLOSER, words, str(c_program), "accept", "read", "event", "dealloc")
    until(lambda: (embedded / "irm.sock").exists())
    while True:
        try:
            flow = flow_alloc("peer")
            break
        except LookupError:
            continue
    with flow:
        flow.writeline("hello")
        for number in closed:
            assert not os.path.lexists(f"/proc/{program.pid}/fd/{number}")
    status, said, complaint = program.finish()
    assert status == 0
    if 1 not in closed:
        assert said == "accept 64\nread hello\nevent 16\ndealloc 0\n"
    assert complaint == ""
