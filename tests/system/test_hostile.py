"""A peer that breaks every rule of the memory and the socket that it shares harms its own flow and nothing else."""

from __future__ import annotations

import contextlib
import random
import select
from collections.abc import Iterator

import pytest
from support import Background, NodeProcess, Program, Programs, Shell, forever, node_info

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowException,
    FlowPermissionException,
    FlowTimeoutException,
    flow_alloc,
)

#: A program that has its flow as bare descriptors: `memory`, mapped as `view`, and the socket `bell`.
ATTACHED = """
import mmap, random, socket
from ouroboros.wire import control as messages
from ouroboros.wire.control import Accept, Hello, encode

control = socket.socket(socket.AF_UNIX)
control.connect(os.environ["OUROBOROS_RUNTIME_DIR"] + "/irm.sock")
control.sendall(encode(Hello(messages.VERSION, "hostile", 1)))
control.recv(1000)
control.sendall(encode(Accept("hostile", None)))
say("accepting")
data, (memory, bell), _, _ = socket.recv_fds(control, 1000, 2)
view = mmap.mmap(memory, 0)
bell = socket.socket(fileno=bell)
bell.setblocking(False)
random.seed(int(sys.argv[1]))
say("attached")
hear()

def ring(count=1):
    try:
        for _ in range(count):
            bell.send(b"!")
    except OSError:
        pass
"""

#: What it then does for ever.
ATTACKS = {
    "everything": "while True: view[:] = random.randbytes(len(view))",
    "control words": "while True: view[8:4096] = random.randbytes(4088); ring()",
    "one word at a time": """
while True:
    at = 8 * random.randrange(1, 512)
    view[at:at + 8] = random.choice([
        bytes(8), b"\\xff" * 8, random.randbytes(8), random.randrange(1 << 24).to_bytes(8, "little"),
        (8 * random.randrange(1 << 20)).to_bytes(8, "little"),
    ])
    ring()
""",
    "lengths": """
while True:
    at = 8 * random.randrange(1, len(view) // 8)
    view[at:at + 4] = random.choice([b"\\xff" * 4, bytes(4), random.randbytes(4), (1 << 20).to_bytes(4, "little")])
    ring()
""",
    "zeros": "while True: view[8:] = bytes(len(view) - 8); ring()",
    "states": "while True: view[8:16] = random.randbytes(8); ring()",
    "tokens": "while True: ring(1000)",
    "takes tokens": """
while True:
    try: bell.recv(4096)
    except OSError: pass
""",
    "half a hang-up": "bell.shutdown(socket.SHUT_WR); signal.pause()",
    "the other half": "bell.shutdown(socket.SHUT_RD); signal.pause()",
    "urgent byte": "bell.send(b'!', socket.MSG_OOB)\nwhile True: signal.pause()",
}


@pytest.fixture
def bystanders(node: NodeProcess, programs: Programs) -> tuple[Shell, Shell]:
    """Two programs with a flow `f` of their own."""
    one, two = programs.shell("one"), programs.shell("two")
    one.begin_blocked("f = flow_accept(name='one')", "node")
    two.do("f = flow_alloc('one')")
    one.answer()
    return one, two


@contextlib.contextmanager
def attacked(programs: Programs, attack: str, seed: int) -> Iterator[tuple[Flow, Program]]:
    hostile = programs.start(ATTACHED + attack, str(seed), name="hostile")
    assert hostile.line() == "accepting"
    while True:
        try:
            flow = flow_alloc("hostile")
            break
        except LookupError:
            continue
    with flow:
        assert hostile.line() == "attached"
        yield flow, hostile


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_scribbling_peer_neither_crashes_nor_hangs_us_nor_harms_others(
    programs: Programs, bystanders: tuple[Shell, Shell], attack: str, seed: int
) -> None:
    one, two = bystanders
    one.begin("for _ in range(1000): f.write(f.read())")
    two.begin("for n in range(1000):\n f.write(b'%d' % n)\n assert f.read() == b'%d' % n")
    rng = random.Random(seed)
    with attacked(programs, ATTACKS[attack], seed) as (flow, hostile):
        flow.set_rcv_timeout(0.001)
        flow.set_snd_timeout(0.001)
        calls = [
            flow.read,
            lambda: flow.read(10),
            lambda: flow.readinto(bytearray(100)),
            flow.read_many,
            flow.readline,
            lambda: flow.write(rng.randbytes(rng.randrange(1, 5000))),
            lambda: flow.write(bytes(1 << 20)),
            lambda: flow.write_many([b"x" * 100] * 100),
            flow.get_rx_queue_len,
            flow.get_tx_queue_len,
            flow.fileno,
        ]
        hostile.tell("attack")
        down = 0
        for _ in range(400):
            try:
                rng.choice(calls)()
            except (FlowDownException, FlowTimeoutException, FlowPermissionException, UnicodeDecodeError) as error:
                # Nothing else may come of it.
                down += isinstance(error, FlowDownException)
        hostile.kill()
        # What is left is finite, and then there is an end.
        flow.set_rcv_timeout(None)
        with pytest.raises((FlowDownException, FlowPermissionException)):
            forever(flow.read)
    one.answer()
    two.answer()
    two.do("f.write(b'unharmed')")
    assert one.do("f.read()") == b"unharmed"


@pytest.mark.parametrize("attack", ["everything", "control words", "half a hang-up"])
def test_a_blocked_call_ends_when_a_scribbling_peer_is_killed(
    programs: Programs, bystanders: tuple[Shell, Shell], attack: str
) -> None:
    with attacked(programs, ATTACKS[attack], 3) as (flow, hostile):
        reader = Background(lambda: forever(flow.read))
        writer = Background(lambda: forever(lambda: flow.write(bytes(60_000))))
        hostile.tell("attack")
        for _ in range(100):
            node_info()
        hostile.kill()
        for waiting in (reader, writer):
            with pytest.raises((FlowDownException, FlowPermissionException)):
                waiting.result()


@pytest.mark.parametrize("change", ["os.ftruncate(memory, 0)", "os.ftruncate(memory, 1 << 30)"])
def test_the_memory_cannot_be_resized(programs: Programs, node: NodeProcess, change: str) -> None:
    attack = f"""
try:
    {change}
    say("resized")
except OSError as error:
    say(type(error).__name__)
"""
    with attacked(programs, attack, 1) as (_, hostile):
        hostile.tell("attack")
        assert hostile.line() == "PermissionError"


def test_a_polled_flow_ends_in_a_descriptor_that_is_readable(programs: Programs, node: NodeProcess) -> None:
    with attacked(programs, ATTACKS["control words"], 5) as (flow, hostile):
        flow.set_rcv_timeout(0)
        descriptor = flow.fileno()
        hostile.tell("attack")
        for _ in range(100):
            with contextlib.suppress(FlowException):
                flow.read()
        hostile.kill()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll()
