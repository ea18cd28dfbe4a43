"""Hosts in a line, each a neighbour of the next in one unicast layer over UDP: nodes of ours, or the C prototype.

Each host has a network of its own; a bridge on the first one joins them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.harness import UDP_NAME, BenchError, Host, Node, Pair, Program, serve
from bench.proc import thread_nanoseconds
from bench.prototype import NAMES, PrototypeHost, Tools, installed, known_hosts
from ouroboros.testing.link import NamespacePair

_LAYER = "campus"
#: Seconds for routes and names to be known.
_PATIENCE = 20.0
#: After so many seconds, what the directory of a layer has to tell is told; the prototype's joins it late
#: (docs/spec/unicast-control.md 12.2).
_SETTLED, _SETTLED_PROTOTYPE = 1.0, 4.0
#: The prototype's layers lose a request now and then, and say so late: seconds for one, and how often.
_SHORT, _TRIES = "6", 5

lacks = NamespacePair.lacks


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, each of which reaches all others."""
    with ExitStack() as stack:
        holders = [stack.enter_context(_namespace()) for _ in range(count)]
        made = [
            Host(f"10.9.0.{number}", ["nsenter", f"--target={holder.pid}", "--net", "--"])
            for number, holder in enumerate(holders, 1)
        ]
        middle = made[0]
        _ip(middle, "link add o7 type bridge")
        for number, (host, holder) in enumerate(zip(made[1:], holders[1:], strict=True)):
            _ip(middle, f"link add p{number} type veth peer name o7 netns {holder.pid}")
            _ip(middle, f"link set p{number} master o7 up")
            _set_up(host)
        _set_up(middle)
        yield made


def _set_up(host: Host) -> None:
    _ip(host, f"address add {host.address}/24 dev o7")
    for device in ("lo", "o7"):
        _ip(host, f"link set {device} up")


@contextmanager
def _namespace() -> Iterator[subprocess.Popen[bytes]]:
    words = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"\n":
            raise BenchError("there are no network namespaces here")
        yield holder
    finally:
        holder.communicate()


def _ip(host: Host, words: str) -> None:
    done = subprocess.run([*host.prefix, "ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"ip {words}: {done.stderr.strip()}")


# --- ours


@dataclass
class Line:
    """A server on the first of our nodes, a client on the last. `nodes`: in order."""

    pair: Pair
    nodes: list[Node]

    def transit_nanoseconds(self) -> int:
        """Processor time that the engine of the node in the middle has had."""
        return thread_nanoseconds(self.nodes[1].pid, "engine")


@contextmanager
def our_line(hops: int, peer: str = "ours-udp", ranks: int = 1) -> Iterator[Line]:
    """`peer`: how the two programs talk. `ranks`: unicast layers over each other; in those above the lowest, the first node
    and the last are neighbours."""
    with ExitStack() as stack:
        places = stack.enter_context(hosts(hops + 1))
        nodes = [stack.enter_context(Node(host.prefix)) for host in places]
        for number, (node, host) in enumerate(zip(nodes, places, strict=True)):
            node.irm(f"ipcp bootstrap type udp4 name udp layer net ip {host.address}{_peer(number, places)}")
            if number:
                node.irm(f"ipcp enroll name m{number} layer {_LAYER} dst m{number - 1} autobind")
            else:
                node.irm(f"ipcp bootstrap type unicast name m0 layer {_LAYER} autobind")
        _wait_until(lambda: _routes(nodes[-1]) == hops, "the last member has no way to the first")
        highest = _LAYER
        for rank in range(2, ranks + 1):
            highest = f"{_LAYER}{rank}"
            nodes[0].irm(f"ipcp bootstrap type unicast name r{rank} layer {highest} autobind")
            nodes[-1].irm(f"ipcp enroll name r{rank} layer {highest} autobind")
        nodes[0].irm(f"name register {UDP_NAME} layer {highest}")
        time.sleep(_SETTLED)
        server, client = (
            stack.enter_context(Program(None, node.env, host.prefix))
            for node, host in ((nodes[0], places[0]), (nodes[-1], places[-1]))
        )
        for pair in serve(Pair(server, client, nodes), peer, UDP_NAME):
            yield Line(pair, nodes)


def _peer(number: int, places: list[Host]) -> str:
    return f" peer m{number - 1}@{places[number - 1].address}" if number else ""


def _routes(node: Node) -> int:
    entries = json.loads(node.irm("ipcp list --json"))
    return sum(len(each.get("routes") or ()) for each in entries)


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise BenchError(otherwise)
        time.sleep(0.2)


# --- the prototype


class PrototypeLine(Tools):
    """The same of the prototype, with its own tools on the first host and on the last."""

    def __init__(self, hops: int) -> None:
        super().__init__()
        self._hops = hops

    def _open(self, stack: ExitStack) -> tuple[PrototypeHost, PrototypeHost]:
        places = stack.enter_context(hosts(self._hops + 1))
        known = known_hosts({f"m{number}": host.address for number, host in enumerate(places)})
        members = [stack.enter_context(PrototypeHost(self._prefix, host.prefix, known)) for host in places]
        for number, (member, host) in enumerate(zip(members, places, strict=True)):
            member.run("irm", *f"ipcp bootstrap type udp4 name udp layer net ip {host.address}".split())
            begin_member(member, number)
        time.sleep(_SETTLED_PROTOTYPE)
        server, client = members[0], members[-1]
        for name in NAMES:
            server.run("irm", "bind", "program", name, "name", name)
            _insist(server, f"name register {name} layer {_LAYER}")
            client.run("irm", "name", "create", name)
        return server, client


def begin_member(host: PrototypeHost, number: int) -> None:
    """Member `number` of the layer on a host of the prototype: it begins the layer, or enrolls with the one before."""
    if not number:
        host.run("irm", *f"ipcp bootstrap type unicast name m0 layer {_LAYER} autobind".split())
        return
    host.run("irm", "name", "create", f"m{number - 1}")
    _insist(host, f"ipcp enroll name m{number} layer {_LAYER} dst m{number - 1} autobind")
    for component in ("mgmt", "dt"):
        _insist(host, f"ipcp connect name m{number} dst m{number - 1} component {component}")


def _insist(host: PrototypeHost, words: str) -> None:
    """Some seconds for it, several times."""
    for _ in range(_TRIES):
        command = host.command("irm", *words.split())
        done = subprocess.run(["timeout", _SHORT, *command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise BenchError(f"irm {words}: {(done.stdout + done.stderr).strip()}")


@contextmanager
def prototype_member() -> Iterator[tuple[Host, str]]:
    """A host where the prototype has begun a layer, and one beside it. Yields the second, and the address of the first."""
    with ExitStack() as stack:
        first, second = stack.enter_context(hosts(2))
        host = stack.enter_context(PrototypeHost(installed(), first.prefix, ""))
        host.run("irm", *f"ipcp bootstrap type udp4 name udp layer net ip {first.address}".split())
        begin_member(host, 0)
        yield second, first.address
