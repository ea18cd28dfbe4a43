"""The pytest plugin: fixtures for private nodes and impaired layers.

pytest imports this module in every run on a machine that has the package, so it imports nothing of the package by itself and
starts nothing: the fixtures do, when a test asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ouroboros.testing.impaired import ImpairedLayer
    from ouroboros.testing.node import Node


@pytest.fixture
def ouroboros_node(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node of the test's own, in a process of its own. The test, and programs that it starts, find it by themselves."""
    from ouroboros.testing.node import ProcessNode

    node = ProcessNode(request.path.parent)
    try:
        node.select(monkeypatch)
        yield node
    finally:
        node.stop()
        request.node.add_report_section("teardown", "log of the node", node.log())
        node.clean_up()


@pytest.fixture
def ouroboros_inproc_node(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Node]]:
    """Starts nodes within the test process, each in a thread, any number of them. The one that was started last is the one
    that is found; `with node.use():` turns to another."""
    from ouroboros.testing.node import ThreadNode

    nodes: list[ThreadNode] = []

    def start() -> Node:
        nodes.append(ThreadNode(request.path.parent))
        nodes[-1].select(monkeypatch)
        return nodes[-1]

    try:
        yield start
    finally:
        for node in reversed(nodes):
            node.stop()
            node.clean_up()


@pytest.fixture
def ouroboros_impaired_layer(ouroboros_node: Node) -> Callable[..., ImpairedLayer]:
    """Lets flows to a name go through a bad link: `ouroboros_impaired_layer("clock", "loss=10%", seed=7)`."""
    return ouroboros_node.impair
