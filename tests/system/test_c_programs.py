"""Programs in C on our node: the functions of the prototype's libraries, and C and Python on one flow.

The programs in `tests/capi` check themselves, and say where they failed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from c_support import CProgram, build, cannot_build, install
from stuck_node import StuckNode, piecemeal, polite, polite_piecemeal, silent
from support import Background, NodeProcess, Programs, asleep_in, node_info, until
from udp_nodes import Nodes
from unicast_nodes import at

from ouroboros import cli, irm
from ouroboros.dev import FlowDownException, FlowPeerException, QoSSpec, flow_accept, flow_alloc
from ouroboros.runtime import client
from ouroboros.testing.link import NamespacePair
from ouroboros.wire.control import BindProcess, ListFlows, ListNames

pytestmark = [
    pytest.mark.slow,
    # They share the libraries that one of them installs.
    pytest.mark.xdist_group("c programs"),
    pytest.mark.skipif(cannot_build() is not None, reason=cannot_build() or ""),
]

Run = Callable[..., CProgram]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the libraries are installed."""
    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix)
    return prefix


@pytest.fixture
def run(prefix: Path, runtime_dir: Path, tmp_path: Path) -> Iterator[Run]:
    """Builds and starts a program of `tests/capi`."""
    running: list[CProgram] = []

    def start(name: str, *words: str, **environment: str) -> CProgram:
        program = tmp_path / name
        if not program.exists():
            build(name, prefix, tmp_path)
        running.append(CProgram(str(program), *words, **environment))
        return running[-1]

    yield start
    for program in running:
        program.dispose()


@pytest.mark.parametrize("name", ["flows", "control", "events", "join", "threads", "forks", "signals", "storm"])
def test_the_functions_do_what_they_say(node: NodeProcess, run: Run, name: str) -> None:
    assert run(name).finish() == (0, "ok\n", "")
    # It gave everything back, also what its children and cancelled threads had.
    until(lambda: node_info().processes == 1)
    assert client.request(ListFlows()) == []


def test_a_child_of_a_fork_can_tell_reasons_while_threads_of_its_parent_do(node: NodeProcess, run: Run) -> None:
    assert run("storm", OUROBOROS_DEBUG="1").finish()[:2] == (0, "ok\n")


def test_the_management_functions_do_what_they_say(node: NodeProcess, run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert run("manage", UDP_PORT=str(port), SOME_FILE=str(Path(__file__))).finish() == (0, "ok\n", "")
    assert {entry.name for entry in client.request(ListNames())} >= {"spilling"}
    members = irm.list_ipcps()
    a, b = (next(each for each in members if each.name == name) for name in ("a", "b"))
    assert {(each.component, each.name, each.state) for each in b.connections} == {
        ("Management", "a", "up"),
        ("Data Transfer", "a", "up"),
    }
    assert {each.dir_hash_algo for each in (a, b)} == {irm.DirectoryHashAlgo.SHA3_512}
    for name in ("b", "a"):
        cli.destroy_ipcp(name)


@pytest.mark.skipif(NamespacePair.lacks() is not None, reason=str(NamespacePair.lacks()))
def test_layers_on_an_ethernet_segment(make_node: Callable[..., NodeProcess], run: Run, tmp_path: Path) -> None:
    with NamespacePair(None) as pair:
        node = make_node(within=pair.command(0), directory=tmp_path / "node")
        program = run("segment", OUROBOROS_RUNTIME_DIR=str(node.directory), DEVICE="veth0")
        assert program.finish() == (0, "ok\n", "")
        with at(node.directory):
            saved = irm.save_configuration()
            layers = {each.layer: (each.type.word, each.dir_hash_algo) for each in irm.list_ipcps()}
    assert layers == {name: (f"eth-{name}", irm.DirectoryHashAlgo.SHA3_384) for name in ("dix", "llc")}
    assert [saved.count(words) for words in ('dev = "veth0"', f"ethertype = {0xA7A7}")] == [2, 1]


def test_the_functions_do_what_they_say_without_spinning(node: NodeProcess, run: Run) -> None:
    for name in ("flows", "events", "threads", "storm"):
        assert run(name, OUROBOROS_SPIN_US="0").finish() == (0, "ok\n", "")


def test_a_program_that_changed_its_user_is_one_process(node: NodeProcess, run: Run) -> None:
    if os.geteuid() == 0:
        # Its new user has to get to the node.
        node.directory.chmod(0o755)
    assert run("drops").finish() == (0, "ok\n", "")


# --- with Python at the other end


def test_a_c_program_allocates_a_flow_to_a_python_program(node: NodeProcess, run: Run) -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="python"))
    peer = run("peer", "alloc", "python", "write", "from C", "read", "dealloc", "listen")
    with acceptor.result() as flow:
        assert flow.get_qos() == QoSSpec(2**32 - 1, 0, 0, 1, 1, 0, 2**32 - 1)
        assert flow.readline() == "from C"
        flow.writeline("from Python")
        with pytest.raises(FlowDownException):
            flow.read()
    assert peer.finish() == (0, "alloc 64\nwrite 6\nread from Python\ndealloc 0\n", "")


