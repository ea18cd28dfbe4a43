"""A broadcast layer: one member writes as fast as it goes, and what the others get of it, beside the C prototype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from bench.harness import BenchError, Node, Pair, Program, serve
from bench.prototype import afresh, broadcast_hosts, on_one_host
from bench.rows import MEMBERS
from bench.run import Run, Sample, packets_for
from ouroboros.testing.link import NamespacePair

_SIZE = 64
_TRIAL = 5000
_MOST_PACKETS = 1_000_000
_LAYER = "bench"
_PEER = "broadcast"
_ETHERNET = "ipcp bootstrap type eth-dix name eth layer net dev veth0"
_FIRST = f"ipcp bootstrap type broadcast name b0 layer {_LAYER} autobind"
_SECOND = f"ipcp enroll type broadcast name b1 layer {_LAYER} dst b0 autobind"


def measure(run: Run) -> None:
    """On one machine with more and more members that listen, in one program; then between two hosts."""
    if reason := NamespacePair.lacks():
        run.results.skip("broadcast", "everything", reason)
        return

    def sample(column: str) -> Iterator[Sample]:
        # Of the prototype one: with more of them a flood came to no end here.
        for count in MEMBERS if column == "ours" else MEMBERS[:1]:
            yield from _flood(run, partial(_one_machine, run, column), str(count), count)
        yield from _flood(run, partial(_hosts, column), "hosts", 1)

    run.interleave("broadcast", run.known("prototype", "ours"), sample)


def _flood(run: Run, make: Callable[[], AbstractContextManager[Pair]], key: str, members: int) -> list[Sample]:
    def sample() -> list[Sample]:
        with make() as pair:
            pair.server.call("join", count=members)
            pair.client.call("join", count=1)
            trial = _came(pair, _TRIAL)[0]["per_second"]
            came, sent = _came(pair, packets_for(run.seconds, 1 / trial, _TRIAL, _MOST_PACKETS))
            return [
                (f"broadcast-{key}", came["per_second"]),
                (f"broadcast-{key}-loss", 100 * (1 - came["received"] / (sent["sent"] * members))),
            ]

    return afresh(sample)


def _came(pair: Pair, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    came, sent = pair.together("drain_all", "flood", size=_SIZE, count=count)
    if sent["sent"] < count:
        # It can stop in the prototype, whose members hold each other up.
        raise BenchError(f"the flood stopped after {sent['sent']} of {count} packets")
    return came, sent


def _one_machine(run: Run, column: str) -> AbstractContextManager[Pair]:
    return run.pair(_PEER) if column == "ours" else on_one_host(_PEER, run.cores)


def _hosts(column: str) -> AbstractContextManager[Pair]:
    return _two_nodes() if column == "ours" else broadcast_hosts(_LAYER)


@contextmanager
def _two_nodes() -> Iterator[Pair]:
    with ExitStack() as stack:
        segment = stack.enter_context(NamespacePair(None))
        nodes = [stack.enter_context(Node(segment.command(side))) for side in (0, 1)]
        for node, member in zip(nodes, (_FIRST, _SECOND), strict=True):
            node.irm(_ETHERNET)
            node.irm(member)
        server, client = (
            stack.enter_context(Program(None, node.env, segment.command(side))) for side, node in enumerate(nodes)
        )
        yield from serve(Pair(server, client, nodes), _PEER, _LAYER)
