"""Another user does all that it can to a node of root's: it gets its share, and root goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Background, NodeProcess, Programs, Shell, descriptors, node_info, until

from ouroboros.dev import flow_alloc
from ouroboros.errors import BindError, NodeLimitError
from ouroboros.irm import node_info as irm_node_info
from ouroboros.runtime import client
from ouroboros.testing.impaired import ImpairedLayer
from ouroboros.wire.control import BindProgram, CreateName, ListNames, NodeInfo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs of two users")

USER = 60001

#: Small shares, so that an attack in small reaches them.
SHARES = """
[share.connections]
user = 20
users = 30
[share.processes]
user = 10
[share.requests]
user = 5
[share.flows]
user = 6
[share.answers]
user = 100_000
[share.memory]
user = 1_000_000
"""

#: For shells of another user, with connections by hand.
BY_HAND = f"""
import collections, contextlib, socket, struct
from ouroboros.wire import control as messages
from ouroboros.wire.control import *
from ouroboros.runtime.instance import instance

INSTANCE = instance()
os.setgroups([])
os.setresgid({USER}, {USER}, {USER})
os.setresuid({USER}, {USER}, {USER})
HELLO = messages.encode(Hello(messages.VERSION, "program", INSTANCE))

def connect(hello=True):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/irm.sock")
    if hello:
        sock.sendall(HELLO)
        said = answer(sock)
        assert said == Done(None), said
    return sock

def answer(sock):
    reader = MessageReader()
    while (body := reader.next()) is None:
        data = sock.recv(reader.missing)
        if not data:
            return None
        reader.feed(data)
    return messages.decode_answer(body)

def ask(sock, request):
    # Whoever is turned away may find that the node has said so and hung up.
    with contextlib.suppress(BrokenPipeError):
        sock.sendall(messages.encode(request))
    return answer(sock)

kept = []
"""


@pytest.fixture
def shared(make_node: Callable[..., NodeProcess], tmp_path: Path) -> NodeProcess:
    """A node of root's with small shares, that others may connect to."""
    file = tmp_path / "irmd.toml"
    file.write_text(SHARES)
    node = make_node("--config", str(file))
    node.directory.chmod(0o755)
    return node


@pytest.fixture
def other(shared: NodeProcess, programs: Programs) -> Shell:
    """A program of another user."""
    shell = programs.shell("other")
    shell.do(BY_HAND)
    return shell


def root_goes_on(programs: Programs, name: str = "of-root") -> None:
    """Root makes new connections, names and flows."""
    server = programs.shell("server")
    server.begin_blocked(f"f = flow_accept(name={name!r})", "node")
    with flow_alloc(name) as flow:
        server.answer()
        flow.write(b"works")
        assert server.do("f.read()") == b"works"
    server.do("f.dealloc()")


def held(kind: str, user: int = USER) -> int:
    entries = [each for each in node_info().shares if (each.user, each.kind) == (user, kind)]
    return entries[0].held if entries else 0


# --- connections


def test_idle_connections_of_a_user_are_bounded_and_the_next_one_hears_why(
    shared: NodeProcess, other: Shell, programs: Programs
) -> None:
    other.do("kept = [connect(hello=False) for _ in range(20)]")
    text = other.do("str(ask(connect(hello=False), Hello(messages.VERSION, 'program', INSTANCE)))")
    assert "NodeLimitError" in text
    assert f"user {USER} has 20 connections, and its share of this node is 20" in text
    assert "[share.connections]" in text
    # As a program hears it that uses the API.
    with pytest.raises(NodeLimitError, match="its share of this node is 20: end calls that wait, or programs"):
        other.do("flow_accept(timeo=0)")
    root_goes_on(programs)
    assert held("connections") == 20
    other.do("while kept: kept.pop().close()")
    until(lambda: held("connections") == 0)
    other.do("kept = [connect() for _ in range(20)]")


