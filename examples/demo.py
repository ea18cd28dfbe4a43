"""Run the examples as separate programs on nodes of their own, and check what they say. `make demo` runs this.

Everything happens under fresh runtime directories, so a node that you use is left alone. The exit code is 0 only if
every program said and did what it should.
"""

import hashlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ouroboros import irm
from ouroboros.lab import Lab, LabError, LabNode, describe
from ouroboros.lab.namespaces import lacks
from ouroboros.wire.control import FlowEntry

EXAMPLES = Path(__file__).resolve().parent
VARIABLE = "OUROBOROS_RUNTIME_DIR"  # says which node is meant
PATIENCE = 120.0  # seconds for the whole demo
FILE_SIZE = 16 << 20  # bytes
NETWORK_FILE_SIZE = 32 << 20
UNICAST_FILE_SIZE = 24 << 20
RANKS_FILE_SIZE = 16 << 20
BAD_LINK = "loss=5%,reorder=2%"  # in each direction
SLOW_LINK = "rate=100M"  # so that a file is on its way for two seconds


class DemoError(Exception):
    """A program did not do what the demo expects."""


class Stage:
    """The programs of the demo, and the watchdog that ends them all if one hangs."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._watchdog = threading.Timer(PATIENCE, self._give_up)
        self._watchdog.daemon = True
        self.gave_up = False

    def __enter__(self) -> "Stage":
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._kill()
        for process in self._running:
            with process:  # closes its pipes and waits for its end
                pass

    def start(self, program: str, *arguments: str, on: LabNode | None = None) -> subprocess.Popen[str]:
        """Start an example, on a node of a laboratory if one is given; what it prints, errors included, comes out of its
        pipe."""
        command, environment = [sys.executable, str(EXAMPLES / f"{program}.py"), *arguments], None
        if on is not None:
            command, environment = on.lab.ground.command(on.name, command)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._running.append(process)
        return process

    def _give_up(self) -> None:
        self.gave_up = True
        self._kill()

    def _kill(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()


def expect(process: subprocess.Popen[str], text: str) -> str:
    """The next line that the program prints; it must contain the text."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if text not in line:
        process.kill()
        said = (line + process.stdout.read()).strip()
        raise DemoError(f"{title(process)} should have said {text!r}, but said {said!r}")
    return line.strip()


