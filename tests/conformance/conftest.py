"""The two ends of a flow, for every backend that has to behave like this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support import Background, NodeProcess, Programs, Shell

from ouroboros.control.messages import CreateName
from ouroboros.dev import Flow, QoSSpec
from ouroboros.runtime import client


@dataclass
class Pair:
    """`near` is a flow of the test, and `far` the program at the other end, which calls its flow `f`."""

    near: Flow
    far: Shell


@pytest.fixture(params=["local-allocating", "local-accepting"])
def make_pair(request: pytest.FixtureRequest, node: NodeProcess, programs: Programs) -> Iterator[Callable[..., Pair]]:
    """Connects a program by a flow of a backend, which the test's end either allocates or accepts."""
    flows: list[Flow] = []

    def make(qos: QoSSpec | None = None) -> Pair:
        client.request(CreateName("pair", "spillover"))
        far = programs.shell("far")
        near = Flow()
        flows.append(near)
        if request.param == "local-allocating":
            far.begin("f = flow_accept(name='pair')")
            near.alloc("pair", qos)
        else:
            far.begin(f"f = flow_alloc('pair', {qos!r})")
            near.accept(name="pair")
        far.answer()
        return Pair(near, far)

    yield make
    for flow in flows:
        flow.dealloc()


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair()


@pytest.fixture
def near(pair: Pair) -> Flow:
    return pair.near


@pytest.fixture
def far(pair: Pair) -> Shell:
    return pair.far


__all__ = ["Background", "Pair"]
