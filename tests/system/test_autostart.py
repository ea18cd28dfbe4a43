"""Programs that the node starts when somebody asks for their name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import Background, NodeProcess, Programs, children, forever, node_info, until, users_of

from ouroboros.dev import FlowDownException, FlowPeerException, FlowRefusedException, flow_alloc
from ouroboros.runtime import client
from ouroboros.wire.control import BindProgram, ListNames

#: Tells each client its pid and its arguments, and then does what the client says.
SERVER = """
while True:
    with flow_accept() as f:
        f.writeline(repr((os.getpid(), sys.argv[1:])))
        try:
            word = f.readline()
        except FlowDownException:
            continue
    if word == "end":
        sys.exit(0)
    if word == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def bind(programs: Programs, source: str, name: str = "served", *arguments: str, program: str = "server.py") -> None:
    path = str(programs.script(program, source))
    client.request(BindProgram(path, name, True, list(arguments)))


def ask(name: str, word: str) -> tuple[int, list[str]]:
    """Have a flow, say a word, and return pid and arguments of the program."""
    with flow_alloc(name) as flow:
        pid, arguments = eval(flow.readline())
        flow.writeline(word)
        with pytest.raises(FlowDownException):
            flow.read()
    return pid, arguments


def test_a_program_is_started_on_demand_with_its_arguments(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER, "served", "-x", "two words", "")
    assert children(node.pid) == []
    pid, arguments = ask("served", "next")
    assert arguments == ["-x", "two words", ""]
    assert children(node.pid) == [pid]
    assert [(name.name, name.processes) for name in client.request(ListNames())] == [("served", [pid])]


def core_files(pid: int) -> int:
    """What core files of a process have of its memory, see core(5)."""
    return int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16)


def test_core_files_have_nothing_of_the_memory_of_a_node_and_all_of_the_programs_that_it_starts(
    node: NodeProcess, programs: Programs
) -> None:
    headers = 0x10
    assert core_files(node.pid) & ~headers == 0
    bind(programs, SERVER)
    pid, _ = ask("served", "next")
    assert core_files(pid) == core_files(os.getpid())


def test_a_running_program_serves_the_next_client(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER)
    assert len({ask("served", "next")[0] for _ in range(5)}) == 1


def test_clients_that_come_at_once_start_one_program(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER)
    clients = [Background(lambda: ask("served", "next")[0]) for _ in range(8)]
    assert len({each.result() for each in clients}) == 1
    assert len(children(node.pid)) == 1


@pytest.mark.parametrize("word", ["end", "crash"])
def test_a_program_that_ended_is_reaped_and_started_again_for_the_next_client(
    node: NodeProcess, programs: Programs, word: str
) -> None:
    bind(programs, SERVER)
    pids = [ask("served", word)[0] for _ in range(5)]
    assert len(set(pids)) == 5
    until(lambda: children(node.pid) == [])


def test_clients_that_wait_when_the_program_ends_are_served_by_the_next(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER)
    clients = [Background(lambda: ask("served", "end")[0]) for _ in range(5)]
    assert len({each.result() for each in clients}) == 5


def test_two_names_have_programs_of_their_own(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER, "one", "1", program="one.py")
    bind(programs, SERVER, "two", "2", program="two.py")
    (one, first), (two, second) = ask("one", "next"), ask("two", "next")
    assert one != two
    assert (first, second) == (["1"], ["2"])


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("sys.exit(3)", "status 3"),
        ("raise ZeroDivisionError", "status 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "signal"),
        ("from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()); sys.exit(4)", "status 4"),
        ("sys.exit(0)", "status 0"),
    ],
)
def test_a_program_that_fails_refuses_its_clients_with_its_status(
    node: NodeProcess, programs: Programs, source: str, how: str
) -> None:
    bind(programs, source)
    for _ in range(2):
        with pytest.raises(FlowRefusedException, match=how) as caught:
            flow_alloc("served")
        assert "server.py" in str(caught.value)
        assert isinstance(caught.value, ConnectionRefusedError)
    until(lambda: children(node.pid) == [])
    assert node_info().flows == 0


def test_all_clients_that_wait_are_refused_when_the_program_fails(node: NodeProcess, programs: Programs) -> None:
    bind(programs, "sys.exit(3)")
    clients = [Background(lambda: flow_alloc("served")) for _ in range(5)]
    for each in clients:
        with pytest.raises(FlowRefusedException, match="status 3"):
            each.result()


def test_a_program_that_cannot_be_started_refuses_its_clients(node: NodeProcess, programs: Programs) -> None:
    client.request(BindProgram("/nowhere/at/all", "nowhere", True, []))
    with pytest.raises(FlowRefusedException, match="could not be started"):
        flow_alloc("nowhere")
    path = programs.script("plain", "")
    path.chmod(0o644)
    client.request(BindProgram(str(path), "plain", True, []))
    with pytest.raises(FlowRefusedException, match="could not be started"):
        flow_alloc("plain")


def test_a_program_is_mended_by_binding_it_again(node: NodeProcess, programs: Programs) -> None:
    bind(programs, "sys.exit(3)")
    with pytest.raises(FlowRefusedException):
        flow_alloc("served")
    bind(programs, SERVER)
    ask("served", "next")


def test_programs_end_with_the_node(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER)
    pid, _ = ask("served", "next")
    with flow_alloc("served") as flow:
        assert node.stop() == 0
        with pytest.raises(FlowDownException):
            forever(flow.read)
    assert pid not in users_of(node.directory)
    assert users_of(node.directory) == []


@pytest.mark.slow
def test_a_program_that_ignores_sigterm_is_killed_with_the_node(node: NodeProcess, programs: Programs) -> None:
    source = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    f = flow_accept()
    f.writeline("up")
    while True:
        signal.pause()
    """
    bind(programs, source)
    with flow_alloc("served") as flow:
        assert flow.readline() == "up"
        assert node.stop() == 0
        with pytest.raises(FlowPeerException):
            flow.read()
    assert users_of(node.directory) == []
    assert "killed" in node.log()


def test_ctrl_c_for_the_node_is_not_one_for_its_programs(node: NodeProcess, programs: Programs) -> None:
    bind(programs, SERVER)
    pid, _ = ask("served", "next")
    assert os.getpgid(pid) != os.getpgid(node.pid)


def test_a_program_inherits_no_descriptors_of_the_node(node: NodeProcess, programs: Programs) -> None:
    bind(programs, "with flow_accept() as f: f.writeline(repr(sorted(os.listdir('/proc/self/fd'), key=int)))")
    with flow_alloc("served") as flow:
        # 0 to 2, the connection to the node, the flow, and the listing itself.
        assert len(eval(flow.readline())) <= 6


def test_a_program_that_is_killed_before_it_accepts_refuses_its_clients(node: NodeProcess, programs: Programs) -> None:
    bind(programs, "signal.pause()")
    waiting = Background.waiting_for_node(lambda: flow_alloc("served"))
    (pid,) = children(node.pid)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(FlowRefusedException, match="SIGKILL"):
        waiting.result()
