"""What tests of encrypted flows with the C prototype have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass

from interop.conftest import World
from interop.hosts import PORT, Program
from interop.test_frcp import PATIENCE
from support import Background

from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.qos import QoSSpec
from ouroboros.wire import udp
from ouroboros.wire.udp import FlowReply, FlowRequest

MARKER = bytes(range(65, 91)) + b"-in-clear-"
SPEC = {"delay": 0, "loss": 1, "ber": 1, "max_gap": 1000, "timeout": 120_000}
#: The prototype takes note of whom it has asked after it has asked, and drops an answer that comes sooner: then it is asked
#: again, after so many seconds.
ATTEMPTS, OVERTAKEN, TIMED_OUT = 4, 5, -110


@dataclass(frozen=True)
class Suite:
    """What an `enc.conf` asks for."""

    kex: str = "X25519"
    cipher: str = "aes-256-gcm"
    kdf: str = "sha256"

    def __str__(self) -> str:
        return f"{self.kex}, {self.cipher}, {self.kdf}"

    def conf(self) -> str:
        return f"kex={self.kex}\ncipher={self.cipher}\nkdf={self.kdf}\n"


class Watcher:
    """Sees all that crosses between the hosts."""

    def __init__(self, world: World) -> None:
        self._command = world.ours.script("watch.py", "o7", str(PORT))
        assert self._command.line() == "ready"

    def seen(self) -> list[bytes]:
        """Datagrams of flows since the last time."""
        return self._asked("")

    def requests(self) -> list[FlowRequest]:
        """Requests for flows since the last time."""
        return [found for found in map(udp.decode, self._asked("management")) if isinstance(found, FlowRequest)]

    def _asked(self, what: str) -> list[bytes]:
        self._command.tell(what)
        return [bytes.fromhex(datagram) for datagram in json.loads(self._command.line())]


class Stranger:
    """Somebody with an address of his own in the network of our host."""

    def __init__(self, world: World) -> None:
        self._command = world.ours.script("stranger.py", world.addresses.near, str(PORT))
        assert self._command.line() == "ready"

    def asks(self, address: str, request: FlowRequest) -> FlowReply:
        """What the layer at that address answers."""
        self._command.tell(json.dumps([address, request.encode().hex()]))
        reply = udp.decode(bytes.fromhex(json.loads(self._command.line())))
        assert isinstance(reply, FlowReply)
        return reply


def encrypt(world: World, suite: Suite) -> None:
    """Both hosts want this for the names of both."""
    for host in (world.ours, world.theirs):
        for path in ("client/theirs", "server/theirs", "client/ours", "server/ours", "client/oping", "server/oping"):
            host.configure(f"{path}/enc.conf", suite.conf())


def to_them(world: World, program: Program, qos: QoSSpec | None = None) -> tuple[Flow, int]:
    """A flow from us to their program, with the number that it has there."""
    program.begin("accept", 30)
    flow = flow_alloc("theirs", qos)
    accepted, _ = program.answer()
    assert accepted >= 0
    program.do("timeouts", accepted, PATIENCE)
    flow.set_rcv_timeout(2 * PATIENCE)
    return flow, accepted


def from_them(program: Program, spec: dict[str, int] = SPEC) -> tuple[Flow, int]:
    """A flow from their program to us."""
    for _ in range(ATTEMPTS):
        waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))
        allocated = int(program.do("alloc", "ours", spec, OVERTAKEN))
        flow = waiting.result()
        if allocated != TIMED_OUT:
            break
        flow.dealloc()
    assert allocated >= 0, allocated
    program.do("timeouts", allocated, PATIENCE)
    flow.set_rcv_timeout(2 * PATIENCE)
    return flow, allocated


def refusal(program: Program) -> int:
    """With what their program is refused."""
    for _ in range(ATTEMPTS):
        error = int(program.do("alloc", "ours", SPEC, OVERTAKEN))
        if error != TIMED_OUT:
            break
    return error


def talk(flow: Flow, program: Program, number: int) -> None:
    """Say something in each direction."""
    program.begin("echo", number, 2)
    for packet in (MARKER, MARKER[:1]):
        flow.write(packet)
        assert flow.read() == packet
    assert program.answer() == [2, 0]


def suite_of(flow: Flow) -> str:
    assert flow.security is not None
    return flow.security.suite
