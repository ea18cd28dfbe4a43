"""Starts the two programs of a measurement, gives them their commands and takes them down again."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: What the server is called in a UDP layer.
UDP_NAME = "bench"
ROOT = Path(__file__).resolve().parent.parent
#: Far more than any command takes; only a hang lasts longer.
PATIENCE = 180.0
_NODE_PATIENCE = 20.0
_EXIT_PATIENCE = 10.0


class BenchError(Exception):
    """A measurement could not be made; the text goes into the report."""


def our_tool(name: str) -> list[str]:
    """The command line that runs one of our tools."""
    script = Path(sys.executable).parent / name
    return [str(script)] if script.exists() else [sys.executable, "-m", f"ouroboros.tools.{name}"]


class Program:
    """One worker process. `start` gives it a command, `finish` takes the answer."""

    def __init__(
        self,
        core: int | None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, python, "-m", "bench.worker", "any" if core is None else str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        _end(self._process)

    def call(self, op: str, **arguments: object) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.start(op, **arguments)
        return self.finish()

    def start(self, op: str, **arguments: object) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"a program of the benchmark died before {op}") from None

    def finish(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for the answer to the command; raise BenchError when it failed, the program died or time is up."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                raise BenchError(f"no answer in {patience:.0f} s: packets lost, or a hang")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"a program of the benchmark died (exit status {self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            sys.stderr.write(answer.get("traceback", ""))
            raise BenchError(answer["error"])
        return answer

    def fileno(self) -> int:
        """Readable when there is an answer."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()


class Node:
    """A node of its own for a measurement, with nothing in it yet. Use as a context manager."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._prefix = prefix
        self._directory = tempfile.TemporaryDirectory(prefix="ouroboros-bench-")
        # Not what the user has configured for his own flows.
        self.env = {
            "OUROBOROS_RUNTIME_DIR": self._directory.name,
            "OUROBOROS_SECURITY_DIR": f"{self._directory.name}/security",
        }
        self._log = Path(self._directory.name) / "node.log"

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *our_tool("irmd")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        try:
            self._wait_until_ready()
        except BenchError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        _end(self._process)
        self._directory.cleanup()

    def irm(self, words: str) -> str:
        """Run the command `irm` with these words, and return what it prints; raise BenchError with what it says when it
        fails."""
        done = subprocess.run(
            [*our_tool("irm"), *words.split()],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(done.stderr.strip() or f"irm {words} failed")
        return done.stdout

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + _NODE_PATIENCE
        while not (Path(self._directory.name) / "irm.sock").exists():
            if self._process.poll() is not None:
                raise BenchError(f"the node ended at start: {self._last_words()}")
            if time.monotonic() > give_up:
                raise BenchError(f"the node is not ready after {_NODE_PATIENCE:.0f} s: {self._last_words()}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Pair:
    """A server program and a client program that talk through one peer."""

    def __init__(self, server: Program, client: Program, nodes: Sequence[Node]) -> None:
        self.server = server
        self.client = client
        #: One for both of them, one for each (the server's first), or none.
        self.nodes = nodes

    @property
    def pids(self) -> list[int]:
        """Every process that a flow lives in."""
        return [self.server.pid, self.client.pid, *(node.pid for node in self.nodes)]

    def together(self, server: str, client: str, **arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run a command in each program at the same time; return the server's and the client's answer."""
        self.server.start(server, **arguments)
        self.client.start(client, **arguments)
        # Whoever fails answers first, and the other one would wait for it without end.
        answers = {}
        for program in _as_they_answer([self.server, self.client]):
            answers[program.pid] = program.finish()
        return answers[self.server.pid], answers[self.client.pid]

    def connect(self, count: int = 1) -> float:
        """Open `count` more connections, each used once each way; return how many a second."""
        rate: float = self.together("accept", "connect", count=count)[1]["per_second"]
        return rate

    def close_connections(self) -> float:
        """Close every connection on both sides; return how many a second the client closed."""
        rate: float = self.client.call("close_all")["per_second"]
        self.server.call("close_all")
        return rate


@contextmanager
def open_pair(
    peer: str, cores: tuple[int | None, int | None], needs_node: bool, env: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """Start two programs that can reach each other through `peer`; everything is gone afterwards."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        node = stack.enter_context(Node()) if needs_node else None
        variables = {**(node.env if node else {}), **(env or {})}
        server = stack.enter_context(Program(cores[0], variables))
        client = stack.enter_context(Program(cores[1], variables))
        address = f"{directory}/{Path(directory).name}"
        yield from serve(Pair(server, client, [node] if node else []), peer, address)


@dataclass(frozen=True, slots=True)
class Host:
    """Where one of two programs lives that talk over a network."""

    #: Its address, which the other can reach.
    address: str
    #: What is put before a command line so that it runs there.
    prefix: Sequence[str] = ()
    #: The device over which they talk, if that is not IP.
    device: str = ""


@contextmanager
def open_network_pair(
    peer: str, hosts: tuple[Host, Host], needs_nodes: bool, env: Mapping[str, str] | None = None
) -> Iterator[Pair]:
    """Start a program on each host, the server on the first, with a node and a layer each if `needs_nodes`.

    Nothing is pinned to a core: there are more threads than in a pair on one machine, and the kernel places them best.
    """
    with ExitStack() as stack:
        nodes = [stack.enter_context(Node(host.prefix)) for host in hosts] if needs_nodes else []
        if nodes:
            _join_layer(nodes, hosts)
        environments = [node.env for node in nodes] or [{}, {}]
        server, client = (
            stack.enter_context(Program(None, {**variables, **(env or {})}, host.prefix))
            for host, variables in zip(hosts, environments, strict=True)
        )
        yield from serve(Pair(server, client, nodes), peer, hosts[0].address)


def _join_layer(nodes: Sequence[Node], hosts: Sequence[Host]) -> None:
    """Make one layer of both nodes, over UDP or an Ethernet, in which the first offers the name of the server."""
    server, client = nodes
    if hosts[0].device:
        for node, host in zip(nodes, hosts, strict=True):
            node.irm(f"ipcp bootstrap type eth-dix name eth layer net dev {host.device}")
        server.irm(f"name register {UDP_NAME} layer net")
        return
    layer = "ipcp bootstrap type udp4 name udp layer net ip"
    server.irm(f"{layer} {hosts[0].address}")
    server.irm(f"name register {UDP_NAME} layer net")
    client.irm(f"{layer} {hosts[1].address} peer {UDP_NAME}@{hosts[0].address}")


def serve(pair: Pair, peer: str, address: str) -> Iterator[Pair]:
    """Let the programs of a pair reach each other through `peer`, and end their connections afterwards."""
    pair.server.call("open", peer=peer, address=address, serve=True)
    pair.client.call("open", peer=peer, address=address, serve=False)
    yield pair
    pair.close_connections()
    pair.server.call("shutdown")


def _as_they_answer(programs: list[Program]) -> Iterator[Program]:
    with selectors.DefaultSelector() as selector:
        for program in programs:
            selector.register(program, selectors.EVENT_READ, program)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            if not ready:
                raise BenchError(f"no answer in {PATIENCE:.0f} s: packets lost, or a hang")
            for key, _ in ready:
                selector.unregister(key.fileobj)
                yield key.data


def _end(process: subprocess.Popen[Any]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # Closing flushes, into a pipe whose reader may be dead.
            with suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(_EXIT_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
