"""One end of a flow over a C library that does what the C prototype does, its defects included."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial

import native_fake
import pytest
from native_fake import FakeDev, fake_library
from support import Background, asleep_in, forever, until

from ouroboros.dataplane.ends import Ended
from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
)
from ouroboros.native import declarations as c
from ouroboros.native.endpoint import Endpoint
from ouroboros.native.library import Library
from ouroboros.native.pump import Pump, Undertaker

#: What ends a flow, and what its calls raise then.
ENDS = [("end_by_peer", FlowDownException), ("time_out", FlowPeerException)]

READ_WRITE, WRITE_ONLY, DOWN_FLAG, NON_BLOCKING, NO_PARTIAL = 0o2, 0o1, 0o4, 0o3000, 0o10000


class Bench:
    """Makes flows with one end under test, and the other in the hands of the test."""

    def __init__(self) -> None:
        self.library: Library
        self.library, self.dev = fake_library()
        self.pump, self.undertaker = Pump(self.library), Undertaker()
        self.made: list[Endpoint] = []

    def flow(self, **qos: int) -> tuple[Endpoint, int]:
        near, far = self.dev.pair(**qos)
        frct = bool(qos.get("in_order"))
        self.made.append(Endpoint(self.library, near, self.pump, self.undertaker, frct=frct))
        return self.made[-1], far


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for endpoint in bench.made:
        endpoint.close()
    bench.pump.stop()
    assert bench.dev.accidents == []


@pytest.fixture
def dev(bench: Bench) -> FakeDev:
    return bench.dev


@pytest.fixture
def near(bench: Bench) -> Endpoint:
    return bench.flow()[0]


def far_of(near: Endpoint, dev: FakeDev) -> int:
    """The number of the other end."""
    other = dev.end(near.fd).other
    return next(fd for fd in range(64, 4096) if fd in dev._ends and dev.end(fd) is other)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _interrupt_and_write(thread: threading.Thread, descriptor: int) -> None:
    assert thread.native_id is not None
    assert thread.ident is not None
    native = thread.native_id
    until(lambda: asleep_in(os.getpid(), native, "read"))
    signal.pthread_kill(thread.ident, signal.SIGUSR1)
    os.write(descriptor, b"packet")


def readable(descriptor: int, seconds: float = 0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(1000 * seconds))


def silent(near: Endpoint, dev: FakeDev) -> bool:
    """Whether the descriptor is not readable, and will be when something happens."""
    return not readable(near.descriptor) and dev.end(near.fd).set is not None


class TestReading:
    def test_the_rest_of_a_packet_stays(self, near: Endpoint, dev: FakeDev) -> None:
        """B2"""
        dev.put(near.fd, b"0123456789", b"next")
        assert [near.read(4), near.read(4), near.read(4), near.read()] == [b"0123", b"4567", b"89", b"next"]

    def test_a_read_of_exactly_the_packet_is_followed_by_an_empty_one(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"0123", b"next")
        assert [near.read(4), near.read(4), near.read(4)] == [b"0123", b"", b"next"]

    def test_the_longest_packet_leaves_no_mark_in_the_library(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, bytes(1 << 20), b"next")
        assert len(near.read()) == 1 << 20
        assert near.read() == b"next"

    def test_a_packet_that_is_too_long_for_the_read_stays(self, near: Endpoint, dev: FakeDev) -> None:
        near.flags = READ_WRITE | NO_PARTIAL
        dev.put(near.fd, b"0123456789")
        with pytest.raises(FlowSizeException, match="10 bytes"):
            near.read(4)
        assert near.read(10) == b"0123456789"
        near.receive_timeout = 0
        with pytest.raises(FlowTimeoutException):
            near.read(10)

    def test_a_packet_behind_keepalives_is_found_without_waiting(self, near: Endpoint, dev: FakeDev) -> None:
        near.flags = READ_WRITE | NON_BLOCKING
        dev.put(near.fd, b"", b"", b"packet")
        assert near.read() == b"packet"
        dev.put(near.fd, b"")
        with pytest.raises(FlowWouldBlockException):
            near.read()

    def test_text_that_is_none_can_be_read_as_bytes(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"\xff\xfe", "é€".encode())
        with pytest.raises(UnicodeDecodeError):
            near.read_text()
        assert near.read() == b"\xff\xfe"
        assert [near.read_text(1), near.read_text(1), near.read_text(1)] == ["é", "€", ""]

    def test_into_a_buffer(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"packet")
        buffer = bytearray(4)
        assert (near.read_into(buffer), bytes(buffer)) == (4, b"pack")
        assert (near.read_into(buffer), bytes(buffer)) == (2, b"etck")
        with pytest.raises(TypeError):
            near.read_into(b"read-only")

    def test_many_at_once_and_the_end_only_after_them(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"1", b"2", b"3")
        dev.end_by_peer(near.fd)
        assert near.read_many(2) == [b"1", b"2"]
        assert near.read_many(64) == [b"3"]
        with pytest.raises(FlowDownException):
            near.read_many(64)

    @pytest.mark.parametrize(("end", "kind"), ENDS)
    def test_a_reader_is_told_of_the_end_that_the_library_wakes_nobody_for(
        self, near: Endpoint, dev: FakeDev, end: str, kind: type[Exception]
    ) -> None:
        """B5"""
        reader = Background(near.read)
        until(lambda: near._reading.lock.locked())
        getattr(dev, end)(near.fd)
        with pytest.raises(kind):
            reader.result()

    def test_a_reader_is_told_of_our_own_dealloc(self, near: Endpoint, dev: FakeDev) -> None:
        reader = Background(near.read)
        until(lambda: near._reading.lock.locked())
        near.close()
        with pytest.raises(FlowNotAllocatedException):
            reader.result()

    def test_what_is_queued_is_read_before_the_end(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"last")
        dev.end_by_peer(near.fd)
        assert near.read() == b"last"
        with pytest.raises(FlowDownException, match="peer deallocated"):
            near.read()

    def test_readers_share_the_packets_and_none_starves(self, near: Endpoint, dev: FakeDev) -> None:
        readers = [Background(near.read) for _ in range(3)]
        until(lambda: near._reading.queued > 0)
        for number in range(3):
            dev.put(near.fd, b"%d" % number)
        assert sorted(reader.result() for reader in readers) == [b"0", b"1", b"2"]

    def test_a_signal_between_the_library_and_us_loses_no_packet(self, bench: Bench, near: Endpoint) -> None:
        """P20: what a handler raises comes out of the call; the packet that was read meanwhile does not go with it."""
        libc, reading = bench.library.ffi.dlopen(None), near._reading
        readable_end, writable_end = os.pipe()
        # In the place of the library, which is not interrupted either.
        buffer, size = reading.arguments[0][1:]
        reading.read_one, reading.arguments = libc.read, ((readable_end, buffer, size),)
        before = signal.signal(signal.SIGUSR1, _interrupt)
        signal.siginterrupt(signal.SIGUSR1, False)
        try:
            Background(lambda: _interrupt_and_write(threading.main_thread(), writable_end))
            with pytest.raises(KeyboardInterrupt):
                near.read()
            reading.arguments = ((-1, buffer, size),)
            assert near.read() == b"packet"
        finally:
            signal.signal(signal.SIGUSR1, before)
            os.close(readable_end)
            os.close(writable_end)

    def test_a_timeout_holds_also_while_another_thread_reads(self, near: Endpoint, dev: FakeDev) -> None:
        reader = Background(near.read)
        until(lambda: near._reading.lock.locked())
        near.receive_timeout = 0
        with pytest.raises(FlowTimeoutException):
            near.read()
        dev.put(near.fd, b"x")
        assert reader.result() == b"x"


class TestWriting:
    def test_what_is_written_arrives(self, near: Endpoint, dev: FakeDev) -> None:
        assert near.write(b"bytes") == 5
        assert near.write(bytearray(b"buffer"), 3) == 3
        assert near.write(memoryview(b"view")) == 4
        assert near.write_many([b"a", b"b"]) == 2
        assert dev.take(far_of(near, dev)) == [b"bytes", b"buf", b"view", b"a", b"b"]

    def test_an_empty_write_is_no_keepalive(self, near: Endpoint, dev: FakeDev) -> None:
        assert near.write(b"") == near.write(b"abc", 0) == 0
        assert dev.take(far_of(near, dev)) == []

    def test_a_full_ring_drops_nothing(self, near: Endpoint, dev: FakeDev) -> None:
        """B1"""
        near.flags = READ_WRITE | NON_BLOCKING
        written: list[int] = []
        with pytest.raises(FlowWouldBlockException):
            forever(lambda: written.append(near.write(b"x")))
        assert 900 < len(written) < c.RING
        assert len(dev.take(far_of(near, dev))) == len(written)
        assert near.write(b"x") == 1

    def test_a_writer_waits_for_room_and_for_no_longer_than_it_may(self, near: Endpoint, dev: FakeDev) -> None:
        near.send_timeout = 0
        with pytest.raises(FlowTimeoutException):
            forever(lambda: near.write(b"x"))
        near.send_timeout = None
        writer = Background(lambda: near.write(b"last"))
        assert dev.take(far_of(near, dev))
        assert writer.result() == 4
        assert dev.take(far_of(near, dev)) == [b"last"]

    def test_a_full_pool_makes_a_writer_wait(self, near: Endpoint, dev: FakeDev) -> None:
        dev.blocks_left = 0
        assert near.write_soon(b"x") is None
        writer = Background(lambda: near.write(b"x"))
        dev.blocks_left = 1
        assert writer.result() == 1

    @pytest.mark.parametrize(("end", "kind"), ENDS)
    def test_a_write_to_a_flow_that_has_ended_says_so(
        self, near: Endpoint, dev: FakeDev, end: str, kind: type[Exception]
    ) -> None:
        """B1, P4"""
        near.write(b"before")
        near._ending.up_at = 0.0  # the moment is over for which it counts as up
        getattr(dev, end)(near.fd)
        calls: list[Callable[[], object]] = [
            lambda: near.write(b"x"),
            lambda: near.write_soon(b"x"),
            lambda: near.write_many([b"x"]),
        ]
        for call in calls:
            with pytest.raises(kind):
                call()

    def test_looking_for_the_end_keeps_what_it_finds(self, near: Endpoint, dev: FakeDev) -> None:
        dev.put(near.fd, b"1", b"2")
        near.write(b"x")
        assert near.receive_queue == 2
        assert [near.read(), near.read()] == [b"1", b"2"]

    def test_a_packet_that_is_too_long_is_refused(self, near: Endpoint, dev: FakeDev) -> None:
        with pytest.raises(FlowSizeException, match="1048261 bytes is too long"):
            near.write(bytes(1048261))
        assert near.write(bytes(1048260)) == 1048260

    def test_text_and_scattered_buffers_are_refused(self, near: Endpoint) -> None:
        with pytest.raises(TypeError, match="writeline"):
            near.write("text")  # type: ignore[arg-type]
        with pytest.raises(BufferError, match="contiguous"):
            near.write(memoryview(b"abcdef")[::2])

    def test_a_flow_that_is_read_only_writes_nothing(self, near: Endpoint, dev: FakeDev) -> None:
        near.flags = 0
        with pytest.raises(FlowPermissionException):
            near.write(b"x")
        near.flags = READ_WRITE
        assert near.write(b"x") == 1


class TestFlags:
    def test_write_only_drops_what_comes_and_can_be_undone(self, near: Endpoint, dev: FakeDev) -> None:
        """B18"""
        near.flags = WRITE_ONLY
        dev.put(near.fd, b"refused")
        with pytest.raises(FlowPermissionException):
            near.read()
        until(lambda: not dev.end(near.fd).received)
        near.flags = READ_WRITE
        dev.put(near.fd, b"taken")
        assert near.read() == b"taken"
        assert not dev.end(near.fd).refused

    def test_down_is_told_to_the_library_and_taken_back(self, near: Endpoint, dev: FakeDev) -> None:
        near.flags = READ_WRITE | DOWN_FLAG
        for call in near.read, lambda: near.write(b"x"):
            with pytest.raises(FlowDownException, match="Down"):
                call()
        assert near.ended == Ended.DOWN
        near.flags = READ_WRITE
        assert near.write(b"x") == 1
        assert near.ended == 0

    def test_other_flags_are_none_of_the_library_s_business(self, near: Endpoint, dev: FakeDev) -> None:
        """Each change would be an event at the peer."""
        before = dev.end(near.fd).flags
        near.flags = NON_BLOCKING | NO_PARTIAL
        assert near.flags == NON_BLOCKING | NO_PARTIAL
        assert dev.end(near.fd).flags == before

    def test_both_kinds_of_access_exclude_each_other(self, near: Endpoint) -> None:
        with pytest.raises(ValueError, match="exclude"):
            near.flags = 3


class TestDescriptor:
    def test_it_is_readable_as_long_as_there_are_packets(self, near: Endpoint, dev: FakeDev) -> None:
        assert silent(near, dev)
        dev.put(near.fd, b"1", b"2")
        assert readable(near.descriptor, 10)
        assert near.read() == b"1"
        assert readable(near.descriptor)
        assert near.read() == b"2"
        assert silent(near, dev)

    def test_a_keepalive_does_not_make_it_readable(self, near: Endpoint, dev: FakeDev) -> None:
        assert silent(near, dev)
        dev.put(near.fd, b"")
        until(lambda: not dev.end(near.fd).received)
        until(lambda: silent(near, dev))

    @pytest.mark.parametrize(("end", "ended"), [("end_by_peer", Ended.CLOSED), ("time_out", Ended.DEAD)])
    def test_the_end_makes_it_readable_once_it_was_seen_no_more(
        self, near: Endpoint, dev: FakeDev, end: str, ended: int
    ) -> None:
        assert silent(near, dev)
        getattr(dev, end)(near.fd)
        assert readable(near.descriptor, 10)
        assert near.ended == ended
        near.watch(ended)
        assert not readable(near.descriptor)

    def test_down_is_told_from_closed_and_up_again_is_news(self, near: Endpoint, dev: FakeDev) -> None:
        assert silent(near, dev)
        dev.set_down(near.fd, True)
        assert readable(near.descriptor, 10)
        assert near.ended == Ended.DOWN
        near.watch(Ended.DOWN)
        assert silent(near, dev)
        dev.set_down(near.fd, False)
        assert readable(near.descriptor, 10)
        assert near.ended == 0
        # Nobody has said to have seen that.
        until(lambda: dev.end(near.fd).set is not None)
        dev.set_down(near.fd, True)
        until(lambda: near.ended == Ended.DOWN)

    def test_down_that_was_taken_back_before_anybody_looked_is_news(self, near: Endpoint, dev: FakeDev) -> None:
        assert silent(near, dev)
        dev.set_down(near.fd, True)
        assert readable(near.descriptor, 10)
        dev.set_down(near.fd, False)
        until(lambda: near.ended == 0)
        assert readable(near.descriptor)
        near.watch(0)
        assert silent(near, dev)

    def test_an_event_that_comes_before_the_flow_is_down_says_why(self, near: Endpoint, dev: FakeDev) -> None:
        assert silent(near, dev)
        near.event([native_fake.DOWN])
        assert near.ended == 0
        dev.end(near.fd).down = True
        assert readable(near.descriptor, 10)
        assert near.ended == Ended.DOWN

    def test_an_end_without_an_event_is_found(self, near: Endpoint, dev: FakeDev) -> None:
        """The flow was in no set when it ended."""
        dev.put(near.fd, b"last")
        assert readable(near.descriptor)
        dev.end_by_peer(near.fd)
        assert near.read() == b"last"
        assert readable(near.descriptor)
        assert near.ended == Ended.CLOSED

    def test_a_waiting_reader_and_the_descriptor_do_not_get_in_each_other_s_way(
        self, near: Endpoint, dev: FakeDev
    ) -> None:
        descriptor = near.descriptor
        for number in range(20):
            reader = Background(near.read)
            dev.put(near.fd, b"%d" % number)
            assert reader.result() == b"%d" % number
        assert not readable(descriptor)

    @pytest.mark.slow
    def test_a_flow_that_is_read_gathers_no_events(self, bench: Bench, near: Endpoint, dev: FakeDev) -> None:
        """B8: thousands of packets of flows that are in a set, which the library has room for a thousand of."""
        other, _ = bench.flow()
        assert silent(near, dev)
        assert silent(other, dev)
        for number in range(5000):
            for endpoint in near, other:
                dev.put(endpoint.fd, b"%d" % number)
                assert readable(endpoint.descriptor, 10)
                assert endpoint.read() == b"%d" % number

    def test_room_that_is_wanted_makes_it_readable(self, near: Endpoint, dev: FakeDev) -> None:
        assert near.want_room(1)
        near.forget_room()
        near.flags = READ_WRITE | NON_BLOCKING
        with pytest.raises(FlowWouldBlockException):
            forever(lambda: near.write(b"x"))
        assert not readable(near.descriptor)
        assert not near.want_room(1)
        dev.take(far_of(near, dev))
        assert readable(near.descriptor, 10)
        near.forget_room()
        assert not readable(near.descriptor)

    def test_a_flow_with_frct_is_looked_at_and_never_in_a_set(self, bench: Bench, dev: FakeDev) -> None:
        """B10"""
        near, _ = bench.flow(in_order=1)
        assert not readable(near.descriptor)
        dev.put(near.fd, b"packet")
        assert readable(near.descriptor, 10)
        assert dev.end(near.fd).set is None
        assert near.read() == b"packet"

    def test_it_is_closed_with_the_flow_and_wakes_who_waits(self, near: Endpoint, dev: FakeDev) -> None:
        descriptor = near.descriptor
        waiting = Background(lambda: readable(descriptor, 10))
        waiting.until_asleep("poll")
        near.close()
        assert waiting.result()
        with pytest.raises(FlowNotAllocatedException):
            near.fileno()


class TestEnd:
    def test_a_flow_is_given_back_at_once_when_all_is_read(self, near: Endpoint, dev: FakeDev) -> None:
        near.close()
        until(lambda: near.fd not in dev._ends)
        near.close()
        assert dev.calls.count("flow_dealloc") == 1

    def test_a_flow_is_not_given_back_before_the_peer_has_read_everything(self, near: Endpoint, dev: FakeDev) -> None:
        """B6, B7"""
        near.write(b"last words")
        far = far_of(near, dev)
        near.close()
        assert near.fd in dev._ends
        assert dev.take(far) == [b"last words"]
        until(lambda: near.fd not in dev._ends)

    def test_the_number_of_a_flow_that_is_gone_is_never_used(self, bench: Bench, near: Endpoint, dev: FakeDev) -> None:
        """P9: it is another flow's at once."""
        read, write = near.read, near.write
        near.close()
        until(lambda: near.fd not in dev._ends)
        other, _ = bench.flow()
        assert other.fd == near.fd
        dev.put(other.fd, b"not for you")
        calls: list[Callable[[], object]] = [
            read, lambda: write(b"x"), lambda: near.write_many([b"x"]), lambda: near.receive_queue,
            lambda: near.transmit_queue, lambda: near.readable, near.fileno, lambda: near.want_room(1),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(FlowNotAllocatedException):
                call()
        assert other.read() == b"not for you"

    def test_a_flow_leaves_its_set(self, near: Endpoint, dev: FakeDev) -> None:
        """B9"""
        assert silent(near, dev)
        near.close()
        until(lambda: near.fd not in dev._ends)

    def test_events_of_others_are_not_lost_with_those_of_a_flow_that_is_gone(self, bench: Bench, dev: FakeDev) -> None:
        """An event of a flow that was given back looks like the end of the events."""
        gone, stays = bench.flow()[0], bench.flow()[0]
        assert silent(gone, dev)
        assert silent(stays, dev)
        with bench.pump._lock:
            # Before anybody reads the events.
            dev.put(gone.fd, b"x")
            dev.put(stays.fd, b"y")
            dev.fset_del(bench.pump._set, gone.fd)
            del bench.pump._armed[gone.fd]
            bench.pump._blind = True
            dev._ends.pop(gone.fd)
        assert readable(stays.descriptor, 10)

    @pytest.mark.slow
    def test_a_program_that_ends_waits_for_its_peers_but_not_for_ever(self, bench: Bench, dev: FakeDev) -> None:
        read, unread = bench.flow()[0], bench.flow()[0]
        read.write(b"x")
        unread.write(b"x")
        far = far_of(read, dev)
        read.close()
        goodbye = Background(bench.undertaker.say_goodbye)
        dev.take(far)
        goodbye.result()
        assert read.fd not in dev._ends
        unread.close()
        assert unread.fd in dev._ends

    def test_the_child_of_a_fork_uses_nothing(self, near: Endpoint) -> None:
        descriptor = os.dup(near.descriptor)
        near.disown()
        for call in near.read, lambda: near.write(b"x"), near.fileno:
            with pytest.raises(FlowException, match="forked"):
                call()
        assert not readable(descriptor)
        os.close(descriptor)


def test_full_duplex_across_threads_loses_nothing(bench: Bench, near: Endpoint, dev: FakeDev) -> None:
    far = Endpoint(bench.library, far_of(near, dev), bench.pump, bench.undertaker, frct=False)
    bench.made.append(far)
    numbers = [b"%d" % number for number in range(3000)]

    def pour(endpoint: Endpoint) -> None:
        for number in numbers:
            endpoint.write(number)

    def drain(endpoint: Endpoint) -> list[bytes]:
        return [endpoint.read() for _ in numbers]

    writers = [threading.Thread(target=pour, args=(endpoint,)) for endpoint in (near, far)]
    readers = [Background(partial(drain, endpoint)) for endpoint in (near, far)]
    for writer in writers:
        writer.start()
    assert [reader.result() for reader in readers] == [numbers, numbers]
    for writer in writers:
        writer.join()
