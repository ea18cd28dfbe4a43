"""What strangers on the network can cost a node: `python -m bench.strangers`. Needs no privilege, and three to five minutes.

A node serves a name over UDP, and its program takes every flow at once. Somebody floods it with requests that are in order,
but for who sends them: of nodes of the prototype, of older nodes of ours, and of such that are asked to prove their address;
from one host, and in the name of a thousand. Half of them are for a name that requires a certificate. Meanwhile a program on
another node asks for flows, one after the other, and after the flood programs of the node ask for flows within it. The bars
are at the end; a missed one is shown, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import OuroborosError
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.oap import ClientHandshake, Settings
from ouroboros.qos import QoSSpec
from ouroboros.testing.node import ProcessNode
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.udp import FlowRequest, digest_of

NEAR, FAR = "127.0.0.1", "127.0.0.2"
#: Flags of the extension, by kind of node; None: no extension.
KINDS = {"prototype": None, "older": extension.DEALLOC, "ours": extension.DEALLOC | extension.RETRY}
HOSTS = {"one host": 1, "a thousand hosts": 1000}
#: Forged requests, and honest allocations among them. Flows within the node afterwards, all at once.
REQUESTS, HONEST, WITHIN = 1_000_000, 50, 500

HONEST_BAR, LOG_BAR, FLOOD_BAR = 2.0, 10, 40.0
#: Seconds of a flood, and of the honest allocations in it, on a machine that is too slow for all of them.
LONGEST, LONGEST_HONEST = 40.0, 45.0
#: Where the id and the time of a handshake are in a request.
ID_AT, TIME_AT, REST_AT = 63, 79, 87

SERVER = """
import itertools, sys
from ouroboros.dev import flow_accept
print("ready", flush=True)
for _ in itertools.count():
    flow_accept(name="clock").dealloc()
