"""Programs that die or end in the middle of something: what their peers see, and what the node keeps."""

from __future__ import annotations

import functools
import signal

import pytest
from support import Background, NodeProcess, Programs, Shell, descriptors, node_info, until

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowNameException,
    FlowPeerException,
    FlowProperties,
    FlowTimeoutException,
    flow_accept,
    flow_alloc,
)
from ouroboros.runtime import client
from ouroboros.wire.control import CreateName, ListFlows


@pytest.fixture
def far(node: NodeProcess, programs: Programs) -> Shell:
    return programs.shell("far")


def connect(far: Shell) -> Flow:
    far.begin_blocked("f = flow_accept(name='far')", "node")
    flow = flow_alloc("far")
    far.answer()
    return flow


def read_to_the_end(flow: Flow) -> tuple[list[bytes], FlowDownException]:
    packets = []
    try:
        while True:
            packets.append(flow.read())
    except FlowDownException as end:
        return packets, end


@pytest.mark.parametrize("after", [0, 1, 100, 5000])
def test_what_a_killed_writer_had_written_is_read_whole_and_in_order(far: Shell, after: int) -> None:
    with connect(far) as flow:
        far.begin(
            """
            number = 0
            while True:
                f.write(b"%d" % number * (1 + number % 50))
                number += 1
            """
        )
        packets = [flow.read() for _ in range(after)]
        far.kill()
        rest, end = read_to_the_end(flow)
        packets += rest
        assert packets == [b"%d" % number * (1 + number % 50) for number in range(len(packets))]
        assert isinstance(end, FlowPeerException)
        assert isinstance(end, ConnectionResetError)


def test_a_writer_killed_while_it_waits_for_room_has_sent_whole_packets(far: Shell) -> None:
    with connect(far) as flow:
        far.begin_blocked("while True: f.write(bytes(60_000))", "room")
        far.kill()
        packets, end = read_to_the_end(flow)
        assert len(packets) > 10
        assert {len(packet) for packet in packets} == {60_000}
        assert isinstance(end, FlowPeerException)


def test_a_blocked_reader_is_woken_when_the_writer_is_killed(far: Shell) -> None:
    with connect(far) as flow:
        reader = Background(flow.read)
        reader.until_asleep("poll")
        far.kill()
        with pytest.raises(FlowPeerException):
            reader.result()


def test_a_blocked_writer_is_woken_when_the_reader_is_killed(far: Shell) -> None:
    with connect(far) as flow:
        writer = Background(lambda: [flow.write(bytes(60_000)) for _ in range(1000)])
        writer.until_asleep("room")
        far.kill()
        with pytest.raises(FlowPeerException):
            writer.result()


def test_a_write_after_the_reader_was_killed_fails(far: Shell) -> None:
    with connect(far) as flow:
        flow.write(b"nobody will read this")
        far.kill()
        until(lambda: node_info().processes == 1)
        with pytest.raises(FlowPeerException):
            flow.write(b"nor this")


def test_threads_that_read_and_write_are_all_woken(far: Shell) -> None:
    with connect(far) as flow:
        readers = [Background(flow.read) for _ in range(3)]
        writers = [Background(lambda: [flow.write(bytes(60_000)) for _ in range(1000)]) for _ in range(3)]
        for reader in readers:
            reader.until_asleep("poll")
        for writer in writers:
            writer.until_asleep("room")
        far.kill()
        for reader in readers:
            with pytest.raises(FlowPeerException):
                reader.result()
        for writer in writers:
            with pytest.raises(FlowPeerException):
                writer.result()


def test_a_program_that_ends_without_dealloc_has_deallocated(far: Shell) -> None:
    with connect(far) as flow:
        far.do("f.write(b'one'); f.write(b'two')")
        assert far.finish() == 0
        packets, end = read_to_the_end(flow)
        assert packets == [b"one", b"two"]
        assert not isinstance(end, FlowPeerException)
        with pytest.raises(FlowDownException):
            flow.write(b"x")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise ZeroDivisionError", "sys.exit()"])
def test_however_a_program_ends_its_peer_reads_what_is_queued(node: NodeProcess, programs: Programs, code: str) -> None:
    client.request(CreateName("leaver", "spillover"))
    program = programs.start(
        f"""
        f = flow_accept(name="leaver")
        f.write(b"queued")
        hear()
        {code}
        """
    )
    with flow_alloc("leaver") as flow:
        reader = Background(lambda: read_to_the_end(flow))
        reader.until_asleep("poll")
        program.tell("go")
        program.process.wait()
        packets, end = reader.result()
        assert packets == [b"queued"]
        assert not isinstance(end, FlowPeerException)


def test_a_program_that_ends_by_exit_of_the_system_counts_as_dead(far: Shell) -> None:
    with connect(far) as flow:
        far.do("f.write(b'queued')")
        far.begin("os._exit(0)")
        packets, end = read_to_the_end(flow)
        assert packets == [b"queued"]
        assert isinstance(end, FlowPeerException)


