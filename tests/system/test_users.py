"""A node that several users share: whose process is whose, and who may do what over which connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import NodeProcess, Programs, Shell, node_info, until, users_of
from udp_nodes import free_port

from ouroboros.errors import BindError, FlowPermissionException, FlowTimeoutException, NodeError
from ouroboros.runtime import client, peers
from ouroboros.wire.control import BindProgram, ListNames, NameEntry

USER = 60001

#: Connections by hand, for shells. The node takes what is said over one for what the process says that connected it.
BY_HAND = """
import array, os, socket
from ouroboros.wire import control as messages
from ouroboros.wire.control import *
from ouroboros.runtime.instance import instance

# Another user may not read what it is made of.
INSTANCE = instance()

def connect():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/irm.sock")
    return sock

def ask(sock, request):
    sock.sendall(messages.encode(request))
    reader = MessageReader()
    while (body := reader.next()) is None:
        data = sock.recv(65536)
        if not data:
            return "hung up"
        reader.feed(data)
    answer = messages.decode_answer(body)
    return answer.text if isinstance(answer, Failed) else "done"

def hello(sock, number=None):
    return ask(sock, Hello(messages.VERSION, "program", INSTANCE if number is None else number))
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs of two users")


@pytest.fixture(params=["pidfds of peers", "an older kernel"])
def any_node(request: pytest.FixtureRequest, make_node: Callable[..., NodeProcess]) -> NodeProcess:
    """A node that others may connect to, also one that the kernel gives no pidfd of a peer."""
    within = [sys.executable, "-c", _WITHOUT_PEER_PIDFD] if request.param == "an older kernel" else []
    node = make_node(within=within)
    node.directory.chmod(0o755)
    return node


_WITHOUT_PEER_PIDFD = """
import sys
from ouroboros.runtime import peers
from ouroboros.tools.irmd import main
peers.SO_PEERPIDFD = 9999
sys.argv = ["irmd", *sys.argv[4:]]
main()
"""


@pytest.fixture
def shell(any_node: NodeProcess, programs: Programs) -> Shell:
    shell = programs.shell("program")
    shell.do(BY_HAND)
    return shell


def names() -> list[str]:
    entries: list[NameEntry] = client.request(ListNames())
    return sorted(entry.name for entry in entries)


# --- trust is of a connection


@as_root
def test_a_process_that_gave_up_root_does_not_manage_the_node_any_more(shell: Shell, tmp_path: Path) -> None:
    shell.do("client.request(CreateName('as-root', 'spillover')); open_before = connect(); hello(open_before)")
    shell.do(f"os.setresgid({USER}, {USER}, {USER}); os.setresuid({USER}, {USER}, {USER})")
    program = f"BindProgram('/bin/sh', 'n', True, ['-c', 'id -u > {tmp_path}/ran'])"
    for request in ("CreateName('later', 'spillover')", "DestroyName('as-root')", program, "CreateIpcp('l', 'local')"):
        with pytest.raises(BindError, match="only the user who runs this node, and root, may manage it"):
            shell.do(f"client.request({request})")
        assert "only the user who runs this node" in shell.do(f"sock = connect(); hello(sock); ask(sock, {request})")
    with pytest.raises(FlowPermissionException):
        shell.do("flow_accept(timeo=0, name='taken')")
    # A connection is what it was when it was made, as an open file is.
    assert shell.do("ask(open_before, CreateName('by-old', 'spillover'))") == "done"
    assert names() == ["as-root", "by-old"]
    assert not (tmp_path / "ran").exists()