def test_a_python_program_allocates_a_flow_to_a_c_program(node: NodeProcess, run: Run) -> None:
    peer = run("peer", "accept", "event", "read", "write", "answer", "listen", "dealloc")
    peer.until_asleep("node")
    client.request(BindProcess(peer.pid, "peer"))
    with flow_alloc("peer") as flow:
        flow.writeline("question")
        assert [peer.line() for _ in range(3)] == ["accept 64", "event 1", "read question"]
        assert flow.readline() == "answer"
    assert peer.finish()[0] == 0


def _accepted(run: Run, *words: str) -> CProgram:
    peer = run("peer", "accept", *words)
    peer.until_asleep("node")
    client.request(BindProcess(peer.pid, "peer"))
    return peer


def test_a_c_program_that_ends_lets_its_flows_go(node: NodeProcess, run: Run) -> None:
    peer = _accepted(run, "write", "last words", "listen")
    with flow_alloc("peer") as flow:
        assert peer.finish()[0] == 0
        assert flow.readline() == "last words"
        with pytest.raises(FlowDownException) as caught:
            flow.read()
        assert not isinstance(caught.value, FlowPeerException)


@pytest.mark.parametrize("words", [["die"], ["fork", "die"]], ids=["alone", "with a child"])
def test_the_death_of_a_c_program_is_seen(node: NodeProcess, run: Run, words: list[str]) -> None:
    peer = _accepted(run, *words)
    with flow_alloc("peer") as flow, pytest.raises(FlowPeerException):
        flow.read()
    assert peer.process.wait() == -signal.SIGKILL


def _kill(node: NodeProcess) -> None:
    node.kill()
    # Which it leaves behind.
    for sock in node.directory.glob("*.sock"):
        sock.unlink()


def test_a_c_program_outlives_its_node(make_node: Callable[..., NodeProcess], run: Run) -> None:
    node = make_node()
    peer = _accepted(run, "read", "write", "still here", "event", "dealloc")
    with flow_alloc("peer") as flow:
        assert peer.line() == "accept 64"
        _kill(node)
        flow.writeline("hello?")
        assert flow.readline() == "still here"
    assert peer.finish() == (0, "read hello?\nwrite 10\nevent 16\ndealloc 0\n", "")


def test_the_death_of_a_peer_is_seen_without_a_node(
    make_node: Callable[..., NodeProcess], programs: Programs, run: Run
) -> None:
    node = make_node()
    peer = _accepted(run, "event", "read")
    shell = programs.shell()
    shell.do("f = flow_alloc('peer'); None")
    assert peer.line() == "accept 64"
    _kill(node)
    shell.kill()
    assert peer.finish() == (0, "event 32\nread -1006\n", "")


def test_a_c_program_allocates_a_flow_to_another_node(nodes: Nodes, run: Run) -> None:
    accepting = nodes.accept()
    words = ("reliable", "alloc", "clock", "write", "what time?", "event", "read", "event", "read", "dealloc")
    peer = run("peer", *words, OUROBOROS_RUNTIME_DIR=str(nodes.near.directory))
    with accepting.result() as flow:
        assert flow.get_qos().reliable
        assert flow.readline() == "what time?"
        flow.writeline("noon")
    said = "alloc 64\nwrite 10\nevent 1\nread noon\nevent 16\nread -1005\ndealloc 0\n"
    assert peer.finish() == (0, said, "")


