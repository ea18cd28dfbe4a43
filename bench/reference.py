"""The C prototype where it is installed: `OUROBOROS_REFERENCE` is its prefix, and its own tools do the measuring.

It has fixed paths, so it gets two hosts of its own: network, mount and IPC namespaces, with a veth pair between them.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Self

from bench.harness import PATIENCE, BenchError
from bench.loops import RoundTrips
from ouroboros.testing.link import NamespacePair

_VARIABLE = "OUROBOROS_REFERENCE"
_NAMES = ("oping", "ocbr")
#: Seconds for anything that takes less.
_PATIENCE = 20.0
#: An allocation can fail by a race in the prototype, and its server ends then.
_TRIES = 5
_COUNTED = 2.5
_ROUND_TRIP = re.compile(r"time=([0-9.]+) (ms|us|µs)")
_SENT = re.compile(r"sent statistics:\s+(\d+) packets")
_CAME = re.compile(r"Flow\s+\d+:\s+(\d+) packets .* in\s+(\d+) ms")

#: Makes the paths private and says so; ends at the end of its input.
_HOLD = """
for directory in /dev/shm /run /etc/ouroboros; do [ ! -d $directory ] || mount -t tmpfs tmpfs $directory; done
mkdir -p /run/ouroboros
mount --bind "$1" /etc/hosts
echo
exec cat
"""


def lacks() -> str | None:
    """Why it cannot be measured here, None when it can."""
    prefix = os.environ.get(_VARIABLE)
    if not prefix:
        return f"{_VARIABLE} does not say where it is installed"
    missing = [
        path for path in ("sbin/irmd", "sbin/irm", "bin/oping", "bin/ocbr") if not (Path(prefix) / path).exists()
    ]
    return f"there is no {missing[0]} in {prefix}" if missing else NamespacePair.lacks()


def version() -> str:
    """What its daemon says it is."""
    prefix = Path(os.environ[_VARIABLE])
    words = [str(prefix / "sbin" / "irmd"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip() or "unknown version"


class Reference:
    """Two hosts that run it, the server first. Use as a context manager. Raises BenchError."""

    def __init__(self) -> None:
        self._prefix = Path(os.environ[_VARIABLE])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            pair = stack.enter_context(NamespacePair(None))
            self._hosts = [stack.enter_context(_Host(pair, side, self._prefix)) for side in (0, 1)]
            server, client = self._hosts
            for name in _NAMES:
                server.run("irm", "bind", "program", name, "name", name)
                client.run("irm", "name", "create", name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round_trips(self, size: int, count: int) -> RoundTrips:
        """One packet after the other, as `oping -f` does it."""
        said, _, _ = self._talk("oping", ["-n", "oping", "-f", "-c", str(count), "-s", str(size)])
        took = sorted(float(time) * (1e3 if unit == "ms" else 1) for time, unit in _ROUND_TRIP.findall(said))
        if len(took) < count // 2:
            raise BenchError(f"oping got {len(took)} of {count} answers")
        return RoundTrips(took[len(took) // 2], took[len(took) * 99 // 100], sum(took) / len(took))

    def one_way(self, size: int, seconds: int) -> tuple[float, float]:
        """`ocbr` as fast as it goes; return the packets a second that arrive, and how many percent do not."""
        sent, came, _ = self._talk("ocbr", ["-n", "ocbr", "-f", "-d", str(seconds), "-s", str(size)])
        packets, times = zip(*_CAME.findall(came), strict=True) if _CAME.search(came) else ((), ())
        total = _SENT.search(sent)
        if total is None or not packets:
            raise BenchError(f"ocbr counted nothing: {sent.strip()!r}, {came.strip()!r}")
        received = sum(map(int, packets))
        return received / sum(map(int, times)) * 1e3, max(0.0, 100 * (1 - received / int(total[1])))

    def set_ups(self) -> float:
        """How often a second `oping` can be started, allocate a flow, use it once and end; nearly all of it is the flow."""
        return 1 / self._talk("oping", ["-n", "oping", "-c", "1", "-i", "0"])[2]

    def _talk(self, tool: str, words: Sequence[str]) -> tuple[str, str, float]:
        """Run a tool against its server; return what both print, and how many seconds the client ran."""
        server, client = self._hosts
        for _ in range(_TRIES):
            listening = server.start(tool, "-l")
            try:
                start = time.perf_counter()
                said = client.run(tool, *words)
                seconds = time.perf_counter() - start
                if tool == "ocbr":
                    # Its server prints the last of what it counted when the flow has been silent for a second.
                    time.sleep(_COUNTED)
                return said, _end(listening), seconds
            except BenchError as error:
                failed = error
            finally:
                _end(listening)
        raise BenchError(f"{tool} failed {_TRIES} times, at last: {failed}")


class _Host:
    """One host: its namespaces, and the daemon with a UDP layer."""

    def __init__(self, pair: NamespacePair, side: int, prefix: Path) -> None:
        self._pair, self._side, self._prefix = pair, side, prefix
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self._log = Path(self._directory.name) / "irmd.log"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._directory)
            self._holder = stack.enter_context(self._hold())
            stack.callback(_end, self._holder)
            with self._log.open("wb") as log:
                daemon = stack.enter_context(
                    subprocess.Popen(self._command("irmd", "--stdout"), stdout=log, stderr=log)
                )
            stack.callback(_end, daemon)
            self._wait_for("daemon started")
            address = self._pair.addresses[self._side]
            self.run("irm", *f"ipcp bootstrap type udp4 name udp layer net ip {address}".split())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, tool: str, *words: str) -> str:
        """Run a tool to its end; return what it prints. Raises BenchError when it fails."""
        done = subprocess.run(
            self._command(tool, *words), stdout=PIPE, stderr=STDOUT, text=True, check=False, timeout=PATIENCE
        )
        if done.returncode != 0:
            raise BenchError(f"{tool} {' '.join(words)}: {done.stdout.strip()}")
        return done.stdout

    def start(self, tool: str, *words: str) -> subprocess.Popen[str]:
        """Start a server, which is ready when this returns."""
        before = self._programs()
        server = subprocess.Popen(self._command(tool, *words), stdout=PIPE, stderr=STDOUT, text=True)
        _wait_until(lambda: self._programs() > before, f"{tool} did not start")
        return server

    def _hold(self) -> subprocess.Popen[str]:
        hosts = Path(self._directory.name) / "hosts"
        other = self._pair.addresses[1 - self._side]
        hosts.write_text("".join(f"{other} {hashlib.md5(name.encode()).hexdigest()}\n" for name in _NAMES))
        words = ["unshare", "--mount", "--ipc", "--propagation", "private", "sh", "-c", _HOLD, "sh", str(hosts)]
        holder = subprocess.Popen(self._pair.command(self._side, *words), stdin=PIPE, stdout=PIPE, text=True)
        assert holder.stdout is not None
        if holder.stdout.readline() != "\n":
            raise BenchError("the C prototype got no namespaces of its own")
        return holder

    def _command(self, tool: str, *words: str) -> list[str]:
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "--ipc", "--net", "--"]
        folder = "sbin" if tool.startswith("irm") else "bin"
        # The daemon looks for programs in its path.
        path = f"PATH={self._prefix / 'bin'}:{self._prefix / 'sbin'}:{os.environ['PATH']}"
        return [
            *enter,
            "env",
            path,
            f"LD_LIBRARY_PATH={self._prefix / 'lib'}",
            str(self._prefix / folder / tool),
            *words,
        ]

    def _programs(self) -> int:
        return self._log.read_text(errors="replace").count("Process added")

    def _wait_for(self, text: str) -> None:
        _wait_until(lambda: text in self._log.read_text(errors="replace"), f"irmd did not say {text!r}")


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise BenchError(otherwise)
        time.sleep(0.01)


def _end(process: subprocess.Popen[str]) -> str:
    """End a program, and return what it has printed; nothing the second time."""
    if process.stdout is not None and process.stdout.closed:
        return ""
    if process.stdin is not None:
        process.stdin.close()
        process.stdin = None
    process.terminate()
    try:
        said, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return said or ""
