"""What another user can cost a node of root's: `python -m bench.shares`. Needs root, and one to four minutes.

Another user does all of this at once, from several processes: connections that say nothing, requests that lack their last
byte, long answers that nobody reads, each made again every second when it is gone, and requests as fast as they are
answered. Meanwhile root asks, over a connection that it has and over new ones. Printed is how long root waits, what the
node's memory grows by, and what the log does. The bars are at the end; a missed one is shown, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.proc import peak_kib, rss_kib
from ouroboros.qos import QoSSpec
from ouroboros.runtime.client import Client
from ouroboros.runtime.instance import instance
from ouroboros.wire import control as messages
from ouroboros.wire.control import Alloc, CreateName, Hello, ListNames, NodeInfo

USER = 60001
#: Processes of each kind of attack.
PROCESSES = 2
NAMES = 500

MEMORY_BAR, TIME_BAR, LOG_BAR = 64.0, 50.0, 10.0
#: Seconds of the attack, on a machine that is too slow for all requests; of root's requests for samples; and requests of an
#: attacker between two reports.
LONGEST, LONGEST_SAMPLES, REPORTED = 200.0, 80.0, 1000


def connect(path: str) -> socket.socket | None:
    """None when the node takes no more for now."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(path)
        sock.send(messages.encode(Hello(messages.VERSION, "attacker", INSTANCE)))
    except OSError:
        sock.close()
        return None
    return sock


def hold(path: str, count: int) -> None:
    """Make so many connections, say something over each, and every second again for each that is gone."""
    nothing, half = b"", messages.encode(Alloc("x" * 250, QoSSpec(), 0.0))[:-1]
    said = [nothing, half, messages.encode(ListNames()) * 50]
    kept: list[socket.socket | None] = [None] * count
    while True:
        begin = time.monotonic()
        for number, sock in enumerate(kept):
            if sock is not None and not _is_open(sock):
                sock.close()
                sock = None
            if sock is None and (sock := connect(path)) is not None:
                with contextlib.suppress(OSError):
                    sock.send(said[number % len(said)])
            kept[number] = sock
        time.sleep(max(0.0, begin + 1 - time.monotonic()))


def _is_open(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def ask(path: str, count: int, counted: int) -> None:
    """Have so many requests answered, without a pause, over a few connections."""
    request = messages.encode(Alloc("nobody", QoSSpec(), 0.0))
    socks = [joined(path) for _ in range(8)]
    os.write(counted, b"j")
    answered = 0
    while answered < count:
        for sock in socks:
            sock.sendall(request)
        for sock in socks:
            assert sock.recv(1 << 16), "hung up"
        answered += len(socks)
        if answered % REPORTED == 0:
            os.write(counted, b"x")
    signal.pause()


def joined(path: str) -> socket.socket:
    """A connection that the node has let in."""
    while True:
        sock = connect(path)
        if sock is not None:
            sock.setblocking(True)
            with contextlib.suppress(ConnectionResetError):
                if 0 < len(sock.recv(1 << 16)) < 20:
                    return sock
            sock.close()


def attack(path: str, connections: int, requests: int) -> tuple[list[int], int]:
    """The processes, and a pipe that ends when all requests were sent."""
    sent, counted = os.pipe()
    pids = begin(PROCESSES, lambda: ask(path, requests // PROCESSES, counted), sent)
    os.close(counted)
    # Those are in before all that the user may have is taken.
    for _ in range(PROCESSES):
        assert os.read(sent, 1), "an attacker failed"
    return pids + begin(2 * PROCESSES, lambda: hold(path, connections // (2 * PROCESSES)), sent), sent


def begin(count: int, what: Callable[[], None], sent: int) -> list[int]:
    """Processes of the other user."""
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            os.close(sent)
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            try:
                what()
            finally:
                os._exit(1)
        pids.append(pid)
    return pids


def root_asks(count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each request: over a connection that is there, and over new ones."""
    kept, client = [], Client()
    fresh: list[float] = []
    until = time.monotonic() + LONGEST_SAMPLES
    while len(fresh) < count and time.monotonic() < until:
        begin = time.perf_counter()
        client.request(NodeInfo(), start=False)
        kept.append(1000 * (time.perf_counter() - begin))
        other = Client()
        begin = time.perf_counter()
        other.request(NodeInfo(), start=False)
        fresh.append(1000 * (time.perf_counter() - begin))
        other.forget()
    client.forget()
    return kept, fresh


@contextlib.contextmanager
def node() -> Iterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory(prefix="o-") as name:
        os.chmod(name, 0o755)
        os.environ["OUROBOROS_RUNTIME_DIR"] = name
        log = Path(name) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-m", "ouroboros.tools.irmd"], stdout=file, stderr=file)
        try:
            while not (Path(name) / "irm.sock").exists():
                time.sleep(0.01)
            yield process.pid, log
        finally:
            process.terminate()
            process.wait()


def count_answered(sent: int, all_of_them: int, until: float) -> int:
    """How many requests of the attackers were answered, when all were or the time is over."""
    answered = 0
    while answered < all_of_them and select.select([sent], [], [], max(0.0, until - time.monotonic()))[0]:
        said = os.read(sent, 4096)
        assert said, "an attacker failed"
        answered += REPORTED * len(said)
    return answered


def show(what: str, values: list[float]) -> float:
    """Print a row; returns the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    print(f"{what:44} {cuts[49]:9.2f} {cuts[98]:9.2f} {max(values):9.2f}")
    return cuts[98]


def judge(what: str, value: float, bar: float) -> bool:
    print(f"{what}: {value:.1f}, bar <= {bar:g}: {'ok' if value <= bar else 'not ok'}")
    return value <= bar


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with node() as (pid, log):
        client = Client()
        for number in range(NAMES):
            client.request(CreateName(f"{number:03}" * 80, "spillover"))
        print(f"{'root waits, ms':44} {'p50':>9} {'p99':>9} {'max':>9}")
        for what, values in zip(("kept", "new"), root_asks(options.samples), strict=True):
            show(f"quiet, {what} connection", values)
        before, size, begin = rss_kib(pid, forget_peak=True), log.stat().st_size, time.monotonic()
        pids, sent = attack(str(log.parent / "irm.sock"), options.connections, options.requests)
        try:
            worst = [
                show(f"attacked, {what} connection", values)
                for what, values in zip(("kept", "new"), root_asks(options.samples), strict=True)
            ]
            answered = count_answered(sent, options.requests, begin + LONGEST)
            shares = {each.kind: each for each in client.request(NodeInfo(), start=False).shares}
            grown = peak_kib(pid) - before
        finally:
            for each in pids:
                os.kill(each, signal.SIGKILL)
                os.waitpid(each, 0)
        seconds = time.monotonic() - begin
        lines = log.read_bytes()[size:].count(b"\n") / seconds
        print(f"{answered / seconds:.0f} requests a second of the other user, for {seconds:.0f} s")
        for kind, share in shares.items():
            print(f"  its {kind}: {share.held} of {share.limit}, refused {share.refused} times")
        return all(
            [
                judge("requests of the other user, too few", options.requests - answered, 0),
                judge("memory of the node, MiB more", grown / 1024, MEMORY_BAR),
                judge("root waits, kept connection, p99 ms", worst[0], TIME_BAR),
                judge("root waits, new connection, p99 ms", worst[1], TIME_BAR),
                judge("lines of the log a second", lines, LOG_BAR),
            ]
        )


INSTANCE = instance()

if __name__ == "__main__":
    sys.exit(0 if main() else 1)