@as_root
def test_a_node_enrolls_for_programs_of_others_in_the_layers_of_its_file(
    make_node: Callable[..., NodeProcess], programs: Programs, tmp_path: Path
) -> None:
    """Nobody is there, so it can be told who was tried."""
    config = tmp_path / "irmd.toml"
    config.write_text(
        '[users]\njoin = ["hall"]\n[udp4.net0]\nbootstrap = "net"\nip = "127.0.0.1"\n'
        f'port = {free_port()}\npeers = ["hall@127.0.0.2", "room@127.0.0.2"]\n'
    )
    make_node("--config", str(config)).directory.chmod(0o755)
    shell = programs.shell("program")
    shell.do(f"os.setresuid({USER}, {USER}, {USER})")
    with pytest.raises(FlowPermissionException, match=r"`join` in \[users\]"):
        shell.do("flow_join('room', timeo=0.2)")
    with pytest.raises(FlowTimeoutException, match="no member of broadcast layer 'hall'"):
        shell.do("flow_join('hall', timeo=0.2)")


@as_root
def test_names_and_flows_that_a_process_has_are_its_own_after_it_gave_up_root(shell: Shell, programs: Programs) -> None:
    peer = programs.shell("peer")
    shell.begin_blocked("before = flow_accept(name='kept')", "node")
    peer.do("first = flow_alloc('kept')")
    shell.answer()
    shell.do(f"os.setresuid({USER}, {USER}, {USER})")
    shell.begin_blocked("after = flow_accept()", "node")
    peer.do("second = flow_alloc('kept')")
    shell.answer()
    peer.do("first.write(b'1'); second.write(b'2')")
    assert shell.do("before.read(), after.read()") == (b"1", b"2")
    assert node_info().processes == 3
    # It lets go of both over whatever connection it has.
    shell.do("before.dealloc(); after.dealloc()")
    peer.do("first.dealloc(); second.dealloc()")
    # We are served before others.
    until(lambda: node_info().flows == 0)


@as_root
def test_an_effective_user_counts_while_it_lasts(shell: Shell) -> None:
    shell.do("client.request(CreateName('a', 'spillover'))")
    shell.do(f"os.seteuid({USER})")
    with pytest.raises(BindError):
        shell.do("client.request(CreateName('b', 'spillover'))")
    shell.do("os.seteuid(0)")
    shell.do("client.request(CreateName('c', 'spillover'))")
    assert names() == ["a", "c"]


@as_root
def test_a_program_of_another_user_is_none_of_a_name_by_what_it_is_called(shell: Shell) -> None:
    shell.do("client.request(CreateName('a', 'spillover'))")
    shell.do(f"os.setresuid({USER}, {USER}, {USER}); hello(connect())")
    client.request(BindProgram("/bin/program.py", "a", False, []))
    (entry,) = client.request(ListNames())
    assert entry.processes == []


@as_root
def test_a_connection_that_is_passed_on_has_the_rights_of_whoever_made_it(shell: Shell, programs: Programs) -> None:
    stranger = programs.shell("stranger")
    stranger.do(BY_HAND)
    pair = "near, far = socket.socketpair()"
    stranger.do(f"os.setresuid({USER}, {USER}, {USER}); given = connect(); hello(given)")
    # By the descriptor of a process that root may look into; a message with SCM_RIGHTS is no different.
    shell.do(f"{pair}; pidfd = os.pidfd_open({stranger.pid})")
    number = stranger.do("given.fileno()")
    shell.do(
        f"import ctypes; got = ctypes.CDLL(None).syscall(438, pidfd, {number}, 0); sock = socket.socket(fileno=got)"
    )
    assert "only the user who runs this node" in shell.do("ask(sock, CreateName('a', 'spillover'))")
    assert names() == []


