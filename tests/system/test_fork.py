"""Programs that fork: flows stay the parent's, and the child can have its own."""

from __future__ import annotations

import pytest
from support import Background, NodeProcess, Program, Programs, node_info, until, users_of

from ouroboros.dev import (
    Flow,
    FlowDownException,
    FlowNameException,
    FlowPeerException,
    flow_alloc,
)
from ouroboros.runtime import client
from ouroboros.wire.control import ListNames

#: A server that forks after it accepted a flow; `child` is what the child does.
PARENT = """
f = flow_accept(name="parent")
f.write(b"before")
hear()
pid = os.fork()
if pid == 0:
{child}
_, status = os.waitpid(pid, 0)
say(os.waitstatus_to_exitcode(status))
f.write(b"after")
say(f.read())
f.dealloc()
"""


def fork(programs: Programs, child: str) -> tuple[Program, Flow]:
    indented = "\n".join(f"    {line}" for line in child.strip().splitlines())
    parent = programs.start(PARENT.format(child=indented), name="parent")
    parent.until_asleep("node")
    while True:
        try:
            return parent, flow_alloc("parent")
        except LookupError:
            # It was only saying hello.
            continue


def parent_is_unharmed(parent: Program, flow: Flow, status: int = 0) -> None:
    assert parent.line() == status
    assert [flow.read(), flow.read()] == [b"before", b"after"]
    flow.write(b"still there")
    assert parent.line() == b"still there"
    with pytest.raises(FlowDownException) as caught:
        flow.read()
    assert not isinstance(caught.value, FlowPeerException)
    assert parent.process.wait() == 0
    assert parent.errors() == ""


REFUSED = """
calls = [
    lambda: f.read(), lambda: f.readline(), lambda: f.read_many(), lambda: f.readinto(bytearray(1)),
    lambda: f.write(b"child"), lambda: f.writeline("child"), lambda: f.write_many([b"child"]),
    lambda: f.fileno(), lambda: f.set_flags(FlowProperties.Down), lambda: f.get_rx_queue_len(),
]
for call in calls:
    try:
        call()
        os._exit(1)
    except FlowException as error:
        if "fork" not in str(error):
            os._exit(2)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("child", "status"),
    [
        (REFUSED, 0),
        ("os._exit(7)", 7),
        ("sys.exit(7)", 7),
        ("f.dealloc(); os._exit(7)", 7),
        ("f.dealloc(); sys.exit(7)", 7),
        ("with f: pass\nsys.exit(7)", 7),
        ("f = None; import gc; gc.collect(); sys.exit(7)", 7),
        ("os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(7)'])", 7),
        ("if os.fork() == 0: sys.exit(0)\nos.wait(); sys.exit(7)", 7),
    ],
    ids=["every call", "_exit", "exit", "dealloc", "dealloc and exit", "with", "collected", "exec", "grandchild"],
)
def test_a_child_cannot_use_or_harm_the_flow_of_its_parent(
    node: NodeProcess, programs: Programs, child: str, status: int
) -> None:
    parent, flow = fork(programs, child)
    with flow:
        parent.tell("go")
        parent_is_unharmed(parent, flow, status)


def test_a_child_allocates_and_accepts_flows_of_its_own(node: NodeProcess, programs: Programs) -> None:
    acceptor = programs.shell("acceptor")
    acceptor.begin_blocked("f = flow_accept(name='other')", "node")
    child = """
with flow_alloc("other") as own:
    own.write(b"from the child")
with flow_accept(name="child") as own:
    own.write(own.read())