def test_a_flow_between_c_and_python_is_encrypted(node: NodeProcess, run: Run) -> None:
    peer = _accepted(run, "read", "write", "secret answer", "event", "dealloc")
    with flow_alloc("peer", QoSSpec(cypher_s=256)) as flow:
        assert flow.security is not None
        flow.writeline("secret question")
        assert flow.readline() == "secret answer"
    assert peer.finish() == (0, "accept 64\nread secret question\nwrite 13\nevent 16\ndealloc 0\n", "")


def test_a_flow_that_a_c_program_allocates_is_encrypted_when_its_node_says_so(
    node: NodeProcess, run: Run, runtime_dir: Path
) -> None:
    settings = runtime_dir / "security" / "client" / "python" / "enc.conf"
    settings.parent.mkdir(parents=True)
    settings.touch()
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="python"))
    peer = run("peer", "alloc", "python", "write", "secret question", "read", "dealloc")
    with acceptor.result() as flow:
        assert flow.security is not None
        assert flow.get_qos().cypher_s == 256
        assert flow.readline() == "secret question"
        flow.writeline("secret answer")
    assert peer.finish() == (0, "alloc 64\nwrite 15\nread secret answer\ndealloc 0\n", "")


# --- the node


def test_python_and_c_in_one_process_are_one_process(node: NodeProcess, prefix: Path, programs: Programs) -> None:
    shell = programs.shell()
    shell.do("f = None; client.request(__import__('ouroboros.wire.control').wire.control.NodeInfo()); None")
    shell.do(f"import ctypes; irm = ctypes.CDLL({str(prefix / 'lib' / 'libouroboros-irm.so')!r}); None")
    shell.do(f"dev = ctypes.CDLL({str(prefix / 'lib' / 'libouroboros-dev.so')!r}); None")
    assert shell.do("irm.irm_bind_process(os.getpid(), b'mixed')") == 0
    acceptor = Background.waiting_for_node(lambda: flow_alloc("mixed"))
    assert shell.do("dev.flow_accept(None, None)") == 64
    with acceptor.result() as flow:
        assert shell.do("dev.flow_write(64, b'from C', 6)") == 6
        assert flow.readline() == "from C"
    # Had the node taken them for two processes, the second hello would have cost the first its flows.
    acceptor = Background.waiting_for_node(lambda: flow_alloc("mixed"))
    shell.do("f = flow_accept(); None")
    acceptor.result().dealloc()
    assert shell.do("dev.flow_dealloc(64)") == 0
    assert shell.do("f.dealloc()") is None
    assert node_info().processes == 2


def test_without_a_node_calls_fail_and_say_why(runtime_dir: Path, run: Run) -> None:
    peer = run("peer", "alloc", "x", "accept", "dealloc", OUROBOROS_AUTOSTART="0")
    status, said, complaint = peer.finish()
    assert (status, said) == (0, "alloc -1002\naccept -1002\ndealloc -22\n")
    assert complaint == f"ouroboros: no node runs in {runtime_dir}: start one with `irmd`\n"


def test_without_anything_that_starts_a_node_calls_say_so(runtime_dir: Path, run: Run, prefix: Path) -> None:
    starter = prefix / "lib" / "ouroboros" / "irmd"
    try:
        starter.chmod(0o644)
        status, said, complaint = run("peer", "alloc", "x", PATH="/nowhere").finish()
    finally:
        starter.chmod(0o755)
    assert (status, said) == (0, "alloc -1002\n")
    assert "OUROBOROS_IRMD" in complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a program the rights of any group")
def test_a_program_with_the_rights_of_another_starts_no_node(
    runtime_dir: Path, prefix: Path, tmp_path: Path, run: Run
) -> None:
    # Whoever runs it chooses its environment, and would choose what it starts with its rights.
    program = build("peer", prefix, tmp_path)
    os.chown(program, -1, 65534)
    program.chmod(0o2755)
    status, said, complaint = run("peer", "alloc", "x", OUROBOROS_IRMD="/bin/false").finish()
    assert (status, said) == (0, "alloc -1002\n")
    assert "the rights of somebody else" in complaint
    assert list(runtime_dir.iterdir()) == []


