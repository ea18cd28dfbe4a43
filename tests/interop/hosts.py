"""Hosts for tests against the C prototype: ours and the prototype's, in namespaces of their own, joined by a veth pair.

Nothing outlives a test: a host ends, with all its processes and its network, when the pipe to it closes, and so also when
the test run is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import NodeProcess, children

from ouroboros.lab import LabError, UnavailableError
from ouroboros.lab.prototype import Installation, Machine, Namespace

PROGRAMS = Path(__file__).parent / "programs"
PORT = 3435

#: Seconds after which something that a program has to do counts as never happening.
LIMIT = 40.0


# --- commands


class Command:
    """A program of which the test reads the output, line by line, never longer than `LIMIT` a line."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._rest = b""
        self.said: list[str] = []

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """The next line of its output and errors."""
        line = self._next(time.monotonic() + LIMIT)
        if line is None:
            status = self.process.wait(LIMIT)
            raise AssertionError(f"it ended with status {status}; it said {self.said}")
        return line

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a line matches."""
        while True:
            if match := re.search(pattern, self.line()):
                return match

    def finish(self) -> list[str]:
        """Wait for its end; all lines that it said since it started. See `status`."""
        end = time.monotonic() + LIMIT
        while self._next(end) is not None:
            pass
        self.process.wait(LIMIT)
        return self.said

    @property
    def status(self) -> int | None:
        return self.process.poll()

    def interrupt(self) -> list[str]:
        """What Ctrl-C does, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.finish()

    def kill(self) -> None:
        """kill -9 for it and all that it started, and wait."""
        if self.process.poll() is None:
            # `nsenter` has to reap its child: the machine's init would take its time.
            started = _descendants(self.process.pid)
            for pid in started or [self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(LIMIT)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _next(self, end: float) -> str | None:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            assert left > 0, f"nothing more came in {LIMIT} s; it said {self.said}"
            if not select.select([self.process.stdout], [], [], left)[0]:
                continue
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                if not self._rest:
                    return None
                more = b"\n"
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        self.said.append(line.decode(errors="replace"))
        return self.said[-1]


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in list(found):
        with contextlib.suppress(FileNotFoundError):
            found += _descendants(child)
    return found


# --- hosts and links


@dataclass(frozen=True)
class Addresses:
    """Of one family: the two hosts, and the two faces of a `Link` that stands between them."""

    ours: str
    theirs: str
    #: What our host takes for its peer, and what theirs takes for its peer, when there is a link between them.
    near: str
    far: str
    prefix: int


ADDRESSES = {
    "udp4": Addresses("10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4", 24),
    "udp6": Addresses("fd09::1", "fd09::2", "fd09::3", "fd09::4", 64),
    # Devices: the two ends of the veth pair.
    "eth-dix": Addresses("o7", "o7", "", "", 0),
    "eth-llc": Addresses("o7", "o7", "", "", 0),
}


def place(family: str, address: str) -> tuple[str, str]:
    """What `irm ipcp bootstrap` is told of where a host is."""
    return "ip" if ADDRESSES[family].prefix else "dev", address


def join(ours: Namespace, theirs: Namespace, *, mtu: int = 1500) -> None:
    """Put a veth pair with the addresses of both families between two hosts."""
    _ip(f"link add o7 mtu {mtu} netns {ours.pid} type veth peer name o7 mtu {mtu} netns {theirs.pid}")
    for each in filter(lambda each: each.prefix, ADDRESSES.values()):
        for host, addresses in ((ours, (each.ours, each.near, each.far)), (theirs, (each.theirs,))):
            for address in addresses:
                options = " nodad" if ":" in address else ""
                _ip(f"addr add {address}/{each.prefix} dev o7{options}", host)
    for host in (ours, theirs):
        _ip("link set o7 up", host)


def _ip(words: str, host: Namespace | None = None) -> None:
    before = [] if host is None else ["nsenter", f"--target={host.pid}", "--net", "--"]
    done = subprocess.run([*before, "ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"ip {words}: {done.stderr.strip()}")


@dataclass
class Host:
    """What both hosts have: programs that end with the test, and a security directory of its own."""

    namespace: Namespace
    security: Path
    _running: list[Command] = field(default_factory=list)

    def keep(self, command: Command) -> Command:
        self._running.append(command)
        return command

    def configure(self, path: str, text: str) -> None:
        """Write a file of the security directory, which may be a private key."""
        file = self.security / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(text)

    def end_programs(self) -> None:
        while self._running:
            self._running.pop().kill()


# --- the prototype's host


class PrototypeHost(Host):
    """A host of the prototype: its daemon, one UDP layer, and files of its own in place of the machine's.

    `names` are the names that it can reach, with the addresses where; `servers` the tools that serve under their own name.
    """

    def __init__(self, installation: Installation, directory: Path, names: dict[str, str]) -> None:
        directory.mkdir()
        self.installation = installation
        self._machine = Machine(installation, directory, directory / "security")
        self._machine.find(names)
        super().__init__(self._machine.namespace, directory / "security")
        self._names = names
        self._died = False

    def start(self, family: str, address: str) -> None:
        self._machine.start()
        self.irm("ipcp", "bootstrap", "type", family, "name", "u", "layer", "net", *place(family, address))
        for name in self._names:
            # Not `name create`: a name that was made by that takes its settings of encryption from nowhere.
            self.irm("bind", "program", "true", "name", name)

    def irm(self, *words: str) -> None:
        """Have its `irm` do something, which must succeed."""
        self._machine.irm(*words, seconds=int(LIMIT))

    def try_irm(self, *words: str) -> None:
        """As `irm`, several times, each for a few seconds: its layer loses some requests, and gives up late."""
        for _ in range(4):
            with contextlib.suppress(LabError):
                self._machine.irm(*words)
                return
        self._machine.irm(*words)

    def run(self, tool: str, *arguments: str) -> Command:
        """Run one of its tools."""
        return self.keep(Command(self._command("stdbuf", "-oL", tool, *arguments), self.installation.environment()))

    def serve(self, tool: str, *arguments: str, layer: str = "net") -> Command:
        """Run one of its servers under the tool's own name, again whenever it ended.

        It ends by itself about once in forty flows, when its layer loses a race and accepting a flow fails.
        """
        self.irm("bind", "program", tool, "name", tool)
        self.irm("name", "register", tool, "layer", layer)
        loop = 'while [ -S /run/ouroboros/irm.sock ]; do stdbuf -oL "$@" -l; done'
        server = self.keep(
            Command(self._command("sh", "-c", loop, "sh", tool, *arguments), self.installation.environment())
        )
        server.until("erver")
        return server

    def program(self, name: str | None = None) -> Program:
        """A program that calls its library as the test says, bound to a name if it is to accept flows."""
        library = self.installation.library / "libouroboros-dev.so"
        command = self._command(sys.executable, str(PROGRAMS / "prototype.py"), str(library))
        program = Program(self.keep(Command(command, self.installation.environment())))
        if name is not None:
            self.irm("bind", "process", str(program.pid), "name", name)
            self.irm("name", "register", name, "layer", "net")
        return program

    def script(self, name: str, *arguments: str) -> Command:
        """Run one of our test programs on this host's network."""
        return self.keep(Command(self._command(sys.executable, str(PROGRAMS / name), *arguments), dict(os.environ)))

    def log(self) -> str:
        return self._machine.log()

    def check(self) -> None:
        """Its layer survived, unless the test killed it, and was sent nothing that it does not know."""
        assert "Unknown message" not in self.log()
        assert self._died or any(name.startswith("ipcpd-") for name in self.namespace.processes()), self.log()

    def die(self) -> None:
        """Take the host down, as when its power fails: nothing more comes from it."""
        self._died = True
        self.close()

    def close(self) -> None:
        self.end_programs()
        self._machine.close()

    def _command(self, *command: str) -> list[str]:
        return self._machine.command(*command)


class Program:
    """A program on the prototype's host; see programs/prototype.py for its calls."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.pid = int(command.line())

    def begin(self, call: str, *arguments: Any) -> None:
        self._command.tell(json.dumps([call, *arguments]))

    def answer(self) -> Any:
        return json.loads(self._command.line())

    def do(self, call: str, *arguments: Any) -> Any:
        self.begin(call, *arguments)
        return self.answer()

    def crashed(self) -> bool:
        """Whether a violation of memory ended it."""
        return self._command.status in (-signal.SIGSEGV, 128 + signal.SIGSEGV)


# --- our host


class OurHost(Host):
    """A host of ours: a node in a network of its own. The test's process and the tools are its programs."""

    def __init__(
        self,
        namespace: Namespace,
        make_node: Callable[..., NodeProcess],
        family: str,
        peers: dict[str, str],
        directory: Path | None = None,
    ) -> None:
        """`directory`: of its node; None: where the programs of the test look for one."""
        super().__init__(namespace, Path(os.environ["OUROBOROS_SECURITY_DIR"]))
        self.node = make_node(within=namespace.within(), directory=directory)
        # A program of the prototype that ends acknowledges nothing any more.
        self.node.lingers = True
        self.family = family
        self._peers = [word for name, address in peers.items() for word in ("peer", f"{name}@{address}")]

    def bootstrap(self, *options: str, address: str | None = None) -> None:
        """Make its layer "net"."""
        where = place(self.family, address or ADDRESSES[self.family].ours)
        peers = self._peers if where[0] == "ip" else []
        self.irm("ipcp", "bootstrap", "type", self.family, "name", "u", "layer", "net", *where, *peers, *options)

    def irm(self, *words: str) -> list[str]:
        """Have our `irm` do something, which must succeed."""
        command = self.run("irm", *words)
        said = command.finish()
        assert command.status == 0, (words, said, self.node.log())
        return said

    def run(self, tool: str, *arguments: str) -> Command:
        """Run one of our tools."""
        return self.keep(Command([str(_ours(tool)), *arguments], _environment(self.node)))

    def serve(self, tool: str, *arguments: str, layer: str = "net") -> Command:
        """Run one of our servers under the tool's own name."""
        self.irm("bind", "program", str(_ours(tool)), "name", tool)
        self.offer(tool, layer)
        server = self.run(tool, "-l", *arguments)
        server.until("erver")
        return server

    def offer(self, name: str, layer: str = "net") -> None:
        """Offer a name of ours in the layer."""
        self.irm("name", "register", name, "layer", layer)

    def script(self, name: str, *arguments: str) -> Command:
        """Run one of the test programs on this host's network."""
        command = [*self.namespace.within(), sys.executable, str(PROGRAMS / name), *arguments]
        return self.keep(Command(command, dict(os.environ)))


def _ours(tool: str) -> Path:
    return Path(sys.executable).with_name(tool)


def _environment(node: NodeProcess) -> dict[str, str]:
    # The prototype's tools have the same names.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "OUROBOROS_RUNTIME_DIR": str(node.directory)}


class Link:
    """A forwarder between the two hosts that does to their datagrams what it is told; both take it for their peer.

    It runs on the network of the host that has the addresses `near` and `far`.
    """

    def __init__(self, host: OurHost | PrototypeHost, family: str, seed: int = 1) -> None:
        addresses = ADDRESSES[family]
        places = (addresses.near, addresses.far, addresses.ours, addresses.theirs)
        words = [word for address in places for word in (address, str(PORT))]
        self._command = host.script("link.py", *words, str(seed))
        assert self._command.line() == "ready"

    def set(self, **faults: float) -> dict[str, int]:
        """Change what it does (see programs/link.py); returns what it has counted so far."""
        self._command.tell(json.dumps(faults))
        counted: dict[str, int] = json.loads(self._command.line())
        return counted
