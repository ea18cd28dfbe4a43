"""How long a cut link is felt: four nodes in a square, a raw flow from corner to corner, and the connection that it goes by
is ended at the sender's node, again and again. A cut counts from when that node tells its engine to when the first packet
arrives of those that were written after it; what the node did before, since it was asked, is told beside it. Then neighbours
are silent: they are stopped, and that counts from there.

Who writes, who reads and who cuts are processes of their own, because threads of one interpreter wait 5 ms for each other.

`python -m bench.failover [CUTS [DEATHS]]`, on a quiet machine: all of it takes about two cores. On one that is not quiet, a
session of its own with -20 in /proc/self/autogroup. The usual time of a packet, printed last, says how quiet it was.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from udp_nodes import free_port

from bench.told import TOLD
from ouroboros import cli, irm
from ouroboros.dev import flow_accept, flow_alloc
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
#: Seconds until something is looked for again, so that it is not in the way of what is measured.
LOOK = 0.02
#: Seconds in which routes have changed if they are about to: a link comes up once a second.
SETTLED = 1.0
#: Bytes of a time.
TIME = 8


class Node(ProcessNode):
    """Writes down when its engine is told something."""

    _host: ClassVar[tuple[str, ...]] = ("-m", "bench.told")

    def told(self) -> list[int]:
        path = self.directory / TOLD
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(cuts: int = 50, deaths: int = 5) -> None:
    nodes = [Node(Path.cwd()) for _ in SQUARE]
    try:
        _build(nodes)
        with Stream(nodes[0], nodes[2]) as stream:
            _report_cuts(nodes, stream, cuts)
            _report_deaths(nodes, stream, deaths)
            print(f"a packet took {stream.usual() * 1e3:.2f} ms, the median of all")
    finally:
        for node in nodes:
            node.stop()
            node.clean_up()


def _build(nodes: list[Node]) -> None:
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
    """Packets with the time when they were written, of which the reader notes when they came."""

    def __init__(self, near: Node, far: Node) -> None:
        self._path = far.directory / "came"
        spawn = multiprocessing.get_context("spawn")
        with far.use():
            cli.reg_name("square", layer="campus")
            self._reader = spawn.Process(target=_read, args=(str(self._path),), daemon=True)
            self._reader.start()
        with near.use():
            self._writer = spawn.Process(target=_write, daemon=True)
            self._writer.start()
        until(lambda: self._path.exists() and self._path.stat().st_size > 0)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (self._writer, self._reader):
            process.terminate()
            process.join()

    def position(self) -> int:
        """Where the notes end now."""
        return self._path.stat().st_size

    def felt(self, cut: int, position: int) -> float | None:
        """Seconds from that time until a packet came that was written later; None: none has come yet. `position`: where the
        notes ended before."""
        return next(((came - cut) / 1e9 for sent, came in self._noted(position) if sent > cut), None)

    def usual(self) -> float:
        """Seconds that a packet takes, the median."""
        return statistics.median(came - sent for sent, came in self._noted(0)) / 1e9

    def _noted(self, position: int) -> Iterator[tuple[int, int]]:
        with self._path.open("rb") as file:
            file.seek(position)
            noted = memoryview(file.read()).cast("Q")
        return zip(noted[::2], noted[1::2], strict=True)


def _write() -> None:
    flow = flow_alloc("square", QOS_RAW, 20.0)
    due = time.monotonic()
    while True:
        flow.write(time.monotonic_ns().to_bytes(TIME, sys.byteorder))
        due = max(due + PACE, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))


def _read(path: str) -> None:
    flow = flow_accept(name="square")
    with open(path, "ab", buffering=0) as file:
        while True:
            sent = flow.read()
            file.write(sent + time.monotonic_ns().to_bytes(TIME, sys.byteorder))


def _report_cuts(nodes: list[Node], stream: Stream, cuts: int) -> None:
    felt, before = [], []
    for _ in range(cuts):
        neighbour = _via(nodes)
        with nodes[0].use():
            pid = _member().pid
            position, known = stream.position(), len(nodes[0].told())
            # Nothing is on its way any more that was asked before.
            time.sleep(LOOK)
            asked = time.monotonic_ns()
            irm.disconnect_ipcp(pid, DT_COMP, neighbour)
            told = nodes[0].told()[known]
            before.append((told - asked) / 1e9)
            felt.append(_wait(functools.partial(stream.felt, told, position)))
            cli.connect_ipcp("m0", neighbour, "dt")
    print(
        f"{cuts} cuts: median {_judged(statistics.median(felt), BARS[0])}, worst {_judged(max(felt), BARS[1])}; "
        f"until the engine was told, median {statistics.median(before) * 1e3:.2f} ms, worst {max(before) * 1e3:.2f} ms"
    )


def _report_deaths(nodes: list[Node], stream: Stream, deaths: int) -> None:
    felt = []
    for _ in range(deaths):
        pid = nodes[int(_via(nodes)[1:])].pid
        position, cut = stream.position(), time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        felt.append(_wait(functools.partial(stream.felt, cut, position)))
        # It is to be missed before it is back.
        until(lambda: not _is_whole(nodes))
        os.kill(pid, signal.SIGCONT)
    print(
        f"{deaths} silent deaths with keepalives of {KEEPALIVE * 1e3:.0f} ms: median "
        f"{_judged(statistics.median(felt), BARS[2])}, worst {_judged(max(felt), BARS[2])}"
    )


def _wait(felt: Callable[[], float | None]) -> float:
    while (found := felt()) is None:
        time.sleep(LOOK)
    return found


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(LOOK)


def _judged(seconds: float, bar: float) -> str:
    return f"{seconds * 1e3:.2f} ms ({'missed' if seconds > bar else 'bar'}: {bar * 1e3:g} ms)"


def _is_whole(nodes: list[Node]) -> bool:
    """Whether packets can go to member 2 by either neighbour."""
    return len(_ways(nodes)) == 2


def _via(nodes: list[Node]) -> str:
    """The neighbour by which packets go to member 2, once they can go by either and nothing changes any more."""
    ways = [""]
    while len(ways) < 2 or ways != _ways(nodes):
        ways = _ways(nodes)
        time.sleep(SETTLED)
    return ways[0]


def _ways(nodes: list[Node]) -> list[str]:
    """The neighbours by which they may, the one in use first."""
    with nodes[2].use():
        far = _member().address
    with nodes[0].use():
        member = _member()
    names = {each.address: each.name for each in member.connections if each.component == DT_COMP and each.state == "up"}
    found = (each.via for each in member.routes if each.address == far)
    return [names[each] for each in next(found, ()) if each in names]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
