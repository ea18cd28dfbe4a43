"""Sets of flows that wait for what happens, however long it is on its way. `test_event.py` has those that only look."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support import Background, Shell, until

from ouroboros.dev import Flow
from ouroboros.event import FEventQueue, FEventType, FlowEventTimeoutException, FlowSet

from .conftest import Pair


@pytest.fixture
def fq() -> FEventQueue:
    return FEventQueue()


@pytest.fixture
def fs() -> Iterator[FlowSet]:
    with FlowSet() as flows:
        yield flows


def next_told(fs: FlowSet, fq: FEventQueue) -> tuple[Flow, FEventType]:
    fs.wait(fq)
    return fq.next()


def test_a_packet_wakes_a_wait_and_is_told_with_the_programs_own_object(
    near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
) -> None:
    fs.add(near)
    waiting = Background(lambda: next_told(fs, fq))
    until(lambda: fs._waiting.locked())
    far.do("f.write(b'packet')")
    flow, kind = waiting.result()
    assert flow is near
    assert kind is FEventType.FlowPkt
    assert flow.read() == b"packet"


def test_each_packet_can_be_waited_for_and_is_told_of_until_it_is_read(
    near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
) -> None:
    fs.add(near)
    for number in range(100):
        far.begin(f"f.write(b'{number}')")
        for _ in range(2):
            assert next_told(fs, FEventQueue()) == (near, FEventType.FlowPkt)
        assert near.read() == b"%d" % number
        far.answer()
    with pytest.raises(FlowEventTimeoutException):
        fs.wait(fq, 0.05)


def test_packets_from_before_are_told_of(near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
    far.do("f.write(b'early')")
    fs.add(near)
    assert next_told(fs, fq) == (near, FEventType.FlowPkt)


def test_dealloc_is_told_of_once_and_behind_the_packets(near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
    fs.add(near)
    far.do("f.write(b'last'); f.dealloc()")
    assert next_told(fs, fq)[1] is FEventType.FlowPkt
    assert near.read() == b"last"
    assert next_told(fs, fq) == (near, FEventType.FlowDealloc)
    with pytest.raises(FlowEventTimeoutException):
        fs.wait(fq, 0.05)


@pytest.mark.needs("death")
def test_a_peer_that_is_killed_is_told_of(near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
    fs.add(near)
    far.kill()
    assert next_told(fs, fq) == (near, FEventType.FlowPeer)


@pytest.mark.needs("shared-flags")
def test_down_and_up_are_told_of(near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue) -> None:
    fs.add(near)
    for flags, kind in ("Down", FEventType.FlowDown), ("ReadWrite", FEventType.FlowUp), ("Down", FEventType.FlowDown):
        far.do(f"f.set_flags(FlowProperties.{flags})")
        assert next_told(fs, fq) == (near, kind)


def test_a_flow_that_left_tells_nothing_and_the_others_go_on(
    make_pair: Callable[..., Pair], fs: FlowSet, fq: FEventQueue
) -> None:
    pair = make_pair()
    fs.add(pair.near)
    fs.remove(pair.near)
    pair.far.do("f.write(b'1')")
    assert pair.near.read() == b"1"
    with pytest.raises(FlowEventTimeoutException):
        fs.wait(fq, 0.05)
    fs.add(pair.near)
    pair.far.do("f.write(b'2')")
    assert next_told(fs, fq) == (pair.near, FEventType.FlowPkt)
    pair.near.dealloc()
    assert pair.near not in fs


@pytest.mark.needs("back-pressure")
@pytest.mark.lossless
def test_thousands_of_packets_are_told_of_and_none_is_lost(
    near: Flow, far: Shell, fs: FlowSet, fq: FEventQueue
) -> None:
    fs.add(near)
    far.begin("for number in range(3000): f.write(b'%d' % number)")
    seen = 0
    while seen < 3000:
        fs.wait(fq)
        for flow, kind in fq:
            assert kind is FEventType.FlowPkt
            assert flow.read() == b"%d" % seen
            seen += 1
    far.answer()