def test_users_together_leave_connections_to_the_owner(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    another = programs.shell("another")
    another.do(BY_HAND.replace(str(USER), str(USER + 1)))
    other.do("kept = [connect() for _ in range(20)]")
    another.do("kept = [connect() for _ in range(10)]")
    text = another.do("str(ask(connect(hello=False), Hello(messages.VERSION, 'program', INSTANCE)))")
    assert "all users of this node have 30 connections, and their share is 30, beside that of its owner" in text
    root_goes_on(programs)


def test_a_flood_of_connections_leaves_nothing_behind(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    root_goes_on(programs)
    before = descriptors(shared.pid)
    other.do(
        """
        for number in range(1000):
            sock = connect(hello=False)
            if number % 2: sock.close()
            else: kept.append(sock)
        """
    )
    node_info()
    assert descriptors(shared.pid)["socket"] <= before["socket"] + 30
    other.do("while kept: kept.pop().close()")
    until(lambda: held("connections") == 0)
    # Nor a queue for the user.
    until(lambda: not descriptors(shared.pid) - before)


# --- what is said, and what is not read


def test_half_a_message_is_all_that_is_kept_of_a_request(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    whole = "messages.encode(Alloc('x' * 200, QoSSpec(), 0.0))"
    for _ in range(15):
        other.do(f"sock = connect(); kept.append(sock); sock.sendall({whole}[:-1])")
    # One that is longer than any that a user has to say.
    text = other.do("sock = connect(); sock.sendall(struct.pack('>I', 5000) + bytes(100)); str(answer(sock))")
    assert "control message of 5000 bytes announced; the limit is 4096" in text
    root_goes_on(programs)
    # Those that were begun are waited for.
    assert "FlowNameException" in other.do(f"kept[3].sendall({whole}[-1:]); str(answer(kept[3]))")


def test_requests_in_a_row_are_answered_in_order_and_none_is_lost(shared: NodeProcess, other: Shell) -> None:
    other.do("sock = connect(); sock.sendall(messages.encode(NodeInfo()) * 500)")
    assert other.do("{type(answer(sock)).__name__ for _ in range(500)}") == {"Done"}


def test_a_connection_that_does_not_read_is_not_read(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    for number in range(200):
        client.request(CreateName(f"{number:03}" * 80, "spillover"))
    other.do("sock = connect(); sock.setblocking(False)")
    other.do("request, sent = messages.encode(ListNames()), 0")
    count = """
    with contextlib.suppress(BlockingIOError):
        for _ in range(100_000):
            sent += sock.send(request)
    sent
    """
    # Until the kernel has room for no more: the node takes one, and then reads nothing.
    other.do(count)
    until(lambda: held("answers") > 0)
    until(lambda: bool(other.do(count) < 100_000 * 10 and other.do(count) == other.do(count)))
    one_answer = 200 * 400
    assert held("answers") < one_answer
    root_goes_on(programs)
    # All of them are answered when it reads, be it that it has had enough.
    other.do("sock.setblocking(True)")
    said = other.do("collections.Counter(type(answer(sock)).__name__ for _ in range(sent // len(request)))")
    assert "'Done': 1" in str(said)
    assert "'Failed'" in str(said)
    until(lambda: held("answers") == 0)


def test_answers_that_a_user_does_not_read_are_a_share(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    for number in range(200):
        client.request(CreateName(f"{number:03}" * 80, "spillover"))
    other.do("kept = [connect() for _ in range(5)]")
    # Each is some 60 kB, and two of them are more than the share.
    other.do("kept[0].sendall(messages.encode(ListNames()))")
    until(lambda: held("answers") > 0)
    said = other.do("str(ask(kept[1], ListNames()))")
    assert "NodeLimitError" in said
    assert f"user {USER} has " in said
    assert "bytes of answers that were not read, and its share of this node is 100000: have programs read" in said
    root_goes_on(programs)
    # The connection goes on, and so does all when the first is read.
    assert other.do("len(answer(kept[0]).value)") == 200
    until(lambda: held("answers") == 0)
    assert other.do("len(ask(kept[1], ListNames()).value)") == 201


def test_descriptors_that_a_client_sends_do_not_come_in(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    """One of a socket that lingers would keep the node busy when it is dropped."""
    other.do("sock = connect()")
    outcome = other.do(
        """
        try: outcome = sock.getsockopt(socket.SOL_SOCKET, 83)
        except OSError: outcome = -1
        try: socket.send_fds(sock, [messages.encode(NodeInfo())], [0])
        except PermissionError: outcome = "refused"
        outcome
        """
    )
    root_goes_on(programs)
    if outcome == -1:
        pytest.skip("the kernel has no SO_PASSRIGHTS")
    assert outcome == "refused"


# --- processes, requests, flows, programs


def test_processes_of_a_user_are_bounded_and_one_that_is_refused_is_not_watched(
    shared: NodeProcess, other: Shell, programs: Programs
) -> None:
    other.do("connect()")
    other.do(
        """
        gate, opener = os.pipe()
        near, far = socket.socketpair()
        for _ in range(15):
            if os.fork() == 0:
                try:
                    near.close(); os.close(opener)
                    sock = connect(hello=False)
                    said = ask(sock, Hello(messages.VERSION, "child", 1))
                    far.sendall(b"1" if said == Done(None) else b"0")
                    os.read(gate, 1)
                finally:
                    os._exit(0)
        far.close()
        got = b""
        while len(got) < 15: got += near.recv(15)
        """
    )
    assert other.do("sorted(got.decode())") == ["0"] * 6 + ["1"] * 9
    assert held("processes") == 10
    assert descriptors(shared.pid)["anon_inode"] < 30
    root_goes_on(programs)
    other.do("os.close(opener)\nfor _ in range(15): os.wait()")
    until(lambda: held("processes") == 1)


def test_requests_that_wait_and_flows_are_bounded(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    client.request(CreateName("nobody", "spillover"))
    alloc = "messages.encode(Alloc('nobody', QoSSpec(), None))"
    other.do(f"for _ in range(5): kept.append(connect()); kept[-1].sendall({alloc})")
    until(lambda: held("requests") == 5)
    assert "has 5 requests for flows that wait" in other.do("str(ask(connect(), Alloc('nobody', QoSSpec(), None)))")
    other.do("while kept: kept.pop().close()")
    until(lambda: held("requests") == 0)

    server = programs.shell("server")
    server.do("import threading; kept = []")
    server.begin("while len(kept) < 7: kept.append(flow_accept(name='server'))")
    until(lambda: node_info().names == 2)
    other.do("flows = [flow_alloc('server') for _ in range(6)]")
    with pytest.raises(NodeLimitError, match=f"user {USER} has 6 ends of flows"):
        other.do("flow_alloc('server')")
    with flow_alloc("server"):
        pass
    server.answer()
    other.do("while flows: flows.pop().dealloc()")
    until(lambda: held("flows") == 0)


def test_memory_in_the_engine_is_a_share_and_what_is_beyond_it_waits(
    shared: NodeProcess, other: Shell, programs: Programs
) -> None:
    ImpairedLayer(client.request, 1, "server", "none")
    server = programs.shell("server")
    server.begin_blocked("kept = [flow_accept(name='server') for _ in range(3)]; None", "node")
    other.do("flows = [flow_alloc('server', QoSSpec(loss=0)) for _ in range(3)]")
    server.answer()
    # A ring at each end has 2 MiB of them; where each had up to 16 MiB between, there is 1 MB for all.
    other.do("write = lambda f: [f.write(bytes(1000)) for _ in range(8000)]")
    other.do(
        "threads = [threading.Thread(target=write, args=(f,)) for f in flows]; [each.start() for each in threads]; None"
    )
    until(lambda: held("memory") > 300_000)
    done = subprocess.run([sys.executable, "-m", "ouroboros", "info"], capture_output=True, text=True, check=True)
    assert " of 1000000 memory." in done.stdout
    root_goes_on(programs)
    # What the last one took in a turn is beyond it.
    assert held("memory") < 2_000_000
    # Nobody was ended: all of it arrives, and the memory is given back.
    for number in range(3):
        assert server.do(f"sum(len(kept[{number}].read()) for _ in range(8000))") == 8_000_000
    other.do("for each in threads: each.join()")
    other.do("for f in flows: f.dealloc()")
    server.do("for f in kept: f.dealloc()")
    until(lambda: held("memory") == 0)


def test_a_user_has_programs_started_so_often(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    client.request(BindProgram("/bin/false", "none", True, []))
    said = [other.do("str(ask(connect(), Alloc('none', QoSSpec(), 20.0)))") for _ in range(8)]
    assert sum("ended with status 1" in each for each in said) >= 5
    assert "has had this node start programs too often" in said[-1]
    assert shared.log().count("started false") <= 6


def test_lists_are_made_for_a_user_so_often(shared: NodeProcess, other: Shell) -> None:
    for number in range(1000):
        client.request(CreateName(f"n{number}", "spillover"))
    other.do("sock = connect()")
    answers = other.do("[str(ask(sock, ListNames()))[:2000] for _ in range(30)]")
    assert sum(each.startswith("Done") for each in answers) in (20, 21)
    assert f"user {USER} has had this node list too much" in answers[-1]
    assert "20000 entries at once, and 500 a second in the long run; this list has 1000: try again later" in answers[-1]
    # Root lists as much as it likes, and the other user goes on with other things.
    assert len(client.request(ListNames())) == 1000
    assert "Done" in other.do("str(ask(sock, NodeInfo()))")


# --- the log


def test_the_log_has_some_lines_of_a_user_and_a_count_of_the_rest(
    shared: NodeProcess, other: Shell, programs: Programs
) -> None:
    junk = "struct.pack('>I', 100) + b'\\xa1' * 100"
    other.do(f"for _ in range(500):\n sock = connect(hello=False); sock.sendall({junk}); answer(sock); sock.close()")
    said = programs.shell("broken")
    said.do(
        BY_HAND.replace(f"os.setresuid({USER}, {USER}, {USER})", "").replace(
            f"os.setresgid({USER}, {USER}, {USER})", ""
        )
    )
    said.do(f"sock = connect(hello=False); sock.sendall({junk}); answer(sock)")
    # A line of the owner's clients is beside them.
    lines = shared.log().splitlines()
    assert len(lines) < 50
    assert shared.stop() == 0
    text = shared.log()
    assert "lines that were left out: " in text
    assert f" of user {USER}" in text


def test_a_line_of_the_log_is_one_line_however_long_the_message(shared: NodeProcess, other: Shell) -> None:
    kind = "new\\nline" * 300
    other.do(f"body = b'\\x92\\xda' + struct.pack('>H', {len(kind) - 300}) + b'new\\nline' * 300 + b'\\x01'")
    other.do("sock = connect(); sock.sendall(struct.pack('>I', len(body)) + body); answer(sock)")
    # It is written after the answer.
    until(lambda: "closed" in shared.log())
    (line,) = [line for line in shared.log().splitlines() if "closed" in line]
    assert len(line) < 1200


# --- who may see and change it


def test_a_user_sees_its_own_shares_and_the_owner_all(shared: NodeProcess, other: Shell) -> None:
    other.do("kept = [connect() for _ in range(3)]")
    shares = {(each.user, each.kind): each for each in irm_node_info().shares}
    assert shares[USER, "connections"].held == 3
    assert (shares[USER, "connections"].limit, shares[USER, "flows"].limit) == (20, 6)
    assert other.do(
        "[each['held'] for each in ask(kept[0], NodeInfo()).value['shares'] if each['kind'] == 'processes']"
    ) == [1]
    another = other.do("{each['user'] for each in ask(kept[0], NodeInfo()).value['shares']}")
    assert another == {USER}
    with pytest.raises(BindError):
        other.do("client.request(CreateName('mine', 'spillover'))")


def test_info_shows_what_users_have(shared: NodeProcess, other: Shell) -> None:
    other.do("kept = [connect() for _ in range(3)]")
    done = subprocess.run([sys.executable, "-m", "ouroboros", "info"], capture_output=True, text=True, check=True)
    assert f"User {USER}: 3 of 20 connections." in done.stdout
    assert f"User {USER}: 1 of 10 processes." in done.stdout


# --- the owner's socket


def test_root_comes_in_when_the_queue_of_the_socket_is_full(shared: NodeProcess, other: Shell) -> None:
    """While the node stands still the other user connects until there is room for no more, and goes on when it runs."""
    node_info()
    shared.process.send_signal(signal.SIGSTOP)
    try:
        other.do(
            """
            full = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    full.append(socket.socket(socket.AF_UNIX))
                    full[-1].setblocking(False)
                    full[-1].connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/irm.sock")
            """
        )
        # The first is the connection that there is, the others need one.
        calls = [Background(lambda: client.request(NodeInfo(), start=False)) for _ in range(2)]
        for call in calls:
            # As a read of a flow: the node cannot be asked whether it has the request.
            call.until_asleep("poll")
        assert client.client.find()
    finally:
        shared.process.send_signal(signal.SIGCONT)
    for call in calls:
        assert call.result().pid == shared.pid
    with pytest.raises(PermissionError):
        _as_other(other, "own.sock")


def _as_other(other: Shell, name: str) -> None:
    outcome = other.do(
        f"""
        sock, outcome = socket.socket(socket.AF_UNIX), "in"
        try: sock.connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/{name}")
        except PermissionError: outcome = "kept out"
        outcome
        """
    )
    if outcome == "kept out":
        raise PermissionError


def test_a_flow_from_before_giving_up_root_is_let_go_of_by_the_other_socket(
    shared: NodeProcess, programs: Programs
) -> None:
    server, shell = programs.shell("server"), programs.shell("program")
    server.begin_blocked("f = flow_accept(name='server')", "node")
    shell.do("f = flow_alloc('server')")
    server.answer()
    shell.do(f"client.client._idle.pop().close(); os.setresuid({USER}, {USER}, {USER}); f.dealloc()")
    server.do("f.dealloc()")
    until(lambda: node_info().flows == 0)


def test_both_sockets_go_with_the_node(shared: NodeProcess) -> None:
    assert {path.name for path in shared.directory.glob("*.sock")} == {"irm.sock", "own.sock"}
    assert (shared.directory / "own.sock").stat().st_mode & 0o777 == 0o600
    assert shared.stop() == 0
    assert not list(shared.directory.glob("*.sock"))


# --- all at once


def test_all_attacks_at_once_leave_root_its_node(shared: NodeProcess, other: Shell, programs: Programs) -> None:
    """`bench/shares.py` in small: what it costs is printed there, that it stays bounded is shown here."""
    for number in range(50):
        client.request(CreateName(f"{number:03}" * 80, "spillover"))
    root_goes_on(programs)
    before = descriptors(shared.pid)
    other.do(
        """
        half = messages.encode(Alloc("x" * 250, QoSSpec(), 0.0))[:-1]
        said = [b"", half, messages.encode(ListNames()) * 50, messages.encode(Hello(99, "x", 1)), b"junk" * 100]
        def attack():
            for number in range(1500):
                sock = socket.socket(socket.AF_UNIX)
                sock.setblocking(False)
                kept.append(sock)
                with contextlib.suppress(OSError):
                    sock.connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/irm.sock")
                    sock.send(HELLO + said[number % len(said)])
        threading.Thread(target=attack).start()
        """
    )
    for _ in range(3):
        root_goes_on(programs)
    for entry in node_info().shares:
        assert entry.held <= entry.limit, entry
    # Connections, processes, and those of the servers that root has started here.
    assert (descriptors(shared.pid) - before).total() < 20 + 10 + 3 * 3 + 5
    other.kill()
    until(lambda: node_info().shares == [])
    assert len(shared.log().splitlines()) < 100
