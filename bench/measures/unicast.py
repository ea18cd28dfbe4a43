"""Unicast layers: flows over one hop and two, what a packet of others costs the node between, enrollment, nodes at rest."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench import line, relay
from bench.harness import BenchError, Node
from bench.line import Line, PrototypeLine, our_line, prototype_member
from bench.proc import rss_kib, voluntary_switches
from bench.rows import LINK_ROUND_TRIP_MS, LOSSES, MIXED_FLOWS, RANKS
from bench.run import Run, Sample
from bench.sampling import Length, one_way_with_losses, round_trips, set_ups
from ouroboros import irm
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.lab import Lab
from ouroboros.qos import QOS_DATA

_SIZE = 1400
_SMALL = 64
_RATE_TRIAL = 5000
_SET_UP_TRIAL = 20
#: For all that a node does when it has become a member.
_SETTLE = 3.0
_MEMBERS = 4


def one_hop(run: Run) -> None:
    """Round trip, one way and set-up between neighbours."""
    _hops(run, 1)


def two_hops(run: Run) -> None:
    """The same by way of a node between."""
    _hops(run, 2)


def _hops(run: Run, hops: int) -> None:
    measure = f"hop-{hops}"
    if reason := line.lacks():
        run.results.skip(measure, "everything", reason)
        return

    def sample(column: str) -> Iterator[Sample]:
        if column == "prototype":
            with PrototypeLine(hops) as hosts:
                trips = hosts.round_trips(_SMALL, 300 if run.quick else 3000)
                rate, lost = hosts.one_way(_SIZE, 1 if run.quick else 2)
        else:
            with our_line(hops) as ours:
                ours.pair.connect()
                trips = round_trips(ours.pair, _SMALL, Length(run.seconds))
                rate, lost = one_way_with_losses(ours.pair, _SIZE, Length(run.seconds, _RATE_TRIAL))
                if hops == 1:
                    yield "hop-setup", set_ups(ours.pair, Length(run.seconds, _SET_UP_TRIAL))
        yield f"{measure}-rtt", trips.p50
        yield f"{measure}-rate", rate
        yield f"{measure}-loss", lost

    run.interleave(measure, run.known("prototype", "ours"), sample)


def ranks(run: Run) -> None:
    """One rank and two, of which the second has the same two members: one way, and reliable flows over a bad link in virtual
    time."""

    def sample(_: str) -> Iterator[Sample]:
        for number in RANKS:
            if not line.lacks():
                with our_line(1, ranks=number) as ours:
                    ours.pair.connect()
                    rate, _lost = one_way_with_losses(ours.pair, _SIZE, Length(run.seconds, _RATE_TRIAL))
                yield f"ranks-rate-{number}", rate
            yield f"ranks-lossy-{number}", _reliable(number, 1.0 if run.quick else 10.0)

    if reason := line.lacks():
        run.results.skip("ranks", "rates", reason)
    run.interleave("ranks", ["ours"], sample)


def _reliable(ranks: int, seconds: float) -> float:
    """Mbit/s of a reliable flow that is always busy."""
    link = f"a -(delay={LINK_ROUND_TRIP_MS / 2:g}ms,loss={LOSSES[0]}%)- b"
    with Lab("p@a - q@b" if ranks > 1 else link, over=[link] * (ranks > 1), clock="virtual") as lab:
        near, far = lab.ground.network.nodes  # type: ignore[attr-defined]
        lab["b"].offer("sink")
        lab.wait(_SETTLE)
        accepting = far.program().accept("sink")
        source, sink = near.program().alloc("sink", QOS_DATA).wait().flow, accepting.wait().flow
        sink.sink()
        source.source(1 << 40, _SIZE)
        lab.wait(1.0)
        before: int = sink.tally()["bytes"]
        lab.wait(seconds)
        after: int = sink.tally()["bytes"]
        return (after - before) * 8 / seconds / 1e6


def transit(run: Run) -> None:
    """Processor time of the engine of the node between two others, for each packet that it forwards; and that of a loop of
    sockets in its place."""
    if reason := line.lacks():
        run.results.skip("transit", "everything", reason)
        return
    count = 20_000 if run.quick else 200_000

    def sample(column: str) -> Iterator[Sample]:
        if column == "udp":
            with line.hosts(3) as places:
                yield "transit-run", relay.nanoseconds(places, count)
            return
        with our_line(2) as ours:
            ours.pair.connect()
            yield "transit-run", _each(ours, ("drain", "flood"), count)
            ours.pair.connect(MIXED_FLOWS - 1)
            yield "transit-mix", _each(ours, ("drain_all", "flood_over"), count, MIXED_FLOWS)
        with our_line(2, "ours-udp-encrypted") as ours:
            ours.pair.connect()
            yield "transit-crypt", _each(ours, ("drain", "flood"), count)

    run.interleave("transit", run.known("udp", "ours"), sample)


def _each(ours: Line, commands: tuple[str, str], count: int, flows: int = 1) -> float:
    """Nanoseconds for each of so many packets that arrive, by so many flows, after some that warm up."""
    ours.pair.together(*commands, size=_SIZE, count=_RATE_TRIAL // flows)
    before = ours.transit_nanoseconds()
    received: int = ours.pair.together(*commands, size=_SIZE, count=count // flows)[0]["received"]
    # Of raw flows that share a way some packets may be lost, but one alone loses none.
    if received < count * (0.9 if flows > 1 else 1):
        raise BenchError(f"{count - received} of {count} packets were lost")
    return (ours.transit_nanoseconds() - before) / received


# --- enrollment


def enrollment(run: Run) -> None:
    """How long it takes to become a member, and to be connected."""

    def sample(column: str) -> Iterator[Sample]:
        if column == "ours":
            yield from _enroll_with_ours()
        else:
            yield "enroll-prototype", _enroll_with_the_prototype()

    run.interleave("enroll", ["ours", *([] if line.lacks() else run.known("prototype"))], sample)


def _enroll_with_ours() -> Iterator[Sample]:
    port = _free_port()
    with Node() as first, Node() as second:
        with _at(first):
            below = _over_udp("127.0.0.1", port)
            _begin("m0", below)
        with _at(second):
            _over_udp("127.0.0.2", port, "m0@127.0.0.1")
            for connect, row in ((False, "enroll"), (True, "enroll-connected")):
                newcomer = irm.create_ipcp(row, IpcpType.UNICAST)
                time.sleep(0.5)
                yield row, _milliseconds(lambda: irm.enroll_ipcp(newcomer, "m0", connect=connect))  # noqa: B023


def _enroll_with_the_prototype() -> float:
    with prototype_member() as (host, address), Node(host.prefix) as node, _at(node):
        _over_udp(host.address, 3435, f"m0@{address}")
        newcomer = irm.create_ipcp("newcomer", IpcpType.UNICAST)
        time.sleep(0.5)
        return _milliseconds(lambda: irm.enroll_ipcp(newcomer, "m0", connect=False))


def four(run: Run) -> None:
    """Four members in a line, bootstrapped, enrolled and connected, on one node over a local layer."""

    def sample(_: str) -> Iterator[Sample]:
        with Node() as node, _at(node):
            yield "four-api", _milliseconds(_four_by_api)
        # As it is installed: compiled.
        with tempfile.TemporaryDirectory() as compiled, Node() as node:
            node.env.update(PYTHONPYCACHEPREFIX=compiled, PYTHONDONTWRITEBYTECODE="")
            node.irm("ipcp list")
            yield "four-commands", _milliseconds(lambda: _four_by_commands(node))

    run.interleave("four", ["ours"], sample)


def _four_by_api() -> None:
    below = irm.create_ipcp("here", IpcpType.LOCAL)
    irm.bootstrap_ipcp(below, IpcpConfig(IpcpType.LOCAL, layer_name="here"))
    _begin("m0", below)
    for number in range(1, _MEMBERS):
        pid = irm.create_ipcp(f"m{number}", IpcpType.UNICAST)
        irm.enroll_ipcp(pid, f"m{number - 1}")
        _be_known(pid, f"m{number}", below)


def _four_by_commands(node: Node) -> None:
    node.irm("ipcp bootstrap type local name here layer here")
    node.irm("ipcp bootstrap type unicast name m0 layer campus autobind")
    for number in range(1, _MEMBERS):
        node.irm(f"ipcp enroll name m{number} layer campus dst m{number - 1} autobind")


def rest(run: Run) -> None:
    """A node with a membership and a neighbour, and one with nothing, that nobody uses."""

    def sample(_: str) -> Iterator[Sample]:
        port = _free_port()
        with Node() as bare, Node() as first, Node() as second:
            with _at(first):
                _begin("m0", _over_udp("127.0.0.1", port))
            with _at(second):
                _over_udp("127.0.0.2", port, "m0@127.0.0.1")
                irm.enroll_ipcp(irm.create_ipcp("m1", IpcpType.UNICAST), "m0")
            time.sleep(_SETTLE)
            seconds, before = 5.0 if run.quick else 30.0, voluntary_switches(second.pid)
            time.sleep(seconds)
            yield "rest-wakes", (voluntary_switches(second.pid) - before) / seconds
            yield "rest-bare", rss_kib(bare.pid)
            yield "rest-member", rss_kib(second.pid)

    run.interleave("rest", ["ours"], sample)


def _begin(name: str, below: int) -> None:
    """The first member of the layer, known in the layer below."""
    pid = irm.create_ipcp(name, IpcpType.UNICAST)
    irm.bootstrap_ipcp(pid, IpcpConfig(IpcpType.UNICAST, layer_name="campus"))
    _be_known(pid, name, below)


def _be_known(pid: int, name: str, below: int) -> None:
    irm.bind_process(pid, name)
    irm.create_name(irm.NameInfo(name))
    irm.reg_name(name, below)


def _over_udp(address: str, port: int, *peers: str) -> int:
    pid = irm.create_ipcp("udp", IpcpType.UDP4)
    irm.bootstrap_ipcp(
        pid, IpcpConfig(IpcpType.UDP4, layer_name="net", udp4=Udp4Config(address, port=port, peers=peers))
    )
    return pid


def _free_port() -> int:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        sockets[0].bind(("127.0.0.1", 0))
        port: int = sockets[0].getsockname()[1]
        sockets[1].bind(("127.0.0.2", port))
        return port


@contextmanager
def _at(node: Node) -> Iterator[None]:
    """Calls are for that node."""
    before = {key: os.environ.get(key) for key in node.env}
    os.environ.update(node.env)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