@as_root
def test_a_socket_that_is_a_link_does_not_choose_the_node(
    node: NodeProcess, tmp_path: Path, programs: Programs
) -> None:
    node.directory.chmod(0o755)
    shell = programs.shell("victim")
    with tempfile.TemporaryDirectory(prefix="o-") as shared:
        socket_ = Path(shared) / "irm.sock"
        socket_.symlink_to(node.directory / "irm.sock")
        shell.do(f"os.setresuid({USER}, {USER}, {USER}); os.environ['OUROBOROS_RUNTIME_DIR'] = {shared!r}")
        # Root's own directory, then one of whoever was first.
        os.chmod(shared, 0o755)
        with pytest.raises(NodeError, match="is a symbolic link and leads to the socket of another node"):
            shell.do("flow_accept(timeo=0)")
        os.chown(shared, 12345, 12345)
        with pytest.raises(NodeError, match="is not safe: it belongs to user 12345"):
            shell.do("flow_accept(timeo=0)")
        os.chown(shared, USER, USER)
        os.chmod(shared, 0o777)
        with pytest.raises(NodeError, match="is not safe: others can write it: `chmod go-w "):
            shell.do("flow_accept(timeo=0)")
    assert node_info().processes == 1


# --- a process is what the kernel says it is


def test_a_connection_from_before_an_exec_does_not_speak_for_what_was_executed(shell: Shell) -> None:
    shell.do("old = connect(); mine = connect(); hello(mine, 1)")
    assert shell.do("ask(mine, Accept('a', 0.0))") == "nobody asked for a flow in time"
    assert "executed another program since it made this connection" in shell.do("hello(old, 2)")
    # The process is still known, by its instance.
    assert shell.do("ask(mine, ListNames())") == "done"
    assert shell.do("other = connect(); hello(other, 1)") == "done"
    (entry,) = client.request(ListNames())
    assert entry.processes == [shell.pid]
    # What is executed connects anew, and is another one then.
    assert shell.do("hello(connect(), 3)") == "done"
    (entry,) = client.request(ListNames())
    assert entry.processes == []
    assert shell.do("mine.recv(1)") == b""


def test_connections_that_say_hello_in_another_order_are_of_one_process(shell: Shell) -> None:
    shell.do("one = connect(); two = connect()")
    assert shell.do("hello(two), hello(one)") == ("done", "done")
    assert node_info().processes == 2


CONNECT_AND_END = """
near, far = socket.socketpair()
child = os.fork()
if child == 0:
    {change}
    sock = connect()
    socket.send_fds(far, [b"x"], [sock.fileno()])
    os._exit(0)
_, (number,), *_ = socket.recv_fds(near, 1, 1)
orphan = socket.socket(fileno=number)
"""


def test_a_connection_whose_process_has_ended_speaks_for_nobody(shell: Shell) -> None:
    # A zombie has its number still; afterwards it can be that of another one.
    zombie = "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)"
    shell.do(CONNECT_AND_END.format(change="") + zombie)
    assert "has ended" in shell.do("hello(orphan)")
    shell.do(CONNECT_AND_END.format(change="") + "os.waitpid(child, 0)")
    text = shell.do("hello(orphan)")
    assert "has ended" in text
    assert node_info().processes == 1


REUSE = """
import os, select, subprocess, sys, time

exec(sys.argv[1])
MODE, USER = sys.argv[2], int(sys.argv[3])
stderr = open(sys.argv[4], "w")
ready, node_end = os.pipe()
boot = [sys.executable, "-m", "ouroboros.tools.irmd"]
if MODE == "an older kernel":
    boot = [sys.executable, "-c", sys.argv[5], *boot]
node = subprocess.Popen([*boot, "--ready-fd", str(node_end)], pass_fds=[node_end], stderr=stderr)
os.close(node_end)
assert os.read(ready, 10)

def fork(body, number=None):
    # The next process gets that number, if it is free.
    if number is not None:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(number - 1))
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return pid

near, far = socket.socketpair()

def stranger():
    os.setresuid(USER, USER, USER)
    sock = connect()
    socket.send_fds(far, [b"x"], [sock.fileno()])
    os._exit(0)

number = fork(stranger)
_, (descriptor,), *_ = socket.recv_fds(near, 1, 1)
orphan = socket.socket(fileno=descriptor)
os.waitpid(number, 0)
# The node accepts in order: once this one is answered, it has the other.
assert hello(connect()) == "done"

said = os.pipe()
def victim():
    sock = connect()
    assert hello(sock) == "done"
    sock.sendall(messages.encode(Accept("bank", None)))
    # Its hello and request came in before these are answered.
    other = connect()
    assert hello(other) == "done" and ask(other, ListNames()) == "done"
    os.write(said[1], b"ready")
    # Nothing may ever come: it would be a hanging up.
    select.select([sock], [], [])

assert fork(victim, number) == number
assert os.read(said[0], 5) == b"ready"
print(hello(orphan, 12345))
asked = connect()
hello(asked)
print(ask(asked, Alloc("bank", QoSSpec(), 5.0)))
node.terminate()
node.wait()
"""


