"""Whoever waits is woken by everything that ends the wait."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from support import Background, NodeProcess, Programs, Shell, forever

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowTimeoutException,
    flow_accept,
    flow_alloc,
)
from ouroboros.runtime import client
from ouroboros.wire.control import CreateName

READS: dict[str, Callable[[Flow], object]] = {
    "read": lambda flow: flow.read(),
    "readline": lambda flow: flow.readline(),
    "readinto": lambda flow: flow.readinto(bytearray(10)),
    "read_many": lambda flow: flow.read_many(),
}
WRITES: dict[str, Callable[[Flow], object]] = {
    "write": lambda flow: [flow.write(bytes(60_000)) for _ in range(1000)],
    "writeline": lambda flow: [flow.writeline("x" * 60_000) for _ in range(1000)],
}


@pytest.fixture
def far(node: NodeProcess, programs: Programs) -> Shell:
    return programs.shell("far")


def connect(far: Shell, its_name: str = "f") -> Flow:
    far.begin_blocked(f"{its_name} = flow_accept(name='far')", "node")
    flow = flow_alloc("far")
    far.answer()
    return flow


@pytest.mark.parametrize("call", READS)
def test_dealloc_in_another_thread_wakes_readers(far: Shell, call: str) -> None:
    with connect(far) as flow:
        readers = [Background(lambda: READS[call](flow)) for _ in range(3)]
        for reader in readers:
            reader.until_asleep("poll")
        flow.dealloc()
        for reader in readers:
            with pytest.raises(FlowNotAllocatedException):
                reader.result()


@pytest.mark.parametrize("call", WRITES)
def test_dealloc_in_another_thread_wakes_writers(far: Shell, call: str) -> None:
    with connect(far) as flow:
        writers = [Background(lambda: WRITES[call](flow)) for _ in range(3)]
        for writer in writers:
            writer.until_asleep("room")
        flow.dealloc()
        for writer in writers:
            with pytest.raises(FlowNotAllocatedException):
                writer.result()


@pytest.mark.parametrize("call", READS)
def test_dealloc_by_the_peer_wakes_readers(far: Shell, call: str) -> None:
    with connect(far) as flow:
        readers = [Background(lambda: READS[call](flow)) for _ in range(3)]
        for reader in readers:
            reader.until_asleep("poll")
        far.do("f.dealloc()")
        for reader in readers:
            with pytest.raises(FlowDownException) as caught:
                reader.result()
            assert not isinstance(caught.value, FlowPeerException)


@pytest.mark.parametrize("call", WRITES)
def test_dealloc_by_the_peer_wakes_writers(far: Shell, call: str) -> None:
    with connect(far) as flow:
        writers = [Background(lambda: WRITES[call](flow)) for _ in range(3)]
        for writer in writers:
            writer.until_asleep("room")
        far.do("f.dealloc()")
        for writer in writers:
            with pytest.raises(FlowDownException):
                writer.result()


def test_write_many_that_is_woken_tells_what_was_written(far: Shell) -> None:
    with connect(far) as flow:
        writer = Background(lambda: flow.write_many([bytes(60_000)] * 1000))
        writer.until_asleep("room")
        far.do("f.dealloc()")
        assert 0 < writer.result() < 1000
        with pytest.raises(FlowDownException):
            flow.write_many([b"x"])


def test_a_packet_wakes_one_of_several_readers_at_a_time(far: Shell) -> None:
    with connect(far) as flow:
        readers = [Background(flow.read) for _ in range(4)]
        for reader in readers:
            reader.until_asleep("poll")
        far.do("for number in range(4): f.write(b'%d' % number)")
        assert sorted(reader.result() for reader in readers) == [b"0", b"1", b"2", b"3"]


def test_room_wakes_all_writers(far: Shell) -> None:
    with connect(far) as flow:
        writers = [Background(lambda: [flow.write(bytes(60_000)) for _ in range(50)]) for _ in range(4)]
        for writer in writers:
            writer.until_asleep("room")
        assert far.do("sum(len(f.read()) for _ in range(200))") == 200 * 60_000
        for writer in writers:
            writer.result()


def test_a_blocked_writer_does_not_hinder_other_calls(far: Shell) -> None:
    with connect(far) as flow, connect(far, "g") as other:
        writer = Background(lambda: [flow.write(bytes(60_000)) for _ in range(100)])
        writer.until_asleep("room")
        assert flow.get_tx_queue_len() > 0
        flow.set_flags(flow.get_flags())
        other.write(b"other flow")
        assert far.do("g.read()") == b"other flow"
        with pytest.raises(FlowTimeoutException):
            flow_accept(timeo=0, name="other")
        writer.until_asleep("room")
        flow.dealloc()
        with pytest.raises(FlowNotAllocatedException):
            writer.result()


def test_ctrl_c_ends_a_blocked_read_and_loses_nothing(far: Shell) -> None:
    with connect(far) as flow:
        for number in range(5):
            far.begin_blocked("f.read()", "poll")
            far.signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                far.answer()
            flow.write(b"%d" % number)
            assert far.do("f.read()") == b"%d" % number


def test_ctrl_c_ends_a_blocked_write_and_leaves_whole_packets(far: Shell) -> None:
    with connect(far) as flow:
        far.begin_blocked("sent = 0\nwhile True: sent += f.write(bytes(60_000)) // 60_000", "room")
        far.signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            far.answer()
        far.do("f.dealloc()")
        packets: list[int] = []
        with pytest.raises(FlowDownException):
            forever(lambda: packets.append(len(flow.read())))
        assert packets == [60_000] * far.do("sent")


@pytest.mark.parametrize("waiting", ["", ", timeo=1000"])
def test_ctrl_c_withdraws_an_accept(far: Shell, waiting: str) -> None:
    far.begin_blocked(f"f = flow_accept(name='far'{waiting})", "node")
    far.signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        far.answer()
    # Nobody accepts now: the client must not be given to the call that was interrupted.
    with pytest.raises(FlowTimeoutException):
        flow_alloc("far", timeo=0)
    with connect(far) as flow:
        flow.write(b"the next accept")
        assert far.do("f.read()") == b"the next accept"


@pytest.mark.parametrize("waiting", ["", ", timeo=1000"])
def test_ctrl_c_withdraws_an_allocation(far: Shell, waiting: str) -> None:
    client.request(CreateName("near", "spillover"))
    far.begin_blocked(f"f = flow_alloc('near'{waiting})", "node")
    far.signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        far.answer()
    with pytest.raises(FlowTimeoutException):
        flow_accept(timeo=0, name="near")


HANDLER = "calls = []; signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))"


def test_a_signal_handler_that_returns_lets_a_read_go_on(far: Shell) -> None:
    with connect(far) as flow:
        far.do(HANDLER)
        far.begin_blocked("f.read()", "poll")
        for _ in range(3):
            far.signal(signal.SIGUSR1)
            far.until_asleep("poll")
        flow.write(b"at last")
        assert far.answer() == b"at last"
        assert far.do("len(calls)") >= 1


def test_a_signal_handler_that_returns_lets_a_write_go_on(far: Shell) -> None:
    with connect(far) as flow:
        far.do(HANDLER)
        far.begin_blocked("for number in range(100): f.write(b'%d' % number * 30_000)", "room")
        far.signal(signal.SIGUSR1)
        far.until_asleep("room")
        assert [flow.read() for _ in range(100)] == [b"%d" % number * 30_000 for number in range(100)]
        far.answer()
        assert far.do("len(calls)") == 1


def test_a_signal_handler_that_returns_lets_accept_and_alloc_go_on(far: Shell) -> None:
    far.do(HANDLER)
    far.begin_blocked("f = flow_accept(name='far')", "node")
    far.signal(signal.SIGUSR1)
    far.until_asleep("node")
    with flow_alloc("far"):
        far.answer()
    client.request(CreateName("near", "spillover"))
    far.begin_blocked("g = flow_alloc('near')", "node")
    far.signal(signal.SIGUSR1)
    far.until_asleep("node")
    with flow_accept(name="near") as flow:
        far.answer()
        flow.write(b"works")
        assert far.do("g.read()") == b"works"
    assert far.do("len(calls)") == 2


def test_a_signal_handler_that_raises_ends_a_read(far: Shell) -> None:
    with connect(far) as flow:
        far.do("def handler(*_): raise ValueError('from the handler')\nsignal.signal(signal.SIGUSR1, handler)")
        far.begin_blocked("f.read()", "poll")
        far.signal(signal.SIGUSR1)
        with pytest.raises(ValueError, match="from the handler"):
            far.answer()
        flow.write(b"kept")
        assert far.do("f.read()") == b"kept"


def test_a_handler_that_deallocates_ends_the_read_it_interrupts(far: Shell) -> None:
    with connect(far) as flow:
        far.do("signal.signal(signal.SIGUSR1, lambda *_: f.dealloc())")
        far.begin_blocked("f.read()", "poll")
        far.signal(signal.SIGUSR1)
        with pytest.raises(FlowNotAllocatedException):
            far.answer()
        with pytest.raises(FlowDownException):
            flow.read()


def test_a_client_that_gave_up_leaves_the_acceptor_waiting(node: NodeProcess) -> None:
    client.request(CreateName("name", "spillover"))
    with pytest.raises(FlowTimeoutException):
        flow_alloc("name", timeo=0)
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="name"))
    with flow_alloc("name", timeo=0) as one, acceptor.result() as other:
        one.write(b"no dead flow in between")
        assert other.read() == b"no dead flow in between"