sys.exit(0)
"""
    parent, flow = fork(programs, child)
    with flow:
        parent.tell("go")
        acceptor.answer()
        assert acceptor.do("f.read()") == b"from the child"
        while True:
            try:
                echo = flow_alloc("child")
                break
            except LookupError:
                continue
        with echo:
            echo.write(b"to the child")
            assert echo.read() == b"to the child"
        parent_is_unharmed(parent, flow)


def test_multiprocessing_with_fork_works_beside_flows(node: NodeProcess, programs: Programs) -> None:
    parent = programs.start(
        """
        import multiprocessing

        def work(number):
            try:
                f.write(b"from a worker")
            except FlowException:
                return number * number

        f = flow_accept(name="parent")
        hear()
        with multiprocessing.get_context("fork").Pool(3) as pool:
            say(pool.map(work, range(20)))
        f.write(b"first packet")
        f.dealloc()
        """
    )
    parent.until_asleep("node")
    until(lambda: "parent" in [name.name for name in client.request(ListNames())])
    with flow_alloc("parent") as flow:
        parent.tell("go")
        assert parent.line() == [number * number for number in range(20)]
        assert flow.read() == b"first packet"
        assert parent.process.wait() == 0
        assert parent.errors() == ""


def test_a_child_that_lives_on_does_not_hide_that_its_parent_was_killed(node: NodeProcess, programs: Programs) -> None:
    reader, writer = programs.shell("reader"), programs.shell("writer")
    flows = []
    for shell in (reader, writer):
        shell.begin_blocked(f"f = flow_accept(name='{shell.pid}')", "node")
        flows.append(flow_alloc(str(shell.pid)))
        shell.answer()
        # The child holds copies of all descriptors and waits for ever.
        shell.do("pid = os.fork()\nif pid == 0: signal.pause()")
    with flows[0] as near_writer, flows[1] as near_reader:
        blocked_reader = Background(near_reader.read)
        blocked_reader.until_asleep("poll")
        blocked_writer = Background(lambda: [near_writer.write(bytes(60_000)) for _ in range(1000)])
        blocked_writer.until_asleep("room")
        writer.process.kill()
        with pytest.raises(FlowPeerException):
            blocked_reader.result()
        reader.process.kill()
        with pytest.raises(FlowPeerException):
            blocked_writer.result()
    # What the test is about: the children were there all the time.
    assert len(set(users_of(node.directory)) - {node.pid, reader.pid, writer.pid}) == 2


def test_a_child_does_not_keep_a_withdrawn_request_alive(node: NodeProcess, programs: Programs) -> None:
    shell = programs.shell()
    shell.do("t = threading.Thread(target=lambda: flow_accept(name='shell'), daemon=True); t.start()")
    shell.until_asleep("node", shell.do("t.native_id"))
    shell.do("pid = os.fork()\nif pid == 0: signal.pause()")
    shell.kill()
    until(lambda: node_info().processes == 1)
    with pytest.raises(FlowNameException, match="has ended"):
        flow_alloc("shell", timeo=0)


FORKING_SERVER = """
from ouroboros.server import {kind}, FlowRequestHandler

class Handler(FlowRequestHandler):
    def handle(self):
        self.flow.writeline(f"{{os.getpid()}}")

with {kind}("served", Handler) as server:
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    say("serves")
    hear()
    pid = os.fork()
    if pid == 0:
        {child}
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say([os.getpid(), os.waitstatus_to_exitcode(status)])
    hear()
    server.shutdown()
    serving.join()
"""


@pytest.mark.parametrize("kind", ["FlowServer", "ThreadingFlowServer"])
@pytest.mark.parametrize("child", ["server.server_close()", "server.shutdown()", "server.__exit__(None, None, None)"])
def test_a_child_that_ends_the_server_of_its_parent_ends_its_own_copy(
    node: NodeProcess, programs: Programs, kind: str, child: str
) -> None:
    parent = programs.start(FORKING_SERVER.format(kind=kind, child=child), name="parent")
    assert parent.line() == "serves"
    parent.tell("fork")
    pid, status = parent.line()
    assert status == 0
    with flow_alloc("served") as flow:
        assert flow.readline() == f"{pid}"
    parent.tell("end")
    assert parent.process.wait() == 0
    assert parent.errors() == ""


def test_a_child_serves_with_the_server_of_its_parent(node: NodeProcess, programs: Programs) -> None:
    child = "server.handle_request(); server.server_close()"
    source = FORKING_SERVER.format(kind="FlowServer", child=child).replace("    serving.start()\n", "")
    parent = programs.start(source.replace("    serving.join()\n", ""), name="parent")
    assert parent.line() == "serves"
    parent.tell("fork")
    with flow_alloc("served", wait=True) as flow:
        answered_by = flow.readline()
    pid, status = parent.line()
    assert status == 0
    assert answered_by != f"{pid}"
    parent.tell("end")
    assert parent.process.wait() == 0