"""


# --- the flood, in a process of its own


def flood(kind: str, hosts: int, port: int, count: int, mbits: float) -> None:
    """Send, and print how many that were, and how many Mbit/s."""
    socks = [_bound(number) for number in range(hosts)]
    requests = [_template(kind, number, name) for number in range(64) for name in ("clock", "proven")]
    chance, size = random.Random(1), statistics.fmean(map(len, requests))
    print("ready", flush=True)
    rate = mbits * 1e6 / 8 / size
    begin = time.monotonic()
    for number in range(count):
        request, sock = requests[number % len(requests)], socks[number % hosts]
        now = time.time_ns().to_bytes(8)
        sock.sendto(request[:ID_AT] + chance.randbytes(16) + now + request[REST_AT:], (FAR, port))
        if number % 256 == 0:
            if (early := begin + number / rate - time.monotonic()) > 0:
                time.sleep(early)
            if time.monotonic() - begin > LONGEST:
                count = number + 1
                break
    print(json.dumps([count, count * size * 8 / 1e6 / (time.monotonic() - begin)]))


def _bound(number: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((f"127.9.{number >> 8}.{number & 255}", 0))
    return sock


def _template(kind: str, number: int, name: str) -> bytes:
    chance, flags = random.Random(number), KINDS[kind]
    blob = b"" if flags is None else Extension(flags, 8976, 4096, chance.randbytes(16)).encode()
    handshake = ClientHandshake(name, Settings(), random=chance, wall=0, data=blob)
    return FlowRequest(64 + number, QoSSpec(timeout=0), digest_of(name), handshake.request).encode()


# --- what it costs


@dataclass
class Outcome:
    """`sent`: forged requests. `waits`: of honest allocations, seconds. `within`: flows within the node afterwards. `lines`:
    the most in a second."""

    sent: int
    mbits: float
    waits: list[float]
    within: int
    lines: int
    held: int


def attack(kind: str, hosts: int, count: int, mbits: float) -> Outcome:
    port = _free_port()
    far, near = ProcessNode(Path.cwd()), ProcessNode(Path.cwd())
    started: list[subprocess.Popen[str]] = []
    try:
        _give_layers(far, near, port)
        environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(far.directory)}
        words = ["-m", "bench.strangers", "--flood", kind, str(hosts), str(port), str(count), str(mbits)]
        _start(started, ["-c", SERVER], environment)
        flooding = _start(started, words, environment)
        lines = Lines(far, flooding)
        # It has to be under way.
        time.sleep(1.0)
        with near.use():
            until = time.monotonic() + LONGEST_HONEST
            # Those for which there is no time have failed.
            waits = [_honest() if time.monotonic() < until else 2 * HONEST_BAR for _ in range(HONEST)]
        assert flooding.stdout is not None
        said = flooding.stdout.readline()
        with far.use():
            held = len(irm.list_flows())
            within = _within()
        return Outcome(*json.loads(said), waits, within, lines.most(), held)
    finally:
        for process in started:
            process.kill()
            process.wait()
        for node in (near, far):
            node.stop()
            node.clean_up()


def _start(
    started: list[subprocess.Popen[str]], words: list[str], environment: dict[str, str]
) -> subprocess.Popen[str]:
    """A program that has said that it is ready."""
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, text=True)
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _give_layers(far: ProcessNode, near: ProcessNode, port: int) -> None:
    policy = far.security / "server" / "proven" / "policy.conf"
    policy.parent.mkdir(parents=True)
    policy.write_text("require=certificate\n")
    for node, host, peers in ((far, FAR, ()), (near, NEAR, (f"clock@{FAR}",))):
        with node.use():
            conf = IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(host, port=port, peers=peers))
            cli.autoboot("net0", IpcpType.UDP4, "net", conf)
    with far.use():
        for name in ("clock", "proven"):
            cli.reg_name(name, layer="net")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((FAR, 0))
        port: int = sock.getsockname()[1]
    return port


def _honest() -> float:
    """How long an allocation takes; twice the bar if it fails."""
    begin = time.monotonic()
    try:
        flow_alloc("clock", timeo=HONEST_BAR).dealloc()
    except OuroborosError:
        return 2 * HONEST_BAR
    return time.monotonic() - begin


def _within() -> int:
    """How many flows programs of the node have, all at once."""
    cli.create_name("here")
    accepted: list[Flow] = []

    def accept() -> None:
        for _ in range(WITHIN):
            accepted.append(flow_accept(name="here"))

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    flows: list[Flow] = []
    try:
        for _ in range(WITHIN):
            flows.append(flow_alloc("here", timeo=10.0))
    except OuroborosError as error:
        print(error)
    else:
        accepting.join()
    for flow in (*flows, *accepted):
        flow.dealloc()
    return len(flows)


class Lines:
    """Counts the lines that a node logs in each second of a flood."""

    def __init__(self, node: ProcessNode, flooding: subprocess.Popen[str]) -> None:
        self._counts: list[int] = []
        self._thread = threading.Thread(target=self._count, args=(node, flooding))
        self._thread.start()

    def _count(self, node: ProcessNode, flooding: subprocess.Popen[str]) -> None:
        before = len(node.log().splitlines())
        while flooding.poll() is None:
            time.sleep(1.0)
            after = len(node.log().splitlines())
            self._counts.append(after - before)
            before = after

    def most(self) -> int:
        self._thread.join()
        return max(self._counts)


# --- the command


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="forged ones, in each attack")
    parser.add_argument("--mbits", type=float, default=41.0, help="of the flood, Mbit/s of UDP payload")
    parser.add_argument("--only", nargs=2, action="append", metavar=("KIND", "HOSTS"), help="one of the attacks")
    parser.add_argument("--flood", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.flood:
        kind, hosts, port, count, mbits = given.flood
        flood(kind, int(hosts), int(port), int(count), float(mbits))
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacks = given.only or [(kind, hosts) for hosts in HOSTS for kind in KINDS]
    print(
        f"{given.requests} forged requests in each row; honest allocations: {HONEST}; flows within the node: {WITHIN}"
    )
    print("requests of    from                Mbit/s   honest   median ms   worst ms   within   held   log lines/s")
    outcomes = []
    for kind, hosts in attacks:
        found = attack(kind, HOSTS[hosts], given.requests, given.mbits)
        good = sum(wait <= HONEST_BAR for wait in found.waits)
        median, worst = 1000 * statistics.median(found.waits), 1000 * max(found.waits)
        row = (
            f"{kind:<14} {hosts:<18} {found.mbits:7.1f}   {good:6d}   {median:9.1f}   {worst:8.1f}   {found.within:6d}"
        )
        print(f"{row}   {found.held:4d}   {found.lines:11d}", flush=True)
        outcomes.append(found)
    good = min(sum(wait <= HONEST_BAR for wait in each.waits) for each in outcomes)
    bars = [
        judge("flood, Mbit/s", ">=", min(each.mbits for each in outcomes), min(FLOOD_BAR, given.mbits * 0.95)),
        judge("forged requests", ">=", min(each.sent for each in outcomes), given.requests),
        judge(f"honest allocations of {HONEST} within {HONEST_BAR:g} s", ">=", good, HONEST),
        judge(f"flows within the node of {WITHIN}", ">=", min(each.within for each in outcomes), WITHIN),
        judge("lines of the log a second", "<=", max(each.lines for each in outcomes), LOG_BAR),
    ]
    return int(not all(bars))


def judge(what: str, way: str, value: float, bar: float) -> bool:
    good = value >= bar if way == ">=" else value <= bar
    print(f"{what}: {value:g}, bar {way} {bar:g}: {'ok' if good else 'not ok'}")
    return good


if __name__ == "__main__":
    sys.exit(main())
