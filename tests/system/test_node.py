"""What a node survives: strangers at its socket, a second node, its own death, an unsafe directory."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Background, NodeProcess, Programs, descriptors, node_info, spawn_irmd, until

from ouroboros.dev import FlowDownException, FlowPeerException, FlowTimeoutException, QoSSpec, flow_accept, flow_alloc
from ouroboros.errors import NodeError
from ouroboros.runtime import client
from ouroboros.settings import Udp4Settings
from ouroboros.wire import control as messages
from ouroboros.wire.control import (
    Accept,
    Alloc,
    BootstrapIpcp,
    CreateName,
    Hello,
    ListFlows,
    ListNames,
    NodeInfo,
    decode_answer,
    encode,
)


@contextlib.contextmanager
def stranger(directory: Path) -> Iterator[socket.socket]:
    """A bare connection to the control socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(directory / "irm.sock"))
        yield sock


def everything_until_the_end(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def a_flow_can_be_allocated(name: str = "still-works") -> None:
    acceptor = Background.waiting_for_node(lambda: flow_accept(name=name))
    with flow_alloc(name) as one, acceptor.result() as other:
        one.write(b"works")
        assert other.read() == b"works"


HELLO = b"<hello>"


def as_sent(data: bytes) -> bytes:
    """With the hello of this process, for which the node would take another instance number for another process."""
    return data.replace(HELLO, encode(Hello(messages.VERSION, "stranger", client.client._instance)))


RANDOM = random.Random(2)

#: Each ends with the node saying why and hanging up.
BROKEN: dict[str, bytes] = {
    "text": b"GET / HTTP/1.0\r\n\r\n",
    "zeros": bytes(4096),
    "largest length": b"\xff" * 64,
    "length over the limit": struct.pack(">I", messages.REQUEST_LENGTH + 1),
    "empty message": struct.pack(">I", 0),
    "no msgpack": struct.pack(">I", 3) + b"\xc1\xc1\xc1",
    "another type": struct.pack(">I", 1) + b"\x2a",
    "deep nesting": struct.pack(">I", 100_000) + b"\x91" * 100_000,
    "name that is no UTF-8": HELLO + struct.pack(">I", 14) + b"\x92\xabDestroyName\xa1\xff"[:14].ljust(14),
    "request before hello": encode(NodeInfo()),
    "second hello": HELLO + HELLO,
    "wrong version": encode(Hello(messages.VERSION + 1, "stranger", 0)),
    "empty program name": encode(Hello(messages.VERSION, "", 0)),
    "long program name": encode(Hello(messages.VERSION, "p" * 256, 0)),
    "two requests at once": HELLO + encode(Accept("stranger", None)) + encode(NodeInfo()),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_message_is_answered_with_the_reason_and_hung_up(node: NodeProcess, what: str) -> None:
    with stranger(node.directory) as sock:
        sock.sendall(as_sent(BROKEN[what]))
        answers = messages.MessageReader()
        answers.feed(everything_until_the_end(sock))
    last = None
    while body := answers.next():
        last = decode_answer(body)
    assert isinstance(last, messages.Failed)
    assert last.text
    a_flow_can_be_allocated()


def test_settings_that_no_layer_can_have_are_refused_and_the_connection_goes_on(node: NodeProcess) -> None:
    good = encode(BootstrapIpcp(1, "lab", Udp4Settings()))
    bad = good.replace(b"\xa4port\xcd\x0d\x6b", b"\xa4port\xcd\x00\x00")
    assert bad != good
    with stranger(node.directory) as sock:
        sock.sendall(as_sent(HELLO))
        assert decode_answer(sock.recv(65536)[4:]) == messages.Done(None)
        sock.sendall(bad)
        refused = decode_answer(sock.recv(65536)[4:])
        assert refused == messages.Failed("IpcpBootstrapError", "Udp4Config: port must be from 1 to 65535, not 0")
        sock.sendall(encode(NodeInfo()))
        assert isinstance(decode_answer(sock.recv(65536)[4:]), messages.Done)
    with stranger(node.directory) as sock:
        # Whoever has not said hello is told nothing of it but that.
        sock.sendall(bad)
        last = everything_until_the_end(sock)
        assert b"the first message must be a Hello" in last


@pytest.mark.parametrize("broken", [encode(NodeInfo()), BROKEN["another type"]], ids=["a second request", "no message"])
def test_what_a_connection_waited_for_is_over_when_it_is_hung_up_on(node: NodeProcess, broken: bytes) -> None:
    with stranger(node.directory) as sock:
        sock.sendall(as_sent(HELLO) + encode(Accept("wanted", None)) + broken)
        everything_until_the_end(sock)
    with pytest.raises(FlowTimeoutException):
        flow_alloc("wanted", timeo=0.1)
    a_flow_can_be_allocated("wanted")


def test_garbage_disturbs_nobody(node: NodeProcess, programs: Programs) -> None:
    far = programs.shell()
    far.begin_blocked("f = flow_accept(name='pair')", "node")
    with flow_alloc("pair") as near:
        far.answer()
        far.begin("for _ in range(300): f.write(f.read())")
        for _ in range(300):
            garbage = RANDOM.randbytes(RANDOM.randrange(1, 200))
            framed = struct.pack(">I", len(garbage)) + garbage
            with stranger(node.directory) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(as_sent(RANDOM.choice([garbage, framed, HELLO + framed, HELLO + garbage])))
            near.write(b"still there?")
            assert near.read() == b"still there?"
        far.answer()
    a_flow_can_be_allocated()


def test_half_a_message_is_waited_for_byte_by_byte(node: NodeProcess) -> None:
    node_info()
    with stranger(node.directory) as sock:
        hello = as_sent(HELLO)
        for number in range(len(hello)):
            sock.sendall(hello[number : number + 1])
            node_info()
        assert decode_answer(sock.recv(65536)[4:]) == messages.Done(None)
    with stranger(node.directory) as sock:
        sock.sendall(hello[: len(hello) // 2])
        a_flow_can_be_allocated()


def test_silent_connections_disturb_nobody_and_are_given_back(node: NodeProcess) -> None:
    node_info()
    before = descriptors(node.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(stranger(node.directory))
        a_flow_can_be_allocated()
        until(lambda: descriptors(node.pid)["socket"] >= before["socket"] + 200)
        a_flow_can_be_allocated()
    until(lambda: descriptors(node.pid)["socket"] <= before["socket"] + 2)


@pytest.mark.slow
def test_a_connection_that_says_no_hello_is_hung_up(node: NodeProcess) -> None:
    with stranger(node.directory) as silent, stranger(node.directory) as half:
        half.sendall(as_sent(HELLO)[:5])
        assert everything_until_the_end(silent) == everything_until_the_end(half) == b""


def test_a_program_that_does_not_read_its_answers_disturbs_nobody(node: NodeProcess) -> None:
    for number in range(200):
        client.request(CreateName(f"{number:03}" * 80, "spillover"))
    with stranger(node.directory) as sock:
        sock.setblocking(False)
        sock.send(as_sent(HELLO))
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            for _ in range(5000):
                sock.send(encode(ListNames()))
                node_info()
        a_flow_can_be_allocated()


def test_an_end_that_a_process_does_not_hold_cannot_be_released_by_it(node: NodeProcess, programs: Programs) -> None:
    far = programs.shell()
    far.begin_blocked("f = flow_accept(name='pair')", "node")
    with flow_alloc("pair") as near:
        far.answer()
        third = programs.shell("third")
        for flow_id in (near.flow_id, 99):
            third.do(f"for side in (0, 1, 2, -1): client.release({flow_id}, side, {node.pid})")
        third.do("from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()); None")
        assert [flow.id for flow in client.request(ListFlows())] == [near.flow_id]
        assert descriptors(node.pid)["flow memory"] == 1
        near.write(b"unharmed")
        assert far.do("f.read()") == b"unharmed"


def test_hanging_up_after_a_grant_gives_the_flow_back(node: NodeProcess, programs: Programs) -> None:
    far = programs.shell()
    far.begin_blocked("f = flow_accept(name='taken')", "node")
    with stranger(node.directory) as sock:
        sock.sendall(as_sent(HELLO))
        sock.recv(65536)
        sock.sendall(encode(Alloc("taken", QoSSpec(), 20.0)))
        # The answer is there, and so are its descriptors, which nobody takes.
        sock.recv(1, socket.MSG_PEEK)
    far.answer()
    with pytest.raises(FlowDownException):
        far.do("f.read()")
    far.do("f.dealloc()")
    until(lambda: client.request(ListFlows()) == [])


def run_irmd(directory: Path, log: Path) -> tuple[int, str]:
    with log.open("wb") as file:
        status = spawn_irmd(directory, file).wait()
    return status, log.read_text()


def test_a_second_node_in_the_directory_is_refused(node: NodeProcess, tmp_path: Path) -> None:
    status, text = run_irmd(node.directory, tmp_path / "second.log")
    assert status == 1
    assert str(node.directory) in text
    assert str(node.pid) in text
    assert "Traceback" not in text
    assert node_info().pid == node.pid
    a_flow_can_be_allocated()


def test_a_node_starts_where_another_was_killed(node: NodeProcess) -> None:
    node.kill()
    assert (node.directory / "irm.sock").is_socket()
    with pytest.raises(NodeError, match="irmd"):
        node_info()
    node.start()
    assert node_info().pid == node.pid
    a_flow_can_be_allocated()


def test_programs_that_wait_learn_that_the_node_was_killed(node: NodeProcess, programs: Programs) -> None:
    client.request(CreateName("nobody", "spillover"))
    acceptor, allocator = programs.shell("acceptor"), programs.shell("allocator")
    acceptor.begin_blocked("f = flow_accept(name='name')", "node")
    allocator.begin_blocked("f = flow_alloc('nobody')", "node")
    node.kill()
    for program in (acceptor, allocator):
        with pytest.raises(NodeError):
            program.answer()
    with pytest.raises(NodeError):
        allocator.do("flow_alloc('nobody')")
    node.start()
    acceptor.begin_blocked("f = flow_accept(name='name')", "node")
    allocator.do("f = flow_alloc('name'); f.write(b'new flow')")
    acceptor.answer()
    assert acceptor.do("f.read()") == b"new flow"


def test_flows_outlive_the_node(node: NodeProcess, programs: Programs) -> None:
    far = programs.shell()
    far.begin_blocked("f = flow_accept(name='pair')", "node")
    with flow_alloc("pair") as near:
        far.answer()
        reader = Background(near.read)
        reader.until_asleep("poll")
        node.kill()
        far.do("f.write(b'without a node')")
        assert reader.result() == b"without a node"
        near.write(b"nor here")
        assert far.do("f.read()") == b"nor here"
        node.start()
        near.write(b"with another one")
        assert far.do("f.read()") == b"with another one"
        far.do("f.write(b'last'); f.dealloc()")
        assert near.read() == b"last"
        with pytest.raises(FlowDownException):
            near.read()


def test_a_peer_that_is_killed_after_the_node_is_noticed(node: NodeProcess, programs: Programs) -> None:
    reader, writer = programs.shell("reader"), programs.shell("writer")
    reader.begin_blocked("f = flow_accept(name='reader')", "node")
    with flow_alloc("reader") as near_writer:
        reader.answer()
        writer.begin_blocked("f = flow_accept(name='writer')", "node")
        with flow_alloc("writer") as near_reader:
            writer.answer()
            node.kill()
            blocked_reader = Background(near_reader.read)
            blocked_reader.until_asleep("poll")
            blocked_writer = Background(lambda: [near_writer.write(bytes(60_000)) for _ in range(100)])
            blocked_writer.until_asleep("room")
            writer.kill()
            with pytest.raises(FlowPeerException):
                blocked_reader.result()
            reader.kill()
            with pytest.raises(FlowPeerException):
                blocked_writer.result()
    node.start()


def test_an_end_from_before_the_restart_releases_no_flow_of_the_new_node(node: NodeProcess, programs: Programs) -> None:
    far = programs.shell()
    far.begin_blocked("f = flow_accept(name='pair')", "node")
    old = flow_alloc("pair")
    far.answer()
    node.kill()
    node.start()
    far.begin_blocked("g = flow_accept(name='pair')", "node")
    with flow_alloc("pair") as new:
        far.answer()
        # Both nodes begin to count at the same number.
        assert old.flow_id == new.flow_id
        old.dealloc()
        far.do("f.dealloc()")
        far.do("from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()); None")
        assert [flow.id for flow in client.request(ListFlows())] == [new.flow_id]
        assert descriptors(node.pid)["flow memory"] == 1


def test_sigterm_ends_a_node_in_order(node: NodeProcess, programs: Programs) -> None:
    client.request(CreateName("nobody", "spillover"))
    acceptor, allocator, far = programs.shell("acceptor"), programs.shell("allocator"), programs.shell("far")
    far.begin_blocked("f = flow_accept(name='pair')", "node")
    with flow_alloc("pair") as near:
        far.answer()
        acceptor.begin_blocked("f = flow_accept(name='name')", "node")
        allocator.begin_blocked("f = flow_alloc('nobody')", "node")
        assert node.stop() == 0
        for program in (acceptor, allocator):
            with pytest.raises(NodeError, match="shutting down"):
                program.answer()
        assert not (node.directory / "irm.sock").exists()
        near.write(b"direct")
        assert far.do("f.read()") == b"direct"
    node.start()


def test_sigint_ends_a_node_in_order(node: NodeProcess) -> None:
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait() == 0
    assert not (node.directory / "irm.sock").exists()


def unsafe_mode(directory: Path) -> Path:
    directory.chmod(0o777)
    return directory


def unsafe_link(directory: Path) -> Path:
    link = directory / "link"
    link.symlink_to(directory)
    return link


def unsafe_file(directory: Path) -> Path:
    file = directory / "file"
    file.touch()
    return file


def unsafe_owner(directory: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(directory, 12345, 12345)
    return directory


@pytest.mark.parametrize("make", [unsafe_mode, unsafe_link, unsafe_file, unsafe_owner])
def test_an_unsafe_runtime_directory_is_refused(
    runtime_dir: Path, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    status, text = run_irmd(make(runtime_dir), tmp_path / "refused.log")
    assert status == 1
    assert "runtime directory" in text
    assert "Traceback" not in text


def test_a_runtime_directory_with_too_long_a_path_is_refused(runtime_dir: Path, tmp_path: Path) -> None:
    status, text = run_irmd(runtime_dir / ("d" * 120), tmp_path / "refused.log")
    assert status == 1
    assert "too long" in text
    assert "Traceback" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs of two users")
def test_a_program_does_not_trust_the_node_of_another_user(runtime_dir: Path, programs: Programs) -> None:
    runtime_dir.chmod(0o755)
    impostor = programs.start(
        """
        import socket
        os.setuid(12345)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(sys.argv[1])
        os.chmod(sys.argv[1], 0o666)
        sock.listen()
        say("listening")
        connection, _ = sock.accept()
        say(connection.recv(100))
        """,
        str(runtime_dir / "irm.sock"),
    )
    os.chown(runtime_dir, 12345, 12345)
    assert impostor.line() == "listening"
    victim = programs.start(
        """
        os.setuid(54321)
        try:
            flow_accept(timeo=0)
        except FlowException as error:
            say((type(error).__name__, str(error)))
        """,
    )
    kind, text = victim.line()
    assert kind == "NodeError"
    assert "12345" in text
    # Not one byte was said to it.
    assert impostor.line() == b""
    (runtime_dir / "irm.sock").unlink()


def test_requests_of_many_connections_of_one_process_are_kept_apart(node: NodeProcess) -> None:
    acceptors = [Background.waiting_for_node(lambda n=n: flow_accept(name=f"n{n}")) for n in range(20)]  # type: ignore[misc]
    for number in reversed(range(20)):
        with flow_alloc(f"n{number}") as flow:
            flow.write(b"%d" % number)
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(acceptor.result()) for acceptor in acceptors]
        assert sorted(flow.read() for flow in flows) == sorted(b"%d" % number for number in range(20))


def test_an_abandoned_allocation_is_not_given_to_the_acceptor(node: NodeProcess) -> None:
    client.request(CreateName("late", "spillover"))
    with pytest.raises(FlowTimeoutException):
        flow_alloc("late", timeo=0.01)
    with pytest.raises(FlowTimeoutException):
        flow_accept(timeo=0, name="late")
