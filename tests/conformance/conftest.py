"""The two ends of a flow, in every world that has to behave like this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import msgspec
import pytest
from support import Background, NodeProcess, Programs, Shell

from ouroboros.dev import Flow, QoSSpec
from ouroboros.testing.node import Node

from .worlds import PROPERTIES, WORLDS, Pair, World

_WAYS = [
    pytest.param((world, side), id=f"{world.name}-{side}")
    for world, side in product(WORLDS, ["allocating", "accepting"])
    if side in world.sides
]


@pytest.fixture(params=_WAYS)
def make_pair(request: pytest.FixtureRequest) -> Iterator[Callable[..., Pair]]:
    """Connects a program by a flow of a world, which the test's end either allocates or accepts."""
    world: World
    world, side = request.param
    needed = [each for mark in request.node.iter_markers("needs") for each in mark.args]
    assert set(needed) <= set(PROPERTIES)
    # Before anything is started.
    if (lack := world.lack(needed)) is not None:
        pytest.skip(lack)
    node: NodeProcess = request.getfixturevalue("node")
    programs: Programs = request.getfixturevalue("programs")
    flows: list[Flow] = []

    def another() -> Node:
        made: Node = request.getfixturevalue("ouroboros_inproc_node")()
        # The test stays on its own node.
        request.getfixturevalue("monkeypatch").setenv("OUROBOROS_RUNTIME_DIR", str(node.directory))
        return made

    def make(qos: QoSSpec | None = None) -> Pair:
        qos = qos or QoSSpec()
        qos = msgspec.structs.replace(qos, cypher_s=max(qos.cypher_s, world.cypher_s))
        environment = world.offer("pair", side == "allocating", another)
        far = programs.shell("far", None, **environment)
        near = Flow()
        flows.append(near)
        if side == "allocating":
            far.begin("f = flow_accept(name='pair')")
            near.alloc("pair", qos)
        else:
            far.begin(f"f = flow_alloc('pair', {qos!r})")
            near.accept(name="pair")
        far.answer()
        return Pair(near, far, qos)

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
