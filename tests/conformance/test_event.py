"""Flow sets and event queues between two programs (`flows.md` 7, as intended)."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Background, NodeProcess, Program, Programs, Shell, descriptor_limit, until

from ouroboros.dev import Flow, FlowException, FlowProperties, flow_accept, flow_alloc
from ouroboros.event import FEventQueue, FEventType, FlowEventError, FlowEventTimeoutException, FlowSet
from ouroboros.runtime import client
from ouroboros.wire.control import ListNames, NodeInfo

from .worlds import Pair, arrived

READ_WRITE = FlowProperties.ReadWrite
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def fq() -> FEventQueue:
    return FEventQueue()


@pytest.fixture
def fs() -> Iterator[FlowSet]:
    with FlowSet() as flows:
        yield flows


@pytest.fixture
def ends(node: NodeProcess) -> Iterator[Callable[[], tuple[Flow, Flow]]]:
    """Makes flows of this program to itself."""
    with contextlib.ExitStack() as stack:
        names = iter(range(10_000))

        def make() -> tuple[Flow, Flow]:
            name = f"own-{next(names)}"
            acceptor = Background.waiting_for_node(lambda: flow_accept(name=name))
            one = stack.enter_context(flow_alloc(name))
            return one, stack.enter_context(acceptor.result())

        yield make


def told(flows: FlowSet, fq: FEventQueue) -> list[tuple[Flow, FEventType]]:
    """What one wait, which need not wait, tells."""
    try:
        flows.wait(fq, 0)
    except FlowEventTimeoutException:
        return []
    return list(fq)


#: Most tests ask for events without waiting, right after the other end did something.
INSTANT = pytest.mark.needs("instant")


def kinds(flows: FlowSet, fq: FEventQueue) -> list[FEventType]:
    return [kind for _, kind in told(flows, fq)]


def until_told(flows: FlowSet, fq: FEventQueue) -> list[FEventType]:
    """What the next wait tells, however long it takes."""
    flows.wait(fq)
    return [kind for _, kind in fq]


class TestTypes:
    """`flows.md` 7.1 and 7.3, a row each."""

    @INSTANT
    def test_flow_pkt_comes_once_for_each_packet(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        far.do("for number in range(3): f.write(b'%d' % number)")
        fs.wait(fq)
        for number in range(3):
            flow, kind = fq.next()
            assert flow is near
            assert kind is FEventType.FlowPkt
            assert flow.read() == b"%d" % number
        with pytest.raises(FlowEventError, match="no more events"):
            fq.next()
        assert kinds(fs, fq) == []

    @INSTANT
    def test_flow_pkt_comes_for_packets_from_before_the_flow_was_added(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        far.do("for _ in range(3): f.write(b'early')")
        fs.add(near)
        assert kinds(fs, fq) == [FEventType.FlowPkt] * 3

    @INSTANT
    def test_flow_pkt_comes_for_the_rest_of_a_packet(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        far.do("f.write(b'0123456789')")
        assert near.read(3) == b"012"
        fs.add(near)
        assert kinds(fs, fq) == [FEventType.FlowPkt]
        near.read(3)
        assert kinds(fs, fq) == [FEventType.FlowPkt]
        near.read()
        assert kinds(fs, fq) == []

    @INSTANT
    def test_flow_down_and_flow_up_follow_the_down_flag(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        for _ in range(3):
            far.do("f.set_flags(FlowProperties.ReadWrite | FlowProperties.Down)")
            assert kinds(fs, fq) == [FEventType.FlowDown]
            assert kinds(fs, fq) == []
            far.do("f.set_flags(FlowProperties.ReadWrite)")
            assert kinds(fs, fq) == [FEventType.FlowUp]
            assert kinds(fs, fq) == []
        far.do("f.write(b'works again')")
        assert kinds(fs, fq) == [FEventType.FlowPkt]

    @INSTANT
    def test_flow_down_wakes_a_wait(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        for flags, kind in ("Down", FEventType.FlowDown), ("ReadWrite", FEventType.FlowUp):
            waiting = Background(lambda: until_told(fs, fq))
            until(lambda: fs._waiting.locked())
            far.do(f"f.set_flags(FlowProperties.{flags})")
            assert waiting.result() == [kind]

    @INSTANT
    def test_flow_down_comes_after_the_packets_before_it(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("f.write(b'x'); f.set_flags(FlowProperties.Down)")
        assert kinds(fs, fq) == [FEventType.FlowPkt, FEventType.FlowDown]

    def test_flow_alloc_comes_when_a_member_gets_a_flow(
        self, node: NodeProcess, programs: Programs, fs: FlowSet, fq: FEventQueue
    ) -> None:
        flow = Flow()
        fs.add(flow)
        assert flow in fs
        assert kinds(fs, fq) == []
        far = programs.shell("far")
        far.begin_blocked("f = flow_accept(name='late')", "node")
        with flow:
            flow.alloc("late")
            far.answer()
            far.do("f.write(b'x')")
            assert told(fs, fq) == [(flow, FEventType.FlowAlloc), (flow, FEventType.FlowPkt)]

    def test_flow_alloc_wakes_a_wait(self, ends: Callable[[], tuple[Flow, Flow]], fs: FlowSet, fq: FEventQueue) -> None:
        flow = Flow()
        fs.add(flow)
        waiting = Background(lambda: until_told(fs, fq))
        until(lambda: fs._waiting.locked())
        acceptor = Background.waiting_for_node(lambda: flow.accept(name="late"))
        with flow, flow_alloc("late"):
            acceptor.result()
            assert waiting.result() == [FEventType.FlowAlloc]

    def test_flow_alloc_of_a_flow_that_is_gone_again_is_not_told(
        self, node: NodeProcess, fs: FlowSet, fq: FEventQueue
    ) -> None:
        flow = Flow()
        fs.add(flow)
        acceptor = Background.waiting_for_node(lambda: flow_accept(name="late"))
        with flow:
            flow.alloc("late")
        acceptor.result().dealloc()
        assert kinds(fs, fq) == []
        assert flow not in fs

    @INSTANT
    @pytest.mark.parametrize("end", ["f.dealloc()", "f = None"])
    def test_flow_dealloc_comes_once_and_after_the_packets(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue, end: str
    ) -> None:
        fs.add(near)
        far.do("import warnings; warnings.simplefilter('ignore'); f.write(b'last')")
        far.do(end)
        assert kinds(fs, fq) == [FEventType.FlowPkt, FEventType.FlowDealloc]
        assert near in fs
        assert near.read() == b"last"
        assert kinds(fs, fq) == []

    def test_flow_dealloc_comes_when_the_peer_exits(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        far.finish()
        assert until_told(fs, fq) == [FEventType.FlowDealloc]

    @pytest.mark.needs("death")
    def test_flow_peer_comes_once_when_the_peer_is_killed(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("f.write(b'last')")
        arrived(near, 1)
        far.kill()
        found = []
        while FEventType.FlowPeer not in found:
            found += until_told(fs, fq)
        # Where the death is told later than the packet, the packet may have been told of already.
        assert set(found[:-1]) == {FEventType.FlowPkt}
        assert near.read() == b"last"
        assert kinds(fs, fq) == []

    @pytest.mark.needs("death")
    def test_flow_peer_wakes_a_wait(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        waiting = Background(lambda: until_told(fs, fq))
        until(lambda: fs._waiting.locked())
        far.kill()
        assert waiting.result() == [FEventType.FlowPeer]

    def test_subclasses_that_forget_to_call_init_work(self, ends: Callable[[], tuple[Flow, Flow]]) -> None:
        class Set(FlowSet):
            def __init__(self, color: str) -> None:
                self.color = color

        class Queue(FEventQueue):
            def __init__(self, color: str) -> None:
                self.color = color

        one, other = ends()
        queue = Queue("red")
        assert not queue
        with Set("red") as flows:
            flows.add(one)
            other.write(b"x")
            flows.wait(queue, 20)
            assert queue.next() == (one, FEventType.FlowPkt)

    def test_no_packet_hides_behind_the_end(self, ends: Callable[[], tuple[Flow, Flow]], fq: FEventQueue) -> None:
        """The peer writes and goes while the set looks at the flow."""
        one, other = ends()

        class Meanwhile:
            """An endpoint whose peer goes right after the first look at it."""

            def __init__(self) -> None:
                self._real = one._held()
                self._looked = False

            def __getattr__(self, name: str) -> object:
                value = getattr(self._real, name)
                if not self._looked and name in ("ended", "readable", "receive_queue"):
                    self._looked = True
                    other.write(b"last")
                    other.dealloc()
                return value

        with FlowSet([one]) as fs:
            real, one._endpoint = one._endpoint, Meanwhile()  # type: ignore[assignment]
            found = fs._events_of(one)
            one._endpoint = real
            found += kinds(fs, fq)
            assert found[-1] is FEventType.FlowDealloc
            assert FEventType.FlowPkt in found


@INSTANT
class TestQueue:
    def test_packets_that_were_read_meanwhile_are_passed_over(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("for _ in range(5): f.write(b'x')")
        fs.wait(fq)
        near.read_many()
        assert bool(fq)
        with pytest.raises(FlowEventError):
            fq.next()
        assert not fq

    def test_a_queue_of_stale_events_does_not_end_a_wait(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        """B10: a wait that returns, and a queue that has nothing, again and again."""
        fs.add(near)
        far.do("f.write(b'x'); f.write(b'y')")
        fs.wait(fq)
        near.read_many()
        with pytest.raises(FlowEventTimeoutException):
            fs.wait(fq, 0)
        far.do("f.write(b'z')")
        fs.wait(fq, 0)
        assert fq.next() == (near, FEventType.FlowPkt)

    def test_a_wait_with_events_left_returns_them_at_once(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("f.write(b'x'); f.write(b'y')")
        fs.wait(fq)
        fq.next()
        with FlowSet() as other:
            other.wait(fq)
        assert list(fq) == [(near, FEventType.FlowPkt)]

    def test_events_survive_removal(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        far.do("f.write(b'x')")
        fs.wait(fq)
        fs.remove(near)
        assert near not in fs
        assert fq.next() == (near, FEventType.FlowPkt)

    def test_events_of_a_flow_that_was_deallocated_are_passed_over(
        self, make_pair: Callable[..., Pair], fs: FlowSet, fq: FEventQueue
    ) -> None:
        one, other = make_pair(), make_pair()
        for pair in (one, other):
            fs.add(pair.near)
            pair.far.do("f.write(b'x')")
        fs.wait(fq)
        one.near.dealloc()
        assert list(fq) == [(other.near, FEventType.FlowPkt)]

    def test_a_packet_that_was_not_read_is_told_of_again(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("f.write(b'x')")
        for _ in range(3):
            assert kinds(fs, fq) == [FEventType.FlowPkt]
        near.read()
        assert kinds(fs, fq) == []

    def test_thousands_of_packets_overflow_nothing(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        """B8: the events of a set that nobody waits on; and all are told of in the end."""
        fs.add(near)
        far.do("for number in range(5000): f.write(b'%d' % number)")
        seen = 0
        while seen < 5000:
            fs.wait(fq, 0)
            for flow, kind in fq:
                assert kind is FEventType.FlowPkt
                assert flow.read() == b"%d" % seen
                seen += 1
        far.do("for number in range(5000): f.write(b'%d' % number)")
        while near.get_rx_queue_len():
            near.read_many(1000)
        assert kinds(fs, fq) == []

    def test_the_end_comes_after_more_packets_than_one_wait_tells_of(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("for _ in range(3000): f.write(b'x')")
        far.do("f.dealloc()")
        found: list[FEventType] = []
        while FEventType.FlowDealloc not in found:
            fs.wait(fq)
            for flow, kind in fq:
                found.append(kind)
                if kind is FEventType.FlowPkt:
                    flow.read()
        assert found == [FEventType.FlowPkt] * 3000 + [FEventType.FlowDealloc]


@INSTANT
class TestMembers:
    def test_a_set_knows_its_members(self, ends: Callable[[], tuple[Flow, Flow]]) -> None:
        one, other = ends()
        with FlowSet([one]) as fs:
            assert one in fs
            assert other not in fs
            fs.add(other)
            assert set(fs) == {one, other}
            assert len(fs) == 2
            fs.remove(one)
            assert list(fs) == [other]
            fs.zero()
            assert list(fs) == []

    def test_a_flow_is_in_one_set_at_most(self, near: Flow, fs: FlowSet) -> None:
        fs.add(near)
        with pytest.raises(FlowEventError, match="this set"):
            fs.add(near)
        with FlowSet() as other:
            with pytest.raises(FlowEventError, match="another set"):
                other.add(near)
            fs.remove(near)
            other.add(near)
        fs.add(near)
        assert near in fs

    def test_what_is_not_in_the_set_can_be_removed(self, near: Flow, fs: FlowSet) -> None:
        fs.remove(near)
        with FlowSet([near]) as other:
            fs.remove(near)
            assert near in other

    def test_a_flow_that_was_removed_tells_nothing(self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
        fs.add(near)
        far.do("f.write(b'x')")
        fs.remove(near)
        assert kinds(fs, fq) == []
        fs.add(near)
        assert kinds(fs, fq) == [FEventType.FlowPkt]

    def test_zero_takes_all_out_and_discards_what_was_posted(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        flow = Flow()
        fs.add(near)
        fs.add(flow)
        acceptor = Background.waiting_for_node(lambda: flow_accept(name="late"))
        with flow:
            flow.alloc("late")
            acceptor.result().dealloc()
            far.do("f.write(b'x')")
            fs.zero()
            assert kinds(fs, fq) == []

    def test_a_flow_that_is_deallocated_leaves_its_set(self, near: Flow, fs: FlowSet, fq: FEventQueue) -> None:
        """B9."""
        fs.add(near)
        near.dealloc()
        assert near not in fs
        assert len(fs) == 0
        fs.add(near)
        assert near in fs

    def test_a_flow_with_the_number_of_one_that_left_is_a_stranger(
        self, ends: Callable[[], tuple[Flow, Flow]], fs: FlowSet, fq: FEventQueue
    ) -> None:
        """B9: neither the flow id nor the descriptor of a flow that is gone says anything about the next one."""
        one, other = ends()
        fs.add(one)
        descriptor = one._held().descriptor
        one.dealloc()
        other.dealloc()
        kept = [ends() for _ in range(3)]
        assert descriptor in [flow._held().descriptor for pair in kept for flow in pair]
        for left, right in kept:
            right.write(b"x")
            assert left not in fs
        assert kinds(fs, fq) == []
        for left, _ in kept:
            fs.add(left)
        assert kinds(fs, fq) == [FEventType.FlowPkt] * 3

    def test_an_object_that_gets_another_flow_has_to_be_added_again(
        self, near: Flow, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        near.dealloc()
        acceptor = Background.waiting_for_node(lambda: flow_accept(name="again"))
        near.alloc("again")
        with acceptor.result() as other:
            other.write(b"x")
            assert kinds(fs, fq) == []
            fs.add(near)
            assert told(fs, fq) == [(near, FEventType.FlowPkt)]

    def test_a_set_that_is_dropped_lets_go_of_its_flows(self, near: Flow) -> None:
        """P12."""
        for _ in range(100):
            FlowSet([near])
        with FlowSet([near]) as fs:
            assert near in fs


@INSTANT
class TestDestroyed:
    def test_a_destroyed_set_refuses_everything_but_to_be_destroyed(self, near: Flow, fq: FEventQueue) -> None:
        """P11."""
        fs = FlowSet([near])
        for _ in range(3):
            fs.destroy()
        calls: list[Callable[[], object]] = [
            lambda: fs.add(near),
            lambda: fs.remove(near),
            fs.zero,
            lambda: fs.wait(fq, 0),
            lambda: fs.wait(fq),
        ]
        for call in calls:
            with pytest.raises(FlowEventError, match="destroyed"):
                call()
        assert near not in fs
        with FlowSet([near]) as other:
            assert near in other

    def test_with_destroys(self, near: Flow, fq: FEventQueue) -> None:
        with FlowSet([near]) as fs:
            pass
        with pytest.raises(FlowEventError, match="destroyed"):
            fs.wait(fq)
        near.dealloc()

    def test_destroy_wakes_whoever_waits(self, near: Flow) -> None:
        fs = FlowSet([near])
        waiting = [Background(lambda: fs.wait(FEventQueue())) for _ in range(3)]
        until(lambda: fs._waiting.locked())
        fs.destroy()
        for each in waiting:
            with pytest.raises(FlowEventError, match="destroyed"):
                each.result()

    def test_hundreds_of_sets_can_be_had(self, near: Flow, far: Shell, fq: FEventQueue) -> None:
        """P11: 31 in a process of the prototype."""
        sets = [FlowSet() for _ in range(300)]
        sets[-1].add(near)
        far.do("f.write(b'x')")
        assert kinds(sets[-1], fq) == [FEventType.FlowPkt]
        for each in sets:
            each.destroy()

    def test_a_flow_can_be_deallocated_while_its_set_is_being_destroyed(
        self, ends: Callable[[], tuple[Flow, Flow]]
    ) -> None:
        one, _ = ends()
        fs = FlowSet([one])
        fs.destroy()
        # As a thread sees it that asked for the watcher before the other one destroyed the set.
        fs.flow_deallocated(one)
        fs.flow_allocated(one)


@INSTANT
class TestTimeouts:
    @pytest.mark.parametrize("timeout", [0, 0.0, 0.001, 0.02])
    def test_a_wait_ends_at_its_timeout_and_not_before(
        self, near: Flow, fs: FlowSet, fq: FEventQueue, timeout: float
    ) -> None:
        fs.add(near)
        start = time.monotonic()
        with pytest.raises(FlowEventTimeoutException) as caught:
            fs.wait(fq, timeout)
        assert time.monotonic() - start >= timeout
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, FlowEventError)
        assert not fq

    def test_an_empty_set_times_out(self, fs: FlowSet, fq: FEventQueue) -> None:
        with pytest.raises(FlowEventTimeoutException):
            fs.wait(fq, 0)

    @pytest.mark.parametrize("timeout", [None, 1e8, 1e12, float("inf")])
    def test_without_a_timeout_or_with_a_long_one_it_waits(
        self, near: Flow, far: Shell, fs: FlowSet, timeout: float | None
    ) -> None:
        fs.add(near)
        fq = FEventQueue()
        waiting = Background(lambda: fs.wait(fq, timeout))
        until(lambda: fs._waiting.locked())
        far.do("f.write(b'x')")
        waiting.result()
        assert fq.next() == (near, FEventType.FlowPkt)

    def test_a_second_waiter_has_a_timeout_of_its_own(self, near: Flow, far: Shell, fs: FlowSet) -> None:
        fs.add(near)
        first = Background(lambda: until_told(fs, FEventQueue()))
        until(lambda: fs._waiting.locked())
        with pytest.raises(FlowEventTimeoutException, match="another thread"):
            fs.wait(FEventQueue(), 0.001)
        far.do("f.write(b'x')")
        assert first.result() == [FEventType.FlowPkt]


@INSTANT
class TestThreads:
    def test_of_several_waiters_each_event_finds_one(self, near: Flow, far: Shell, fs: FlowSet) -> None:
        count = 2000
        fs.add(near)
        lock = threading.Lock()
        got: list[int] = []

        def work() -> None:
            fq = FEventQueue()
            with contextlib.suppress(FlowEventError):
                while True:
                    fs.wait(fq)
                    with lock:
                        # Events of the same packet, told to two threads, are one packet.
                        for flow, kind in fq:
                            assert flow is near
                            assert kind is FEventType.FlowPkt
                            got.append(int(flow.read()))
                        done = len(got) == count
                    if done:
                        fs.destroy()

        workers = [Background(work) for _ in range(4)]
        far.do(f"for number in range({count}): f.write(b'%d' % number)")
        for worker in workers:
            worker.result()
        assert got == list(range(count))

    def test_flows_come_and_go_while_another_thread_waits(
        self, ends: Callable[[], tuple[Flow, Flow]], fs: FlowSet
    ) -> None:
        def work() -> list[FEventType]:
            found: list[FEventType] = []
            fq = FEventQueue()
            while True:
                try:
                    fs.wait(fq)
                except FlowEventError:
                    return found
                found += [kind for _, kind in fq]

        worker = Background(work)
        for _ in range(50):
            one, other = ends()
            fs.add(one)
            other.write(b"x")
            one.dealloc()
        fs.destroy()
        assert set(worker.result()) <= {FEventType.FlowPkt}


@INSTANT
class TestSize:
    def test_of_many_members_only_those_with_news_cost(
        self, make_node: Callable[..., NodeProcess], fq: FEventQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_node()
        count = min(2000, (descriptor_limit() - 200) // 2)
        looks: list[Flow] = []
        real = FlowSet._events_of

        def counted(self: FlowSet, flow: Flow) -> list[FEventType]:
            looks.append(flow)
            return real(self, flow)

        with contextlib.ExitStack() as stack, FlowSet() as fs:
            server = Background.waiting_for_node(
                lambda: [stack.enter_context(flow_accept(name="many")) for _ in range(count)]
            )
            near = [stack.enter_context(flow_alloc("many")) for _ in range(count)]
            far = server.result()
            for flow in near:
                fs.add(flow)
            assert kinds(fs, fq) == []
            monkeypatch.setattr(FlowSet, "_events_of", counted)
            for _ in range(10):
                far[count // 2].write(b"x")
                assert len(fs._epoll.poll(0)) == 1
                fs.wait(fq)
                flow, kind = fq.next()
                assert kind is FEventType.FlowPkt
                assert flow.read() == b"x"
                assert kinds(fs, fq) == []
            assert set(looks) == {flow}
            assert len(looks) <= 20
            assert fs._epoll.poll(0) == []


@INSTANT
class TestFork:
    def test_a_child_may_not_use_the_set_and_does_not_harm_it(
        self, near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
    ) -> None:
        fs.add(near)
        far.do("f.write(b'x')")
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(fs, fq, near))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert kinds(fs, fq) == [FEventType.FlowPkt]
        near.read()
        assert kinds(fs, fq) == []
        far.do("f.write(b'y')")
        assert kinds(fs, fq) == [FEventType.FlowPkt]

    def test_a_child_can_have_a_set_of_its_own(self, node: NodeProcess, programs: Programs) -> None:
        program = programs.start(
            """
            from ouroboros.event import *
            flows = FlowSet()
            member = Flow()
            flows.add(member)
            if os.fork():
                sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
            accepted = []
            thread = threading.Thread(target=lambda: accepted.append(flow_accept(name="child")))
            thread.start()
            while True:
                try:
                    member.alloc("child")
                    break
                except FlowNameException:
                    pass
            thread.join()
            fq = FEventQueue()
            with FlowSet(accepted) as own, member, accepted[0]:
                member.write(b"x")
                own.wait(fq)
                sys.exit(0 if fq.next() == (accepted[0], FEventType.FlowPkt) else 1)
            """
        )
        assert program.process.wait() == 0, program.errors()


def _in_child(fs: FlowSet, fq: FEventQueue, flow: Flow) -> int:
    """What a child does to the set of its parent; 0 when all is refused."""
    calls: list[Callable[[], None]] = [lambda: fs.wait(fq, 0), lambda: fs.remove(flow), fs.zero]
    for call in calls:
        try:
            call()
            return 1
        except FlowException as error:
            if "fork" not in str(error):
                return 2
    fs.destroy()
    flow.dealloc()
    return 0


class TestPrograms:
    """The programs of the binding's world, as written, each known by the name of its script."""

    @pytest.fixture
    def run(self, embedded: Path, programs: Programs, tmp_path: Path) -> Callable[..., Program]:
        client.request(NodeInfo())

        def start(name: str, *arguments: str) -> Program:
            # A copy for each: what one program is reading must not be written again.
            path = Path(shutil.copy(PROGRAMS / f"{name}.py", tempfile.mkdtemp(dir=tmp_path)))
            program = programs._keep(Program(path, list(arguments), {}, None))
            if arguments:
                until(lambda: name in {entry.name for entry in client.request(ListNames()) if entry.processes})
            return program

        return start

    def test_echo(self, run: Callable[..., Program]) -> None:
        server = run("echo", "listen")
        for _ in range(3):
            visitor = run("echo")
            assert visitor.raw_line() == "Hello, PyOuroboros!"
            assert visitor.process.wait() == 0
            assert server.raw_line() == "New flow."
            assert server.raw_line() == "Message from client is Hello, PyOuroboros!"

    def test_echo_with_a_flow_set(self, run: Callable[..., Program]) -> None:
        server = run("echo_set", "listen")
        for visitor in [run("echo_set") for _ in range(3)]:
            assert [visitor.raw_line() for _ in range(3)] == ["line 0", "line 1", "line 2"]
            assert visitor.process.wait() == 0
            assert server.raw_line() == "FlowDealloc"


@INSTANT
def test_a_set_is_waited_on_with_the_calls_of_the_kernel(near: Flow, far: Shell) -> None:
    """The descriptor of a member is not taken away from other pollers."""
    with FlowSet([near]):
        assert not select.select([near], [], [], 0)[0]
        far.do("f.write(b'x')")
        assert select.select([near], [], [], 0)[0]
