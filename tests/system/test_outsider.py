"""An outsider with raw sockets on the wire between two members of a unicast layer: what it sends in their names costs flows
nothing but time. Real processes, a kernel network stack each.

What it may do where members do not encrypt, and sees the packets, is in `docs/security.md`: there it does not alter them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import logged_no_bug, until

from ouroboros.lab import Lab, describe
from ouroboros.lab.description import Policy
from ouroboros.lab.namespaces import NamespaceGround, lacks

pytestmark = pytest.mark.slow

#: Frames of each kind, from each end; and what a node may have more after them, bytes.
COUNT = 3000
MORE = 48 << 20
#: What is sent, and what layers or flows count then; the last only where members encrypt.
PLAIN = {"replay": "replayed", "reflect": "unknown", "stranger": "wrong_source", "blind": "unknown", "noise": "short"}
ENCRYPTED = {**PLAIN, "altered": "rejected"}
#: So many frames at least are there when a node looks, whatever else it does: what its socket holds.
SEEN = 32

SERVER = """
from ouroboros.dev import flow_accept
while True:
    with flow_accept(name="clock") as flow:
        try:
            while True:
                flow.write(flow.read())
        except Exception:
            pass
"""
#: Counts, there and back, until it is told to stop; then says how far it has come.
CLIENT = """
import select, sys
from ouroboros.dev import flow_alloc
from ouroboros.qos import QoSSpec
with flow_alloc("clock", QoSSpec(loss=0, in_order=1, cypher_s=256), wait=True) as flow:
    print("ready", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for each in range(number, number + 8):
            flow.write(each.to_bytes(8) * 60)
        for each in range(number, number + 8):
            assert flow.read() == each.to_bytes(8) * 60, each
        number += 8
    before = number
    sys.stdin.readline()
    for each in range(number, number + 100):
        flow.write(each.to_bytes(8))
        assert flow.read() == each.to_bytes(8), each
print(before, flush=True)
"""


class Attack:
    """A line of nodes with a flow along it, and an outsider at each end of the first link."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        assert isinstance(lab.ground, NamespaceGround)
        self.ground = lab.ground
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        program = str(Path(__file__).parents[1] / "outsider.py")
        ends = [lab[each] for each in lab.link("a", "b").ends]
        self.outsiders = [
            end.start(sys.executable, program, "veth0", str(seed), **pipes) for seed, end in enumerate(ends)
        ]
        for said in [heard(each) for each in self.outsiders]:
            if isinstance(said, dict):
                pytest.skip(said["lacks"])
        lab.c.offer("clock")
        lab.c.start(sys.executable, "-c", SERVER)
        self._pipes = pipes

    def client(self) -> subprocess.Popen[str]:
        program = self.lab.a.start(sys.executable, "-c", CLIENT, **self._pipes)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    def send(self, kind: str, count: int) -> None:
        """From both ends at once."""
        for each in self.outsiders:
            tell(each, f"{kind} {count}")
        assert [heard(each) for each in self.outsiders] == [count, count]

    def captured(self) -> int:
        for each in self.outsiders:
            tell(each, "capture")
        return min(int(str(heard(each))) for each in self.outsiders)

    def counted(self, what: str) -> int:
        """Of all layers and flows at both ends and behind."""
        counters = [ipcp.counters for node in self.lab for ipcp in node.ipcps()]
        counters += [flow.counters for node in self.lab for flow in node.flows()]
        return sum(int(each.get(what, 0)) for each in counters)

    def memory(self) -> dict[str, int]:
        """Bytes that nodes have."""
        return {node.name: _resident(self.ground.pid(node.name)) for node in self.lab}


def _resident(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def tell(program: subprocess.Popen[str], line: str) -> None:
    assert program.stdin is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()


def heard(program: subprocess.Popen[str]) -> object:
    assert program.stdout is not None
    return json.loads(program.stdout.readline())


@pytest.fixture(params=[False, True], ids=["in clear", "encrypted"])
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    """Whether members encrypt what they say to each other."""
    if reason := lacks():
        pytest.skip(reason)
    network = describe("a - b - c")
    if request.param:
        layer = network.layers[-1].name
        policies = tuple(Policy(each, layer, side, encryption=()) for each in "abc" for side in ("server", "client"))
        network = replace(network, policies=policies)
    with Lab(network, clock="namespaces") as lab:
        yield Attack(lab)
        for node in lab:
            assert logged_no_bug(node.log)
            assert len(node.log.splitlines()) < 200


def test_flows_outlive_whatever_an_outsider_sends_in_the_name_of_members(
    attack: Attack, request: pytest.FixtureRequest
) -> None:
    lab, kinds = attack.lab, ENCRYPTED if "encrypted" in request.node.name else PLAIN
    # It has seen a member go and come, with all that is said then.
    lab.b.restart()
    lab.converge()
    client = attack.client()
    until(lambda: attack.captured() > 200)
    memory = attack.memory()
    for kind, what in kinds.items():
        before = attack.counted(what)
        attack.send(kind, COUNT)
        until(lambda: attack.counted(what) >= before + SEEN)  # noqa: B023 - called at once
    tell(client, "stop")
    assert client.stdout is not None
    assert int(client.stdout.readline()) > 0
    assert client.wait() == 0
    # Nor is anything left of it: the network is what it was, and there are new flows.
    lab.converge()
    assert lab.a.ping("c").path == ("a", "b", "c")
    for each in "ab":
        assert all(ipcp.state == "operational" and "restored" not in ipcp.counters for ipcp in lab[each].ipcps())
    after = attack.memory()
    assert all(after[each] < memory[each] + MORE for each in after), (memory, after)