def test_a_c_program_starts_a_node(embedded: Path, run: Run) -> None:
    peer = run("peer", "accept", "read", "listen", PATH="/nowhere")
    until(lambda: (embedded / "irm.sock").exists())
    peer.until_asleep("node")
    # On the embedded node a program that nobody bound accepts under its own name.
    with flow_alloc("peer") as flow:
        flow.writeline("hello")
        assert peer.line() == "accept 64"
        assert peer.line() == "read hello"
    assert node_info().embedded
    assert peer.finish()[0] == 0


def test_a_c_program_that_ignores_its_children_starts_a_node(embedded: Path, run: Run) -> None:
    irmd = Path(sys.executable).with_name("irmd")
    assert run("peer", "childless", "alloc", "x", OUROBOROS_IRMD=str(irmd)).finish() == (0, "alloc -1007\n", "")
    # The node has children of its own.
    status = Path(f"/proc/{node_info().pid}/status").read_text()
    ignored = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn"))
    assert ignored & 1 << signal.SIGCHLD - 1 == 0


def test_reasons_are_told_to_who_asks(node: NodeProcess, run: Run) -> None:
    assert run("peer", "alloc", "x").finish() == (0, "alloc -1007\n", "")
    _, _, complaint = run("peer", "alloc", "x", OUROBOROS_DEBUG="1").finish()
    assert complaint.startswith("ouroboros: FlowNameException: ")
    assert "'x'" in complaint


# --- a node that does not answer


@pytest.fixture(params=[None, silent, polite, piecemeal, polite_piecemeal])
def stuck(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[StuckNode]:
    behave = request.param
    node = StuckNode(runtime_dir, behave, backlog=100 if behave else 0)
    if behave is None:
        node.fill()
    yield node
    node.close()


def test_the_calls_of_a_c_program_keep_their_time_limit(stuck: StuckNode, run: Run) -> None:
    status, said, complaint = run("peer", "hurry", "alloc", "x", "accept", "join", "x").finish()
    assert (status, said) == (0, "alloc -1002\naccept -1002\njoin -1002\n")
    assert f"does not answer: its process {os.getpid()} is stuck or overloaded" in complaint


def test_a_c_program_is_told_that_its_node_is_stopped(node: NodeProcess, run: Run) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    try:
        status, said, complaint = run("peer", "hurry", "alloc", "x").finish()
    finally:
        os.kill(node.pid, signal.SIGCONT)
    assert (status, said) == (0, "alloc -1002\n")
    assert f"its process {node.pid} is stopped; have it go on (`kill -CONT {node.pid}`)" in complaint


def test_a_node_that_answers_in_time_is_in_time_for_a_c_program(node: NodeProcess, run: Run) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    peer = run("peer", "alloc", "x")
    until(lambda: asleep_in(peer.pid, peer.pid, "node"))
    os.kill(node.pid, signal.SIGCONT)
    assert peer.finish() == (0, "alloc -1007\n", "")


def test_a_c_program_never_waits_to_give_a_flow_back(node: NodeProcess, run: Run) -> None:
    peer = _accepted(run, "listen", "dealloc", "listen")
    with flow_alloc("peer") as flow:
        assert peer.line() == "accept 64"
        os.kill(node.pid, signal.SIGSTOP)
        try:
            assert peer.process.stdin is not None
            peer.process.stdin.write(b"go")
            peer.process.stdin.flush()
            assert peer.line() == "dealloc 0"
            with pytest.raises(FlowDownException):
                flow.read()
        finally:
            os.kill(node.pid, signal.SIGCONT)
    until(lambda: client.request(ListFlows()) == [])
    assert peer.finish()[0] == 0


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/bin/false", "the node did not start: it said nothing"),
        ("/no/irmd", "cannot start a node"),
        (None, "which it is not"),
    ],
)
def test_what_is_no_node_does_not_become_one_of_a_c_program(
    runtime_dir: Path, run: Run, tmp_path: Path, command: str | None, why: str
) -> None:
    peer = run("peer", "alloc", "x", OUROBOROS_IRMD=command or str(itself(tmp_path)))
    status, said, complaint = peer.finish()
    assert (status, said) == (0, "alloc -1002\n")
    assert why in complaint


