"""The numbers of `ouroboros.dataplane.ends` are those of the engine."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ouroboros.dataplane import Endpoint, create_channel, ends, mark_dead
from ouroboros.dataplane.ends import Ended
from ouroboros.dev import FlowProperties
from ouroboros.errors import FlowException, FlowPermissionException, FlowSizeException, FlowWouldBlockException


class Pair:
    """Both ends of a flow, and its memory."""

    def __init__(self) -> None:
        self.memory, *bells = create_channel()
        memories = [os.dup(self.memory) for _ in bells]
        self.near, self.far = (Endpoint(*each, side) for side, each in enumerate(zip(memories, bells, strict=True)))
        self.near.flags = self.far.flags = ends.READ_WRITE | ends.NON_BLOCKING_READ | ends.NON_BLOCKING_WRITE

    def close(self) -> None:
        self.near.close()
        self.far.close()
        os.close(self.memory)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def set_down(pair: Pair) -> None:
    pair.far.flags |= ends.DOWN


@pytest.mark.parametrize(
    ("end", "ended"),
    [
        (lambda pair: None, 0),
        (lambda pair: pair.far.close(), Ended.CLOSED),
        (lambda pair: mark_dead(pair.memory, 1), Ended.DEAD),
        (set_down, Ended.DOWN),
    ],
)
def test_what_ended_a_flow_is_said_by_its_number(pair: Pair, end: Callable[[Pair], None], ended: int) -> None:
    end(pair)
    assert pair.near.ended == ended
    pair.close()


def test_a_flow_begins_with_the_default_flags() -> None:
    memory, bell, other = create_channel()
    end = Endpoint(memory, bell, 0)
    assert end.flags == ends.DEFAULT_FLAGS
    end.close()
    os.close(other)


@pytest.mark.parametrize(
    ("flags", "act", "error"),
    [
        (ends.READ_ONLY, lambda end: end.write(b"x"), FlowPermissionException),
        (ends.WRITE_ONLY, lambda end: end.read(), FlowPermissionException),
        (ends.READ_WRITE | ends.NON_BLOCKING_READ, lambda end: (end.read(), end.read()), FlowWouldBlockException),
        (
            ends.READ_WRITE | ends.NON_BLOCKING_WRITE,
            lambda end: [end.write(bytes(1 << 20)) for _ in range(9)],
            FlowWouldBlockException,
        ),
        (ends.READ_WRITE | ends.NO_PARTIAL_READ, lambda end: end.read(3), FlowSizeException),
    ],
)
def test_each_flag_means_to_the_engine_what_it_is_called(
    pair: Pair, flags: int, act: Callable[[Endpoint], object], error: type[FlowException]
) -> None:
    pair.far.write(b"four")
    pair.near.flags = flags
    with pytest.raises(error):
        act(pair.near)
    pair.close()


def test_programs_have_a_name_for_each_flag() -> None:
    named = {flag.value for flag in FlowProperties}
    of_the_end = {
        ends.WRITE_ONLY,
        ends.READ_WRITE,
        ends.DOWN,
        ends.NON_BLOCKING_READ,
        ends.NON_BLOCKING_WRITE,
        ends.NO_PARTIAL_READ,
        ends.NO_PARTIAL_WRITE,
    }
    assert named == of_the_end
    assert ends.ACCESS == ends.WRITE_ONLY | ends.READ_WRITE