def type_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    """Close the program's input and wait for its end, which must be a good one."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    rest = process.stdout.read().strip()
    if process.wait() != 0 or rest:
        raise DemoError(f"{title(process)} ended with exit code {process.returncode}, saying {rest!r}")


def title(process: subprocess.Popen[str]) -> str:
    """The command line, short enough to print."""
    assert isinstance(process.args, list)
    return " ".join(Path(str(word)).name for word in process.args[1:])


def echo(stage: Stage) -> None:
    server = stage.start("oecho", "--listen")
    expect(server, "Waiting for flows to oecho")
    started = time.monotonic()
    client = stage.start("oecho")
    answer = expect(client, "Hello, PyOuroboros!")
    finish(client)
    seconds = time.monotonic() - started
    expect(server, "Client says: Hello, PyOuroboros!")
    server.send_signal(signal.SIGINT)
    expect(server, "Stopped.")
    finish(server)
    told(f"oecho     {answer!r}, {seconds:.2f} s from starting the client to its end")


def pool(stage: Stage) -> None:
    workers = [stage.start("pool", "--listen") for _ in range(4)]
    for worker in workers:
        expect(worker, "is waiting")
    tasks = ["20000"] * 8
    client = stage.start("pool", "--parallel", *tasks)
    answers = [expect(client, "below 20000: 2262, says worker") for _ in tasks]
    finish(client)
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        expect(worker, "Stopped.")
        finish(worker)
    told(f"pool      {len(tasks)} tasks at once, solved by {len(set(answers))} of {len(workers)} workers")


def chat(stage: Stage) -> None:
    converse(lambda *words: stage.start("chat", *words))
    told("chat      3 members said 3 lines; each heard the 2 of the others, and none heard its own")


def converse(start: Callable[..., subprocess.Popen[str]]) -> None:
    """Have three members of a room hear each other. `start`: starts a member, by its nick and other arguments."""
    members = [start(nick) for nick in ("ada", "grace")]
    for member in members:
        expect(member, " joined ")
    late = start("radia", "--say", "hello, room", "--count", "2")
    expect(late, "radia joined ")
    for member in members:
        expect(member, "radia: hello, room")
    for member, nick in zip(members, ("ada", "grace"), strict=True):
        type_line(member, f"welcome from {nick}")
        expect(late, f"{nick}: welcome from {nick}")
    finish(late)
    expect(members[0], "grace: welcome from grace")
    expect(members[1], "ada: welcome from ada")
    for member in members:
        finish(member)


def sendfile(stage: Stage, directory: Path) -> None:
    with transfer(stage, directory, FILE_SIZE) as (rate, digest):
        pass
    told(f"sendfile  {rate}, sha256 {digest[:16]}… at both ends")


def network(stage: Stage, directory: Path) -> None:
    """The same between two nodes, each on an address of its own, over UDP."""
    server, client = directory / "server", directory / "client"
    for node in (server, client):
        with node_in(node):
            irm.node_info()  # which starts it
    layer = f"ipcp bootstrap type udp4 name udp layer net port {free_port()} impair", BAD_LINK, "ip"
    with node_in(server):
        manage(*layer, "127.0.0.1")
        manage("name register sendfile layer net")
    with node_in(client):
        manage(*layer, "127.0.0.2 peer sendfile@127.0.0.1")
    with transfer(stage, directory, NETWORK_FILE_SIZE, server, client) as (rate, digest), node_in(client):
        counters = next(flow["counters"] for flow in json.loads(manage("flow list --json")) if flow["counters"])
    repaired, packets = counters["frcp_retransmitted"], counters["frcp_data_sent"]
    told(f"network   two nodes, 127.0.0.1 and 127.0.0.2, and {BAD_LINK} between them")
    told(f"          {rate}, sha256 {digest[:16]}… at both ends")
    told(f"          {repaired} of {packets} packets were sent again")
    if not repaired:
        raise DemoError("nothing was sent again, so nothing was lost")


def unicast(stage: Stage, directory: Path) -> None:
    """Five nodes in a row, of which each knows the address of the one before only, and a file over three hops."""
    port, started = free_port(), time.monotonic()
    nodes = [directory / f"member{number}" for number in range(5)]
    for number, node in enumerate(nodes):
        with node_in(node):
            irm.node_info()  # which starts it
            udp = f"ipcp bootstrap type udp4 name net0 layer net port {port} ip 127.0.0.{number + 1}"
            if number == 0:
                manage(udp)
                manage("ipcp bootstrap type unicast name m0 layer campus autobind")
            else:
                manage(udp, f"peer m{number - 1}@127.0.0.{number}")
                manage(f"ipcp enroll name m{number} dst m{number - 1} autobind")
    seconds = time.monotonic() - started
    with node_in(nodes[4]):
        manage("name register sendfile layer campus")
    with node_in(nodes[1]):
        while len(member(json.loads(manage("layer show campus --json")))["routes"]) < len(nodes) - 1:
            time.sleep(0.05)
    with transfer(stage, directory, UNICAST_FILE_SIZE, nodes[4], nodes[1]) as (rate, digest), node_in(nodes[1]):
        routes = member(json.loads(manage("layer show campus --json")))["routes"]
        (flow,) = (flow for flow in json.loads(manage("flow list --json")) if flow["layer"] == "campus")
    (hops,) = (route["hops"] for route in routes if route["address"] == flow["address"])
    told(f"unicast   five nodes in one layer, {seconds:.1f} s from nothing to the last member")
    told(f"          {rate} over {hops} hops, sha256 {digest[:16]}… at both ends")
    if hops != 3:
        raise DemoError(f"the file should have crossed three hops, not {hops}")


def ranks(stage: Stage, directory: Path) -> None:
    """Five nodes in a ring, two of which are neighbours in a layer over it, and a link that is cut under a file."""
    ring = ", ".join(f"n{number} -({SLOW_LINK})- n{(number + 1) % 5}" for number in range(5))
    with Lab("a@n0 - c@n2", over=ring, silence=1) as lab:
        near, far = lab["n0"], lab["n2"]
        far.offer("sendfile")
        before, pause = near.trace(far).ranks[1].path, 0.0

        def cut() -> None:
            nonlocal pause
            while not (there := flows_to(near, "sendfile")) or there[0].counters["frcp_data_sent"] < 100:
                time.sleep(0.01)
            lab.link("n0", "n1").cut()
            started = time.monotonic()
            while near.routes("net1")["n2"].hops == len(before) - 1:
                time.sleep(0.01)
            pause = time.monotonic() - started

        homes = far.directory, near.directory
        with transfer(stage, directory, RANKS_FILE_SIZE, *homes, meanwhile=cut) as (rate, digest):
            after = near.trace(far).ranks[1].path
            (flow,) = flows_to(near, "sendfile")
    repaired, packets = flow.counters["frcp_retransmitted"], flow.counters["frcp_data_sent"]
    told("ranks     two of five nodes are neighbours in a layer, over another one that is a ring of all five")
    told(f"          {' - '.join(before)} until n0 - n1 was cut, {' - '.join(after)} {pause:.1f} s later")
    told(
        f"          {rate}, sha256 {digest[:16]}… at both ends, {repaired} of {packets} packets were lost and sent again"
    )
    if not repaired or (before, after) != (("n0", "n1", "n2"), ("n0", "n4", "n3", "n2")):
        raise DemoError("the file should have gone the other way round since the cut")


def hosts(stage: Stage) -> None:
    """The same room on three hosts with network stacks of the kernel, namespaces, and a cable from each to the next."""
    if reason := lacks():
        told(f"hosts     skipped: {reason}")
        return
    row = replace(describe("ada - grace - radia", links="eth-dix"), layers=())
    with Lab(row, clock="namespaces") as lab:
        for node in ("grace", "ada", "radia"):
            verb = "bootstrap" if node == "grace" else "enroll"
            with node_in(lab[node].directory):
                manage(f"ipcp {verb} type broadcast name hall-{node} layer hall autobind")
        while count_up(lab.grace) < 2:
            time.sleep(0.01)
        converse(lambda nick, *words: stage.start("chat", nick, "--layer", "hall", *words, on=lab[nick]))
        frames = lab.grace.counters("ada-grace")["sent"]
    told(
        f"hosts     the same room on {len(row.nodes)} hosts, {frames} frames from grace to ada among them, no IP anywhere"
    )


def count_up(node: LabNode) -> int:
    """The connections that carry packets of the broadcast layer on a node."""
    connections = [each for ipcp in node.ipcps() for each in ipcp.connections]
    return sum((each.component, each.state) == ("Data Transfer", "up") for each in connections)


def flows_to(node: LabNode, name: str) -> list[FlowEntry]:
    return [flow for flow in node.flows() if flow.name == name]


def member(ipcps: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of the unicast layer."""
    (found,) = (ipcp for ipcp in ipcps if ipcp["type"] == "unicast")
    return found