@as_root
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/sys/kernel/ns_last_pid").exists(), reason="the kernel gives no choice of numbers")
@pytest.mark.parametrize("mode", ["pidfds of peers", "an older kernel"])
def test_a_stranger_does_not_make_the_node_forget_the_process_that_got_his_number(
    runtime_dir: Path, tmp_path: Path, mode: str
) -> None:
    runtime_dir.chmod(0o755)
    script = tmp_path / "reuse.py"
    script.write_text("from ouroboros.qos import QoSSpec\n" + textwrap.dedent(REUSE))
    log = tmp_path / "irmd.log"
    inside = [sys.executable, str(script), BY_HAND, mode, str(USER), str(log), _WITHOUT_PEER_PIDFD]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *inside],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert done.returncode == 0, done.stderr + log.read_text()
    refused, flow = done.stdout.splitlines()
    # By the clock of an older kernel they may have started at one time; then they differ in their users.
    assert "has ended" in refused or (mode == "an older kernel" and "is not the one that made" in refused)
    assert flow == "done"
    assert users_of(runtime_dir) == []


def test_without_a_pidfd_of_the_peer_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "SO_PEERPIDFD", 9999)
    near, far = socket.socketpair()
    with near, far:
        peer = peers.identify(near, time.clock_gettime(time.CLOCK_BOOTTIME))
        os.close(peer.pidfd)
        assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
        # Accepted before this process started.
        with pytest.raises(NodeError, match="has ended"):
            peers.identify(near, 0.0)
        monkeypatch.setattr(peers, "credentials", lambda _: (os.getpid(), os.geteuid() + 1))
        with pytest.raises(NodeError, match="is not the one that made this connection"):
            peers.identify(near, time.clock_gettime(time.CLOCK_BOOTTIME))
        monkeypatch.setattr(peers, "credentials", lambda _: (0, os.geteuid()))
        with pytest.raises(NodeError, match="another pid namespace"):
            peers.identify(near, 0.0)


# --- user namespaces


def in_namespace(option: str, directory: Path) -> str:
    """What a program in a user namespace makes of its first call."""
    code = (
        "import os\nfrom ouroboros.dev import *\ntry: flow_accept(timeo=0)\nexcept FlowException as error: print(error)\n"
        "from ouroboros.runtime import client\nfrom ouroboros.wire.control import *\n"
        "try: os.kill(client.request(NodeInfo(), start=False).pid, 15)\nexcept FlowException: pass"
    )
    done = subprocess.run(
        ["unshare", *option.split(), sys.executable, "-c", code],
        env=os.environ | {"OUROBOROS_RUNTIME_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip("user namespaces are not allowed here")
    return done.stdout + done.stderr


def test_in_a_user_namespace_that_maps_nobody_there_is_no_telling_what_is_whose(embedded: Path) -> None:
    text = in_namespace("--user", embedded)
    assert "belongs to user 65534; who that is this user namespace does not tell, be it you: map the user" in text


@pytest.mark.parametrize("option", ["--user --map-root-user", "--user --map-current-user"])
def test_in_a_user_namespace_that_maps_its_user_all_is_as_usual(embedded: Path, option: str) -> None:
    assert in_namespace(option, embedded) == "nobody asked for a flow in time\n"
    until(lambda: users_of(embedded) == [])
