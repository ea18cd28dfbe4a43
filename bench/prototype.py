"""The C prototype where it is installed: `OUROBOROS_REFERENCE` is its prefix, and its own tools do the measuring.

It has fixed paths, so it gets hosts of its own: mount and IPC namespaces, and for a UDP layer two network namespaces with a
veth pair between them. The same tools, as they are, also run on a node of ours.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Protocol, Self, TypeVar

from bench.harness import PATIENCE, ROOT, BenchError, Node, Pair, Program, our_tool, serve
from bench.loops import RoundTrips
from ouroboros.testing.link import NamespacePair

T = TypeVar("T")

_VARIABLE = "OUROBOROS_REFERENCE"
#: An interpreter whose `ouroboros` is the prototype's own Python package.
_PYTHON = "OUROBOROS_REFERENCE_PYTHON"
NAMES = ("oping", "ocbr")
#: Else the server of `oping` prints each packet, into a pipe that fills.
_SERVER = {"oping": ["-Q"], "ocbr": []}
#: Seconds for anything that takes less.
_PATIENCE = 20.0
#: An allocation can fail by a race in the prototype, and its server ends then.
_TRIES = 5
#: The same, where each try has hosts of its own.
_AFRESH = 3
_COUNTED = 2.5
_ROUND_TRIP = re.compile(r"time=([0-9.]+) (ms|us|µs)")
_FLOOD = re.compile(r"(\d+) packets transmitted, (\d+) received, .* time: ([0-9.]+) ms")
_SENT = re.compile(r"sent statistics:\s+(\d+) packets, .* in\s+(\d+) ms")
_CAME = re.compile(r"Flow\s+\d+:\s+(\d+) packets")

#: Makes the paths private and says so; ends at the end of its input.
_HOLD = """
for directory in /dev/shm /run /etc/ouroboros; do [ ! -d $directory ] || mount -t tmpfs tmpfs $directory; done
mkdir -p /run/ouroboros
mount --bind "$1" /etc/hosts
echo
exec cat
"""


def lacks(network: bool = True) -> str | None:
    """Why it cannot be measured here, None when it can; `network`: between two hosts."""
    prefix = os.environ.get(_VARIABLE)
    if not prefix:
        return f"{_VARIABLE} does not say where it is installed"
    missing = [
        path for path in ("sbin/irmd", "sbin/irm", "bin/oping", "bin/ocbr") if not (Path(prefix) / path).exists()
    ]
    if missing:
        return f"there is no {missing[0]} in {prefix}"
    if network:
        return NamespacePair.lacks()
    return None if os.geteuid() == 0 else "namespaces of its own need root"


def lacks_binding() -> str | None:
    """Why its Python package cannot be measured here, None when it can."""
    if reason := lacks(network=False):
        return reason
    python = os.environ.get(_PYTHON)
    if not python:
        return f"{_PYTHON} does not say which interpreter has its Python package"
    # Finds it and does not import it, which would end a process where its daemon does not run.
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('_ouroboros_dev_cffi') is None)"
    try:
        done = subprocess.run([python, "-I", "-c", code], stderr=PIPE, text=True, check=False)
    except OSError as error:
        return f"{_PYTHON}: {python}: {error.strerror}"
    return f"{_PYTHON}: {python} does not have its Python package" if done.returncode else None


def installed() -> Path:
    """Its prefix."""
    return Path(os.environ[_VARIABLE])


def version() -> str:
    """What its daemon says it is."""
    words = [str(installed() / "sbin" / "irmd"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip() or "unknown version"


def known_hosts(addresses: Mapping[str, str]) -> str:
    """What a file of hosts has to say of names that are found at addresses."""
    return "".join(f"{address} {hashlib.md5(name.encode()).hexdigest()}\n" for name, address in addresses.items())


class _Host(Protocol):
    """Where the tools run, and their daemon or a node."""

    def run(self, tool: str, *words: str, core: int | None = None) -> str:
        """Run a tool to its end; return what it prints. Raises BenchError when it fails."""

    def start(self, tool: str, *words: str, core: int | None = None) -> subprocess.Popen[str]:
        """Start a server, which is ready when this returns."""


class Tools:
    """The prototype's tools, between a server and a client. Use as a context manager. Raises BenchError."""

    _server: _Host
    _client: _Host
    tries = _TRIES

    def __init__(self, cores: tuple[int | None, int | None] = (None, None)) -> None:
        self._cores = cores
        self._prefix = installed()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._server, self._client = self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self, stack: ExitStack) -> tuple[_Host, _Host]:
        """Where the server and the client run, names and bindings made; the stack takes it down."""
        raise NotImplementedError

    def round_trips(self, size: int, count: int) -> RoundTrips:
        """One packet after the other, as `oping -f` does it."""
        said, _, _ = self._talk("oping", ["-n", "oping", "-f", "-c", str(count), "-s", str(size)])
        took = sorted(float(time) * (1e3 if unit == "ms" else 1) for time, unit in _ROUND_TRIP.findall(said))
        if len(took) < count // 2:
            raise BenchError(f"oping got {len(took)} of {count} answers")
        return RoundTrips(took[len(took) // 2], took[len(took) * 99 // 100], sum(took) / len(took))

    def flood(self, size: int, count: int) -> float:
        """The same, printing nothing meanwhile; how many a second."""
        said, _, _ = self._talk("oping", ["-n", "oping", "-f", "-Q", "-c", str(count), "-s", str(size)])
        found = _FLOOD.search(said)
        if found is None or int(found[2]) < count * 0.99:
            raise BenchError(f"oping did not get its answers: {said.strip()!r}")
        return int(found[2]) / float(found[3]) * 1e3

    def one_way(self, size: int, seconds: int) -> tuple[float, float]:
        """`ocbr` as fast as it goes; return the packets a second that arrive, and how many percent do not."""
        sent, came, _ = self._talk("ocbr", ["-n", "ocbr", "-f", "-d", str(seconds), "-s", str(size)])
        packets = _CAME.findall(came)
        total = _SENT.search(sent)
        if total is None or not packets:
            raise BenchError(f"ocbr counted nothing: {sent.strip()!r}, {came.strip()!r}")
        received = sum(map(int, packets))
        # Not over the times that the server prints: it goes on counting when nothing comes any more.
        return received / int(total[2]) * 1e3, max(0.0, 100 * (1 - received / int(total[1])))

    def set_ups(self) -> float:
        """How often a second `oping` can be started, allocate a flow, use it once and end; nearly all of it is the flow."""
        return 1 / self._talk("oping", ["-n", "oping", "-c", "1", "-i", "0"])[2]

    def _talk(self, tool: str, words: Sequence[str]) -> tuple[str, str, float]:
        """Run a tool against its server; return what both print, and how many seconds the client ran."""
        for _ in range(self.tries):
            listening = self._server.start(tool, "-l", *_SERVER[tool], core=self._cores[0])
            try:
                start = time.perf_counter()
                said = self._client.run(tool, *words, core=self._cores[1])
                seconds = time.perf_counter() - start
                if tool == "ocbr":
                    # Its server prints the last of what it counted when the flow has been silent for a second.
                    time.sleep(_COUNTED)
                return said, _end(listening), seconds
            except BenchError as error:
                failed = error
            finally:
                _end(listening)
        raise BenchError(f"{tool} failed {self.tries} times, at last: {failed}")


@contextmanager
def broadcast_hosts(layer: str) -> Iterator[Pair]:
    """Start two Python programs on two hosts that run it, with a broadcast layer of both over an Ethernet. They use our
    package, over the prototype's libraries."""
    prefix = installed()
    with ExitStack() as stack:
        segment = stack.enter_context(NamespacePair(None))
        hosts = [stack.enter_context(PrototypeHost(prefix, segment.command(side))) for side in (0, 1)]
        server, client = hosts
        for host in hosts:
            host.run("irm", "ipcp", "bootstrap", "type", "eth-dix", "name", "eth", "layer", "net", "dev", "veth0")
        server.run("irm", "ipcp", "bootstrap", "type", "broadcast", "name", "b0", "layer", layer, "autobind")
        server.run("irm", "name", "register", "b0", "layer", "net")
        # A name that is only created takes its settings of encryption from nowhere.
        client.run("irm", "bind", "program", "true", "name", "b0")
        client.run("irm", "ipcp", "enroll", "type", "broadcast", "name", "b1", "layer", layer, "dst", "b0", "autobind")
        client.run("irm", "ipcp", "connect", "name", "b1", "dst", "b0", "component", "dt")
        env = {"OUROBOROS_BACKEND": "native", "OUROBOROS_LIBDIR": str(prefix / "lib")}
        programs = [stack.enter_context(Program(None, env, host.within())) for host in hosts]
        yield from serve(Pair(*programs, []), "broadcast", layer)


@contextmanager
def on_one_host(peer: str, cores: tuple[int | None, int | None]) -> Iterator[Pair]:
    """Start two Python programs on a host that runs it, with its own package (`binding`) or with ours (`native`)."""
    python = os.environ[_PYTHON] if peer == "binding" else sys.executable
    prefix = installed()
    env = {"OUROBOROS_BACKEND": "native", "OUROBOROS_LIBDIR": str(prefix / "lib")}
    with ExitStack() as stack:
        host = stack.enter_context(PrototypeHost(prefix))
        server, client = (stack.enter_context(Program(core, env, host.within(), python)) for core in cores)
        yield from serve(Pair(server, client, []), peer, "bench")


class Prototype(Tools):
    """On two hosts that run the prototype, over UDP."""

    def _open(self, stack: ExitStack) -> tuple[_Host, _Host]:
        pair = stack.enter_context(NamespacePair(None))
        hosts = []
        for side in (0, 1):
            known = known_hosts(dict.fromkeys(NAMES, pair.addresses[1 - side]))
            host = stack.enter_context(PrototypeHost(self._prefix, pair.command(side), known))
            host.run("irm", *f"ipcp bootstrap type udp4 name udp layer net ip {pair.addresses[side]}".split())
            hosts.append(host)
        server, client = hosts
        for name in NAMES:
            server.run("irm", "bind", "program", name, "name", name)
            client.run("irm", "name", "create", name)
        return server, client


class PrototypeDix(Tools):
    """On two hosts that run it, over an Ethernet."""

    # What has failed once fails again, see `one_way_over_dix`.
    tries = 1

    def _open(self, stack: ExitStack) -> tuple[_Host, _Host]:
        pair = stack.enter_context(NamespacePair(None))
        hosts = [stack.enter_context(PrototypeHost(self._prefix, pair.command(side))) for side in (0, 1)]
        for host in hosts:
            host.run("irm", "ipcp", "bootstrap", "type", "eth-dix", "name", "eth", "layer", "net", "dev", "veth0")
        for name in NAMES:
            hosts[0].run("irm", "bind", "program", name, "name", name)
            hosts[0].run("irm", "name", "register", name, "layer", "net")
            # A name that is only created takes its settings of encryption from nowhere.
            hosts[1].run("irm", "bind", "program", "true", "name", name)
        return hosts[0], hosts[1]


def one_way_over_dix(size: int, seconds: int) -> tuple[float, float]:
    """`Tools.one_way`, on hosts of its own: a flood can leave a layer over an Ethernet deaf for good, and no flow is
    allocated there any more."""

    def sample() -> tuple[float, float]:
        with PrototypeDix() as hosts:
            return hosts.one_way(size, seconds)

    return afresh(sample)


def afresh(sample: Callable[[], T]) -> T:
    """Take a sample on hosts of its own, and on new ones when that fails, a few times: a flood can leave a host of the
    prototype deaf for good. Raises BenchError at last."""
    for _ in range(_AFRESH - 1):
        with suppress(BenchError):
            return sample()
    return sample()


class PrototypeLocal(Tools):
    """On one host that runs the prototype, with a local layer."""

    def _open(self, stack: ExitStack) -> tuple[_Host, _Host]:
        host = stack.enter_context(PrototypeHost(self._prefix))
        host.run("irm", "ipcp", "bootstrap", "type", "local", "name", "here", "layer", "here")
        for name in NAMES:
            host.run("irm", "bind", "program", name, "name", name)
            host.run("irm", "name", "register", name, "layer", "here")
        return host, host


class OnOurNode(Tools):
    """On a node of ours, by way of our libraries."""

    def _open(self, stack: ExitStack) -> tuple[_Host, _Host]:
        node = stack.enter_context(Node())
        libraries = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        done = subprocess.run(
            [*our_tool("ouroboros"), "cdev", "--prefix", str(libraries)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BenchError(done.stderr.strip())
        host = _OurHost(self._prefix, {**node.env, "LD_LIBRARY_PATH": str(libraries / "lib")}, node)
        return host, host


class _OurHost:
    """What it takes to run the tools on a node of ours."""

    def __init__(self, prefix: Path, env: Mapping[str, str], node: Node) -> None:
        self._prefix = prefix
        self._env = {**os.environ, **env}
        self._node = node

    def run(self, tool: str, *words: str, core: int | None = None) -> str:
        return _run([*_on(core), str(self._prefix / "bin" / tool), *words], self._env)

    def start(self, tool: str, *words: str, core: int | None = None) -> subprocess.Popen[str]:
        # Allocations wait for a name that nobody has served yet, so the server need not be ready.
        self._node.irm(f"name create {tool}")
        self._node.irm(f"name destroy {tool}")
        self._node.irm(f"bind program {self._prefix / 'bin' / tool} name {tool}")
        command = [*_on(core), str(self._prefix / "bin" / tool), *words]
        return subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True, env=self._env)


class PrototypeHost:
    """A host of the prototype: its namespaces and its daemon. `inside`: what runs a command in the network namespace that it
    takes; `known`: its file of hosts."""

    def __init__(self, prefix: Path, inside: Sequence[str] = (), known: str = "") -> None:
        self._prefix, self._inside, self._known = prefix, inside, known
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self._log = Path(self._directory.name) / "irmd.log"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._directory)
            self._holder = stack.enter_context(self._hold())
            stack.callback(_end, self._holder)
            stack.callback(_kill_others, self._holder)
            with self._log.open("wb") as log:
                daemon = stack.enter_context(subprocess.Popen(self.command("irmd", "--stdout"), stdout=log, stderr=log))
            stack.callback(_end, daemon)
            self._wait_for("daemon started")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, tool: str, *words: str, core: int | None = None) -> str:
        return _run(self.command(tool, *words, core=core))

    def start(self, tool: str, *words: str, core: int | None = None) -> subprocess.Popen[str]:
        before = self._programs()
        server = subprocess.Popen(self.command(tool, *words, core=core), stdout=PIPE, stderr=STDOUT, text=True)
        _wait_until(lambda: self._programs() > before, f"{tool} did not start")
        return server

    def _hold(self) -> subprocess.Popen[str]:
        hosts = Path(self._directory.name) / "hosts"
        hosts.write_text(self._known)
        words = ["unshare", "--mount", "--ipc", "--propagation", "private", "sh", "-c", _HOLD, "sh", str(hosts)]
        holder = subprocess.Popen([*self._inside, *words], stdin=PIPE, stdout=PIPE, text=True)
        assert holder.stdout is not None
        if holder.stdout.readline() != "\n":
            raise BenchError("the C prototype got no namespaces of its own")
        return holder

    def within(self) -> list[str]:
        """What is put before a command line so that it runs here, in the same process."""
        # The daemon looks for programs in its path.
        path = f"PATH={self._prefix / 'bin'}:{self._prefix / 'sbin'}:{os.environ['PATH']}"
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "--ipc", "--net", "--"]
        return [*enter, "env", f"--chdir={ROOT}", path, f"LD_LIBRARY_PATH={self._prefix / 'lib'}"]

    def command(self, tool: str, *words: str, core: int | None = None) -> list[str]:
        folder = "sbin" if tool.startswith("irm") else "bin"
        return [*self.within(), *_on(core), str(self._prefix / folder / tool), *words]

    def _programs(self) -> int:
        return self._log.read_text(errors="replace").count("Process added")

    def _wait_for(self, text: str) -> None:
        _wait_until(lambda: text in self._log.read_text(errors="replace"), f"irmd did not say {text!r}")


def _on(core: int | None) -> list[str]:
    """What makes a command run on that core."""
    return [] if core is None else ["taskset", "-c", str(core)]


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, stdout=PIPE, stderr=STDOUT, text=True, check=False, timeout=PATIENCE, env=env)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise BenchError(otherwise)
        time.sleep(0.01)


def _kill_others(holder: subprocess.Popen[str]) -> None:
    """All else that is in its namespaces: a layer of the prototype may take a processor for good and not end when it is told
    to."""
    own = os.readlink(f"/proc/{holder.pid}/ns/ipc")
    for process in Path("/proc").iterdir():
        # Processes end while we look.
        with suppress(OSError):
            if process.name.isdigit() and int(process.name) != holder.pid and os.readlink(process / "ns/ipc") == own:
                os.kill(int(process.name), signal.SIGKILL)


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
