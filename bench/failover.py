"""How long a cut link is felt: four nodes in a square, a raw flow from corner to corner, and the connection that it goes by
is ended at the sender's node, again and again. A cut counts from the call that tells the node to the first packet that
arrives of those that were sent after it. The last cut is silent: the neighbour is stopped.

`python -m bench.failover [CUTS]`, on a quiet machine: all of it takes about two cores.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import Background, until
from udp_nodes import free_port

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowException
from ouroboros.irm import (
    DT_COMP,
    DtConfig,
    IpcpConfig,
    IpcpType,
    LinkStateConfig,
    RoutingConfig,
    Udp4Config,
    UnicastConfig,
)
from ouroboros.qos import QOS_RAW
from ouroboros.testing.node import ProcessNode

#: Seconds between two packets, and between keepalives.
PACE = 0.0002
KEEPALIVE = 0.1
#: The most that there may be, seconds: of cuts the median and the worst, and a silent death.
BARS = (0.001, 0.020, 0.300)
#: A link that goes down often stays down for `t_timeo`.
SETTINGS = UnicastConfig(DtConfig(routing=RoutingConfig(ls=LinkStateConfig(t_update=1, t_timeo=2))))
#: Nodes and their neighbours, which they connect to.
SQUARE: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2, 0))


def main(cuts: int = 50) -> None:
    nodes = [ProcessNode(Path.cwd()) for _ in SQUARE]
    try:
        _build(nodes)
        with nodes[2].use():
            cli.reg_name("square", layer="campus")
            accepting = Background.waiting_for_node(lambda: flow_accept(name="square"))
        with nodes[0].use():
            near = flow_alloc("square", QOS_RAW, 20.0)
        _report(nodes, Stream(near, accepting.result()), cuts)
    finally:
        for node in nodes:
            node.stop()
            node.clean_up()


def _build(nodes: list[ProcessNode]) -> None:
    port = free_port()
    for number, neighbours in enumerate(SQUARE):
        with nodes[number].use():
            peers = tuple(f"m{each}@127.0.0.{each + 1}" for each in range(len(SQUARE)) if each != number)
            udp = Udp4Config(f"127.0.0.{number + 1}", port=port, peers=peers)
            cli.autoboot("net0", IpcpType.UDP4, "net", IpcpConfig(IpcpType.UDP4, udp4=udp))
            cli.create_ipcp(f"m{number}", IpcpType.UNICAST)
            cli.keep_alive_ipcp(f"m{number}", KEEPALIVE)
            if not neighbours:
                cli.autoboot("m0", IpcpType.UNICAST, "campus", IpcpConfig(IpcpType.UNICAST, unicast=SETTINGS))
                continue
            cli.enroll_ipcp(f"m{number}", f"m{neighbours[0]}", autobind=True)
            for each in neighbours[1:]:
                cli.connect_ipcp(f"m{number}", f"m{each}")
    for node in nodes:
        with node.use():
            until(lambda: len(_member().routes) == len(SQUARE) - 1)


def _member() -> irm.IpcpInfo:
    (found,) = cli.list_ipcps(ipcp_type=IpcpType.UNICAST)
    return found


class Stream:
    """Packets with the time when they were sent, and of those that arrived the latest such time."""

    def __init__(self, near: Flow, far: Flow) -> None:
        self.latest = 0
        for run, flow in ((self._send, near), (self._take, far)):
            threading.Thread(target=self._until_the_end, args=(run, flow), daemon=True).start()

    @staticmethod
    def _until_the_end(run: Callable[[Flow], None], flow: Flow) -> None:
        with contextlib.suppress(FlowException):
            run(flow)

    def _send(self, flow: Flow) -> None:
        due = time.perf_counter()
        while True:
            flow.write(time.perf_counter_ns().to_bytes(8))
            due += PACE
            time.sleep(max(0.0, due - time.perf_counter()))

    def _take(self, flow: Flow) -> None:
        while True:
            self.latest = int.from_bytes(flow.read())

    def felt(self, cut: int) -> float:
        """Seconds from that time until a packet arrives that was sent later."""
        while self.latest <= cut:
            time.sleep(0.0)
        return (time.perf_counter_ns() - cut) / 1e9


def _report(nodes: list[ProcessNode], stream: Stream, cuts: int) -> None:
    times = []
    for _ in range(cuts):
        with nodes[0].use():
            neighbour = _via(nodes)
            cut = time.perf_counter_ns()
            irm.disconnect_ipcp(_member().pid, DT_COMP, neighbour)
            times.append(stream.felt(cut))
            cli.connect_ipcp("m0", neighbour, "dt")
            until(functools.partial(_is_back, neighbour))
    times.sort()
    print(f"{cuts} cuts: median {_judged(statistics.median(times), BARS[0])}, worst {_judged(times[-1], BARS[1])}")
    with nodes[0].use():
        number = int(_via(nodes)[1:])
    pid = nodes[number].pid
    cut = time.perf_counter_ns()
    os.kill(pid, signal.SIGSTOP)
    print(f"a silent death with keepalives of {KEEPALIVE * 1e3:.0f} ms: {_judged(stream.felt(cut), BARS[2])}")
    os.kill(pid, signal.SIGCONT)


def _judged(seconds: float, bar: float) -> str:
    return f"{seconds * 1e3:.2f} ms ({'missed' if seconds > bar else 'bar'}: {bar * 1e3:g} ms)"


def _is_back(neighbour: str) -> bool:
    up = {each.name for each in _member().connections if each.component == DT_COMP and each.state == "up"}
    return neighbour in up and len(_member().routes) == len(SQUARE) - 1


def _via(nodes: list[ProcessNode]) -> str:
    """The neighbour by which packets go to member 2."""
    with nodes[2].use():
        far = _member().address
    (route,) = (each for each in _member().routes if each.address == far)
    return next(each.name for each in _member().connections if each.address == route.via[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
