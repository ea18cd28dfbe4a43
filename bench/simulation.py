"""How fast virtual time is: nodes in a ring, each with a member of a toy layer (`tests/toy.py`) over UDP that is connected
to the next, and flows from each to its neighbour. Times are those of the processor, of which it takes one: `python -m
bench.simulation [NODES [FLOWS]]`."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sim_world import TYPES, toy

from ouroboros.qos import QOS_RAW
from ouroboros.testing.sim import Network
from ouroboros.wire.control import ConnectIpcp, CreateName, RegisterName


def build(count: int) -> Network:
    """A ring of nodes; the name of each is in its toy layer."""
    network = Network(1, types=TYPES)
    nodes = [network.add_node() for _ in range(count)]
    toys = []
    for number, node in enumerate(nodes):
        following = (number + 1) % count
        below = node.over_udp(peers=[f"toy{following}@{nodes[following].address}"])
        toys.append(toy(node, f"toy{number}", "toys", below))
        node.manage(CreateName(f"name{number}", "spillover"))
        node.manage(RegisterName(f"name{number}", toys[-1]))
    connecting = [
        node.manage(ConnectIpcp(toys[number], "Data Transfer", f"toy{(number + 1) % count}", QOS_RAW))
        for number, node in enumerate(nodes)
    ]
    network.run(20)
    for each in connecting:
        assert each.value is None
    return network


def main(count: int = 100, flows: int = 10_000) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = measure("nodes are made and connected", lambda: build(count))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"  {grown / count:.0f} KiB for each node, control included")
    # As docs/testing.md advises.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    programs = [node.program() for node in network.nodes]
    heard = network.heard
    start = time.process_time()
    accepting = [programs[(each + 1) % count].accept(f"name{(each + 1) % count}") for each in range(flows)]
    asking = [programs[each % count].alloc(f"name{(each % count + 1) % count}", QOS_RAW) for each in range(flows)]
    network.run(5)
    ends = [(asked.flow, accepted.flow) for asked, accepted in zip(asking, accepting, strict=True)]
    report("flows are made", time.process_time() - start, {"events that reach control": network.heard - heard})
    for source, sink in ends:
        source.source(100, 100, 0.001)
        sink.sink()
    counted = network.counted()
    start = time.process_time()
    network.run(5)
    elapsed = time.process_time() - start
    more = {name: number - counted[name] for name, number in network.counted().items()}
    report("packets are sent", elapsed, {"datagrams that arrive": more["arrived"], "wakes of programs": more["woken"]})
    assert sum(sink.tally()["read"] for _, sink in ends) == 100 * flows


def measure(what: str, call: Callable[[], Network]) -> Network:
    start = time.process_time()
    network = call()
    report(what, time.process_time() - start, {"events that reach control": network.heard})
    return network


def report(what: str, elapsed: float, counts: dict[str, int]) -> None:
    print(f"{what}: {elapsed:.1f} s")
    for name, count in counts.items():
        print(f"  {count} {name}, {count / elapsed:.0f}/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