def test_a_killed_program_leaves_nothing_in_the_node(node: NodeProcess, far: Shell) -> None:
    far.do("kept = []")
    flows = []
    for _ in range(20):
        flows.append(connect(far))
        far.do("kept.append(f)")
    assert descriptors(node.pid)["flow memory"] == 20
    far.kill()
    for flow in flows:
        with pytest.raises(FlowPeerException):
            flow.read()
        flow.dealloc()
    until(lambda: client.request(ListFlows()) == [])
    assert descriptors(node.pid)["flow memory"] == 0


def test_both_programs_killed_leave_nothing_in_the_node(node: NodeProcess, far: Shell, programs: Programs) -> None:
    other = programs.shell("other")
    far.begin_blocked("f = flow_accept(name='far')", "node")
    other.do("f = flow_alloc('far')")
    far.answer()
    other.process.kill()
    far.process.kill()
    until(lambda: client.request(ListFlows()) == [])
    assert descriptors(node.pid)["flow memory"] == 0


def test_no_client_is_given_to_a_killed_acceptor(far: Shell, programs: Programs) -> None:
    far.begin_blocked("f = flow_accept(name='name')", "node")
    far.kill()
    until(lambda: node_info().processes == 1)
    with pytest.raises(FlowNameException, match="has ended"):
        flow_alloc("name")
    allocator = Background.waiting_for_node(lambda: flow_alloc("name", wait=True))
    second = programs.shell("second")
    second.do("f = flow_accept(name='name'); f.write(b'served')")
    with allocator.result() as flow:
        assert flow.read() == b"served"


def test_no_acceptor_is_given_a_killed_client(far: Shell) -> None:
    client.request(CreateName("name", "spillover"))
    far.begin_blocked("f = flow_alloc('name')", "node")
    far.kill()
    until(lambda: node_info().processes == 1)
    with pytest.raises(FlowTimeoutException):
        flow_accept(timeo=0, name="name")


def test_a_name_outlives_its_killed_program(far: Shell) -> None:
    far.begin_blocked("f = flow_accept(name='name')", "node")
    far.kill()
    until(lambda: node_info().processes == 1)
    with pytest.raises(FlowNameException, match="nobody serves 'name' any more"):
        flow_alloc("name")
    with pytest.raises(FlowTimeoutException, match="the program that served it has ended"):
        flow_alloc("name", timeo=0, wait=True)


def test_clients_that_wait_are_told_when_the_last_server_is_killed(far: Shell) -> None:
    with connect(far):
        asking, waiting = (
            Background.waiting_for_node(functools.partial(flow_alloc, "far", wait=wait)) for wait in (False, True)
        )
        far.kill()
        with pytest.raises(FlowNameException, match="nobody serves 'far' any more"):
            asking.result()
        with flow_accept(name="far"), waiting.result() as flow:
            assert flow.name == "far"


def test_a_stopped_reader_stops_only_itself(node: NodeProcess, far: Shell) -> None:
    with connect(far) as flow:
        far.signal(signal.SIGSTOP)
        flow.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlockingWrite)
        written = flow.write_many([bytes(60_000)] * 100)
        with pytest.raises(FlowTimeoutException):
            flow_accept(timeo=0, name="others are served")
        far.signal(signal.SIGCONT)
        assert far.do("len(f.read_many(100))") == written


def test_a_flow_outlives_the_thread_that_allocated_it(far: Shell) -> None:
    far.begin_blocked("f = flow_accept(name='far')", "node")
    with Background(lambda: flow_alloc("far")).result() as flow:
        far.answer()
        flow.write(b"from another thread")
        assert far.do("f.read()") == b"from another thread"


def test_a_thread_that_ended_after_a_blocked_call_holds_no_lock(far: Shell) -> None:
    with connect(far) as flow:
        flow.set_rcv_timeout(0.01)
        with pytest.raises(FlowTimeoutException):
            Background(flow.read).result()
        far.do("f.write(b'next')")
        assert flow.read() == b"next"


def test_a_daemon_thread_blocked_in_a_read_does_not_keep_a_program_alive(far: Shell) -> None:
    with connect(far) as flow:
        far.do("t = threading.Thread(target=f.read, daemon=True); t.start()")
        far.until_asleep("poll", far.do("t.native_id"))
        assert far.finish() == 0
        with pytest.raises(FlowDownException):
            flow.read()


def test_a_program_that_executes_another_one_has_given_its_flows_up(node: NodeProcess, far: Shell) -> None:
    with connect(far) as flow:
        far.begin("os.execv(sys.executable, [sys.executable, '-c', 'import sys; sys.stdin.read()'])")
        with pytest.raises(FlowPeerException):
            flow.read()
    assert far.finish() == 0
    until(lambda: client.request(ListFlows()) == [])