def free_port() -> int:
    """A port that nobody uses, because the usual one may be taken by a node of yours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


@contextmanager
def transfer(
    stage: Stage,
    directory: Path,
    size: int,
    receiver_node: Path | None = None,
    sender_node: Path | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, str]]:
    """Send a file, and do something `meanwhile`. The block is given what the receiver says of the rate, and the digest; the
    flow is still there."""
    inbox = Path(tempfile.mkdtemp(prefix="inbox-", dir=directory))
    source = directory / "numbers.bin"
    content = random.Random(23).randbytes(size)
    source.write_bytes(content)
    with node_in(receiver_node):
        receiver = stage.start("sendfile", "--listen", str(inbox))
    expect(receiver, "Waiting for the sender")
    with node_in(sender_node):
        sender = stage.start("sendfile", "--keep", str(source))
    expect(sender, "Waiting for the receiver")
    meanwhile()
    expect(sender, f"sent {size} bytes")
    digest = hashlib.sha256(content).hexdigest()
    expect(sender, f"sha256 {digest}: both ends agree")
    yield expect(receiver, f"received {size} bytes"), digest
    finish(sender)
    expect(receiver, f"sha256 {digest}")
    finish(receiver)
    if (inbox / source.name).read_bytes() != content:
        raise DemoError("the received file differs from the one that was sent")


def manage(*words: str) -> str:
    """Run the command `irm`; it prints what this returns."""
    command = [sys.executable, "-m", "ouroboros.tools.irm", *" ".join(words).split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
    return done.stdout


def told(line: str) -> None:
    print(line, flush=True)


@contextmanager
def own_nodes() -> Iterator[Path]:
    """A directory in which embedded nodes start by themselves, the first one in `run`; all are ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="ouroboros-demo-") as name:
        directory = Path(name)
        try:
            with node_in(directory / "run"):
                yield directory
        finally:
            for control in directory.glob("*/irm.sock"):
                with node_in(control.parent):
                    end_node()


@contextmanager
def node_in(directory: Path | None) -> Iterator[None]:
    """Calls in this block, and programs that start in it, are for the node in that directory, if one is given."""
    before = os.environ.get(VARIABLE)
    if directory is not None:
        os.environ[VARIABLE] = str(directory)
    yield
    if before is not None:
        os.environ[VARIABLE] = before


def end_node() -> None:
    try:
        with irm.running_node_only():
            pid = irm.node_info().pid
    except irm.NodeError:
        return  # it never started, or is gone already
    ended = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(ended, signal.SIGTERM)
        if not select.select([ended], [], [], PATIENCE)[0]:
            raise DemoError(f"the node, pid {pid}, does not end")
    finally:
        os.close(ended)


def main() -> None:
    started, stage = time.monotonic(), Stage()
    # A shell starts background jobs with SIGINT ignored, and programs inherit that; ours are to be stopped with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with own_nodes() as directory, stage:
            # A client waits for the server of a name that exists, so it does not matter which of them is ready first.
            for name in ("oecho", "sendfile"):
                irm.create_name(irm.NameInfo(name))
            node = irm.node_info()
            told(f"node      version {node.version}, pid {node.pid}, started by the first call that needed one")
            echo(stage)
            pool(stage)
            chat(stage)
            sendfile(stage, directory)
            network(stage, directory)
            unicast(stage, directory)
            ranks(stage, directory)
            hosts(stage)
    except (DemoError, LabError, irm.IrmError, OSError) as error:
        sys.exit(f"demo failed{f' (given up after {PATIENCE:g} s)' if stage.gave_up else ''}: {error}")
    told(f"done      all as expected, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