def itself(folder: Path) -> Path:
    """The program once more, in the place of a node."""
    script = folder / "itself"
    script.write_text(f"#!/bin/sh\nexec {folder}/peer alloc x > /dev/null\n")
    script.chmod(0o755)
    return script


def test_a_starter_that_is_stopped_keeps_no_c_program_for_ever(runtime_dir: Path, run: Run) -> None:
    with (runtime_dir / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        _, said, complaint = run("peer", "hurry", "alloc", "x").finish()
    assert said == "alloc -1002\n"
    assert "process 4711 has begun to and does not come to an end" in complaint


# --- what is installed


def test_the_libraries_have_the_names_that_programs_ask_for(prefix: Path) -> None:
    for name in ("dev", "irm"):
        library = prefix / "lib" / f"libouroboros-{name}.so.0.23.0"
        assert f"libouroboros-{name}.so.0.23\0".encode() in library.read_bytes()
        for link in ("", ".0.23"):
            assert (prefix / "lib" / f"libouroboros-{name}.so{link}").resolve() == library


#: The functions of `dev.h`, `fccntl.h` and `fqueue.h`, and those of `irm.h`.
FUNCTIONS = {
    "dev": """flow_alloc flow_accept flow_join flow_dealloc flow_read flow_write fccntl
        fset_create fset_destroy fset_zero fset_add fset_del fset_has
        fqueue_create fqueue_destroy fqueue_next fqueue_type fevent""",
    "irm": """irm_create_ipcp irm_destroy_ipcp irm_list_ipcps irm_enroll_ipcp irm_bootstrap_ipcp irm_connect_ipcp
        irm_disconnect_ipcp irm_bind_program irm_unbind_program irm_bind_process irm_unbind_process
        irm_create_name irm_destroy_name irm_list_names irm_reg_name irm_unreg_name""",
}


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
@pytest.mark.parametrize("name", ["dev", "irm"])
def test_the_libraries_have_their_functions_and_nothing_else(prefix: Path, name: str) -> None:
    words = ["nm", "-D", "--defined-only", "--format=just-symbols", str(prefix / "lib" / f"libouroboros-{name}.so")]
    symbols = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(symbols) == sorted(FUNCTIONS[name].split())


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
def test_pkg_config_finds_them(prefix: Path) -> None:
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    for name in ("dev", "irm"):
        assert _pkg_config("--modversion", name, environment) == ["0.23.0"]
        flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-louroboros-{name}"]
        assert _pkg_config("--cflags --libs", name, environment) == flags


def _pkg_config(options: str, name: str, environment: dict[str, str]) -> list[str]:
    words = ["pkg-config", *options.split(), f"ouroboros-{name}"]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_headers_can_be_used_from_cpp(prefix: Path, tmp_path: Path) -> None:
    headers = sorted((prefix / "include" / "ouroboros").glob("*.h"))
    assert len(headers) == 10
    source = tmp_path / "all.cpp"
    source.write_text("".join(f"#include <ouroboros/{header.name}>\n" for header in headers))
    subprocess.run(
        ["g++", "-std=c++11", "-Wall", "-Werror", f"-I{prefix}/include", "-c", str(source), "-o", "/dev/null"],
        check=True,
    )


def test_libraries_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libouroboros-dev.so.0.23").write_text("of somebody else")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        install(tmp_path)
    assert b"not ours" in caught.value.stderr
    assert (tmp_path / "lib" / "libouroboros-dev.so.0.23").read_text() == "of somebody else"


def test_they_can_be_installed_again(prefix: Path) -> None:
    install(prefix)
    assert os.access(prefix / "lib" / "ouroboros" / "irmd", os.X_OK)


def test_the_starter_runs_our_node(prefix: Path, runtime_dir: Path) -> None:
    said = subprocess.run(
        [prefix / "lib" / "ouroboros" / "irmd", "--version"], capture_output=True, text=True, check=True
    )
    assert "irmd" in said.stdout or "version" in said.stdout
