"""A pool of workers that share a name: who gets the next client, one after the other and all at once."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import Background, Programs, until

from ouroboros.dev import Flow, flow_alloc
from ouroboros.testing.node import Node, ThreadNode

EXAMPLE = Path(__file__).parents[2] / "examples" / "pool.py"
WORKERS = 4


class Pool:
    """Four workers, as the example has them, on a node within the test, which tells who waits."""

    def __init__(self, node: Node, programs: Programs) -> None:
        assert isinstance(node, ThreadNode)
        self._registry = node._node._irm.registry
        source = (
            f"import runpy; sys.argv[:] = ['pool.py', '--listen']; runpy.run_path({str(EXAMPLE)!r}, None, '__main__')"
        )
        self.pids = [programs.start(source, name="pool").pid for _ in range(WORKERS)]
        self.all_wait()

    def all_wait(self, busy: int = 0) -> None:
        """Until all of them wait for a client, but so many."""
        names = self._registry.names
        until(lambda: "pool" in names and len(names["pool"].acceptors) == WORKERS - busy)


@pytest.fixture
def pool(ouroboros_inproc_node: Callable[[], Node], tmp_path: Path) -> Iterator[Pool]:
    node, programs = ouroboros_inproc_node(), Programs(tmp_path)
    yield Pool(node, programs)
    programs.end()


def solved_by(answer: str) -> int:
    found = re.fullmatch(r"4, says worker (\d+)", answer)
    assert found is not None, answer
    return int(found[1])


def finish(flow: Flow) -> int:
    """Give the task of a flow, and return which worker solved it."""
    with flow:
        flow.writeline("10")
        return solved_by(flow.readline())


def ask() -> int:
    return finish(flow_alloc("pool"))


def test_clients_that_come_one_after_the_other_reach_all_workers_evenly(pool: Pool) -> None:
    order = []
    for _ in range(3 * WORKERS):
        pool.all_wait()
        order.append(ask())
    assert Counter(order) == dict.fromkeys(pool.pids, 3)
    assert order == 3 * order[:WORKERS]


def test_clients_that_come_at_once_get_a_worker_each(pool: Pool) -> None:
    with ExitStack() as stack:
        flows = [stack.enter_context(flow_alloc("pool")) for _ in range(WORKERS)]
        # Now all are busy, and one more client waits for the first that is not.
        late = Background.waiting_for_node(lambda: flow_alloc("pool"))
        first = finish(flows[2])
        assert finish(late.result()) == first
        workers = [first, *(finish(flow) for flow in (flows[0], flows[1], flows[3]))]
    assert set(workers) == set(pool.pids)


def test_a_busy_worker_is_passed_over(pool: Pool) -> None:
    with flow_alloc("pool") as kept:
        order = []
        for _ in range(2 * (WORKERS - 1)):
            pool.all_wait(busy=1)
            order.append(ask())
        busy = finish(kept)
    assert Counter(order) == {pid: 2 for pid in pool.pids if pid != busy}


def test_the_example_prints_what_the_workers_say(pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for options in ([], ["--parallel"]):
        monkeypatch.setattr("sys.argv", ["pool.py", *options, "10", "10", "10"])
        runpy.run_path(str(EXAMPLE), None, "__main__")
        lines = capsys.readouterr().out.splitlines()
        workers = {solved_by(line.removeprefix("below 10: ")) for line in lines}
        assert len(lines) == 3
        assert workers <= set(pool.pids)
