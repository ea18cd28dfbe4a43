"""The two ends of a flow, in every world that has to behave like this.

Starting nodes takes longer than what most tests do, so the tests of a world share its nodes. After each test, nothing of it
may be left there; else it fails, and the next one gets new nodes.
"""

from __future__ import annotations

import gc
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import msgspec
import pytest
from support import (
    Background,
    Programs,
    Shell,
    children,
    flows_of_node,
    holds_nothing,
    lasting_descriptors,
    logged_no_bug,
    mapped_flows,
)
from warm import Warm

from ouroboros import dev
from ouroboros.dataplane import Endpoint
from ouroboros.dev import Flow, QoSSpec
from ouroboros.qos import QOS_DATA
from ouroboros.runtime import client
from ouroboros.testing.node import ProcessNode
from ouroboros.wire.control import DestroyName

from .worlds import EVERY_CASE, PROPERTIES, SHARERS, WORLDS, Pair, World

_WAYS = [
    pytest.param((world, side), id=f"{world.name}-{side}")
    for world, side in product(WORLDS, ["allocating", "accepting"])
    if side in world.sides
]


class House:
    """The nodes of a world where the test's end is on one side. `near`: that of the test, if the world has nodes."""

    def __init__(self, world: World, side: str) -> None:
        self._world = world
        self._nodes: list[ProcessNode] = []
        self.near = self._another() if world.needs_node else None
        try:
            with self.near.use() if self.near is not None else nullcontext():
                #: What the far program needs.
                self.environment = world.offer("pair", side == "allocating", self._another)
        except BaseException:
            self.close()
            raise
        self._names = [set(node.names()) for node in self._nodes]
        #: Flows of the layers of the world, which stay.
        self._lower = [_flows(node) for node in self._nodes]

    def _another(self) -> ProcessNode:
        self._nodes.append(self._world.node(Path(__file__).parent))
        return self._nodes[-1]

    def check(self) -> None:
        """The last test left nothing but names, which a node keeps, and which go now."""
        for node, names, lower in zip(self._nodes, self._names, self._lower, strict=True):
            with node.use():
                holds_nothing(node.pid, lower=lower)
                for name in set(node.names()) - names:
                    client.request(DestroyName(name))
                assert set(node.names()) == names
            assert logged_no_bug(node.log())

    def close(self) -> None:
        for node in self._nodes:
            node.stop()
            print(node.log())
            node.clean_up()


def _flows(node: ProcessNode) -> set[int]:
    with node.use():
        return flows_of_node()


class Houses:
    """Those that were needed so far."""

    def __init__(self) -> None:
        self._houses: dict[tuple[str, str], House] = {}

    def of(self, world: World, side: str) -> House:
        key = world.name, side
        if key not in self._houses:
            self._houses[key] = House(world, side)
        return self._houses[key]

    def abandon(self, house: House) -> None:
        self._houses = {key: each for key, each in self._houses.items() if each is not house}
        house.close()

    def close(self) -> None:
        for house in self._houses.values():
            house.close()


@pytest.fixture(scope="session")
def houses() -> Iterator[Houses]:
    made = Houses()
    yield made
    made.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run all tests of the same nodes in one worker, and leave out the cases that a world does not need."""
    for item in items:
        if (way := _way(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(f"{way[0].name}-{way[1]}"))
    if EVERY_CASE in os.environ:
        return
    sharers = [world.name for world in WORLDS if world.shares]
    seen: set[tuple[str, str]] = set()
    kept, left_out = [], []
    for item in items:
        way = _way(item)
        world = None if way is None else way[0]
        test = item.nodeid.partition("[")[0]
        case = ("" if world is None else world.name, test)
        if world is None or world.thorough or (case not in seen and _has_turn(world, test, sharers)):
            kept.append(item)
        else:
            left_out.append(item)
        seen.add(case)
    if left_out:
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


def _has_turn(world: World, test: str, sharers: list[str]) -> bool:
    """Whether a world runs a test that others can run in its place, by a number of the test that is always the same."""
    return not world.shares or (sharers.index(world.name) - zlib.crc32(test.encode())) % len(sharers) < SHARERS


def _way(item: pytest.Item) -> tuple[World, str] | None:
    """The world of a test, and the side of its end."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    way = item.callspec.params.get("make_pair")
    return way if isinstance(way, tuple) else None


@pytest.fixture(params=_WAYS)
def make_pair(
    request: pytest.FixtureRequest, houses: Houses, warm_programs: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Pair]]:
    """Connects a program by a flow of a world, which the test's end either allocates or accepts."""
    world: World
    world, side = request.param
    lossless = request.node.get_closest_marker("lossless") is not None and "lossless" in world.lacks
    needed = [each for mark in request.node.iter_markers("needs") for each in mark.args]
    assert set(needed) <= set(PROPERTIES)
    # Before anything is started.
    if (lack := world.lack(needed)) is not None:
        pytest.skip(lack)
    environment = {"OUROBOROS_BACKEND": "node"} | world.environment()
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    house = houses.of(world, side)
    if house.near is not None:
        house.near.select(monkeypatch)
        # The way to it is that of the world.
        monkeypatch.setenv("OUROBOROS_BACKEND", environment["OUROBOROS_BACKEND"])
    programs = Programs(tmp_path, warm_programs)
    flows: list[Flow] = []
    client.client.forget()
    before = lasting_descriptors(), mapped_flows(), children()

    def make(qos: QoSSpec | None = None) -> Pair:
        if (lack := world.lack(needed, qos)) is not None:
            pytest.skip(lack)
        qos = qos or (QOS_DATA if lossless else world.qos)
        qos = msgspec.structs.replace(qos, cypher_s=max(qos.cypher_s, world.qos.cypher_s))
        far = programs.shell("far", None, **house.environment)
        near = Flow()
        flows.append(near)
        if side == "allocating":
            far.begin("f = flow_accept(name='pair')")
            # The far program may be slower, and that of the test before has ended.
            near.alloc("pair", qos, wait=True)
        else:
            far.begin(f"f = flow_alloc('pair', {qos!r}, wait=True)")
            near.accept(name="pair")
        far.answer()
        # It is this world, and no other, that the test is about.
        native = environment["OUROBOROS_BACKEND"] == "native"
        assert isinstance(near._endpoint, Endpoint) != native
        far.do(f"assert ('ouroboros.native.stack' in __import__('sys').modules) == {native}")
        return Pair(near, far, qos)

    try:
        yield make
        for flow in flows:
            flow.dealloc()
        gc.collect()
        assert not dev._flows, "the test has not deallocated these"
        programs.end()
        house.check()
        # The connections that are kept for the next call are no leak.
        client.client.forget()
        # Less is no leak: a test that failed keeps its flows for some time.
        assert not lasting_descriptors() - before[0]
        assert mapped_flows() <= before[1]
        assert set(children()) <= set(before[2])
    except BaseException:
        for flow in list(dev._flows):
            flow.dealloc()
        programs.end()
        client.client.forget()
        houses.abandon(house)
        raise


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
