"""The end of a program whose threads are still in calls: it is silent, its peers are told, its exit status is right."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import cycle

import pytest
from support import Background, NodeProcess, Programs, forever

from ouroboros.dev import FlowDownException
from ouroboros.server import FlowRequestHandler, ThreadingFlowServer

#: What a thread does that nobody waits for, each with a flow `f` to the test, which reads nothing.
THREADS = {
    "read": "f.read()",
    "read in time": "f.set_rcv_timeout(3600); f.read()",
    "readline": "f.readline()",
    "read many": "f.read_many()",
    "iterate": "list(f)",
    "write": "forever(lambda: f.write(bytes(50_000)))",
    "write many": "f.write_many([bytes(50_000)] * 1000)",
    "never still": "never_still(f)",
    "file": "f.makefile('rb').read()",
    "temporary": "flow_alloc('exits').read()",
    "allocate": "forever(lambda: flow_alloc('exits').dealloc())",
    "accept": "flow_accept(name='nobody')",
    "set": "event.FlowSet([f]).wait(event.FEventQueue())",
    "events": "events(event.FlowSet([f]), event.FEventQueue())",
    "poll": "poll(f)",
    "serve": "server.FlowServer('served', server.FlowRequestHandler).serve_forever()",
    "threads": "server.ThreadingFlowServer('threads', server.FlowRequestHandler).serve_forever()",
    "handle": "server.FlowServer('handled', server.FlowRequestHandler).handle_request()",
    "asyncio": "asyncio.run(awaited())",
    "asyncio busy": "asyncio.run(busy())",
    "asyncio serve": "asyncio.run(aio.serve('awaiting', write))",
    "trio": "trio.run(awaited)",
    "trio busy": "trio.run(busy)",
}

#: Those that allocate flows themselves.
ALLOCATING = {"temporary", "allocate", "asyncio", "asyncio busy", "trio", "trio busy"}

PROGRAM = """
import asyncio, select
import anyio, trio
from ouroboros import aio, event, server

def forever(call):
    while True:
        call()

def never_still(f):
    f.set_flags(FlowProperties.ReadWrite | FlowProperties.NonBlocking)
    while True:
        try:
            f.write(b"x")
            f.read()
        except FlowWouldBlockException:
            pass

def events(flows, queue):
    while True:
        flows.wait(queue)
        for f, kind in queue:
            f.read()

def poll(f):
    poller = select.poll()
    poller.register(f, select.POLLIN)
    while True:
        poller.poll()
        f.read()

async def write(f):
    while True:
        await f.write(bytes(50_000))

async def awaited():
    f = await aio.flow_alloc("exits")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, f)
        await f.read()

async def busy():
    here = []
    async with anyio.create_task_group() as tasks:
        f = await aio.flow_alloc("exits")
        while True:
            with anyio.move_on_after(0):
                await f.write(b"x")
                await f.read()

def run(code, f, begun):
    begun.set()
    exec(code, globals() | {"f": f})

flows = []
for code in sys.argv[2:]:
    flows.append(flow_alloc("exits"))
    begun = threading.Event()
    threading.Thread(target=run, args=(code, flows[-1], begun), daemon=True).start()
    begun.wait()
exec(sys.argv[1])
"""

#: How the program ends, with which status, and the last line of what it says then.
ENDS = {
    "falls off its end": ("", 0, []),
    "exits": ("sys.exit(3)", 3, []),
    "fails": ("1 / 0", 1, ["ZeroDivisionError: division by zero"]),
    "works on": ("for _ in range(200): flow_alloc('exits').dealloc()", 0, []),
}


class Ends:
    """The other ends of the flows of a program: what they saw when it had ended."""

    def __init__(self) -> None:
        self._gone = threading.Event()
        #: One of them is there.
        self.begun = threading.Event()
        self.seen: list[type] = []
        gone, seen, begun = self._gone, self.seen, self.begun

        class Handler(FlowRequestHandler):
            def handle(self) -> None:
                begun.set()
                gone.wait()
                try:
                    forever(self.flow.read)
                except FlowDownException as end:
                    seen.append(type(end))

        self._server = ThreadingFlowServer("exits", Handler)
        self._loop = Background(self._server.serve_forever)

    def close(self) -> None:
        self._gone.set()
        self._server.shutdown()
        self._loop.result()
        self._server.server_close()


@pytest.fixture
def ends(node: NodeProcess) -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(("thread", "end"), list(zip(THREADS, cycle(ENDS))))
def test_a_program_ends_in_silence_whatever_its_threads_do(
    ends: Ends, programs: Programs, thread: str, end: str
) -> None:
    how, status, last = ENDS[end]
    program = programs.start(PROGRAM, how, THREADS[thread])
    assert program.finish() == status, program.errors()
    assert program.errors().splitlines()[-1:] == last, program.errors()
    ends.begun.wait()
    ends.close()
    # A flow that the program was just about to get has died with it; those that it had were given back.
    assert FlowDownException in ends.seen
    assert set(ends.seen) == {FlowDownException} or thread in ALLOCATING


#: What is done with a flow `f` when the modules of a program are taken apart: what a file has buffered is written then, and
#: objects that it made go.
LATE = {
    "text file": "kept = f.makefile('w'); kept.write('late')",
    "text file both ways": "kept = f.makefile('rw'); kept.write('late')",
    "file": "kept = f.makefile('wb'); kept.write(b'late')",
    "read": "kept = Late(lambda: f.read())",
    "write": "kept = Late(lambda: f.write(b'late'))",
    "write any buffer": "kept = Late(lambda: f.write(bytearray(b'late')))",
    "many": "kept = Late(lambda: f.write_many([bytearray(b'late')]))",
    "flags": "kept = Late(lambda: f.set_flags(FlowProperties.ReadWrite))",
    "deallocate": "kept = Late(lambda: (f.dealloc(), f.read()))",
    "ask": "kept = Late(lambda: f.get_rx_queue_len())",
}

LATE_PROGRAM = """
class Late:
    def __init__(self, act):
        self.act = act

    def __del__(self, refused=FlowNotAllocatedException):
        try:
            self.act()
        except refused:
            pass

f = flow_alloc("exits")
exec(sys.argv[1])
"""


@pytest.mark.parametrize("late", LATE)
def test_a_flow_is_used_while_the_interpreter_ends(ends: Ends, programs: Programs, late: str) -> None:
    program = programs.start(LATE_PROGRAM, LATE[late])
    assert (program.finish(), program.errors()) == (0, "")
    ends.close()
    assert ends.seen == [FlowDownException]
